//! Bytes as lower-case hexadecimal digits, without the cost of formatting each byte.

/// `N` digits of ASCII.
#[derive(Clone, Copy)]
pub struct Digits<const N: usize>([u8; N]);

impl<const N: usize> Digits<N> {
    /// Two digits for each of `bytes`, of which there are half of `N`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [b'0'; N];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(digits)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_two_digits() {
        for byte in 0..=u8::MAX {
            let digits = Digits::<2>::new(&[byte]);
            assert_eq!(digits.as_str(), format!("{byte:02x}"));
        }
        assert_eq!(Digits::<6>::new(&[0, 0xab, 0x10]).as_str(), "00ab10");
    }
}

//! Bytes as lower-case hexadecimal digits, without the cost of formatting each byte.

/// The two digits of every byte.
static PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// `N` digits of ASCII.
#[derive(Clone, Copy)]
pub struct Digits<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Digits<N> {
    /// Two digits for each of `bytes`, of which there are half of `N`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut digits = [b'0'; N];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
        }
        Self(digits)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl<const N: usize> AsRef<[u8]> for Digits<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes of twice as many digits, of either case; none for anything else.
pub fn parse<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_either_case_are_read_and_nothing_else() {
        assert_eq!(parse(b"00abAB10"), Some([0, 0xab, 0xab, 0x10]));
        for digits in [&b""[..], b"0", b"000", b"0g", b"+1", b" 1", b"\xff0"] {
            assert_eq!(parse::<1>(digits), None, "{digits:?}");
        }
    }

    #[test]
    fn every_byte_has_its_two_digits() {
        for byte in 0..=u8::MAX {
            let digits = Digits::<2>::new(&[byte]);
            assert_eq!(digits.as_str(), format!("{byte:02x}"));
        }
        assert_eq!(Digits::<6>::new(&[0, 0xab, 0x10]).as_str(), "00ab10");
    }
}

//! Random numbers that follow from a first one: names of operations and attempts, and how long one waits.
//!
//! SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): no number comes twice before all have come.

/// A sequence of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The one that follows from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Sixteen random bytes.
    pub(super) fn bytes(&mut self) -> [u8; 16] {
        let (high, low) = (self.number(), self.number());
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }
}

//! Numbers that look random and are the same on every run.

/// Steele, Lea and Flood's SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers for one concern of a seed. Those of other concerns stay what they are, however many
    /// of these are drawn: FNV-1a over the concern's name, and the seed mixed into that.
    pub fn of(seed: u64, concern: &str) -> Self {
        let bytes = concern.bytes();
        let name = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mixed = Self(seed);
        Self(mixed.number() ^ name)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// One of these, of which there is one at least.
    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concern_has_the_same_numbers_every_time_and_others_than_its_neighbours() {
        let first = |seed, concern| Random::of(seed, concern).number();
        assert_eq!(first(7, "plan"), first(7, "plan"));
        let all = [first(7, "plan"), first(7, "plant"), first(8, "plan")];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }
}

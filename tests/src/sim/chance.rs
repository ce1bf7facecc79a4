//! What is left to chance: how likely something is, and how long something takes.
//!
//! All of it is whole numbers. Logarithms and powers of floating-point numbers may differ from
//! one machine to the next, and a seed means the same everywhere.

use std::time::Duration;

use crate::random::Random;

/// How likely something is, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Chance(u32);

impl Chance {
    /// It does not happen.
    pub const NEVER: Self = Self(0);

    /// So many times in a million.
    pub const fn in_a_million(times: u32) -> Self {
        Self(times)
    }

    /// So many times in a hundred.
    pub const fn percent(times: u32) -> Self {
        Self(times * 10_000)
    }

    /// Whether it happens this time.
    pub fn happens(self, random: &mut Random) -> bool {
        random.below(1_000_000) < self.0 as usize
    }

    /// One between this and `most`, both included.
    pub fn up_to(self, most: Self, random: &mut Random) -> Self {
        Self(self.0 + random.below((most.0.max(self.0) - self.0) as usize + 1) as u32)
    }
}

/// Spans of time from the shorter to the longer, all equally likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub shortest: Duration,
    pub longest: Duration,
}

impl Span {
    /// From so many microseconds to so many.
    pub const fn us(shortest: u64, longest: u64) -> Self {
        Self {
            shortest: Duration::from_micros(shortest),
            longest: Duration::from_micros(longest),
        }
    }

    /// From so many milliseconds to so many.
    pub const fn ms(shortest: u64, longest: u64) -> Self {
        Self::us(shortest * 1_000, longest * 1_000)
    }

    /// One of them.
    pub fn draw(self, random: &mut Random) -> Duration {
        let range = self.longest.saturating_sub(self.shortest).as_nanos() as usize;
        self.shortest + Duration::from_nanos(random.below(range + 1) as u64)
    }
}

/// How long a datagram is under way: about `usual`, and now and then very much longer.
///
/// The tail is that of a Pareto distribution: half of those that are late are more than twice as
/// late, half of these more than four times, and so on up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    pub usual: Span,
    pub late: Chance,
    pub longest: Duration,
}

impl Delay {
    /// How long it takes this time.
    pub fn draw(self, random: &mut Random) -> Duration {
        let usual = self.usual.draw(random);
        if !self.late.happens(random) {
            return usual;
        }
        // One doubling, and one more for each bit up to the first that is set.
        let doublings = random.number().trailing_zeros().min(24) + 1;
        let fraction = random.below(1 << 10) as u32;
        let late = usual * (1 << doublings);
        (late + late / (1 << 10) * fraction).min(self.longest.max(usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_likely_happens_about_as_often() {
        let mut random = Random::new(1);
        let mut count = |chance: Chance| {
            let times = (0..100_000).filter(|_| chance.happens(&mut random));
            times.count()
        };
        assert_eq!(count(Chance::NEVER), 0);
        assert_eq!(count(Chance::percent(100)), 100_000);
        assert!((24_000..26_000).contains(&count(Chance::percent(25))));
        assert!((50..150).contains(&count(Chance::in_a_million(1_000))));
    }

    #[test]
    fn a_tail_is_heavy_and_ends_at_its_longest() {
        let usual = Span::us(100, 200);
        let longest = Duration::from_secs(1);
        let late = Chance::percent(100);
        let delay = Delay {
            usual,
            late,
            longest,
        };
        let mut random = Random::new(1);
        let drawn: Vec<Duration> = (0..100_000).map(|_| delay.draw(&mut random)).collect();
        let beyond = |ms| {
            let limit = Duration::from_millis(ms);
            drawn.iter().filter(|span| **span >= limit).count()
        };
        assert!(drawn.iter().all(|span| *span >= usual.shortest));
        assert_eq!(drawn.iter().max(), Some(&longest));
        let (ten, twenty) = (beyond(10), beyond(20));
        assert!(ten > 500 && twenty * 3 > ten && twenty * 3 < ten * 2);
    }
}

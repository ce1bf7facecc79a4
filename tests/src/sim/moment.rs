//! The world's own time.
//!
//! The code under test takes [`Instant`]s, and those can be had from the system alone. So a process
//! takes one, once, and every moment of every world is so much after it. Nothing that is decided
//! or told depends on when it was.

use std::fmt;
use std::ops::Add;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A time in a world: nanoseconds since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The beginning of a world.
    pub const START: Self = Self(0);

    /// The same time for the code under test.
    pub fn instant(self) -> Instant {
        base() + Duration::from_nanos(self.0)
    }

    /// What an instant of the code under test is here; the beginning, if it is before that.
    pub fn of(instant: Instant) -> Self {
        Self::START + instant.saturating_duration_since(base())
    }

    /// How long ago `earlier` was; nothing, if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

impl fmt::Display for Moment {
    /// In milliseconds, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0 / 1_000;
        f.pad(&format!("{}.{:03} ms", us / 1_000, us % 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_the_way_to_the_code_under_test_and_back() {
        let moment = Moment(1_234_567_891);
        assert_eq!(Moment::of(moment.instant()), moment);
        assert_eq!(moment.to_string(), "1234.567 ms");
        let later = moment + Duration::from_nanos(9);
        assert_eq!(later.since(moment), Duration::from_nanos(9));
        assert_eq!(moment.since(later), Duration::ZERO);
    }
}

//! A gateway's wall clock, which need not be right.

use std::time::Duration;

use super::datagram::TRUE_START_MS;
use super::moment::Moment;

/// A clock that is off, gains or loses, and is set now and then.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    ahead_ms: i64,
    gains_us: i64,
}

impl WallClock {
    /// A clock that is ahead by so much at the world's beginning, and gains so many microseconds
    /// each second.
    pub fn new(ahead_ms: i64, gains_us: i64) -> Self {
        Self { ahead_ms, gains_us }
    }

    /// What it shows, in milliseconds since 1970.
    pub fn unix_ms(&self, now: Moment) -> u64 {
        let elapsed = now.since(Moment::START);
        let gained_ms = elapsed.as_millis() as i64 * self.gains_us / 1_000_000;
        let shown = TRUE_START_MS as i64 + elapsed.as_millis() as i64 + self.ahead_ms + gained_ms;
        u64::try_from(shown).unwrap_or(0)
    }

    /// It is set: ahead or back.
    pub fn jump(&mut self, by: Duration, is_ahead: bool) {
        let by_ms = by.as_millis() as i64;
        self.ahead_ms += if is_ahead { by_ms } else { -by_ms };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_gains_and_jumps() {
        let hour = Duration::from_secs(3_600);
        let now = Moment::START + Duration::from_secs(10);
        let mut clock = WallClock::new(-5, 200_000);
        assert_eq!(clock.unix_ms(Moment::START), TRUE_START_MS - 5);
        assert_eq!(clock.unix_ms(now), TRUE_START_MS + 10_000 + 2_000 - 5);
        clock.jump(hour, false);
        assert_eq!(clock.unix_ms(Moment::START), TRUE_START_MS - 5 - 3_600_000);
        clock.jump(hour, true);
        assert_eq!(clock.unix_ms(Moment::START), TRUE_START_MS - 5);
    }
}

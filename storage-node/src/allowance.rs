//! How much background work may take: so many bytes a second, and as many at once as half a second allows.

use std::time::{Duration, Instant};

/// What may be taken now. It may be overdrawn by what is on its way, and recovers with time.
#[derive(Debug)]
pub(crate) struct Allowance {
    bytes_per_second: u64,
    /// What is left, in bytes; less than nothing after more came than was left.
    left: i64,
    /// Of when that is.
    at: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            left: 0,
            at: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        let most = (self.bytes_per_second / 2).clamp(1, i64::MAX as u64) as i64;
        let Some(at) = self.at.replace(now) else {
            self.left = most;
            return;
        };
        let micros = now.saturating_duration_since(at).as_micros();
        let more = micros * u128::from(self.bytes_per_second) / 1_000_000;
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        if more == 0 {
            // What is too little to count stays to be counted.
            self.at = Some(at);
        }
        self.left = self.left.saturating_add(more).min(most);
    }

    /// When there is something left: now, or later.
    pub(crate) fn ready_at(&mut self, now: Instant) -> Instant {
        self.refill(now);
        if self.left > 0 || self.bytes_per_second == 0 {
            return now;
        }
        let owed = self.left.unsigned_abs() + 1;
        let micros = owed.saturating_mul(1_000_000) / self.bytes_per_second + 1;
        now + Duration::from_micros(micros)
    }

    /// So many bytes came.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_is_allowed_than_the_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(1_000);
        let (mut now, mut pulled) = (start, 0);
        while now < start + Duration::from_secs(10) {
            now = allowance.ready_at(now);
            allowance.spend(300);
            pulled += 300;
        }
        assert!((10_000..=10_900).contains(&pulled), "{pulled}");
    }

    #[test]
    fn many_short_waits_are_worth_as_much_as_a_long_one() {
        let start = Instant::now();
        let mut allowance = Allowance::new(1_000);
        assert_eq!(allowance.ready_at(start), start);
        allowance.spend(600);
        for micros in 0..99_999 {
            let now = start + Duration::from_micros(micros);
            assert!(allowance.ready_at(now) > now);
        }
        let now = start + Duration::from_millis(102);
        assert_eq!(allowance.ready_at(now), now);
    }
}

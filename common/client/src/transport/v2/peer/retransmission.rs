//! When to send a request again: the round trip to a server, and the timeout that follows from it
//! (RFC 6298), backed off and spread.

use std::time::Duration;

/// The shortest retransmission timeout. RFC 6298 asks for a second, which suits the Internet. A
/// storage server on a local network answers in well under a millisecond, and the retry budget
/// bounds what a short timeout can do to a slow one.
const RTO_MIN: Duration = Duration::from_millis(5);

/// The longest retransmission timeout.
const RTO_MAX: Duration = Duration::from_secs(1);

/// The retransmission timeout before the first measurement.
pub(in crate::transport::v2) const RTO_INITIAL: Duration = Duration::from_millis(50);

/// The round trip to a server, and a random source that spreads the retransmissions of many
/// clients.
#[derive(Debug)]
pub(super) struct RetransmissionTimer {
    round_trip: RoundTrip,
    random: u64,
}

impl RetransmissionTimer {
    pub(super) fn new(random: u64) -> Self {
        Self {
            round_trip: RoundTrip::default(),
            random,
        }
    }

    /// Adds a measurement of a request that was sent once (Karn's algorithm).
    pub(super) fn sample(&mut self, round_trip: Duration) {
        self.round_trip.sample(round_trip);
    }

    /// The smoothed round trip; none before the first measurement.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// The timeout of a request that was sent once, before it is spread.
    pub(super) fn timeout(&self) -> Duration {
        self.round_trip.timeout()
    }

    /// How long to wait for a reply after the transmission with this number, the first being 1.
    pub(super) fn wait_after(&mut self, transmissions: u32) -> Duration {
        let random = self.random();
        self.round_trip.backed_off(transmissions, random)
    }

    /// Whether a reply this long after a transmission must answer an earlier one.
    pub(super) fn is_sooner_than_possible(&self, after: Duration) -> bool {
        self.smoothed().is_some_and(|smoothed| after < smoothed / 2)
    }

    /// A linear congruential generator (Knuth's MMIX). It only has to differ between peers.
    fn random(&mut self) -> u8 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 56) as u8
    }
}

/// The smoothed round trip and its variation, in nanoseconds.
#[derive(Debug, Clone, Default)]
struct RoundTrip {
    smoothed: Option<u64>,
    variation: u64,
}

impl RoundTrip {
    /// Adds a measurement. It has to be unambiguous: of a request that was sent once (Karn's
    /// algorithm).
    fn sample(&mut self, round_trip: Duration) {
        let round_trip = nanoseconds(round_trip);
        match self.smoothed {
            None => {
                self.smoothed = Some(round_trip);
                self.variation = round_trip / 2;
            }
            Some(smoothed) => {
                self.variation = (3 * self.variation + smoothed.abs_diff(round_trip)) / 4;
                self.smoothed = Some((7 * smoothed + round_trip) / 8);
            }
        }
    }

    /// The smoothed round trip; none before the first measurement.
    fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(Duration::from_nanos)
    }

    /// The retransmission timeout.
    fn timeout(&self) -> Duration {
        match self.smoothed {
            None => RTO_INITIAL,
            Some(smoothed) => {
                Duration::from_nanos(smoothed + 4 * self.variation).clamp(RTO_MIN, RTO_MAX)
            }
        }
    }

    /// The wait after a request was sent `transmissions` times. It doubles each time, up to
    /// [`RTO_MAX`]; `random`, 0 to 255, adds up to a quarter, so that many clients do not retransmit
    /// at once.
    fn backed_off(&self, transmissions: u32, random: u8) -> Duration {
        let doublings = transmissions.saturating_sub(1).min(16);
        let wait = nanoseconds(self.timeout()) << doublings;
        let wait = wait.min(nanoseconds(RTO_MAX));
        Duration::from_nanos(wait + wait * u64::from(random) / 1_024)
    }
}

/// A round trip or a timeout in nanoseconds; an hour of a longer one, so that sums are numbers, too.
fn nanoseconds(duration: Duration) -> u64 {
    const LONGEST: Duration = Duration::from_secs(3_600);
    duration.min(LONGEST).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_measurements_follow_the_rfc() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.timeout(), RTO_INITIAL);
        round_trip.sample(ms(100));
        assert_eq!(round_trip.smoothed(), Some(ms(100)));
        assert_eq!(round_trip.timeout(), ms(100) + 4 * ms(50));
        round_trip.sample(ms(60));
        assert_eq!(round_trip.smoothed(), Some(ms(95)));
        assert_eq!(
            round_trip.timeout(),
            ms(95) + 4 * Duration::from_micros(47_500)
        );
    }

    #[test]
    fn waits_stay_within_their_bounds_and_double() {
        let mut round_trip = RoundTrip::default();
        for _ in 0..50 {
            round_trip.sample(Duration::from_micros(80));
        }
        assert_eq!(round_trip.timeout(), RTO_MIN);
        assert_eq!(round_trip.backed_off(1, 0), RTO_MIN);
        assert_eq!(round_trip.backed_off(2, 0), 2 * RTO_MIN);
        assert_eq!(round_trip.backed_off(3, 0), 4 * RTO_MIN);
        assert_eq!(round_trip.backed_off(u32::MAX, 0), RTO_MAX);
        assert!(round_trip.backed_off(1, 255) < 5 * RTO_MIN / 4);
        round_trip.sample(Duration::from_secs(100));
        assert_eq!(round_trip.timeout(), RTO_MAX);
    }
}

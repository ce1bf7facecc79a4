//! When to send a request again: the timeout of RFC 6298, backed off and spread.

use std::time::Duration;

use super::round_trip::RoundTrip;

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

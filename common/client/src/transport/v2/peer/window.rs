//! How many bytes may be on their way to a server (RFC 8085).

use std::time::{Duration, Instant};

/// The window at the start, in bytes.
pub(super) const WINDOW_BYTES_INITIAL: usize = 64 << 10;

/// The smallest window, in bytes: a few datagrams of the default size.
pub(super) const WINDOW_BYTES_MIN: usize = 4 << 10;

/// The largest window, in bytes: what the socket of a well configured server buffers.
pub(super) const WINDOW_BYTES_MAX: usize = 4 << 20;

/// A congestion window in bytes. It doubles each round trip until the first loss; then it grows by a
/// datagram a round trip and is halved by a loss (AIMD, which RFC 8085 asks of UDP applications).
#[derive(Debug, Clone)]
pub(super) struct Window {
    datagram_bytes: usize,
    bytes_max: usize,
    limit: usize,
    in_flight: usize,
    /// Below this size the window doubles each round trip.
    doubling_below: usize,
    /// Answered bytes times datagram bytes that have not become growth yet.
    credit: usize,
    /// Losses until then do not halve the window again.
    recovering_until: Option<Instant>,
    /// `bytes_max` and `doubling_below` before the last loss.
    before_loss: Option<(usize, usize)>,
}

impl Window {
    /// A window for datagrams of up to `datagram_bytes` bytes. It starts with
    /// [`WINDOW_BYTES_INITIAL`], or two datagrams if that is more, and never exceeds `limit` bytes.
    pub(super) fn new(datagram_bytes: usize, limit: usize) -> Self {
        let limit = limit.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        Self {
            datagram_bytes,
            bytes_max: WINDOW_BYTES_INITIAL.max(2 * datagram_bytes).min(limit),
            limit,
            in_flight: 0,
            doubling_below: WINDOW_BYTES_MAX,
            credit: 0,
            recovering_until: None,
            before_loss: None,
        }
    }

    /// Forgets what was in flight and what was learned, as [`Self::new`] begins.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.datagram_bytes, self.limit);
    }

    /// Whether `bytes` more may be sent. With nothing in flight, any number may.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.in_flight == 0 || self.in_flight + bytes <= self.bytes_max
    }

    /// Bytes sent and neither answered nor given up.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The most that may be in flight.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// `bytes` were sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.in_flight += bytes;
    }

    /// `bytes` were answered.
    pub(super) fn answered(&mut self, bytes: usize) {
        // A window that was hardly used is not known to be sustainable (RFC 7661).
        if self.in_flight * 2 >= self.bytes_max {
            let grown = if self.bytes_max < self.doubling_below {
                bytes
            } else {
                self.credit += self.datagram_bytes * bytes;
                let grown = self.credit / self.bytes_max;
                self.credit %= self.bytes_max;
                grown
            };
            self.bytes_max = (self.bytes_max + grown).min(self.limit);
        }
        self.given_up(bytes);
    }

    /// `bytes` do not count as in flight any more.
    pub(super) fn given_up(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// A request was not answered in time. Halves the window, at most once a round trip.
    pub(super) fn lost(&mut self, now: Instant, round_trip: Duration) {
        if self.recovering_until.is_some_and(|until| now < until) {
            return;
        }
        self.recovering_until = Some(now + round_trip);
        self.before_loss = Some((self.bytes_max, self.doubling_below));
        self.bytes_max = (self.bytes_max / 2).max(WINDOW_BYTES_MIN);
        self.doubling_below = self.bytes_max;
    }

    /// The last loss was none: the reply was only late. Undoes the halving, so that a server which
    /// was not scheduled for a while is not mistaken for a congested network (in the spirit of
    /// Eifel, RFC 3522 and 4015).
    pub(super) fn was_late(&mut self) {
        if let Some((bytes_max, doubling_below)) = self.before_loss.take() {
            self.bytes_max = self.bytes_max.max(bytes_max);
            self.doubling_below = self.doubling_below.max(doubling_below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start_of_time;

    const DATAGRAM_BYTES: usize = 1_200;

    #[test]
    fn a_window_takes_what_fits_and_anything_when_it_is_empty() {
        let mut window = Window::new(DATAGRAM_BYTES, WINDOW_BYTES_MAX);
        assert!(window.has_room(WINDOW_BYTES_INITIAL + 1));
        window.sent(WINDOW_BYTES_INITIAL);
        assert!(!window.has_room(1));
        window.given_up(10);
        assert!(window.has_room(10));
        assert!(!window.has_room(11));
    }

    #[test]
    fn a_window_in_use_doubles_until_a_loss_then_creeps() {
        let mut window = Window::new(DATAGRAM_BYTES, WINDOW_BYTES_MAX);
        let round = |window: &mut Window| {
            let full = window.bytes_max();
            window.sent(full);
            for _ in 0..full / 1_024 {
                window.answered(1_024);
            }
            window.bytes_max()
        };
        assert!(round(&mut window) > WINDOW_BYTES_INITIAL * 5 / 4);
        let before = window.bytes_max();
        window.lost(start_of_time(), Duration::from_millis(1));
        let halved = window.bytes_max();
        assert_eq!(halved, before / 2);
        let crept = round(&mut window) - halved;
        assert!(crept > 0 && crept <= DATAGRAM_BYTES, "{crept}");
    }

    #[test]
    fn losses_of_one_round_trip_count_once_and_the_window_never_closes() {
        let mut window = Window::new(DATAGRAM_BYTES, WINDOW_BYTES_MAX);
        let (start, round_trip) = (start_of_time(), Duration::from_millis(10));
        window.lost(start, round_trip);
        window.lost(start + round_trip / 2, round_trip);
        assert_eq!(window.bytes_max(), WINDOW_BYTES_INITIAL / 2);
        for round in 1..100 {
            window.lost(start + round_trip * round, round_trip);
        }
        assert_eq!(window.bytes_max(), WINDOW_BYTES_MIN);
    }

    #[test]
    fn spurious_loss_is_undone_once() {
        let mut window = Window::new(DATAGRAM_BYTES, WINDOW_BYTES_MAX);
        let (start, round_trip) = (start_of_time(), Duration::from_millis(10));
        window.lost(start, round_trip);
        window.was_late();
        assert_eq!(window.bytes_max(), WINDOW_BYTES_INITIAL);
        window.was_late();
        assert_eq!(window.bytes_max(), WINDOW_BYTES_INITIAL);
        window.lost(start + round_trip, round_trip);
        window.lost(start + 2 * round_trip, round_trip);
        window.was_late();
        assert_eq!(window.bytes_max(), WINDOW_BYTES_INITIAL / 2);
    }

    #[test]
    fn a_window_holds_two_of_the_longest_datagrams() {
        assert_eq!(Window::new(60_000, WINDOW_BYTES_MAX).bytes_max(), 120_000);
        assert_eq!(Window::new(60_000, 100_000).bytes_max(), 100_000);
    }

    #[test]
    fn an_idle_window_does_not_grow() {
        let mut window = Window::new(DATAGRAM_BYTES, WINDOW_BYTES_MAX);
        for _ in 0..1_000 {
            window.sent(100);
            window.answered(100);
        }
        assert_eq!(window.bytes_max(), WINDOW_BYTES_INITIAL);
    }
}

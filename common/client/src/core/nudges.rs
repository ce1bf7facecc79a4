//! Nudges: a replica that a write has not reached learns of it from one that has confirmed.
//!
//! ```text
//!   write ends: confirmed by A and B; C pending ------------ put of C answered: nothing
//!                      |                      '--- expired, unreachable ---+
//!                      C unreachable, timed out, busy                      |
//!                      '-------------------------> nudge to A: "C is behind you" <--+
//! ```
//!
//! A passes it on as soon as C can be reached, and C compares itself with A then, instead of when its next
//! comparison is due. A nudge is a hint and nothing else: it confirms nothing, and no write waits for it.
//! If it is lost, the replicas come together some time later.
//!
//! While C is away every write ends so. One nudge for each two servers in [`NUDGE_INTERVAL`] is enough, since
//! A passes it on no sooner than that; see `PASS_ON` of the server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;

use super::request::RequestId;
use crate::id_map::IdMap;

/// A server is told again that another one is behind it after so long.
const NUDGE_INTERVAL: Duration = Duration::from_millis(500);

/// Most puts of writes that have ended that are remembered. Beyond it, those that are remembered tell of the
/// same servers.
const PENDING_MAX: usize = 1_024;

/// Most pairs of servers whose last nudge is remembered.
const PAIRS_MAX: usize = 4_096;

/// The nudges of a core.
#[derive(Debug, Default)]
pub(super) struct Nudges {
    /// Puts that were under way when their write ended, by write and server: who has confirmed.
    pending: IdMap<(RequestId, ServerId), ServerId>,
    /// When a server was told last that another one is behind it: (behind, ahead).
    sent: BTreeMap<(ServerId, ServerId), Instant>,
}

impl Nudges {
    /// The put of a write to `behind` is under way when the write ends, confirmed by `ahead`.
    pub(super) fn remember(&mut self, id: RequestId, behind: ServerId, ahead: ServerId) {
        if self.pending.len() < PENDING_MAX {
            self.pending.insert((id, behind), ahead);
        }
    }

    /// A put has ended. Returns who has confirmed its write, if that had ended before.
    pub(super) fn forget(&mut self, id: RequestId, server: ServerId) -> Option<ServerId> {
        self.pending.remove(&(id, server))
    }

    /// Whether it is time to tell `ahead` that `behind` is behind it; if so, it counts as told.
    pub(super) fn is_due(&mut self, behind: ServerId, ahead: ServerId, now: Instant) -> bool {
        if self.sent.len() >= PAIRS_MAX {
            self.sent.retain(|_, sent| now < *sent + NUDGE_INTERVAL);
        }
        let pair = (behind, ahead);
        let last = self.sent.get(&pair);
        let is_due = match last {
            Some(sent) => now >= *sent + NUDGE_INTERVAL,
            None => self.sent.len() < PAIRS_MAX,
        };
        if is_due {
            self.sent.insert(pair, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start_of_time;

    #[test]
    fn each_two_servers_have_one_nudge_in_an_interval_and_few_are_remembered() {
        let (mut nudges, start) = (Nudges::default(), start_of_time());
        let (a, b) = (ServerId(0), ServerId(1));
        assert!(nudges.is_due(a, b, start));
        assert!(!nudges.is_due(a, b, start));
        assert!(nudges.is_due(b, a, start));
        assert!(nudges.is_due(a, b, start + NUDGE_INTERVAL));
        for number in 2..=u16::MAX {
            nudges.is_due(ServerId(number), a, start);
        }
        assert_eq!(nudges.sent.len(), PAIRS_MAX);
        assert!(nudges.is_due(ServerId(u16::MAX), a, start + NUDGE_INTERVAL));
        assert!(nudges.sent.len() < PAIRS_MAX);
    }
}

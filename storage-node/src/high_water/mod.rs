//! How far the peers of a server have come, as they have told it. A peer that is less far than it was is set
//! back: somebody has put an older copy of its data directory in place. It is told so.
//!
//! A start of a server tells where it began, and how far it has come. It begins where the one before it ended, or
//! further. After whatever it lost or its operator declared, it has another lineage, and begins anywhere. It
//! never goes back to a lineage that it had before.

pub mod file;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddrV4;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dkvs_common::model::HighWater;
use serde::{Deserialize, Serialize};

/// Most lineages of a peer that are remembered beside the one that it has.
const LINEAGES_MAX: usize = 64;

/// What peers have told. Kept in a file by whoever runs the server, so that it outlasts the process.
#[derive(Debug, Default)]
pub struct PeerMarks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<SocketAddrV4, Mark>,
    /// Whether anything is not in the file.
    has_changed: bool,
}

/// The last that a peer has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    lineage: u64,
    boot_id: u64,
    sequence: u64,
    /// The lineages that it had before, the last ones last.
    before: Vec<u64>,
}

impl Mark {
    /// That of a peer that was not known.
    fn first(told: HighWater) -> Self {
        Self {
            lineage: told.lineage,
            boot_id: told.boot_id,
            sequence: told.sequence,
            before: Vec::new(),
        }
    }

    /// Whether a store that is so far in this lineage is set back.
    fn is_beyond(&self, lineage: u64, sequence: u64) -> bool {
        let is_less = self.lineage == lineage && sequence < self.sequence;
        is_less || self.before.contains(&lineage)
    }

    /// The peer is where it was, or further. Returns whether that is new.
    fn advance(&mut self, told: HighWater) -> bool {
        let next = Self::first(told);
        if self.lineage != next.lineage {
            self.before.push(self.lineage);
            let more = self.before.len().saturating_sub(LINEAGES_MAX);
            self.before.drain(..more);
        }
        let is_new = (self.lineage, self.boot_id, self.sequence)
            != (next.lineage, next.boot_id, next.sequence);
        let before = std::mem::take(&mut self.before);
        *self = Self { before, ..next };
        is_new
    }
}

impl PeerMarks {
    /// Takes what was kept.
    ///
    /// # Errors
    ///
    /// If it is not what [`Self::take_changed`] returned. Nothing is taken then.
    pub fn load(&self, text: &str) -> Result<(), serde_json::Error> {
        let peers = serde_json::from_str(text)?;
        self.state().peers = peers;
        Ok(())
    }

    /// What is to be kept; none if that is kept already.
    pub fn take_changed(&self) -> Option<String> {
        let mut state = self.state();
        if !std::mem::take(&mut state.has_changed) {
            return None;
        }
        // Addresses are keys, and numbers are numbers.
        serde_json::to_string_pretty(&state.peers).ok()
    }

    /// Notes how far a peer is. Returns whether it is as far as it was; if not, nothing is noted.
    pub(crate) fn note(&self, told: HighWater) -> bool {
        let mut state = self.state();
        let State { peers, has_changed } = &mut *state;
        match peers.entry(told.server) {
            Entry::Vacant(entry) => {
                entry.insert(Mark::first(told));
                *has_changed = true;
            }
            Entry::Occupied(mut entry) => {
                let mark = entry.get_mut();
                let came = match mark.boot_id == told.boot_id {
                    true => told.sequence,
                    false => told.start,
                };
                if mark.is_beyond(told.lineage, came) {
                    return false;
                }
                *has_changed |= mark.advance(told);
            }
        }
        true
    }

    /// Whether a peer at this address is known to have been further than this, or to have had this lineage
    /// before.
    pub fn is_behind(&self, server: SocketAddrV4, lineage: u64, sequence: u64) -> bool {
        let state = self.state();
        let mark = state.peers.get(&server);
        mark.is_some_and(|mark| mark.is_beyond(lineage, sequence))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lineage: u64, boot_id: u64, start: u64, sequence: u64) -> HighWater {
        HighWater {
            server: "10.0.0.1:4000".parse().unwrap(),
            lineage,
            boot_id,
            start,
            sequence,
        }
    }

    #[test]
    fn a_peer_goes_on_where_it_was_or_has_another_lineage_and_is_set_back_otherwise() {
        let marks = PeerMarks::default();
        for (mark, is_noted) in [
            (told(1, 1, 0, 10), true),
            (told(1, 1, 0, 20), true),
            // Twice, and less far though it was not started again.
            (told(1, 1, 0, 20), true),
            (told(1, 1, 0, 19), false),
            // Started again: where it was, before, and further.
            (told(1, 2, 20, 25), true),
            (told(1, 3, 24, 30), false),
            (told(1, 3, 25, 25), true),
            (told(1, 4, 40, 41), true),
            // It has lost something, and says so.
            (told(2, 5, 3, 4), true),
            (told(2, 6, 3, 9), false),
            // As it was before that.
            (told(1, 6, 50, 50), false),
            (told(3, 7, 0, 0), true),
            (told(2, 8, 9, 9), false),
            (told(3, 9, 0, 1), true),
        ] {
            assert_eq!(marks.note(mark), is_noted, "{mark:?}");
        }
        let server = told(0, 0, 0, 0).server;
        assert!(marks.is_behind(server, 3, 0) && marks.is_behind(server, 2, 99));
        assert!(!marks.is_behind(server, 3, 1) && !marks.is_behind(server, 9, 0));
    }

    #[test]
    fn what_is_kept_is_taken_again_and_nothing_else_is() {
        let marks = PeerMarks::default();
        assert_eq!(marks.take_changed(), None);
        marks.note(told(1, 1, 0, 10));
        marks.note(told(u64::MAX, 2, 0, 7));
        let text = marks.take_changed().unwrap();
        assert_eq!(marks.take_changed(), None);
        let again = PeerMarks::default();
        again.load(&text).unwrap();
        assert!(!again.note(told(1, 3, 99, 99)), "it had that before");
        assert!(again.note(told(u64::MAX, 2, 0, 8)));
        for other in ["", "{", "[]", r#"{"x": 1}"#] {
            assert!(again.load(other).is_err());
        }
        assert!(!again.note(told(1, 3, 99, 99)), "it is as it was");
    }

    #[test]
    fn few_lineages_are_remembered() {
        let marks = PeerMarks::default();
        for lineage in 0..=LINEAGES_MAX as u64 + 1 {
            assert!(marks.note(told(lineage, lineage, 0, 0)));
        }
        assert!(!marks.note(told(1, 99, 0, 0)));
        assert!(marks.note(told(0, 99, 0, 0)), "it was forgotten");
    }
}

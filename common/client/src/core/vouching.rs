//! What servers are to vouch for once they have confirmed a repair whose read has ended.
//!
//! A read is told as soon as it is decided, which is before its repairs are confirmed, as a rule.
//! The puts go on. Without a note of what they are for, a server that has lost records would be
//! given them by every read, and vouch for them only where a read waits for all.
//!
//! A note goes when its put ends, however it ends. If there is no room for one, the next read of
//! the key sees to it.

use super::IdMap;
use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::tag::Tag;

use super::words::RequestId;

/// Most notes that a core keeps.
pub(super) const NOTES_MAX: usize = 1_024;

/// What a server is given by a read that has ended.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) key: Key,
    pub(super) tag: Tag,
    /// When the read began.
    pub(super) started: Instant,
    pub(super) deadline: Instant,
}

/// The notes of a core, by read and server.
#[derive(Debug, Default)]
pub(super) struct Notes(IdMap<(RequestId, ServerId), Note>);

impl Notes {
    /// Keeps a note, if there is room. Of two for the same server the later stays.
    pub(super) fn insert(&mut self, id: RequestId, server: ServerId, note: Note) {
        if self.0.len() < NOTES_MAX {
            self.0.insert((id, server), note);
        }
    }

    pub(super) fn remove(&mut self, id: RequestId, server: ServerId) -> Option<Note> {
        self.0.remove(&(id, server))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

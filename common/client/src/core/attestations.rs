//! Servers that are to attest a key once they have confirmed the write-back of a read that has ended.
//!
//! A read is answered as soon as it is decided, as a rule before its write-backs are confirmed. They
//! go on, and what they are for is kept here: otherwise a server that has lost records would be given
//! them by every read, and attest them only after a read that waits for all.
//!
//! An entry goes when its put ends, however it ends. If there is no room for one, the next read of
//! the key has the server attest it.

use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::tag::Tag;

use super::request::RequestId;
use crate::id_map::IdMap;

/// Most entries that a core keeps.
pub(super) const ATTESTATIONS_MAX: usize = 1_024;

/// What a server is given by a read that has ended.
#[derive(Debug)]
pub(super) struct PendingAttestation {
    pub(super) key: Key,
    pub(super) tag: Tag,
    /// When the read began.
    pub(super) started: Instant,
    pub(super) deadline: Instant,
}

/// Those of a core, by read and server.
#[derive(Debug, Default)]
pub(super) struct Attestations(IdMap<(RequestId, ServerId), PendingAttestation>);

impl Attestations {
    /// Keeps an entry, if there is room. Of two for the same server the later stays.
    pub(super) fn insert(&mut self, id: RequestId, server: ServerId, pending: PendingAttestation) {
        if self.0.len() < ATTESTATIONS_MAX {
            self.0.insert((id, server), pending);
        }
    }

    pub(super) fn remove(&mut self, id: RequestId, server: ServerId) -> Option<PendingAttestation> {
        self.0.remove(&(id, server))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

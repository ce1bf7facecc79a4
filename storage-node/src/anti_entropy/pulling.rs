//! Pulling what is newer at a peer, and what that says of the leaf in which it lies.

use std::sync::{Arc, PoisonError};

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{LeafEntry, ReplicaCommand, ReplicaResponse};
use dkvs_common::record::Content;
use dkvs_common::tag::Tag;

use super::given::record_of;
use super::session::{LeafLook, Session};
use super::state::{AntiEntropy, Asked, Pull};
use crate::leaves::is_compared;
use crate::store::{GivenBy, PutOutcome, PutResult, RecordHead, RecordStore as _};

/// What a record counts beside its key and value, in bytes.
const RECORD_HEAD_BYTES: usize = 64;

/// What it counts at least, in bytes: what it costs to ask for it and to store it, so that many short
/// records take no more of the machine than few long ones.
const RECORD_BYTES_MIN: usize = 512;

impl AntiEntropy {
    /// Asks for a record, unless it is on its way already, or has come meanwhile.
    pub(super) fn pull(&mut self, peer: ServerId, leaf: u32, entry: LeafEntry) {
        let key = entry.key.clone();
        let held = self.service.store().peek(&key);
        let is_due = is_newer(held, &entry) && self.pulling.insert(key.as_bytes().to_vec());
        let Some(session) = self.sessions.get_mut(&peer) else {
            return;
        };
        let tag = entry.version.tag;
        if !is_due {
            // Others pull it, or have: the peer may well be in step by that, and is compared with again.
            session.has_pulled = true;
            return self.end_look_at(peer, leaf, is_held(held, tag));
        }
        session.pulls += 1;
        let pull = Pull {
            from: peer,
            session: session.number,
            leaf,
            key: key.clone(),
            tag,
            bytes: 0,
        };
        self.ask(peer, ReplicaCommand::Get { key }, Asked::Record(pull));
    }

    pub(super) fn handle_record(&mut self, mut pull: Pull, answer: Option<ReplicaResponse>) {
        let Some(record) = answer.and_then(|answer| record_of(&pull.key, answer)) else {
            return self.end_pull(&pull, None);
        };
        pull.bytes = pull.key.as_bytes().len();
        if let Content::Value { value, .. } = &record.content {
            pull.bytes += value.len();
            if value.len() > self.service.config().value_bytes_max {
                return self.end_pull(&pull, None);
            }
        }
        let counted = (pull.bytes + RECORD_HEAD_BYTES).max(RECORD_BYTES_MIN);
        self.allowance.spend(counted);
        if !is_compared(record.tag) || !record.is_sound(&pull.key) {
            return self.end_pull(&pull, None);
        }
        let key = pull.key.clone();
        let (stored, wake) = (Arc::clone(&self.stored), Arc::clone(&self.wake));
        let mut pull = Some(pull);
        let store = self.service.store();
        let result = store.apply_given(&key, &record, GivenBy::Replica, || {
            let pull = pull.take();
            Box::new(move |result| {
                if let Some(pull) = pull {
                    let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
                    stored.push((pull, result));
                }
                wake();
            })
        });
        if let (Some(pull), Some(result)) = (pull, result) {
            self.end_pull(&pull, Some(result));
        }
        self.service.wake_disk();
    }

    pub(super) fn end_pull(&mut self, pull: &Pull, result: Option<PutResult>) {
        self.pulling.remove(pull.key.as_bytes());
        let counters = &self.service.counters;
        let (mut has_pulled, mut has_failed) = (false, false);
        match result {
            Some(Ok(PutOutcome::Stored)) => {
                counters.records_pulled.add(1);
                counters.pulled_bytes.add(pull.bytes as u64);
                has_pulled = true;
            }
            // Something newer has come meanwhile.
            Some(Ok(PutOutcome::Superseded(_))) => {}
            Some(Err(_)) | None => {
                counters.pulls_failed.add(1);
                has_failed = true;
            }
        }
        let held = self.service.store().peek(&pull.key);
        let session = self.sessions.get_mut(&pull.from);
        if let Some(session) = session.filter(|session| session.number == pull.session) {
            session.pulls = session.pulls.saturating_sub(1);
            session.has_pulled |= has_pulled;
            session.has_failed |= has_failed;
            self.end_look_at(pull.from, pull.leaf, is_held(held, pull.tag));
        }
    }

    /// Takes note of a leaf of which all was listed and what was newer was pulled, if it has come to that.
    pub(super) fn end_look(&mut self, peer: ServerId, leaf: u32) {
        let Some(session) = self.sessions.get_mut(&peer) else {
            return;
        };
        let is_ended = |look: &LeafLook| look.is_read && look.pulls == 0;
        if !session.looks.get(&leaf).is_some_and(is_ended) {
            return;
        }
        let look = session.looks.remove(&leaf);
        if look.is_some_and(|look| look.is_covered)
            && let Some(session) = self.sessions.remove(&peer)
        {
            self.note_compared(peer, &session, leaf, 1);
            self.sessions.insert(peer, session);
        }
    }

    /// A record of a leaf was pulled, or was not, and is held then or not.
    fn end_look_at(&mut self, peer: ServerId, leaf: u32, is_held: bool) {
        let session = self.sessions.get_mut(&peer);
        if let Some(look) = session.and_then(|session| session.looks.get_mut(&leaf)) {
            look.pulls = look.pulls.saturating_sub(1);
            look.is_covered &= is_held;
        }
        self.end_look(peer, leaf);
    }

    /// The server holds at least what a peer holds in some leaves, and the peer answers for them.
    pub(super) fn note_compared(
        &mut self,
        peer: ServerId,
        session: &Session,
        first: u32,
        count: u32,
    ) {
        if let Some(completing) = &mut self.completing
            && completing.counts(session.begun)
        {
            let store = self.service.store();
            for leaves in self.leaf_sums.own_leaves(&session.shared, first, count) {
                completing.note_compared(peer, leaves, store);
            }
        }
    }
}

/// Whether what is held of a key is no older than a peer's record with this tag.
pub(super) fn is_held(held: Option<RecordHead>, tag: Tag) -> bool {
    held.is_some_and(|held| is_compared(held.tag) && held.tag >= tag)
}

/// Whether what a peer lists is newer than what is held, or sound where that is damaged.
pub(super) fn is_newer(held: Option<RecordHead>, entry: &LeafEntry) -> bool {
    let version = entry.version;
    if !is_compared(version.tag) {
        return false;
    }
    match held {
        None => true,
        // Which of the two is newer means nothing.
        Some(held) if !is_compared(held.tag) => false,
        Some(held) if held.tag == version.tag => {
            held.is_damaged || (held.checksum == version.checksum && held.born < version.born)
        }
        Some(held) => held.tag < version.tag,
    }
}

//! Mending what is damaged here: the other replicas are asked for the record, one after the other, until one
//! gives it, or a newer one.
//!
//! The store says what is damaged, whoever has found it. What comes takes the place of the damaged record as any
//! that is pulled does, never that of one with a greater tag; a key that is quarantined stays so.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::Position;

use super::given::record_of;
use crate::allowance::Allowance;
use crate::leaves::is_compared;
use crate::service::Service;
use crate::store::disk::DiskStore;
use crate::store::{GivenBy, RecordHead, RecordStore as _, Store};

/// Most records that are asked for at a time.
const MENDS_MAX: usize = 4;

/// What a question counts beside the record that is given, in bytes.
const QUESTION_BYTES: usize = 512;

/// Which damaged records are asked for.
pub(super) struct Mending {
    service: Arc<Service>,
    /// After so long it is looked what is damaged still, once something was.
    interval: Duration,
    again_at: Option<Instant>,
    /// When there is more to ask, if nothing happens before.
    due: Option<Instant>,
    /// The keys that are asked for.
    asked: BTreeSet<Vec<u8>>,
    /// Those that one replica did not give, and that others are to be asked for.
    waiting: VecDeque<Mend>,
}

/// A record that is damaged, and is asked for.
#[derive(Debug)]
pub(super) struct Mend {
    pub(super) key: Key,
    /// Whom else to ask.
    others: VecDeque<ServerId>,
}

impl Mending {
    /// The mending of a server that knows its cluster. `wake` is called when something is found damaged.
    pub(super) fn new(
        service: Arc<Service>,
        interval: Duration,
        wake: &Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        if let Store::Disk(store) = service.store() {
            let wake = Arc::clone(wake);
            // A store that others listen to is looked at when anything else happens.
            let _ = store.set_damage_hook(Box::new(move || wake()));
        }
        Self {
            service,
            interval,
            again_at: None,
            due: None,
            asked: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    fn disk(&self) -> Option<&DiskStore> {
        match self.service.store() {
            Store::Disk(store) => Some(store),
            Store::Memory(_) => None,
        }
    }

    /// When [`Self::poll`] is to be called next, if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.again_at).min()
    }

    /// What to ask a peer for next.
    pub(super) fn poll(
        &mut self,
        allowance: &mut Allowance,
        now: Instant,
    ) -> Option<(ServerId, Mend)> {
        self.due = None;
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.disk()?.find_damaged();
        }
        if self.asked.len() >= MENDS_MAX {
            return None;
        }
        if self.waiting.is_empty() && !self.disk()?.may_have_damaged() {
            return None;
        }
        let allowed_at = allowance.ready_at(now);
        if allowed_at > now {
            self.due = Some(allowed_at);
            return None;
        }
        let next = self.waiting.pop_front().or_else(|| self.take_damaged());
        let Some(mut mend) = next else {
            // A part of the store was looked at.
            self.due = self.disk()?.may_have_damaged().then_some(now);
            return None;
        };
        // What is not mended by then is asked for again.
        self.again_at.get_or_insert(now + self.interval);
        let peer = mend.others.pop_front()?;
        self.asked.insert(mend.key.as_bytes().to_vec());
        Some((peer, mend))
    }

    /// The next key of the store that is damaged, and that others have.
    fn take_damaged(&self) -> Option<Mend> {
        let store = self.disk()?;
        loop {
            let key = store.take_damaged()?;
            if self.asked.contains(key.as_bytes()) || self.damaged(&key).is_none() {
                continue;
            }
            let others = self.others(&key);
            if !others.is_empty() {
                return Some(Mend { key, others });
            }
        }
    }

    /// What is held for a key, if it is damaged, and another replica may have the same.
    fn damaged(&self, key: &Key) -> Option<RecordHead> {
        let held = self.service.store().peek(key);
        held.filter(|held| held.is_damaged && is_compared(held.tag))
    }

    /// The other replicas of a key.
    fn others(&self, key: &Key) -> VecDeque<ServerId> {
        let Some(leaf_sums) = self.service.leaf_sums() else {
            return VecDeque::new();
        };
        let membership = leaf_sums.membership();
        let ring = membership.view.ring();
        let list = ring.preference_list(Position::of_key(key), membership.replication.into());
        let servers = list.iter().map(|point| point.server);
        servers.filter(|it| *it != membership.own).collect()
    }

    /// A peer has answered, or has not in time.
    pub(super) fn handle_answer(
        &mut self,
        mend: Mend,
        answer: Option<ReplicaResponse>,
        allowance: &mut Allowance,
    ) {
        self.asked.remove(mend.key.as_bytes());
        allowance.spend(QUESTION_BYTES);
        let Some(held) = self.damaged(&mend.key) else {
            return;
        };
        let given = answer.and_then(|answer| record_of(&mend.key, answer));
        let given = given.filter(|record| self.may_replace(&mend.key, record, held));
        let Some(record) = given else {
            if !mend.others.is_empty() {
                self.waiting.push_back(mend);
            }
            return;
        };
        allowance.spend(mend.key.as_bytes().len() + value_bytes(&record));
        let store = self.service.store();
        // If it is not stored, it is found damaged again.
        let _ = store.apply_given(&mend.key, &record, GivenBy::Replica, || Box::new(drop));
        self.service.wake_disk();
    }

    fn may_replace(&self, key: &Key, record: &Record, held: RecordHead) -> bool {
        let is_as_new = record.tag >= held.tag || mutants::is_on(Mutant::MendedByOlder);
        is_as_new
            && is_compared(record.tag)
            && value_bytes(record) <= self.service.config().value_bytes_max
            && record.is_sound(key)
    }
}

fn value_bytes(record: &Record) -> usize {
    match &record.content {
        Content::Value { value, .. } => value.len(),
        Content::Tombstone => 0,
    }
}

//! The slots of a durable store: what is accepted lies in the log, and in memory.

use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::slot::{Accepted, Ballot, Slot};
use dkvs_common::tag::Tag;

use super::queue::{NewRecord, Work};
use super::store::{DiskStore, owned_key};
use crate::store::contract::{Completion, Lookup, RecordStore as _, StoreError};
use crate::store::slots::{AcceptResult, Promise, SlotRefusal, Slots};

impl DiskStore {
    /// See [`Store::prepare`](crate::store::Store::prepare).
    pub(in crate::store) fn prepare(
        &self,
        key: &Key,
        base: Tag,
        ballot: Ballot,
    ) -> Lookup<Result<Promise, SlotRefusal>> {
        if !self.answers_for_key(key.as_bytes()) {
            return Lookup::Corrupt;
        }
        Lookup::Found(self.slots.prepare(key, base, ballot, || self.peek(key)))
    }

    /// See [`Store::accept`](crate::store::Store::accept).
    pub(in crate::store) fn accept(
        &self,
        key: &Key,
        base: Tag,
        number: u64,
        accepted: Accepted,
        completion: impl FnOnce() -> Completion<AcceptResult>,
    ) -> Option<Lookup<AcceptResult>> {
        if !self.answers_for_key(key.as_bytes()) {
            return Some(Lookup::Corrupt);
        }
        let held = || self.peek(key);
        let known = self.slots.begin_accept(key, base, number, &accepted, held);
        if let Some(result) = known {
            return Some(Lookup::Found(result));
        }
        let record = NewRecord::of_slot(key.as_bytes(), base, accepted);
        let (bytes, own_key) = (record.bytes(), owned_key(key));
        let enqueued = self.enqueue(bytes, || {
            let (slots, complete) = (Arc::clone(&self.slots), completion());
            let completion = move |result: AcceptResult| {
                // Whether it is accepted after the next start is not known, if the disk failed.
                if result != Err(StoreError::Failed) {
                    slots.settle(own_key.as_bytes());
                }
                complete(result);
            };
            Work::Accept(record, Box::new(completion))
        });
        let refused = enqueued.err()?;
        self.slots.settle(key.as_bytes());
        Some(Lookup::Found(Err(refused)))
    }

    pub(in crate::store) fn slots(&self) -> &Slots {
        &self.slots
    }
}

/// What a slot's value of the log says is accepted.
pub(super) fn accepted_of(log_value: &Bytes) -> Option<Accepted> {
    Slot::decode(log_value).ok()?.into_accepted()
}

//! The slots of a durable store: what is accepted lies in the log, and in memory.

use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::slot::{Accepted, Ballot, Slot};
use dkvs_common::tag::Tag;

use super::queue::{NewRecord, Work};
use super::store::{DiskStore, owned_key};
use crate::store::contract::{Completion, Lookup, RecordStore as _, StoreError};
use crate::store::slots::{
    AcceptRefusal, AcceptResult, HeldVersion, Promise, SlotRefusal, SlotStore,
};

impl DiskStore {
    fn held_version(&self, key: &Key) -> HeldVersion {
        HeldVersion::of(self.peek(key).as_ref())
    }
}

impl SlotStore for DiskStore {
    fn prepare(
        &self,
        key: &Key,
        base: Tag,
        ballot: Ballot,
    ) -> Lookup<Result<Promise, SlotRefusal>> {
        if !self.answers_for_key(key.as_bytes()) {
            return Lookup::Corrupt;
        }
        let held = || self.held_version(key);
        Lookup::Found(self.slots.prepare(key, base, ballot, held))
    }

    fn accept(
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
        let held = || self.held_version(key);
        let begun = self.slots.begin_accept(key, base, number, &accepted, held);
        let refused = match begun {
            Ok(false) => {
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
                match enqueued {
                    Ok(()) => return None,
                    Err(error) => {
                        self.slots.settle(key.as_bytes());
                        Err(error)
                    }
                }
            }
            Ok(true) => Ok(Ok(())),
            Err(AcceptRefusal::Slot(refusal)) => Ok(Err(refusal)),
            Err(AcceptRefusal::Full(full)) => Err(StoreError::Full(full)),
        };
        Some(Lookup::Found(refused))
    }

    fn accepted(&self, key: &Key) -> Option<(Tag, Arc<Accepted>)> {
        self.slots.open(key.as_bytes())
    }

    fn open_slots(&self, after: &[u8], limit: usize) -> Vec<(Bytes, Tag, Ballot)> {
        self.slots.open_after(after, limit)
    }

    fn slot_size(&self) -> (usize, usize) {
        self.slots.size()
    }
}

/// What a slot's value of the log says is accepted.
pub(super) fn accepted_of(log_value: &Bytes) -> Option<Accepted> {
    Slot::decode(log_value).ok()?.into_accepted()
}

//! What is made durable together: puts and removals as they are resolved one after the other.

use std::collections::HashMap;

use bytes::Bytes;
use dkvs_common::record::{Content, Record, RecordVersion};
use dkvs_common::tag::Tag;
use dkvs_log::{Location, ReadError};

use super::accepting::accepted_of;
use super::entry::{IndexEntry, Located};
use super::format::{Kind, flags};
use super::queue::{NewRecord, QueuedPut, Work};
use super::store::DiskStore;
use super::values::Piece;
use crate::store::contract::{
    Completion, GivenBy, PutOutcome, PutResult, RemoveOutcome, RemoveResult, StoreError, resolve,
};
use crate::store::head::TableEntry as _;
use crate::store::slots::{self, AcceptResult, SlotRefusal};
use crate::store::table::overhead_bytes;
use crate::store::view::Part;

/// Changes on their way to the disk, with their results if the disk takes them.
#[derive(Default)]
pub struct Batch {
    /// In the order in which they came.
    pub(super) changes: Vec<Change>,
    /// The newest change of each key.
    by_key: HashMap<Bytes, usize>,
    /// The newest slot of each key.
    slots_by_key: HashMap<Bytes, usize>,
    /// What the entries take in memory, beyond what they replace.
    growth: usize,
    pub(super) items: usize,
    pub(super) item_bytes: usize,
    results: Vec<Pending>,
    /// Whether it is to be noted which parts of the ring are attested.
    pub(super) remembers_attested: bool,
    /// The lineage of a store that is to be set back.
    pub(super) sets_back: Option<u64>,
}

/// A record of the log that is to be written.
pub(super) struct Change {
    pub(super) record: NewRecord,
    /// Whether no later change of the batch takes its place.
    pub(super) is_newest: bool,
    /// Whether it frees more room than it takes, once it is stored.
    pub(super) makes_room: bool,
    /// The change of the same batch whose record it attests, or has a slot for: if that is not stored, this
    /// is not.
    pub(super) relies_on: Option<usize>,
}

/// A result that waits for the disk.
struct Pending {
    result: PendingResult,
    /// The change by which it holds; none if the disk has what it says already.
    change: Option<usize>,
}

enum PendingResult {
    Put(Completion<PutResult>, PutResult),
    Remove(Completion<RemoveResult>, RemoveResult),
    Accept(Completion<AcceptResult>, AcceptResult),
}

/// What a key will have after the changes before.
#[derive(Debug, Clone, Copy)]
struct Held {
    version: RecordVersion,
    is_damaged: bool,
    is_quarantined: bool,
    /// The change that makes it so.
    change: Option<usize>,
}

impl Batch {
    /// One of so many items of so many bytes, none of which is resolved yet.
    pub(super) fn of(items: usize, item_bytes: usize) -> Self {
        Self {
            items,
            item_bytes,
            ..Self::default()
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a change to the batch, with its result for the case that the disk takes the batch.
    pub(super) fn add(&mut self, work: Work, store: &DiskStore) {
        let before = self.changes.len();
        let (result, relies_on) = match work {
            Work::Put(put, completion) => {
                let (result, relies_on) = self.put(put, store);
                (PendingResult::Put(completion, result), relies_on)
            }
            Work::Remove {
                key,
                tag,
                completion,
            } => {
                let (result, relies_on) = self.remove(key.as_bytes(), tag, store);
                (PendingResult::Remove(completion, result), relies_on)
            }
            Work::Accept(record, completion) => {
                let result = self.accept(record, store);
                (PendingResult::Accept(completion, Ok(result)), None)
            }
            Work::RememberAttested => {
                self.remembers_attested = true;
                return;
            }
            Work::SetBack { lineage } => {
                self.sets_back = Some(lineage);
                return;
            }
        };
        let added = (self.changes.len() > before).then_some(before);
        let change = added.or(relies_on);
        self.results.push(Pending { result, change });
    }

    /// Returns as well by which change of the batch the result holds, if it adds none.
    fn put(&mut self, put: QueuedPut, store: &DiskStore) -> (PutResult, Option<usize>) {
        let mut given_by = GivenBy::Client;
        let record = match put {
            QueuedPut::Record(record, by) => {
                given_by = by;
                record
            }
            QueuedPut::Next { key, content, mint } => {
                let held = self.held(store, key.as_bytes());
                match mint(held.map_or(Tag::ZERO, |held| held.version.tag)) {
                    Ok(tag) => NewRecord::of(key.as_bytes(), &Record::new(&key, tag, content)),
                    Err(_) => return (Err(StoreError::NoTag), None),
                }
            }
            QueuedPut::Anew {
                key,
                location,
                log_value,
            } => {
                let located = store.table().read_bytes(&key, Located::of);
                let located = located.filter(|it| it.location == location);
                // A change of the same batch says something newer, or the same and is not damaged.
                if let Some(located) = located.filter(|_| !self.by_key.contains_key(&key)) {
                    let head = located.stored;
                    let record = NewRecord {
                        key,
                        head,
                        log_value,
                    };
                    self.push(record, store);
                }
                return (Ok(PutOutcome::Stored), None);
            }
            QueuedPut::Attested(key, value) => {
                let attested = self.attested(key.as_bytes(), value, store);
                let attests = self.by_key.get(key.as_bytes()).copied();
                let taken = attested.and_then(|record| self.take(record, false, store));
                if let (Ok(()), Some(change)) = (taken, self.changes.last_mut()) {
                    change.relies_on = attests;
                }
                return (taken.map(|()| PutOutcome::Stored), None);
            }
        };
        let held = self.held(store, &record.key);
        let mut is_quarantined = !store.answers_for_key(&record.key);
        if let Some(held) = held {
            let put = record.head.version();
            if let Some(put) = resolve(held.version, || !held.is_damaged, put, given_by) {
                return (Ok(put), held.change);
            }
            is_quarantined = store.is_quarantined(&record.key, held.is_quarantined);
        }
        let record = quarantined(record, is_quarantined);
        let taken = self.take(record, held.is_none(), store);
        (taken.map(|()| PutOutcome::Stored), None)
    }

    /// Takes a slot into the batch, if the version is still held that it follows.
    fn accept(&mut self, record: NewRecord, store: &DiskStore) -> Result<(), SlotRefusal> {
        let held = self.held(store, &record.key);
        let held = held.map_or(Tag::ZERO, |held| held.version.tag);
        slots::check(held, record.head.tag)?;
        let relies_on = self.by_key.get(&record.key).copied();
        self.push(record, store);
        if let Some(change) = self.changes.last_mut() {
            change.relies_on = relies_on;
        }
        Ok(())
    }

    /// The record that is held for a key, as one that is not quarantined.
    fn attested(
        &self,
        key: &[u8],
        value: Option<(Location, Bytes)>,
        store: &DiskStore,
    ) -> Result<NewRecord, StoreError> {
        if let Some(change) = self.by_key.get(key) {
            let record = self.changes[*change].record.clone();
            return match record.head.kind {
                Kind::Removal => Err(StoreError::Failed),
                _ => Ok(quarantined(record, false)),
            };
        }
        let located = store.table().read_bytes(key, Located::of);
        let located = located.ok_or(StoreError::Failed)?;
        let value = value.filter(|(location, _)| *location == located.location);
        let value = match value {
            Some((_, value)) => Ok(value),
            // It was moved or replaced since it was read, or could not be read then.
            None => {
                let read = store.values.read(key, &located, Part::Whole);
                read.map(Piece::into_bytes)
            }
        };
        match value {
            Ok(log_value) => Ok(quarantined(
                NewRecord {
                    key: Bytes::copy_from_slice(key),
                    head: located.stored,
                    log_value,
                },
                false,
            )),
            Err(ReadError::OutOfFiles(_)) => Err(StoreError::OutOfFiles),
            Err(_) => {
                store.note_damage(key, located.location);
                Err(StoreError::Failed)
            }
        }
    }

    /// What a key will have after the batch; none if it has no record then.
    fn held(&self, store: &DiskStore, key: &[u8]) -> Option<Held> {
        if let Some(&change) = self.by_key.get(key) {
            let head = &self.changes[change].record.head;
            return (head.kind != Kind::Removal).then_some(Held {
                version: head.version(),
                is_damaged: false,
                is_quarantined: head.flags & flags::QUARANTINED != 0,
                change: Some(change),
            });
        }
        store.table().read_bytes(key, |held| {
            let head = held.head();
            Held {
                version: head.version(),
                is_damaged: head.is_damaged,
                is_quarantined: head.is_quarantined,
                change: None,
            }
        })
    }

    /// Takes a record into the batch, if there is room for its entry in memory.
    fn take(
        &mut self,
        record: NewRecord,
        is_new: bool,
        store: &DiskStore,
    ) -> Result<(), StoreError> {
        let growth = match is_new {
            true => IndexEntry::bytes_of(&record.key) + overhead_bytes(record.key.len()),
            false => 0,
        };
        if growth > 0 {
            store.table().check_room(self.growth + growth)?;
        }
        self.growth += growth;
        self.push(record, store);
        Ok(())
    }

    fn push(&mut self, record: NewRecord, store: &DiskStore) {
        let held_bytes = store
            .table()
            .read_bytes(&record.key, |held| held.location().bytes);
        let bytes = record.record_bytes();
        let makes_room = match record.head.kind {
            Kind::Removal | Kind::Manifest => true,
            // One of a key that is not there frees nothing.
            Kind::Tombstone => held_bytes.is_some(),
            Kind::Value => held_bytes.is_some_and(|held_bytes| bytes <= held_bytes),
            Kind::Slot => held_bytes.is_some() && is_of_tombstone(&record),
        };
        let number = self.changes.len();
        let (tag, key) = (record.head.tag, record.key.clone());
        let older = match record.head.kind {
            Kind::Slot => self.slots_by_key.insert(key, number),
            _ => {
                // A slot ends with the version that it follows.
                if let Some(&slot) = self.slots_by_key.get(&key)
                    && self.changes[slot].record.head.tag != tag
                {
                    self.changes[slot].is_newest = false;
                    self.slots_by_key.remove(&key);
                }
                self.by_key.insert(key, number)
            }
        };
        if let Some(older) = older {
            self.changes[older].is_newest = false;
        }
        self.changes.push(Change {
            record,
            is_newest: true,
            makes_room,
            relies_on: None,
        });
    }

    fn remove(&mut self, key: &[u8], tag: Tag, store: &DiskStore) -> (RemoveResult, Option<usize>) {
        let held = self.held(store, key);
        let held_tag = held.map(|held| held.version.tag);
        if held_tag != Some(tag) {
            let change = self.by_key.get(key).copied();
            return (Ok(RemoveOutcome::Kept(held_tag)), change);
        }
        self.push(NewRecord::of_removal(key, tag), store);
        (Ok(RemoveOutcome::Removed), None)
    }

    /// Those changes that have to be written if all are.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|it| it.is_newest)
    }

    /// Gives the results to their completions. Of each change `is_stored` says whether the disk took
    /// it, or why not.
    pub(super) fn complete(self, is_stored: impl Fn(usize) -> Result<(), StoreError>) {
        for Pending { result, change } in self.results {
            let stored = change.map_or(Ok(()), &is_stored);
            match result {
                PendingResult::Put(completion, result) => {
                    completion(result.and_then(|put| stored.map(|()| put)));
                }
                PendingResult::Remove(completion, result) => {
                    completion(result.and_then(|removed| stored.map(|()| removed)));
                }
                PendingResult::Accept(completion, result) => {
                    completion(result.and_then(|accepted| stored.map(|()| accepted)));
                }
            }
        }
    }

    /// For a mutant: confirms the puts before they are stored.
    pub(super) fn confirm_puts(&mut self) {
        let is_put = |it: &Pending| matches!(it.result, PendingResult::Put(..));
        let (puts, others) = std::mem::take(&mut self.results)
            .into_iter()
            .partition(is_put);
        self.results = others;
        let puts: Vec<Pending> = puts;
        for Pending { result, .. } in puts {
            if let PendingResult::Put(completion, result) = result {
                completion(result);
            }
        }
    }
}

impl Change {
    /// Whether it still says something new, given the tag that is held now: an earlier one of the
    /// batch may not have been stored.
    pub(super) fn still_applies(&self, held: Option<Tag>) -> bool {
        match self.record.head.kind {
            Kind::Removal => held == Some(self.record.head.tag),
            Kind::Slot => held.unwrap_or(Tag::ZERO) == self.record.head.tag,
            _ => held <= Some(self.record.head.tag),
        }
    }
}

/// Whether what a slot says is accepted deletes the key.
fn is_of_tombstone(slot: &NewRecord) -> bool {
    let accepted = accepted_of(&slot.log_value);
    accepted.is_some_and(|accepted| accepted.record.content == Content::Tombstone)
}

/// The record as it is to be stored, quarantined or not.
fn quarantined(mut record: NewRecord, is_quarantined: bool) -> NewRecord {
    record.head.flags &= !flags::QUARANTINED;
    if is_quarantined {
        record.head.flags |= flags::QUARANTINED;
    }
    record
}

//! What is made durable together: puts as they are resolved one after the other, or removals.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use dkvs_common::record::Record;
use dkvs_common::tag::Tag;

use super::queue::{QueuedPut, Work};
use super::row::Row;
use super::store::DiskStore;
use crate::store::contract::{
    Completion, PutOutcome, PutResult, RemoveOutcome, RemoveResult, StoreError, resolve,
};
use crate::store::packed::PackedRecord;
use crate::store::table::overhead_bytes;

/// What a commit may take of the disk beyond twice its records.
const COMMIT_BYTES: u64 = 512 << 10;

/// What values leave free, so that keys can be deleted on a full disk.
const RESERVE_BYTES: u64 = 1 << 20;

/// Puts or removals on their way to the disk, with their results if the disk takes them.
#[derive(Default)]
pub struct Batch {
    /// The newest record of each key, in the order in which their keys came first.
    pub(super) records: Vec<PackedRecord>,
    /// Which of them is a key's.
    by_key: HashMap<Box<[u8]>, usize>,
    /// Keys whose records are to be forgotten, with their tags.
    pub(super) removed: Vec<(Box<[u8]>, Tag)>,
    removed_keys: HashSet<Box<[u8]>>,
    /// What the records take in memory, beyond what they replace.
    growth: usize,
    /// What they take in the log.
    pub(super) row_bytes: u64,
    pub(super) items: usize,
    pub(super) item_bytes: usize,
    pub(super) puts: Vec<(Completion<PutResult>, PutResult)>,
    removals: Vec<(Completion<RemoveResult>, RemoveResult)>,
}

/// What the records of a batch are resolved by.
#[derive(Clone, Copy)]
pub(super) struct BatchContext<'a> {
    pub(super) store: &'a DiskStore,
    /// What the disk has room for, in bytes.
    pub(super) room: u64,
    pub(super) is_log_open: bool,
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
        self.records.is_empty() && self.removed.is_empty()
    }

    /// Whether a record of the batch takes the place of what is held for a key.
    pub(super) fn replaces(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// Whether the key's record is to be forgotten.
    pub(super) fn removes(&self, key: &[u8]) -> bool {
        self.removed_keys.contains(key)
    }

    /// Adds a change to the batch, with its result for the case that the disk takes the batch.
    pub(super) fn add(&mut self, work: Work, context: BatchContext<'_>) {
        match work {
            Work::Put(put, completion) => {
                let result = self.put(put, context);
                self.puts.push((completion, result));
            }
            Work::Remove {
                key,
                tag,
                completion,
            } => {
                let result = self.remove(key.as_bytes(), tag, context);
                self.removals.push((completion, result));
            }
        }
    }

    fn put(&mut self, put: QueuedPut, context: BatchContext<'_>) -> PutResult {
        let mut packed = match put {
            QueuedPut::Record(packed) => packed,
            QueuedPut::Next { key, content, mint } => {
                let held = self.held(context.store, key.as_bytes(), PackedRecord::tag);
                match mint(held.unwrap_or(Tag::ZERO)) {
                    Ok(tag) => PackedRecord::new(&key, &Record::new(&key, tag, content)),
                    Err(_) => return Err(StoreError::NoTag),
                }
            }
            QueuedPut::Attested(key) => {
                let sound = |held: &PackedRecord| held.is_sound().then(|| held.duplicate());
                let held = self.held(context.store, key.as_bytes(), sound);
                let Some(mut packed) = held.flatten() else {
                    return Err(StoreError::Failed);
                };
                packed.set_quarantined(false);
                return self.take(packed, context);
            }
        };
        let (tag, checksum) = (packed.tag(), packed.checksum());
        let resolved = |held: &PackedRecord| (resolve(held, tag, checksum), held.is_quarantined());
        let is_quarantined = match self.held(context.store, packed.key(), resolved) {
            Some((Some(put), _)) => return Ok(put),
            Some((None, is_quarantined)) => is_quarantined,
            None => !context.store.status.is_complete.load(Ordering::Relaxed),
        };
        packed.set_quarantined(is_quarantined);
        self.take(packed, context)
    }

    /// What `view` makes of the key's record as it will be after the batch.
    fn held<R>(
        &self,
        store: &DiskStore,
        key: &[u8],
        view: impl FnOnce(&PackedRecord) -> R,
    ) -> Option<R> {
        match self.by_key.get(key) {
            Some(place) => Some(view(&self.records[*place])),
            None => store.table().read_bytes(key, view),
        }
    }

    /// Takes a record into the batch, if there is room for it on the disk and in memory.
    fn take(&mut self, packed: PackedRecord, context: BatchContext<'_>) -> PutResult {
        let BatchContext { store, room, .. } = context;
        let row_bytes = self.row_bytes + Row::bytes_of(&packed);
        let reserve = match packed.is_tombstone() {
            true => 0,
            false => RESERVE_BYTES,
        };
        let is_full = !context.is_log_open || room < 2 * row_bytes + COMMIT_BYTES + reserve;
        if is_full || reserve > 0 {
            let is_disk_full = &store.status.is_disk_full;
            is_disk_full.store(is_full, Ordering::Relaxed);
        }
        if is_full {
            return Err(StoreError::DiskFull);
        }
        let held_bytes = self.held(store, packed.key(), PackedRecord::bytes);
        let entry_bytes = match held_bytes {
            Some(_) => packed.bytes(),
            None => packed.bytes() + overhead_bytes(packed.key().len()),
        };
        let growth = entry_bytes.saturating_sub(held_bytes.unwrap_or(0));
        if growth > 0 {
            store.table().check_room(self.growth + growth)?;
        }
        self.growth += growth;
        self.row_bytes = row_bytes;
        match self.by_key.get(packed.key()) {
            Some(place) => self.records[*place] = packed,
            None => {
                self.by_key.insert(packed.key().into(), self.records.len());
                self.records.push(packed);
            }
        }
        Ok(PutOutcome::Stored)
    }

    /// A batch with removals has no puts, so what the store holds now is what the key has.
    fn remove(&mut self, key: &[u8], tag: Tag, context: BatchContext<'_>) -> RemoveResult {
        let held = match self.removes(key) {
            true => None,
            false => context.store.table().read_bytes(key, PackedRecord::tag),
        };
        if held != Some(tag) {
            return Ok(RemoveOutcome::Kept(held));
        }
        if !context.is_log_open || context.room < COMMIT_BYTES {
            return Err(StoreError::DiskFull);
        }
        self.removed.push((key.into(), tag));
        self.removed_keys.insert(key.into());
        Ok(RemoveOutcome::Removed)
    }

    /// Gives the results to their completions. If the disk did not take the batch, nobody knows of
    /// anything in it whether it is there.
    pub(super) fn complete(self, is_committed: bool) {
        let failed = |error: Option<StoreError>| error.unwrap_or(StoreError::Failed);
        for (completion, result) in self.puts {
            completion(match is_committed {
                true => result,
                false => Err(failed(result.err())),
            });
        }
        for (completion, result) in self.removals {
            completion(match is_committed {
                true => result,
                false => Err(failed(result.err())),
            });
        }
    }
}

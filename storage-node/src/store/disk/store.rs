//! What a durable store holds and answers. What changes it goes into the queue of its committer.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{Direction, Durability};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use super::log::Manifest;
use super::queue::{Backup, Item, Queue, QueuedPut, Work};
use super::row::Row;
use super::status::{DiskStatus, Status};
use crate::store::contract::{
    AttestError, ChangeHook, Completion, Lookup, MintTag, PutOutcome, PutResult, RecordStore,
    RemoveOutcome, RemoveResult, StoreError, resolve,
};
use crate::store::packed::PackedRecord;
use crate::store::table::{KeyRange, RecordTable};

/// Records on a disk, all of them in memory as well. See the [module](super).
pub struct DiskStore {
    table: RecordTable,
    durability: Durability,
    queue: Mutex<Queue>,
    pub(super) gathered: Condvar,
    pub(super) status: Status,
}

impl DiskStore {
    pub(super) fn new(table: RecordTable, durability: Durability, is_complete: bool) -> Self {
        let store = Self {
            table,
            durability,
            queue: Mutex::default(),
            gathered: Condvar::new(),
            status: Status::default(),
        };
        store
            .status
            .is_complete
            .store(is_complete, Ordering::Relaxed);
        store
    }

    /// The records that reads see.
    pub(in crate::store) fn table(&self) -> &RecordTable {
        &self.table
    }

    /// What `view` makes of the record of a key if it may be shown.
    fn view<R>(
        &self,
        key: &Key,
        view: impl FnOnce(&PackedRecord) -> R,
        may_be_shown: impl FnOnce(&PackedRecord) -> bool,
    ) -> Lookup<R> {
        match self.peek(key, |held| may_be_shown(held).then(|| view(held))) {
            Some(Some(found)) => Lookup::Found(found),
            Some(None) => Lookup::Corrupt,
            None if self.is_complete() => Lookup::Absent,
            None => Lookup::Corrupt,
        }
    }

    /// Puts into the queue what `work` makes, unless that has no room for so many bytes.
    fn enqueue(&self, bytes: usize, work: impl FnOnce() -> Work) -> Result<(), StoreError> {
        let mut queue = self.queue();
        self.check_room_in(&queue, bytes)?;
        let work = work();
        queue.push(Item { bytes, work });
        Ok(())
    }

    fn enqueue_put(
        &self,
        bytes: usize,
        put: QueuedPut,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let enqueued = self.enqueue(bytes, || Work::Put(put, completion()));
        enqueued.err().map(Err)
    }

    fn check_room_in(&self, queue: &Queue, bytes: usize) -> Result<(), StoreError> {
        if self.status.is_read_only.load(Ordering::Relaxed) {
            return Err(StoreError::ReadOnly);
        }
        queue.check_room_for(bytes)
    }

    /// Has `backup` called with the log as it is once what gathered so far is stored. It is called
    /// by the owner of the committer, and nothing is stored meanwhile.
    pub fn back_up(&self, backup: Backup) {
        self.queue().backups.push(backup);
        self.gathered.notify_one();
    }

    /// Wakes the thread that takes what has gathered to the disk, if it sleeps. To be called after
    /// what came together was applied, so that it gets there together.
    pub fn wake(&self) {
        if self.has_gathered() {
            self.gathered.notify_one();
        }
    }

    /// Whether anything waits for the committer.
    pub fn has_gathered(&self) -> bool {
        !self.queue().is_empty()
    }

    /// Takes nothing more; what is taken is still stored.
    pub(super) fn close(&self) {
        self.queue().is_closed = true;
        self.gathered.notify_one();
    }

    /// A panic while the queue was locked leaves no item half in it.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the store and of its disk.
    pub fn status(&self) -> DiskStatus {
        self.status.report(self.queue().waiting())
    }
}

impl RecordStore for DiskStore {
    fn get<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Lookup<R> {
        self.view(key, view, |held| !held.is_quarantined() && held.is_sound())
    }

    fn get_unverified<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Lookup<R> {
        self.view(key, view, |held| !held.is_quarantined())
    }

    fn peek<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Option<R> {
        self.table.read(key, view)
    }

    fn scan(
        &self,
        from: Position,
        after: Option<&Key>,
        visit: impl FnMut(&PackedRecord) -> ControlFlow<()>,
    ) {
        self.table.scan(from, after, visit);
    }

    fn scan_keys(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        visit: impl FnMut(&PackedRecord) -> ControlFlow<()>,
    ) {
        self.table.scan_keys(range, direction, visit);
    }

    /// What is resolved by what is synced already is returned at once; else it is known when the
    /// record is synced.
    fn apply(
        &self,
        key: &Key,
        record: &Record,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let resolved = |held: &PackedRecord| resolve(held, record.tag, record.checksum);
        if let Some(put) = self.peek(key, resolved).flatten() {
            return Some(Ok(put));
        }
        let packed = PackedRecord::new(key, record);
        self.enqueue_put(packed.bytes(), QueuedPut::Record(packed), completion)
    }

    /// The tag is greater than those of the records that wait, too.
    fn apply_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let bytes = PackedRecord::bytes_of(key, content);
        let (key, content) = owned(key, content);
        self.enqueue_put(bytes, QueuedPut::Next { key, content, mint }, completion)
    }

    fn remove(
        &self,
        key: &Key,
        tag: Tag,
        completion: impl FnOnce() -> Completion<RemoveResult>,
    ) -> Option<RemoveResult> {
        // A record that waits may have the tag, or have a greater one by then: the committer looks
        // again.
        let held = self.peek(key, PackedRecord::tag);
        if held.is_some_and(|held| held > tag) {
            return Some(Ok(RemoveOutcome::Kept(held)));
        }
        let (key, _) = owned(key, &Content::Tombstone);
        let enqueued = self.enqueue(key.as_bytes().len(), || Work::Remove {
            key,
            tag,
            completion: completion(),
        });
        enqueued.err().map(Err)
    }

    fn attest(
        &self,
        key: &Key,
        tag: Tag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Result<Option<PutResult>, AttestError> {
        let held = |held: &PackedRecord| (held.tag(), held.is_sound(), held.is_quarantined());
        match self.peek(key, held) {
            None => Err(AttestError::Absent),
            Some((_, false, _)) => Err(AttestError::Corrupt),
            Some((held, ..)) if held < tag => Err(AttestError::Older(held)),
            Some((.., false)) => Ok(Some(Ok(PutOutcome::Stored))),
            Some((.., true)) => {
                let (key, _) = owned(key, &Content::Tombstone);
                let bytes = key.as_bytes().len();
                Ok(self.enqueue_put(bytes, QueuedPut::Attested(key), completion))
            }
        }
    }

    fn check_room_for(&self, bytes: usize) -> Result<(), StoreError> {
        self.check_room_in(&self.queue(), bytes)
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    fn bytes(&self) -> usize {
        self.table.bytes()
    }

    fn set_change_hook(&self, hook: ChangeHook) -> bool {
        self.table.set_change_hook(hook)
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn is_complete(&self) -> bool {
        self.status.is_complete.load(Ordering::Relaxed) || mutants::is_on(Mutant::LossUnnoticed)
    }
}

/// Takes a row into the table, unless a newer record is there.
pub(super) fn load(table: &RecordTable, manifest: Manifest, row: Row) {
    let mut packed = row.packed;
    packed.set_quarantined(!manifest.is_complete && row.generation < manifest.generation);
    table.load(packed);
}

/// The same in memory of their own, so that no datagram is kept for them.
fn owned(key: &Key, content: &Content) -> (Key, Content) {
    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let key = Key::new(copy(key.as_bytes())).unwrap_or_else(|_| key.clone());
    let content = match content {
        Content::Tombstone => Content::Tombstone,
        Content::Value {
            content_type,
            value,
        } => Content::Value {
            content_type: ContentType::new(copy(content_type.as_bytes())).unwrap_or_default(),
            value: Value::new(copy(value.as_bytes())).unwrap_or_else(|_| value.clone()),
        },
    };
    (key, content)
}

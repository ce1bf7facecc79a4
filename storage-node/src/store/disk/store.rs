//! What a durable store holds and answers. What changes it goes into the queue of its committer, and
//! what has to be read from the disk into that of its readers.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, Durability};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Attributes, Content, Record, RecordVersion};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_log::{Location, Reader};

use super::damage::DamagedKeys;
use super::entry::{IndexEntry, Located};
use super::format;
use super::options::OpenOptions;
use super::position::LogPosition;
use super::queue::{Item, NewRecord, Queue, QueuedPut, Work};
use super::reads::{ColdRead, ReadQueue, Wanted};
use super::status::{DiskStatus, Status};
use super::values::Values;
use crate::store::contract::{
    Asker, AttestError, ChangeHook, Completion, GetResult, GivenBy, Lookup, MintTag, Progress,
    PutOutcome, PutResult, ReadRequest, RecordStore, RemoveOutcome, RemoveResult, StoreError,
    resolve,
};
use crate::store::head::{HeldRecord, RecordHead, TableEntry as _};
use crate::store::ranges::{Interval, IntervalSet};
use crate::store::slots::Slots;
use crate::store::table::{KeyRange, RecordTable};
use crate::store::view::{Part, RecordView};

/// Records on a disk, with their keys, heads and places in memory. See the [module](super).
pub struct DiskStore {
    table: RecordTable<IndexEntry>,
    pub(super) values: Values,
    durability: Durability,
    queue: Mutex<Queue>,
    pub(super) gathered: Condvar,
    pub(super) reads: ReadQueue,
    /// Whether a record is being read that could not be before.
    pub(super) is_reading_again: AtomicBool,
    /// What is damaged, for who mends it.
    pub(super) damaged: DamagedKeys,
    pub(super) status: Arc<Status>,
    /// Where it answers for every key, though it is not complete.
    attested: RwLock<IntervalSet>,
    /// How far it has come.
    pub(super) position: LogPosition,
    /// What is to take the place of what it holds.
    pub(super) slots: Arc<Slots>,
}

impl DiskStore {
    pub(super) fn new(
        table: RecordTable<IndexEntry>,
        reader: Reader,
        options: OpenOptions,
        is_complete: bool,
        attested: IntervalSet,
    ) -> Self {
        let store = Self {
            table,
            values: Values::new(reader, options.cache_bytes_max),
            durability: options.durability,
            queue: Mutex::default(),
            gathered: Condvar::new(),
            reads: ReadQueue::default(),
            is_reading_again: AtomicBool::new(false),
            damaged: DamagedKeys::default(),
            status: Arc::default(),
            attested: RwLock::new(attested),
            position: LogPosition::default(),
            slots: Arc::default(),
        };
        store
            .status
            .is_complete
            .store(is_complete, Ordering::Relaxed);
        store
    }

    /// What is known of the records that reads see.
    pub(in crate::store) fn table(&self) -> &RecordTable<IndexEntry> {
        &self.table
    }

    /// The record of a key, if it may be shown.
    fn locate(&self, key: &Key) -> Lookup<Located> {
        match self.locate_to_read(key) {
            Lookup::Found(located) if located.head.is_damaged => Lookup::Corrupt,
            located => located,
        }
    }

    /// The record of a key, if it may be shown once it is read.
    pub(super) fn locate_to_read(&self, key: &Key) -> Lookup<Located> {
        match self.table.read(key, Located::of) {
            Some(located) if self.is_quarantined(key.as_bytes(), located.head.is_quarantined) => {
                Lookup::Corrupt
            }
            Some(located) => Lookup::Found(located),
            None if self.answers_for_key(key.as_bytes()) => Lookup::Absent,
            None => Lookup::Corrupt,
        }
    }

    /// The parts of the ring for which it answers, though it is not complete.
    pub(super) fn attested(&self) -> RwLockReadGuard<'_, IntervalSet> {
        self.attested.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attested_mut(&self) -> RwLockWriteGuard<'_, IntervalSet> {
        let attested = self.attested.write();
        attested.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or takes the flag of quarantine of the record of a key, if there is one.
    pub(super) fn flag_quarantined(&self, key: &[u8], is_flagged: bool) {
        let was = self.table.adjust(key, |held| {
            let was = held.is_quarantined();
            held.set_quarantined(is_flagged);
            was
        });
        if let Some(was) = was {
            let change = i64::from(is_flagged) - i64::from(was);
            self.status.quarantine(change);
        }
    }

    /// Whether a record with this flag is quarantined: not where the store answers for every key.
    pub(super) fn is_quarantined(&self, key: &[u8], is_flagged: bool) -> bool {
        is_flagged && !self.answers_for_key(key)
    }

    /// Whether it answers for a key, whether or not it holds a record of it. A complete store need not know
    /// where the key lies.
    pub(super) fn answers_for_key(&self, key: &[u8]) -> bool {
        let range = || Interval::at(Position::of_key_bytes(key));
        self.is_complete() || self.attested().contains(range())
    }

    /// What lies at a place cannot be read as it was written there. It is written anew if memory has all of
    /// it, and else answered as corrupt.
    pub(super) fn note_damage(&self, key: &[u8], location: Location) {
        if self.write_anew(key, location) {
            return;
        }
        self.values.cache.forget_all(location);
        let noted = self.table.adjust(key, |held| {
            let is_it = held.location() == location && !held.is_damaged();
            if is_it {
                held.set_damaged(true);
            }
            is_it
        });
        if noted == Some(true) {
            self.status.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                segment = location.segment,
                offset = location.offset,
                bytes = location.bytes,
                "a record cannot be read as it was written; its key is answered as corrupt until it \
                 is written again, or can be read"
            );
            if let Ok(key) = Key::new(Bytes::copy_from_slice(key)) {
                tracing::debug!(?key, "the key of the record that cannot be read");
            }
            self.damaged.note(key);
        }
    }

    /// What lies at a place is what was written there, after all.
    pub(super) fn note_sound(&self, key: &Key, location: Location) {
        let noted = self.table.adjust(key.as_bytes(), |held| {
            let is_it = held.location() == location && held.is_damaged();
            if is_it {
                held.set_damaged(false);
            }
            is_it
        });
        if noted == Some(true) {
            self.status.mended.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                segment = location.segment,
                offset = location.offset,
                "a record that could not be read can be read again"
            );
        }
    }

    fn resolve_given(
        &self,
        key: &Key,
        put: RecordVersion,
        given_by: GivenBy,
    ) -> Option<PutOutcome> {
        let resolved =
            |held: &IndexEntry| resolve(held.version(), || !held.is_damaged(), put, given_by);
        self.table.read(key, resolved).flatten()
    }

    /// Puts into the queue what `work` makes, unless that has no room for so many bytes.
    pub(super) fn enqueue(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Work,
    ) -> Result<(), StoreError> {
        let mut queue = self.queue();
        self.check_room_in(&queue, bytes)?;
        let work = work();
        queue.push(Item { bytes, work });
        Ok(())
    }

    pub(super) fn enqueue_put(
        &self,
        bytes: usize,
        put: QueuedPut,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let enqueued = self.enqueue(bytes, || Work::Put(put, completion()));
        enqueued.err().map(Err)
    }

    /// Has the record that is held for a key attested. If its value is not in memory a reader reads it
    /// first, so that no put waits for that.
    fn attest_held(
        &self,
        key: Key,
        bytes: usize,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let at_hand = |located: &Located| {
            let piece = self.values.at_hand(key.as_bytes(), located, Part::Whole)?;
            Some((located.location, piece.into_bytes()))
        };
        let Some(located) = self.table.read(&key, Located::of) else {
            return Some(Err(StoreError::Failed));
        };
        let at_hand = at_hand(&located);
        if at_hand.is_some() {
            let put = QueuedPut::Attested(key, at_hand);
            return self.enqueue_put(bytes, put, completion);
        }
        if let Err(refused) = self.check_room_for(bytes) {
            return Some(Err(refused));
        }
        let wanted = || Wanted::Attest {
            bytes,
            completion: completion(),
        };
        let is_taken = self.wait_for_disk(
            &key,
            Asker::OWN,
            wanted,
            #[cfg(feature = "mutants")]
            located,
        );
        (!is_taken).then_some(Err(StoreError::Busy))
    }

    /// Puts a put into the queue, and wakes who takes it from there, or refuses it.
    pub(super) fn enqueue_or_refuse(
        &self,
        bytes: usize,
        put: QueuedPut,
        completion: Completion<PutResult>,
    ) {
        let mut queue = self.queue();
        if let Err(refused) = self.check_room_in(&queue, bytes) {
            drop(queue);
            return completion(Err(refused));
        }
        let work = Work::Put(put, completion);
        queue.push(Item { bytes, work });
        drop(queue);
        self.wake();
    }

    fn check_room_in(&self, queue: &Queue, bytes: usize) -> Result<(), StoreError> {
        if self.status.is_read_only.load(Ordering::Relaxed) {
            return Err(StoreError::ReadOnly);
        }
        queue.check_room_for(bytes)
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

    /// The next read that waits for the disk, for whoever reads it.
    pub fn take_read(&self) -> Option<ColdRead> {
        self.reads.take()
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
        let mut status = self.status.report(self.queue().waiting());
        status.reads_waiting = self.reads.len();
        status.cache_bytes = self.values.cache.bytes();
        status
    }
}

impl RecordStore for DiskStore {
    fn head(&self, key: &Key) -> Lookup<RecordHead> {
        self.locate(key).map(|located| located.head)
    }

    fn get<R: Send + 'static>(
        &self,
        key: &Key,
        read: ReadRequest,
        view: impl FnOnce(&RecordView<'_>) -> R + Send + 'static,
        completion: impl FnOnce() -> Completion<GetResult<R>>,
    ) -> Option<GetResult<R>> {
        let located = match self.locate_to_read(key) {
            Lookup::Found(located) => located,
            Lookup::Absent => return Some(Ok(Lookup::Absent)),
            Lookup::Corrupt => return Some(Ok(Lookup::Corrupt)),
        };
        let is_damaged = located.head.is_damaged;
        if located.is_known_whole() && !is_damaged {
            let tombstone = RecordView::of_head(located.head);
            return Some(Ok(Lookup::Found(view(&tombstone))));
        }
        let reads = &self.status.reads;
        let at_hand = || self.values.at_hand(key.as_bytes(), &located, read.part);
        if let Some(record) = (!is_damaged)
            .then(at_hand)
            .flatten()
            .as_ref()
            .and_then(|piece| piece.view(&located, read.part))
        {
            reads.hit();
            return Some(Ok(Lookup::Found(view(&record))));
        }
        let wanted = || {
            let complete = completion();
            Wanted::View {
                read,
                place: None,
                answer: Box::new(move |lookup| {
                    complete(lookup.map(|lookup| lookup.map(|record| view(&record))));
                }),
            }
        };
        let is_taken = self.wait_for_disk(
            &owned_key(key),
            read.asker,
            wanted,
            #[cfg(feature = "mutants")]
            located,
        );
        match is_taken {
            true => {
                reads.miss();
                None
            }
            false => {
                reads.refused();
                Some(Err(StoreError::Busy))
            }
        }
    }

    fn peek(&self, key: &Key) -> Option<RecordHead> {
        self.table.read(key, IndexEntry::head)
    }

    fn resolve(&self, key: &Key, put: RecordVersion) -> Option<PutOutcome> {
        self.resolve_given(key, put, GivenBy::Client)
    }

    fn scan(
        &self,
        from: Position,
        after: Option<&Key>,
        mut visit: impl FnMut(&HeldRecord<'_>) -> ControlFlow<()>,
    ) {
        self.table.scan(from, after, |held| visit(&held.held()));
    }

    fn scan_keys(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        mut visit: impl FnMut(&HeldRecord<'_>) -> ControlFlow<()>,
    ) {
        let visit = |held: &IndexEntry| visit(&held.held());
        self.table.scan_keys(range, direction, visit);
    }

    /// What is resolved by what is synced already is returned at once; else it is known when the
    /// record is synced.
    fn apply_given(
        &self,
        key: &Key,
        record: &Record,
        given_by: GivenBy,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        if let Some(put) = self.resolve_given(key, record.version(), given_by) {
            return Some(Ok(put));
        }
        // Before memory is taken for it.
        if let Err(refused) =
            self.check_room_for(format::bytes_of(key, &record.attributes, &record.content))
        {
            return Some(Err(refused));
        }
        let record = NewRecord::of(key.as_bytes(), record);
        let bytes = record.bytes();
        self.enqueue_put(bytes, QueuedPut::Record(record, given_by), completion)
    }

    /// The tag is greater than those of the records that wait, too.
    fn apply_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let bytes = format::bytes_of(key, &Attributes::NONE, content);
        if let Err(refused) = self.check_room_for(bytes) {
            return Some(Err(refused));
        }
        let (key, content) = (owned_key(key), content.clone().owned());
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
        let held = self.peek(key).map(|held| held.tag);
        if held.is_some_and(|held| held > tag) {
            return Some(Ok(RemoveOutcome::Kept(held)));
        }
        let key = owned_key(key);
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
        match self.peek(key) {
            None => Err(AttestError::Absent),
            Some(held) if held.is_damaged => Err(AttestError::Corrupt),
            Some(held) if held.tag < tag => Err(AttestError::Older(held.tag)),
            Some(held) if !held.is_quarantined => Ok(Some(Ok(PutOutcome::Stored))),
            Some(held) => {
                let key = owned_key(key);
                let bytes = key.as_bytes().len() + held.value_bytes as usize;
                Ok(self.attest_held(key, bytes, completion))
            }
        }
    }

    fn attest_range(&self, range: Interval) {
        self.attested_mut().insert(range);
    }

    fn remember_attested(&self) -> Result<(), StoreError> {
        self.enqueue(0, || Work::RememberAttested)
    }

    fn progress(&self) -> Option<Progress> {
        Some(self.position.progress())
    }

    fn set_back(&self, lineage: u64) -> Result<(), StoreError> {
        self.lose_all();
        // What is with the committer at this moment is seen to by it.
        self.enqueue(0, || Work::SetBack { lineage })
    }

    fn answers_for(&self, range: Interval) -> bool {
        self.is_complete() || self.attested().contains(range)
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

/// A key in memory of its own, so that no datagram is kept for it.
pub(super) fn owned_key(key: &Key) -> Key {
    Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap_or_else(|_| key.clone())
}

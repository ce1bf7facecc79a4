//! Where a server keeps its records.
//!
//! The contract ([`RecordStore`]), whichever [`Store`] it is:
//!
//! - Of all records put under a key, a store keeps the one with the greatest tag, and of several
//!   under one tag the first; of one record that was put with several ages, the greatest. All other
//!   attributes stay as they were put.
//! - A put that was confirmed is what every later read of the key sees, from any thread, until one
//!   with a greater tag or a removal; with a durable store, also after a crash.
//! - A change that was refused changed nothing, except with [`StoreError::Failed`], where
//!   that is unknown.
//! - Nothing is seen by a read that a crash could take back.
//! - Reads never fail because the store is full or can store nothing more. Reads of values that are not
//!   in memory are refused while too many wait for the disk.
//! - A record that is damaged, or that may lack something newer that was stored, is never returned,
//!   nor is its key reported as absent.
//! - A scan shows records in ring order, by position and then by key, or in the order of their keys'
//!   bytes: every record that was there when it began and was not removed meanwhile, in this version
//!   or a later one, exactly once.
//! - Every change of what is held for a key calls the change hook, once, in order.
//!
//! * `contract`: the contract as a trait; `head`, `view`: what is known of a record, and what a read is
//!   shown
//! * `slots`: what is to take the place of versions, as far as the replicas have agreed on it
//! * `table`: records in memory, or what is known of them, in ring order; `packed`: a whole one
//! * `ranges`: parts of the ring
//! * `memory`, [`disk`]: the two stores; `dump`: a count of either's records, and those very records

mod contract;
pub mod disk;
mod dump;
mod head;
mod memory;
mod packed;
mod ranges;
mod slots;
mod table;
mod view;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, Durability};
use dkvs_common::record::{Content, Record, RecordVersion};
use dkvs_common::ring::Position;
use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;

use disk::DiskStore;
use slots::Slots;

pub use contract::{
    Asker, AttestError, ChangeHook, Completion, Full, GetResult, GivenBy, Lookup, MintTag,
    Progress, PutOutcome, PutResult, ReadRequest, RecordChange, RecordStore, RemoveOutcome,
    RemoveResult, StoreError,
};
pub use dump::{CountedScan, ScannedValue};
pub use head::{HeldRecord, RecordHead};
pub use memory::MemoryStore;
pub use ranges::Interval;
pub use slots::{ACCEPTED_BYTES_MAX, AcceptResult, PROMISES_MAX, Promise, SlotRefusal};
pub use table::{KeyRange, NOTED_BYTES_MAX, PageEnd, PageLimits, overhead_bytes};
pub use view::{Part, RecordView};

/// The store of a server.
pub enum Store {
    /// In memory, and lost with the process.
    Memory(MemoryStore),
    /// On a disk.
    Disk(Arc<DiskStore>),
}

impl Store {
    /// What `view` makes of the record of a key, if there is one that is sound and attested. The
    /// caller waits for the disk where it has to be read.
    pub fn read_now<R>(
        &self,
        key: &Key,
        part: Part,
        view: impl FnOnce(&RecordView<'_>) -> R,
    ) -> Lookup<R> {
        match self {
            Self::Memory(store) => store.read_now(key, part, view),
            Self::Disk(store) => store.read_now(key, part, view),
        }
    }
}

/// Calls a method of whichever store it is.
macro_rules! of_each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
            Self::Disk($store) => $call,
        }
    };
}

/// The slots beside the records: what is to take the place of the versions that are held.
impl Store {
    /// Promises to accept nothing for what follows `base` under a lesser ballot. Corrupt, if the store may
    /// have lost what it accepted.
    pub fn prepare(
        &self,
        key: &Key,
        base: Tag,
        ballot: Ballot,
    ) -> Lookup<Result<Promise, SlotRefusal>> {
        of_each!(self, store => store.prepare(key, base, ballot))
    }

    /// Accepts a record as what follows `base`, if the promise with this number still stands. Corrupt, as
    /// above.
    pub fn accept(
        &self,
        key: &Key,
        base: Tag,
        number: u64,
        accepted: Accepted,
        completion: impl FnOnce() -> Completion<AcceptResult>,
    ) -> Option<Lookup<AcceptResult>> {
        of_each!(self, store => store.accept(key, base, number, accepted, completion))
    }

    /// What was accepted for a key, and what it is to follow.
    pub fn accepted(&self, key: &Key) -> Option<(Tag, Arc<Accepted>)> {
        self.slots().open(key.as_bytes())
    }

    /// Of which keys behind `after` something is accepted, what it is to follow, and under which ballot: at
    /// most `limit`, in the order of their bytes.
    pub fn open_slots(&self, after: &[u8], limit: usize) -> Vec<(Bytes, Tag, Ballot)> {
        self.slots().open_after(after, limit)
    }

    /// How many records are accepted, and what they take in memory, in bytes.
    pub fn slot_size(&self) -> (usize, usize) {
        self.slots().size()
    }

    fn slots(&self) -> &Slots {
        of_each!(self, store => store.slots())
    }
}

/// Whether a store that the start with this boot id has opened may be an older copy of one that peers know: not
/// one in memory, and not one whose lineage that start has begun.
pub fn may_be_set_back(store: &Store, boot_id: u64) -> bool {
    let progress = store.progress();
    progress.is_some_and(|progress| progress.lineage != boot_id.max(1))
}

impl RecordStore for Store {
    fn head(&self, key: &Key) -> Lookup<RecordHead> {
        of_each!(self, store => store.head(key))
    }

    fn get<R: Send + 'static>(
        &self,
        key: &Key,
        read: ReadRequest,
        view: impl FnOnce(&RecordView<'_>) -> R + Send + 'static,
        completion: impl FnOnce() -> Completion<GetResult<R>>,
    ) -> Option<GetResult<R>> {
        of_each!(self, store => store.get(key, read, view, completion))
    }

    fn peek(&self, key: &Key) -> Option<RecordHead> {
        of_each!(self, store => store.peek(key))
    }

    fn resolve(&self, key: &Key, put: RecordVersion) -> Option<PutOutcome> {
        of_each!(self, store => store.resolve(key, put))
    }

    fn scan(
        &self,
        from: Position,
        after: Option<&Key>,
        visit: impl FnMut(&HeldRecord<'_>) -> ControlFlow<()>,
    ) {
        of_each!(self, store => store.scan(from, after, visit));
    }

    fn scan_keys(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        visit: impl FnMut(&HeldRecord<'_>) -> ControlFlow<()>,
    ) {
        of_each!(self, store => store.scan_keys(range, direction, visit));
    }

    fn apply_given(
        &self,
        key: &Key,
        record: &Record,
        given_by: GivenBy,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        of_each!(self, store => store.apply_given(key, record, given_by, completion))
    }

    fn apply_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        of_each!(self, store => store.apply_next(key, content, mint, completion))
    }

    fn remove(
        &self,
        key: &Key,
        tag: Tag,
        completion: impl FnOnce() -> Completion<RemoveResult>,
    ) -> Option<RemoveResult> {
        of_each!(self, store => store.remove(key, tag, completion))
    }

    fn attest(
        &self,
        key: &Key,
        tag: Tag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Result<Option<PutResult>, AttestError> {
        of_each!(self, store => store.attest(key, tag, completion))
    }

    fn attest_range(&self, range: Interval) {
        of_each!(self, store => store.attest_range(range));
    }

    fn remember_attested(&self) -> Result<(), StoreError> {
        of_each!(self, store => store.remember_attested())
    }

    fn progress(&self) -> Option<Progress> {
        of_each!(self, store => store.progress())
    }

    fn set_back(&self, lineage: u64) -> Result<(), StoreError> {
        of_each!(self, store => store.set_back(lineage))
    }

    fn answers_for(&self, range: Interval) -> bool {
        of_each!(self, store => store.answers_for(range))
    }

    fn check_room_for(&self, bytes: usize) -> Result<(), StoreError> {
        of_each!(self, store => store.check_room_for(bytes))
    }

    fn len(&self) -> usize {
        of_each!(self, store => store.len())
    }

    fn bytes(&self) -> usize {
        of_each!(self, store => store.bytes())
    }

    fn set_change_hook(&self, hook: ChangeHook) -> bool {
        of_each!(self, store => store.set_change_hook(hook))
    }

    fn durability(&self) -> Durability {
        of_each!(self, store => store.durability())
    }

    fn is_complete(&self) -> bool {
        of_each!(self, store => store.is_complete())
    }
}

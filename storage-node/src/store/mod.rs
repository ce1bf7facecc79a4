//! Where a server keeps its records.
//!
//! The contract ([`RecordStore`]), whichever [`Store`] it is:
//!
//! - Of all records put under a key, a store keeps the one with the greatest tag, and of several
//!   under one tag the first.
//! - A put that was confirmed is what every later read of the key sees, from any thread, until one
//!   with a greater tag or a removal; with a durable store, also after a crash.
//! - A change that was refused changed nothing, except with [`StoreError::Failed`], where
//!   that is unknown.
//! - Nothing is seen by a read that a crash could take back.
//! - Reads never fail because the store is full, slow, or can store nothing more.
//! - A record that is damaged, or that may lack something newer that was stored, is never returned,
//!   nor is its key reported as absent.
//! - A scan shows records in ring order, by position and then by key, or in the order of their keys'
//!   bytes: every record that was there when it began and was not removed meanwhile, in this version
//!   or a later one, exactly once.
//! - Every change of what is held for a key calls the change hook, once, in order.
//!
//! * `contract`: the contract as a trait; [`packed`](PackedRecord): a record as it lies in memory
//! * `table`: records in memory, of which both stores are made
//! * `memory`, [`disk`]: the two stores

mod contract;
pub mod disk;
mod memory;
mod packed;
mod table;

use std::ops::ControlFlow;
use std::sync::Arc;

use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, Durability};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use disk::DiskStore;
use table::{Filter, RecordTable};

pub use contract::{
    AttestError, ChangeHook, Completion, Full, Lookup, MintTag, PutOutcome, PutResult,
    RecordChange, RecordStore, RemoveOutcome, RemoveResult, StoreError,
};
pub use memory::MemoryStore;
pub use packed::PackedRecord;
pub use table::{CountedScan, KeyRange, NOTED_BYTES_MAX, PageEnd, PageLimits, overhead_bytes};

pub(crate) use contract::resolve;

/// The store of a server.
pub enum Store {
    /// In memory, and lost with the process.
    Memory(MemoryStore),
    /// On a disk.
    Disk(Arc<DiskStore>),
}

impl Store {
    /// Begins to count the records that `filter` selects; none if another count is under way.
    pub fn begin_counted_scan(&self, filter: fn(&PackedRecord) -> bool) -> Option<CountedScan> {
        self.table().begin_counted_scan(filter as Filter)
    }

    /// Counts a page; when the last is done, [`Self::show_page`] may begin. Records that are not
    /// selected are shown to `other`.
    pub fn count_page(
        &self,
        scan: &mut CountedScan,
        limits: PageLimits,
        other: impl FnMut(&PackedRecord),
    ) -> PageEnd {
        self.table().count_page(scan, limits, other)
    }

    /// Shows a page of what was counted, until `take` breaks: it has not taken that record then.
    pub fn show_page(
        &self,
        scan: &mut CountedScan,
        limits: PageLimits,
        take: impl FnMut(&PackedRecord) -> ControlFlow<()>,
    ) -> PageEnd {
        self.table().show_page(scan, limits, take)
    }

    fn table(&self) -> &RecordTable {
        match self {
            Self::Memory(store) => store.table(),
            Self::Disk(store) => store.table(),
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

impl RecordStore for Store {
    fn get<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Lookup<R> {
        of_each!(self, store => store.get(key, view))
    }

    fn get_unverified<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Lookup<R> {
        of_each!(self, store => store.get_unverified(key, view))
    }

    fn peek<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Option<R> {
        of_each!(self, store => store.peek(key, view))
    }

    fn scan(
        &self,
        from: Position,
        after: Option<&Key>,
        visit: impl FnMut(&PackedRecord) -> ControlFlow<()>,
    ) {
        of_each!(self, store => store.scan(from, after, visit));
    }

    fn scan_keys(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        visit: impl FnMut(&PackedRecord) -> ControlFlow<()>,
    ) {
        of_each!(self, store => store.scan_keys(range, direction, visit));
    }

    fn apply(
        &self,
        key: &Key,
        record: &Record,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        of_each!(self, store => store.apply(key, record, completion))
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

//! The memory store: a table of records that ends with the process.

use std::ops::ControlFlow;
use std::sync::Arc;

use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, Durability};
use dkvs_common::record::{Content, Record, RecordVersion};
use dkvs_common::ring::Position;
use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;

use super::contract::{
    AttestError, ChangeHook, Completion, GetResult, GivenBy, Lookup, MintTag, Progress, PutOutcome,
    PutResult, ReadRequest, RecordStore, RemoveOutcome, RemoveResult, StoreError, resolve,
};
use super::head::{HeldRecord, RecordHead, TableEntry};
use super::packed::PackedRecord;
use super::ranges::Interval;
use super::slots::{AcceptResult, Promise, SlotRefusal, Slots};
use super::table::{KeyRange, RecordTable};
use super::view::{Part, RecordView};

/// Records in memory, lost with the process. Whatever is asked of it is answered at once.
pub struct MemoryStore {
    table: RecordTable<PackedRecord>,
    slots: Arc<Slots>,
}

impl MemoryStore {
    /// An empty store that holds at most `bytes_max` bytes of packed records and
    /// [`overhead_bytes`](super::overhead_bytes) for each.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            table: RecordTable::new(bytes_max),
            slots: Arc::default(),
        }
    }

    /// What `view` makes of the record of a key, if there is one that is sound.
    pub(super) fn read_now<R>(
        &self,
        key: &Key,
        part: Part,
        view: impl FnOnce(&RecordView<'_>) -> R,
    ) -> Lookup<R> {
        let is_block = matches!(part, Part::Block { .. });
        // The whole value may be thousands of blocks.
        let may_be_shown = |held: &PackedRecord| is_block || held.is_sound();
        self.look_up(key, |held| {
            may_be_shown(held).then(|| view(&held.view(part)))
        })
    }

    /// What `look` makes of the record of a key, if it may be shown.
    fn look_up<R>(&self, key: &Key, look: impl FnOnce(&PackedRecord) -> Option<R>) -> Lookup<R> {
        match self.table.read(key, look) {
            Some(Some(found)) => Lookup::Found(found),
            Some(None) => Lookup::Corrupt,
            None => Lookup::Absent,
        }
    }

    /// What is held of a key has changed, perhaps.
    fn note_change(&self, key: &Key) {
        self.slots
            .note_change(key.as_bytes(), || self.table.read(key, TableEntry::tag));
    }

    /// See [`Store::prepare`](super::Store::prepare).
    pub(super) fn prepare(
        &self,
        key: &Key,
        base: Tag,
        ballot: Ballot,
    ) -> Lookup<Result<Promise, SlotRefusal>> {
        Lookup::Found(self.slots.prepare(key, base, ballot, || self.peek(key)))
    }

    /// See [`Store::accept`](super::Store::accept).
    pub(super) fn accept(
        &self,
        key: &Key,
        base: Tag,
        number: u64,
        accepted: Accepted,
        _completion: impl FnOnce() -> Completion<AcceptResult>,
    ) -> Option<Lookup<AcceptResult>> {
        let accepted = accepted.owned();
        let held = || self.peek(key);
        let known = self.slots.begin_accept(key, base, number, &accepted, held);
        Some(Lookup::Found(known.unwrap_or_else(|| {
            let key_bytes = key.as_bytes();
            self.slots.set_accepted(key_bytes, base, Arc::new(accepted));
            self.slots.settle(key_bytes);
            // Another version may have come meanwhile.
            self.note_change(key);
            Ok(Ok(()))
        })))
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(super) fn table(&self) -> &RecordTable<PackedRecord> {
        &self.table
    }
}

impl RecordStore for MemoryStore {
    fn head(&self, key: &Key) -> Lookup<RecordHead> {
        self.look_up(key, |held| held.is_sound().then(|| held.head()))
    }

    fn get<R: Send + 'static>(
        &self,
        key: &Key,
        read: ReadRequest,
        view: impl FnOnce(&RecordView<'_>) -> R + Send + 'static,
        _completion: impl FnOnce() -> Completion<GetResult<R>>,
    ) -> Option<GetResult<R>> {
        Some(Ok(self.read_now(key, read.part, view)))
    }

    fn peek(&self, key: &Key) -> Option<RecordHead> {
        self.table.read(key, TableEntry::head)
    }

    fn resolve(&self, key: &Key, put: RecordVersion) -> Option<PutOutcome> {
        let resolved =
            |held: &PackedRecord| resolve(held.version(), || held.is_sound(), put, GivenBy::Client);
        self.table.read(key, resolved).flatten()
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
        let visit = |held: &PackedRecord| visit(&held.held());
        self.table.scan_keys(range, direction, visit);
    }

    fn apply_given(
        &self,
        key: &Key,
        record: &Record,
        given_by: GivenBy,
        _completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let put = self.table.apply_given(key, record, given_by);
        self.note_change(key);
        Some(put.map_err(StoreError::Full))
    }

    fn apply_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        _completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let put = self.table.apply_next(key, content, mint);
        self.note_change(key);
        Some(match put {
            Ok(Ok(())) => Ok(PutOutcome::Stored),
            Ok(Err(_)) => Err(StoreError::NoTag),
            Err(full) => Err(StoreError::Full(full)),
        })
    }

    fn remove(
        &self,
        key: &Key,
        tag: Tag,
        _completion: impl FnOnce() -> Completion<RemoveResult>,
    ) -> Option<RemoveResult> {
        let removed = self.table.remove(key.as_bytes(), tag);
        self.note_change(key);
        Some(Ok(match removed {
            Ok(_) => RemoveOutcome::Removed,
            Err(held) => RemoveOutcome::Kept(held),
        }))
    }

    fn attest(
        &self,
        key: &Key,
        tag: Tag,
        _completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Result<Option<PutResult>, AttestError> {
        match self.table.read(key, |held| (held.tag(), held.is_sound())) {
            None => Err(AttestError::Absent),
            Some((_, false)) => Err(AttestError::Corrupt),
            Some((held, true)) if held < tag => Err(AttestError::Older(held)),
            Some(_) => Ok(Some(Ok(PutOutcome::Stored))),
        }
    }

    fn attest_range(&self, _range: Interval) {}

    fn remember_attested(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn progress(&self) -> Option<Progress> {
        None
    }

    fn set_back(&self, _lineage: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn answers_for(&self, _range: Interval) -> bool {
        true
    }

    fn check_room_for(&self, _bytes: usize) -> Result<(), StoreError> {
        Ok(())
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
        Durability::Memory
    }

    fn is_complete(&self) -> bool {
        true
    }
}

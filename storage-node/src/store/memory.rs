//! The memory store: a table of records that ends with the process.

use std::ops::ControlFlow;

use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, Durability};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use super::contract::{
    AttestError, ChangeHook, Completion, Lookup, MintTag, PutOutcome, PutResult, RecordStore,
    RemoveResult, StoreError,
};
use super::packed::PackedRecord;
use super::table::{KeyRange, RecordTable};

/// Records in memory, lost with the process. Whatever is asked of it is answered at once.
pub struct MemoryStore {
    table: RecordTable,
}

impl MemoryStore {
    /// An empty store that holds at most `bytes_max` bytes of packed records and
    /// [`overhead_bytes`](super::overhead_bytes) for each.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            table: RecordTable::new(bytes_max),
        }
    }

    pub(super) fn table(&self) -> &RecordTable {
        &self.table
    }
}

impl RecordStore for MemoryStore {
    fn get<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Lookup<R> {
        match self.peek(key, |held| held.is_sound().then(|| view(held))) {
            Some(Some(found)) => Lookup::Found(found),
            Some(None) => Lookup::Corrupt,
            None => Lookup::Absent,
        }
    }

    fn get_unverified<R>(&self, key: &Key, view: impl FnOnce(&PackedRecord) -> R) -> Lookup<R> {
        match self.peek(key, view) {
            Some(found) => Lookup::Found(found),
            None => Lookup::Absent,
        }
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

    fn apply(
        &self,
        key: &Key,
        record: &Record,
        _completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        Some(self.table.apply(key, record).map_err(StoreError::Full))
    }

    fn apply_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        _completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        Some(match self.table.apply_next(key, content, mint) {
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
        Some(Ok(self.table.remove(key.as_bytes(), tag)))
    }

    fn attest(
        &self,
        key: &Key,
        tag: Tag,
        _completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Result<Option<PutResult>, AttestError> {
        match self.peek(key, |held| (held.tag(), held.is_sound())) {
            None => Err(AttestError::Absent),
            Some((_, false)) => Err(AttestError::Corrupt),
            Some((held, true)) if held < tag => Err(AttestError::Older(held)),
            Some(_) => Ok(Some(Ok(PutOutcome::Stored))),
        }
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

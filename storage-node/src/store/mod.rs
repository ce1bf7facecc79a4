//! Where a server keeps its records.
//!
//! The contract, whichever [`Store`] it is:
//!
//! - Of all records put under a key, a store keeps the one with the greatest tag, and of several
//!   under one tag the first.
//! - A put that was told as stored is what every later read of the key sees, from any thread,
//!   until one with a greater tag; with a durable store, also after a crash.
//! - A put that was refused changed nothing, but for [`StoreError::Failed`], of which nobody knows.
//! - Nothing is seen by a read that a crash could take back.
//! - Reads never fail because the store is full, slow, or can store nothing more.
//! - A record that is damaged, or that may lack something newer that was stored, is never shown,
//!   nor is its key told as absent.
//! - A walk shows records in ring order, by position and then by key: every record that was there
//!   when it began, in this version or a later one, exactly once.

pub mod disk;
mod memory;
mod packed;
mod scan;
mod shard;

use std::sync::Arc;

use dkvs_common::kv::Key;
use dkvs_common::model::Durability;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, Record};
use dkvs_common::tag::Tag;
use thiserror::Error;

use disk::{AttestError, DiskStore, MintTag};

pub use memory::{ENTRY_OVERHEAD_BYTES, Full, MemoryStore};
pub use packed::Packed;
pub use scan::{NOTED_BYTES_MAX, PageEnd, PageLimits, Scan};

/// Where a server keeps its records.
pub enum Store {
    /// In memory, and lost with the process.
    Memory(MemoryStore),
    /// On a disk.
    Disk(Arc<DiskStore>),
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The store holds the record, or held it before.
    Stored,
    /// The store holds a newer one, with this tag; or another one with the very same.
    Superseded(Tag),
}

/// Why a put is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The records may take no more memory.
    #[error("{0}")]
    Full(#[from] Full),
    /// The disk has no room.
    #[error("the disk has no room")]
    DiskFull,
    /// Too much waits for the disk.
    #[error("too much waits for the disk")]
    Busy,
    /// The disk has failed.
    #[error("the disk has failed, and nothing more is stored")]
    ReadOnly,
    /// The disk failed while the record was being stored: it may be there after the next start.
    #[error("the disk failed")]
    Failed,
    /// No tag is greater than the one that is held.
    #[error("no greater tag can be made")]
    NoTag,
}

/// What a put comes to.
pub type PutResult = Result<PutOutcome, StoreError>;

/// Whom to tell what a put came to, once that is known.
pub type Completion = Box<dyn FnOnce(PutResult) + Send>;

/// What a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<R> {
    /// What was made of the record, which may be a tombstone.
    Found(R),
    /// There is no record of the key, nor was there ever one.
    Absent,
    /// There is one that is damaged, or it is not certain that there is none, or none newer.
    Corrupt,
}

impl Store {
    /// All records, be they sound and vouched for or not.
    pub fn records(&self) -> &MemoryStore {
        match self {
            Self::Memory(store) => store,
            Self::Disk(store) => store.records(),
        }
    }

    /// What a confirmed put survives.
    pub fn durability(&self) -> Durability {
        match self {
            Self::Memory(_) => Durability::Memory,
            Self::Disk(store) => store.durability(),
        }
    }

    /// Whether it answers for every record that it ever confirmed; in memory, since it was started.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Disk(store) => store.is_complete(),
        }
    }

    /// Shows the record of a key, if there is one that is sound and vouched for.
    pub fn read<R>(&self, key: &Key, show: impl FnOnce(&Packed) -> R) -> Lookup<R> {
        match self {
            Self::Memory(store) => {
                let shown = store.read(key, |held| held.is_sound().then(|| show(held)));
                match shown {
                    Some(Some(shown)) => Lookup::Found(shown),
                    Some(None) => Lookup::Corrupt,
                    None => Lookup::Absent,
                }
            }
            Self::Disk(store) => store.read(key, show),
        }
    }

    /// Shows the record of a key as [`Self::read`] does, but does not verify that it is sound: for
    /// a part of a value, of which whoever has all parts verifies the whole.
    pub fn read_part<R>(&self, key: &Key, show: impl FnOnce(&Packed) -> R) -> Lookup<R> {
        match self {
            Self::Memory(store) => match store.read(key, show) {
                Some(shown) => Lookup::Found(shown),
                None => Lookup::Absent,
            },
            Self::Disk(store) => store.show(key, show, |held| !held.is_quarantined()),
        }
    }

    /// Stores a record, unless one with the same or a greater tag is there. What that comes to is
    /// given at once, or told by `later`.
    pub fn put(
        &self,
        key: &Key,
        record: &Record,
        later: impl FnOnce() -> Completion,
    ) -> Option<PutResult> {
        match self {
            Self::Memory(store) => Some(store.put(key, record).map_err(StoreError::Full)),
            Self::Disk(store) => store.put(key, record, later),
        }
    }

    /// Stores `content` under a tag that `mint` makes greater than that of the record that is
    /// there, or [`Tag::ZERO`]. What that comes to is given at once, or told by `later`.
    pub fn put_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        later: impl FnOnce() -> Completion,
    ) -> Option<PutResult> {
        match self {
            Self::Memory(store) => Some(match store.put_next(key, content, mint) {
                Ok(Ok(())) => Ok(PutOutcome::Stored),
                Ok(Err(_)) => Err(StoreError::NoTag),
                Err(full) => Err(StoreError::Full(full)),
            }),
            Self::Disk(store) => store.put_next(key, content, mint, later),
        }
    }

    /// Vouches for the key's record if it is sound and its tag is `tag` or greater, and else tells
    /// what there is.
    pub fn vouch(
        &self,
        key: &Key,
        tag: Tag,
        later: impl FnOnce() -> Completion,
    ) -> Result<Option<PutResult>, AttestError> {
        match self {
            Self::Memory(store) => match store.read(key, |held| (held.tag(), held.is_sound())) {
                None => Err(AttestError::Absent),
                Some((_, false)) => Err(AttestError::Corrupt),
                Some((held, true)) if held < tag => Err(AttestError::Older(held)),
                Some(_) => Ok(Some(Ok(PutOutcome::Stored))),
            },
            Self::Disk(store) => store.vouch(key, tag, later),
        }
    }

    /// Whether a record of so many bytes would be taken now; if so, it may still be refused later.
    pub fn takes(&self, bytes: usize) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Disk(store) => store.takes(bytes),
        }
    }
}

/// What a put comes to without storing anything, given what is held. A record that is damaged
/// gives way to its like.
pub(crate) fn settled(held: &Packed, tag: Tag, checksum: u32) -> Option<PutOutcome> {
    if held.tag() > tag {
        let superseded = PutOutcome::Superseded(held.tag());
        return (!mutants::is_on(Mutant::OlderTagStored)).then_some(superseded);
    }
    if held.tag() < tag || !held.is_sound() {
        return None;
    }
    match held.checksum() == checksum {
        true => Some(PutOutcome::Stored),
        false => Some(PutOutcome::Superseded(tag)),
    }
}

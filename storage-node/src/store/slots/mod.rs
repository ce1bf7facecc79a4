//! What a store knows of what comes after the versions that it holds: [`SlotStore`].
//!
//! The replicas of a key agree by Paxos on the record that takes the place of a version: each version has a
//! slot at each replica, with the ballot that the replica has promised to and the record that it has
//! accepted. What was accepted is as durable as a record, until another version takes the place of the one
//! that it was to follow. A store that may have lost something takes no part for the keys for which it does
//! not answer: it may have lost what it accepted.
//!
//! * `table`: the slots of a store

mod table;

use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;

use super::contract::{Completion, Lookup, StoreError};

pub use table::{ACCEPTED_BYTES_MAX, PROMISES_MAX};
pub(super) use table::{AcceptRefusal, HeldVersion, Slots};

/// The slots beside the records of a store.
pub trait SlotStore {
    /// Promises to accept nothing for what follows `base` under a lesser ballot. Corrupt, if the store may
    /// have lost what it accepted.
    fn prepare(&self, key: &Key, base: Tag, ballot: Ballot)
    -> Lookup<Result<Promise, SlotRefusal>>;

    /// Accepts a record as what follows `base`, if the promise with this number still stands. Corrupt, as
    /// above.
    fn accept(
        &self,
        key: &Key,
        base: Tag,
        number: u64,
        accepted: Accepted,
        completion: impl FnOnce() -> Completion<AcceptResult>,
    ) -> Option<Lookup<AcceptResult>>;

    /// What was accepted for a key, and what it is to follow.
    fn accepted(&self, key: &Key) -> Option<(Tag, Arc<Accepted>)>;

    /// Of which keys behind `after` something is accepted, what it is to follow, and under which ballot: at
    /// most `limit`, in the order of their bytes.
    fn open_slots(&self, after: &[u8], limit: usize) -> Vec<(Bytes, Tag, Ballot)>;

    /// How many records are accepted, and what they take in memory, in bytes.
    fn slot_size(&self) -> (usize, usize);
}

/// What a store promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// No other promise of this store has it, for as long as it is open.
    pub number: u64,
    /// Whether the version is a tombstone.
    pub is_tombstone: bool,
    /// What was accepted before.
    pub accepted: Option<Arc<Accepted>>,
}

/// Why a store does not promise, or does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotRefusal {
    /// It holds a newer version, with this tag.
    Superseded(Tag),
    /// It holds an older version, with this tag, or none.
    Behind(Tag),
    /// It has promised to another ballot; or to none, or does not know it any more.
    Preempted(Ballot),
}

/// The outcome of an accept.
pub type AcceptResult = Result<Result<(), SlotRefusal>, StoreError>;

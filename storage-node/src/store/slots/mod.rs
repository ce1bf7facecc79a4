//! What a store knows of what comes after the versions that it holds.
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

use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;

use super::contract::StoreError;

pub use table::{ACCEPTED_BYTES_MAX, PROMISES_MAX};
pub(super) use table::{Slots, check};

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

/// The outcome of an accept; an error if the store cannot keep what is to be accepted.
pub type AcceptResult = Result<Result<(), SlotRefusal>, StoreError>;

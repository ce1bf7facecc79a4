//! What a write is about to store, and whether the core admits that.

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::quorum::tally::{Replica, ReplicaState};
use dkvs_common::quorum::write::WriteResponse;
use dkvs_common::record::{Attributes, Content};

/// How far a server is met for a write that turns on what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It was pinged.
    Pinged,
    /// It has answered, or could not be pinged.
    Done,
    /// Nothing listens there.
    Away,
}

/// What a write is about to store where.
pub struct Candidate<'a> {
    /// Under which key.
    pub key: &'a Key,
    /// What.
    pub content: &'a Content,
    /// What the record says beside that.
    pub attributes: &'a Attributes,
    /// At which servers.
    pub replicas: &'a [Replica<WriteResponse>],
    /// How many of them have to confirm.
    pub required: usize,
    /// Whether the replicas that responded hold nothing for the key.
    pub has_seen_no_record: bool,
    /// Whether it is about to ask for tags: servers are met by that.
    pub is_querying_tags: bool,
    /// Whether it may go on at the agreement level.
    pub may_fall_back: bool,
    /// The servers that are met for it.
    pub met: &'a [(ServerId, Met)],
}

/// What becomes of a write that does not simply go on.
#[derive(Debug)]
pub enum Admission {
    /// It waits until these servers are met: they are pinged.
    Meet(Vec<ServerId>),
    /// It ends: too few servers can take it. What keeps these from it is known.
    Withhold(Vec<(ServerId, ReplicaState<WriteResponse>)>),
}

/// What a key and its value take of a server's room; none of a tombstone, which full disks take.
pub(in crate::core) fn pair_bytes(key: &Key, content: &Content) -> Option<usize> {
    match content {
        Content::Value { value, .. } => Some(key.as_bytes().len() + value.len()),
        Content::Tombstone => None,
    }
}

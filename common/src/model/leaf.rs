//! What two replicas tell each other to find where they differ.
//!
//! The keys that both hold lie on the arcs of the ring on which both are replicas. Cut at powers of two,
//! these arcs are *leaves*, numbered in ring order from 0. Both compute them alike, from the servers
//! file and the replication. Of each leaf a replica knows a sum, to which each record adds a number of
//! its own: sums that are the same mean, as good as certainly, records that are the same.

use std::net::SocketAddrV4;

use crate::kv::Key;
use crate::record::RecordVersion;

/// Which leaves two replicas have in common, and how fine they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafScope {
    /// By what the servers file knows the server that asks.
    pub asker: SocketAddrV4,
    /// How many replicas each key has.
    pub replication: u8,
    /// A leaf is no longer than one in 2^`depth` parts of the ring.
    pub depth: u8,
}

impl LeafScope {
    /// The greatest depth.
    pub const DEPTH_MAX: u8 = 24;
}

/// What a replica holds in some leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeafSum {
    /// The sum, modulo 2^64, of a number for each record.
    pub sum: u64,
    /// How many records.
    pub keys: u32,
    /// Whether there is a leaf for all of whose keys the replica answers: it holds at least what it ever
    /// confirmed of them, and since its start nothing that came by DKVS/1, which is in no sum.
    pub has_answered: bool,
    /// Whether there is one for which it does not.
    pub has_unanswered: bool,
}

impl LeafSum {
    /// Most sums of a response.
    pub const COUNT_MAX: u8 = 64;

    /// Whether the replica answers for all keys of these leaves.
    pub fn is_answered(&self) -> bool {
        self.has_answered && !self.has_unanswered
    }
}

impl std::ops::AddAssign for LeafSum {
    fn add_assign(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.keys = self.keys.saturating_add(other.keys);
        self.has_answered |= other.has_answered;
        self.has_unanswered |= other.has_unanswered;
    }
}

/// A record of a leaf, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafEntry {
    /// Its key.
    pub key: Key,
    /// Which record it is, and of which age.
    pub version: RecordVersion,
}

//! How a read ends, and where each replica stands then.

use crate::kv::Value;
use crate::model::Refusal;
use crate::quorum::version::Version;

/// How a read ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This value was read. The version is the newest that one of its holders
    /// reported.
    Found(Value, Version),
    /// There is none.
    Absent,
    /// At least r replicas answered or can, and they do not agree. At the linearizable level that
    /// takes two values under one tag.
    Disagree,
    /// So many replicas are unreachable that the read can no longer be decided.
    Unreachable,
    /// The deadline passed before it was decided.
    TimedOut,
    /// At the linearizable level: a replica holds a record that came by DKVS/1, so that no tag says
    /// which is the newest. [`Read::at_agreement_level`](super::Read::at_agreement_level) may find out what the replicas agree on.
    CameByV1,
}

/// Where one replica stands, seen from the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaStanding {
    /// It holds what was read.
    Match,
    /// It holds something older than what was read.
    Stale,
    /// It held something older, or nothing, and was given what was read, or has something newer. Or
    /// it had lost or damaged what it held, was given that, and attests it.
    Repaired,
    /// It holds another value, or a value where none won; at the linearizable level, something
    /// newer than what was read, which a write under way has put there.
    Differs,
    /// It holds none.
    Absent,
    /// It holds a tombstone.
    Tombstone,
    /// It refused.
    Refused(Refusal),
    /// It has not responded yet.
    Pending,
    /// It cannot be reached.
    Unreachable,
    /// It was silent until the deadline.
    TimedOut,
}

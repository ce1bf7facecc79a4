//! What a replica answers to a get.

use crate::kv::Value;
use crate::model::Refusal;
use crate::record::Digest;
use crate::tag::Tag;

/// What a replica says to a get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadReply {
    /// It holds this value; DKVS/1 tells no more.
    Value(Value),
    /// It holds the record that the digest tells of. The value is none where it is too long for
    /// a datagram.
    Record(Digest, Option<Value>),
    /// It holds none; the tag is that of the tombstone, if there is one.
    Absent(Option<Tag>),
    /// It did not say.
    Refused(Refusal),
}

/// A [`ReadReply`] with the record replaced by its place among those that a read has seen, so
/// that it is compared once, when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It holds the record at this place.
    Holds(usize, Option<Tag>),
    /// It holds none, or a tombstone with this tag.
    Absent(Option<Tag>),
    /// It did not say.
    Refused(Refusal),
}

impl Answer {
    /// The tag that the replica told.
    pub fn tag(&self) -> Option<Tag> {
        match self {
            Self::Holds(_, tag) | Self::Absent(tag) => *tag,
            Self::Refused(_) => None,
        }
    }
}

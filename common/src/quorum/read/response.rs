//! What a replica answers to a get.

use crate::kv::Value;
use crate::model::{Refusal, ReplicaResponse};
use crate::record::{Attributes, Digest};
use crate::tag::Tag;

/// A [`ReplicaResponse`] to a get, as a read takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GetResponse {
    /// It holds this value; DKVS/1 reports nothing else.
    Untagged(Value),
    /// It holds this record. The value is none where it is too long for a datagram.
    Record(Digest, Option<Value>),
    /// It holds nothing.
    Absent,
    /// It holds a tombstone with this tag.
    Tombstone(Tag, Attributes),
    /// It refused.
    Refused(Refusal),
}

impl From<ReplicaResponse> for GetResponse {
    fn from(response: ReplicaResponse) -> Self {
        match response {
            ReplicaResponse::Untagged { value } => Self::Untagged(value),
            ReplicaResponse::Record { digest, block } => {
                if digest.is_beginning(&block) {
                    return Self::Record(digest, None);
                }
                match Value::new(block) {
                    Ok(value) => Self::Record(digest, Some(value)),
                    Err(_) => Self::Refused(Refusal::Corrupt),
                }
            }
            ReplicaResponse::Absent { tag, .. } if tag == Tag::ZERO => Self::Absent,
            ReplicaResponse::Absent { tag, attributes } => Self::Tombstone(tag, attributes),
            ReplicaResponse::Refused(refusal) => Self::Refused(refusal),
            // It does not fit a get.
            ReplicaResponse::Done
            | ReplicaResponse::Block { .. }
            | ReplicaResponse::Tag { .. }
            | ReplicaResponse::Digest { .. }
            | ReplicaResponse::Staged { .. }
            | ReplicaResponse::Promised { .. }
            | ReplicaResponse::Preempted { .. }
            | ReplicaResponse::Page { .. }
            | ReplicaResponse::Statistics(_)
            | ReplicaResponse::LeafSums { .. }
            | ReplicaResponse::LeafEntries { .. }
            | ReplicaResponse::Superseded { .. } => Self::Refused(Refusal::Internal),
        }
    }
}

/// What a replica responded to a read. Records are compared once, when they arrive: here stands the
/// place of one among those that the read has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadResponse {
    /// It holds the record at this place, with this tag; by DKVS/1 there is none.
    Holds(usize, Option<Tag>),
    /// It holds none, or a tombstone with this tag.
    Absent(Option<Tag>),
    /// It refused.
    Refused(Refusal),
}

impl ReadResponse {
    /// The tag that the replica reported.
    pub fn tag(&self) -> Option<Tag> {
        match self {
            Self::Holds(_, tag) | Self::Absent(tag) => *tag,
            Self::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::record::{Attributes, ContentType};

    #[test]
    fn a_block_that_is_shorter_than_the_value_is_no_value() {
        let tag = Tag { time: 1, op: 0 };
        let digest = Digest {
            tag,
            attributes: Attributes::NONE,
            content_type: ContentType::default(),
            value_bytes: 3,
            checksum: 0,
        };
        let response = |block: &'static [u8]| {
            let (digest, block) = (digest.clone(), Bytes::from_static(block));
            GetResponse::from(ReplicaResponse::Record { digest, block })
        };
        let value = Value::new("abc").unwrap();
        assert_eq!(response(b"ab"), GetResponse::Record(digest.clone(), None));
        assert_eq!(
            response(b"abc"),
            GetResponse::Record(digest.clone(), Some(value))
        );
    }

    #[test]
    fn absence_has_a_tag_only_if_there_is_a_tombstone() {
        let absent = |tag| GetResponse::from(ReplicaResponse::absent(tag));
        let tag = Tag { time: 1, op: 0 };
        assert_eq!(absent(Tag::ZERO), GetResponse::Absent);
        assert_eq!(absent(tag), GetResponse::Tombstone(tag, Attributes::NONE));
    }

    #[test]
    fn what_does_not_fit_a_get_is_an_internal_error() {
        let tag = Tag { time: 1, op: 0 };
        for response in [
            ReplicaResponse::Done,
            ReplicaResponse::Tag { tag },
            ReplicaResponse::Superseded { tag },
            ReplicaResponse::Statistics(Vec::new()),
            ReplicaResponse::Refused(Refusal::Internal),
        ] {
            let refused = GetResponse::Refused(Refusal::Internal);
            assert_eq!(GetResponse::from(response), refused);
        }
    }
}

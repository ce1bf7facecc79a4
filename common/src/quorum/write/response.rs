//! What a replica answers to the commands of a write.

use crate::model::{Refusal, ReplicaResponse};
use crate::mutants::{self, Mutant};
use crate::tag::Tag;

/// What a replica responded to a put, or to a query for its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResponse {
    /// The tag that it holds; [`Tag::ZERO`] if it holds nothing.
    Tag(Tag),
    /// It holds the record.
    Stored,
    /// It holds another record, with this tag, and keeps that.
    Superseded(Tag),
    /// It refused.
    Refused(Refusal),
}

impl WriteResponse {
    /// The response to a query for the tag.
    pub(crate) fn to_get_tag(response: ReplicaResponse) -> Self {
        match response {
            ReplicaResponse::Tag { tag } | ReplicaResponse::Absent { tag, .. } => Self::Tag(tag),
            ReplicaResponse::Refused(refusal) => Self::Refused(refusal),
            // It does not fit.
            ReplicaResponse::Done
            | ReplicaResponse::Record { .. }
            | ReplicaResponse::Untagged { .. }
            | ReplicaResponse::Block { .. }
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

    /// The response to a put, whether a write's or a read's.
    pub fn to_put(response: ReplicaResponse) -> Self {
        match response {
            ReplicaResponse::Done => Self::Stored,
            ReplicaResponse::Superseded { tag } => Self::Superseded(tag),
            ReplicaResponse::Refused(refusal) => Self::Refused(refusal),
            // It does not fit. That includes the absence of an upload.
            ReplicaResponse::Record { .. }
            | ReplicaResponse::Untagged { .. }
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
            | ReplicaResponse::Absent { .. } => Self::Refused(Refusal::Internal),
        }
    }

    /// Whether a replica that responds so to a put under `tag` holds that record, or one that came
    /// after it. A record that came by DKVS/1 may be older, whatever its tag.
    pub fn confirms(self, tag: Tag) -> bool {
        match self {
            Self::Stored => true,
            Self::Superseded(held) => held > tag && !is_by_v1(held),
            Self::Tag(_) | Self::Refused(_) => false,
        }
    }

    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    pub(super) fn superseding_tag(self) -> Option<Tag> {
        match self {
            Self::Superseded(held) => Some(held),
            _ => None,
        }
    }
}

/// Whether the record that a replica keeps came by DKVS/1, so that its tag says nothing of
/// when it was written.
pub(super) fn is_by_v1(held: Tag) -> bool {
    held.is_by_v1() && !mutants::is_on(Mutant::SupersededByV1AsStored)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag { time: 1, op: 0 };
    const INTERNAL: WriteResponse = WriteResponse::Refused(Refusal::Internal);

    #[test]
    fn a_put_is_stored_superseded_or_refused() {
        let full = Refusal::Full;
        for (response, expected) in [
            (ReplicaResponse::Done, WriteResponse::Stored),
            (
                ReplicaResponse::Superseded { tag: TAG },
                WriteResponse::Superseded(TAG),
            ),
            (ReplicaResponse::Refused(full), WriteResponse::Refused(full)),
            (ReplicaResponse::absent(TAG), INTERNAL),
            (ReplicaResponse::Tag { tag: TAG }, INTERNAL),
            (ReplicaResponse::Statistics(Vec::new()), INTERNAL),
        ] {
            assert_eq!(WriteResponse::to_put(response), expected);
        }
    }

    #[test]
    fn a_tag_is_that_of_a_record_or_of_a_tombstone_or_refused() {
        let full = Refusal::Full;
        for (response, expected) in [
            (ReplicaResponse::Tag { tag: TAG }, WriteResponse::Tag(TAG)),
            (ReplicaResponse::absent(TAG), WriteResponse::Tag(TAG)),
            (
                ReplicaResponse::absent(Tag::ZERO),
                WriteResponse::Tag(Tag::ZERO),
            ),
            (ReplicaResponse::Refused(full), WriteResponse::Refused(full)),
            (ReplicaResponse::Done, INTERNAL),
            (ReplicaResponse::Superseded { tag: TAG }, INTERNAL),
        ] {
            assert_eq!(WriteResponse::to_get_tag(response), expected);
        }
    }
}

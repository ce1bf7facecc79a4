//! What a replica answers to a write.

use crate::model::Refusal;
use crate::mutants::{self, Mutant};
use crate::tag::Tag;

/// What a replica answers to a put, or when it is asked for its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteReply {
    /// The tag that it holds; [`Tag::ZERO`] if it holds nothing.
    Tag(Tag),
    /// It holds the record.
    Stored,
    /// It holds another record, with this tag, and keeps that.
    Superseded(Tag),
    /// It did not do what it was asked.
    Refused(Refusal),
}

impl WriteReply {
    /// Whether a replica that answers this to a put under `tag` holds that record, or one that came
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

/// Whether the record that a replica keeps came by DKVS/1, so that its tag does not say when.
pub(super) fn is_by_v1(held: Tag) -> bool {
    held.is_by_v1() && !mutants::is_on(Mutant::SupersededByV1AsStored)
}

//! Which version of a value was read.

use crate::record::{ContentType, Digest};
use crate::tag::Tag;

/// What a replica reports of a value beside its bytes. By DKVS/1 it reports nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// Which version.
    pub tag: Option<Tag>,
    /// The value's media type.
    pub content_type: ContentType,
}

impl From<&Digest> for Version {
    fn from(digest: &Digest) -> Self {
        Self {
            tag: Some(digest.tag),
            content_type: digest.content_type.clone(),
        }
    }
}

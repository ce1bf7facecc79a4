//! What a write waits for.

use crate::tag::Tag;

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The tags of w replicas, which are a majority.
    AskingTags,
    /// A tag greater than this, from the caller.
    Minting(Tag),
    /// Confirmations of the record under this tag.
    Storing(Tag),
}

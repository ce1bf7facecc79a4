//! A write that is sent again under the tag that it had.

use super::response::WriteReply;
use crate::quorum::tally::Tally;

/// Whether no replica is known to hold the very record. At the linearizable level, something newer
/// then confirms nothing: nobody can tell whether the record was ever there.
pub(super) fn is_nowhere_seen(tally: &Tally<WriteReply>) -> bool {
    !tally.answers().any(|answer| *answer == WriteReply::Stored)
}

//! A write that is sent again under the tag that it had.

use super::response::WriteResponse;
use crate::quorum::tally::Tally;

/// Whether no replica is known to hold the very record. At the linearizable level, something newer
/// then confirms nothing: nothing shows that the record was ever there.
pub(super) fn is_nowhere_seen(tally: &Tally<WriteResponse>) -> bool {
    !tally
        .responses()
        .any(|response| *response == WriteResponse::Stored)
}

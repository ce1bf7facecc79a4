//! The agreement level: a replica that holds something newer does not confirm, and the write begins
//! anew under a greater tag.

use super::phase::Phase;
use super::response::WriteResponse;
use crate::mutants::{self, Mutant};
use crate::quorum::tally::Tally;
use crate::tag::Tag;

/// The phase after a replica turned out to keep a record with the tag `held`.
pub(super) fn after_superseded(phase: Phase, held: Tag) -> Phase {
    match phase {
        Phase::AskingTags => phase,
        Phase::Storing(_) => Phase::Minting(held),
        Phase::Minting(seen) => Phase::Minting(seen.max(held)),
    }
}

/// The greatest tag of a record that a replica kept; none if none did.
pub(super) fn greatest_superseding(tally: &Tally<WriteResponse>) -> Option<Tag> {
    let superseding = tally.responses().copied();
    superseding.filter_map(WriteResponse::superseding_tag).max()
}

/// Whether a replica that keeps something newer confirms: it does not.
pub(super) fn is_confirmed_by_newer() -> bool {
    mutants::is_on(Mutant::SupersededAsStored)
}

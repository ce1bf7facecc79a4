//! The linearizable level: the tag is greater than those of a majority, and a replica that holds
//! something newer confirms.

use super::response::{WriteResponse, is_by_v1};
use crate::quorum::tally::Tally;
use crate::quorum::threshold::Threshold;
use crate::tag::Tag;

/// What the replicas' tags come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagQuery {
    /// Too few replicas have reported theirs.
    Open,
    /// The greatest that a quorum reported.
    Greatest(Tag),
    /// Too few replicas can still report.
    Failed,
}

/// The greatest tag, once as many have reported as `threshold` requires.
pub(super) fn greatest_tag(tally: &Tally<WriteResponse>, threshold: &Threshold) -> TagQuery {
    let tag = |response: &WriteResponse| match response {
        WriteResponse::Tag(tag) => Some(*tag),
        _ => None,
    };
    let has_reported = |server| tally.response_of(server).and_then(tag).is_some();
    if threshold.is_met(has_reported) {
        let greatest = tally.responses().filter_map(tag).max();
        TagQuery::Greatest(greatest.unwrap_or(Tag::ZERO))
    } else if threshold.can_still_be_met(has_reported, |server| tally.is_pending(server)) {
        TagQuery::Open
    } else {
        TagQuery::Failed
    }
}

/// Whether a replica that keeps a record with the tag `held` confirms: its writer came later.
pub(super) fn is_confirmed_by(held: Tag) -> bool {
    !is_by_v1(held)
}

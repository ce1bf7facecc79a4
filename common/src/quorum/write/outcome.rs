//! How a write ends.

use super::response::WriteResponse;
use crate::quorum::tally::Tally;
use crate::quorum::threshold::Threshold;
use crate::tag::Tag;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// At least w replicas confirmed.
    Committed,
    /// So many replicas refused that w can no longer confirm.
    Refused,
    /// So many replicas hold something newer that w can no longer confirm, and the write was to
    /// keep its tag; or something that came by DKVS/1 and may be newer. Or, at the linearizable
    /// level, w confirmed a write that is sent again, and none of them holds the record.
    Superseded,
    /// So many replicas are unreachable (or refused) that w can no longer confirm.
    Unreachable,
    /// The deadline passed while w could still have confirmed.
    TimedOut,
}

/// What became of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is on at least w replicas, or was until something newer took its place.
    Committed,
    /// It is on some replicas, or may be, and may surface later.
    Unknown,
    /// It certainly never was on any.
    NotApplied,
}

impl WriteOutcome {
    /// Why `threshold` can no longer be met. `prevents` says whether a replica that holds a record
    /// with this tag does not confirm.
    pub(super) fn of_failure(
        threshold: &Threshold,
        tally: &Tally<WriteResponse>,
        prevents: impl Fn(Tag) -> bool,
    ) -> Self {
        let response_of = |server| tally.response_of(server).copied();
        let is_superseded = |server| {
            let held = response_of(server).and_then(WriteResponse::superseding_tag);
            held.is_some_and(&prevents)
        };
        let is_refused = |server| {
            response_of(server)
                .and_then(WriteResponse::refusal)
                .is_some()
        };
        if threshold.is_prevented_by(is_superseded) {
            Self::Superseded
        } else if threshold.is_prevented_by(|server| is_superseded(server) || is_refused(server)) {
            Self::Refused
        } else {
            Self::Unreachable
        }
    }
}

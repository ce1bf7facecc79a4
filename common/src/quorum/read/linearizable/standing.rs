//! Where a replica stands that has responded, and was not repaired.

use super::choosing::Newest;
use super::fetching::SeenRecords;
use crate::quorum::read::outcome::ReplicaStanding;
use crate::quorum::read::response::ReadResponse;

/// Where a replica with this response stands, seen from the newest record that a quorum reported;
/// `found` is the same if its value was read.
pub(super) fn of(
    response: ReadResponse,
    newest: Option<Newest>,
    found: Option<Newest>,
    records: &SeenRecords,
) -> ReplicaStanding {
    if let ReadResponse::Refused(refusal) = response {
        return ReplicaStanding::Refused(refusal);
    }
    let held = match Newest::reported_by(response) {
        None | Some(Newest::Nothing) => return ReplicaStanding::Absent,
        Some(held) => held,
    };
    let is_same_value = |found| match (held, found) {
        (Newest::Record(one, _), Newest::Record(other, _)) => records.are_same_value(one, other),
        _ => false,
    };
    match (newest, held) {
        (Some(newest), Newest::Tombstone(tag)) if tag == newest.tag() => ReplicaStanding::Tombstone,
        (Some(_), held) if found == Some(held) => ReplicaStanding::Match,
        (Some(newest), held) if held.tag() < newest.tag() => ReplicaStanding::Stale,
        // Such as a put by DKVS/1, to which each server gives a tag of its own.
        (Some(_), _) if found.is_some_and(is_same_value) => ReplicaStanding::Match,
        _ => ReplicaStanding::Differs,
    }
}

//! What the store returns, as responses and in the counters.

use dkvs_common::model::{Refusal, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::tag::Tag;

use crate::statistics::Counters;
use crate::store::{GetResult, Lookup, PutOutcome, PutResult, RecordHead, RecordView, StoreError};

/// The response to a put, which is counted.
pub(super) fn put_response(counters: &Counters, result: PutResult) -> ReplicaResponse {
    count_put(counters, result);
    match result {
        Ok(PutOutcome::Stored) => ReplicaResponse::Done,
        Ok(PutOutcome::Superseded(tag)) => ReplicaResponse::Superseded { tag },
        Err(error) => refusal(error),
    }
}

fn count_put(counters: &Counters, result: PutResult) {
    match result {
        Ok(PutOutcome::Stored) => counters.puts.add(1),
        Ok(PutOutcome::Superseded(_)) => {}
        Err(refused) => {
            match refused {
                StoreError::Full(_) | StoreError::DiskFull => counters.puts_refused_full.add(1),
                StoreError::Busy | StoreError::OutOfFiles => counters.puts_refused_busy.add(1),
                StoreError::ReadOnly | StoreError::Failed => counters.puts_failed.add(1),
                StoreError::NoTag => {}
            }
            tracing::debug!(%refused, "a put is refused");
        }
    }
}

/// The response to a command that the store refuses.
pub(super) fn refusal(error: StoreError) -> ReplicaResponse {
    ReplicaResponse::Refused(match error {
        StoreError::Full(_) | StoreError::DiskFull => Refusal::Full,
        StoreError::Busy | StoreError::OutOfFiles => Refusal::Busy,
        StoreError::ReadOnly => Refusal::ReadOnly,
        StoreError::Failed | StoreError::NoTag => Refusal::Internal,
    })
}

/// The response to a read: what was made of the record, or that there is none, or that it is
/// corrupt, which is counted.
pub(super) fn read_response(
    counters: &Counters,
    lookup: Lookup<ReplicaResponse>,
) -> ReplicaResponse {
    match lookup {
        Lookup::Found(response) => response,
        Lookup::Absent => ReplicaResponse::absent(Tag::ZERO),
        Lookup::Corrupt => {
            counters.corrupt_answers.add(1);
            ReplicaResponse::Refused(Refusal::Corrupt)
        }
    }
}

/// The same of a read that may have been refused.
pub(super) fn get_response(
    counters: &Counters,
    result: GetResult<ReplicaResponse>,
) -> ReplicaResponse {
    match result {
        Ok(lookup) => read_response(counters, lookup),
        Err(error) => refusal(error),
    }
}

/// What `response` makes of a record that has a value; a tombstone is absent, with what it says
/// beside that.
pub(super) fn record_response(
    held: &RecordView<'_>,
    response: impl FnOnce() -> ReplicaResponse,
) -> ReplicaResponse {
    let head = held.head();
    match value_response(&head, response) {
        ReplicaResponse::Absent { tag, .. } if tag == head.tag => ReplicaResponse::Absent {
            tag,
            attributes: held.attributes(),
        },
        response => response,
    }
}

/// What `response` makes of a record that has a value; a tombstone is absent.
pub(super) fn value_response(
    head: &RecordHead,
    response: impl FnOnce() -> ReplicaResponse,
) -> ReplicaResponse {
    match head.is_tombstone {
        true if mutants::is_on(Mutant::TombstoneDropped) => ReplicaResponse::absent(Tag::ZERO),
        true => ReplicaResponse::absent(head.tag),
        false => response(),
    }
}

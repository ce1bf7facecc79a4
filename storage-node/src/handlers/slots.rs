//! Agreeing on what takes the place of a version: the responses to `Prepare`, `Accept` and `Commit`.

use std::sync::Arc;

use dkvs_common::kv::Key;
use dkvs_common::model::{Accepted, Ballot, Refusal, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{OperationId, Record, RecordVersion};
use dkvs_common::tag::Tag;

use super::caller::Responder;
use super::outcome::{put_response, refusal};
use super::replica::Replica;
use crate::store::{
    AcceptResult, GivenBy, Lookup, Promise, PutOutcome, RecordStore as _, SlotRefusal,
};

impl Replica {
    /// A promise for what follows `base`, named by the start of the server and its number: so no other one
    /// ever has the same name.
    pub(super) fn prepare(
        &self,
        key: &Key,
        base: Tag,
        ballot: Ballot,
        room_bytes: usize,
    ) -> ReplicaResponse {
        let promise = match self.store.prepare(key, base, ballot) {
            Lookup::Found(promise) => promise,
            Lookup::Absent | Lookup::Corrupt => return self.is_no_voter(),
        };
        match promise {
            // Whoever takes no longer datagrams could not have proposed it, nor can propose it again.
            Ok(Promise {
                accepted: Some(accepted),
                ..
            }) if accepted.encoded_bytes() > room_bytes => self.too_large(),
            Ok(Promise {
                number,
                is_tombstone,
                accepted,
            }) => ReplicaResponse::Promised {
                grant: self.config.boot_id.wrapping_add(number),
                is_tombstone,
                accepted: accepted.map(Arc::unwrap_or_clone),
            },
            Err(refusal) => slot_response(refusal),
        }
    }

    /// None if the response comes later, through what `responder` makes.
    pub(super) fn accept(
        &self,
        key: &Key,
        base: Tag,
        grant: u64,
        accepted: Accepted,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let record = &accepted.record;
        if let Some(refusal) = self.check_record(key, record) {
            return Some(refusal);
        }
        if !record.tag.succeeds(base) {
            return Some(ReplicaResponse::Refused(Refusal::Unsupported));
        }
        if mutants::is_on(Mutant::AcceptVisible) {
            let _ = self.store.apply(key, record, || Box::new(drop));
        }
        let number = grant.wrapping_sub(self.config.boot_id);
        let result = self.store.accept(key, base, number, accepted, || {
            let respond = responder();
            Box::new(move |result| respond(accept_response(result)))
        });
        Some(match result? {
            Lookup::Found(result) => accept_response(result),
            Lookup::Absent | Lookup::Corrupt => self.is_no_voter(),
        })
    }

    /// Stores what was accepted, if it is the record that the replicas have agreed on. Otherwise the sender
    /// has the record: absent says that it is to be put.
    pub(super) fn commit(
        &self,
        key: &Key,
        (tag, checksum, operation): (Tag, u32, Option<OperationId>),
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let is_it = |record: &Record| {
            let is_same = record.checksum == checksum && record.attributes.operation == operation;
            record.tag == tag && is_same
        };
        let accepted = self.store.accepted(key);
        let accepted = accepted.filter(|(_, accepted)| is_it(&accepted.record));
        let Some((_, accepted)) = accepted else {
            let version = RecordVersion {
                tag,
                checksum,
                born: 0,
            };
            let resolved = self.store.resolve(key, version);
            return Some(match (resolved, self.store.peek(key)) {
                (Some(PutOutcome::Stored), _) => ReplicaResponse::Done,
                (_, Some(held)) if held.tag > tag => ReplicaResponse::Superseded { tag: held.tag },
                (_, held) => ReplicaResponse::absent(held.map_or(Tag::ZERO, |held| held.tag)),
            });
        };
        let record = &accepted.record;
        let result = self.store.apply_given(key, record, GivenBy::Client, || {
            let (counters, respond) = (Arc::clone(&self.counters), responder());
            Box::new(move |result| respond(put_response(&counters, result)))
        });
        result.map(|result| put_response(&self.counters, result))
    }

    /// The server may have lost what it accepted.
    fn is_no_voter(&self) -> ReplicaResponse {
        self.counters.corrupt_answers.add(1);
        ReplicaResponse::Refused(Refusal::Corrupt)
    }
}

fn accept_response(result: AcceptResult) -> ReplicaResponse {
    match result {
        Ok(Ok(())) => ReplicaResponse::Done,
        Ok(Err(refusal)) => slot_response(refusal),
        Err(error) => refusal(error),
    }
}

fn slot_response(refusal: SlotRefusal) -> ReplicaResponse {
    match refusal {
        SlotRefusal::Superseded(tag) => ReplicaResponse::Superseded { tag },
        SlotRefusal::Behind(tag) => ReplicaResponse::absent(tag),
        SlotRefusal::Preempted(promised) => ReplicaResponse::Preempted { promised },
    }
}

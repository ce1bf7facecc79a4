//! Attesting a record after the server may have lost what it held: the response to `Attest`.

use dkvs_common::kv::Key;
use dkvs_common::model::{Refusal, ReplicaResponse};
use dkvs_common::tag::Tag;

use super::caller::Responder;
use super::outcome::refusal;
use super::replica::Replica;
use crate::store::{AttestError, PutResult, RecordStore as _};

impl Replica {
    /// Answers for `key` from now on, if it holds `tag` or something newer. What a reader found at
    /// another start of the server says nothing of what the server may have lost since.
    pub(super) fn attest(
        &self,
        boot_id: u64,
        key: &Key,
        tag: Tag,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        if boot_id != self.config.boot_id {
            return Some(ReplicaResponse::absent(Tag::ZERO));
        }
        let response = |result: PutResult| match result {
            Ok(_) => ReplicaResponse::Done,
            Err(error) => refusal(error),
        };
        let attested = self.store.attest(key, tag, || {
            let respond = responder();
            Box::new(move |result| respond(response(result)))
        });
        match attested {
            Ok(result) => result.map(response),
            Err(AttestError::Absent) => Some(ReplicaResponse::absent(Tag::ZERO)),
            Err(AttestError::Older(tag)) => Some(ReplicaResponse::absent(tag)),
            Err(AttestError::Corrupt) => Some(ReplicaResponse::Refused(Refusal::Corrupt)),
        }
    }
}

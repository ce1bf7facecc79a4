//! Storing a record: the response to `Put`, and to `PutStaged` once its value is together.

use std::sync::Arc;

use dkvs_common::kv::Key;
use dkvs_common::model::{Refusal, ReplicaResponse};
#[cfg(feature = "mutants")]
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, Record};

use super::caller::Responder;
use super::outcome::put_response;
use super::replica::Replica;
use crate::store::RecordStore as _;

impl Replica {
    /// None if the response comes later, through what `responder` makes; `before_response` is
    /// called before it leaves then.
    pub(super) fn put(
        &self,
        key: &Key,
        record: &Record,
        responder: impl FnOnce() -> Responder,
        before_response: impl FnOnce() + Send + 'static,
    ) -> Option<ReplicaResponse> {
        if let Some(refusal) = self.check_record(key, record) {
            return Some(refusal);
        }
        #[cfg(feature = "mutants")]
        if mutants::is_on(Mutant::AcknowledgedBeforeStored) {
            self.keep_unstored(key, record);
            return Some(ReplicaResponse::Done);
        }
        let result = self.store.apply(key, record, || {
            let (counters, respond) = (Arc::clone(&self.counters), responder());
            Box::new(move |result| {
                before_response();
                respond(put_response(&counters, result));
            })
        });
        result.map(|result| put_response(&self.counters, result))
    }
    /// Why a record that came whole is not taken: it is too long, or was damaged.
    pub(super) fn check_record(&self, key: &Key, record: &Record) -> Option<ReplicaResponse> {
        let value_bytes = match &record.content {
            Content::Value { value, .. } => value.len(),
            Content::Tombstone => 0,
        };
        if value_bytes > self.config.value_bytes_max {
            return Some(self.too_large());
        }
        if !record.is_sound(key) {
            self.counters.damaged.add(1);
            return Some(ReplicaResponse::Refused(Refusal::Corrupt));
        }
        None
    }
}

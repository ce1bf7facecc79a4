//! Gets and puts of DKVS/1, which has neither tags nor media types.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::ReplicaResponse;
use dkvs_common::record::{Content, ContentType};
use dkvs_common::tag::Tag;

use super::caller::Responder;
use super::outcome::{get_response, put_response};
use super::replica::Replica;
use crate::peer::{Account, Peer};
use crate::store::{Asker, Part, ReadRequest, RecordStore as _, RecordView};

impl Replica {
    /// The value of a key, if there is one. None if the disk has to be read: the response comes
    /// through what `responder` makes then.
    pub(crate) fn get_untagged(
        &self,
        key: &Key,
        peer: Peer,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        self.counters.gets.add(1);
        let value = |held: &RecordView<'_>| {
            let value = Value::new(Bytes::copy_from_slice(held.value())).ok();
            match value.filter(|_| !held.head().is_tombstone) {
                Some(value) => ReplicaResponse::Untagged { value },
                None => ReplicaResponse::absent(Tag::ZERO),
            }
        };
        let request = ReadRequest {
            part: Part::Whole,
            deadline: None,
            asker: Asker::of(Account::of(peer, 0), peer),
        };
        let result = self.store.get(key, request, value, || {
            let (counters, respond) = (Arc::clone(&self.counters), responder());
            Box::new(move |result| respond(get_response(&counters, result)))
        });
        result.map(|result| get_response(&self.counters, result))
    }

    /// Stores a value as the newest, whatever is held: what comes last is the newest by DKVS/1.
    /// `unix_ms` is the time of the wall clock in milliseconds.
    pub(crate) fn put_untagged(
        &self,
        key: &Key,
        value: &Value,
        unix_ms: u64,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let content = Content::Value {
            content_type: ContentType::default(),
            value: value.clone(),
        };
        let clock = Arc::clone(&self.clock);
        let mint = move |held| {
            let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.mint(unix_ms, held)
        };
        let result = self.store.apply_next(key, &content, Box::new(mint), || {
            let (counters, respond) = (Arc::clone(&self.counters), responder());
            Box::new(move |result| respond(put_response(&counters, result)))
        });
        result.map(|result| put_response(&self.counters, result))
    }
}

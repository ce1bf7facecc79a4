//! What names a record, without its value: the responses to `GetTag` and `GetDigest`.

use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::record::Attributes;

use super::caller::{Caller, Responder};
use super::outcome::{read_response, record_response, value_response};
use super::replica::Replica;
use crate::store::{Lookup, Part, RecordHead, RecordStore as _, RecordView};

impl Replica {
    pub(super) fn get_tag(&self, key: &Key) -> ReplicaResponse {
        let lookup = self.store.head(key);
        let tag =
            |head: RecordHead| value_response(&head, || ReplicaResponse::Tag { tag: head.tag });
        read_response(&self.counters, lookup.map(tag))
    }

    /// None if the disk has to be read, since the record says more than is known without: the response
    /// comes through what `responder` makes then, if it comes before the deadline of the caller.
    pub(super) fn get_digest(
        &self,
        key: &Key,
        caller: Caller,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let head = match self.store.head(key) {
            Lookup::Found(head) if head.has_more_attributes => {
                let whole = |held: &RecordView<'_>| {
                    record_response(held, || digest(&held.head(), held.attributes()))
                };
                return self.read(key, Part::First(0), caller, whole, responder);
            }
            lookup => lookup,
        };
        let response = head.map(|head| {
            let held = RecordView::of_head(head);
            record_response(&held, || digest(&head, held.attributes()))
        });
        Some(read_response(&self.counters, response))
    }
}

fn digest(head: &RecordHead, attributes: Attributes) -> ReplicaResponse {
    ReplicaResponse::Digest {
        tag: head.tag,
        attributes,
        value_bytes: head.value_bytes,
        checksum: head.checksum,
    }
}

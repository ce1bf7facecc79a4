//! Records and the blocks of long values: the responses to `Get` and `GetBlock`.

use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::record::{ContentType, Digest};
use dkvs_common::tag::Tag;

use super::caller::{Caller, Responder};
use super::outcome::{get_response, record_response, value_response};
use super::replica::Replica;
use crate::store::{Part, ReadRequest, RecordStore as _, RecordView};

impl Replica {
    /// The record of a key; of a long value as much as there is room for. None if the disk has to be
    /// read: the response comes through what `responder` makes then, if it comes before the deadline of the caller.
    pub(super) fn get(
        &self,
        key: &Key,
        room_bytes: usize,
        caller: Caller,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        self.counters.gets.add(1);
        let record = move |held: &RecordView<'_>| {
            let (head, value, attributes) = (held.head(), held.value(), held.attributes());
            let head_bytes = held.content_type().len() + attributes.block_bytes();
            let block_bytes = room_bytes.saturating_sub(head_bytes);
            let copy = Bytes::copy_from_slice;
            record_response(held, || ReplicaResponse::Record {
                digest: Digest {
                    tag: head.tag,
                    attributes,
                    content_type: ContentType::new(copy(held.content_type())).unwrap_or_default(),
                    value_bytes: head.value_bytes,
                    checksum: head.checksum,
                },
                block: copy(&value[..value.len().min(block_bytes)]),
            })
        };
        self.read(key, Part::First(room_bytes), caller, record, responder)
    }

    /// At most `block_bytes` bytes of a version's value.
    pub(super) fn get_block(
        &self,
        key: &Key,
        tag: Tag,
        (offset, bytes): (u32, usize),
        caller: Caller,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let block = move |held: &RecordView<'_>| {
            let head = held.head();
            value_response(&head, || match head.tag == tag {
                true => ReplicaResponse::Block {
                    offset,
                    block: Bytes::copy_from_slice(held.value()),
                },
                false => ReplicaResponse::Superseded { tag: head.tag },
            })
        };
        // The whole value may be thousands of blocks: the caller verifies it once it is together.
        let part = Part::Block { offset, bytes };
        self.read(key, part, caller, block, responder)
    }

    pub(super) fn read(
        &self,
        key: &Key,
        part: Part,
        caller: Caller,
        view: impl FnOnce(&RecordView<'_>) -> ReplicaResponse + Send + 'static,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let request = ReadRequest {
            part,
            deadline: Some(caller.deadline()),
            asker: caller.asker(),
        };
        let result = self.store.get(key, request, view, || {
            let (counters, respond) = (Arc::clone(&self.counters), responder());
            Box::new(move |result| respond(get_response(&counters, result)))
        });
        result.map(|result| get_response(&self.counters, result))
    }
}

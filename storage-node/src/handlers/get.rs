//! Records and the blocks of long values: the responses to `Get` and `GetBlock`.

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::record::{ContentType, Digest};
use dkvs_common::tag::Tag;

use super::outcome::{read_response, record_response, value_response};
use super::replica::Replica;
use crate::store::{PackedRecord, RecordStore as _};

impl Replica {
    /// The record of a key; of a long value as much as there is room for.
    pub(super) fn get(&self, key: &Key, room_bytes: usize) -> ReplicaResponse {
        self.counters.gets.add(1);
        let record = |held: &PackedRecord| {
            let attributes = held.attributes();
            let head_bytes = held.content_type().len() + attributes.block_bytes();
            let block_bytes = room_bytes.saturating_sub(head_bytes);
            let value = held.value();
            let copy = Bytes::copy_from_slice;
            ReplicaResponse::Record {
                digest: Digest {
                    tag: held.tag(),
                    attributes,
                    content_type: ContentType::new(copy(held.content_type())).unwrap_or_default(),
                    value_bytes: value.len() as u32,
                    checksum: held.checksum(),
                },
                block: copy(&value[..value.len().min(block_bytes)]),
            }
        };
        let lookup = self.store.get(key, |held| record_response(held, record));
        read_response(&self.counters, lookup)
    }

    /// At most `block_bytes` bytes of a version's value.
    pub(super) fn get_block(
        &self,
        key: &Key,
        tag: Tag,
        offset: u32,
        block_bytes: usize,
    ) -> ReplicaResponse {
        let block = |held: &PackedRecord| {
            if held.tag() != tag {
                return ReplicaResponse::Superseded { tag: held.tag() };
            }
            let value = held.value();
            let start = (offset as usize).min(value.len());
            let end = start.saturating_add(block_bytes).min(value.len());
            ReplicaResponse::Block {
                offset,
                block: Bytes::copy_from_slice(&value[start..end]),
            }
        };
        // The whole value may be thousands of blocks: the caller verifies it once it is together.
        let view = |held: &PackedRecord| value_response(held, block);
        read_response(&self.counters, self.store.get_unverified(key, view))
    }
}

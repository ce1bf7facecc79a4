//! What a peer gives.

use dkvs_common::kv::{Key, Value};
use dkvs_common::model::ReplicaResponse;
use dkvs_common::record::{Content, Record};
use dkvs_common::tag::Tag;

/// The record of a response to a get, if it is one.
pub(super) fn record_of(key: &Key, response: ReplicaResponse) -> Option<Record> {
    match response {
        ReplicaResponse::Record { digest, block } => Some(Record {
            tag: digest.tag,
            attributes: digest.attributes,
            content: Content::Value {
                content_type: digest.content_type,
                value: Value::new(block).ok()?,
            },
            checksum: digest.checksum,
        }),
        ReplicaResponse::Absent { tag, attributes } if tag != Tag::ZERO => Some(
            Record::with_attributes(key, tag, attributes, Content::Tombstone),
        ),
        _ => None,
    }
}

//! Records with attributes, by DKVS/2 and beside DKVS/1.

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Attributes, Content, ContentType, OperationId, Record};
use dkvs_common::tag::Tag;

use super::v2::{one, service};
use crate::store::{Lookup, Part, RecordStore as _, RecordView};

const TAG: Tag = Tag { time: 5, op: 1 };
const ATTRIBUTES: Attributes = Attributes {
    born: 3,
    expires_ms: Some(1_000),
    operation: Some(OperationId([7; 16])),
};

fn key() -> Key {
    Key::new("k").unwrap()
}

fn record(value: Vec<u8>) -> Record {
    let content = Content::Value {
        content_type: ContentType::new("a/b").unwrap(),
        value: Value::new(value).unwrap(),
    };
    Record::with_attributes(&key(), TAG, ATTRIBUTES, content)
}

fn put(record: Record) -> ReplicaCommand {
    ReplicaCommand::Put { key: key(), record }
}

#[test]
fn a_record_is_returned_with_its_attributes_by_get_and_digest_and_by_nothing_else() {
    let service = service(usize::MAX);
    let put_value = put(record(b"value".to_vec()));
    assert_eq!(one(&service, put_value), ReplicaResponse::Done);
    let got = one(&service, ReplicaCommand::Get { key: key() });
    let ReplicaResponse::Record { digest, .. } = got.clone() else {
        panic!("{got:?}");
    };
    assert_eq!(digest.attributes, ATTRIBUTES);
    assert_eq!(got.clone().checked(&key()), got, "the checksum covers them");
    let named = one(&service, ReplicaCommand::GetDigest { key: key() });
    assert!(
        matches!(named, ReplicaResponse::Digest { attributes, .. } if attributes == ATTRIBUTES)
    );
    let tag = TAG;
    let get_tag = ReplicaCommand::GetTag { key: key() };
    assert_eq!(one(&service, get_tag.clone()), ReplicaResponse::Tag { tag });

    let later = Tag { time: 6, op: 1 };
    let deleted = Record::with_attributes(&key(), later, ATTRIBUTES, Content::Tombstone);
    assert_eq!(one(&service, put(deleted)), ReplicaResponse::Done);
    let absent = ReplicaResponse::Absent {
        tag: later,
        attributes: ATTRIBUTES,
    };
    for command in [
        ReplicaCommand::Get { key: key() },
        ReplicaCommand::GetDigest { key: key() },
    ] {
        assert_eq!(one(&service, command), absent);
    }
    let without = ReplicaResponse::absent(later);
    assert_eq!(one(&service, get_tag), without);
    let block = ReplicaCommand::GetBlock {
        key: key(),
        tag: later,
        offset: 0,
        block_bytes: 10,
    };
    assert_eq!(one(&service, block), without);
}

#[test]
fn attributes_that_are_not_what_was_written_are_refused_as_corrupt() {
    let service = service(usize::MAX);
    let record = record(b"value".to_vec());
    for attributes in [
        Attributes::NONE,
        Attributes {
            expires_ms: Some(1_001),
            ..ATTRIBUTES
        },
        Attributes {
            operation: Some(OperationId([8; 16])),
            ..ATTRIBUTES
        },
    ] {
        let changed = Record {
            attributes,
            ..record.clone()
        };
        let refused = one(&service, put(changed));
        assert!(matches!(refused, ReplicaResponse::Refused(_)));
    }
    assert!(service.store().is_empty());
}

/// The first block of a long value leaves room for the attributes: the datagram has 1,200 bytes at most,
/// which is what [`one`] asserts.
#[test]
fn a_long_value_is_staged_and_returned_with_its_attributes() {
    let service = service(usize::MAX);
    let value = vec![b'v'; 2_000];
    let record = record(value.clone());
    for (number, block) in value.chunks(1_000).enumerate() {
        let stage = ReplicaCommand::Stage {
            upload: 9,
            value_bytes: 2_000,
            offset: 1_000 * number as u32,
            block_bytes: 1_000,
            block: Bytes::copy_from_slice(block),
        };
        one(&service, stage);
    }
    let put = |attributes| ReplicaCommand::PutStaged {
        key: key(),
        tag: TAG,
        attributes,
        content_type: ContentType::new("a/b").unwrap(),
        upload: 9,
        value_bytes: 2_000,
        checksum: record.checksum,
    };
    assert_eq!(one(&service, put(ATTRIBUTES)), ReplicaResponse::Done);
    let held = |held: &RecordView<'_>| held.attributes();
    let held = service.store().read_now(&key(), Part::Whole, held);
    assert_eq!(held, Lookup::Found(ATTRIBUTES));
    let got = one(&service, ReplicaCommand::Get { key: key() });
    let ReplicaResponse::Record { digest, block } = got else {
        panic!("{got:?}");
    };
    assert_eq!(digest.attributes, ATTRIBUTES);
    assert!(digest.is_beginning(&block) && block.len() > 1_000);
    // A repeat is answered from what is held, though its upload is gone; one of a greater age needs it.
    assert_eq!(one(&service, put(ATTRIBUTES)), ReplicaResponse::Done);
    let later = ATTRIBUTES.born_at_least(4);
    let absent = ReplicaResponse::absent(Tag::ZERO);
    assert_eq!(one(&service, put(later)), absent);
}

#[test]
fn a_put_by_dkvs_1_in_the_place_of_a_record_has_no_attributes() {
    let service = service(usize::MAX);
    one(&service, put(record(b"value".to_vec())));
    let replies = super::v1::replies(&service, Bytes::from_static(b"k\0other"));
    assert_eq!(replies, [Bytes::from_static(b"\0")]);
    let held = |held: &RecordView<'_>| (held.head().tag.is_by_v1(), held.attributes());
    let held = service.store().read_now(&key(), Part::Whole, held);
    assert_eq!(held, Lookup::Found((true, Attributes::NONE)));
}

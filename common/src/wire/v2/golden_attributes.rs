//! Messages about records that have attributes, in hexadecimal, and what is refused of them. Those of
//! records without any are in `golden`.

use bytes::Bytes;
use proptest::prelude::*;

use super::golden_messages::{ID, TAG, content, hex, key};
use super::message::{MessageError, ReplyMessage, RequestMessage, next_reply, next_request};
use super::reply::Reply;
use super::request::Request;
use crate::kv::Value;
use crate::model::{ReplicaCommand, ReplicaResponse};
use crate::record::{Attributes, Content, ContentType, Digest, OperationId, Record};

const ALL: Attributes = Attributes {
    born: 3,
    expires_ms: Some(0x0192_f0c4_a1b2),
    operation: Some(OperationId([0x55; 16])),
};
const BORN: Attributes = Attributes {
    born: 9,
    ..Attributes::NONE
};

const GET: u8 = 3;
const DIGEST: u8 = 5;
const PUT_STAGED_WITH_ATTRIBUTES: u8 = 15;

const VECTORS: &str = include_str!("../../../tests/vectors/wire-v2-attributes.txt");

fn put(attributes: Attributes, content: Content) -> Request {
    let record = Record::with_attributes(&key(), TAG, attributes, content);
    Request::Command(ReplicaCommand::Put { key: key(), record })
}

fn put_staged(attributes: Attributes) -> Request {
    Request::Command(ReplicaCommand::PutStaged {
        key: key(),
        tag: TAG,
        attributes,
        content_type: ContentType::new("a/b").unwrap(),
        upload: 0x99,
        value_bytes: 5_000,
        checksum: 0xdead_beef,
    })
}

fn requests() -> [Request; 4] {
    [
        put(ALL, content("text/plain", "value")),
        put(BORN, Content::Tombstone),
        put_staged(ALL),
        put_staged(BORN),
    ]
}

fn record(attributes: Attributes) -> Reply {
    Reply::Response(ReplicaResponse::Record {
        digest: Digest {
            tag: TAG,
            attributes,
            content_type: ContentType::new("text/plain").unwrap(),
            value_bytes: 5,
            checksum: 0xdead_beef,
        },
        block: Bytes::from_static(b"value"),
    })
}

fn tombstone(attributes: Attributes) -> Reply {
    let tag = TAG;
    Reply::Response(ReplicaResponse::Absent { tag, attributes })
}

fn digest(attributes: Attributes) -> Reply {
    Reply::Response(ReplicaResponse::Digest {
        tag: TAG,
        attributes,
        value_bytes: 5,
        checksum: 0xdead_beef,
    })
}

/// Each reply with the operation that it answers.
fn replies() -> [(u8, Reply); 5] {
    [
        (GET, record(ALL)),
        (GET, tombstone(ALL)),
        (DIGEST, digest(BORN)),
        (DIGEST, tombstone(BORN)),
        (
            PUT_STAGED_WITH_ATTRIBUTES,
            Reply::Response(ReplicaResponse::Done),
        ),
    ]
}

fn request_message(request: Request) -> Vec<u8> {
    let (id, wait_ms) = (ID, 1_000);
    let mut message = Vec::new();
    RequestMessage {
        id,
        wait_ms,
        request,
    }
    .encode(&mut message);
    message
}

fn reply_message(operation: u8, reply: Reply) -> Vec<u8> {
    let mut message = Vec::new();
    ReplyMessage {
        id: ID,
        operation,
        reply,
    }
    .encode(&mut message);
    message
}

fn read_request(message: &[u8]) -> Result<Request, MessageError> {
    let mut message = Bytes::copy_from_slice(message);
    let read = next_request(&mut message).unwrap().unwrap();
    read.map(|message| message.request).map_err(|bad| bad.error)
}

fn read_reply(message: &[u8]) -> Result<Reply, MessageError> {
    let mut message = Bytes::copy_from_slice(message);
    Ok(next_reply(&mut message)?.unwrap().reply)
}

#[test]
fn every_message_has_its_golden_bytes() {
    let (requests, replies) = (requests(), replies());
    assert_eq!(VECTORS.lines().count(), requests.len() + replies.len());
    let mut golden = VECTORS.lines();
    for request in requests {
        let message = request_message(request.clone());
        assert_eq!(Some(&*hex(&message)), golden.next(), "{request:?}");
        assert_eq!(read_request(&message), Ok(request));
    }
    for (operation, reply) in replies {
        let message = reply_message(operation, reply.clone());
        assert_eq!(Some(&*hex(&message)), golden.next(), "{reply:?}");
        assert_eq!(read_reply(&message), Ok(reply));
    }
}

/// The place of the block, which begins with its version and its flags, in each message.
fn with_blocks() -> impl Iterator<Item = (Vec<u8>, usize, bool)> {
    let put = 14 + 2 + 3 + 16 + 4 + 1;
    let put_staged = 14 + 2 + 3 + 16;
    let requests = requests().map(request_message).into_iter();
    let requests = requests.zip([put, put, put_staged, put_staged]);
    let replies = replies().map(|(operation, reply)| reply_message(operation, reply));
    let replies = replies.into_iter().take(4);
    requests
        .map(|(message, block)| (message, block, true))
        .chain(replies.map(|message| (message, 12, false)))
}

fn read(message: &[u8], is_request: bool) -> Result<(), MessageError> {
    match is_request {
        true => read_request(message).map(drop),
        false => read_reply(message).map(drop),
    }
}

#[test]
fn unknown_versions_and_flags_are_refused() {
    for (message, block, is_request) in with_blocks() {
        for version in [0, 2, 0xff] {
            let mut changed = message.clone();
            changed[block] = version;
            assert_eq!(read(&changed, is_request), Err(MessageError::Field));
        }
        for flag in 3..8 {
            let mut changed = message.clone();
            changed[block + 1] |= 1 << flag;
            assert_eq!(read(&changed, is_request), Err(MessageError::Field));
        }
        // The age is the first field of each.
        let mut changed = message.clone();
        changed[block + 2..block + 6].fill(0);
        assert_eq!(read(&changed, is_request), Err(MessageError::Field));
    }
}

#[test]
fn attributes_of_which_none_is_set_are_refused() {
    for (message, block, is_request) in with_blocks() {
        let fields = Attributes::fields_bytes(message[block + 1]);
        let mut changed = message.clone();
        changed.drain(block + 2..block + 2 + fields);
        changed[block + 1] = 0;
        let length = changed.len() as u16;
        changed[..2].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read(&changed, is_request), Err(MessageError::Field));
    }
}

#[test]
fn a_message_that_ends_in_its_attributes_is_refused() {
    for (message, block, is_request) in with_blocks() {
        let fields = Attributes::fields_bytes(message[block + 1]);
        for length in block..block + 2 + fields {
            let mut cut = message[..length].to_vec();
            cut[..2].copy_from_slice(&(length as u16).to_be_bytes());
            let read = read(&cut, is_request);
            assert!(matches!(read, Err(MessageError::Length(_))), "{read:?}");
        }
    }
}

#[test]
fn only_replies_that_have_a_record_have_its_attributes() {
    for status in [11, 12] {
        for operation in (0..=u8::MAX).filter(|it| ![GET, DIGEST].contains(it)) {
            let mut message = reply_message(GET, tombstone(ALL));
            (message[2], message[3]) = (operation, status);
            let refused = MessageError::Status { operation, status };
            assert_eq!(read_reply(&message), Err(refused));
        }
    }
    let mut nothing = reply_message(GET, tombstone(ALL));
    let tag = nothing.len() - 16;
    nothing[tag..].fill(0);
    assert_eq!(read_reply(&nothing), Err(MessageError::Field));
}

#[test]
fn no_other_bit_of_a_kind_is_taken() {
    let kind = 14 + 2 + 3 + 16 + 4;
    for bit in 2..8 {
        let mut message = request_message(put(ALL, Content::Tombstone));
        message[kind] |= 1 << bit;
        assert_eq!(read_request(&message), Err(MessageError::Field));
    }
}

proptest! {
    #[test]
    fn any_record_is_put_and_returned_as_it_is(
        born in any::<u32>(),
        expires_ms in any::<Option<u64>>(),
        operation in any::<Option<[u8; 16]>>(),
        value in any::<Option<(Vec<u8>, Vec<u8>)>>(),
    ) {
        let operation = operation.map(OperationId);
        let attributes = Attributes { born, expires_ms, operation };
        let content = match value {
            Some((mut content_type, value)) => {
                content_type.truncate(255);
                Content::Value {
                    content_type: ContentType::new(content_type).unwrap(),
                    value: Value::new(value).unwrap(),
                }
            }
            None => Content::Tombstone,
        };
        let record = Record::with_attributes(&key(), TAG, attributes, content.clone());
        let request = Request::Command(ReplicaCommand::Put { key: key(), record: record.clone() });
        let message = request_message(request.clone());
        prop_assert_eq!(message.len(), Request::put_bytes(&key(), &record));
        prop_assert_eq!(read_request(&message), Ok(request));
        let staged = request_message(put_staged(attributes));
        prop_assert_eq!(read_request(&staged), Ok(put_staged(attributes)));
        let got = Reply::Response(match content {
            Content::Value { content_type, value } => ReplicaResponse::Record {
                digest: Digest {
                    tag: TAG,
                    attributes,
                    content_type,
                    value_bytes: value.len() as u32,
                    checksum: record.checksum,
                },
                block: value.into_bytes(),
            },
            Content::Tombstone => ReplicaResponse::Absent { tag: TAG, attributes },
        });
        prop_assert_eq!(read_reply(&reply_message(GET, got.clone())), Ok(got));
        let named = digest(attributes);
        prop_assert_eq!(read_reply(&reply_message(DIGEST, named.clone())), Ok(named));
    }
}

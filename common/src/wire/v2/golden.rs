//! A datagram of every kind, in hexadecimal: what this layout is, whatever the code says.

use crate::model::{
    Direction, Durability, EntryKind, KeyPosition, LeafEntry, LeafScope, LeafSum, Nudge, PageEntry,
    PageRest, Refusal, ReplicaCommand, ReplicaResponse,
};
use bytes::Bytes;
use proptest::prelude::*;

use super::envelope::{self, Authentication, Builder, ClusterKey, Envelope, Proof, Sender};
use super::message::{
    MessageError, ReplyMessage, RequestId, RequestMessage, next_reply, next_request,
};
use super::reply::{Greeting, Reply};
use super::request::Request;
use crate::kv::{Key, Value};
use crate::record::{Attributes, Content, ContentType, Record, RecordVersion};
use crate::tag::Tag;
use crate::trace::{SpanId, Trace, TraceId};

pub(super) const ID: RequestId = RequestId(0x0102_0304_0506_0708);
pub(super) const TAG: Tag = Tag {
    time: 0x0192_f0c4_a1b2_0001,
    op: 0x9f3c_21d4_0000_0007,
};

pub(super) fn key() -> Key {
    Key::new("key").unwrap()
}

pub(super) fn content(content_type: &'static str, value: &'static str) -> Content {
    Content::Value {
        content_type: ContentType::new(content_type).unwrap(),
        value: Value::new(value).unwrap(),
    }
}

fn entry(kind: EntryKind) -> PageEntry {
    PageEntry {
        key: key(),
        tag: TAG,
        kind,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(sender: Sender, message: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let envelope = Envelope {
        sender,
        epoch: 0x0a0b_0c0d,
        authentication: None,
    };
    let mut builder = Builder::new(envelope, 1_200);
    assert!(builder.push(message));
    builder.finish().into()
}

/// The messages of a datagram without what is around them.
fn messages(datagram: &Bytes) -> Bytes {
    envelope::open(datagram, Proof::Checksum).unwrap().1
}

const UPLOAD: u64 = 0x99;

const SCOPE: LeafScope = LeafScope {
    asker: std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 7), 5_000),
    replication: 3,
    depth: 14,
};

fn requests() -> Vec<Request> {
    let record = |content| Record::new(&key(), TAG, content);
    vec![
        Request::Greet {
            datagram_bytes_max: 1_200,
        },
        Request::Command(ReplicaCommand::Ping),
        Request::Command(ReplicaCommand::Get { key: key() }),
        Request::Command(ReplicaCommand::GetTag { key: key() }),
        Request::Command(ReplicaCommand::GetDigest { key: key() }),
        Request::Command(ReplicaCommand::Put {
            key: key(),
            record: record(content("text/plain", "value")),
        }),
        Request::Command(ReplicaCommand::Put {
            key: key(),
            record: record(Content::Tombstone),
        }),
        Request::Command(ReplicaCommand::PutStaged {
            key: key(),
            tag: TAG,
            attributes: Attributes::NONE,
            content_type: ContentType::new("a/b").unwrap(),
            upload: UPLOAD,
            value_bytes: 5_000,
            checksum: 0xdead_beef,
        }),
        Request::Command(ReplicaCommand::Stage {
            upload: UPLOAD,
            value_bytes: 5_000,
            offset: 1_024,
            block_bytes: 1_024,
            block: Bytes::from_static(b"block"),
        }),
        Request::Command(ReplicaCommand::GetBlock {
            key: key(),
            tag: TAG,
            offset: 1_024,
            block_bytes: 1_024,
        }),
        Request::Command(ReplicaCommand::List {
            prefix: Bytes::from_static(b""),
            start: KeyPosition::START,
            direction: Direction::Ascending,
            limit: 100,
        }),
        Request::Command(ReplicaCommand::List {
            prefix: Bytes::from_static(b"ke"),
            start: KeyPosition::After(Bytes::from_static(b"key")),
            direction: Direction::Ascending,
            limit: 100,
        }),
        Request::Command(ReplicaCommand::List {
            prefix: Bytes::from_static(b"ke"),
            start: KeyPosition::Before(Bytes::from_static(b"kf")),
            direction: Direction::Descending,
            limit: 100,
        }),
        Request::Command(ReplicaCommand::List {
            prefix: Bytes::from_static(b""),
            start: KeyPosition::End,
            direction: Direction::Descending,
            limit: 100,
        }),
        Request::Command(ReplicaCommand::GetStatistics),
        Request::Command(ReplicaCommand::Attest {
            boot_id: 0xb007,
            key: key(),
            tag: TAG,
        }),
        Request::Command(ReplicaCommand::GetLeafSums {
            scope: SCOPE,
            first: 256,
            leaves_per_sum: 4,
            sums_max: 64,
        }),
        Request::Command(ReplicaCommand::GetLeafEntries {
            scope: SCOPE,
            leaf: 259,
            after: None,
        }),
        Request::Command(ReplicaCommand::GetLeafEntries {
            scope: SCOPE,
            leaf: 259,
            after: Some(key()),
        }),
        Request::Command(ReplicaCommand::Nudge(Nudge {
            behind: SCOPE.asker,
            ahead: std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 2), 4_002),
        })),
        Request::Trace {
            of: RequestId(0x7f),
            trace: Trace {
                trace_id: TraceId([0x33; 16]),
                span_id: SpanId([0x44; 8]),
            },
        },
    ]
}

/// Each reply with the operation that it answers.
fn replies() -> Vec<(u8, Reply)> {
    let (get, put, attest) = (3, 6, 12);
    vec![
        (
            1,
            Reply::Greeting(Greeting {
                boot_id: 0xb007,
                session: 0x5e55,
                datagram_bytes_max: 1_200,
                value_bytes_max: 1 << 20,
                durability: Durability::Memory,
            }),
        ),
        (2, Reply::Response(ReplicaResponse::Done)),
        (
            get,
            Reply::Response(ReplicaResponse::Record {
                digest: crate::record::Digest {
                    tag: TAG,
                    attributes: Attributes::NONE,
                    content_type: ContentType::new("text/plain").unwrap(),
                    value_bytes: 5,
                    checksum: 0xdead_beef,
                },
                block: Bytes::from_static(b"value"),
            }),
        ),
        (4, Reply::Response(ReplicaResponse::Tag { tag: TAG })),
        (
            5,
            Reply::Response(ReplicaResponse::Digest {
                tag: TAG,
                attributes: Attributes::NONE,
                value_bytes: 5,
                checksum: 0xdead_beef,
            }),
        ),
        (put, Reply::Response(ReplicaResponse::Done)),
        (
            8,
            Reply::Response(ReplicaResponse::Staged {
                base: 3,
                bitmap: Bytes::from_static(&[0b110]),
            }),
        ),
        (
            9,
            Reply::Response(ReplicaResponse::Block {
                offset: 1_024,
                block: Bytes::from_static(b"block"),
            }),
        ),
        (
            14,
            Reply::Response(ReplicaResponse::Page {
                rest: PageRest::AfterLast,
                is_incomplete: false,
                is_left_out: false,
                entries: vec![entry(EntryKind::Value), entry(EntryKind::Tombstone)],
            }),
        ),
        (
            14,
            Reply::Response(ReplicaResponse::Page {
                rest: PageRest::From(KeyPosition::Before(Bytes::from_static(b"kez"))),
                is_incomplete: true,
                is_left_out: true,
                entries: vec![entry(EntryKind::Value)],
            }),
        ),
        (
            14,
            Reply::Response(ReplicaResponse::Page {
                rest: PageRest::None,
                is_incomplete: true,
                is_left_out: false,
                entries: Vec::new(),
            }),
        ),
        (
            14,
            Reply::Response(ReplicaResponse::Page {
                rest: PageRest::AfterLast,
                is_incomplete: false,
                is_left_out: true,
                entries: vec![entry(EntryKind::Value)],
            }),
        ),
        (
            11,
            Reply::Response(ReplicaResponse::Statistics(vec![(1, 1_000), (2, 7)])),
        ),
        (
            32,
            Reply::Response(ReplicaResponse::LeafSums {
                depth: 14,
                sums: vec![
                    LeafSum {
                        sum: 0x0123_4567_89ab_cdef,
                        keys: 300,
                        has_answered: true,
                        has_unanswered: true,
                    },
                    LeafSum::default(),
                ],
            }),
        ),
        (
            33,
            Reply::Response(ReplicaResponse::LeafEntries {
                has_more: true,
                is_answered: false,
                entries: vec![LeafEntry {
                    key: key(),
                    version: RecordVersion {
                        tag: TAG,
                        checksum: 0xdead_beef,
                        born: 7,
                    },
                }],
            }),
        ),
        (
            33,
            Reply::Response(ReplicaResponse::LeafEntries {
                has_more: false,
                is_answered: true,
                entries: Vec::new(),
            }),
        ),
        (get, Reply::Response(ReplicaResponse::absent(Tag::ZERO))),
        (get, Reply::Response(ReplicaResponse::absent(TAG))),
        (
            put,
            Reply::Response(ReplicaResponse::Superseded { tag: TAG }),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::TooLarge {
                value_bytes_max: 1 << 20,
            })),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::Full)),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::ReadOnly)),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::WrongEpoch {
                epoch: 0x0a0b_0c0d,
            })),
        ),
        (
            60,
            Reply::Response(ReplicaResponse::Refused(Refusal::Unsupported)),
        ),
        (8, Reply::Response(ReplicaResponse::Refused(Refusal::Busy))),
        (
            get,
            Reply::Response(ReplicaResponse::Refused(Refusal::Corrupt)),
        ),
        (
            get,
            Reply::Response(ReplicaResponse::Refused(Refusal::Internal)),
        ),
        (attest, Reply::Response(ReplicaResponse::Done)),
        (attest, Reply::Response(ReplicaResponse::absent(TAG))),
        (
            attest,
            Reply::Response(ReplicaResponse::Refused(Refusal::Corrupt)),
        ),
    ]
}

fn request_datagram(request: Request) -> Bytes {
    let message = RequestMessage {
        id: ID,
        wait_ms: 1_000,
        request,
    };
    plain(Sender::Client, |datagram| message.encode(datagram))
}

fn reply_datagram(operation: u8, reply: Reply) -> Bytes {
    let message = ReplyMessage {
        id: ID,
        operation,
        reply,
    };
    plain(Sender::Server, |datagram| message.encode(datagram))
}

#[test]
fn every_request_has_its_golden_datagram() {
    let golden: Vec<&str> = include_str!("../../../tests/vectors/wire-v2-requests.txt")
        .lines()
        .collect();
    let requests = requests();
    assert_eq!(golden.len(), requests.len());
    for (request, golden) in requests.into_iter().zip(golden) {
        let datagram = request_datagram(request.clone());
        assert_eq!(hex(&datagram), golden, "{request:?}");
        let mut messages = messages(&datagram);
        let read = next_request(&mut messages).unwrap().unwrap().unwrap();
        assert_eq!(
            read,
            RequestMessage {
                id: ID,
                wait_ms: 1_000,
                request
            }
        );
        assert_eq!(next_request(&mut messages), Ok(None));
    }
}

#[test]
fn every_reply_has_its_golden_datagram() {
    let golden: Vec<&str> = include_str!("../../../tests/vectors/wire-v2-replies.txt")
        .lines()
        .collect();
    let replies = replies();
    assert_eq!(golden.len(), replies.len());
    for ((operation, reply), golden) in replies.into_iter().zip(golden) {
        let datagram = reply_datagram(operation, reply.clone());
        assert_eq!(hex(&datagram), golden, "{reply:?}");
        let mut messages = messages(&datagram);
        let read = next_reply(&mut messages).unwrap().unwrap();
        assert_eq!(
            read,
            ReplyMessage {
                id: ID,
                operation,
                reply
            }
        );
        assert_eq!(next_reply(&mut messages), Ok(None));
    }
}

#[test]
fn an_authenticated_datagram_is_golden_too() {
    let authentication = Authentication {
        key_id: 3,
        session: 0x5e55,
        sequence: 42,
    };
    let envelope = Envelope {
        sender: Sender::Client,
        epoch: 0x0a0b_0c0d,
        authentication: Some(authentication),
    };
    let mut builder = Builder::new(envelope, 1_200);
    let message = RequestMessage {
        id: ID,
        wait_ms: 1_000,
        request: Request::Command(ReplicaCommand::Ping),
    };
    assert!(builder.push(|datagram| message.encode(datagram)));
    let key: [u8; 32] = std::array::from_fn(|place| place as u8);
    let client = "10.0.0.7:4100".parse().unwrap();
    let datagram = builder.finish_with(&ClusterKey::new(&key), client);
    let golden = include_str!("../../../tests/vectors/wire-v2-authenticated.txt");
    assert_eq!(hex(&datagram), golden.trim_end());
}

#[test]
fn a_greeting_is_as_long_as_its_answer() {
    let (operation, answer) = replies().swap_remove(0);
    let greeting = request_datagram(Request::Greet {
        datagram_bytes_max: 1_200,
    });
    assert_eq!(greeting.len(), reply_datagram(operation, answer).len());
}

#[test]
fn a_datagram_holds_many_messages_and_gives_them_in_order() {
    let all = requests();
    let datagram = plain(Sender::Client, |datagram| {
        for (number, request) in (0..).zip(&all) {
            let (id, request) = (RequestId(number), request.clone());
            RequestMessage {
                id,
                wait_ms: 9,
                request,
            }
            .encode(datagram);
        }
    });
    let mut messages = messages(&datagram);
    for (number, request) in (0..).zip(all) {
        let read = next_request(&mut messages).unwrap().unwrap().unwrap();
        let id = RequestId(number);
        assert_eq!(
            read,
            RequestMessage {
                id,
                wait_ms: 9,
                request
            }
        );
    }
    assert_eq!(next_request(&mut messages), Ok(None));
}

#[test]
fn one_bad_request_is_told_and_the_next_one_is_read() {
    let mut messages = Vec::new();
    let ping = RequestMessage {
        id: ID,
        wait_ms: 1,
        request: Request::Command(ReplicaCommand::Ping),
    };
    ping.encode(&mut messages);
    messages[2] = 60;
    ping.encode(&mut messages);
    let mut messages = Bytes::from(messages);
    let bad = next_request(&mut messages).unwrap().unwrap().unwrap_err();
    assert_eq!((bad.id, bad.operation), (ID, 60));
    assert_eq!(bad.error, MessageError::Operation { operation: 60 });
    assert_eq!(next_request(&mut messages), Ok(Some(Ok(ping))));
}

#[test]
fn every_shortened_and_every_lengthened_message_is_refused() {
    for request in requests() {
        let mut message = Vec::new();
        RequestMessage {
            id: ID,
            wait_ms: 1,
            request: request.clone(),
        }
        .encode(&mut message);
        let takes_the_rest = matches!(request, Request::Command(ReplicaCommand::Stage { .. }))
            || matches!(&request, Request::Command(ReplicaCommand::Put { record, .. }) if record.content != Content::Tombstone);
        for length in 12..=message.len() + 1 {
            let mut changed = message.clone();
            changed.resize(length, 0);
            changed[..2].copy_from_slice(&(length as u16).to_be_bytes());
            let read = next_request(&mut changed.into()).unwrap().unwrap();
            // A value or a block goes to the message's end, wherever that is; a shorter one
            // than that has lost some other field.
            let may_be_read = length == message.len() || takes_the_rest;
            assert!(
                may_be_read || read.is_err(),
                "{request:?} with {length} bytes"
            );
        }
        for short in 0..message.len() {
            let cut = Bytes::copy_from_slice(&message[..short]);
            let read = next_request(&mut cut.clone());
            assert!(
                read.is_err() || read == Ok(None) && cut.is_empty(),
                "{request:?} cut at {short}"
            );
        }
    }
}

/// Bytes that are a message often enough: a head with a length that fits, then anything.
fn likely_message() -> impl Strategy<Value = Bytes> {
    let body = prop::collection::vec(
        prop_oneof![Just(0u8), Just(1u8), Just(3u8), any::<u8>()],
        0..80,
    );
    (0u8..15, 0u8..12, body).prop_map(|(operation, status, body)| {
        let mut message = (12 + body.len() as u16).to_be_bytes().to_vec();
        message.extend([operation, status]);
        message.extend([7; 8]);
        message.extend(body);
        message.into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn decoding_is_total_and_what_it_takes_is_encoded_the_same(bytes in likely_message(), status: bool) {
        let mut request = bytes.to_vec();
        if status {
            request[3] = 0;
        }
        let request = Bytes::from(request);
        if let Ok(Some(Ok(message))) = next_request(&mut request.clone()) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(Bytes::from(again), request);
        }
        if let Ok(Some(message)) = next_reply(&mut bytes.clone()) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(Bytes::from(again), bytes);
        }
    }

    #[test]
    fn decoding_any_bytes_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = next_request(&mut bytes.clone());
        let mut bytes = bytes;
        let _ = next_reply(&mut bytes);
    }
}

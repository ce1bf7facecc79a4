//! A message of every kind, of which `golden` has the datagrams.

use crate::epoch::Epoch;
use crate::model::{
    Accepted, Ballot, Description, Direction, Durability, EntryKind, HighWater, KeyPosition,
    LeafEntry, LeafScope, LeafSum, Nudge, PageEntry, PageRest, Refusal, ReplicaCommand,
    ReplicaResponse,
};
use bytes::Bytes;

use super::message::RequestId;
use super::reply::{Greeting, Reply};
use super::request::Request;
use crate::kv::{Key, Value};
use crate::record::{Attributes, Content, ContentType, OperationId, Record, RecordVersion};
use crate::tag::Tag;
use crate::trace::{SpanId, Trace, TraceId};

pub(super) const ID: RequestId = RequestId(0x0102_0304_0506_0708);
pub(super) const TAG: Tag = Tag {
    time: 0x0192_f0c4_a1b2_0001,
    op: 0x9f3c_21d4_0000_0007,
};

const BALLOT: Ballot = Ballot {
    number: 5,
    proposer: 0x0a0b_0c0d_0e0f_1011,
};
const OPERATION: OperationId = OperationId([0x55; 16]);

fn successor(content: Content) -> Record {
    let attributes = Attributes {
        operation: Some(OPERATION),
        ..Attributes::NONE
    };
    Record::with_attributes(&key(), TAG, attributes, content)
}

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

const UPLOAD: u64 = 0x99;

pub(super) const EPOCH: Epoch = Epoch {
    number: 2,
    hash: 0xa5,
};

const SCOPE: LeafScope = LeafScope {
    asker: std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 7), 5_000),
    replication: 3,
    depth: 14,
};

pub(super) fn requests() -> Vec<Request> {
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
        Request::Command(ReplicaCommand::Prepare {
            key: key(),
            base: TAG,
            ballot: BALLOT,
        }),
        Request::Command(ReplicaCommand::Accept {
            key: key(),
            base: TAG,
            ballot: BALLOT,
            grant: 0x77,
            record: successor(content("text/plain", "value")),
        }),
        Request::Command(ReplicaCommand::Accept {
            key: key(),
            base: Tag::ZERO,
            ballot: BALLOT,
            grant: 0x77,
            record: successor(Content::Tombstone),
        }),
        Request::Command(ReplicaCommand::Commit {
            key: key(),
            tag: TAG,
            checksum: 0xdead_beef,
            operation: Some(OPERATION),
        }),
        Request::Command(ReplicaCommand::Commit {
            key: key(),
            tag: TAG,
            checksum: 0xdead_beef,
            operation: None,
        }),
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
        Request::Command(ReplicaCommand::NoteHighWater(HighWater {
            server: SCOPE.asker,
            lineage: 0x11e,
            boot_id: 0xb007,
            start: 9,
            sequence: 10,
        })),
        Request::Command(ReplicaCommand::Nudge(Nudge {
            behind: SCOPE.asker,
            ahead: std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 2), 4_002),
        })),
        Request::Describe,
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
pub(super) fn replies() -> Vec<(u8, Reply)> {
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
            16,
            Reply::Response(ReplicaResponse::Promised {
                grant: 0x77,
                is_tombstone: true,
                accepted: None,
            }),
        ),
        (
            16,
            Reply::Response(ReplicaResponse::Promised {
                grant: 0x77,
                is_tombstone: false,
                accepted: Some(Accepted {
                    ballot: BALLOT,
                    record: successor(content("text/plain", "value")),
                }),
            }),
        ),
        (
            17,
            Reply::Response(ReplicaResponse::Preempted { promised: BALLOT }),
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
        (
            64,
            Reply::Description(Description {
                store_id: 0x57e0,
                epoch: Some(EPOCH),
            }),
        ),
        (
            64,
            Reply::Description(Description {
                store_id: 0x57e0,
                epoch: None,
            }),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::Stale { served: EPOCH })),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::Behind { served: EPOCH })),
        ),
        (
            put,
            Reply::Response(ReplicaResponse::Refused(Refusal::OtherConfiguration {
                served: EPOCH,
            })),
        ),
        (
            34,
            Reply::Response(ReplicaResponse::Refused(Refusal::SetBack)),
        ),
    ]
}

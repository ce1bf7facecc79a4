//! DKVS/2 datagrams without authentication, and what they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{
    Direction, EntryKind, KeyPosition, PageEntry, PageRest, Refusal, ReplicaCommand,
    ReplicaResponse, Statistic,
};
use dkvs_common::record::{Attributes, Content, ContentType, Digest, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, PLAIN_BYTES, Proof, Sender};
use dkvs_common::wire::v2::message::{RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::{PAGE_ENTRY_BYTES, PAGE_HEAD_BYTES, Reply};

use crate::config::{Served, ServiceConfig};
use crate::maintenance::Maintenance;
use crate::protocol::{Access, Backlog, Received};
use crate::service::Service;
use crate::store::{Lookup, MemoryStore, Part, RecordStore as _, RecordView, Store};

pub(super) const SERVED: Served = Served {
    epoch: Epoch { number: 5, hash: 7 },
    ring: 7,
    takes_rings: false,
};

pub(super) fn service(bytes_max: usize) -> Arc<Service> {
    let config = ServiceConfig {
        boot_id: 77,
        ..ServiceConfig::new(1)
    };
    service_of(bytes_max, config)
}

pub(super) fn service_of(bytes_max: usize, config: ServiceConfig) -> Arc<Service> {
    let store = Store::Memory(MemoryStore::new(bytes_max));
    Arc::new(Service::new(store, config))
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn record(time: u64, value: Vec<u8>) -> Record {
    let content = Content::Value {
        content_type: ContentType::new("a/b").unwrap(),
        value: Value::new(value).unwrap(),
    };
    Record::new(&key(), Tag { time, op: 1 }, content)
}

fn received(datagram: Vec<u8>, waited: Duration) -> Received {
    Received {
        datagram: datagram.into(),
        peer: ([127, 0, 0, 1], 4_000).into(),
        at: Instant::now(),
        waited,
    }
}

/// Sends requests in one datagram; the replies, and in how many datagrams they came.
pub(super) fn ask(
    service: &Arc<Service>,
    epoch: StatedEpoch,
    requests: Vec<ReplicaCommand>,
) -> (Vec<ReplicaResponse>, usize) {
    let envelope = Envelope {
        sender: Sender::Client,
        epoch,
        authentication: None,
    };
    let mut builder = Builder::new(envelope, 60_000);
    for (number, request) in (0..).zip(requests) {
        let message = RequestMessage {
            id: RequestId(number),
            wait_ms: 1_000,
            request: request.into(),
        };
        assert!(builder.push(|datagram| message.encode(datagram)));
    }
    let mut datagrams = Vec::new();
    let received = received(builder.finish(), Duration::ZERO);
    let mut maintenance = Maintenance::new(Arc::clone(service), || {});
    let backlog = maintenance.backlog();
    service.handle_v2(&received, &mut Access::Open, backlog, &mut |reply| {
        datagrams.push(Bytes::from(reply));
    });
    while maintenance.has_turn() {
        maintenance.handle_timeout(received.at);
    }
    datagrams.extend(std::iter::from_fn(|| maintenance.poll_transmit()).map(|it| it.datagram));
    let mut replies = Vec::new();
    for datagram in &datagrams {
        assert!(datagram.len() <= 1_200);
        let (envelope, mut messages) = envelope::open(datagram, Proof::Checksum).unwrap();
        assert_eq!(envelope.sender, Sender::Server);
        while let Some(message) = next_reply(&mut messages).unwrap() {
            assert_eq!(message.id, RequestId(replies.len() as u64));
            match message.reply {
                Reply::Response(response) => replies.push(response),
                Reply::Greeting(_) | Reply::Description(_) => panic!("nobody greeted"),
            }
        }
    }
    (replies, datagrams.len())
}

pub(super) fn one(service: &Arc<Service>, request: ReplicaCommand) -> ReplicaResponse {
    ask(service, StatedEpoch::None, vec![request]).0.remove(0)
}

fn store(service: &Service, key: &Key, record: &Record) {
    let put = service.store().apply(key, record, || Box::new(drop));
    put.unwrap().unwrap();
}

pub(super) fn put(time: u64, value: &str) -> ReplicaCommand {
    ReplicaCommand::Put {
        key: key(),
        record: record(time, value.into()),
    }
}

#[test]
fn the_newest_record_is_kept_and_returned_in_every_form() {
    let service = service(usize::MAX);
    assert_eq!(
        one(&service, ReplicaCommand::Get { key: key() }),
        ReplicaResponse::absent(Tag::ZERO)
    );
    assert_eq!(one(&service, put(5, "five")), ReplicaResponse::Done);
    let tag = Tag { time: 5, op: 1 };
    assert_eq!(
        one(&service, put(4, "four")),
        ReplicaResponse::Superseded { tag }
    );
    assert_eq!(one(&service, put(5, "five")), ReplicaResponse::Done);
    let checksum = record(5, "five".into()).checksum;
    let content_type = ContentType::new("a/b").unwrap();
    let block = Bytes::from_static(b"five");
    let whole = ReplicaResponse::Record {
        digest: Digest {
            attributes: Attributes::NONE,
            tag,
            content_type,
            value_bytes: 4,
            checksum,
        },

        block,
    };
    assert_eq!(one(&service, ReplicaCommand::Get { key: key() }), whole);
    assert_eq!(
        one(&service, ReplicaCommand::GetTag { key: key() }),
        ReplicaResponse::Tag { tag }
    );
    let digest = ReplicaResponse::Digest {
        attributes: Attributes::NONE,
        tag,
        value_bytes: 4,
        checksum,
    };
    assert_eq!(
        one(&service, ReplicaCommand::GetDigest { key: key() }),
        digest
    );

    let tombstone = Record::new(&key(), Tag { time: 6, op: 1 }, Content::Tombstone);
    assert_eq!(
        one(
            &service,
            ReplicaCommand::Put {
                key: key(),
                record: tombstone
            }
        ),
        ReplicaResponse::Done
    );
    let absent = ReplicaResponse::absent(Tag { time: 6, op: 1 });
    for request in [
        ReplicaCommand::Get { key: key() },
        ReplicaCommand::GetTag { key: key() },
        ReplicaCommand::GetDigest { key: key() },
    ] {
        assert_eq!(one(&service, request), absent);
    }
}

#[test]
fn requests_of_one_datagram_are_answered_in_one_where_they_fit() {
    let service = service(usize::MAX);
    let (replies, datagrams) = ask(
        &service,
        StatedEpoch::None,
        vec![
            put(1, "v"),
            ReplicaCommand::Get { key: key() },
            ReplicaCommand::Ping,
        ],
    );
    assert_eq!((replies.len(), datagrams), (3, 1));
    let long = ReplicaCommand::Put {
        key: key(),
        record: record(2, vec![b'v'; 700]),
    };
    let gets = vec![ReplicaCommand::Get { key: key() }; 3];
    let (replies, datagrams) = ask(&service, StatedEpoch::None, [vec![long], gets].concat());
    assert_eq!((replies.len(), datagrams), (4, 3));
}

#[test]
fn a_long_value_is_returned_by_its_first_block_and_then_block_by_block() {
    let service = service(usize::MAX);
    let value: Vec<u8> = (0..20_000u32).map(|number| number as u8).collect();
    let record = record(1, value.clone());
    store(&service, &key(), &record);
    let ReplicaResponse::Record {
        digest: Digest {
            value_bytes: 20_000,
            ..
        },
        block,
        ..
    } = one(&service, ReplicaCommand::Get { key: key() })
    else {
        panic!("no record");
    };
    let mut got = block.to_vec();
    assert!(got.len() > 1_000);
    while got.len() < value.len() {
        let request = ReplicaCommand::GetBlock {
            key: key(),
            tag: record.tag,
            offset: got.len() as u32,
            block_bytes: u16::MAX,
        };
        let ReplicaResponse::Block { offset, block } = one(&service, request) else {
            panic!("no block");
        };
        assert_eq!(offset as usize, got.len());
        assert!(!block.is_empty());
        got.extend_from_slice(&block);
    }
    assert_eq!(got, value);
    let past_the_end = |offset, time| ReplicaCommand::GetBlock {
        key: key(),
        tag: Tag { time, op: 1 },
        offset,
        block_bytes: 9,
    };
    let nothing = ReplicaResponse::Block {
        offset: u32::MAX,
        block: Bytes::new(),
    };
    assert_eq!(one(&service, past_the_end(u32::MAX, 1)), nothing);
    assert_eq!(
        one(&service, past_the_end(0, 2)),
        ReplicaResponse::Superseded { tag: record.tag }
    );
}

#[test]
fn what_cannot_be_stored_is_refused_with_its_reason() {
    let service = service(100);
    assert_eq!(
        one(&service, put(1, &"v".repeat(100))),
        ReplicaResponse::Refused(Refusal::Full)
    );
    let mut damaged = record(1, b"v".to_vec());
    damaged.checksum ^= 1;
    assert_eq!(
        one(
            &service,
            ReplicaCommand::Put {
                key: key(),
                record: damaged
            }
        ),
        ReplicaResponse::Refused(Refusal::Corrupt)
    );
    let config = ServiceConfig {
        value_bytes_max: 10,
        served: Some(SERVED),
        ..ServiceConfig::new(1)
    };
    let service = service_of(usize::MAX, config);
    let (replies, _) = ask(
        &service,
        StatedEpoch::Numbered(SERVED.epoch),
        vec![put(1, "12345678901")],
    );
    assert_eq!(
        replies,
        [ReplicaResponse::Refused(Refusal::TooLarge {
            value_bytes_max: 10
        })]
    );
    let (replies, _) = ask(
        &service,
        StatedEpoch::Ring(8),
        vec![put(1, "v"), ReplicaCommand::Ping],
    );
    assert_eq!(
        replies,
        [
            ReplicaResponse::Refused(Refusal::WrongEpoch { epoch: 7 }),
            ReplicaResponse::Done
        ]
    );
}

#[test]
fn it_attests_in_its_own_incarnation_what_it_holds_and_nothing_newer() {
    let service = service(usize::MAX);
    let attest = |boot_id, time| {
        let (key, tag) = (key(), Tag { time, op: 1 });
        one(&service, ReplicaCommand::Attest { boot_id, key, tag })
    };
    let absent = |tag| ReplicaResponse::absent(tag);
    assert_eq!(attest(77, 5), absent(Tag::ZERO), "it holds nothing");
    assert_eq!(one(&service, put(5, "five")), ReplicaResponse::Done);
    assert_eq!(attest(77, 5), ReplicaResponse::Done);
    assert_eq!(attest(77, 4), ReplicaResponse::Done);
    assert_eq!(attest(77, 6), absent(Tag { time: 5, op: 1 }));
    assert_eq!(attest(76, 5), absent(Tag::ZERO), "it was started anew");
    let tag = Tag { time: 6, op: 1 };
    let record = Record::new(&key(), tag, Content::Tombstone);
    let key = key();
    assert_eq!(
        one(&service, ReplicaCommand::Put { key, record }),
        ReplicaResponse::Done
    );
    assert_eq!(
        attest(77, 6),
        ReplicaResponse::Done,
        "a tombstone is a record"
    );
}

#[test]
fn a_server_of_another_ring_attests_nothing() {
    let config = ServiceConfig {
        served: Some(SERVED),
        ..ServiceConfig::new(77)
    };
    let service = service_of(usize::MAX, config);
    let (boot_id, key, tag) = (77, key(), Tag::ZERO);
    let (replies, _) = ask(
        &service,
        StatedEpoch::Ring(8),
        vec![ReplicaCommand::Attest { boot_id, key, tag }],
    );
    assert_eq!(
        replies,
        [ReplicaResponse::Refused(Refusal::WrongEpoch { epoch: 7 })]
    );
}

#[test]
fn a_long_value_is_put_in_blocks_over_datagrams() {
    let service = service(usize::MAX);
    let value: Vec<u8> = (0..20_000u32).map(|number| (number % 251) as u8).collect();
    let record = record(1, value.clone());
    for (number, block) in value.chunks(1_100).enumerate() {
        let stage = ReplicaCommand::Stage {
            upload: 9,
            value_bytes: 20_000,
            offset: 1_100 * number as u32,
            block_bytes: 1_100,
            block: Bytes::copy_from_slice(block),
        };
        let base = number as u32 + 1;
        let bitmap = Bytes::new();
        assert_eq!(
            one(&service, stage),
            ReplicaResponse::Staged { base, bitmap }
        );
    }
    let put = ReplicaCommand::PutStaged {
        key: key(),
        attributes: Attributes::NONE,
        tag: record.tag,
        content_type: ContentType::new("a/b").unwrap(),
        upload: 9,
        value_bytes: 20_000,
        checksum: record.checksum,
    };
    assert_eq!(one(&service, put), ReplicaResponse::Done);
    let is_whole = |held: &RecordView<'_>| held.value() == value;
    let held = service.store().read_now(&key(), Part::Whole, is_whole);
    assert_eq!(held, Lookup::Found(true));
}

#[test]
fn pages_over_datagrams_have_every_key_once_in_order() {
    let service = service(usize::MAX);
    let mut keys: Vec<Key> = (0..500)
        .map(|number| Key::new(format!("{number:0width$}", width = 1 + number % 90)).unwrap())
        .collect();
    for key in &keys {
        let record = Record::new(key, Tag { time: 3, op: 1 }, Content::Tombstone);
        store(&service, key, &record);
    }
    let too_long = Key::new(vec![b'k'; 2_000]).unwrap();
    let record = Record::new(&too_long, Tag { time: 3, op: 1 }, Content::Tombstone);
    store(&service, &too_long, &record);
    keys.sort_unstable();
    let mut listed = Vec::<Key>::new();
    let mut left_out_reported = 0;
    loop {
        let start = listed
            .last()
            .map(|key| KeyPosition::After(key.clone().into_bytes()));
        let list = ReplicaCommand::List {
            prefix: Bytes::new(),
            start: start.unwrap_or(KeyPosition::START),
            direction: Direction::Ascending,
            limit: u16::MAX,
        };
        let ReplicaResponse::Page {
            rest,
            entries,
            is_left_out,
            ..
        } = one(&service, list)
        else {
            panic!("no page");
        };
        let more = rest != PageRest::None;
        left_out_reported += usize::from(is_left_out);
        let entry_bytes = |entry: &PageEntry| PAGE_ENTRY_BYTES + entry.key.as_bytes().len();
        let page_bytes: usize = entries.iter().map(entry_bytes).sum();
        // One more would not have fitted: no key here is longer than 90 bytes.
        assert!(!more || page_bytes > 1_200 - PLAIN_BYTES - PAGE_HEAD_BYTES - 110);
        for PageEntry { key, tag, kind } in entries {
            assert!(tag.time == 3 && kind == EntryKind::Tombstone);
            listed.push(key);
        }
        if !more {
            break;
        }
    }
    assert!(listed == keys);
    assert!((1..=2).contains(&left_out_reported), "{left_out_reported}");
}

#[test]
fn statistics_count_datagrams_messages_and_uploads() {
    let service = service(usize::MAX);
    let stage = ReplicaCommand::Stage {
        upload: 9,
        value_bytes: 5,
        offset: 0,
        block_bytes: 4,
        block: Bytes::from_static(b"valu"),
    };
    ask(
        &service,
        StatedEpoch::None,
        vec![put(1, "v"), stage, ReplicaCommand::Ping],
    );
    let ReplicaResponse::Statistics(numbers) = one(&service, ReplicaCommand::GetStatistics) else {
        panic!("no statistics");
    };
    let number = |wanted: Statistic| {
        let mut found = numbers.iter().filter(|(name, _)| *name == wanted as u8);
        found.next().unwrap().1
    };
    // A disk has more numbers, and so has a server with peers.
    assert_eq!(numbers.len(), Statistic::ALL.len() - 29 - 9);
    assert_eq!(number(Statistic::Keys), 1);
    assert_eq!(number(Statistic::Datagrams), 2);
    assert_eq!(number(Statistic::Messages), 4);
    assert_eq!(number(Statistic::UploadsBegun), 1);
    assert_eq!(number(Statistic::UploadBytesReserved), 6);
}

#[test]
fn servers_and_damaged_datagrams_get_no_answer() {
    let service = service(usize::MAX);
    let silent = |datagram: Vec<u8>| {
        let received = received(datagram, Duration::ZERO);
        service.handle_v2(
            &received,
            &mut Access::Open,
            &mut Backlog::new(|| {}),
            &mut |_| panic!("an answer"),
        );
    };
    let envelope = Envelope {
        sender: Sender::Server,
        epoch: dkvs_common::epoch::StatedEpoch::None,
        authentication: None,
    };
    silent(Builder::new(envelope, 1_200).finish());
    silent(b"\0DK2".to_vec());
    silent(b"\0DK2\x02\0\0\0\0\0\0\0\0\0\0\0".to_vec());
    assert_eq!(service.counters.damaged.count(), 3);
}

#[test]
fn a_request_that_nobody_waits_for_is_dropped_and_counted() {
    let service = service(usize::MAX);
    let envelope = Envelope {
        sender: Sender::Client,
        epoch: dkvs_common::epoch::StatedEpoch::None,
        authentication: None,
    };
    let answered = |waited| {
        let mut builder = Builder::new(envelope, 1_200);
        for (number, wait_ms) in [(0, 0), (1, 100), (2, 101), (3, u16::MAX)] {
            let message = RequestMessage {
                id: RequestId(number),
                wait_ms,
                request: ReplicaCommand::Ping.into(),
            };
            assert!(builder.push(|datagram| message.encode(datagram)));
        }
        let mut ids = Vec::new();
        let received = received(builder.finish(), waited);
        service.handle_v2(
            &received,
            &mut Access::Open,
            &mut Backlog::new(|| {}),
            &mut |reply| {
                let (_, mut messages) = envelope::open(&reply.into(), Proof::Checksum).unwrap();
                while let Some(message) = next_reply(&mut messages).unwrap() {
                    ids.push(message.id.0);
                }
            },
        );
        ids
    };
    assert_eq!(answered(Duration::ZERO), [1, 2, 3]);
    assert_eq!(answered(Duration::from_millis(100)), [2, 3]);
    assert_eq!(answered(Duration::from_secs(66)), [0; 0]);
    assert_eq!(service.counters.expired.count(), 1 + 2 + 4);
}

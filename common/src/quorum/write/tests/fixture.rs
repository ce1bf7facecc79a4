//! A write to three replicas, and what they answer.

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::model::{ReplicaCommand, ReplicaResponse};
use crate::quorum::level::Level;
use crate::quorum::params::Quorum;
use crate::quorum::write::Write;
use crate::quorum::{CommandId, Purpose, Transmit};
use crate::record::{Content, ContentType, Record};
use crate::ring::{Position, PreferenceList, RingPoint};
use crate::tag::Tag;
use crate::testing::start_of_time;

pub(super) const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

pub(super) fn list() -> PreferenceList {
    let point = |server| RingPoint {
        position: Position([0; 20]),
        server,
    };
    SERVERS.map(point).to_vec()
}

/// A write at the agreement level, in the round after the first tag.
pub(super) fn write(w: u8) -> (Write, Instant) {
    let now = start_of_time();
    let quorum = Quorum::new(3, w).unwrap();
    let deadline = now + Duration::from_secs(1);
    let mut write = Write::new(
        key(),
        content(),
        list(),
        quorum,
        Level::Agreement,
        now,
        deadline,
    );
    assert_eq!(write.requires_tag_above(), Some(Tag::ZERO));
    store(&mut write, 1);
    (write, now)
}

pub(super) fn tag(time: u64) -> Tag {
    Tag { time, op: 0 }
}

pub(super) fn superseded(time: u64) -> ReplicaResponse {
    let tag = tag(time);
    ReplicaResponse::Superseded { tag }
}

/// Begins a round under the tag of this time.
pub(super) fn store(write: &mut Write, time: u64) {
    write.begin_round(tag(time));
    let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
    let record = Record::new(&key(), tag(time), content());
    assert_eq!(write.record(), Some(&record));
    let to_store = SERVERS.map(|to| Transmit {
        to,
        id: put(write.round()),
        command: ReplicaCommand::Put {
            key: key(),
            record: record.clone(),
        },
    });
    assert_eq!(asked, to_store);
}

/// A linearizable write of which all replicas were asked for their tags.
pub(super) fn linearizable(w: u8) -> (Write, Instant) {
    let now = start_of_time();
    let deadline = now + Duration::from_secs(1);
    let quorum = Quorum::new(3, w).unwrap();
    let mut write = Write::new(
        key(),
        content(),
        list(),
        quorum,
        Level::Linearizable,
        now,
        deadline,
    );
    let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
    let to_all = SERVERS.map(|to| Transmit {
        to,
        id: get_tag(0),
        command: ReplicaCommand::GetTag { key: key() },
    });
    assert_eq!(asked, to_all);
    (write, now)
}

pub(super) fn key() -> Key {
    Key::new("key").unwrap()
}

pub(super) fn content() -> Content {
    Content::Value {
        content_type: ContentType::default(),
        value: Value::new("value").unwrap(),
    }
}

/// The queries for tags of a round.
pub(super) fn get_tag(round: u32) -> CommandId {
    let purpose = Purpose::GetTag;
    CommandId { round, purpose }
}

/// The puts of a round.
pub(super) fn put(round: u32) -> CommandId {
    let purpose = Purpose::Put;
    CommandId { round, purpose }
}

/// The response of a replica that holds a record with this tag.
pub(super) fn holds(tag: Tag) -> ReplicaResponse {
    ReplicaResponse::Tag { tag }
}

pub(super) const STORED: ReplicaResponse = ReplicaResponse::Done;

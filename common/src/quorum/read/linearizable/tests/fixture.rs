//! A read of three replicas, and what they answer.

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::model::{Refusal, ReplicaCommand, ReplicaResponse};
use crate::quorum::FetchStart;
use crate::quorum::params::Quorum;
use crate::quorum::read::linearizable::LinearizableRead;
use crate::quorum::read::{ReadOutcome, ReplicaStanding};
use crate::quorum::{Attestation, CommandId, Purpose, Transmit, Version};
use crate::record::{Attributes, Content, ContentType, Digest};
use crate::ring::{Position, RingPoint};
use crate::tag::{Tag, TagClock};
use crate::testing::start_of_time;

pub(super) const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];
pub(super) const OLD: Tag = Tag { time: 1, op: 0 };
pub(super) const NEW: Tag = Tag { time: 2, op: 0 };

pub(super) fn read(r: u8) -> (LinearizableRead, Instant) {
    read_of(3, r)
}

pub(super) fn read_of(n: u8, r: u8) -> (LinearizableRead, Instant) {
    let now = start_of_time();
    let point = |server| RingPoint {
        position: Position([0; 20]),
        server,
    };
    let quorum = Quorum::new(n, r).unwrap();
    let servers = (0..n).map(|number| ServerId(number.into()));
    let list = servers.clone().map(point).collect();
    let mut read = LinearizableRead::new(key(), list, quorum, now, now + Duration::from_secs(1));
    let all: Vec<_> = servers.map(|server| (server, Sent::Get)).collect();
    assert_eq!(sent(&mut read), all);
    (read, now)
}

/// What a read wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Get,
    Put,
    Attest { tag: Tag },
}

/// Everything that a read wants sent now, those that should attest first.
pub(super) fn sent(read: &mut LinearizableRead) -> Vec<(ServerId, Sent)> {
    std::iter::from_fn(|| next_sent(read)).collect()
}

/// The next thing that a read wants sent.
pub(super) fn next_sent(read: &mut LinearizableRead) -> Option<(ServerId, Sent)> {
    if let Some(Attestation { server, round, tag }) = read.poll_attestation() {
        assert_eq!(round, read.round());
        return Some((server, Sent::Attest { tag }));
    }
    let Transmit { to, id, command } = read.poll_transmit()?;
    assert_eq!(id.round, read.round());
    let what = match (id.purpose, command) {
        (Purpose::Get, ReplicaCommand::Get { key }) if key == self::key() => Sent::Get,
        (Purpose::WriteBack, ReplicaCommand::Put { key, record }) => {
            assert!(record.is_sound(&key) && key == self::key());
            assert_eq!(given(read), Some((record.tag, record.content)));
            Sent::Put
        }
        other => panic!("{other:?}"),
    };
    Some((to, what))
}

/// The record that the read writes back.
pub(super) fn given(read: &mut LinearizableRead) -> Option<(Tag, Content)> {
    let record = read.write_back()?;
    Some((record.tag, record.content))
}

/// The gets of a round.
pub(super) fn get(round: u32) -> CommandId {
    let purpose = Purpose::Get;
    CommandId { round, purpose }
}

/// A replica responded to a write-back; none if it cannot be reached.
pub(super) fn written(
    read: &mut LinearizableRead,
    from: ServerId,
    round: u32,
    response: Option<ReplicaResponse>,
) {
    let purpose = Purpose::WriteBack;
    let (id, now) = (CommandId { round, purpose }, start_of_time());
    match response {
        Some(response) => read.handle_response(from, id, response, now),
        None => read.handle_unreachable(from, id, true, now),
    };
}

/// A replica attests, or does not.
pub(super) fn attested(read: &mut LinearizableRead, from: ServerId, round: u32, attests: bool) {
    let purpose = Purpose::Attest;
    let (id, now) = (CommandId { round, purpose }, start_of_time());
    match attests {
        true => read.handle_response(from, id, STORED, now),
        false => read.handle_response(from, id, absent(), now),
    };
}

pub(super) fn key() -> Key {
    Key::new("key").unwrap()
}

pub(super) fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

pub(super) fn digest(tag: Tag) -> Digest {
    Digest {
        tag,
        attributes: Attributes::NONE,
        content_type: ContentType::default(),
        value_bytes: 1,
        checksum: tag.time as u32,
    }
}

/// The fetch of that record that begins at a server which stalled so often.
pub(super) fn fetch(from: ServerId, tag: Tag, stalls: u32) -> Option<FetchStart> {
    let digest = digest(tag);
    Some(FetchStart {
        from,
        digest,
        stalls,
    })
}

/// The response of a replica that holds this record.
pub(super) fn record(digest: Digest, text: &str) -> ReplicaResponse {
    let block = value(text).as_bytes().to_vec().into();
    ReplicaResponse::Record { digest, block }
}

/// The record under this tag, with the value.
pub(super) fn whole(tag: Tag) -> ReplicaResponse {
    record(digest(tag), &tag.time.to_string())
}

/// The record under this tag, whose value is too long for a response.
pub(super) fn long(tag: Tag) -> ReplicaResponse {
    record(digest(tag), "")
}

pub(super) fn untagged(text: &str) -> ReplicaResponse {
    let value = value(text);
    ReplicaResponse::Untagged { value }
}

/// Nothing, not even a tombstone.
pub(super) fn absent() -> ReplicaResponse {
    deleted(Tag::ZERO)
}

/// A tombstone.
pub(super) fn deleted(tag: Tag) -> ReplicaResponse {
    ReplicaResponse::absent(tag)
}

pub(super) fn superseded(tag: Tag) -> ReplicaResponse {
    ReplicaResponse::Superseded { tag }
}

pub(super) fn refused(refusal: Refusal) -> ReplicaResponse {
    ReplicaResponse::Refused(refusal)
}

pub(super) const STORED: ReplicaResponse = ReplicaResponse::Done;

pub(super) fn found(tag: Tag) -> ReadOutcome {
    let version = Version::from(&digest(tag));
    ReadOutcome::Found(value(&tag.time.to_string()), version)
}

pub(super) fn standings(read: &LinearizableRead) -> [ReplicaStanding; 3] {
    let replicas = read.replicas().iter();
    let standings: Vec<_> = replicas.map(|replica| read.standing(replica)).collect();
    standings.try_into().unwrap()
}

/// A tag that a server minted for a put by DKVS/1.
pub(super) fn by_v1(time: u64) -> Tag {
    let seen = Tag { time, op: 0 };
    TagClock::for_v1(time as u32).mint(0, seen).unwrap()
}

pub(super) const CORRUPT: ReplicaResponse = ReplicaResponse::Refused(Refusal::Corrupt);

//! A read of three replicas, and what they answer.

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::kv::Value;
use crate::quorum::params::Quorum;
use crate::quorum::read::linearizable::Read;
use crate::quorum::read::{ReadOutcome, ReadReply, Standing};
use crate::quorum::{Ask, Refusal, Version};
use crate::record::{ContentType, Digest};
use crate::ring::{Position, RingPoint};
use crate::tag::{Tag, TagClock};
use crate::testing::start_of_time;

pub(super) const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];
pub(super) const OLD: Tag = Tag { time: 1, op: 0 };
pub(super) const NEW: Tag = Tag { time: 2, op: 0 };

pub(super) fn read(r: u8) -> (Read, Instant) {
    read_of(3, r)
}

pub(super) fn read_of(n: u8, r: u8) -> (Read, Instant) {
    let now = start_of_time();
    let point = |server| RingPoint {
        position: Position([0; 20]),
        server,
    };
    let quorum = Quorum::new(n, r).unwrap();
    let servers = (0..n).map(|number| ServerId(number.into()));
    let list = servers.clone().map(point).collect();
    let mut read = Read::new(list, quorum, now, now + Duration::from_secs(1));
    let all: Vec<_> = servers.map(|server| (server, Ask::Get)).collect();
    assert_eq!(sent(&mut read), all);
    (read, now)
}

pub(super) fn sent(read: &mut Read) -> Vec<(ServerId, Ask)> {
    let sent = std::iter::from_fn(|| read.poll_transmit());
    sent.map(|transmit| (transmit.to, transmit.ask)).collect()
}

pub(super) fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

pub(super) fn digest(tag: Tag) -> Digest {
    Digest {
        tag,
        content_type: ContentType::default(),
        value_bytes: 3,
        checksum: tag.time as u32,
    }
}

pub(super) fn whole(tag: Tag) -> ReadReply {
    ReadReply::Record(digest(tag), Some(value(&tag.time.to_string())))
}

pub(super) fn long(tag: Tag) -> ReadReply {
    ReadReply::Record(digest(tag), None)
}

pub(super) fn found(tag: Tag) -> ReadOutcome {
    let version = Version::from(&digest(tag));
    ReadOutcome::Found(value(&tag.time.to_string()), version)
}

pub(super) fn standings(read: &Read) -> [Standing; 3] {
    let replicas = read.replicas().iter();
    let standings: Vec<_> = replicas.map(|replica| read.standing(replica)).collect();
    standings.try_into().unwrap()
}

/// A tag that a server minted for a put by DKVS/1.
pub(super) fn by_v1(time: u64) -> Tag {
    let seen = Tag { time, op: 0 };
    TagClock::for_v1(time as u32).mint(0, seen).unwrap()
}

pub(super) const CORRUPT: ReadReply = ReadReply::Refused(Refusal::Corrupt);

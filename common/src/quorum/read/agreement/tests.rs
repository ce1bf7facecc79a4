use super::*;

use bytes::Bytes;
use std::time::Duration;

use crate::quorum::{FetchFailure, FetchStart, Refusal, Version};
use crate::record::{Attributes, ContentType};
use crate::ring::{Position, RingPoint};
use crate::testing::start_of_time;

const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

fn read(r: u8) -> (AgreementRead, Instant) {
    let now = start_of_time();
    let point = |server| RingPoint {
        position: Position([0; 20]),
        server,
    };
    let quorum = Quorum::new(3, r).unwrap();
    let key = Key::new("key").unwrap();
    let list = SERVERS.map(point).to_vec();
    (
        AgreementRead::new(key, list, quorum, now, now + Duration::from_secs(1)),
        now,
    )
}

fn tag(time: u64) -> Tag {
    Tag { time, op: 0 }
}

fn digest(time: u64) -> Digest {
    Digest {
        tag: tag(time),
        attributes: Attributes::NONE,
        content_type: ContentType::default(),
        value_bytes: 4,
        checksum: time as u32,
    }
}

/// The record under a tag of this time, whose value is too long for a response.
fn long(time: u64) -> ReplicaResponse {
    let (digest, block) = (digest(time), Bytes::new());
    ReplicaResponse::Record { digest, block }
}

fn fetch(from: ServerId, time: u64) -> Option<FetchStart> {
    Some(FetchStart {
        from,
        digest: digest(time),
        stalls: 0,
    })
}

fn absent(tag: Tag) -> ReplicaResponse {
    ReplicaResponse::absent(tag)
}

fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

fn version(time: u64) -> Version {
    Version {
        tag: Some(tag(time)),
        content_type: ContentType::default(),
    }
}

#[test]
fn equal_digests_agree_and_the_value_is_fetched_from_one_holder_after_the_other() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], GET, long(1), now);
    assert_eq!(read.poll_fetch(), None);
    read.handle_response(SERVERS[2], GET, long(1), now);
    assert_eq!(read.poll_fetch(), fetch(SERVERS[0], 1));
    assert_eq!(read.poll_fetch(), None, "one fetch at a time");
    read.handle_fetch_failed(&digest(1), SERVERS[0], FetchFailure::Gone);
    assert_eq!(read.poll_fetch(), fetch(SERVERS[2], 1));
    assert_eq!(read.outcome(), None);
    read.handle_fetched(&digest(1), value("long"));
    let found = ReadOutcome::Found(value("long"), version(1));
    assert_eq!(read.outcome(), Some(&found));
    assert_eq!(read.agreeing(), 2);
    assert!(!read.is_complete());
    read.handle_response(SERVERS[1], GET, absent(Tag::ZERO), now);
    assert!(read.is_complete());
}

#[test]
fn a_value_that_none_of_its_holders_gives_is_unreachable_once_nobody_else_can_have_it() {
    let (mut read, now) = read(2);
    for server in [SERVERS[0], SERVERS[1]] {
        read.handle_response(server, GET, long(1), now);
    }
    for server in [SERVERS[0], SERVERS[1]] {
        assert_eq!(read.poll_fetch(), fetch(server, 1));
        read.handle_fetch_failed(&digest(1), server, FetchFailure::Gone);
    }
    assert_eq!(read.outcome(), None);
    read.handle_unreachable(SERVERS[2], GET, true, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
}

#[test]
fn the_same_bytes_under_different_tags_agree_once_they_are_compared() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], GET, long(1), now);
    read.handle_response(SERVERS[1], GET, long(2), now);
    assert_eq!(read.poll_fetch(), None, "the third may decide it");
    read.handle_response(SERVERS[2], GET, absent(Tag::ZERO), now);
    assert_eq!(read.poll_fetch(), fetch(SERVERS[0], 1));
    assert_eq!(read.poll_fetch(), fetch(SERVERS[1], 2));
    read.handle_fetched(&digest(1), value("same"));
    assert_eq!(read.outcome(), None);
    read.handle_fetched(&digest(2), value("same"));
    let found = ReadOutcome::Found(value("same"), version(2));
    assert_eq!(read.outcome(), Some(&found));
    assert_eq!(read.agreeing(), 2);
    let standings: Vec<_> = read.replicas().iter().map(|r| read.standing(r)).collect();
    assert_eq!(
        standings,
        [
            ReplicaStanding::Match,
            ReplicaStanding::Match,
            ReplicaStanding::Absent
        ]
    );
}

#[test]
fn a_digest_that_comes_after_its_value_was_fetched_matches_it() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], GET, long(1), now);
    read.handle_response(SERVERS[1], GET, long(1), now);
    assert_eq!(read.poll_fetch(), fetch(SERVERS[0], 1));
    read.handle_fetched(&digest(1), value("long"));
    assert_eq!(read.agreeing(), 2);
    read.handle_response(SERVERS[2], GET, long(1), now);
    assert_eq!(read.agreeing(), 3);
    for replica in read.replicas() {
        assert_eq!(read.standing(replica), ReplicaStanding::Match);
    }
}

#[test]
fn different_bytes_behind_digests_disagree_once_they_are_compared() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], GET, long(1), now);
    let whole = ReplicaResponse::Untagged {
        value: value("this"),
    };
    read.handle_response(SERVERS[1], GET, whole, now);
    read.handle_response(SERVERS[2], GET, absent(Tag::ZERO), now);
    assert_eq!(read.poll_fetch(), fetch(SERVERS[0], 1));
    read.handle_fetched(&digest(1), value("that"));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Disagree));
}

#[test]
fn the_deadline_ends_a_fetch() {
    let (mut read, now) = read(1);
    read.handle_response(SERVERS[0], GET, long(1), now);
    assert!(read.poll_fetch().is_some());
    read.handle_timeout(read.poll_timeout().unwrap());
    assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
}

#[test]
fn a_replica_that_refuses_counts_for_nothing_and_is_told() {
    let (mut read, now) = read(2);
    read.handle_response(
        SERVERS[0],
        GET,
        ReplicaResponse::Refused(Refusal::Corrupt),
        now,
    );
    read.handle_response(SERVERS[1], GET, absent(tag(3)), now);
    assert_eq!(read.outcome(), None);
    read.handle_response(
        SERVERS[2],
        GET,
        ReplicaResponse::Refused(Refusal::Busy),
        now,
    );
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert_eq!(read.tombstone(), Some(tag(3)));
    let standings: Vec<_> = read.replicas().iter().map(|r| read.standing(r)).collect();
    assert_eq!(
        standings,
        [
            ReplicaStanding::Refused(Refusal::Corrupt),
            ReplicaStanding::Tombstone,
            ReplicaStanding::Refused(Refusal::Busy)
        ]
    );
}

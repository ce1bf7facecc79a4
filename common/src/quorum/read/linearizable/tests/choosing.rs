use super::fixture::*;
use crate::quorum::Refusal;
use crate::quorum::read::{ReadOutcome, ReplicaStanding};
use crate::record::Digest;

#[test]
fn r_replicas_with_the_same_tag_end_it_in_one_round() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[1], get(0), whole(NEW), now);
    assert_eq!(read.outcome(), None);
    read.handle_response(SERVERS[2], get(0), whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert!(sent(&mut read).is_empty());
    assert_eq!(read.agreeing(), 2);
}

#[test]
fn a_replica_with_the_same_bytes_under_another_tag_does_not_differ() {
    let same = |tag| record(digest(tag), "the same");
    let absent = || absent();
    for (third, standing) in [
        (same(NEW), ReplicaStanding::Match),
        (whole(NEW), ReplicaStanding::Differs),
        (long(NEW), ReplicaStanding::Differs),
        (absent(), ReplicaStanding::Absent),
    ] {
        let (mut read, now) = read(2);
        for server in &SERVERS[..2] {
            read.handle_response(*server, get(0), same(OLD), now);
        }
        read.handle_response(SERVERS[2], get(0), third, now);
        assert_eq!(
            standings(&read),
            [ReplicaStanding::Match, ReplicaStanding::Match, standing]
        );
    }
    let (mut read, now) = read(2);
    for server in &SERVERS[..2] {
        read.handle_response(*server, get(0), absent(), now);
    }
    read.handle_response(SERVERS[2], get(0), same(NEW), now);
    assert_eq!(
        standings(&read)[2],
        ReplicaStanding::Differs,
        "no value was found"
    );
}

#[test]
fn nothing_anywhere_is_absent_and_no_replica_is_repaired() {
    let (mut read, now) = read(2);
    for server in SERVERS {
        read.handle_response(server, get(0), absent(), now);
    }
    assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
    assert_eq!((read.tombstone(), read.agreeing()), (None, 3));
    assert!(sent(&mut read).is_empty() && read.is_complete());
}

#[test]
fn two_records_under_one_tag_are_told_apart_and_the_majority_holds() {
    let other = || {
        let checksum = 99;
        let digest = Digest {
            checksum,
            ..digest(NEW)
        };
        record(digest, "99")
    };
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), other(), now);
    read.handle_response(SERVERS[1], get(0), whole(NEW), now);
    assert_eq!(read.outcome(), None);
    read.handle_response(SERVERS[2], get(0), whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert_eq!(standings(&read)[0], ReplicaStanding::Differs);
    assert!(sent(&mut read).is_empty(), "it would not take it");

    let (mut read, now) = self::read(2);
    read.handle_response(SERVERS[0], get(0), other(), now);
    read.handle_response(SERVERS[1], get(0), whole(NEW), now);
    read.handle_unreachable(SERVERS[2], get(0), true, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Disagree));
}

#[test]
fn too_few_answers_are_unreachable_or_timed_out() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), untagged("v1"), now);
    assert_eq!(
        standings(&read)[1],
        ReplicaStanding::Refused(Refusal::NotV2)
    );
    read.handle_unreachable(SERVERS[2], get(0), false, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));

    let (mut read, now) = self::read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    sent(&mut read);
    read.handle_timeout(read.poll_timeout().unwrap());
    assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
    assert!(read.is_complete());
    written(&mut read, SERVERS[1], 0, Some(STORED));
    assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
}

#[test]
fn a_record_that_came_by_dkvs_1_ends_it_without_an_answer_whatever_its_tag() {
    for tag in [by_v1(0), by_v1(1), by_v1(9)] {
        for answer in [whole(tag), long(tag)] {
            for before in [None, Some(whole(OLD)), Some(absent()), Some(CORRUPT)] {
                let (mut read, now) = read(2);
                let has_answered = before.is_some();
                if let Some(before) = before {
                    read.handle_response(SERVERS[0], get(0), before, now);
                }
                read.handle_response(SERVERS[1], get(0), answer.clone(), now);
                assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));
                if !has_answered {
                    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
                }
                read.handle_response(SERVERS[2], get(0), absent(), now);
                assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));
                assert!(sent(&mut read).is_empty() && given(&mut read).is_none());
                assert_eq!((read.poll_fetch(), read.is_complete()), (None, true));
            }
        }
    }
}

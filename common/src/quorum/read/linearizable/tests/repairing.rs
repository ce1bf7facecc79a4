use super::fixture::*;
use crate::cluster::ServerId;
use crate::quorum::Refusal;
use crate::quorum::read::{ReadOutcome, ReplicaStanding};
use crate::record::Content;

#[test]
fn a_value_that_too_few_hold_is_written_back_before_it_is_returned() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    assert_eq!(read.outcome(), None);
    assert_eq!(sent(&mut read), [(SERVERS[1], Sent::Put)]);
    let (tag, content) = given(&mut read).unwrap();
    assert_eq!(tag, NEW);
    assert!(matches!(content, Content::Value { value: held, .. } if held == value("2")));
    written(&mut read, SERVERS[2], 0, Some(STORED));
    assert_eq!(read.outcome(), None, "it was given nothing");
    written(&mut read, SERVERS[1], 0, Some(STORED));
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert_eq!(
        standings(&read),
        [
            ReplicaStanding::Match,
            ReplicaStanding::Repaired,
            ReplicaStanding::Pending
        ]
    );
}

#[test]
fn a_third_replica_with_the_newest_saves_waiting_for_the_write_back() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), absent(), now);
    assert_eq!(sent(&mut read), [(SERVERS[1], Sent::Put)]);
    read.handle_response(SERVERS[2], get(0), whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert!(!read.is_complete(), "the repair is under way");
    written(&mut read, SERVERS[1], 0, None);
    assert!(read.is_complete());
    assert_eq!(
        standings(&read),
        [
            ReplicaStanding::Match,
            ReplicaStanding::Absent,
            ReplicaStanding::Match
        ]
    );
}

#[test]
fn a_stale_replica_is_repaired_after_the_answer_too() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), whole(NEW), now);
    read.handle_response(SERVERS[2], get(0), whole(OLD), now);
    assert_eq!(standings(&read)[2], ReplicaStanding::Stale);
    assert_eq!(sent(&mut read), [(SERVERS[2], Sent::Put)]);
    written(&mut read, SERVERS[2], 0, Some(superseded(NEW)));
    assert_eq!(
        standings(&read)[2],
        ReplicaStanding::Stale,
        "it holds another"
    );
}

#[test]
fn a_replica_that_holds_something_newer_confirms_as_well() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(OLD), now);
    read.handle_response(SERVERS[1], get(0), absent(), now);
    sent(&mut read);
    written(&mut read, SERVERS[1], 0, Some(superseded(NEW)));
    assert_eq!(read.outcome(), Some(&found(OLD)));
    read.handle_response(SERVERS[2], get(0), whole(NEW), now);
    assert_eq!(standings(&read)[2], ReplicaStanding::Differs);
}

#[test]
fn what_turns_out_to_be_newer_after_the_answer_is_given_to_the_others() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), absent(), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    assert_eq!(sent(&mut read), [(SERVERS[0], Sent::Put)]);
    written(&mut read, SERVERS[0], 0, Some(STORED));
    assert_eq!(read.outcome(), Some(&found(OLD)));
    read.handle_response(SERVERS[2], get(0), long(NEW), now);
    assert!(!read.is_complete(), "it is to be fetched");
    assert_eq!(read.poll_fetch(), fetch(SERVERS[2], NEW, 0));
    read.handle_fetched(&digest(NEW), value("2"));
    let both = [SERVERS[0], SERVERS[1]].map(|server| (server, Sent::Put));
    assert_eq!(sent(&mut read), both);
    assert_eq!(given(&mut read).unwrap().0, NEW);
    for server in [SERVERS[0], SERVERS[1]] {
        written(&mut read, server, 0, Some(STORED));
    }
    assert!(read.is_complete());
    assert_eq!(read.outcome(), Some(&found(OLD)), "it was returned already");
    assert_eq!(
        standings(&read),
        [
            ReplicaStanding::Repaired,
            ReplicaStanding::Repaired,
            ReplicaStanding::Differs
        ]
    );
}

#[test]
fn a_tombstone_is_a_record_and_reads_as_absent() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), deleted(NEW), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    assert_eq!(sent(&mut read), [(SERVERS[1], Sent::Put)]);
    assert_eq!(given(&mut read), Some((NEW, Content::Tombstone)));
    written(&mut read, SERVERS[1], 0, Some(STORED));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
    assert_eq!(read.tombstone(), Some(NEW));
    assert_eq!(standings(&read)[0], ReplicaStanding::Tombstone);
}

#[test]
fn write_backs_that_fail_end_it_as_unreachable() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    sent(&mut read);
    read.handle_unreachable(SERVERS[2], get(0), true, now);
    assert_eq!(read.outcome(), None);
    written(&mut read, SERVERS[1], 0, Some(refused(Refusal::Full)));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
}

#[test]
fn a_record_that_came_by_dkvs_1_stops_what_is_being_given_to_others() {
    // It waits for the write-back.
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    read.handle_response(SERVERS[2], get(0), whole(by_v1(0)), now);
    assert!(sent(&mut read).is_empty(), "it was not sent yet");
    assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));

    // It has its outcome, and brings the others up to date.
    let (mut read, now) = self::read(2);
    read.handle_response(SERVERS[0], get(0), whole(OLD), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    read.handle_response(SERVERS[2], get(0), whole(by_v1(9)), now);
    assert_eq!(read.outcome(), Some(&found(OLD)));
    assert!(
        sent(&mut read).is_empty(),
        "no replica is given what may be older"
    );
    assert_eq!(standings(&read)[2], ReplicaStanding::Differs);

    // It is about to ask a replica to attest.
    let (mut read, now) = self::read_of(5, 3);
    read.handle_response(SERVERS[0], get(0), CORRUPT, now);
    for number in 1..4 {
        read.handle_response(ServerId(number), get(0), whole(NEW), now);
    }
    assert_eq!(sent(&mut read), [(SERVERS[0], Sent::Put)]);
    read.handle_response(ServerId(4), get(0), whole(by_v1(1)), now);
    assert_eq!(read.quarantined(), []);
    written(&mut read, SERVERS[0], 0, Some(STORED));
    assert!(sent(&mut read).is_empty(), "it is not asked to attest");
    assert!(read.is_complete());
}

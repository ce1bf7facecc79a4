use super::fixture::*;
use crate::cluster::ServerId;
use crate::quorum::read::{ReadOutcome, ReadReply, Standing};
use crate::quorum::write::WriteReply;
use crate::quorum::{Ask, Refusal};
use crate::record::Content;

#[test]
fn a_value_that_too_few_hold_is_written_back_before_it_is_told() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    assert_eq!(read.outcome(), None);
    assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
    let (tag, content) = read.repair().unwrap();
    assert_eq!(tag, NEW);
    assert!(matches!(content, Content::Value { value: held, .. } if held == value("2")));
    read.handle_repaired(SERVERS[2], 0, Some(WriteReply::Stored));
    assert_eq!(read.outcome(), None, "nobody gave it anything");
    read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert_eq!(
        standings(&read),
        [Standing::Match, Standing::Repaired, Standing::Pending]
    );
}

#[test]
fn a_third_replica_with_the_newest_saves_waiting_for_the_write_back() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, ReadReply::Absent(None), now);
    assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
    read.handle_reply(SERVERS[2], 0, whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert!(!read.is_complete(), "the repair is under way");
    read.handle_repaired(SERVERS[1], 0, None);
    assert!(read.is_complete());
    assert_eq!(
        standings(&read),
        [Standing::Match, Standing::Absent, Standing::Match]
    );
}

#[test]
fn a_stale_replica_is_repaired_after_the_answer_too() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, whole(NEW), now);
    read.handle_reply(SERVERS[2], 0, whole(OLD), now);
    assert_eq!(standings(&read)[2], Standing::Stale);
    assert_eq!(sent(&mut read), [(SERVERS[2], Ask::Put)]);
    read.handle_repaired(SERVERS[2], 0, Some(WriteReply::Superseded(NEW)));
    assert_eq!(standings(&read)[2], Standing::Stale, "it holds another");
}

#[test]
fn a_replica_that_holds_something_newer_confirms_as_well() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(OLD), now);
    read.handle_reply(SERVERS[1], 0, ReadReply::Absent(None), now);
    sent(&mut read);
    read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Superseded(NEW)));
    assert_eq!(read.outcome(), Some(&found(OLD)));
    read.handle_reply(SERVERS[2], 0, whole(NEW), now);
    assert_eq!(standings(&read)[2], Standing::Differs);
}

#[test]
fn what_turns_out_to_be_newer_after_the_answer_is_given_to_the_others() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, ReadReply::Absent(None), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Put)]);
    read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
    assert_eq!(read.outcome(), Some(&found(OLD)));
    read.handle_reply(SERVERS[2], 0, long(NEW), now);
    assert!(!read.is_complete(), "it is to be fetched");
    assert_eq!(read.poll_fetch(), Some((SERVERS[2], digest(NEW))));
    read.handle_fetched(&digest(NEW), value("2"));
    let given = [SERVERS[0], SERVERS[1]].map(|server| (server, Ask::Put));
    assert_eq!(sent(&mut read), given);
    assert_eq!(read.repair().unwrap().0, NEW);
    for server in [SERVERS[0], SERVERS[1]] {
        read.handle_repaired(server, 0, Some(WriteReply::Stored));
    }
    assert!(read.is_complete());
    assert_eq!(read.outcome(), Some(&found(OLD)), "it was told already");
    assert_eq!(
        standings(&read),
        [Standing::Repaired, Standing::Repaired, Standing::Differs]
    );
}

#[test]
fn a_tombstone_is_a_record_and_reads_as_absent() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, ReadReply::Absent(Some(NEW)), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
    assert_eq!(read.repair(), Some((NEW, Content::Tombstone)));
    read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
    assert_eq!(read.tombstone(), Some(NEW));
    assert_eq!(standings(&read)[0], Standing::Tombstone);
}

#[test]
fn write_backs_that_fail_end_it_as_unreachable() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    sent(&mut read);
    read.handle_unreachable(SERVERS[2], 0, true, now);
    assert_eq!(read.outcome(), None);
    let refused = WriteReply::Refused(Refusal::Full);
    read.handle_repaired(SERVERS[1], 0, Some(refused));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
}

#[test]
fn a_record_that_came_by_dkvs_1_stops_what_is_being_given_to_others() {
    // It waits for the write-back.
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    read.handle_reply(SERVERS[2], 0, whole(by_v1(0)), now);
    assert!(sent(&mut read).is_empty(), "it was not sent yet");
    assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));

    // It has its answer, and brings the others up to date.
    let (mut read, now) = self::read(2);
    read.handle_reply(SERVERS[0], 0, whole(OLD), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    read.handle_reply(SERVERS[2], 0, whole(by_v1(9)), now);
    assert_eq!(read.outcome(), Some(&found(OLD)));
    assert!(
        sent(&mut read).is_empty(),
        "nobody is given what may be older"
    );
    assert_eq!(standings(&read)[2], Standing::Differs);

    // It has begun to have a replica vouch.
    let (mut read, now) = self::read_of(5, 3);
    read.handle_reply(SERVERS[0], 0, CORRUPT, now);
    for number in 1..4 {
        read.handle_reply(ServerId(number), 0, whole(NEW), now);
    }
    assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Put)]);
    read.handle_reply(ServerId(4), 0, whole(by_v1(1)), now);
    assert_eq!(read.unvouched(), []);
    read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
    assert!(sent(&mut read).is_empty(), "it is not asked to vouch");
    assert!(read.is_complete());
}

use super::fixture::*;
use crate::quorum::Refusal;
use crate::quorum::read::{ReadOutcome, ReadReply, Standing};
use crate::quorum::write::WriteReply;
use crate::record::Digest;

#[test]
fn r_replicas_with_the_same_tag_end_it_in_one_round() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[1], 0, whole(NEW), now);
    assert_eq!(read.outcome(), None);
    read.handle_reply(SERVERS[2], 0, whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert!(sent(&mut read).is_empty());
    assert_eq!(read.agreeing(), 2);
}

#[test]
fn a_replica_with_the_same_bytes_under_another_tag_does_not_differ() {
    let same = |tag| ReadReply::Record(digest(tag), Some(value("the same")));
    let absent = || ReadReply::Absent(None);
    for (third, standing) in [
        (same(NEW), Standing::Match),
        (whole(NEW), Standing::Differs),
        (long(NEW), Standing::Differs),
        (absent(), Standing::Absent),
    ] {
        let (mut read, now) = read(2);
        for server in &SERVERS[..2] {
            read.handle_reply(*server, 0, same(OLD), now);
        }
        read.handle_reply(SERVERS[2], 0, third, now);
        assert_eq!(
            standings(&read),
            [Standing::Match, Standing::Match, standing]
        );
    }
    let (mut read, now) = read(2);
    for server in &SERVERS[..2] {
        read.handle_reply(*server, 0, absent(), now);
    }
    read.handle_reply(SERVERS[2], 0, same(NEW), now);
    assert_eq!(standings(&read)[2], Standing::Differs, "no value was found");
}

#[test]
fn nothing_anywhere_is_absent_and_nobody_is_repaired() {
    let (mut read, now) = read(2);
    for server in SERVERS {
        read.handle_reply(server, 0, ReadReply::Absent(None), now);
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
        ReadReply::Record(digest, Some(value("99")))
    };
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, other(), now);
    read.handle_reply(SERVERS[1], 0, whole(NEW), now);
    assert_eq!(read.outcome(), None);
    read.handle_reply(SERVERS[2], 0, whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert_eq!(standings(&read)[0], Standing::Differs);
    assert!(sent(&mut read).is_empty(), "it would not take it");

    let (mut read, now) = self::read(2);
    read.handle_reply(SERVERS[0], 0, other(), now);
    read.handle_reply(SERVERS[1], 0, whole(NEW), now);
    read.handle_unreachable(SERVERS[2], 0, true, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Disagree));
}

#[test]
fn too_few_answers_are_unreachable_or_timed_out() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, ReadReply::Value(value("v1")), now);
    assert_eq!(standings(&read)[1], Standing::Refused(Refusal::NotV2));
    read.handle_unreachable(SERVERS[2], 0, false, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));

    let (mut read, now) = self::read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, whole(OLD), now);
    sent(&mut read);
    read.handle_timeout(read.poll_timeout().unwrap());
    assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
    assert!(read.is_complete());
    read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
    assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
}

#[test]
fn a_record_that_came_by_dkvs_1_ends_it_without_an_answer_whatever_its_tag() {
    for tag in [by_v1(0), by_v1(1), by_v1(9)] {
        for answer in [whole(tag), long(tag)] {
            for before in [
                None,
                Some(whole(OLD)),
                Some(ReadReply::Absent(None)),
                Some(CORRUPT),
            ] {
                let (mut read, now) = read(2);
                let has_answered = before.is_some();
                if let Some(before) = before {
                    read.handle_reply(SERVERS[0], 0, before, now);
                }
                read.handle_reply(SERVERS[1], 0, answer.clone(), now);
                assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));
                if !has_answered {
                    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
                }
                read.handle_reply(SERVERS[2], 0, ReadReply::Absent(None), now);
                assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));
                assert!(sent(&mut read).is_empty() && read.repair().is_none());
                assert_eq!((read.poll_fetch(), read.is_complete()), (None, true));
            }
        }
    }
}

use super::*;
use std::time::Duration;

use crate::record::ContentType;
use crate::ring::{Position, RingPoint};
use crate::tag::TagClock;
use crate::testing::start_of_time;

const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];
const OLD: Tag = Tag { time: 1, op: 0 };
const NEW: Tag = Tag { time: 2, op: 0 };

fn read(r: u8) -> (Read, Instant) {
    read_of(3, r)
}

fn read_of(n: u8, r: u8) -> (Read, Instant) {
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

fn sent(read: &mut Read) -> Vec<(ServerId, Ask)> {
    let sent = std::iter::from_fn(|| read.poll_transmit());
    sent.map(|transmit| (transmit.to, transmit.ask)).collect()
}

fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

fn digest(tag: Tag) -> Digest {
    Digest {
        tag,
        content_type: ContentType::default(),
        value_bytes: 3,
        checksum: tag.time as u32,
    }
}

fn whole(tag: Tag) -> ReadReply {
    ReadReply::Record(digest(tag), Some(value(&tag.time.to_string())))
}

fn long(tag: Tag) -> ReadReply {
    ReadReply::Record(digest(tag), None)
}

fn found(tag: Tag) -> ReadOutcome {
    let version = Version::from(&digest(tag));
    ReadOutcome::Found(value(&tag.time.to_string()), version)
}

fn standings(read: &Read) -> [Standing; 3] {
    let replicas = read.replicas().iter();
    let standings: Vec<_> = replicas.map(|replica| read.standing(replica)).collect();
    standings.try_into().unwrap()
}

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
fn a_long_value_is_fetched_before_it_is_written_back() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, long(NEW), now);
    assert_eq!(read.poll_fetch(), None);
    read.handle_reply(SERVERS[1], 0, long(OLD), now);
    assert_eq!(read.poll_fetch(), Some((SERVERS[0], digest(NEW))));
    assert_eq!(read.poll_fetch(), None, "one fetch at a time");
    assert!(sent(&mut read).is_empty(), "nothing to give yet");
    read.handle_fetched(&digest(NEW), value("2"));
    assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
    read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
    assert_eq!(read.outcome(), Some(&found(NEW)));
}

#[test]
fn a_long_value_that_is_overwritten_everywhere_is_read_anew() {
    let (mut read, now) = read(2);
    for server in SERVERS {
        read.handle_reply(server, 0, long(OLD), now);
    }
    for server in SERVERS {
        assert_eq!(read.poll_fetch(), Some((server, digest(OLD))));
        read.handle_fetch_failed(&digest(OLD), server);
    }
    assert_eq!(sent(&mut read), SERVERS.map(|server| (server, Ask::Get)));
    assert_eq!(read.round(), 1);
    let late = read.handle_reply(SERVERS[0], 0, long(OLD), now);
    assert_eq!(late, Recorded::Repeated);
    for server in &SERVERS[..2] {
        read.handle_reply(*server, 1, whole(NEW), now);
    }
    assert_eq!(read.outcome(), Some(&found(NEW)));
}

#[test]
fn a_value_that_can_never_be_fetched_ends_as_unreachable() {
    let (mut read, now) = read(2);
    while read.outcome().is_none() {
        let round = read.round();
        for server in SERVERS {
            read.handle_reply(server, round, long(OLD), now);
        }
        while let Some((server, digest)) = read.poll_fetch() {
            read.handle_fetch_failed(&digest, server);
        }
    }
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert_eq!(read.round(), ROUNDS_MAX);
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

/// A tag that a server minted for a put by DKVS/1.
fn by_v1(time: u64) -> Tag {
    let seen = Tag { time, op: 0 };
    TagClock::for_v1(time as u32).mint(0, seen).unwrap()
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

const CORRUPT: ReadReply = ReadReply::Refused(Refusal::Corrupt);

#[test]
fn a_corrupt_replica_is_given_the_newest_and_then_asked_to_vouch_for_it() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, CORRUPT, now);
    read.handle_reply(SERVERS[1], 0, whole(NEW), now);
    assert!(sent(&mut read).is_empty(), "the newest is not known");
    read.handle_reply(SERVERS[2], 0, whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert_eq!(read.unvouched(), [], "it was not sent");
    assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Put)]);
    assert_eq!(read.repair().unwrap().0, NEW);
    assert_eq!(read.unvouched(), [(SERVERS[0], NEW)]);
    assert!(!read.is_complete());
    read.handle_vouched(SERVERS[0], 0, true);
    assert!(sent(&mut read).is_empty(), "it was not asked to");

    read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
    let refused = Standing::Refused(Refusal::Corrupt);
    assert_eq!(
        standings(&read)[0],
        refused,
        "it does not answer for it yet"
    );
    assert_eq!(read.unvouched(), []);
    assert!(!read.is_complete());
    let vouch = Ask::Vouch { tag: NEW };
    assert_eq!(sent(&mut read), [(SERVERS[0], vouch)]);
    assert!(!read.is_complete());
    read.handle_vouched(SERVERS[0], 0, true);
    assert_eq!(standings(&read)[0], Standing::Repaired);
    assert!(read.is_complete() && sent(&mut read).is_empty());
    assert_eq!(read.agreeing(), 2);
}

#[test]
fn an_unvouched_replica_never_counts_even_if_it_vouches_in_the_end() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, CORRUPT, now);
    assert_eq!((read.outcome(), read.agreeing()), (None, 1));
    read.handle_reply(SERVERS[2], 0, whole(OLD), now);
    let given = [SERVERS[2], SERVERS[1]].map(|server| (server, Ask::Put));
    assert_eq!(sent(&mut read), given);
    read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
    assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Vouch { tag: NEW })]);
    read.handle_vouched(SERVERS[1], 0, true);
    assert_eq!((read.outcome(), read.agreeing()), (None, 1));
    let full = WriteReply::Refused(Refusal::Full);
    read.handle_repaired(SERVERS[2], 0, Some(full));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert_eq!(standings(&read)[1], Standing::Repaired);
}

#[test]
fn nobody_waits_for_an_unvouched_replica() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, whole(NEW), now);
    read.handle_reply(SERVERS[1], 0, CORRUPT, now);
    read.handle_reply(SERVERS[2], 0, whole(OLD), now);
    sent(&mut read);
    read.handle_repaired(SERVERS[2], 0, None);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert!(!read.is_complete(), "it is being repaired");

    let (mut read, now) = self::read(2);
    read.handle_reply(SERVERS[0], 0, CORRUPT, now);
    read.handle_reply(SERVERS[1], 0, CORRUPT, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    read.handle_reply(SERVERS[2], 0, whole(NEW), now);
    assert!(sent(&mut read).is_empty(), "one answer is no evidence");
    assert!(read.is_complete());
}

#[test]
fn a_corrupt_replica_is_repaired_after_the_answer_too() {
    let (mut read, now) = read(2);
    let deleted = ReadReply::Absent(Some(NEW));
    read.handle_reply(SERVERS[0], 0, deleted.clone(), now);
    read.handle_reply(SERVERS[1], 0, deleted, now);
    read.handle_reply(SERVERS[2], 0, CORRUPT, now);
    assert_eq!(sent(&mut read), [(SERVERS[2], Ask::Put)]);
    assert_eq!(read.repair(), Some((NEW, Content::Tombstone)));
    read.handle_repaired(SERVERS[2], 0, Some(WriteReply::Stored));
    assert_eq!(sent(&mut read), [(SERVERS[2], Ask::Vouch { tag: NEW })]);
    read.handle_timeout(read.poll_timeout().unwrap());
    assert!(read.is_complete());
    read.handle_vouched(SERVERS[2], 0, true);
    let refused = Standing::Refused(Refusal::Corrupt);
    assert_eq!(standings(&read)[2], refused, "the deadline was before that");
}

#[test]
fn a_corrupt_replica_vouches_for_what_it_was_given_and_for_no_more() {
    let newer = Tag { time: 3, op: 0 };
    let older = WriteReply::Superseded(OLD);
    let another = WriteReply::Superseded(NEW);
    let full = WriteReply::Refused(Refusal::Full);
    let corrupt = WriteReply::Refused(Refusal::Corrupt);
    for (reply, vouches) in [
        (Some(WriteReply::Stored), true),
        (Some(WriteReply::Superseded(newer)), true),
        (Some(another), false),
        (Some(older), false),
        (Some(full), false),
        (Some(corrupt), false),
        (None, false),
    ] {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, CORRUPT, now);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        sent(&mut read);
        read.handle_repaired(SERVERS[0], 0, reply);
        let vouch = [(SERVERS[0], Ask::Vouch { tag: NEW })];
        assert_eq!(sent(&mut read), vouch[..usize::from(vouches)], "{reply:?}");
        assert_eq!(read.is_complete(), !vouches);
        read.handle_vouched(SERVERS[0], 0, false);
        assert!(read.is_complete());
        assert_eq!(standings(&read)[0], Standing::Refused(Refusal::Corrupt));
    }
}

#[test]
fn a_corrupt_replica_is_given_what_turns_out_to_be_newer_as_well() {
    let (mut read, now) = read_of(5, 3);
    let (corrupt, last) = (ServerId(0), ServerId(4));
    read.handle_reply(corrupt, 0, CORRUPT, now);
    for number in 1..4 {
        read.handle_reply(ServerId(number), 0, whole(OLD), now);
    }
    assert_eq!(sent(&mut read), [(corrupt, Ask::Put)]);
    read.handle_reply(last, 0, whole(NEW), now);
    let lack = [1, 2, 3, 0].map(|number| (ServerId(number), Ask::Put));
    assert_eq!(sent(&mut read), lack);
    assert_eq!(read.unvouched(), [(corrupt, OLD), (corrupt, NEW)]);
    for tag in [OLD, NEW] {
        read.handle_repaired(corrupt, 0, Some(WriteReply::Stored));
        assert_eq!(sent(&mut read), [(corrupt, Ask::Vouch { tag })]);
    }
}

#[test]
fn if_nothing_is_anywhere_a_corrupt_replica_has_nothing_to_vouch_for() {
    let (mut read, now) = read(2);
    read.handle_reply(SERVERS[0], 0, CORRUPT, now);
    for server in &SERVERS[1..] {
        read.handle_reply(*server, 0, ReadReply::Absent(None), now);
    }
    assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
    assert!(sent(&mut read).is_empty() && read.is_complete());
}

#[test]
fn who_refuses_for_another_reason_is_given_nothing() {
    for refusal in [
        Refusal::Busy,
        Refusal::Internal,
        Refusal::WrongEpoch { epoch: 7 },
    ] {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, ReadReply::Refused(refusal), now);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert!(sent(&mut read).is_empty() && read.is_complete());
    }
}

#[test]
fn what_an_earlier_round_found_is_vouched_for_no_more() {
    let (mut read, now) = read_of(4, 3);
    read.handle_reply(SERVERS[0], 0, CORRUPT, now);
    for number in 1..4 {
        read.handle_reply(ServerId(number), 0, long(OLD), now);
    }
    let (from, _) = read.poll_fetch().unwrap();
    read.handle_fetched(&digest(OLD), value("1"));
    assert_eq!(
        (from, sent(&mut read)),
        (SERVERS[1], vec![(SERVERS[0], Ask::Put)])
    );
    read.handle_repaired(SERVERS[0], 1, Some(WriteReply::Stored));
    assert!(sent(&mut read).is_empty());
    read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
    assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Vouch { tag: OLD })]);
    read.handle_vouched(SERVERS[0], 1, true);
    assert_ne!(read.standing(&read.replicas()[0]), Standing::Repaired);
    read.handle_vouched(SERVERS[0], 0, true);
    assert_eq!(read.standing(&read.replicas()[0]), Standing::Repaired);
}

/// Every order of answers, and every way their repairs end: what is told is at least as new
/// as everything among the first r answers, and r replicas hold it by then.
#[test]
fn whatever_the_answers_what_is_told_is_the_newest_of_r_and_held_by_r() {
    let answers = [
        Some(ReadReply::Absent(None)),
        Some(whole(OLD)),
        Some(whole(NEW)),
        Some(ReadReply::Absent(Some(Tag { time: 3, op: 0 }))),
        Some(ReadReply::Refused(Refusal::Busy)),
        Some(CORRUPT),
        None,
    ];
    for r in [2u8, 3] {
        for code in 0..answers.len().pow(3) * 8 {
            let repair_succeeds = |server: ServerId| code >> server.index() & 1 == 1;
            let (mut read, now) = read(r);
            let mut held: Vec<Option<Tag>> = Vec::new();
            let mut rest = code >> 3;
            for server in SERVERS {
                let answer = answers[rest % answers.len()].clone();
                rest /= answers.len();
                let is_open = read.outcome().is_none();
                match answer {
                    None => drop(read.handle_unreachable(server, 0, true, now)),
                    Some(reply) => {
                        if is_open {
                            held.push(match &reply {
                                ReadReply::Record(digest, _) => Some(digest.tag),
                                ReadReply::Absent(tag) => Some(tag.unwrap_or(Tag::ZERO)),
                                _ => None,
                            });
                        }
                        read.handle_reply(server, 0, reply, now);
                    }
                }
                while let Some(Transmit { to, ask }) = read.poll_transmit() {
                    let (tag, _) = read.repair().unwrap();
                    let word = read.replicas()[to.index()].word;
                    let is_corrupt = word == Word::Answer(Answer::Refused(Refusal::Corrupt));
                    if ask == (Ask::Vouch { tag }) {
                        assert!(is_corrupt);
                        read.handle_vouched(to, 0, true);
                        continue;
                    }
                    assert_eq!(ask, Ask::Put);
                    let stored = repair_succeeds(to);
                    if stored && !is_corrupt && read.outcome().is_none() {
                        held.push(Some(tag));
                    }
                    read.handle_repaired(to, 0, stored.then_some(WriteReply::Stored));
                }
            }
            let told = match read.outcome() {
                Some(ReadOutcome::Found(_, version)) => version.tag.unwrap(),
                Some(ReadOutcome::Absent) => read.tombstone().unwrap_or(Tag::ZERO),
                Some(ReadOutcome::Unreachable) => continue,
                other => panic!("{other:?}"),
            };
            let r = usize::from(r);
            let tags: Vec<Tag> = held.into_iter().flatten().collect();
            assert!(tags[..r].iter().all(|tag| *tag <= told), "{code}");
            assert!(tags.iter().filter(|tag| **tag >= told).count() >= r);
            assert!(read.agreeing() >= r && read.is_complete());
        }
    }
}

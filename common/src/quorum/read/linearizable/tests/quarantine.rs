use super::fixture::*;
use crate::cluster::ServerId;
use crate::quorum::read::{ReadOutcome, ReadReply, Standing};
use crate::quorum::write::WriteReply;
use crate::quorum::{Ask, Refusal};
use crate::record::Content;
use crate::tag::Tag;

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

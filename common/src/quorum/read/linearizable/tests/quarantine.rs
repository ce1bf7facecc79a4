use super::fixture::*;
use crate::cluster::ServerId;
use crate::quorum::Refusal;
use crate::quorum::read::{ReadOutcome, ReplicaStanding};
use crate::record::Content;
use crate::tag::Tag;

#[test]
fn a_corrupt_replica_is_given_the_newest_and_then_asked_to_attest_it() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), CORRUPT, now);
    read.handle_response(SERVERS[1], get(0), whole(NEW), now);
    assert!(sent(&mut read).is_empty(), "the newest is not known");
    read.handle_response(SERVERS[2], get(0), whole(NEW), now);
    assert_eq!(read.outcome(), Some(&found(NEW)));
    assert_eq!(read.quarantined(), [], "it was not sent");
    assert_eq!(sent(&mut read), [(SERVERS[0], Sent::Put)]);
    assert_eq!(given(&mut read).unwrap().0, NEW);
    assert_eq!(read.quarantined(), [(SERVERS[0], NEW)]);
    assert!(!read.is_complete());
    attested(&mut read, SERVERS[0], 0, true);
    assert!(sent(&mut read).is_empty(), "it was not asked to");

    written(&mut read, SERVERS[0], 0, Some(STORED));
    let refused = ReplicaStanding::Refused(Refusal::Corrupt);
    assert_eq!(standings(&read)[0], refused, "it does not attest it yet");
    assert_eq!(read.quarantined(), []);
    assert!(!read.is_complete());
    let attest = Sent::Attest { tag: NEW };
    assert_eq!(sent(&mut read), [(SERVERS[0], attest)]);
    assert!(!read.is_complete());
    attested(&mut read, SERVERS[0], 0, true);
    assert_eq!(standings(&read)[0], ReplicaStanding::Repaired);
    assert!(read.is_complete() && sent(&mut read).is_empty());
    assert_eq!(read.agreeing(), 2);
}

#[test]
fn a_quarantined_replica_never_counts_even_if_it_attests_in_the_end() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), CORRUPT, now);
    assert_eq!((read.outcome(), read.agreeing()), (None, 1));
    read.handle_response(SERVERS[2], get(0), whole(OLD), now);
    let given = [SERVERS[2], SERVERS[1]].map(|server| (server, Sent::Put));
    assert_eq!(sent(&mut read), given);
    written(&mut read, SERVERS[1], 0, Some(STORED));
    assert_eq!(sent(&mut read), [(SERVERS[1], Sent::Attest { tag: NEW })]);
    attested(&mut read, SERVERS[1], 0, true);
    assert_eq!((read.outcome(), read.agreeing()), (None, 1));
    let full = refused(Refusal::Full);
    written(&mut read, SERVERS[2], 0, Some(full));
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert_eq!(standings(&read)[1], ReplicaStanding::Repaired);
}

#[test]
fn the_outcome_does_not_wait_for_a_quarantined_replica() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole(NEW), now);
    read.handle_response(SERVERS[1], get(0), CORRUPT, now);
    read.handle_response(SERVERS[2], get(0), whole(OLD), now);
    sent(&mut read);
    written(&mut read, SERVERS[2], 0, None);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert!(!read.is_complete(), "it is being repaired");

    let (mut read, now) = self::read(2);
    read.handle_response(SERVERS[0], get(0), CORRUPT, now);
    read.handle_response(SERVERS[1], get(0), CORRUPT, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    read.handle_response(SERVERS[2], get(0), whole(NEW), now);
    assert!(sent(&mut read).is_empty(), "one answer is no evidence");
    assert!(read.is_complete());
}

#[test]
fn a_corrupt_replica_is_repaired_after_the_answer_too() {
    let (mut read, now) = read(2);
    let deleted = deleted(NEW);
    read.handle_response(SERVERS[0], get(0), deleted.clone(), now);
    read.handle_response(SERVERS[1], get(0), deleted, now);
    read.handle_response(SERVERS[2], get(0), CORRUPT, now);
    assert_eq!(sent(&mut read), [(SERVERS[2], Sent::Put)]);
    assert_eq!(given(&mut read), Some((NEW, Content::Tombstone)));
    written(&mut read, SERVERS[2], 0, Some(STORED));
    assert_eq!(sent(&mut read), [(SERVERS[2], Sent::Attest { tag: NEW })]);
    read.handle_timeout(read.poll_timeout().unwrap());
    assert!(read.is_complete());
    attested(&mut read, SERVERS[2], 0, true);
    let refused = ReplicaStanding::Refused(Refusal::Corrupt);
    assert_eq!(standings(&read)[2], refused, "the deadline was before that");
}

#[test]
fn a_corrupt_replica_attests_what_it_was_given_and_no_more() {
    let newer = Tag { time: 3, op: 0 };
    let older = superseded(OLD);
    let another = superseded(NEW);
    let full = refused(Refusal::Full);
    let corrupt = refused(Refusal::Corrupt);
    for (response, attests) in [
        (Some(STORED), true),
        (Some(superseded(newer)), true),
        (Some(another), false),
        (Some(older), false),
        (Some(full), false),
        (Some(corrupt), false),
        (None, false),
    ] {
        let (mut read, now) = read(2);
        read.handle_response(SERVERS[0], get(0), CORRUPT, now);
        read.handle_response(SERVERS[1], get(0), whole(NEW), now);
        read.handle_response(SERVERS[2], get(0), whole(NEW), now);
        sent(&mut read);
        written(&mut read, SERVERS[0], 0, response.clone());
        let attest = [(SERVERS[0], Sent::Attest { tag: NEW })];
        assert_eq!(
            sent(&mut read),
            attest[..usize::from(attests)],
            "{response:?}"
        );
        assert_eq!(read.is_complete(), !attests);
        attested(&mut read, SERVERS[0], 0, false);
        assert!(read.is_complete());
        assert_eq!(
            standings(&read)[0],
            ReplicaStanding::Refused(Refusal::Corrupt)
        );
    }
}

#[test]
fn a_corrupt_replica_is_given_what_turns_out_to_be_newer_as_well() {
    let (mut read, now) = read_of(5, 3);
    let (corrupt, last) = (ServerId(0), ServerId(4));
    read.handle_response(corrupt, get(0), CORRUPT, now);
    for number in 1..4 {
        read.handle_response(ServerId(number), get(0), whole(OLD), now);
    }
    assert_eq!(sent(&mut read), [(corrupt, Sent::Put)]);
    read.handle_response(last, get(0), whole(NEW), now);
    let lack = [1, 2, 3, 0].map(|number| (ServerId(number), Sent::Put));
    assert_eq!(sent(&mut read), lack);
    assert_eq!(read.quarantined(), [(corrupt, OLD), (corrupt, NEW)]);
    for tag in [OLD, NEW] {
        written(&mut read, corrupt, 0, Some(STORED));
        assert_eq!(sent(&mut read), [(corrupt, Sent::Attest { tag })]);
    }
}

#[test]
fn if_nothing_is_anywhere_a_corrupt_replica_has_nothing_to_attest() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), CORRUPT, now);
    for server in &SERVERS[1..] {
        read.handle_response(*server, get(0), absent(), now);
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
        read.handle_response(SERVERS[0], get(0), refused(refusal), now);
        read.handle_response(SERVERS[1], get(0), whole(NEW), now);
        read.handle_response(SERVERS[2], get(0), whole(NEW), now);
        assert!(sent(&mut read).is_empty() && read.is_complete());
    }
}

#[test]
fn what_an_earlier_round_found_is_attested_no_more() {
    let (mut read, now) = read_of(4, 3);
    read.handle_response(SERVERS[0], get(0), CORRUPT, now);
    for number in 1..4 {
        read.handle_response(ServerId(number), get(0), long(OLD), now);
    }
    let from = read.poll_fetch().unwrap().from;
    read.handle_fetched(&digest(OLD), value("1"));
    assert_eq!(
        (from, sent(&mut read)),
        (SERVERS[1], vec![(SERVERS[0], Sent::Put)])
    );
    written(&mut read, SERVERS[0], 1, Some(STORED));
    assert!(sent(&mut read).is_empty());
    written(&mut read, SERVERS[0], 0, Some(STORED));
    assert_eq!(sent(&mut read), [(SERVERS[0], Sent::Attest { tag: OLD })]);
    attested(&mut read, SERVERS[0], 1, true);
    assert_ne!(
        read.standing(&read.replicas()[0]),
        ReplicaStanding::Repaired
    );
    attested(&mut read, SERVERS[0], 0, true);
    assert_eq!(
        read.standing(&read.replicas()[0]),
        ReplicaStanding::Repaired
    );
}

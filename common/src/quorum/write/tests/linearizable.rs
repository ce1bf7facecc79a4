use super::fixture::*;
use crate::model::ReplicaResponse;
use crate::quorum::Refusal;
use crate::quorum::tally::Recorded;
use crate::quorum::write::{Applied, WriteOutcome, WriteResponse};
use crate::tag::{Tag, TagClock};

#[test]
fn a_linearizable_write_exceeds_what_a_majority_told_and_stores_once() {
    let (mut write, now) = linearizable(2);
    write.handle_response(SERVERS[2], get_tag(0), holds(tag(7)), now);
    assert_eq!(write.requires_tag_above(), None, "one is no majority");
    write.handle_response(SERVERS[0], get_tag(0), holds(Tag::ZERO), now);
    assert_eq!(write.requires_tag_above(), Some(tag(7)));
    store(&mut write, 8);
    assert_eq!(write.requires_tag_above(), None);
    let late = write.handle_response(SERVERS[1], get_tag(0), holds(tag(9)), now);
    assert_eq!(late, Recorded::Repeated);
    write.handle_response(SERVERS[1], put(1), superseded(9), now);
    assert_eq!((write.outcome(), write.requires_tag_above()), (None, None));
    write.handle_response(SERVERS[0], put(1), STORED, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    assert_eq!((write.confirmed(), write.round()), (2, 1));
}

#[test]
fn a_majority_that_tells_no_tag_ends_a_write_that_is_nowhere() {
    let (mut write, now) = linearizable(2);
    write.handle_unreachable(SERVERS[0], get_tag(0), true, now);
    assert_eq!(write.outcome(), None);
    write.handle_unreachable(SERVERS[1], get_tag(0), true, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::NotApplied);

    let (mut write, now) = linearizable(3);
    for server in &SERVERS[..2] {
        write.handle_response(
            *server,
            get_tag(0),
            ReplicaResponse::Refused(Refusal::NotV2),
            now,
        );
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));

    let (mut write, now) = linearizable(3);
    write.handle_response(SERVERS[0], get_tag(0), holds(tag(1)), now);
    write.handle_timeout(write.poll_timeout().unwrap());
    assert_eq!(write.outcome(), Some(WriteOutcome::TimedOut));
    assert_eq!(write.applied(), Applied::NotApplied);
}

#[test]
fn a_replica_that_confirms_by_something_newer_has_not_refused() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_response(*server, get_tag(0), holds(Tag::ZERO), now);
    }
    store(&mut write, 1);
    write.handle_response(SERVERS[0], put(1), superseded(9), now);
    write.handle_response(
        SERVERS[1],
        put(1),
        ReplicaResponse::Refused(Refusal::Full),
        now,
    );
    write.handle_unreachable(SERVERS[2], put(1), false, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown, "it may have held it");
}

#[test]
fn a_record_that_came_by_dkvs_1_confirms_nothing_whatever_its_tag() {
    let by_v1 = |time| {
        let mut clock = TagClock::for_v1(7);
        let seen = Tag { time, op: 0 };
        let tag = clock.mint(0, seen).unwrap();
        ReplicaResponse::Superseded { tag }
    };
    let to_put = WriteResponse::to_put;
    assert!(to_put(superseded(9)).confirms(tag(8)) && !to_put(by_v1(9)).confirms(tag(8)));
    let hour_ahead = || by_v1(3_600_000 << 16);
    for (answers, outcome, confirmed) in [
        // A minority's clock is ahead: the others are enough.
        (
            [STORED, STORED, hour_ahead()],
            Some(WriteOutcome::Committed),
            2,
        ),
        (
            [hour_ahead(), STORED, superseded(9)],
            Some(WriteOutcome::Committed),
            2,
        ),
        (
            [hour_ahead(), STORED, hour_ahead()],
            Some(WriteOutcome::Superseded),
            1,
        ),
        (
            [
                hour_ahead(),
                STORED,
                ReplicaResponse::Refused(Refusal::Full),
            ],
            Some(WriteOutcome::Refused),
            1,
        ),
    ] {
        let (mut write, now) = linearizable(2);
        for server in &SERVERS[..2] {
            write.handle_response(*server, get_tag(0), holds(Tag::ZERO), now);
        }
        store(&mut write, 1);
        for (server, answer) in SERVERS.into_iter().zip(answers) {
            write.handle_response(server, put(1), answer, now);
        }
        assert_eq!((write.outcome(), write.confirmed()), (outcome, confirmed));
        assert_eq!(
            write.requires_tag_above(),
            None,
            "it would take effect twice"
        );
        if outcome != Some(WriteOutcome::Committed) {
            assert_eq!(write.applied(), Applied::Unknown);
        }
    }
}

#[test]
fn another_record_under_the_same_tag_confirms_nothing() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_response(*server, get_tag(0), holds(Tag::ZERO), now);
    }
    store(&mut write, 5);
    for server in &SERVERS[..2] {
        write.handle_response(*server, put(1), superseded(5), now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    let refusals: Vec<_> = write.refusals().collect();
    assert_eq!(refusals, [Refusal::TagTaken; 2]);
}

#[test]
fn a_linearizable_write_that_is_not_sent_again_is_confirmed_by_what_is_newer() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_response(*server, get_tag(0), holds(Tag::ZERO), now);
    }
    store(&mut write, 5);
    for server in &SERVERS[..2] {
        write.handle_response(*server, put(1), superseded(9), now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
}

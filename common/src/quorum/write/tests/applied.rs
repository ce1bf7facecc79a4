use std::time::Duration;

use super::fixture::*;
use crate::model::ReplicaResponse;
use crate::quorum::Refusal;
use crate::quorum::level::Level;
use crate::quorum::params::Quorum;
use crate::quorum::tally::ReplicaState;
use crate::quorum::write::{Applied, Write, WriteOutcome, WriteResponse};
use crate::tag::Tag;
use crate::testing::start_of_time;

#[test]
fn what_was_sent_to_be_stored_may_be_stored() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_response(*server, get_tag(0), holds(Tag::ZERO), now);
    }
    store(&mut write, 1);
    write.handle_timeout(write.poll_timeout().unwrap());
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn what_an_earlier_round_may_have_stored_is_not_forgotten() {
    let (mut write, now) = write(3);
    write.handle_response(SERVERS[0], put(1), superseded(9), now);
    store(&mut write, 10);
    for server in SERVERS {
        write.handle_unreachable(server, put(2), false, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
}

#[test]
fn a_replica_that_was_overtaken_may_have_held_it_before() {
    let (mut write, now) = write(3);
    for server in SERVERS {
        write.handle_response(server, put(1), superseded(9), now);
    }
    store(&mut write, 10);
    for server in SERVERS {
        write.handle_unreachable(server, put(2), false, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_replica_that_was_cut_off_may_have_stored_it() {
    let (mut write, now) = write(2);
    for (server, sent) in SERVERS.into_iter().zip([false, true, false]) {
        write.handle_unreachable(server, put(1), sent, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_refusal_by_a_server_of_another_ring_tells_nothing_of_the_one_before_it() {
    for (refusal, applied) in [
        (Refusal::WrongEpoch { epoch: 7 }, Applied::Unknown),
        (Refusal::Full, Applied::NotApplied),
    ] {
        let (mut write, now) = write(2);
        for server in SERVERS {
            write.handle_response(server, put(1), ReplicaResponse::Refused(refusal), now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
        assert_eq!(write.applied(), applied);
    }
}

#[test]
fn a_refusal_of_a_put_that_was_sent_again_tells_nothing_of_the_first_copy() {
    let (mut write, now) = write(2);
    for server in SERVERS {
        write.handle_response(server, put(1), ReplicaResponse::Refused(Refusal::Full), now);
    }
    assert_eq!(write.applied(), Applied::NotApplied);
    write.handle_repeated_refusal();
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_refusal_of_a_damaged_copy_or_for_trouble_within_tells_nothing_of_other_copies() {
    for refusal in [Refusal::Corrupt, Refusal::Internal] {
        let (mut write, now) = write(2);
        for server in &SERVERS[..2] {
            write.handle_unreachable(*server, put(1), false, now);
        }
        write.handle_response(SERVERS[2], put(1), ReplicaResponse::Refused(refusal), now);
        assert_eq!(write.applied(), Applied::Unknown, "{refusal:?}");
    }
}

#[test]
fn a_write_that_is_withheld_sends_nothing_and_is_applied_only_if_an_earlier_round_did() {
    let cannot = |refusal| ReplicaState::Responded(WriteResponse::Refused(refusal));
    let full = cannot(Refusal::NoDeletion);
    for (states, outcome) in [
        ([Some(full), Some(full), None], WriteOutcome::Refused),
        ([Some(full), None, Some(full)], WriteOutcome::Refused),
        (
            [Some(full), Some(ReplicaState::Unreachable), None],
            WriteOutcome::Unreachable,
        ),
    ] {
        let states = || SERVERS.into_iter().zip(states);
        let states = || states().filter_map(|(server, state)| Some((server, state?)));
        let now = start_of_time();
        let quorum = Quorum::new(3, 2).unwrap();
        let deadline = now + Duration::from_secs(1);
        for level in [Level::Agreement, Level::Linearizable] {
            let new = || Write::new(key(), content(), list(), quorum, level, now, deadline);
            let again = || {
                Write::resubmit(
                    key(),
                    content(),
                    tag(5),
                    list(),
                    quorum,
                    level,
                    now,
                    deadline,
                )
            };
            for (mut write, applied) in [(new(), Applied::NotApplied), (again(), Applied::Unknown)]
            {
                assert!(write.is_round_unsent() && !write.is_withheld());
                write.withhold(states(), now);
                assert_eq!(write.poll_transmit(), None);
                assert_eq!(write.requires_tag_above(), None);
                assert_eq!(write.outcome(), Some(outcome));
                assert_eq!(write.applied(), applied);
                assert!(write.is_complete() && write.is_withheld());
                assert!(!write.is_round_unsent());
                write.handle_timeout(deadline);
                assert_eq!(write.outcome(), Some(outcome));
            }
        }
    }
    let (mut write, now) = write(2);
    write.handle_response(SERVERS[0], put(1), superseded(9), now);
    assert!(write.is_round_unsent(), "a second round");
    let states = SERVERS.map(|server| (server, full));
    write.withhold(states, now);
    assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
}

#[test]
fn a_refusal_without_a_reason_tells_nothing() {
    let (mut write, now) = write(2);
    for server in SERVERS {
        let refused = ReplicaResponse::Refused(Refusal::Unstated);
        write.handle_response(server, put(1), refused, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    assert_eq!(write.applied(), Applied::Unknown);
}

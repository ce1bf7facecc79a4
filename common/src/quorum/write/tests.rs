use super::*;
use std::time::Duration;

use crate::ring::{Position, RingPoint};
use crate::tag::TagClock;
use crate::testing::start_of_time;

const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

fn list() -> PreferenceList {
    let point = |server| RingPoint {
        position: Position([0; 20]),
        server,
    };
    SERVERS.map(point).to_vec()
}

/// A write at the agreement level, in the round after the first tag.
fn write(w: u8) -> (Write, Instant) {
    let now = start_of_time();
    let quorum = Quorum::new(3, w).unwrap();
    let deadline = now + Duration::from_secs(1);
    let mut write = Write::new(list(), quorum, Level::Agreement, now, deadline);
    assert_eq!(write.wants_tag_above(), Some(Tag::ZERO));
    store(&mut write, 1);
    (write, now)
}

fn tag(time: u64) -> Tag {
    Tag { time, op: 0 }
}

fn superseded(time: u64) -> WriteReply {
    WriteReply::Superseded(tag(time))
}

/// Begins a round under the tag of this time.
fn store(write: &mut Write, time: u64) {
    write.begin_round(tag(time));
    let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
    let to_store = SERVERS.map(|to| Transmit { to, ask: Ask::Put });
    assert_eq!(asked, to_store);
}

/// A linearizable write of which all replicas were asked for their tags.
fn linearizable(w: u8) -> (Write, Instant) {
    let now = start_of_time();
    let deadline = now + Duration::from_secs(1);
    let quorum = Quorum::new(3, w).unwrap();
    let mut write = Write::new(list(), quorum, Level::Linearizable, now, deadline);
    let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
    assert_eq!(asked, SERVERS.map(|to| Transmit { to, ask: Ask::Tag }));
    (write, now)
}

#[test]
fn a_linearizable_write_exceeds_what_a_majority_told_and_stores_once() {
    let (mut write, now) = linearizable(2);
    write.handle_reply(SERVERS[2], 0, WriteReply::Tag(tag(7)), now);
    assert_eq!(write.wants_tag_above(), None, "one is no majority");
    write.handle_reply(SERVERS[0], 0, WriteReply::Tag(Tag::ZERO), now);
    assert_eq!(write.wants_tag_above(), Some(tag(7)));
    store(&mut write, 8);
    assert_eq!(write.wants_tag_above(), None);
    let late = write.handle_reply(SERVERS[1], 0, WriteReply::Tag(tag(9)), now);
    assert_eq!(late, Recorded::Repeated);
    write.handle_reply(SERVERS[1], 1, superseded(9), now);
    assert_eq!((write.outcome(), write.wants_tag_above()), (None, None));
    write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    assert_eq!((write.confirmed(), write.round()), (2, 1));
}

#[test]
fn a_majority_that_tells_no_tag_ends_a_write_that_is_nowhere() {
    let (mut write, now) = linearizable(2);
    write.handle_unreachable(SERVERS[0], 0, true, now);
    assert_eq!(write.outcome(), None);
    write.handle_unreachable(SERVERS[1], 0, true, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::NotApplied);

    let (mut write, now) = linearizable(3);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 0, WriteReply::Refused(Refusal::NotV2), now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));

    let (mut write, now) = linearizable(3);
    write.handle_reply(SERVERS[0], 0, WriteReply::Tag(tag(1)), now);
    write.handle_timeout(write.poll_timeout().unwrap());
    assert_eq!(write.outcome(), Some(WriteOutcome::TimedOut));
    assert_eq!(write.applied(), Applied::NotApplied);
}

#[test]
fn what_was_sent_to_be_stored_may_be_stored() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
    }
    store(&mut write, 1);
    write.handle_timeout(write.poll_timeout().unwrap());
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_replica_that_confirms_by_something_newer_has_not_refused() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
    }
    store(&mut write, 1);
    write.handle_reply(SERVERS[0], 1, superseded(9), now);
    write.handle_reply(SERVERS[1], 1, WriteReply::Refused(Refusal::Full), now);
    write.handle_unreachable(SERVERS[2], 1, false, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown, "it may have held it");
}

#[test]
fn a_record_that_came_by_dkvs_1_confirms_nothing_whatever_its_tag() {
    let by_v1 = |time| {
        let mut clock = TagClock::for_v1(7);
        let seen = Tag { time, op: 0 };
        WriteReply::Superseded(clock.mint(0, seen).unwrap())
    };
    assert!(superseded(9).confirms(tag(8)) && !by_v1(9).confirms(tag(8)));
    let hour_ahead = by_v1(3_600_000 << 16);
    for (answers, outcome, confirmed) in [
        // A minority's clock is ahead: the others are enough.
        (
            [WriteReply::Stored, WriteReply::Stored, hour_ahead],
            Some(WriteOutcome::Committed),
            2,
        ),
        (
            [hour_ahead, WriteReply::Stored, superseded(9)],
            Some(WriteOutcome::Committed),
            2,
        ),
        (
            [hour_ahead, WriteReply::Stored, hour_ahead],
            Some(WriteOutcome::Superseded),
            1,
        ),
        (
            [
                hour_ahead,
                WriteReply::Stored,
                WriteReply::Refused(Refusal::Full),
            ],
            Some(WriteOutcome::Refused),
            1,
        ),
    ] {
        let (mut write, now) = linearizable(2);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
        }
        store(&mut write, 1);
        for (server, answer) in SERVERS.into_iter().zip(answers) {
            write.handle_reply(server, 1, answer, now);
        }
        assert_eq!((write.outcome(), write.confirmed()), (outcome, confirmed));
        assert_eq!(write.wants_tag_above(), None, "it would take effect twice");
        if outcome != Some(WriteOutcome::Committed) {
            assert_eq!(write.applied(), Applied::Unknown);
        }
    }
}

#[test]
fn a_write_that_falls_back_while_it_stores_counts_by_the_rules_of_its_new_level() {
    let storing = |w| {
        let (mut write, now) = linearizable(w);
        assert!(
            !write.fall_back(),
            "it stores nothing yet, and begins anew instead"
        );
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
        }
        store(&mut write, 1);
        (write, now)
    };
    let (mut write, now) = storing(3);
    write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
    assert!(write.fall_back());
    assert_eq!((write.level(), write.confirmed()), (Level::Agreement, 1));
    for server in &SERVERS[1..] {
        write.handle_reply(*server, 1, WriteReply::Stored, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    assert!(!write.fall_back(), "it has ended");

    let (mut write, now) = storing(2);
    write.handle_reply(SERVERS[0], 1, superseded(9), now);
    assert!(write.fall_back());
    assert_eq!(
        (write.confirmed(), write.wants_tag_above()),
        (0, Some(tag(9)))
    );
    store(&mut write, 10);
    write.handle_reply(SERVERS[0], 2, WriteReply::Stored, now);
    write.handle_reply(SERVERS[2], 2, WriteReply::Stored, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
}

#[test]
fn another_record_under_the_same_tag_confirms_nothing() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
    }
    store(&mut write, 5);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 1, superseded(5), now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    let refusals: Vec<_> = write.refusals().collect();
    assert_eq!(refusals, [Refusal::TagTaken; 2]);
}

fn again(level: Level) -> (Write, Instant) {
    let now = start_of_time();
    let deadline = now + Duration::from_secs(1);
    let quorum = Quorum::new(3, 2).unwrap();
    let mut write = Write::again(list(), quorum, level, tag(5), now, deadline);
    assert_eq!(write.wants_tag_above(), None);
    assert_eq!(std::iter::from_fn(|| write.poll_transmit()).count(), 3);
    (write, now)
}

#[test]
fn a_write_that_is_sent_again_keeps_its_tag_whatever_it_meets() {
    let (mut write, now) = again(Level::Linearizable);
    write.handle_reply(SERVERS[0], 0, superseded(9), now);
    write.handle_reply(SERVERS[1], 0, WriteReply::Stored, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));

    let (mut write, now) = again(Level::Agreement);
    write.handle_reply(SERVERS[0], 0, superseded(9), now);
    assert_eq!((write.outcome(), write.wants_tag_above()), (None, None));
    write.handle_reply(SERVERS[1], 0, superseded(9), now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Superseded));
    assert_eq!(write.applied(), Applied::Unknown);
}

/// What one replica says, of a write that is sent again under the tag 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Stored,
    Newer,
    Refuses,
    IsGone,
    Nothing,
}

fn say(write: &mut Write, server: ServerId, says: Says, now: Instant) {
    let reply = match says {
        Says::Stored => WriteReply::Stored,
        Says::Newer => superseded(9),
        Says::Refuses => WriteReply::Refused(Refusal::Full),
        Says::IsGone => {
            write.handle_unreachable(server, 0, false, now);
            return;
        }
        Says::Nothing => return,
    };
    write.handle_reply(server, 0, reply, now);
}

#[test]
fn a_linearizable_write_that_is_sent_again_is_confirmed_only_where_a_replica_holds_it() {
    use Says::{IsGone, Newer, Nothing, Refuses, Stored};
    use WriteOutcome::{Committed, Refused, Superseded, TimedOut, Unreachable};
    // What three replicas say, of which two have to confirm, in this order; how it stands
    // then, and at the deadline.
    for (says, now_is, at_last) in [
        ([Stored, Stored, Nothing], Some(Committed), Committed),
        ([Stored, Newer, Nothing], Some(Committed), Committed),
        ([Newer, Stored, Nothing], Some(Committed), Committed),
        ([Newer, Newer, Stored], Some(Committed), Committed),
        ([Newer, Newer, Newer], Some(Superseded), Superseded),
        ([Newer, Newer, Refuses], Some(Superseded), Superseded),
        ([Newer, Newer, IsGone], Some(Superseded), Superseded),
        ([Refuses, Newer, Newer], Some(Superseded), Superseded),
        ([IsGone, Newer, Newer], Some(Superseded), Superseded),
        ([Newer, Newer, Nothing], None, Superseded),
        ([Newer, Nothing, Nothing], None, TimedOut),
        ([Newer, IsGone, Nothing], None, TimedOut),
        ([Newer, Refuses, IsGone], Some(Unreachable), Unreachable),
        ([Newer, Refuses, Refuses], Some(Refused), Refused),
        ([Stored, Refuses, Refuses], Some(Refused), Refused),
        ([Stored, Nothing, Nothing], None, TimedOut),
    ] {
        let (mut write, now) = again(Level::Linearizable);
        for (server, says) in SERVERS.into_iter().zip(says) {
            say(&mut write, server, says, now);
        }
        assert_eq!(write.outcome(), now_is, "{says:?}");
        write.handle_timeout(now + Duration::from_secs(1));
        assert_eq!(write.outcome(), Some(at_last), "{says:?} at the deadline");
        let applied = match at_last {
            Committed => Applied::Committed,
            _ => Applied::Unknown,
        };
        assert_eq!(write.applied(), applied, "{says:?}");
    }
}

#[test]
fn a_linearizable_write_that_is_not_sent_again_is_confirmed_by_what_is_newer() {
    let (mut write, now) = linearizable(2);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
    }
    store(&mut write, 5);
    for server in &SERVERS[..2] {
        write.handle_reply(*server, 1, superseded(9), now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
}

#[test]
fn a_write_that_was_sent_before_is_never_certainly_nowhere() {
    let (mut write, now) = again(Level::Linearizable);
    for server in SERVERS {
        write.handle_unreachable(server, 0, false, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_write_that_was_overtaken_begins_anew_and_counts_only_its_own_round() {
    let (mut write, now) = write(2);
    write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
    write.handle_reply(SERVERS[1], 1, superseded(7), now);
    assert_eq!(write.wants_tag_above(), Some(tag(7)));
    write.handle_reply(SERVERS[2], 1, superseded(9), now);
    assert_eq!(write.outcome(), None);
    assert_eq!(write.wants_tag_above(), Some(tag(9)));
    store(&mut write, 10);
    assert_eq!((write.round(), write.wants_tag_above()), (2, None));
    let late = write.handle_reply(SERVERS[1], 1, WriteReply::Stored, now);
    assert_eq!((late, write.confirmed()), (Recorded::Repeated, 0));
    write.handle_reply(SERVERS[1], 2, WriteReply::Stored, now);
    assert_eq!(write.outcome(), None);
    write.handle_reply(SERVERS[2], 2, WriteReply::Stored, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
}

#[test]
fn being_overtaken_after_the_decision_changes_nothing() {
    let (mut write, now) = write(2);
    write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
    write.handle_reply(SERVERS[1], 1, WriteReply::Stored, now);
    write.handle_reply(SERVERS[2], 1, superseded(9), now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    assert_eq!(write.wants_tag_above(), None);
}

#[test]
fn what_an_earlier_round_may_have_stored_is_not_forgotten() {
    let (mut write, now) = write(3);
    write.handle_reply(SERVERS[0], 1, superseded(9), now);
    store(&mut write, 10);
    for server in SERVERS {
        write.handle_unreachable(server, 2, false, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
}

#[test]
fn a_replica_that_was_overtaken_may_have_held_it_before() {
    let (mut write, now) = write(3);
    for server in SERVERS {
        write.handle_reply(server, 1, superseded(9), now);
    }
    store(&mut write, 10);
    for server in SERVERS {
        write.handle_unreachable(server, 2, false, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_replica_that_was_cut_off_may_have_stored_it() {
    let (mut write, now) = write(2);
    for (server, sent) in SERVERS.into_iter().zip([false, true, false]) {
        write.handle_unreachable(server, 1, sent, now);
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
            write.handle_reply(server, 1, WriteReply::Refused(refusal), now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
        assert_eq!(write.applied(), applied);
    }
}

#[test]
fn a_refusal_of_a_put_that_was_sent_again_tells_nothing_of_the_first_copy() {
    let (mut write, now) = write(2);
    for server in SERVERS {
        write.handle_reply(server, 1, WriteReply::Refused(Refusal::Full), now);
    }
    assert_eq!(write.applied(), Applied::NotApplied);
    write.handle_refused_again();
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn a_refusal_of_a_damaged_copy_or_for_trouble_within_tells_nothing_of_other_copies() {
    for refusal in [Refusal::Corrupt, Refusal::Internal] {
        let (mut write, now) = write(2);
        for server in &SERVERS[..2] {
            write.handle_unreachable(*server, 1, false, now);
        }
        write.handle_reply(SERVERS[2], 1, WriteReply::Refused(refusal), now);
        assert_eq!(write.applied(), Applied::Unknown, "{refusal:?}");
    }
}

#[test]
fn a_write_that_is_withheld_asks_nobody_and_is_applied_only_if_an_earlier_round_did() {
    let cannot = |refusal| Word::Answer(WriteReply::Refused(refusal));
    let full = cannot(Refusal::NoDeletion);
    for (words, outcome) in [
        ([Some(full), Some(full), None], WriteOutcome::Refused),
        ([Some(full), None, Some(full)], WriteOutcome::Refused),
        (
            [Some(full), Some(Word::Unreachable), None],
            WriteOutcome::Unreachable,
        ),
    ] {
        let words = || SERVERS.into_iter().zip(words);
        let words = || words().filter_map(|(server, word)| Some((server, word?)));
        let now = start_of_time();
        let quorum = Quorum::new(3, 2).unwrap();
        let deadline = now + Duration::from_secs(1);
        for level in [Level::Agreement, Level::Linearizable] {
            let new = || Write::new(list(), quorum, level, now, deadline);
            let again = || Write::again(list(), quorum, level, tag(5), now, deadline);
            for (mut write, applied) in [(new(), Applied::NotApplied), (again(), Applied::Unknown)]
            {
                assert!(write.is_before_asking() && !write.is_withheld());
                write.withhold(words(), now);
                assert_eq!(write.poll_transmit(), None);
                assert_eq!(write.wants_tag_above(), None);
                assert_eq!(write.outcome(), Some(outcome));
                assert_eq!(write.applied(), applied);
                assert!(write.is_complete() && write.is_withheld());
                assert!(!write.is_before_asking());
                write.handle_timeout(deadline);
                assert_eq!(write.outcome(), Some(outcome));
            }
        }
    }
    let (mut write, now) = write(2);
    write.handle_reply(SERVERS[0], 1, superseded(9), now);
    assert!(write.is_before_asking(), "a second round");
    let words = SERVERS.map(|server| (server, full));
    write.withhold(words, now);
    assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
}

#[test]
fn a_refusal_without_a_reason_tells_nothing() {
    let (mut write, now) = write(2);
    for server in SERVERS {
        let refused = WriteReply::Refused(Refusal::Unstated);
        write.handle_reply(server, 1, refused, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    assert_eq!(write.applied(), Applied::Unknown);
}

#[test]
fn with_no_greater_tag_to_be_had_the_write_is_refused() {
    let (mut write, now) = write(2);
    write.handle_reply(SERVERS[0], 1, superseded(u64::MAX), now);
    write.give_up();
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
}

use super::fixture::*;
use crate::quorum::level::Level;
use crate::quorum::tally::Recorded;
use crate::quorum::write::WriteOutcome;
use crate::tag::Tag;

#[test]
fn a_write_that_falls_back_while_it_stores_counts_by_the_rules_of_its_new_level() {
    let storing = |w| {
        let (mut write, now) = linearizable(w);
        assert!(
            !write.fall_back(),
            "it stores nothing yet, and begins anew instead"
        );
        for server in &SERVERS[..2] {
            write.handle_response(*server, get_tag(0), holds(Tag::ZERO), now);
        }
        store(&mut write, 1);
        (write, now)
    };
    let (mut write, now) = storing(3);
    write.handle_response(SERVERS[0], put(1), STORED, now);
    assert!(write.fall_back());
    assert_eq!((write.level(), write.confirmed()), (Level::Agreement, 1));
    for server in &SERVERS[1..] {
        write.handle_response(*server, put(1), STORED, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    assert!(!write.fall_back(), "it has ended");

    let (mut write, now) = storing(2);
    write.handle_response(SERVERS[0], put(1), superseded(9), now);
    assert!(write.fall_back());
    assert_eq!(
        (write.confirmed(), write.requires_tag_above()),
        (0, Some(tag(9)))
    );
    store(&mut write, 10);
    write.handle_response(SERVERS[0], put(2), STORED, now);
    write.handle_response(SERVERS[2], put(2), STORED, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
}

#[test]
fn a_write_that_was_overtaken_begins_anew_and_counts_only_its_own_round() {
    let (mut write, now) = write(2);
    write.handle_response(SERVERS[0], put(1), STORED, now);
    write.handle_response(SERVERS[1], put(1), superseded(7), now);
    assert_eq!(write.requires_tag_above(), Some(tag(7)));
    write.handle_response(SERVERS[2], put(1), superseded(9), now);
    assert_eq!(write.outcome(), None);
    assert_eq!(write.requires_tag_above(), Some(tag(9)));
    store(&mut write, 10);
    assert_eq!((write.round(), write.requires_tag_above()), (2, None));
    let late = write.handle_response(SERVERS[1], put(1), STORED, now);
    assert_eq!((late, write.confirmed()), (Recorded::Repeated, 0));
    write.handle_response(SERVERS[1], put(2), STORED, now);
    assert_eq!(write.outcome(), None);
    write.handle_response(SERVERS[2], put(2), STORED, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
}

#[test]
fn being_overtaken_after_the_decision_changes_nothing() {
    let (mut write, now) = write(2);
    write.handle_response(SERVERS[0], put(1), STORED, now);
    write.handle_response(SERVERS[1], put(1), STORED, now);
    write.handle_response(SERVERS[2], put(1), superseded(9), now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    assert_eq!(write.requires_tag_above(), None);
}

#[test]
fn with_no_greater_tag_to_be_had_the_write_is_refused() {
    let (mut write, now) = write(2);
    write.handle_response(SERVERS[0], put(1), superseded(u64::MAX), now);
    write.give_up();
    assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
}

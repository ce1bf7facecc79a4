use super::fixture::*;
use crate::quorum::read::ReadOutcome;
use crate::quorum::read::linearizable::ROUNDS_MAX;
use crate::quorum::tally::Recorded;
use crate::quorum::{FetchFailure, FetchStart};

#[test]
fn a_long_value_is_fetched_before_it_is_written_back() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), long(NEW), now);
    assert_eq!(read.poll_fetch(), None);
    read.handle_response(SERVERS[1], get(0), long(OLD), now);
    assert_eq!(read.poll_fetch(), fetch(SERVERS[0], NEW, 0));
    assert_eq!(read.poll_fetch(), None, "one fetch at a time");
    assert!(sent(&mut read).is_empty(), "nothing to give yet");
    read.handle_fetched(&digest(NEW), value("2"));
    assert_eq!(sent(&mut read), [(SERVERS[1], Sent::Put)]);
    written(&mut read, SERVERS[1], 0, Some(STORED));
    assert_eq!(read.outcome(), Some(&found(NEW)));
}

#[test]
fn a_long_value_that_is_overwritten_everywhere_is_read_anew() {
    let (mut read, now) = read(2);
    for server in SERVERS {
        read.handle_response(server, get(0), long(OLD), now);
    }
    for server in SERVERS {
        assert_eq!(read.poll_fetch(), fetch(server, OLD, 0));
        read.handle_fetch_failed(&digest(OLD), server, FetchFailure::Gone);
    }
    assert_eq!(sent(&mut read), SERVERS.map(|server| (server, Sent::Get)));
    assert_eq!(read.round(), 1);
    let late = read.handle_response(SERVERS[0], get(0), long(OLD), now);
    assert_eq!(late, Recorded::Repeated);
    for server in &SERVERS[..2] {
        read.handle_response(*server, get(1), whole(NEW), now);
    }
    assert_eq!(read.outcome(), Some(&found(NEW)));
}

#[test]
fn a_value_that_can_never_be_fetched_ends_as_unreachable() {
    let (mut read, now) = read(2);
    while read.outcome().is_none() {
        let round = read.round();
        for server in SERVERS {
            read.handle_response(server, get(round), long(OLD), now);
        }
        while let Some(FetchStart { from, digest, .. }) = read.poll_fetch() {
            read.handle_fetch_failed(&digest, from, FetchFailure::Gone);
        }
    }
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert_eq!(read.round(), ROUNDS_MAX);
}

#[test]
fn a_long_value_is_waited_for_at_a_slow_holder_while_none_says_that_it_is_gone() {
    let (mut read, now) = read(2);
    for server in &SERVERS[..2] {
        read.handle_response(*server, get(0), long(NEW), now);
    }
    for stalls in 0..3 {
        for server in &SERVERS[..2] {
            assert_eq!(read.poll_fetch(), fetch(*server, NEW, stalls));
            read.handle_fetch_failed(&digest(NEW), *server, FetchFailure::Stalled);
            assert_eq!(read.outcome(), None);
        }
    }
    assert_eq!(read.poll_fetch(), fetch(SERVERS[0], NEW, 3));
    read.handle_fetched(&digest(NEW), value("2"));
    assert_eq!(read.outcome(), Some(&found(NEW)));
}

#[test]
fn a_long_value_that_is_gone_at_one_holder_is_not_waited_for_at_a_slow_one() {
    let (mut read, now) = read(2);
    for server in SERVERS {
        read.handle_response(server, get(0), long(OLD), now);
    }
    for (server, failure) in SERVERS.into_iter().zip([
        FetchFailure::Stalled,
        FetchFailure::Failed,
        FetchFailure::Gone,
    ]) {
        assert_eq!(read.round(), 0);
        assert_eq!(read.poll_fetch(), fetch(server, OLD, 0));
        read.handle_fetch_failed(&digest(OLD), server, failure);
    }
    assert_eq!(sent(&mut read), SERVERS.map(|server| (server, Sent::Get)));
    assert_eq!(read.round(), 1);
}

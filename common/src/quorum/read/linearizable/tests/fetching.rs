use super::fixture::*;
use crate::quorum::read::ReadOutcome;
use crate::quorum::read::linearizable::ROUNDS_MAX;
use crate::quorum::tally::Recorded;

#[test]
fn a_long_value_is_fetched_before_it_is_written_back() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), long(NEW), now);
    assert_eq!(read.poll_fetch(), None);
    read.handle_response(SERVERS[1], get(0), long(OLD), now);
    assert_eq!(read.poll_fetch(), Some((SERVERS[0], digest(NEW))));
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
        assert_eq!(read.poll_fetch(), Some((server, digest(OLD))));
        read.handle_fetch_failed(&digest(OLD), server);
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
        while let Some((server, digest)) = read.poll_fetch() {
            read.handle_fetch_failed(&digest, server);
        }
    }
    assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    assert_eq!(read.round(), ROUNDS_MAX);
}

use std::time::{Duration, Instant};

use super::fixture::*;
use crate::cluster::ServerId;
use crate::model::ReplicaResponse;
use crate::quorum::Refusal;
use crate::quorum::level::Level;
use crate::quorum::params::Quorum;
use crate::quorum::write::{Applied, Write, WriteOutcome};
use crate::testing::start_of_time;

fn again(level: Level) -> (Write, Instant) {
    let now = start_of_time();
    let deadline = now + Duration::from_secs(1);
    let quorum = Quorum::new(3, 2).unwrap();
    let mut write = Write::resubmit(
        key(),
        content(),
        tag(5),
        list(),
        quorum,
        level,
        now,
        deadline,
    );
    assert_eq!(write.requires_tag_above(), None);
    assert_eq!(std::iter::from_fn(|| write.poll_transmit()).count(), 3);
    (write, now)
}

#[test]
fn a_write_that_is_sent_again_keeps_its_tag_whatever_it_meets() {
    let (mut write, now) = again(Level::Linearizable);
    write.handle_response(SERVERS[0], put(0), superseded(9), now);
    write.handle_response(SERVERS[1], put(0), STORED, now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));

    let (mut write, now) = again(Level::Agreement);
    write.handle_response(SERVERS[0], put(0), superseded(9), now);
    assert_eq!((write.outcome(), write.requires_tag_above()), (None, None));
    write.handle_response(SERVERS[1], put(0), superseded(9), now);
    assert_eq!(write.outcome(), Some(WriteOutcome::Superseded));
    assert_eq!(write.applied(), Applied::Unknown);
}

/// What one replica responds, to a write that is sent again under the tag 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Responds {
    Stored,
    Newer,
    Refuses,
    IsGone,
    Nothing,
}

fn respond(write: &mut Write, server: ServerId, responds: Responds, now: Instant) {
    let response = match responds {
        Responds::Stored => STORED,
        Responds::Newer => superseded(9),
        Responds::Refuses => ReplicaResponse::Refused(Refusal::Full),
        Responds::IsGone => {
            write.handle_unreachable(server, put(0), false, now);
            return;
        }
        Responds::Nothing => return,
    };
    write.handle_response(server, put(0), response, now);
}

#[test]
fn a_linearizable_write_that_is_sent_again_is_confirmed_only_where_a_replica_holds_it() {
    use Responds::{IsGone, Newer, Nothing, Refuses, Stored};
    use WriteOutcome::{Committed, Refused, Superseded, TimedOut, Unreachable};
    // What three replicas respond, of which two have to confirm, in this order; the outcome
    // then, and at the deadline.
    for (responses, now_is, at_last) in [
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
        for (server, responds) in SERVERS.into_iter().zip(responses) {
            respond(&mut write, server, responds, now);
        }
        assert_eq!(write.outcome(), now_is, "{responses:?}");
        write.handle_timeout(now + Duration::from_secs(1));
        assert_eq!(
            write.outcome(),
            Some(at_last),
            "{responses:?} at the deadline"
        );
        let applied = match at_last {
            Committed => Applied::Committed,
            _ => Applied::Unknown,
        };
        assert_eq!(write.applied(), applied, "{responses:?}");
    }
}

#[test]
fn a_write_that_was_sent_before_is_never_certainly_nowhere() {
    let (mut write, now) = again(Level::Linearizable);
    for server in SERVERS {
        write.handle_unreachable(server, put(0), false, now);
    }
    assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
    assert_eq!(write.applied(), Applied::Unknown);
}

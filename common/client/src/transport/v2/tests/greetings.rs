//! Who the server is: greetings, versions, restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use dkvs_common::epoch::StatedEpoch;
use dkvs_common::model::Description;
use proptest::prelude::*;

use super::super::link::LinkEvent;
use super::super::peer::{GREETING_INTERVAL, Incarnation, PeerVersion, V1_GREETINGS, V1_PAUSE};
use super::fixtures::{SECOND, config};
use super::server::Server;
use super::world::{Faults, World};

#[test]
fn only_greetings_are_sent_to_a_server_that_was_not_met() {
    let mut world = World::new(5, Faults::ALL_LOST);
    let start = world.now;
    world.put(1, start + 3 * SECOND);
    world.run(start + 2 * SECOND);
    assert!(world.datagrams_sent >= 4, "greeted again and again");
    assert_eq!(world.link.counters().sent, 0);
    world.faults = Faults::default();
    world.run(start + 3 * SECOND);
    assert_eq!(world.replied(), BTreeSet::from([1]));
}

#[test]
fn v1_server_is_recognized_before_any_request_is_sent() {
    let mut world = World::new(5, Faults::default());
    world.server.speaks_v1_only = true;
    let start = world.now;
    world.put_all(0..3, start + SECOND);
    world.run(start + SECOND / 4);
    let ended: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(matches!(
        ended[..],
        [
            LinkEvent::NotV2 { token: 0 },
            LinkEvent::NotV2 { token: 1 },
            LinkEvent::NotV2 { token: 2 }
        ]
    ));
    assert_eq!(world.link.speaks(), PeerVersion::V1);
    assert_eq!(world.server.datagrams, V1_GREETINGS, "greetings alone");

    world.server.speaks_v1_only = false;
    world.now += GREETING_INTERVAL;
    world.link.greet_if_due(world.now);
    world.run(world.now + SECOND);
    assert!(matches!(world.link.speaks(), PeerVersion::V2(_)));
}

#[test]
fn v1_server_is_greeted_again_for_each_request() {
    let mut world = World::new(5, Faults::default());
    world.server.speaks_v1_only = true;
    for token in 0..3 {
        let start = world.now;
        world.put(token, start + SECOND);
        world.run(start + GREETING_INTERVAL / 5);
        let (_, event) = world.events.last().expect("a request ends in time");
        assert!(matches!(event, LinkEvent::NotV2 { token: ended } if *ended == token));
    }
    world.server.speaks_v1_only = false;
    let start = world.now;
    world.put(3, start + SECOND);
    world.run(start + GREETING_INTERVAL / 5);
    let (_, event) = world.events.last().expect("a request ends in time");
    assert!(matches!(event, LinkEvent::Response { token: 3, .. }));
}

/// The empty datagrams may be several answers, or copies of one.
#[test]
fn server_that_answers_one_greeting_by_both_versions_speaks_v2() {
    for copies in 1..=3 * V1_GREETINGS {
        let mut world = World::new(5, Faults::default());
        world.put(1, world.now + SECOND);
        world.flush();
        for _ in 0..copies {
            world.link.handle_datagram(&bytes::Bytes::new(), world.now);
        }
        assert_eq!(world.link.speaks(), PeerVersion::Unknown);
        world.run(world.now + SECOND);
        assert!(
            matches!(world.link.speaks(), PeerVersion::V2(_)),
            "{copies}"
        );
        assert_eq!(world.replied(), BTreeSet::from([1]));
        assert_eq!(world.events.len(), 1);
    }
}

/// An empty datagram precedes every valid answer, which arrives while the next greeting is under way.
#[test]
fn late_v2_answer_counts_however_many_v1_answers_came_before() {
    for late in 1..=V1_GREETINGS as usize {
        let mut world = World::new(5, Faults::default());
        world.put(1, world.now + SECOND);
        let mut answers = Vec::new();
        for _ in 0..2 * V1_GREETINGS {
            while let Some(datagram) = world.link.poll_transmit(world.now) {
                answers.extend(world.server.handle(&datagram.into()));
            }
            world.link.handle_datagram(&bytes::Bytes::new(), world.now);
            if answers.len() > late {
                break;
            }
            let speaks_v1 = world.link.speaks() == PeerVersion::V1;
            world.now += if speaks_v1 {
                GREETING_INTERVAL
            } else {
                V1_PAUSE
            };
            world.link.greet_if_due(world.now);
        }
        let answer = answers[answers.len() - late].clone();
        world.link.handle_datagram(&answer, world.now);
        assert!(matches!(world.link.speaks(), PeerVersion::V2(_)), "{late}");
    }
}

#[test]
fn empty_datagram_before_any_greeting_is_no_answer() {
    let mut world = World::new(5, Faults::default());
    world.put(1, world.now + SECOND);
    for _ in 0..V1_GREETINGS {
        world.link.handle_datagram(&bytes::Bytes::new(), world.now);
        world.run(world.now + V1_PAUSE);
    }
    assert!(matches!(world.link.speaks(), PeerVersion::V2(_)));
}

#[test]
fn v2_server_counts_as_v1_only_after_its_port_was_unreachable() {
    let mut world = World::met(5);
    world.put(1, world.now + SECOND);
    world.flush();
    for _ in 0..10 {
        world.link.handle_datagram(&bytes::Bytes::new(), world.now);
    }
    world.run(world.now + SECOND);
    assert!(matches!(world.link.speaks(), PeerVersion::V2(_)));
    assert_eq!(world.replied(), BTreeSet::from([1]));
    assert_eq!(world.events.len(), 1);

    // Another program answers at its port, and the port was never unreachable.
    world.server.speaks_v1_only = true;
    for token in 2..8 {
        world.put(token, world.now + SECOND);
        world.run(world.now + SECOND);
        let (_, event) = world.events.last().unwrap();
        assert!(matches!(event, LinkEvent::Expired { token: ended } if *ended == token));
    }
    assert!(world.link.is_downgraded());
    assert!(matches!(world.link.speaks(), PeerVersion::V2(_)));

    world.link.handle_unreachable(world.now);
    assert!(!world.link.is_downgraded());
    world.run(world.now + SECOND);
    world.put(8, world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.link.speaks(), PeerVersion::V1);
}

proptest! {
    /// Datagrams are lost, repeated, damaged and late, and empty ones arrive beside the answers; but
    /// DKVS/2 answers at least one greeting in [`V1_GREETINGS`] in time.
    #[test]
    fn v2_server_never_counts_as_v1_while_it_answers(
        seed in any::<u64>(),
        empty_at in prop::collection::vec(0u64..2_000, 0..200),
    ) {
        let mut world = World::met(seed);
        world.faults = Faults { lose: 200, repeat: 200, damage: 100, delay_us: 5_000 };
        let start = world.now;
        let mut empty_at = empty_at;
        empty_at.sort_unstable();
        for (token, at) in (0..).zip(empty_at) {
            world.run(start + Duration::from_millis(at));
            world.put(token, world.now + SECOND);
            world.link.handle_datagram(&bytes::Bytes::new(), world.now);
            prop_assert!(matches!(world.link.speaks(), PeerVersion::V2(_)));
        }
    }
}

/// A world whose retry budget is spent, and in which request 40 was lost.
fn out_of_budget() -> World {
    let mut world = World::met(5);
    world.faults = Faults::ALL_LOST;
    world.put_all(0..30, world.now + SECOND);
    world.run(world.now + 2 * SECOND);
    assert!(world.link.counters().over_budget > 0);
    world.put(40, world.now + SECOND);
    world.flush();
    world.faults = Faults::default();
    world
}

#[test]
fn requests_before_a_restart_are_sent_again_without_budget() {
    let mut world = out_of_budget();
    world.server = Server::new(2);
    world.run(world.now + SECOND / 2);
    assert_eq!(world.replied(), BTreeSet::from([40]));
}

#[test]
fn requests_to_a_process_that_ended_leave_the_window() {
    let mut world = World::met(5);
    world.now += GREETING_INTERVAL;
    world.faults = Faults::ALL_LOST;
    world.put_all(0..2_000, world.now + SECOND);
    world.flush();
    assert!(world.link.counters().sent < 2_000, "the window is full");
    world.server = Server::new(2);
    world.faults = Faults::default();
    world.run(world.now + SECOND / 2);
    assert_eq!(world.replied(), (0..2_000).collect());
}

#[test]
fn restart_is_noticed_by_the_boot_id_within_a_second_of_use() {
    let mut world = World::met(5);
    world.put(0, world.now + SECOND);
    world.run(world.now + GREETING_INTERVAL);
    world.server = Server::new(2);
    world.events.clear();
    let restarted = world.now;
    while world
        .events
        .iter()
        .all(|(_, event)| !matches!(event, LinkEvent::Restarted))
    {
        world.put(1, world.now + SECOND);
        world.run(world.now + Duration::from_millis(50));
        assert!(world.now < restarted + SECOND);
    }
}

#[test]
fn an_incarnation_is_known_since_its_first_answer_arrived() {
    let mut world = World::new(5, Faults::default());
    let start = world.now;
    assert_eq!(world.link.incarnation(), None);
    world.put(0, start + SECOND);
    world.run(start + SECOND);
    let round_trip = Duration::from_micros(200);
    let of = |boot_id, known_since| {
        Some(Incarnation {
            boot_id,
            known_since,
        })
    };
    let first = of(1, start + round_trip);
    assert_eq!(world.link.incarnation(), first);

    world.put(1, world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.link.incarnation(), first, "as before");
    world.link.handle_unreachable(world.now);
    assert_eq!(
        world.link.incarnation(),
        first,
        "it may have been started anew"
    );

    world.server = Server::new(2);
    let again = world.now + SECOND;
    world.run(again);
    world.put(2, again + SECOND);
    world.run(again + SECOND);
    assert_eq!(world.link.incarnation(), of(2, again + round_trip));
}

#[test]
fn a_server_that_knows_configurations_is_told_the_client_s_and_another_its_ring() {
    let numbered = Some(StatedEpoch::Numbered(config().epoch));
    let ring = Some(StatedEpoch::Ring(config().ring));
    let described = Server::new(1).description;
    let unknown = described.map(|it| Description { epoch: None, ..it });
    let mut world = World::met(5);
    let mut number = 0;
    for (description, stated) in [
        (described, numbered),
        // It was started again: as an older version, which does not know the question; as it was; as one that
        // does not know its cluster; and as an older version once more.
        (None, ring),
        (described, numbered),
        (unknown, ring),
        (described, numbered),
        (None, ring),
    ] {
        world.server.boot_id += 1;
        world.server.description = description;
        world.run(world.now + SECOND);
        number += 1;
        world.put(number, world.now + SECOND);
        world.run(world.now + Duration::from_millis(5));
        // The first request after a restart may still state what the process before understood.
        number += 1;
        world.put(number, world.now + SECOND);
        world.run(world.now + Duration::from_millis(5));
        assert_eq!(world.server.stated, stated);
        assert_eq!(world.link.description(), description);
    }
}

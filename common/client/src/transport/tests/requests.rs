//! Requests of one message: batching, retransmission, deadlines, restarts, versions, limits.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::link::{Event, Ticket};
use super::super::peer::{
    Config, GREETING_INTERVAL, Incarnation, REQUESTS_MAX, RequestError, Speaks, UNREACHABLE_REST,
    V1_GREETINGS, V1_PAUSE,
};
use super::super::rtt::RTO_INITIAL;
use super::{CLIENT, Faults, SECOND, Server, World, config, key};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::reply::{Greeting, Reply};
use dkvs_common::wire::v2::request::Request;

#[test]
fn everything_of_one_turn_goes_out_together_and_is_answered_together() {
    let mut world = World::met(5);
    let deadline = world.now + SECOND;
    let sent = world.datagrams_sent;
    world.put_all(0..10, deadline);
    world.run(world.now + GREETING_INTERVAL / 2);
    assert_eq!(world.replied(), (0..10).collect());
    assert_eq!(world.datagrams_sent - sent, 1);
    assert_eq!(world.link.counters().sent, 10);
    assert_eq!(world.link.round_trip(), Some(Duration::from_micros(200)));
    assert!(matches!(
        world.link.speaks(),
        Speaks::V2(Greeting { boot_id: 1, .. })
    ));
}

#[test]
fn what_does_not_fit_one_datagram_goes_into_the_next() {
    let mut world = World::met(5);
    let deadline = world.now + SECOND;
    world.put_all(0..100, deadline);
    world.run(deadline);
    assert_eq!(world.replied(), (0..100).collect());
    let datagrams = world.datagrams_sent;
    assert!((5..20).contains(&datagrams), "{datagrams}");
}

#[test]
fn nothing_but_greetings_goes_to_a_server_that_was_not_met() {
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
fn a_lost_request_is_sent_again_after_the_timeout_and_no_measurement_is_taken_of_it() {
    let mut world = World::new(5, Faults::default());
    let start = world.now;
    world.link.greet_if_due(start);
    world.run(start + SECOND / 4);
    let measured = world.link.round_trip();
    world.faults = Faults::ALL_LOST;
    world.put(1, start + SECOND);
    world.run(world.now + Duration::from_micros(100));
    world.faults = Faults::default();
    assert!(world.events.is_empty());
    world.run(world.now + RTO_INITIAL);
    assert_eq!(world.replied(), BTreeSet::from([1]));
    assert_eq!(world.link.round_trip(), measured);
    assert_eq!(world.link.counters().sent_again, 1);
}

#[test]
fn a_silent_server_costs_a_few_retransmissions_and_every_request_expires_at_its_deadline() {
    let mut world = World::met(5);
    world.faults = Faults::ALL_LOST;
    let start = world.now;
    world.put_all(0..200, start + SECOND);
    world.run(start + 2 * SECOND);
    assert_eq!(world.events.len(), 200);
    let mut expired = BTreeSet::new();
    for (at, event) in &world.events {
        assert_eq!(*at, start + SECOND);
        match event {
            Event::Expired { token } => assert!(expired.insert(*token)),
            other => panic!("{other:?}"),
        }
    }
    let counters = world.link.counters();
    assert!(
        counters.sent_again <= 20 + counters.sent / 10,
        "{counters:?}"
    );
    assert!(counters.over_budget > 0);
}

#[test]
fn what_nobody_waits_for_is_not_sent_again_and_its_end_is_not_told() {
    let mut world = World::met(5);
    world.faults = Faults::ALL_LOST;
    let start = world.now;
    let ticket = world.put(1, start + SECOND);
    world.run(start);
    world.link.abandon(ticket);
    world.run(start + 2 * SECOND);
    assert!(world.events.is_empty());
    assert_eq!(world.link.counters().sent_again, 0);
}

#[test]
fn a_reply_that_comes_twice_is_a_stray() {
    let mut world = World::met(5);
    world.faults.repeat = 1_000;
    world.put(1, world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.events.len(), 1);
    assert!(world.link.counters().strays > 0);
}

#[test]
fn a_server_of_the_first_version_is_found_out_before_anything_else_is_sent() {
    let mut world = World::new(5, Faults::default());
    world.server.speaks_v1_only = true;
    let start = world.now;
    world.put_all(0..3, start + SECOND);
    world.run(start + SECOND / 4);
    let given_back: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(matches!(
        given_back[..],
        [
            Event::NotV2 { token: 0 },
            Event::NotV2 { token: 1 },
            Event::NotV2 { token: 2 }
        ]
    ));
    assert_eq!(world.link.speaks(), Speaks::V1);
    assert_eq!(world.server.datagrams, V1_GREETINGS, "greetings alone");

    world.server.speaks_v1_only = false;
    world.now += GREETING_INTERVAL;
    world.link.greet_if_due(world.now);
    world.run(world.now + SECOND);
    assert!(matches!(world.link.speaks(), Speaks::V2(_)));
}

#[test]
fn a_server_of_the_first_version_is_greeted_again_for_each_request() {
    let mut world = World::new(5, Faults::default());
    world.server.speaks_v1_only = true;
    for token in 0..3 {
        let start = world.now;
        world.put(token, start + SECOND);
        world.run(start + GREETING_INTERVAL / 5);
        let (_, told) = world.events.last().expect("it is told in time");
        assert!(matches!(told, Event::NotV2 { token: told } if *told == token));
    }
    world.server.speaks_v1_only = false;
    let start = world.now;
    world.put(3, start + SECOND);
    world.run(start + GREETING_INTERVAL / 5);
    let (_, told) = world.events.last().expect("it is told in time");
    assert!(matches!(told, Event::Reply { token: 3, .. }));
}

/// One or several empty datagrams, whenever they come, and however often one is repeated.
#[test]
fn a_server_that_answers_one_greeting_by_both_versions_speaks_the_second() {
    for copies in 1..=3 * V1_GREETINGS {
        let mut world = World::new(5, Faults::default());
        world.put(1, world.now + SECOND);
        world.flush();
        for _ in 0..copies {
            world.link.handle_datagram(&bytes::Bytes::new(), world.now);
        }
        assert_eq!(world.link.speaks(), Speaks::Unknown);
        world.run(world.now + SECOND);
        assert!(matches!(world.link.speaks(), Speaks::V2(_)), "{copies}");
        assert_eq!(world.replied(), BTreeSet::from([1]));
        assert_eq!(world.events.len(), 1);
    }
}

/// An empty datagram comes before every true answer, which comes when the next greeting is under way.
#[test]
fn a_late_answer_by_the_second_version_counts_however_many_of_the_first_came_before() {
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
            let speaks_v1 = world.link.speaks() == Speaks::V1;
            world.now += if speaks_v1 {
                GREETING_INTERVAL
            } else {
                V1_PAUSE
            };
            world.link.greet_if_due(world.now);
        }
        let answer = answers[answers.len() - late].clone();
        world.link.handle_datagram(&answer, world.now);
        assert!(matches!(world.link.speaks(), Speaks::V2(_)), "{late}");
    }
}

#[test]
fn an_empty_datagram_before_any_greeting_was_sent_is_no_answer_to_it() {
    let mut world = World::new(5, Faults::default());
    world.put(1, world.now + SECOND);
    for _ in 0..V1_GREETINGS {
        world.link.handle_datagram(&bytes::Bytes::new(), world.now);
        world.run(world.now + V1_PAUSE);
    }
    assert!(matches!(world.link.speaks(), Speaks::V2(_)));
}

#[test]
fn nothing_makes_a_server_that_spoke_the_second_version_one_of_the_first() {
    let mut world = World::met(5);
    world.put(1, world.now + SECOND);
    world.flush();
    for _ in 0..10 {
        world.link.handle_datagram(&bytes::Bytes::new(), world.now);
    }
    world.run(world.now + SECOND);
    assert!(matches!(world.link.speaks(), Speaks::V2(_)));
    assert_eq!(world.replied(), BTreeSet::from([1]));
    assert_eq!(world.events.len(), 1);

    // Another program at its port, and no sign that the one before it has ended.
    world.server.speaks_v1_only = true;
    for token in 2..8 {
        world.put(token, world.now + SECOND);
        world.run(world.now + SECOND);
        let (_, told) = world.events.last().unwrap();
        assert!(matches!(told, Event::Expired { token: told } if *told == token));
    }
    assert!(world.link.is_downgraded());
    assert!(matches!(world.link.speaks(), Speaks::V2(_)));

    world.link.handle_unreachable(world.now);
    assert!(!world.link.is_downgraded());
    world.run(world.now + SECOND);
    world.put(8, world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.link.speaks(), Speaks::V1);
}

proptest! {
    /// Whatever is lost, repeated, damaged and late, and however many empty datagrams come beside
    /// the answers, as long as one greeting in so many is answered by DKVS/2 in time.
    #[test]
    fn a_server_that_is_heard_to_speak_the_second_version_never_passes_for_less(
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
            prop_assert!(matches!(world.link.speaks(), Speaks::V2(_)));
        }
    }
}

/// A world in which no lost request may be sent again, and request 40 was lost.
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
fn what_a_server_was_asked_before_it_was_started_anew_is_asked_again_at_no_cost() {
    let mut world = out_of_budget();
    world.server = Server::new(2);
    world.run(world.now + SECOND / 2);
    assert_eq!(world.replied(), BTreeSet::from([40]));
}

#[test]
fn what_was_on_its_way_to_a_process_that_is_gone_takes_no_room_from_what_follows() {
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
fn a_restart_is_noticed_by_the_boot_id_within_a_second_of_use() {
    let mut world = World::met(5);
    world.put(0, world.now + SECOND);
    world.run(world.now + GREETING_INTERVAL);
    world.server = Server::new(2);
    world.events.clear();
    let restarted = world.now;
    while world
        .events
        .iter()
        .all(|(_, event)| !matches!(event, Event::Restarted))
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
fn vouching_is_asked_for_until_it_is_answered() {
    let mut world = World::met(5);
    let deadline = world.now + SECOND;
    let vouch = |world: &mut World, boot_id, token| {
        let (key, tag) = (key(1), Tag { time: 1, op: 0 });
        let request = Request::Command(ReplicaCommand::Attest { boot_id, key, tag });
        world.link.ask(request, token, world.now, deadline).unwrap();
    };
    world.put(1, deadline);
    world.run(world.now + SECOND / 10);
    world.events.clear();
    world.faults = Faults::ALL_LOST;
    vouch(&mut world, 1, 2);
    vouch(&mut world, 2, 3);
    world.run(world.now + SECOND / 10);
    assert!(world.events.is_empty());
    world.faults = Faults::default();
    world.run(deadline);
    let answers = world.events.iter().map(|(_, event)| match event {
        Event::Reply { token, reply, .. } => (*token, reply.clone()),
        other => panic!("{other:?}"),
    });
    let absent = Reply::Response(ReplicaResponse::Absent { tag: Tag::ZERO });
    let expected = [(2, Reply::Response(ReplicaResponse::Done)), (3, absent)];
    assert_eq!(
        answers.collect::<BTreeMap<_, _>>(),
        BTreeMap::from(expected)
    );
}

#[test]
fn an_unreachable_port_ends_what_is_open_and_tells_what_was_sent() {
    let mut world = World::met(5);
    let deadline = world.now + SECOND;
    world.put(1, deadline);
    world.flush();
    world.put(2, deadline);
    world.link.handle_unreachable(world.now);
    world.flush();
    let ends: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(matches!(
        ends[..],
        [
            Event::Unreachable {
                token: 1,
                sent: true
            },
            Event::Unreachable {
                token: 2,
                sent: false
            },
        ]
    ));
    assert_eq!(world.link.speaks(), Speaks::Unknown);

    let refused = world
        .link
        .ask(
            Request::Command(ReplicaCommand::Ping),
            3,
            world.now,
            deadline,
        )
        .unwrap_err();
    assert_eq!(refused, RequestError::Unreachable);
    world.underway.clear();
    world.run(world.now + UNREACHABLE_REST);
    world.put(4, deadline);
    world.run(world.now + SECOND / 4);
    assert_eq!(world.replied(), BTreeSet::from([4]));
}

#[test]
fn limits_on_requests_and_on_their_length_hold() {
    let mut world = World::met(5);
    let (now, deadline) = (world.now, world.now + SECOND);
    let long = Request::Command(ReplicaCommand::Get {
        key: dkvs_common::kv::Key::new(vec![b'k'; 1_200]).unwrap(),
    });
    let refused = world.link.ask(long, 0, now, deadline).unwrap_err();
    assert!(matches!(
        refused,
        RequestError::TooLong {
            message_bytes: 1_216,
            message_bytes_max: 1_184
        }
    ));
    let mut opened = 0;
    let refused = loop {
        match world.link.ask(
            Request::Command(ReplicaCommand::Ping),
            opened,
            now,
            deadline,
        ) {
            Ok(_) => opened += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, RequestError::TooMany);
    assert_eq!(opened as usize, REQUESTS_MAX);
}

/// A server whose datagrams are shorter than the request that waits for its greeting, and when that
/// request ends.
fn asked_too_much() -> (World, std::time::Instant) {
    let mut world = World::new(5, Faults::default());
    world.server.datagram_bytes_max = 512;
    let long = Request::Command(ReplicaCommand::Get {
        key: dkvs_common::kv::Key::new(vec![b'k'; 1_000]).unwrap(),
    });
    let deadline = world.now + SECOND;
    world.link.ask(long, 1, world.now, deadline).unwrap();
    (world, deadline)
}

#[test]
fn a_request_that_turns_out_too_long_for_the_server_is_told_so() {
    let (mut world, deadline) = asked_too_much();
    world
        .link
        .ask(
            Request::Command(ReplicaCommand::Ping),
            2,
            world.now,
            deadline,
        )
        .unwrap();
    world.run(deadline);
    let ends: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(matches!(
        ends[..],
        [
            Event::TooLong { token: 1 },
            Event::Reply {
                token: 2,
                reply: Reply::Response(ReplicaResponse::Done),
                ..
            }
        ]
    ));
}

#[test]
fn it_is_told_so_though_nothing_else_is_asked() {
    let (mut world, _) = asked_too_much();
    world.run(world.now + SECOND / 2);
    let ends: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(
        matches!(ends[..], [Event::TooLong { token: 1 }]),
        "{ends:?}"
    );
}

fn keys(text: &str) -> Arc<Keys> {
    let lines = text.split_whitespace().map(|id| {
        let from: u8 = id.parse().unwrap();
        let digits: String = (from..from + 32)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{id} {digits}\n")
    });
    let text: String = lines.collect();
    Arc::new(Keys::parse("test", text.as_bytes()).unwrap())
}

fn with_keys(text: &str) -> Config {
    Config {
        keys: Some((keys(text), CLIENT)),
        ..config()
    }
}

#[test]
fn with_keys_everything_is_authenticated_and_rotation_loses_nothing() {
    let mut world = World::with(with_keys("1"), 5, Faults::default());
    world.server.keys = Some(keys("1"));
    let mut number = 0;
    let mut ask = |world: &mut World| {
        world.put(number, world.now + SECOND);
        world.run(world.now + Duration::from_millis(5));
        assert_eq!(world.replied().len() as u64, number + 1);
        number += 1;
    };
    ask(&mut world);
    // The new key is made known to both, then used by both, then the old one is forgotten.
    world.server.keys = Some(keys("1 2"));
    ask(&mut world);
    world.link.set_keys(keys("1 2"));
    ask(&mut world);
    world.link.set_keys(keys("2 1"));
    ask(&mut world);
    world.server.keys = Some(keys("2"));
    ask(&mut world);
    world.link.set_keys(keys("2"));
    ask(&mut world);
    assert_eq!(world.link.counters().damaged, 0);
    assert_eq!(world.server.sessions_refused, 0);
}

#[test]
fn with_keys_one_request_is_enough_to_notice_a_restart() {
    let mut world = World::with(with_keys("1"), 5, Faults::default());
    world.server.keys = Some(keys("1"));
    world.put(1, world.now + SECOND);
    world.run(world.now + Duration::from_millis(5));
    assert_eq!(world.replied(), [1].into());

    // Before the next greeting is due, so that the request goes out under the old session.
    world.server.boot_id += 1;
    world.put(2, world.now + 10 * SECOND);
    world.run(world.now + SECOND);
    assert!(world.server.sessions_refused > 0);
    assert_eq!(world.replied(), [1, 2].into());
}

#[test]
fn with_keys_a_server_that_cannot_prove_itself_is_not_believed() {
    for server_keys in [None, Some(keys("2"))] {
        let mut world = World::with(with_keys("1"), 5, Faults::default());
        world.server.speaks_v1_only = server_keys.is_none();
        world.server.keys = server_keys;
        world.put(1, world.now + SECOND);
        world.run(world.now + 2 * SECOND);
        assert!(matches!(
            world.events[..],
            [(_, Event::Expired { token: 1 })]
        ));
        assert_eq!(world.link.speaks(), Speaks::Unknown);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the network does: every request ends once, in a reply or at its deadline; a
    /// reply means that it was carried out; and with a network that heals all are answered.
    #[test]
    fn every_request_ends_exactly_once(
        seed in 1u64..,
        lose in 0u64..300,
        repeat in 0u64..500,
        damage in 0u64..100,
        delay_us in 0u64..20_000,
        requests in 1u64..300,
    ) {
        let mut world = World::new(seed, Faults { lose, repeat, damage, delay_us });
        for number in 0..requests {
            let deadline = world.now + Duration::from_millis(300);
            let ticket = world.put(number, deadline);
            prop_assert!(matches!(ticket, Ticket::Request(_)));
            let pause = Duration::from_micros(world.random(3_000));
            world.run(world.now + pause);
        }
        world.run(world.now + SECOND);
        let mut ended = BTreeSet::new();
        for (_, event) in &world.events {
            match event {
                Event::Reply { token, reply, .. } => {
                    prop_assert!(ended.insert(*token));
                    prop_assert_eq!(reply, &Reply::Response(ReplicaResponse::Done));
                    prop_assert!(world.server.pairs.contains_key(&key(*token)));
                }
                Event::Expired { token } => prop_assert!(ended.insert(*token)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(ended, (0..requests).collect());
        let counters = world.link.counters();
        prop_assert!(counters.sent_again <= 20 + counters.sent / 10);

        world.faults = Faults::default();
        world.events.clear();
        world.put_all(0..20, world.now + SECOND);
        world.run(world.now + SECOND);
        prop_assert_eq!(world.replied(), (0..20).collect());
    }
}

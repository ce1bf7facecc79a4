//! Requests of one message: batching, retransmission, deadlines, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::super::link::{LinkEvent, RequestHandle};
use super::super::peer::retransmission::RTO_INITIAL;
use super::super::peer::{
    GREETING_INTERVAL, PeerVersion, REQUESTS_MAX, RequestError, UNREACHABLE_PAUSE,
};
use super::fixtures::{SECOND, by, key};
use super::world::{Faults, World};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Greeting;

#[test]
fn requests_of_one_turn_share_a_datagram_and_so_do_their_replies() {
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
        PeerVersion::V2(Greeting { boot_id: 1, .. })
    ));
}

#[test]
fn message_that_does_not_fit_goes_into_the_next_datagram() {
    let mut world = World::met(5);
    let deadline = world.now + SECOND;
    world.put_all(0..100, deadline);
    world.run(deadline);
    assert_eq!(world.replied(), (0..100).collect());
    let datagrams = world.datagrams_sent;
    assert!((5..20).contains(&datagrams), "{datagrams}");
}

#[test]
fn lost_request_is_sent_again_after_the_timeout_and_not_measured() {
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
    assert_eq!(world.link.counters().retransmitted, 1);
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
            LinkEvent::Expired { token } => assert!(expired.insert(*token)),
            other => panic!("{other:?}"),
        }
    }
    let counters = world.link.counters();
    assert!(
        counters.retransmitted <= 20 + counters.sent / 10,
        "{counters:?}"
    );
    assert!(counters.over_budget > 0);
}

#[test]
fn abandoned_request_is_not_sent_again_and_its_end_is_not_reported() {
    let mut world = World::met(5);
    world.faults = Faults::ALL_LOST;
    let start = world.now;
    let handle = world.put(1, start + SECOND);
    world.run(start);
    world.link.abandon(handle);
    world.run(start + 2 * SECOND);
    assert!(world.events.is_empty());
    assert_eq!(world.link.counters().retransmitted, 0);
}

#[test]
fn a_reply_that_comes_twice_is_a_stray() {
    let mut world = World::met(5);
    world.faults.repeat = 1_000;
    world.put(1, world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.events.len(), 1);
    assert!(world.link.counters().unmatched > 0);
}

#[test]
fn attestation_is_requested_until_it_is_answered() {
    let mut world = World::met(5);
    let deadline = world.now + SECOND;
    let attest = |world: &mut World, boot_id, token| {
        let (key, tag) = (key(1), Tag { time: 1, op: 0 });
        let request = ReplicaCommand::Attest { boot_id, key, tag };
        world
            .link
            .send(request, by(token), world.now, deadline)
            .unwrap();
    };
    world.put(1, deadline);
    world.run(world.now + SECOND / 10);
    world.events.clear();
    world.faults = Faults::ALL_LOST;
    attest(&mut world, 1, 2);
    attest(&mut world, 2, 3);
    world.run(world.now + SECOND / 10);
    assert!(world.events.is_empty());
    world.faults = Faults::default();
    world.run(deadline);
    let answers = world.events.iter().map(|(_, event)| match event {
        LinkEvent::Response {
            token, response, ..
        } => (*token, response.clone()),
        other => panic!("{other:?}"),
    });
    let absent = ReplicaResponse::absent(Tag::ZERO);
    let expected = [(2, ReplicaResponse::Done), (3, absent)];
    assert_eq!(
        answers.collect::<BTreeMap<_, _>>(),
        BTreeMap::from(expected)
    );
}

#[test]
fn unreachable_port_ends_open_requests_and_reports_which_were_sent() {
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
            LinkEvent::Unreachable {
                token: 1,
                sent: true
            },
            LinkEvent::Unreachable {
                token: 2,
                sent: false
            },
        ]
    ));
    assert_eq!(world.link.speaks(), PeerVersion::Unknown);

    let refused = world
        .link
        .send(ReplicaCommand::Ping, by(3), world.now, deadline)
        .unwrap_err();
    assert_eq!(refused, RequestError::Unreachable);
    world.underway.clear();
    world.run(world.now + UNREACHABLE_PAUSE);
    world.put(4, deadline);
    world.run(world.now + SECOND / 4);
    assert_eq!(world.replied(), BTreeSet::from([4]));
}

#[test]
fn limits_on_requests_and_on_their_length_hold() {
    let mut world = World::met(5);
    let (now, deadline) = (world.now, world.now + SECOND);
    let long = ReplicaCommand::Get {
        key: dkvs_common::kv::Key::new(vec![b'k'; 1_200]).unwrap(),
    };
    let refused = world.link.send(long, by(0), now, deadline).unwrap_err();
    assert!(matches!(
        refused,
        RequestError::TooLong {
            message_bytes: 1_216,
            message_bytes_max: 1_176
        }
    ));
    let mut opened = 0;
    let refused = loop {
        match world
            .link
            .send(ReplicaCommand::Ping, by(opened), now, deadline)
        {
            Ok(_) => opened += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, RequestError::TooMany);
    assert_eq!(opened as usize, REQUESTS_MAX);
}

/// A server whose limit is shorter than the request that waits for its greeting, and the deadline of
/// that request.
fn world_with_a_request_beyond_the_limit() -> (World, std::time::Instant) {
    let mut world = World::new(5, Faults::default());
    world.server.datagram_bytes_max = 512;
    let long = ReplicaCommand::Get {
        key: dkvs_common::kv::Key::new(vec![b'k'; 1_000]).unwrap(),
    };
    let deadline = world.now + SECOND;
    world.link.send(long, by(1), world.now, deadline).unwrap();
    (world, deadline)
}

#[test]
fn request_beyond_the_announced_limit_is_reported() {
    let (mut world, deadline) = world_with_a_request_beyond_the_limit();
    world
        .link
        .send(ReplicaCommand::Ping, by(2), world.now, deadline)
        .unwrap();
    world.run(deadline);
    let ends: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(matches!(
        ends[..],
        [
            LinkEvent::TooLong { token: 1 },
            LinkEvent::Response {
                token: 2,
                response: ReplicaResponse::Done,
                ..
            }
        ]
    ));
}

#[test]
fn request_beyond_the_limit_is_reported_though_nothing_else_is_open() {
    let (mut world, _) = world_with_a_request_beyond_the_limit();
    world.run(world.now + SECOND / 2);
    let ends: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    assert!(
        matches!(ends[..], [LinkEvent::TooLong { token: 1 }]),
        "{ends:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the network does, every request ends once, by a response or at its deadline, and a response
    /// means that it was carried out. Once the network is healthy, all requests are answered.
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
            let handle = world.put(number, deadline);
            prop_assert!(matches!(handle, RequestHandle::Request(_)));
            let pause = Duration::from_micros(world.random(3_000));
            world.run(world.now + pause);
        }
        world.run(world.now + SECOND);
        let mut ended = BTreeSet::new();
        for (_, event) in &world.events {
            match event {
                LinkEvent::Response { token, response, .. } => {
                    prop_assert!(ended.insert(*token));
                    prop_assert_eq!(response, &ReplicaResponse::Done);
                    prop_assert!(world.server.pairs.contains_key(&key(*token)));
                }
                LinkEvent::Expired { token } => prop_assert!(ended.insert(*token)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(ended, (0..requests).collect());
        let counters = world.link.counters();
        prop_assert!(counters.retransmitted <= 20 + counters.sent / 10);

        world.faults = Faults::default();
        world.events.clear();
        world.put_all(0..20, world.now + SECOND);
        world.run(world.now + SECOND);
        prop_assert_eq!(world.replied(), (0..20).collect());
    }
}

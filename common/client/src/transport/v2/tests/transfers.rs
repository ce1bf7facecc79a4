//! Values longer than a datagram, both ways.

use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::link::assembly::Assembly;
use super::super::link::{LinkEvent, Party, TRANSFERS_AT_ONCE};
use super::fixtures::{SECOND, by, key, record};
use super::server::Server;
use super::world::{Faults, World};
use dkvs_common::kv::Value;
use dkvs_common::quorum::FetchFailure;
use dkvs_common::record::Digest;
use dkvs_common::record::{ContentType, Record};

fn long(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|number| (number ^ number >> 8) as u8)
        .collect()
}

fn digest(record: &Record, bytes: usize) -> Digest {
    Digest {
        tag: record.tag,
        attributes: record.attributes,
        content_type: ContentType::default(),
        value_bytes: bytes as u32,
        checksum: record.checksum,
    }
}

/// Stores a long value at the server and begins to fetch it as token 9.
fn fetching(world: &mut World, bytes: usize) {
    let held = record(1, long(bytes));
    let assembly = Assembly::new(digest(&held, bytes), &long(bytes)[..100]);
    world.server.pairs.insert(key(1), held);
    let deadline = world.now + 10 * SECOND;
    world
        .link
        .fetch(key(1), (assembly, 0), by(9), world.now, deadline)
        .unwrap();
}

fn fetched(world: &World) -> Option<&Value> {
    world.events.iter().find_map(|(_, event)| match event {
        LinkEvent::Fetched { token: 9, value } => Some(value),
        _ => None,
    })
}

#[test]
fn a_long_value_is_uploaded_in_blocks_and_answered_once() {
    let mut world = World::met(5);
    world.put_value(1, long(100_000), world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.replied(), BTreeSet::from([1]));
    assert_eq!(world.events.len(), 1);
    assert_eq!(world.server.pairs[&key(1)], record(1, long(100_000)));
    let counters = world.link.counters();
    assert_eq!(counters.sent, 100_000u64.div_ceil(1_176 - 32) + 1);
    assert_eq!(counters.retransmitted, 0);
}

#[test]
fn a_long_value_is_fetched_in_blocks() {
    let mut world = World::met(5);
    fetching(&mut world, 100_000);
    world.run(world.now + SECOND);
    assert_eq!(fetched(&world).unwrap().as_bytes(), long(100_000));
    assert_eq!(world.events.len(), 1);
    assert_eq!(world.link.counters().retransmitted, 0);
}

#[test]
fn a_transfer_waits_for_a_server_that_was_not_met() {
    let mut world = World::new(5, Faults::default());
    world.server.datagram_bytes_max = 600;
    fetching(&mut world, 10_000);
    world.put_value(2, long(10_000), world.now + SECOND);
    // It fits a datagram of the client, and none of the server.
    world.put_value(3, long(1_000), world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(fetched(&world).unwrap().as_bytes(), long(10_000));
    assert_eq!(world.replied(), BTreeSet::from([2, 3]));
    assert_eq!(world.server.pairs[&key(3)], record(3, long(1_000)));
}

#[test]
fn only_what_was_lost_is_sent_again() {
    let mut world = World::met(5);
    world.faults.lose = 30;
    world.put_value(1, long(200_000), world.now + SECOND);
    world.run(world.now + SECOND);
    assert_eq!(world.replied(), BTreeSet::from([1]));
    let counters = world.link.counters();
    let lost_about = counters.sent * 60 / 1_000;
    assert!(counters.retransmitted > 0);
    assert!(counters.retransmitted < 3 * lost_about, "{counters:?}");
}

#[test]
fn a_short_request_does_not_wait_for_a_long_transfer() {
    let mut world = World::met(5);
    world.put_value(1, long(1 << 20), world.now + SECOND);
    world.flush();
    let start = world.now;
    world
        .link
        .send(ReplicaCommand::Ping, by(2), start, start + SECOND)
        .unwrap();
    // The window is full; the first answers make room.
    world.run(start + Duration::from_micros(500));
    assert_eq!(world.replied(), BTreeSet::from([2]));
}

#[test]
fn two_transfers_share_the_window() {
    let mut world = World::met(5);
    let start = world.now;
    for number in [1, 2] {
        world.put_value(number, long(300_000), start + SECOND);
    }
    world.run(start + SECOND);
    let ends: Vec<_> = world.events.iter().map(|(at, _)| *at - start).collect();
    assert_eq!(ends.len(), 2);
    assert!(ends[1] < ends[0] * 5 / 4, "{ends:?}");
}

#[test]
fn however_many_transfers_a_party_has_others_wait_for_few_of_them() {
    let mut world = World::met(5);
    let start = world.now;
    for number in 0..100 {
        world.put_value(number, long(50_000), start + 10 * SECOND);
    }
    world.run(start + Duration::from_millis(1));
    for number in [100, 101] {
        let (key, record) = (key(number), record(number, long(50_000)));
        let put = ReplicaCommand::Put { key, record };
        let by = (number, Party(1, number));
        let sent = world.link.send(put, by, world.now, start + 10 * SECOND);
        sent.unwrap();
    }
    let before = world.events.len();
    world.run(start + 10 * SECOND);
    assert_eq!(world.events.len(), 102);
    let of_others = |(_, event): &(_, LinkEvent<u64>)| {
        matches!(event, LinkEvent::Response { token: 100.., .. })
    };
    let ends = world.events[before..].iter().enumerate();
    let ends: Vec<usize> = ends
        .filter(|(_, it)| of_others(it))
        .map(|(at, _)| at)
        .collect();
    assert!(
        ends.len() == 2 && ends[1] <= 2 * TRANSFERS_AT_ONCE,
        "{ends:?}"
    );
}

#[test]
fn upload_starts_again_after_the_server_dropped_its_blocks() {
    let mut world = World::met(5);
    world.put_value(1, long(150_000), world.now + SECOND);
    world.run(world.now + Duration::from_micros(250));
    assert!(!world.server.uploads.is_empty());
    world.server.uploads.clear();
    world.run(world.now + SECOND);
    assert_eq!(world.replied(), BTreeSet::from([1]));
    assert_eq!(world.server.pairs[&key(1)], record(1, long(150_000)));
}

#[test]
fn stalled_fetch_is_given_up_and_finished_elsewhere() {
    let mut world = World::met(5);
    fetching(&mut world, 1 << 20);
    world.run(world.now + Duration::from_micros(450));
    world.faults = Faults::ALL_LOST;
    let died = world.now;
    world.run(died + SECOND);
    let (at, event) = world.events.pop().unwrap();
    assert!(at < died + SECOND / 4);
    let LinkEvent::FetchFailed {
        token: 9,
        failure: FetchFailure::Stalled,
        assembly: Some(assembly),
    } = event
    else {
        panic!("{event:?}");
    };

    let mut other = World::met(6);
    other.server.pairs = std::mem::take(&mut world.server.pairs);
    let deadline = other.now + SECOND;
    other
        .link
        .fetch(key(1), (assembly, 1), by(9), other.now, deadline)
        .unwrap();
    other.run(deadline);
    assert_eq!(fetched(&other).unwrap().as_bytes(), long(1 << 20));
    let asked = other.link.counters().sent;
    assert!(
        asked < (1 << 20) / 1_136,
        "what had come was not asked for again: {asked}"
    );
}

#[test]
fn missing_version_ends_the_fetch() {
    let mut world = World::met(5);
    fetching(&mut world, 1 << 20);
    world.run(world.now + Duration::from_micros(450));
    world
        .server
        .pairs
        .insert(key(1), record(2, b"newer".to_vec()));
    world.run(world.now + SECOND);
    assert!(matches!(
        world.events[..],
        [(
            _,
            LinkEvent::FetchFailed {
                token: 9,
                failure: FetchFailure::Gone,
                assembly: Some(_)
            }
        )]
    ));
}

#[test]
fn value_that_does_not_match_its_digest_is_not_returned() {
    let mut world = World::met(5);
    fetching(&mut world, 10_000);
    let mut other = long(10_000);
    other[5_000] ^= 1;
    world.server.pairs.insert(key(1), record(1, other));
    world.run(world.now + SECOND);
    assert!(matches!(
        world.events[..],
        [(
            _,
            LinkEvent::FetchFailed {
                token: 9,
                failure: FetchFailure::Failed,
                assembly: None
            }
        )]
    ));
}

#[test]
fn an_unreachable_server_ends_transfers_too() {
    let mut world = World::met(5);
    fetching(&mut world, 10_000);
    world.put_value(2, long(10_000), world.now + SECOND);
    world.flush();
    world.link.handle_unreachable(world.now);
    world.run(world.now);
    assert!(matches!(
        world.events[..],
        [
            (
                _,
                LinkEvent::FetchFailed {
                    token: 9,
                    failure: FetchFailure::Failed,
                    assembly: Some(_)
                }
            ),
            (
                _,
                LinkEvent::Unreachable {
                    token: 2,
                    sent: true
                }
            )
        ] | [
            (
                _,
                LinkEvent::Unreachable {
                    token: 2,
                    sent: true
                }
            ),
            (
                _,
                LinkEvent::FetchFailed {
                    token: 9,
                    failure: FetchFailure::Failed,
                    assembly: Some(_)
                }
            )
        ]
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the network does, a transfer ends once, and a fetch returns what was put.
    #[test]
    fn every_transfer_ends_exactly_once(
        seed in 1u64..,
        lose in 0u64..200,
        repeat in 0u64..300,
        damage in 0u64..50,
        delay_us in 0u64..5_000,
        sizes in prop::collection::vec(1_200usize..60_000, 1..5),
        restart in any::<bool>(),
    ) {
        let mut world = World::new(seed, Faults { lose, repeat, damage, delay_us });
        fetching(&mut world, 50_000);
        let deadline = world.now + 3 * SECOND;
        for (number, bytes) in (10..).zip(&sizes) {
            world.put_value(number, long(*bytes), deadline);
        }
        if restart {
            world.run(world.now + Duration::from_millis(20));
            let pairs = std::mem::take(&mut world.server.pairs);
            world.server = Server { pairs, ..Server::new(2) };
        }
        world.run(world.now + 11 * SECOND);
        let mut ended = BTreeSet::new();
        for (_, event) in &world.events {
            match event {
                LinkEvent::Response { token, response, .. } => {
                    prop_assert!(ended.insert(*token));
                    prop_assert!(matches!(response, ReplicaResponse::Done | ReplicaResponse::Refused(Refusal::Busy)), "{:?}", response);
                    if *response == ReplicaResponse::Done {
                        let bytes = sizes[*token as usize - 10];
                        prop_assert_eq!(&world.server.pairs[&key(*token)], &record(*token, long(bytes)));
                    }
                }
                LinkEvent::Fetched { token, value } => {
                    prop_assert!(ended.insert(*token));
                    prop_assert_eq!(value.as_bytes(), long(50_000));
                }
                LinkEvent::FetchFailed { token, .. } | LinkEvent::Expired { token } => {
                    prop_assert!(ended.insert(*token));
                }
                LinkEvent::Restarted => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(ended.len(), sizes.len() + 1);
    }
}

//! A peer against a server on virtual time, over a network that loses, repeats, reorders, delays
//! and damages datagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::peer::{Config, Event, GREETING_INTERVAL, Peer, RequestError, Speaks};
use super::rtt::RTO_INITIAL;
use crate::kv::{Key, Value};
use crate::record::{Content, ContentType, Record};
use crate::tag::Tag;
use crate::testing::start_of_time;
use crate::wire::v2::envelope::{self, Builder, Envelope, Proof, Sender};
use crate::wire::v2::message::{ReplyMessage, RequestId, next_request};
use crate::wire::v2::reply::{Durability, Greeting, Reply};
use crate::wire::v2::request::Request;

const CONFIG: Config = Config {
    datagram_bytes_max: 1_200,
    epoch: 7,
};

/// A server that stores, and answers all of a datagram's requests in one.
struct Server {
    boot_id: u64,
    speaks_v1_only: bool,
    pairs: BTreeMap<Key, Record>,
    /// How often each request was carried out.
    served: BTreeMap<RequestId, u32>,
}

impl Server {
    fn new(boot_id: u64) -> Self {
        Self {
            boot_id,
            speaks_v1_only: false,
            pairs: BTreeMap::new(),
            served: BTreeMap::new(),
        }
    }

    fn handle(&mut self, datagram: &Bytes) -> Vec<Bytes> {
        if self.speaks_v1_only {
            return vec![Bytes::new()];
        }
        let Ok((_, mut messages)) = envelope::open(datagram, Proof::Checksum) else {
            return Vec::new();
        };
        let mut replies = Vec::new();
        let mut builder = Self::builder();
        while let Some(message) = next_request(&mut messages).unwrap() {
            let message = message.unwrap();
            *self.served.entry(message.id).or_default() += 1;
            let operation = message.request.operation();
            let reply = ReplyMessage {
                id: message.id,
                operation,
                reply: self.serve(message.request),
            };
            if !builder.push(|datagram| reply.encode(datagram)) {
                replies.push(
                    std::mem::replace(&mut builder, Self::builder())
                        .finish()
                        .into(),
                );
                assert!(builder.push(|datagram| reply.encode(datagram)));
            }
        }
        replies.push(builder.finish().into());
        replies
    }

    fn builder() -> Builder {
        let envelope = Envelope {
            sender: Sender::Server,
            epoch: 7,
            authentication: None,
        };
        Builder::new(envelope, 1_200)
    }

    fn serve(&mut self, request: Request) -> Reply {
        match request {
            Request::Greet { .. } => Reply::Greeting(Greeting {
                boot_id: self.boot_id,
                session: 0,
                datagram_bytes_max: 1_200,
                value_bytes_max: 1 << 20,
                durability: Durability::Memory,
            }),
            Request::Put { key, record } => {
                self.pairs.insert(key, record);
                Reply::Done
            }
            Request::Get { key } => match self.pairs.get(&key) {
                None => Reply::Absent { tag: Tag::ZERO },
                Some(record) => Reply::Tag { tag: record.tag },
            },
            _ => Reply::Unsupported,
        }
    }
}

/// What the network does to datagrams, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    lose: u64,
    repeat: u64,
    damage: u64,
    /// Datagrams take 100 us and up to this much longer, and so overtake each other.
    delay_us: u64,
}

/// A client, a server, a network between them, and the time.
struct World {
    now: Instant,
    peer: Peer,
    server: Server,
    faults: Faults,
    random: u64,
    /// When what arrives where; the number keeps datagrams of one instant apart.
    underway: BTreeMap<(Instant, u64), (Side, Bytes)>,
    number: u64,
    events: Vec<(Instant, Event)>,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let now = start_of_time();
        Self {
            now,
            peer: Peer::new(CONFIG, seed, now),
            server: Server::new(1),
            faults,
            random: seed | 1,
            underway: BTreeMap::new(),
            number: 0,
            events: Vec::new(),
        }
    }

    /// xorshift64 (Marsaglia 2003).
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn send(&mut self, to: Side, datagram: Bytes) {
        let copies = 1 + u64::from(self.random(1_000) < self.faults.repeat);
        for _ in 0..copies {
            if self.random(1_000) < self.faults.lose {
                continue;
            }
            let mut bytes = datagram.to_vec();
            if self.random(1_000) < self.faults.damage && !bytes.is_empty() {
                let bit = self.random(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let delay = Duration::from_micros(100 + self.random(self.faults.delay_us + 1));
            self.number += 1;
            self.underway
                .insert((self.now + delay, self.number), (to, bytes.into()));
        }
    }

    fn flush(&mut self) {
        while let Some(datagram) = self.peer.poll_transmit(self.now) {
            self.send(Side::Server, datagram.into());
        }
        while let Some(event) = self.peer.poll_event() {
            self.events.push((self.now, event));
        }
    }

    /// Runs until nothing is left to happen, or until `until`.
    fn run(&mut self, until: Instant) {
        self.flush();
        loop {
            let arrival = self.underway.keys().next().map(|(at, _)| *at);
            let next = arrival.into_iter().chain(self.peer.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = next.max(self.now);
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                let (_, (side, datagram)) = self.underway.pop_first().unwrap();
                match side {
                    Side::Client => self.peer.handle_datagram(&datagram, self.now),
                    Side::Server => {
                        for reply in self.server.handle(&datagram) {
                            self.send(Side::Client, reply);
                        }
                    }
                }
            }
            self.peer.handle_timeout(self.now);
            self.flush();
        }
    }

    fn put(&mut self, number: u64, deadline: Instant) -> RequestId {
        let key = key(number);
        let content = Content::Value {
            content_type: ContentType::default(),
            value: Value::new(vec![b'v'; 32]).unwrap(),
        };
        let record = Record::new(
            &key,
            Tag {
                time: number,
                op: 0,
            },
            content,
        );
        self.peer
            .request(Request::Put { key, record }, self.now, deadline)
            .unwrap()
    }

    fn replied(&self) -> BTreeSet<RequestId> {
        let replied = self.events.iter().filter_map(|(_, event)| match event {
            Event::Reply { id, .. } => Some(*id),
            _ => None,
        });
        replied.collect()
    }
}

fn key(number: u64) -> Key {
    Key::new(format!("key {number}")).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn everything_of_one_turn_goes_out_together_and_is_answered_together() {
    let mut world = World::new(5, Faults::default());
    let deadline = world.now + SECOND;
    let asked: BTreeSet<_> = (0..10).map(|number| world.put(number, deadline)).collect();
    world.run(deadline);
    assert_eq!(world.replied(), asked);
    assert_eq!(world.peer.counters().datagrams_sent, 1);
    assert_eq!(world.peer.counters().sent, 11, "ten puts and a greeting");
    assert_eq!(world.peer.round_trip(), Some(Duration::from_micros(200)));
    assert!(matches!(
        world.peer.speaks(),
        Speaks::V2(Greeting { boot_id: 1, .. })
    ));
    assert_eq!(world.peer.open_requests(), 0);
}

#[test]
fn what_does_not_fit_one_datagram_goes_into_the_next() {
    let mut world = World::new(5, Faults::default());
    let deadline = world.now + SECOND;
    let asked: BTreeSet<_> = (0..100).map(|number| world.put(number, deadline)).collect();
    world.run(deadline);
    assert_eq!(world.replied(), asked);
    let datagrams = world.peer.counters().datagrams_sent;
    assert!((5..20).contains(&datagrams), "{datagrams}");
}

#[test]
fn a_lost_request_is_sent_again_after_the_timeout_and_no_measurement_is_taken_of_it() {
    let mut world = World::new(
        5,
        Faults {
            lose: 1_000,
            ..Faults::default()
        },
    );
    let start = world.now;
    let id = world.put(1, start + SECOND);
    world.run(start + RTO_INITIAL / 2);
    assert!(world.events.is_empty());
    world.faults.lose = 0;
    world.run(start + SECOND);
    assert_eq!(world.replied(), BTreeSet::from([id]));
    let (at, _) = world.events[0];
    assert!(at >= start + RTO_INITIAL && at < start + 2 * RTO_INITIAL);
    assert_eq!(world.peer.round_trip(), None);
    assert_eq!(world.server.served[&id], 1);
}

#[test]
fn a_silent_server_costs_a_few_retransmissions_and_every_request_expires_at_its_deadline() {
    let mut world = World::new(
        5,
        Faults {
            lose: 1_000,
            ..Faults::default()
        },
    );
    let start = world.now;
    let asked: Vec<_> = (0..200)
        .map(|number| world.put(number, start + SECOND))
        .collect();
    world.run(start + 2 * SECOND);
    let expired: Vec<_> = asked
        .iter()
        .map(|id| (start + SECOND, Event::Expired { id: *id }))
        .collect();
    assert_eq!(world.events, expired);
    let counters = world.peer.counters();
    assert!(
        counters.sent_again <= 20 + counters.sent / 10,
        "{counters:?}"
    );
    assert!(counters.over_budget > 0);
    assert_eq!(world.peer.poll_timeout(), None);
}

#[test]
fn a_reply_that_comes_twice_late_or_after_a_cancel_is_a_stray() {
    let mut world = World::new(
        5,
        Faults {
            repeat: 1_000,
            ..Faults::default()
        },
    );
    let start = world.now;
    world.put(1, start + SECOND);
    world.run(start + SECOND);
    assert_eq!(world.events.len(), 1);
    let strays = world.peer.counters().strays;
    assert!(strays > 0);

    let id = world.put(2, world.now + SECOND);
    world.flush();
    world.peer.cancel(id);
    world.run(world.now + SECOND);
    assert_eq!(world.events.len(), 1);
    assert!(world.peer.counters().strays > strays);
}

#[test]
fn a_server_of_the_first_version_is_found_out_and_its_requests_are_given_back() {
    let mut world = World::new(5, Faults::default());
    world.server.speaks_v1_only = true;
    let start = world.now;
    let asked: Vec<_> = (0..3)
        .map(|number| world.put(number, start + SECOND))
        .collect();
    world.run(start + SECOND);
    let given_back: Vec<_> = world.events.drain(..).map(|(_, event)| event).collect();
    let not_v2 = |id| Event::NotV2 { id };
    assert_eq!(
        given_back,
        asked.into_iter().map(not_v2).collect::<Vec<_>>()
    );
    assert_eq!(world.peer.speaks(), Speaks::V1);

    world.server.speaks_v1_only = false;
    world.peer.greet(world.now);
    world.run(world.now + SECOND);
    assert!(matches!(world.peer.speaks(), Speaks::V2(_)));
}

#[test]
fn a_restart_is_noticed_by_the_boot_id_within_a_second_of_use() {
    let mut world = World::new(5, Faults::default());
    world.put(0, world.now + SECOND);
    world.run(world.now + GREETING_INTERVAL);
    world.server = Server::new(2);
    world.events.clear();
    let restarted = world.now;
    while world
        .events
        .iter()
        .all(|(_, event)| *event != Event::Restarted)
    {
        world.put(1, world.now + SECOND);
        world.run(world.now + Duration::from_millis(50));
        assert!(world.now < restarted + SECOND);
    }
}

#[test]
fn limits_on_requests_and_on_their_length_hold() {
    let mut world = World::new(5, Faults::default());
    let (now, deadline) = (world.now, world.now + SECOND);
    let long = Request::Get {
        key: Key::new(vec![b'k'; 1_200]).unwrap(),
    };
    let refused = world.peer.request(long, now, deadline).unwrap_err();
    assert!(matches!(
        refused,
        RequestError::TooLong {
            message_bytes: 1_216,
            message_bytes_max: 1_184
        }
    ));
    let mut opened = 0;
    let refused = loop {
        match world.peer.request(Request::Ping, now, deadline) {
            Ok(_) => opened += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, RequestError::TooMany);
    assert_eq!(
        opened,
        super::peer::REQUESTS_MAX - 1,
        "the greeting is one, too"
    );
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
        let mut asked = BTreeSet::new();
        for number in 0..requests {
            let deadline = world.now + Duration::from_millis(300);
            asked.insert(world.put(number, deadline));
            let pause = Duration::from_micros(world.random(3_000));
            world.run(world.now + pause);
        }
        world.run(world.now + SECOND);
        let mut ended = BTreeSet::new();
        for (_, event) in &world.events {
            match event {
                Event::Reply { id, reply, .. } => {
                    prop_assert!(ended.insert(*id));
                    prop_assert_eq!(reply, &Reply::Done);
                    prop_assert!(world.server.served[id] >= 1);
                }
                Event::Expired { id } => prop_assert!(ended.insert(*id)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(&ended, &asked);
        prop_assert_eq!(world.peer.open_requests(), 0);
        let counters = world.peer.counters();
        prop_assert!(counters.sent_again <= 20 + counters.sent / 10);

        world.faults = Faults::default();
        world.events.clear();
        let asked: BTreeSet<_> = (0..20).map(|number| world.put(number, world.now + SECOND)).collect();
        world.run(world.now + SECOND);
        prop_assert_eq!(world.replied(), asked);
    }
}

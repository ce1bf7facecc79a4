//! A link, a server, and a network between them on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::link::{Link, LinkEvent, RequestHandle};
use super::super::peer::PeerConfig;
use super::fixtures::{by, config, key, record};
use super::server::Server;
use crate::testing::start_of_time;
use dkvs_common::model::ReplicaCommand;

/// How often the network does what to a datagram, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lose: u64,
    pub(super) repeat: u64,
    pub(super) damage: u64,
    /// A datagram takes 100 us, and up to this much longer, so that one can overtake another.
    pub(super) delay_us: u64,
}

impl Faults {
    pub(super) const ALL_LOST: Self = Self {
        lose: 1_000,
        repeat: 0,
        damage: 0,
        delay_us: 0,
    };
}

/// A client, a server, a network between them, and the time.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) link: Link<u64>,
    pub(super) server: Server,
    pub(super) faults: Faults,
    pub(super) random: u64,
    /// By arrival and by number, which keeps datagrams of one instant apart: where they go.
    pub(super) underway: BTreeMap<(Instant, u64), (Side, Bytes)>,
    pub(super) number: u64,
    pub(super) events: Vec<(Instant, LinkEvent<u64>)>,
    pub(super) datagrams_sent: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Client,
    Server,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self::with(config(), seed, faults)
    }

    pub(super) fn with(config: PeerConfig, seed: u64, faults: Faults) -> Self {
        let now = start_of_time();
        Self {
            now,
            link: Link::new(config, seed, now),
            server: Server::new(1),
            faults,
            random: seed | 1,
            underway: BTreeMap::new(),
            number: 0,
            events: Vec::new(),
            datagrams_sent: 0,
        }
    }

    /// A world whose server has answered its first greeting.
    pub(super) fn met(seed: u64) -> Self {
        let mut world = Self::new(seed, Faults::default());
        world.link.greet_if_due(world.now);
        world.run(world.now + Duration::from_millis(1));
        world
    }

    /// xorshift64 (Marsaglia 2003).
    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub(super) fn send(&mut self, to: Side, datagram: Bytes) {
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

    pub(super) fn flush(&mut self) {
        while let Some(datagram) = self.link.poll_transmit(self.now) {
            assert!(datagram.len() <= 1_200);
            self.datagrams_sent += 1;
            self.send(Side::Server, datagram.into());
        }
        while let Some(event) = self.link.poll_event() {
            self.events.push((self.now, event));
        }
    }

    /// Runs until nothing is left to happen, or until `until`.
    pub(super) fn run(&mut self, until: Instant) {
        self.flush();
        loop {
            let arrival = self.underway.keys().next().map(|(at, _)| *at);
            let next = arrival.into_iter().chain(self.link.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = next.max(self.now);
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                let (_, (side, datagram)) = self.underway.pop_first().unwrap();
                match side {
                    Side::Client => self.link.handle_datagram(&datagram, self.now),
                    Side::Server => {
                        for reply in self.server.handle(&datagram) {
                            self.send(Side::Client, reply);
                        }
                    }
                }
            }
            self.link.handle_timeout(self.now);
            self.flush();
        }
    }

    pub(super) fn put(&mut self, number: u64, deadline: Instant) -> RequestHandle {
        self.put_value(number, vec![b'v'; 32], deadline)
    }

    pub(super) fn put_all(&mut self, numbers: std::ops::Range<u64>, deadline: Instant) {
        for number in numbers {
            self.put(number, deadline);
        }
    }

    pub(super) fn put_value(
        &mut self,
        number: u64,
        value: Vec<u8>,
        deadline: Instant,
    ) -> RequestHandle {
        let key = key(number);
        let record = record(number, value);
        self.link
            .send(
                ReplicaCommand::Put { key, record },
                by(number),
                self.now,
                deadline,
            )
            .unwrap()
    }

    /// The tokens of what was answered.
    pub(super) fn replied(&self) -> BTreeSet<u64> {
        let replied = self.events.iter().filter_map(|(_, event)| match event {
            LinkEvent::Response { token, .. } => Some(*token),
            _ => None,
        });
        replied.collect()
    }
}

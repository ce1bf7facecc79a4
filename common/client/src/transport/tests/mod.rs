//! A link against a server on virtual time, over a network that loses, repeats, reorders, delays
//! and damages datagrams.

mod requests;
mod transfers;

use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::link::{Event, Link, Ticket};
use super::peer::Config;
use crate::testing::start_of_time;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::Durability;
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, Proof, Sender};
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, next_request};
use dkvs_common::wire::v2::reply::{Greeting, Reply};
use dkvs_common::wire::v2::request::Request;

const SECOND: Duration = Duration::from_secs(1);

const CLIENT: std::net::SocketAddrV4 =
    std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 4_000);

fn config() -> Config {
    Config {
        datagram_bytes_max: 1_200,
        window_bytes_max: 4 << 20,
        epoch: 7,
        is_v1_asked: false,
        keys: None,
    }
}

/// A server that stores, and answers all of a datagram's requests in one.
struct Server {
    boot_id: u64,
    speaks_v1_only: bool,
    datagram_bytes_max: u16,
    keys: Option<Arc<Keys>>,
    pairs: BTreeMap<Key, Record>,
    /// The blocks of uploads, by offset.
    uploads: BTreeMap<u64, BTreeMap<u32, Bytes>>,
    /// How often each request was carried out.
    served: BTreeMap<RequestId, u32>,
    /// How many datagrams arrived.
    datagrams: u32,
    /// How many were of another process's session.
    sessions_refused: u32,
}

impl Server {
    fn new(boot_id: u64) -> Self {
        Self {
            boot_id,
            speaks_v1_only: false,
            datagram_bytes_max: 1_200,
            keys: None,
            pairs: BTreeMap::new(),
            uploads: BTreeMap::new(),
            served: BTreeMap::new(),
            datagrams: 0,
            sessions_refused: 0,
        }
    }

    fn handle(&mut self, datagram: &Bytes) -> Vec<Bytes> {
        self.datagrams += 1;
        if self.speaks_v1_only {
            return vec![Bytes::new()];
        }
        let opened = match &self.keys {
            None => envelope::open(datagram, Proof::Checksum),
            Some(keys) => {
                let Some(key) = envelope::peek(datagram)
                    .ok()
                    .and_then(|envelope| keys.find(envelope.authentication?.key_id))
                else {
                    return Vec::new();
                };
                let client = CLIENT;
                envelope::open(datagram, Proof::Key { key, client })
            }
        };
        let Ok((asked, mut messages)) = opened else {
            return Vec::new();
        };
        let mut replies = Vec::new();
        let mut builder = Self::builder(asked);
        while let Some(message) = next_request(&mut messages).unwrap() {
            let message = message.unwrap();
            let is_greeting = matches!(message.request, Request::Greet { .. });
            if let Some(authentication) = asked.authentication {
                let session = if is_greeting { 0 } else { self.boot_id };
                if authentication.session != session {
                    self.sessions_refused += 1;
                    return replies;
                }
            }
            *self.served.entry(message.id).or_default() += 1;
            let operation = message.request.operation();
            let reply = ReplyMessage {
                id: message.id,
                operation,
                reply: self.serve(message.request),
            };
            if !builder.push(|datagram| reply.encode(datagram)) {
                let full = std::mem::replace(&mut builder, Self::builder(asked));
                replies.push(self.finish(full, asked));
                assert!(builder.push(|datagram| reply.encode(datagram)));
            }
        }
        replies.push(self.finish(builder, asked));
        replies
    }

    fn builder(asked: Envelope) -> Builder {
        let envelope = Envelope {
            sender: Sender::Server,
            ..asked
        };
        Builder::new(envelope, 1_200)
    }

    /// Proves a reply with the key that proved the request.
    fn finish(&self, builder: Builder, asked: Envelope) -> Bytes {
        match (&self.keys, asked.authentication) {
            (Some(keys), Some(authentication)) => {
                let key = keys.find(authentication.key_id).unwrap();
                builder.finish_with(key, CLIENT).into()
            }
            _ => builder.finish().into(),
        }
    }

    fn serve(&mut self, request: Request) -> Reply {
        match request {
            Request::Greet { .. } => Reply::Greeting(Greeting {
                boot_id: self.boot_id,
                session: if self.keys.is_some() { self.boot_id } else { 0 },
                datagram_bytes_max: self.datagram_bytes_max,
                value_bytes_max: 1 << 20,
                durability: Durability::Memory,
            }),
            Request::Command(ReplicaCommand::Ping) => Reply::Response(ReplicaResponse::Done),
            Request::Command(ReplicaCommand::Put { key, record }) => {
                assert!(record.is_sound(&key));
                self.pairs.insert(key, record);
                Reply::Response(ReplicaResponse::Done)
            }
            Request::Command(ReplicaCommand::Get { key }) => match self.pairs.get(&key) {
                None => Reply::Response(ReplicaResponse::Absent { tag: Tag::ZERO }),
                Some(record) => Reply::Response(ReplicaResponse::Tag { tag: record.tag }),
            },
            Request::Command(ReplicaCommand::Attest { boot_id, key, tag }) => {
                match self.pairs.get(&key) {
                    Some(record) if boot_id == self.boot_id && record.tag >= tag => {
                        Reply::Response(ReplicaResponse::Done)
                    }
                    _ => Reply::Response(ReplicaResponse::Absent { tag: Tag::ZERO }),
                }
            }
            Request::Command(ReplicaCommand::Stage {
                upload,
                offset,
                block_bytes,
                block,
                ..
            }) => {
                let blocks = self.uploads.entry(upload).or_default();
                blocks.insert(offset, block);
                staged(blocks, block_bytes.into())
            }
            Request::Command(ReplicaCommand::PutStaged {
                key,
                tag,
                content_type,
                upload,
                value_bytes,
                checksum,
            }) => {
                let blocks = self.uploads.get(&upload);
                let value: Vec<u8> = blocks
                    .into_iter()
                    .flat_map(|blocks| blocks.values().flat_map(|block| block.to_vec()))
                    .collect();
                if value.len() != value_bytes as usize {
                    return Reply::Response(ReplicaResponse::Absent { tag: Tag::ZERO });
                }
                let value = Value::new(value).unwrap();
                let content = Content::Value {
                    content_type,
                    value,
                };
                let record = Record {
                    tag,
                    content,
                    checksum,
                };
                assert!(record.is_sound(&key));
                self.pairs.insert(key, record);
                Reply::Response(ReplicaResponse::Done)
            }
            Request::Command(ReplicaCommand::GetBlock {
                key,
                tag,
                offset,
                block_bytes,
            }) => match self.pairs.get(&key) {
                Some(Record {
                    tag: held,
                    content: Content::Value { value, .. },
                    ..
                }) if *held == tag => {
                    let value = value.as_bytes();
                    let start = (offset as usize).min(value.len());
                    let end = value.len().min(start + usize::from(block_bytes));
                    Reply::Response(ReplicaResponse::Block {
                        offset,
                        block: Bytes::copy_from_slice(&value[start..end]),
                    })
                }
                _ => Reply::Response(ReplicaResponse::Absent { tag: Tag::ZERO }),
            },
            _ => Reply::Response(ReplicaResponse::Refused(Refusal::Unsupported)),
        }
    }
}

/// What has arrived of an upload, as the protocol tells it.
fn staged(blocks: &BTreeMap<u32, Bytes>, block_bytes: u32) -> Reply {
    let there = |number: u32| blocks.contains_key(&(number * block_bytes));
    let base = (0..).find(|number| !there(*number)).unwrap();
    let mut bitmap: Vec<u8> = (0..32)
        .map(|byte| {
            (0..8u32)
                .filter(|bit| there(base + 8 * byte + bit))
                .fold(0, |bits, bit| bits | 1 << bit)
        })
        .collect();
    while bitmap.last() == Some(&0) {
        bitmap.pop();
    }
    Reply::Response(ReplicaResponse::Staged {
        base,
        bitmap: bitmap.into(),
    })
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

impl Faults {
    const ALL_LOST: Self = Self {
        lose: 1_000,
        repeat: 0,
        damage: 0,
        delay_us: 0,
    };
}

/// A client, a server, a network between them, and the time.
struct World {
    now: Instant,
    link: Link<u64>,
    server: Server,
    faults: Faults,
    random: u64,
    /// When what arrives where; the number keeps datagrams of one instant apart.
    underway: BTreeMap<(Instant, u64), (Side, Bytes)>,
    number: u64,
    events: Vec<(Instant, Event<u64>)>,
    datagrams_sent: u64,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        Self::with(config(), seed, faults)
    }

    fn with(config: Config, seed: u64, faults: Faults) -> Self {
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
    fn met(seed: u64) -> Self {
        let mut world = Self::new(seed, Faults::default());
        world.link.greet_if_due(world.now);
        world.run(world.now + Duration::from_millis(1));
        world
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
    fn run(&mut self, until: Instant) {
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

    fn put(&mut self, number: u64, deadline: Instant) -> Ticket {
        self.put_value(number, vec![b'v'; 32], deadline)
    }

    fn put_all(&mut self, numbers: std::ops::Range<u64>, deadline: Instant) {
        for number in numbers {
            self.put(number, deadline);
        }
    }

    fn put_value(&mut self, number: u64, value: Vec<u8>, deadline: Instant) -> Ticket {
        let key = key(number);
        let record = record(number, value);
        self.link
            .ask(
                Request::Command(ReplicaCommand::Put { key, record }),
                number,
                self.now,
                deadline,
            )
            .unwrap()
    }

    /// The tokens of what was answered.
    fn replied(&self) -> BTreeSet<u64> {
        let replied = self.events.iter().filter_map(|(_, event)| match event {
            Event::Reply { token, .. } => Some(*token),
            _ => None,
        });
        replied.collect()
    }
}

fn record(number: u64, value: Vec<u8>) -> Record {
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(value).unwrap(),
    };
    let tag = Tag {
        time: number,
        op: 0,
    };
    Record::new(&key(number), tag, content)
}

fn key(number: u64) -> Key {
    Key::new(format!("key {number}")).unwrap()
}

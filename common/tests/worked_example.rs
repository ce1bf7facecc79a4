//! The worked example of the original system: five servers, nine ring points, N=4, W=3, R=2,
//! one of the four down; then what the example does not show.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::ReplicaResponse;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::{Read, ReadOutcome, ReplicaStanding};
use dkvs_common::quorum::write::{Applied, Write, WriteOutcome};
use dkvs_common::quorum::{Level, Version};
use dkvs_common::record::{Content, ContentType};
use dkvs_common::ring::{Position, PreferenceList, Ring};
use dkvs_common::tag::Tag;

/// Servers A to E, with 2 + 2 + 2 + 2 + 1 = 9 ring points.
const SERVERS: &str =
    "127.0.0.1 4001 2\n127.0.0.1 4002 2\n127.0.0.1 4003 2\n127.0.0.1 4004 2\n127.0.0.1 4005 1\n";
const TIMEOUT: Duration = Duration::from_secs(1);

struct Servers {
    ring: Ring,
    /// What each live server holds for the one key; a dead server is silent.
    live: BTreeMap<ServerId, Option<Value>>,
    now: Instant,
}

impl Servers {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can be had in no other way"
    )]
    fn start() -> Self {
        let cluster = Cluster::parse("example", SERVERS.as_bytes()).unwrap();
        let ring = Ring::new(&cluster);
        assert_eq!(ring.points().len(), 9);
        Self {
            ring,
            live: cluster.iter().map(|(id, _)| (id, None)).collect(),
            now: Instant::now(),
        }
    }

    fn replicas(&self) -> PreferenceList {
        self.ring.preference_list(Position::of_key(&key()), 4)
    }

    fn put(&mut self, value: &str) -> Write {
        let quorum = Quorum::new(4, 3).unwrap();
        let content = Content::Value {
            content_type: ContentType::default(),
            value: Value::new(value.to_owned()).unwrap(),
        };
        let mut write = Write::new(
            key(),
            content,
            self.replicas(),
            quorum,
            Level::Agreement,
            self.now,
            self.now + TIMEOUT,
        );
        write.begin_round(Tag { time: 1, op: 1 });
        while let Some(transmit) = write.poll_transmit() {
            if let Some(held) = self.live.get_mut(&transmit.to) {
                *held = Some(Value::new(value.to_owned()).unwrap());
                let stored = ReplicaResponse::Done;
                write.handle_response(transmit.to, transmit.id, stored, self.now);
            }
        }
        if let Some(deadline) = write.poll_timeout() {
            write.handle_timeout(deadline);
        }
        write
    }

    fn get(&self) -> Read {
        let quorum = Quorum::new(4, 2).unwrap();
        let mut read = Read::new(
            key(),
            self.replicas(),
            quorum,
            Level::Agreement,
            self.now,
            self.now + TIMEOUT,
        );
        while let Some(transmit) = read.poll_transmit() {
            if let Some(held) = self.live.get(&transmit.to) {
                let response = match held.clone() {
                    Some(value) => ReplicaResponse::Untagged { value },
                    None => ReplicaResponse::absent(Tag::ZERO),
                };
                read.handle_response(transmit.to, transmit.id, response, self.now);
            }
        }
        if let Some(deadline) = read.poll_timeout() {
            read.handle_timeout(deadline);
        }
        read
    }
}

fn key() -> Key {
    Key::new("my_key").unwrap()
}

fn found(value: &str) -> Option<ReadOutcome> {
    Some(ReadOutcome::Found(
        Value::new(value.to_owned()).unwrap(),
        Version::default(),
    ))
}

fn standings(read: &Read) -> Vec<ReplicaStanding> {
    let replicas = read.replicas().iter();
    replicas.map(|replica| read.standing(replica)).collect()
}

#[test]
fn one_of_four_down_still_writes_and_reads() {
    use ReplicaStanding::{Match, TimedOut};
    let mut servers = Servers::start();
    let dead = servers.replicas()[0].server;
    servers.live.remove(&dead);

    let put = servers.put("my_value");
    assert_eq!(put.outcome(), Some(WriteOutcome::Committed));
    assert_eq!(put.confirmed(), 3);

    let get = servers.get();
    assert_eq!(get.outcome().cloned(), found("my_value"));
    assert_eq!(get.agreeing(), 3);
    assert_eq!(standings(&get), [TimedOut, Match, Match, Match]);
}

#[test]
fn the_dead_server_back_with_an_old_value_is_outvoted() {
    use ReplicaStanding::{Differs, Match};
    let mut servers = Servers::start();
    assert_eq!(servers.put("old").confirmed(), 4);
    let dead = servers.replicas()[0].server;
    let old = servers.live.remove(&dead).unwrap();

    assert_eq!(servers.put("new").outcome(), Some(WriteOutcome::Committed));
    servers.live.insert(dead, old);

    let get = servers.get();
    assert_eq!(get.outcome().cloned(), found("new"));
    assert_eq!(get.agreeing(), 3);
    assert_eq!(standings(&get), [Differs, Match, Match, Match]);
}

#[test]
fn one_more_down_fails_the_write_and_not_the_read() {
    let mut servers = Servers::start();
    assert_eq!(
        servers.put("first").outcome(),
        Some(WriteOutcome::Committed)
    );
    for replica in &servers.replicas()[..2] {
        servers.live.remove(&replica.server);
    }
    let put = servers.put("second");
    assert_eq!(put.outcome(), Some(WriteOutcome::TimedOut));
    assert_eq!(put.confirmed(), 2);
    assert_eq!(put.applied(), Applied::Unknown);

    // The write that failed is on two replicas, which is what R=2 asks for: it has surfaced.
    assert_eq!(servers.get().outcome().cloned(), found("second"));
}

#[test]
fn an_old_value_on_two_replicas_against_a_new_one_on_two_is_decided_by_who_speaks_first() {
    // N=4, R=2, W=3: R + W > N, and yet R=2 agreeing on the old value is possible where a write
    // failed at W=2. That is what the agreement level does not promise.
    let mut servers = Servers::start();
    servers.put("old");
    let replicas = servers.replicas();
    for replica in &replicas[2..] {
        let new = Value::new("new").unwrap();
        servers.live.insert(replica.server, Some(new));
    }
    assert_eq!(servers.get().outcome().cloned(), found("old"));
}

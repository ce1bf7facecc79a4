//! Requests of several callers, some of which wait for a server that is silent.

use std::sync::mpsc::{Receiver, Sender, channel};

use dkvs_common::kv::Value;
use dkvs_common::quorum::read::{Read, ReadOutcome};
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::write::{Write, WriteOutcome};
use dkvs_common::record::{Attributes, ContentType};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Of `core`: one caller alone may hold seven, and wait for seven more.
const PLACES: usize = 10;
const SHARE: usize = 7;

const GREEDY: CallerId = CallerId::Token(1);
const MODEST: CallerId = CallerId::Token(2);

/// Three servers, of which the last hears nothing while it is silent.
struct World {
    core: Core,
    services: Vec<Service>,
    is_silent: bool,
    now: Now,
    reads: (Sender<Read>, Receiver<Read>),
    writes: (Sender<Write>, Receiver<Write>),
}

impl World {
    fn new() -> Self {
        let service = |number| {
            let store = Store::Memory(MemoryStore::new(1 << 20));
            Service::new(store, ServiceConfig::new(number))
        };
        let mut world = Self {
            core: core_of(3),
            services: (0..3).map(service).collect(),
            is_silent: false,
            now: now(),
            reads: channel(),
            writes: channel(),
        };
        let endpoint = Endpoint {
            local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
            window_bytes_max: 1 << 16,
        };
        for number in 0..3 {
            world.core.open(ServerId(number), endpoint, 7, world.now);
        }
        world
            .core
            .status(SECOND, MODEST, world.now, |_| {})
            .unwrap();
        world.run();
        world.is_silent = true;
        world
    }

    /// Hands datagrams to and fro until nobody has anything to say.
    fn run(&mut self) {
        while let Some(server) = self.core.poll_server() {
            while let Some(datagram) = self.core.poll_transmit(server, self.now) {
                if server == ServerId(2) && self.is_silent {
                    continue;
                }
                let received = Received {
                    datagram: datagram.into(),
                    peer: (Ipv4Addr::LOCALHOST, 5_000).into(),
                    at: self.now.at,
                    waited: Duration::ZERO,
                };
                let mut replies = Vec::new();
                let backlog = &mut Backlog::new(|| {});
                let mut send = |reply| replies.push(reply);
                let service = &self.services[server.index()];
                service.handle_v2(&received, &mut Access::Open, backlog, &mut send);
                for reply in replies {
                    self.core.handle_datagram(server, &reply.into(), self.now);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.at + time;
        while self.now.at < until {
            self.now.at += Duration::from_millis(5);
            self.core.handle_timeout(self.now);
            self.run();
        }
    }

    fn options(caller: CallerId, required: u8, wait: Wait) -> RequestOptions {
        RequestOptions {
            quorum: Quorum::new(3, required).unwrap(),
            wait,
            caller,
            ..options(Level::Linearizable)
        }
    }

    fn read(&mut self, options: RequestOptions) -> Result<RequestId, AdmissionError> {
        let ended = self.reads.0.clone();
        let key = Key::new("k").unwrap();
        let on_end = move |result: ReadResult| ended.send(result.read).unwrap();
        let begun = begin_read(&mut self.core, key, options, self.now, on_end);
        self.run();
        begun
    }

    fn write(&mut self, options: RequestOptions) -> Result<RequestId, AdmissionError> {
        let ended = self.writes.0.clone();
        let key = Key::new("k").unwrap();
        let content = Content::Value {
            content_type: ContentType::default(),
            value: Value::new("v").unwrap(),
        };
        let request = WriteRequest {
            list: self.core.preference_list(&key, options.quorum),
            key,
            content,
            attributes: Attributes::NONE,
            tag: None,
            options,
        };
        let on_end = move |result: WriteResult| ended.send(result.write).unwrap();
        let begun = self.core.write(request, self.now, on_end);
        self.run();
        begun
    }

    fn held(&self) -> (usize, usize) {
        (self.core.undecided(), self.core.decided())
    }

    fn hits(&self, limit: Limit) -> u64 {
        self.core.totals().limit_hit(limit)
    }
}

#[test]
fn reads_that_wait_for_a_silent_server_take_no_places_and_the_oldest_end_truthfully() {
    let mut world = World::new();
    world
        .write(World::options(MODEST, 2, Wait::Quorum))
        .unwrap();
    for waiting in 1..=SHARE {
        world.read(World::options(GREEDY, 2, Wait::All)).unwrap();
        assert_eq!(world.held(), (0, waiting));
    }
    assert!(world.reads.1.try_recv().is_err());
    for more in 1..=3 * PLACES {
        world.read(World::options(GREEDY, 2, Wait::All)).unwrap();
        assert_eq!(world.held(), (0, SHARE));
        assert_eq!(world.hits(Limit::RequestsDecided), more as u64);
        // Found, and what the silent server holds is not known.
        let read = world.reads.1.try_recv().unwrap();
        assert!(matches!(read.outcome(), Some(ReadOutcome::Found(..))));
        let mut replicas = read.replicas().iter();
        let silent = replicas.find(|replica| replica.server == ServerId(2));
        assert!(matches!(silent.unwrap().state, ReplicaState::Pending));
    }
    // Others are served meanwhile, and wait for all if they like.
    world.read(World::options(MODEST, 2, Wait::Quorum)).unwrap();
    assert!(world.reads.1.try_recv().is_ok());
    world.read(World::options(MODEST, 2, Wait::All)).unwrap();
    assert_eq!(world.held(), (0, SHARE + 1));
    world.pass(2 * SECOND);
    assert_eq!(world.held(), (0, 0));
    for _ in 0..=SHARE {
        let read = world.reads.1.try_recv().unwrap();
        assert!(
            read.replicas()
                .iter()
                .any(|it| it.state == ReplicaState::TimedOut)
        );
    }
    assert!(world.reads.1.try_recv().is_err(), "each ends once");
}

#[test]
fn who_waits_for_a_quorum_that_cannot_come_holds_a_share_and_no_more() {
    let mut world = World::new();
    let never = World::options(GREEDY, 3, Wait::Quorum);
    let cancelled = world.read(never).unwrap();
    assert_eq!(world.held(), (1, 0));
    world.core.cancel(cancelled, world.now);
    assert_eq!(world.held(), (0, 0));
    for _ in 0..SHARE {
        world.read(never).unwrap();
    }
    let (held, max) = (SHARE, PLACES);
    for _ in 0..5 {
        let refused = world.read(World::options(GREEDY, 2, Wait::Quorum));
        assert_eq!(refused, Err(AdmissionError::ShareTaken { held, max }));
    }
    assert_eq!(world.hits(Limit::RequestsOfCaller), 5);
    assert_eq!(world.hits(Limit::RequestsInFlight), 0);
    world
        .write(World::options(MODEST, 2, Wait::Quorum))
        .unwrap();
    let write = world.writes.1.try_recv().unwrap();
    assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    // Newcomers fill the rest, one each; then nobody gets in.
    for number in 0..(PLACES - SHARE) as u64 {
        let caller = CallerId::Token(10 + number);
        world.read(World::options(caller, 3, Wait::Quorum)).unwrap();
    }
    let refused = world.read(World::options(MODEST, 2, Wait::Quorum));
    assert!(matches!(refused, Err(AdmissionError::Overloaded { .. })));
    assert_eq!(world.hits(Limit::RequestsInFlight), 1);
    world.pass(2 * SECOND);
    assert_eq!(world.held(), (0, 0));
}

/// As far as its record is concerned, a write goes on: to the server that was silent, too.
#[test]
fn a_write_whose_caller_has_gone_ends_when_it_is_decided_and_still_reaches_all() {
    for is_gone_before in [false, true] {
        let mut world = World::new();
        let options = World::options(GREEDY, 2, Wait::All);
        let key = Key::new("k").unwrap();
        if is_gone_before {
            let content = Content::Tombstone;
            let list = world.core.preference_list(&key, options.quorum);
            let request = WriteRequest {
                key,
                content,
                attributes: Attributes::NONE,
                tag: None,
                list,
                options,
            };
            let id = world.core.write(request, world.now, |_| {}).unwrap();
            world.core.cancel(id, world.now);
            assert_eq!(world.held(), (1, 0));
            world.run();
        } else {
            let id = world.write(options).unwrap();
            assert_eq!(world.held(), (0, 1));
            world.core.cancel(id, world.now);
            assert!(world.writes.1.try_recv().is_ok());
        }
        assert_eq!(world.held(), (0, 0));
        let stored = |world: &World| -> Vec<usize> {
            let stores = world.services.iter().map(|service| service.store().len());
            stores.collect()
        };
        assert_eq!(stored(&world), [1, 1, 0]);
        world.is_silent = false;
        world.pass(SECOND / 2);
        assert_eq!(stored(&world), [1, 1, 1]);
        assert_eq!(world.held(), (0, 0));
    }
}

#[test]
fn a_replica_that_a_write_has_not_reached_is_reported_to_one_that_confirmed_and_seldom() {
    let mut world = World::new();
    let told = |world: &World| world.core.server_counts(ServerId(2)).nudges;
    // Its put is under way until the deadline.
    for _ in 0..5 {
        let options = World::options(MODEST, 2, Wait::Quorum);
        world.write(options).unwrap();
    }
    assert_eq!((world.held(), told(&world)), ((0, 0), 0));
    world.pass(SECOND);
    assert_eq!(told(&world), 1);
    // Now nothing listens there.
    world.core.handle_unreachable(ServerId(2), world.now);
    world.write(World::options(MODEST, 2, Wait::All)).unwrap();
    assert_eq!(told(&world), 1, "a moment ago");
    world.pass(SECOND);
    world.core.handle_unreachable(ServerId(2), world.now);
    world.write(World::options(MODEST, 2, Wait::All)).unwrap();
    assert_eq!(told(&world), 2);
    // A read tells nobody, nor does a write that all have confirmed.
    world.is_silent = false;
    world.pass(SECOND);
    world.read(World::options(MODEST, 2, Wait::All)).unwrap();
    world.write(World::options(MODEST, 2, Wait::All)).unwrap();
    world.pass(2 * SECOND);
    assert_eq!(told(&world), 2);
}

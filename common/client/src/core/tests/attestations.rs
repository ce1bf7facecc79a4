//! Servers that lost their records, from the read that meets them to their attestation.

use std::collections::VecDeque;
use std::sync::Mutex;

use dkvs_common::kv::Value;
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::read::{Read, ReadOutcome, ReplicaStanding};
use dkvs_common::quorum::write::{Write, WriteOutcome};
use dkvs_common::record::{Attributes, ContentType, Record};
use dkvs_common::ring::PreferenceList;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{Builder, Envelope, Sender};
use dkvs_common::wire::v2::message::next_reply;
use dkvs_common::wire::v2::reply::Reply;

use dkvs_storage_node::store::{Lookup, Part};

use super::super::attestations::{ATTESTATIONS_MAX, Attestations, PendingAttestation};
use super::*;
use crate::testing::start_of_time;

const SECOND: Duration = Duration::from_secs(1);

/// After which what was decided with a word of an incarnation before has been.
const SETTLED: Duration = Duration::from_secs(3);

const ENDPOINT: Endpoint = Endpoint {
    local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
    window_bytes_max: 1 << 16,
};

/// A real service that attests for nothing before it is told to, if it lost its store.
struct Server {
    service: Service,
    is_unvouched: bool,
}

impl Server {
    fn start(boot_id: u64, is_unvouched: bool) -> Self {
        Self {
            service: Service::new(
                Store::Memory(MemoryStore::new(1 << 20)),
                ServiceConfig::new(boot_id),
            ),
            is_unvouched,
        }
    }

    fn handle(&mut self, datagram: Bytes, now: Now) -> Vec<Bytes> {
        let received = Received {
            datagram,
            peer: (Ipv4Addr::LOCALHOST, 5_000).into(),
            at: now.at,
            waited: Duration::ZERO,
        };
        let mut replies = Vec::new();
        let access = &mut Access::Open;
        let backlog = &mut Backlog::new(|| {});
        self.service
            .handle_v2(&received, access, backlog, &mut |reply| {
                replies.push(Bytes::from(reply));
            });
        replies.iter().map(|reply| self.refuse(reply)).collect()
    }

    /// Puts refusals in the place of answers that it cannot answer for.
    fn refuse(&mut self, datagram: &Bytes) -> Bytes {
        let (envelope, mut messages) = open(datagram, Proof::Checksum).unwrap();
        assert_eq!(envelope.sender, Sender::Server);
        let mut builder = Builder::new(Envelope { ..envelope }, 1_200);
        while let Some(mut message) = next_reply(&mut messages).unwrap() {
            let is_read = (3..=5).contains(&message.operation);
            if is_read && self.is_unvouched {
                message.reply = Reply::Response(ReplicaResponse::Refused(Refusal::Corrupt));
            }
            if message.operation == 12 && message.reply == Reply::Response(ReplicaResponse::Done) {
                self.is_unvouched = false;
            }
            assert!(builder.push(|datagram| message.encode(datagram)));
        }
        builder.finish().into()
    }
}

/// How a request ended.
enum Ended {
    Read(Read),
    Write(Write),
    Status,
}

/// Three servers of one key. The first of its preference list is the one that things happen to.
struct World {
    core: Core,
    /// How the requests ended that have, the first first.
    ended: Arc<Mutex<VecDeque<Ended>>>,
    servers: Vec<Server>,
    now: Now,
    /// Whether datagrams with such requests are kept back.
    is_held: fn(&Request) -> bool,
    held: Vec<(ServerId, Bytes)>,
    /// The attests that were sent.
    attests: Vec<(ServerId, u64, Tag)>,
}

fn key() -> Key {
    Key::new("k").unwrap()
}

impl World {
    /// In which `value` was written, and the first server was then started anew without its store.
    fn new(value: &str) -> Self {
        let mut world = Self {
            core: core_of(3),
            ended: Arc::default(),
            servers: (0..3).map(|number| Server::start(number, false)).collect(),
            now: Now {
                at: start_of_time(),
                unix_ms: 1_000,
            },
            is_held: |_| false,
            held: Vec::new(),
            attests: Vec::new(),
        };
        for number in 0..3 {
            world.core.open(ServerId(number), ENDPOINT, 7, world.now);
        }
        let content = Content::Value {
            content_type: ContentType::default(),
            value: Value::new(value.to_owned()).unwrap(),
        };
        world.write(content, Wait::All);
        world.run();
        assert!(world.poll_ended().is_some());
        world.lose(7);
        world
    }

    fn list(&self) -> PreferenceList {
        self.core
            .preference_list(&key(), self.options(Wait::All).quorum)
    }

    fn options(&self, wait: Wait) -> RequestOptions {
        RequestOptions {
            quorum: Quorum::new(3, 2).unwrap(),
            wait,
            trace: None,
            ..options(Level::Linearizable)
        }
    }

    fn first(&self) -> ServerId {
        self.list()[0].server
    }

    /// The first server is started anew, and has lost its store.
    fn lose(&mut self, boot_id: u64) {
        let first = self.first();
        self.servers[first.index()] = Server::start(boot_id, true);
    }

    /// Time goes by, and the servers are greeted, so that it is known how they were started.
    fn rest(&mut self, rest: Duration) {
        let until = self.now.at + rest;
        while self.now.at < until {
            self.now.at += rest.min(SECOND);
            self.core.handle_timeout(self.now);
            let ended = Arc::clone(&self.ended);
            let on_end = move |_| ended.lock().unwrap().push_back(Ended::Status);
            self.core
                .status(SECOND, CallerId::Internal, self.now, on_end)
                .unwrap();
            self.run();
            self.poll_ended().unwrap();
        }
    }

    fn begin(&mut self, wait: Wait) -> RequestId {
        let (options, ended) = (self.options(wait), Arc::clone(&self.ended));
        let on_end = move |result: ReadResult| {
            ended.lock().unwrap().push_back(Ended::Read(result.read));
        };
        begin_read(&mut self.core, key(), options, self.now, on_end).unwrap()
    }

    fn write(&mut self, content: Content, wait: Wait) {
        let ended = Arc::clone(&self.ended);
        let on_end = move |result: WriteResult| {
            ended.lock().unwrap().push_back(Ended::Write(result.write));
        };
        let request = WriteRequest {
            key: key(),
            content,
            attributes: Attributes::NONE,
            tag: None,
            list: self.list(),
            options: self.options(wait),
        };
        self.core.write(request, self.now, on_end).unwrap();
    }

    fn poll_ended(&self) -> Option<Ended> {
        self.ended.lock().unwrap().pop_front()
    }

    /// Where the first server stands when a read ends. What follows is carried out, too.
    fn read(&mut self, wait: Wait) -> ReplicaStanding {
        self.begin(wait);
        self.run();
        let Some(Ended::Read(read)) = self.poll_ended() else {
            panic!("no read has ended");
        };
        assert!(matches!(read.outcome(), Some(ReadOutcome::Found(..))));
        read.standing(&read.replicas()[0])
    }

    /// Carries datagrams, a millisecond each, until nobody has anything to say.
    fn run(&mut self) {
        while let Some(server) = self.core.poll_server() {
            while let Some(datagram) = self.core.poll_transmit(server, self.now) {
                let datagram = Bytes::from(datagram);
                let (_, mut messages) = open(&datagram, Proof::Checksum).unwrap();
                let mut is_held = false;
                while let Some(message) = next_request(&mut messages).unwrap() {
                    let request = message.unwrap().request;
                    is_held |= (self.is_held)(&request);
                    if let Request::Command(ReplicaCommand::Attest { boot_id, tag, .. }) = request {
                        self.attests.push((server, boot_id, tag));
                    }
                }
                match is_held {
                    true => self.held.push((server, datagram)),
                    false => self.deliver(server, datagram),
                }
            }
        }
    }

    fn deliver(&mut self, server: ServerId, datagram: Bytes) {
        self.now.at += Duration::from_millis(1);
        for reply in self.servers[server.index()].handle(datagram, self.now) {
            self.core.handle_datagram(server, &reply, self.now);
        }
    }

    fn release(&mut self) {
        self.is_held = |_| false;
        for (server, datagram) in std::mem::take(&mut self.held) {
            self.deliver(server, datagram);
        }
        self.run();
    }
}

const REFUSED: ReplicaStanding = ReplicaStanding::Refused(Refusal::Corrupt);

#[test]
fn a_server_that_lost_its_records_vouches_though_the_read_has_ended() {
    let mut world = World::new("v");
    world.rest(SETTLED);
    let first = world.first();
    assert_eq!(world.read(Wait::Quorum), REFUSED);
    assert!(matches!(world.attests[..], [(to, 7, _)] if to == first));
    assert_eq!(world.read(Wait::Quorum), ReplicaStanding::Match);
    assert_eq!(world.attests.len(), 1);
    assert_eq!(world.core.attestations.len(), 0);
}

#[test]
fn a_read_that_waits_for_all_tells_that_it_was_repaired() {
    let mut world = World::new("v");
    world.rest(SETTLED);
    assert_eq!(world.read(Wait::All), ReplicaStanding::Repaired);
    assert_eq!(world.attests.len(), 1);
    assert_eq!(world.read(Wait::All), ReplicaStanding::Match);
}

#[test]
fn a_long_value_is_vouched_for_when_the_last_of_it_is_stored() {
    let mut world = World::new(&"v".repeat(10_000));
    world.rest(SETTLED);
    assert_eq!(world.read(Wait::Quorum), REFUSED);
    assert_eq!(world.attests.len(), 1);
    assert_eq!(world.read(Wait::Quorum), ReplicaStanding::Match);
}

#[test]
fn a_read_that_began_before_the_incarnation_was_known_is_no_evidence() {
    for wait in [Wait::Quorum, Wait::All] {
        let mut world = World::new("v");
        world.now.at += SECOND;
        assert_eq!(world.read(wait), REFUSED);
        assert_eq!(world.attests, []);
        world.rest(SETTLED);
        world.read(wait);
        assert_eq!(world.attests.len(), 1);
        assert_eq!(world.read(wait), ReplicaStanding::Match);
    }
}

/// A write has the word of the first server, which then loses the record. By the time when a read
/// that has not seen the record is evidence, the write is over: else it would be confirmed by the
/// second server and what the first has lost, and a read from the first and the third would be
/// told the value before it.
#[test]
fn no_write_is_confirmed_by_what_a_server_lost_once_it_vouches() {
    let mut world = World::new("v");
    world.rest(SETTLED);
    world.read(Wait::All);
    world.attests.clear();
    let first = world.first();
    let second = world.list()[1].server;

    world.is_held = |request| matches!(request, Request::Command(ReplicaCommand::Put { .. }));
    world.write(Content::Tombstone, Wait::Quorum);
    world.run();
    let puts = std::mem::take(&mut world.held);
    world.is_held = |_| false;
    let of_server = |wanted: ServerId| puts.iter().filter(move |(to, _)| *to == wanted);
    for (to, put) in of_server(first) {
        world.deliver(*to, put.clone());
    }
    world.lose(8);
    let mut writer = std::mem::replace(&mut world.core, core_of(3));
    for number in 0..3 {
        world.core.open(ServerId(number), ENDPOINT, 7, world.now);
    }

    let asked = world.now.at;
    while world.read(Wait::All) != ReplicaStanding::Repaired {
        world.rest(SECOND / 10);
        assert!(world.now.at < asked + 2 * SECOND);
    }
    assert_eq!(world.read(Wait::All), ReplicaStanding::Match);

    // The writer stood still meanwhile, and hears the second server before its clock.
    std::mem::swap(&mut world.core, &mut writer);
    for (to, put) in of_server(second) {
        world.deliver(*to, put.clone());
    }
    let Some(Ended::Write(write)) = world.poll_ended() else {
        panic!("no write has ended");
    };
    assert_eq!(write.outcome(), Some(WriteOutcome::TimedOut));
}

#[test]
fn a_late_vouch_for_another_incarnation_is_refused_and_the_next_read_sees_to_it() {
    let mut world = World::new("v");
    world.rest(SETTLED);
    world.is_held = |request| matches!(request, Request::Command(ReplicaCommand::Attest { .. }));
    world.read(Wait::Quorum);
    assert_eq!(world.held.len(), 1);
    // It loses what it was given, and is given it again by somebody else.
    world.lose(8);
    let first = world.first();
    let of_another = world.servers[world.list()[1].server.index()]
        .service
        .store()
        .read_now(&key(), Part::Whole, |held| {
            (held.head().tag, held.value().to_vec())
        });
    let Lookup::Found((tag, value)) = of_another else {
        panic!("{of_another:?}");
    };
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(value).unwrap(),
    };
    let record = Record::new(&key(), tag, content);
    let lost = &world.servers[first.index()].service;
    let put = lost.store().apply(&key(), &record, || Box::new(drop));
    put.unwrap().unwrap();
    world.release();
    assert!(world.servers[first.index()].is_unvouched);

    world.rest(SETTLED);
    world.read(Wait::Quorum);
    assert!(matches!(world.attests[..], [(_, 7, _), (_, 8, _)]));
    assert_eq!(world.read(Wait::Quorum), ReplicaStanding::Match);
}

#[test]
fn a_read_whose_caller_is_gone_is_evidence_all_the_same() {
    let mut world = World::new("v");
    world.rest(SETTLED);
    world.is_held = |request| matches!(request, Request::Command(ReplicaCommand::Put { .. }));
    let id = world.begin(Wait::All);
    world.run();
    world.core.cancel(id, world.now);
    assert_eq!(world.core.attestations.len(), 1);
    world.release();
    assert_eq!(world.attests.len(), 1);
    assert_eq!(world.core.attestations.len(), 0);
}

#[test]
fn a_pending_attestation_goes_with_its_put_however_that_ends() {
    let ends: [fn(&mut World, ServerId); 2] = [
        |world, _| {
            world.now.at += 2 * SECOND;
            world.core.handle_timeout(world.now);
        },
        |world, first| world.core.handle_unreachable(first, world.now),
    ];
    // The long one is an upload.
    for value in ["v", &"v".repeat(10_000)] {
        let mut world = World::new(value);
        world.rest(SETTLED);
        let first = world.first();
        for end in ends {
            world.is_held = |request| {
                matches!(
                    request,
                    Request::Command(ReplicaCommand::Put { .. })
                        | Request::Command(ReplicaCommand::Stage { .. })
                )
            };
            assert_eq!(world.read(Wait::Quorum), REFUSED);
            assert_eq!(world.core.attestations.len(), 1);
            end(&mut world, first);
            assert_eq!(world.core.attestations.len(), 0);
            world.release();
            assert_eq!(world.attests, []);
            world.rest(SETTLED);
        }
    }
}

#[test]
fn pending_attestations_are_bounded() {
    let mut attestations = Attestations::default();
    for number in 0..ATTESTATIONS_MAX as u64 + 10 {
        let at = start_of_time();
        let pending = PendingAttestation {
            key: key(),
            tag: Tag::ZERO,
            started: at,
            deadline: at,
        };
        attestations.insert(RequestId::numbered(number), ServerId(0), pending);
    }
    assert_eq!(attestations.len(), ATTESTATIONS_MAX);
    assert!(
        attestations
            .remove(RequestId::numbered(0), ServerId(1))
            .is_none()
    );
    assert!(
        attestations
            .remove(RequestId::numbered(0), ServerId(0))
            .is_some()
    );
    assert_eq!(attestations.len(), ATTESTATIONS_MAX - 1);
}

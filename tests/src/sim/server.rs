//! A storage server: the production service over a store, its process, and its socket's buffer.
//!
//! It keeps what it holds in memory, or on a disk that forgets. It crashes and starts again with
//! that, with less, or with nothing; it stands still while datagrams wait in a buffer that is
//! bounded; a server of another ring may take its place for a while. What the service and the
//! store do is their own: nothing here looks into a datagram.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::ring::Position;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::session::SessionSecret;
use dkvs_common::wire::v2::{DatagramKind, MAGIC, kind_of};
use dkvs_storage_node::leaves::Membership;
use dkvs_storage_node::maintenance::{Arrival, Maintenance};
use dkvs_storage_node::protocol::{Access, Issuer, Received, V1Response};
use dkvs_storage_node::service::{Served, Service, ServiceConfig};
use dkvs_storage_node::store::{Lookup, MemoryStore, Part, Progress, RecordStore as _, Store};

use super::chance::Chance;
use super::clock::WallClock;
use super::disk_plan::DiskPlan;
use super::moment::Moment;
use super::on_disk::{AtWork, Harm, OnDisk};
use super::plan::ServerPlan;
use super::v1_plan::Dialect;
use crate::random::Random;

/// One server of the cluster.
pub struct Server {
    plan: ServerPlan,
    ring: Ring,
    keys: Option<Keys>,
    random: Random,
    /// What it keeps its records on, if not in memory.
    disk: Option<OnDisk>,
    state: State,
    inbox: VecDeque<Inbound>,
    /// Until when it works on the last datagram that it took.
    busy_until: Moment,
    /// The turn that it waits for.
    turn: Option<Moment>,
    /// Who answers in its place now and then, if it lies.
    liar: Option<Process>,
    dialect: Dialect,
    /// By which it mints tags for what comes by DKVS/1.
    clock: WallClock,
    /// What it is in its cluster, if it knows that.
    membership: Option<Membership>,
}

/// The ring that a server belongs to, and how long its datagrams may be.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    pub served: Served,
    pub datagram_bytes_max: usize,
}

/// What came of an event of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskEvent {
    /// The disk has done what was begun.
    Done,
    /// The process stands still.
    Paused,
    /// The process that began it is gone.
    Gone,
}

enum State {
    Up {
        process: Process,
        is_paused: bool,
    },
    /// What it will have when it starts again, and the server of another ring that has its address
    /// meanwhile.
    Down {
        kept: Store,
        foreign: Option<Process>,
    },
}

struct Process {
    service: Arc<Service>,
    maintenance: Maintenance,
    access: Access,
    /// What its disk is doing, if it has one.
    at_work: Option<AtWork>,
    /// The gateway at each address that has asked.
    gateways: BTreeMap<SocketAddrV4, usize>,
}

/// A datagram in the buffer.
#[derive(Debug, Clone)]
pub struct Inbound {
    pub number: u64,
    pub gateway: usize,
    pub peer: SocketAddrV4,
    pub datagram: Bytes,
    pub arrived: Moment,
}

/// Whether a datagram that arrived was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// It is in the buffer.
    Taken,
    /// The buffer is full.
    Full,
    /// Nobody listens at the port.
    Nobody,
}

/// How often a server lies that does.
const LIES: Chance = Chance::percent(2);

impl Server {
    /// A server with an empty store, which is up.
    pub fn new(
        plan: ServerPlan,
        disks: Option<DiskPlan>,
        ring: Ring,
        keys: Option<Keys>,
        [random, disk_random]: [Random; 2],
        (dialect, ahead_ms): (Dialect, i64),
        membership: Option<Membership>,
    ) -> Self {
        // The servers of the original system have none.
        let disks = disks.filter(|_| dialect != Dialect::V1);
        let on_disk = |plan| OnDisk::new(plan, disk_random);
        let mut server = Self {
            disk: disks.map(on_disk),
            plan,
            ring,
            keys,
            random,
            state: State::Down {
                kept: empty(),
                foreign: None,
            },
            inbox: VecDeque::new(),
            busy_until: Moment::START,
            turn: None,
            liar: None,
            dialect,
            clock: WallClock::new(ahead_ms, 0),
            membership,
        };
        server.start(Moment::START);
        server
    }

    /// Whether its own process runs, be it paused.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Whether its own process runs and stands still.
    pub fn is_paused(&self) -> bool {
        matches!(self.state, State::Up { is_paused, .. } if is_paused)
    }

    /// What it holds, or will hold again.
    pub fn store(&self) -> &Store {
        match &self.state {
            State::Up { process, .. } => process.service.store(),
            State::Down { kept, .. } => kept,
        }
    }

    /// From now on, another store answers in its place now and then: it confirms what it does not
    /// keep. Where there are keys, nobody believes it.
    pub fn lie(&mut self) {
        let served = Some(self.ring.served);
        self.liar = Some(self.process(empty(), served, None));
    }

    /// Whether it started without what it had confirmed.
    pub fn has_lost(&self) -> bool {
        self.disk.as_ref().is_some_and(OnDisk::has_lost)
    }

    /// In how many leaves of the ring it may have lost records.
    pub fn incomplete_leaves(&self) -> usize {
        let State::Up { process, .. } = &self.state else {
            return 0;
        };
        let leaf_sums = process.service.leaf_sums();
        leaf_sums.map_or(0, |leaf_sums| leaf_sums.incomplete())
    }

    /// Whether it answers for a key: with its record, or that it has none.
    pub fn answers_for(&self, key: &Key) -> bool {
        match &self.state {
            State::Up { process, .. } => {
                let store = process.service.store();
                let is_starting = process.service.is_starting();
                !is_starting && !matches!(store.read_now(key, Part::Whole, |_| ()), Lookup::Corrupt)
            }
            State::Down { .. } => false,
        }
    }

    /// Where its peers know it to be, if it compares itself with them.
    pub fn addr(&self) -> Option<SocketAddrV4> {
        let membership = self.membership.as_ref()?;
        membership.view.cluster().addr(membership.own)
    }

    /// Whether it compares itself with peers, and asks them whether it is set back.
    pub fn compares_itself(&self) -> bool {
        self.membership.is_some() && self.plan.compares && self.disk.is_some()
    }

    /// How far its store was when the copy of its disk was made that there is.
    pub fn copied_at(&self) -> Option<Progress> {
        self.disk.as_ref()?.copied_at()
    }

    /// Whether it has noted that a peer was further than this.
    pub fn is_behind(&self, peer: SocketAddrV4, progress: Progress) -> bool {
        let State::Up { process, .. } = &self.state else {
            return false;
        };
        let marks = process.service.peer_marks();
        marks.is_behind(peer, progress.lineage, progress.sequence)
    }

    /// The process ends. What is in the buffer is lost; of what it holds, what `harm` says.
    pub fn crash(&mut self, harm: Harm) {
        let nobody = State::Down {
            kept: empty(),
            foreign: None,
        };
        match std::mem::replace(&mut self.state, nobody) {
            State::Up { process, .. } => match &mut self.disk {
                Some(disk) => {
                    disk.keep_marks(process.service.peer_marks());
                    disk.crash(process.at_work, harm);
                }
                None if harm == Harm::Amnesia => {}
                None => {
                    let kept = process.into_store();
                    let foreign = None;
                    self.state = State::Down { kept, foreign };
                }
            },
            down @ State::Down { .. } => self.state = down,
        }
        self.inbox.clear();
    }

    /// A server of another ring takes the address of one that is down.
    pub fn replace_by_foreign_server(&mut self) {
        let mut served = self.ring.served;
        served.epoch.hash ^= 1;
        served.ring ^= 1;
        // The same servers in the same places, of a cluster that had other keys.
        let membership = self.membership.clone();
        let process = self.process(empty(), Some(served), membership);
        if let State::Down { foreign, .. } = &mut self.state {
            *foreign = Some(process);
        }
        self.inbox.clear();
    }

    /// The process starts, with what the one before it left, under another boot id.
    pub fn start(&mut self, now: Moment) {
        let kept = match &mut self.state {
            State::Down { kept, .. } => std::mem::replace(kept, empty()),
            State::Up { .. } => return,
        };
        let served = self.plan.knows_ring.then_some(self.ring.served);
        let opened = self.disk.as_mut().map(OnDisk::open);
        let membership = self.membership.clone();
        let process = match opened {
            Some(opened) => {
                let disk = self.disk.as_ref();
                let scrub = disk.and_then(|disk| disk.begin_scrub(&opened.store, now));
                let mut process = self.process(Store::Disk(opened.store), served, membership);
                if let Some(disk) = &self.disk {
                    disk.load_marks(process.service.peer_marks());
                }
                process.at_work = Some(AtWork::new(opened.committer, scrub));
                process
            }
            None => self.process(kept, served, membership),
        };
        let is_paused = false;
        self.state = State::Up { process, is_paused };
        self.inbox.clear();
    }

    /// The process stands still, or goes on.
    pub fn set_paused(&mut self, pause: bool) {
        if let State::Up { is_paused, .. } = &mut self.state {
            *is_paused = pause;
        }
    }

    /// From now on its buffer holds whatever comes.
    pub fn heal(&mut self) {
        self.plan.buffer_datagrams = usize::MAX;
    }

    /// A datagram arrives.
    pub fn receive(&mut self, inbound: Inbound) -> Reception {
        if matches!(self.state, State::Down { foreign: None, .. }) {
            return Reception::Nobody;
        }
        if self.inbox.len() >= self.plan.buffer_datagrams {
            return Reception::Full;
        }
        self.inbox.push_back(inbound);
        Reception::Taken
    }

    /// When it is to be served next, returned once for each turn; none if there is no datagram to
    /// take, or it stands still.
    pub fn next_turn(&mut self, now: Moment) -> Option<Moment> {
        let turn = self.busy_until.max(now);
        let is_waiting = !self.inbox.is_empty() && !self.is_paused() && self.turn != Some(turn);
        is_waiting.then(|| *self.turn.insert(turn))
    }

    /// Takes the next datagram and answers it. Returns how long that takes: the replies leave then.
    pub fn serve(&mut self, now: Moment) -> Option<(Inbound, Vec<Bytes>, Duration)> {
        if self.is_paused() || now < self.busy_until {
            return None;
        }
        let inbound = self.inbox.pop_front()?;
        let takes = self.plan.service.draw(&mut self.random);
        let process = match &mut self.state {
            State::Up { process, .. } => process,
            State::Down { foreign, .. } => foreign.as_mut()?,
        };
        self.busy_until = now + takes;
        let lies = self.liar.is_some() && LIES.happens(&mut self.random);
        let process = self.liar.as_mut().filter(|_| lies).unwrap_or(process);
        let replies = process.answer(&inbound, now, self.dialect, self.clock);
        Some((inbound, replies, takes))
    }

    /// Takes to the disk what has gathered, unless it is at that already. Returns which start of the
    /// server that was, and how long it takes.
    pub fn begin_commit(&mut self) -> Option<(u64, Duration)> {
        let (disk, at_work) = self.at_work()?;
        at_work.begin_commit().then(|| disk.commit_begins())
    }

    /// The disk has what was begun by this start of the server.
    pub fn finish_commit(&mut self, start: u64) -> DiskEvent {
        self.disk_event(start, OnDisk::finish_commit)
    }

    /// Has the disk read, if a read waits for it. Returns which start of the server that was, and how
    /// long it takes.
    pub fn begin_read(&mut self) -> Option<(u64, Duration)> {
        let State::Up { process, .. } = &self.state else {
            return None;
        };
        let Store::Disk(store) = process.service.store() else {
            return None;
        };
        let store = Arc::clone(store);
        let (disk, at_work) = self.at_work()?;
        at_work.begin_read(&store).then(|| disk.read_begins())
    }

    /// The disk has read what was begun by this start of the server.
    pub fn finish_read(&mut self, start: u64, now: Moment) -> DiskEvent {
        self.disk_event(start, |_, at_work| at_work.finish_read(now))
    }

    fn at_work(&mut self) -> Option<(&mut OnDisk, &mut AtWork)> {
        match &mut self.state {
            State::Up {
                process,
                is_paused: false,
            } => Some((self.disk.as_mut()?, process.at_work.as_mut()?)),
            State::Up { .. } | State::Down { .. } => None,
        }
    }

    fn disk_event(
        &mut self,
        start: u64,
        event: impl FnOnce(&mut OnDisk, &mut AtWork),
    ) -> DiskEvent {
        if self.disk.as_ref().is_none_or(|disk| !disk.is_start(start)) || !self.is_up() {
            return DiskEvent::Gone;
        }
        match self.at_work() {
            Some((disk, at_work)) => {
                event(disk, at_work);
                DiskEvent::Done
            }
            None => DiskEvent::Paused,
        }
    }

    /// When its background work is to go on; none if it has none, or stands still.
    pub fn next_timeout(&self) -> Option<Moment> {
        match &self.state {
            State::Up {
                process,
                is_paused: false,
            } => {
                let maintenance = process.maintenance.poll_timeout().map(Moment::of);
                let scrub = process.at_work.as_ref().and_then(AtWork::next_scrub);
                maintenance.into_iter().chain(scrub).min()
            }
            State::Up { .. } | State::Down { .. } => None,
        }
    }

    /// Reads again what nobody asks for, if it is time.
    pub fn scrub(&mut self, now: Moment) {
        if let Some((_, at_work)) = self.at_work() {
            at_work.scrub(now);
        }
    }

    /// Does so no more.
    pub fn end_scrub(&mut self) {
        if let Some((_, at_work)) = self.at_work() {
            at_work.end_scrub();
        }
    }

    /// Lets its background work go on, and returns what that sends, and to which gateway.
    pub fn maintain(&mut self, now: Moment) -> Vec<(usize, SocketAddrV4, Bytes)> {
        let State::Up {
            process,
            is_paused: false,
        } = &mut self.state
        else {
            return Vec::new();
        };
        let maintenance = &mut process.maintenance;
        if maintenance
            .poll_timeout()
            .is_some_and(|due| due <= now.instant())
        {
            maintenance.handle_timeout(now.instant());
        }
        maintenance.handle(Arrival::Completions);
        let mut sent = Vec::new();
        while let Some(transmit) = maintenance.poll_transmit() {
            if let SocketAddr::V4(peer) = transmit.peer
                && let Some(gateway) = process.gateways.get(&peer)
            {
                sent.push((*gateway, peer, transmit.datagram));
            }
        }
        sent
    }

    /// What answers for it, while its process runs.
    pub fn service(&self) -> Option<Arc<Service>> {
        match &self.state {
            State::Up { process, .. } => Some(Arc::clone(&process.service)),
            State::Down { .. } => None,
        }
    }

    fn process(
        &mut self,
        store: Store,
        served: Option<Served>,
        membership: Option<Membership>,
    ) -> Process {
        let config = ServiceConfig {
            served,
            datagram_bytes_max: self.ring.datagram_bytes_max,
            leaf_depth_min: self.plan.leaf_depth,
            asks_peers_first: membership.is_some()
                && self.plan.compares
                && matches!(store, Store::Disk(_)),
            ..ServiceConfig::new(self.random.number())
        };
        let access = match &self.keys {
            None => Access::Open,
            Some(keys) => {
                let secret = self.random.bytes(32);
                let secret = secret.as_slice().try_into().expect("32 bytes");
                let issuer = Arc::new(Issuer::new(SessionSecret::new(secret)));
                Access::keyed(keys.clone(), issuer)
            }
        };
        let service = Arc::new(Service::of_member(store, config, membership));
        Process {
            maintenance: Maintenance::new(Arc::clone(&service), || {}),
            service,
            at_work: None,
            gateways: BTreeMap::new(),
            access,
        }
    }
}

/// A store in memory that holds nothing.
fn empty() -> Store {
    Store::Memory(MemoryStore::new(usize::MAX))
}

/// A store in memory that holds the same, as one that was read from a disk does: what follows the changes
/// of a store does so for as long as that lives.
fn copied(store: &Store) -> Store {
    let copy = MemoryStore::new(usize::MAX);
    let mut keys = Vec::new();
    store.scan(Position([0; 20]), None, |held| {
        keys.extend(Key::new(held.key().to_vec()));
        ControlFlow::Continue(())
    });
    for key in keys {
        let record = store.read_now(&key, Part::Whole, |held| Record {
            tag: held.head().tag,
            attributes: held.attributes(),
            content: match held.head().is_tombstone {
                true => Content::Tombstone,
                false => Content::Value {
                    content_type: ContentType::new(held.content_type().to_vec())
                        .expect("it was one before"),
                    value: Value::new(held.value().to_vec()).expect("it was one before"),
                },
            },
            checksum: held.head().checksum,
        });
        if let Lookup::Found(record) = record {
            let _ = copy.apply(&key, &record, || Box::new(drop));
        }
    }
    Store::Memory(copy)
}

impl Process {
    /// Ends it, and leaves what it holds.
    fn into_store(self) -> Store {
        drop(self.maintenance);
        let service = Arc::into_inner(self.service);
        copied(&service.expect("nobody else has it").into_store())
    }

    /// As a worker of the server does, datagram by datagram.
    fn answer(
        &mut self,
        inbound: &Inbound,
        now: Moment,
        dialect: Dialect,
        clock: WallClock,
    ) -> Vec<Bytes> {
        let mut replies = Vec::new();
        self.gateways.insert(inbound.peer, inbound.gateway);
        let kind = match dialect {
            Dialect::Both => kind_of(&inbound.datagram),
            Dialect::Lenient if inbound.datagram.starts_with(&MAGIC) => DatagramKind::V2,
            Dialect::Lenient | Dialect::V1 => DatagramKind::V1,
        };
        if kind == DatagramKind::DamagedV2 {
            return replies;
        }
        if kind == DatagramKind::V2 {
            let received = Received {
                datagram: inbound.datagram.clone(),
                peer: SocketAddr::V4(inbound.peer),
                at: now.instant(),
                waited: now.since(inbound.arrived),
            };
            let send = &mut |reply: Vec<u8>| replies.push(reply.into());
            let backlog = self.maintenance.backlog();
            self.service
                .handle_v2(&received, &mut self.access, backlog, send);
        } else if let V1Response::Datagram(reply) = self.service.handle_v1(
            inbound.datagram.clone(),
            SocketAddr::V4(inbound.peer),
            clock.unix_ms(now),
            self.maintenance.backlog().replies(),
        ) {
            replies.push(reply);
        }
        replies
    }
}

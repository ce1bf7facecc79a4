//! A storage server: the production service over a store, its process, and its socket's buffer.
//!
//! It crashes and starts again with its store, or with none; it stands still while datagrams wait
//! in a buffer that is bounded; a server of another ring may take its place for a while. What the
//! service does is its own: nothing here looks into a datagram.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkvs_common::wire::v2::is_v2;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::session::SessionSecret;
use dkvs_storage_node::service::access::Access;
use dkvs_storage_node::service::late::Mailbox;
use dkvs_storage_node::service::sessions::Issuer;
use dkvs_storage_node::service::{Config, Received, Response, Service};
use dkvs_storage_node::store::{MemoryStore, Store};

use super::chance::Chance;
use super::moment::Moment;
use super::plan::ServerPlan;
use crate::random::Random;

/// One server of the cluster.
pub struct Server {
    plan: ServerPlan,
    ring: Ring,
    keys: Option<Keys>,
    random: Random,
    state: State,
    inbox: VecDeque<Inbound>,
    /// Until when it works on the last datagram that it took.
    busy_until: Moment,
    /// The turn that it waits for.
    turn: Option<Moment>,
    /// Who answers in its place now and then, if it lies.
    liar: Option<Process>,
}

/// The ring that a server belongs to, and how long its datagrams may be.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    pub epoch: u32,
    pub datagram_bytes_max: usize,
}

enum State {
    Up {
        process: Process,
        is_paused: bool,
    },
    /// What it will have when it starts again, and who has its address meanwhile.
    Down {
        kept: MemoryStore,
        stranger: Option<Process>,
    },
}

struct Process {
    service: Service,
    access: Access,
    mailbox: Arc<Mailbox>,
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

/// What became of a datagram that arrived.
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
    pub fn new(plan: ServerPlan, ring: Ring, keys: Option<Keys>, random: Random) -> Self {
        let mut server = Self {
            plan,
            ring,
            keys,
            random,
            state: State::Down {
                kept: MemoryStore::new(usize::MAX),
                stranger: None,
            },
            inbox: VecDeque::new(),
            busy_until: Moment::START,
            turn: None,
            liar: None,
        };
        server.start();
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
    pub fn store(&self) -> &MemoryStore {
        match &self.state {
            State::Up { process, .. } => process.service.store().records(),
            State::Down { kept, .. } => kept,
        }
    }

    /// From now on, another store answers in its place now and then: it confirms what it does not
    /// keep. Where there are keys, nobody believes it.
    pub fn lie(&mut self) {
        let epoch = Some(self.ring.epoch);
        self.liar = Some(self.process(MemoryStore::new(usize::MAX), epoch));
    }

    /// The process ends. What is in the buffer is lost; the store is, too, if it `forgets`.
    pub fn crash(&mut self, forgets: bool) {
        let nobody = State::Down {
            kept: MemoryStore::new(usize::MAX),
            stranger: None,
        };
        match std::mem::replace(&mut self.state, nobody) {
            State::Up { process, .. } if !forgets => {
                let Store::Memory(kept) = process.service.into_store() else {
                    unreachable!("it is in memory");
                };
                let stranger = None;
                self.state = State::Down { kept, stranger };
            }
            State::Up { .. } => {}
            down @ State::Down { .. } => self.state = down,
        }
        self.inbox.clear();
    }

    /// A server of another ring takes the address of one that is down.
    pub fn give_place(&mut self) {
        let epoch = Some(self.ring.epoch ^ 1);
        let process = self.process(MemoryStore::new(usize::MAX), epoch);
        if let State::Down { stranger, .. } = &mut self.state {
            *stranger = Some(process);
        }
        self.inbox.clear();
    }

    /// The process starts, with what the one before it left, under another boot id.
    pub fn start(&mut self) {
        let none = MemoryStore::new(0);
        let kept = match &mut self.state {
            State::Down { kept, .. } => std::mem::replace(kept, none),
            State::Up { .. } => return,
        };
        let epoch = self.plan.knows_ring.then_some(self.ring.epoch);
        let process = self.process(kept, epoch);
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
        if matches!(self.state, State::Down { stranger: None, .. }) {
            return Reception::Nobody;
        }
        if self.inbox.len() >= self.plan.buffer_datagrams {
            return Reception::Full;
        }
        self.inbox.push_back(inbound);
        Reception::Taken
    }

    /// When it is to be served next, told once for each turn; none if there is no datagram to
    /// take, or it stands still.
    pub fn next_turn(&mut self, now: Moment) -> Option<Moment> {
        let turn = self.busy_until.max(now);
        let is_waiting = !self.inbox.is_empty() && !self.is_paused() && self.turn != Some(turn);
        is_waiting.then(|| *self.turn.insert(turn))
    }

    /// Takes the next datagram and answers it. Tells how long that takes: the replies leave then.
    pub fn serve(&mut self, now: Moment) -> Option<(Inbound, Vec<Bytes>, Duration)> {
        if self.is_paused() || now < self.busy_until {
            return None;
        }
        let inbound = self.inbox.pop_front()?;
        let takes = self.plan.service.draw(&mut self.random);
        let process = match &mut self.state {
            State::Up { process, .. } => process,
            State::Down { stranger, .. } => stranger.as_mut()?,
        };
        self.busy_until = now + takes;
        let lies = self.liar.is_some() && LIES.happens(&mut self.random);
        let process = self.liar.as_mut().filter(|_| lies).unwrap_or(process);
        let replies = process.answer(&inbound, now);
        Some((inbound, replies, takes))
    }

    fn process(&mut self, store: MemoryStore, epoch: Option<u32>) -> Process {
        let config = Config {
            epoch,
            datagram_bytes_max: self.ring.datagram_bytes_max,
            ..Config::new(self.random.number())
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
        Process {
            service: Service::new(Store::Memory(store), config),
            mailbox: Mailbox::new(|| {}),
            access,
        }
    }
}

impl Process {
    /// As a worker of the server does, datagram by datagram.
    fn answer(&mut self, inbound: &Inbound, now: Moment) -> Vec<Bytes> {
        let mut replies = Vec::new();
        if is_v2(&inbound.datagram) {
            let received = Received {
                datagram: inbound.datagram.clone(),
                peer: SocketAddr::V4(inbound.peer),
                at: now.instant(),
                waited: now.since(inbound.arrived),
            };
            let send = &mut |reply: Vec<u8>| replies.push(reply.into());
            self.service
                .handle_v2(&received, &mut self.access, &self.mailbox, send);
        } else if let Response::Datagram(reply) =
            // Damage alone makes such a datagram. What it puts, it puts under no key of ours.
            self.service.handle_v1(
                inbound.datagram.clone(),
                SocketAddr::V4(inbound.peer),
                0,
                &self.mailbox,
            )
        {
            replies.push(reply);
        }
        replies
    }
}

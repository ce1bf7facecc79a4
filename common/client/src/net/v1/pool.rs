//! The DKVS/1 sockets of a worker: those that expect nothing, kept for reuse, and those that wait
//! for an overdue reply.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::server_map::ServerMap;
use dkvs_common::wire::v1::DATAGRAM_BYTES_MAX;
use tokio::sync::oneshot;

use super::super::shared::Shared;
use super::socket::{OpenSockets, PooledSocket};
use crate::core::AdmissionError;

/// How long a socket rests after a reply, for repeats of the reply to arrive.
const REST: Duration = Duration::from_millis(20);

/// How long a pooled socket is kept for reuse.
const KEEP: Duration = Duration::from_secs(60);

/// How many sockets are opened in search of a port that is not burned.
const PORT_TRIES: usize = 64;

/// All DKVS/1 sockets of a worker. Clones are handles to the same pool.
#[derive(Clone)]
pub(in crate::net) struct Pool {
    shared: Arc<Shared>,
    state: Arc<Mutex<PoolState>>,
    open: OpenSockets,
    sockets_max: usize,
}

struct PoolState {
    /// Per server, the sockets that expect nothing, with the time of their last reply, the longest
    /// rested first.
    idle: ServerMap<VecDeque<(PooledSocket, Instant)>>,
    /// The exchanges whose reply is overdue, the oldest first. Dropping a sender makes its exchange
    /// give up.
    overdue: BTreeMap<u64, oneshot::Sender<Infallible>>,
    next_overdue: u64,
    buffer: Box<[u8]>,
}

/// An exchange that waits for an overdue reply.
pub(super) struct Overdue {
    pub(super) number: u64,
    /// Ends when the exchange has to give up its socket.
    pub(super) given_up: oneshot::Receiver<Infallible>,
}

impl Pool {
    pub(in crate::net) fn new(shared: Arc<Shared>, sockets_max: usize) -> Self {
        Self {
            shared,
            state: Arc::new(Mutex::new(PoolState {
                idle: ServerMap::default(),
                overdue: BTreeMap::new(),
                next_overdue: 0,
                // One byte more than the longest datagram, so that a longer one is noticed.
                buffer: vec![0; DATAGRAM_BYTES_MAX + 1].into(),
            })),
            open: OpenSockets::default(),
            sockets_max,
        }
    }

    /// Records that a server answered, at `now`, what was sent to it at `sent_at`.
    pub(super) fn record_reply(&self, server: ServerId, sent_at: Instant, now: Instant) {
        self.shared.burned_ports.answered(server, sent_at, now);
    }

    /// How many sockets are open.
    pub(in crate::net) fn open_sockets(&self) -> usize {
        self.open.count()
    }

    /// A socket for each of `servers`; none where the server owes so many replies that no socket
    /// towards it is safe. Fails, without taking any, if no more sockets can be opened.
    pub(in crate::net) fn take(
        &self,
        servers: &[(ServerId, SocketAddr)],
    ) -> Result<Vec<Option<PooledSocket>>, AdmissionError> {
        let mut sockets = Vec::with_capacity(servers.len());
        for (server, addr) in servers {
            match self.take_one(*server, *addr) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    self.give_back(sockets);
                    tracing::warn!(%error, "no socket for a request");
                    let what = "no socket towards the servers can be had";
                    return Err(AdmissionError::Overloaded { what });
                }
            }
        }
        Ok(sockets)
    }

    /// Takes back sockets on which nothing was sent.
    fn give_back(&self, sockets: Vec<Option<PooledSocket>>) {
        let rested = Instant::now()
            .checked_sub(REST)
            .unwrap_or_else(Instant::now);
        let mut state = self.state();
        for socket in sockets.into_iter().rev().flatten() {
            let idle = state
                .idle
                .get_or_insert_with(socket.server(), VecDeque::new);
            idle.push_front((socket, rested));
        }
    }

    /// Takes back a socket that was answered and expects nothing more.
    pub(super) fn pool(&self, socket: PooledSocket) {
        let now = Instant::now();
        let mut outdated = Vec::new();
        let mut state = self.state();
        let idle = state
            .idle
            .get_or_insert_with(socket.server(), VecDeque::new);
        while let Some((_, since)) = idle.front()
            && now.saturating_duration_since(*since) > KEEP
        {
            outdated.extend(idle.pop_front());
        }
        idle.push_back((socket, now));
        // The outdated ones are closed after the lock is released.
        drop(state);
    }

    /// Closes a socket to which a late reply may still come, to what was sent at `sent`.
    pub(super) fn burn(&self, socket: PooledSocket, sent: Instant) {
        let ports = &self.shared.burned_ports;
        ports.burn(socket.server(), socket.port(), sent);
    }

    /// Registers an exchange whose reply is overdue.
    pub(super) fn enter_overdue(&self) -> Overdue {
        let (sender, given_up) = oneshot::channel();
        let mut state = self.state();
        let number = state.next_overdue;
        state.next_overdue += 1;
        state.overdue.insert(number, sender);
        Overdue { number, given_up }
    }

    pub(super) fn leave_overdue(&self, number: u64) {
        self.state().overdue.remove(&number);
    }

    /// Reads the next datagram that has arrived on `socket`.
    pub(super) fn receive_now(&self, socket: &PooledSocket) -> io::Result<Bytes> {
        let mut state = self.state();
        let length = socket.receive_now(&mut state.buffer)?;
        Ok(Bytes::copy_from_slice(&state.buffer[..length]))
    }

    fn take_one(&self, server: ServerId, addr: SocketAddr) -> io::Result<Option<PooledSocket>> {
        let now = Instant::now();
        while let Some(socket) = self.take_rested(server, now) {
            if socket.is_silent() {
                return Ok(Some(socket));
            }
            tracing::warn!(%addr, "the server answered more often than it was asked");
            self.burn(socket, now);
        }
        self.open(server, addr, now)
    }

    fn take_rested(&self, server: ServerId, now: Instant) -> Option<PooledSocket> {
        let mut state = self.state();
        let idle = state.idle.get_mut(server)?;
        let (_, since) = idle.front()?;
        if now.saturating_duration_since(*since) < REST {
            return None;
        }
        idle.pop_front().map(|(socket, _)| socket)
    }

    fn open(
        &self,
        server: ServerId,
        addr: SocketAddr,
        now: Instant,
    ) -> io::Result<Option<PooledSocket>> {
        let ports = &self.shared.burned_ports;
        if !ports.admits(server, now) {
            return Ok(None);
        }
        self.make_room();
        let mut burned = Vec::new();
        while burned.len() < PORT_TRIES {
            let socket = PooledSocket::connect(server, addr, &self.open, self.sockets_max)?;
            if !ports.is_burned(server, socket.port()) {
                return Ok(Some(socket));
            }
            // It stays open during the search, so that the system assigns another port.
            burned.push(socket);
        }
        Ok(None)
    }

    /// Where few more sockets may be opened, gives one up: that of the exchange whose reply is
    /// overdue the longest, or else an idle one. An exchange gives up only when its task runs, so an
    /// eighth of the sockets is kept in reserve.
    fn make_room(&self) {
        if self.open.count() < self.sockets_max - self.sockets_max / 8 {
            return;
        }
        let mut state = self.state();
        let overdue = state.overdue.pop_first();
        let idle = match &overdue {
            Some(_) => None,
            None => {
                let idle = state.idle.iter_mut().map(|(_, idle)| idle);
                let fullest = idle.max_by_key(|idle| idle.len());
                fullest.and_then(VecDeque::pop_front)
            }
        };
        drop(state);
        drop((overdue, idle));
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

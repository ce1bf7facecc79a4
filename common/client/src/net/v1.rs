//! Sockets that speak DKVS/1.
//!
//! The protocol has no request ids: a reply belongs to a request because it comes from the asked
//! server to the asking socket. So every question to a server has a socket for itself, connected
//! to that server, which makes the system drop whatever comes from anyone else and tell us of a
//! port where nobody listens.
//!
//! ```text
//!            take                  reply, or "nobody listens"
//!   pooled -------> asked -----------------------------------> pooled (owes nothing)
//!   (rested)          |
//!                     | deadline       reply
//!                     +---------> owed ---------> pooled
//!                                   |  held too long, or its place is needed
//!                                   +---------------------> closed, its port burned
//! ```
//!
//! A datagram that is no reply to the question changes nothing: the true one may yet come.
//!
//! A network may also repeat a reply. The repeat would be taken for the reply to the socket's
//! next question, so a socket rests before it is used again, and one on which anything arrived
//! meanwhile is closed and its port burned. A repeat that is later than that cannot be told from
//! a reply by anyone: it is a limit of the protocol.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::server_map::ServerMap;
use dkvs_common::wire::v1::DATAGRAM_BYTES_MAX;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::shared::Shared;
use crate::core::{AdmissionError, Token};
use crate::transport::v1::{Exchange as Command, decode};

/// What each socket asks the system to buffer, in bytes: a few of the largest datagrams.
pub const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// How long a socket is left alone after a reply, for repeats of it to arrive.
const REST: Duration = Duration::from_millis(20);

/// How long a pooled socket is kept for use.
const KEEP: Duration = Duration::from_secs(60);

/// How long a socket is kept open for a reply that is overdue.
const HOLD: Duration = Duration::from_secs(60);

/// How many sockets are opened in search of a port that is not burned.
const PORT_TRIES: usize = 64;

/// All sockets of a worker. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    pools: Arc<Mutex<Pools>>,
    open: Arc<AtomicUsize>,
    sockets_max: usize,
}

struct Pools {
    /// Per server, the sockets that owe nothing, the longest rested first.
    idle: ServerMap<VecDeque<(PooledSocket, Instant)>>,
    /// The exchanges whose reply is overdue, the oldest first. To drop a sender is to tell its
    /// exchange to give up.
    overdue: BTreeMap<u64, oneshot::Sender<Infallible>>,
    next_overdue: u64,
    buffer: Box<[u8]>,
}

/// A socket connected to one server, counted while it is open.
pub(super) struct PooledSocket {
    socket: UdpSocket,
    server: ServerId,
    addr: SocketAddr,
    port: u16,
    open: Arc<AtomicUsize>,
}

impl Drop for PooledSocket {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a socket.
enum Settled {
    /// It owes nothing.
    Clean,
    /// Something may still arrive on it.
    Owing,
}

impl Pool {
    pub(super) fn new(shared: Arc<Shared>, sockets_max: usize) -> Self {
        Self {
            shared,
            pools: Arc::new(Mutex::new(Pools {
                idle: ServerMap::default(),
                overdue: BTreeMap::new(),
                next_overdue: 0,
                // One byte more than the longest datagram, so that a longer one shows.
                buffer: vec![0; DATAGRAM_BYTES_MAX + 1].into(),
            })),
            open: Arc::default(),
            sockets_max,
        }
    }

    /// How many sockets are open.
    pub(super) fn open_sockets(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A socket for each of `servers`, or none where the server owes so many replies that no
    /// socket towards it is safe. Fails if there are no sockets at all to be had.
    pub(super) fn take(
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

    /// Takes back sockets on which nothing was asked.
    pub(super) fn give_back(&self, sockets: Vec<Option<PooledSocket>>) {
        let rested = Instant::now()
            .checked_sub(REST)
            .unwrap_or_else(Instant::now);
        let mut pools = self.pools();
        for socket in sockets.into_iter().rev().flatten() {
            let idle = pools.idle.get_or_insert_with(socket.server, VecDeque::new);
            idle.push_front((socket, rested));
        }
    }

    /// Sends a command and sees to its reply, on a task of its own.
    pub(super) fn begin<R: Recipient>(
        &self,
        recipient: R,
        command: Command<Token>,
        socket: PooledSocket,
    ) {
        let sent = match socket.socket.try_send(&command.datagram) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Later,
            Err(error) => Sent::Failed(error),
            Ok(_) => Sent::Now,
        };
        let exchange = Exchange {
            pool: self.clone(),
            recipient,
            command,
            asked_at: Instant::now(),
        };
        tokio::spawn(exchange.run(socket, sent));
    }

    fn take_one(&self, server: ServerId, addr: SocketAddr) -> io::Result<Option<PooledSocket>> {
        let now = Instant::now();
        loop {
            let socket = {
                let mut pools = self.pools();
                let idle = pools.idle.get_or_insert_with(server, VecDeque::new);
                match idle.front() {
                    Some((_, since)) if now.saturating_duration_since(*since) >= REST => {
                        idle.pop_front().map(|(socket, _)| socket)
                    }
                    _ => None,
                }
            };
            match socket {
                Some(socket) if is_silent(&socket.socket) => return Ok(Some(socket)),
                Some(socket) => {
                    tracing::warn!(%addr, "the server answered more often than it was asked");
                    self.burn(socket, now);
                }
                None => return self.open(server, addr, now),
            }
        }
    }

    fn open(
        &self,
        server: ServerId,
        addr: SocketAddr,
        now: Instant,
    ) -> io::Result<Option<PooledSocket>> {
        if !self.shared.burned_ports.admits(server, now) {
            return Ok(None);
        }
        self.make_room();
        let mut burned = Vec::new();
        while burned.len() < PORT_TRIES {
            let open = self.open.fetch_add(1, Ordering::Relaxed);
            let connected = if open < self.sockets_max {
                connect(addr)
            } else {
                let max = self.sockets_max;
                Err(io::Error::other(format!("all {max} sockets are in use")))
            };
            let (socket, port) = connected.inspect_err(|_| {
                self.open.fetch_sub(1, Ordering::Relaxed);
            })?;
            let socket = PooledSocket {
                socket,
                server,
                addr,
                port,
                open: Arc::clone(&self.open),
            };
            if !self.shared.burned_ports.is_burned(server, port) {
                return Ok(Some(socket));
            }
            // Kept open while the search lasts, so that the system hands out another port.
            burned.push(socket);
        }
        Ok(None)
    }

    /// Where few more sockets may be opened, gives one up: the one whose reply is overdue the
    /// longest, or else an idle one. An exchange that is told to give up does so on its next
    /// turn, hence the eighth in reserve.
    fn make_room(&self) {
        if self.open.load(Ordering::Relaxed) < self.sockets_max - self.sockets_max / 8 {
            return;
        }
        let mut pools = self.pools();
        let overdue = pools.overdue.pop_first();
        let idle = match &overdue {
            Some(_) => None,
            None => {
                let idle = pools.idle.iter_mut().map(|(_, idle)| idle);
                let fullest = idle.max_by_key(|idle| idle.len());
                fullest.and_then(VecDeque::pop_front)
            }
        };
        drop(pools);
        drop((overdue, idle));
    }

    /// The socket owes nothing any more.
    fn pool(&self, socket: PooledSocket) {
        let now = Instant::now();
        let mut outdated = Vec::new();
        let mut pools = self.pools();
        let idle = pools.idle.get_or_insert_with(socket.server, VecDeque::new);
        while let Some((_, since)) = idle.front()
            && now.saturating_duration_since(*since) > KEEP
        {
            outdated.extend(idle.pop_front());
        }
        idle.push_back((socket, now));
        drop(pools);
    }

    /// Something may still arrive at the socket's port.
    fn burn(&self, socket: PooledSocket, asked: Instant) {
        let ports = &self.shared.burned_ports;
        ports.burn(socket.server, socket.port, asked);
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(addr: SocketAddr) -> io::Result<(UdpSocket, u16)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.connect(&addr.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// Whether nothing has arrived on a socket that owes nothing. Asks the system, not the runtime,
/// which may not have looked yet; an error left over from an earlier question is cleared.
fn is_silent(socket: &UdpSocket) -> bool {
    let socket = SockRef::from(socket);
    let _ = socket.take_error();
    let arrived = socket.recv(&mut [MaybeUninit::uninit(); 1]);
    arrived.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

enum Sent {
    Now,
    Later,
    Failed(io::Error),
}

/// Who is told what comes of exchanges.
pub(super) trait Recipient: Send + Sync + 'static {
    /// A server answered, and took so long.
    fn handle_round_trip(&self, server: ServerId, round_trip: Duration);
    /// A server answered a command.
    fn handle_response(&self, token: Token, from: ServerId, response: ReplicaResponse);
    /// A command did not reach its server.
    fn handle_unreachable(&self, token: Token, to: ServerId);
}

/// One command to one server, on a socket of its own.
struct Exchange<R> {
    pool: Pool,
    recipient: R,
    command: Command<Token>,
    asked_at: Instant,
}

impl<R: Recipient> Exchange<R> {
    async fn run(self, socket: PooledSocket, sent: Sent) {
        let settled = match self.send(&socket, sent).await {
            Ok(()) => self.settle(&socket).await,
            Err(error) => {
                let addr = socket.addr;
                tracing::debug!(%addr, %error, "a request could not be sent");
                self.unreachable();
                Settled::Clean
            }
        };
        match settled {
            Settled::Clean => self.pool.pool(socket),
            Settled::Owing => self.pool.burn(socket, self.asked_at),
        }
    }

    async fn send(&self, socket: &PooledSocket, sent: Sent) -> io::Result<()> {
        match sent {
            Sent::Now => Ok(()),
            Sent::Later => {
                let sent = socket.socket.send(&self.command.datagram).await;
                sent.map(|_| ())
            }
            Sent::Failed(error) => Err(error),
        }
    }

    /// Hears the server out: until the deadline, and past it as long as the socket may be held.
    async fn settle(&self, socket: &PooledSocket) -> Settled {
        let reply = self.receive(socket);
        tokio::pin!(reply);
        if let Ok(settled) = tokio::time::timeout_at(self.command.deadline.into(), &mut reply).await
        {
            return settled;
        }
        let (place, given_up) = self.enter_overdue();
        let hold = self.command.deadline + HOLD;
        let settled = tokio::select! {
            settled = &mut reply => settled,
            _ = given_up => Settled::Owing,
            () = tokio::time::sleep_until(hold.into()) => Settled::Owing,
        };
        self.pool.pools().overdue.remove(&place);
        settled
    }

    fn enter_overdue(&self) -> (u64, oneshot::Receiver<Infallible>) {
        let (sender, given_up) = oneshot::channel();
        let mut pools = self.pool.pools();
        let place = pools.next_overdue;
        pools.next_overdue += 1;
        pools.overdue.insert(place, sender);
        (place, given_up)
    }

    /// Feeds what arrives to the request, if it is still in flight.
    async fn receive(&self, socket: &PooledSocket) -> Settled {
        loop {
            match self.receive_datagram(socket).await {
                Ok(datagram) => {
                    let now = Instant::now();
                    match decode(self.command.expects, datagram) {
                        Ok(response) => {
                            let server = self.command.server;
                            let round_trip = now.saturating_duration_since(self.asked_at);
                            self.recipient.handle_round_trip(server, round_trip);
                            let ports = &self.pool.shared.burned_ports;
                            ports.answered(server, self.asked_at, now);
                            let token = self.command.token;
                            self.recipient.handle_response(token, server, response);
                            return Settled::Clean;
                        }
                        Err(error) => {
                            // The true reply may yet come; until then nothing is settled.
                            let addr = socket.addr;
                            tracing::debug!(%addr, %error, "ignored");
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.unreachable();
                    return Settled::Clean;
                }
                Err(error) => {
                    // Whether the request arrived is not known, so nothing is said of it.
                    let addr = socket.addr;
                    tracing::debug!(%addr, %error, "receiving failed");
                    return Settled::Owing;
                }
            }
        }
    }

    async fn receive_datagram(&self, socket: &PooledSocket) -> io::Result<Bytes> {
        // An ICMP error makes the socket "erroneous", not readable: ask for both.
        let interest = Interest::READABLE | Interest::ERROR;
        let receive = || {
            let mut pools = self.pool.pools();
            let length = (&*SockRef::from(&socket.socket)).read(&mut pools.buffer)?;
            Ok(Bytes::copy_from_slice(&pools.buffer[..length]))
        };
        socket.socket.async_io(interest, receive).await
    }

    /// The command did not arrive: every command has a socket for itself.
    fn unreachable(&self) {
        let Command { token, server, .. } = self.command;
        self.recipient.handle_unreachable(token, server);
    }
}

//! Sockets in, datagrams out. Several workers may share one address (SO_REUSEPORT); the system
//! spreads peers over them, and a peer keeps its worker.
//!
//! A worker takes what has arrived, answers all of it, and sends the replies together. Lists wait
//! until it has, and then have a slice of one done before it looks at its socket again.

mod receive;
mod send;
mod system;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dkvs_common::wire::v2;
use dkvs_common::wire::v2::keys::Keys;
use quinn_udp::UdpSocketState;
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::maintenance::{Arrival, Maintenance};
use crate::protocol::{Access, Dump, DumpStep, Issuer, Protocol, Received, Transmit, V1Response};
use crate::service::Service;
use receive::Inbox;
use send::{Outbox, Sender};

/// What each socket asks the system to buffer in each direction, in bytes.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Between two datagrams of a dump, so that a receiver with a small buffer can keep up. A dump that
/// is asked for in another's name brings no more than 16 MB a second upon them: a server sends one
/// at a time.
const DUMP_PAUSE: Duration = Duration::from_millis(4);

/// After how many datagrams other tasks of the runtime get their turn; what arrived together with
/// the last of them is answered before.
const DATAGRAMS_PER_TURN: usize = 64;

/// After an error of the socket itself, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The sockets of a server, all of one address.
pub struct Sockets(Vec<std::net::UdpSocket>);

impl Sockets {
    /// Binds `count` of them. Port 0 lets the system pick. Datagrams that arrive from here on wait
    /// in them until workers run.
    pub fn bind(addr: SocketAddr, count: NonZeroUsize) -> io::Result<Self> {
        Ok(Self(bind(addr, count)?))
    }

    /// Where they take datagrams.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0[0].local_addr()
    }

    pub(crate) fn into_inner(self) -> Vec<std::net::UdpSocket> {
        self.0
    }
}

/// Binds `count` sockets to one address. An address that is bound already is refused, even if by
/// another dkvs server: the first socket is bound without SO_REUSEPORT.
fn bind(addr: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<std::net::UdpSocket>> {
    let first = open(addr)?;
    first.bind(&addr.into())?;
    let mut sockets = Vec::with_capacity(count.get());
    if count.get() > 1 {
        #[cfg(unix)]
        first.set_reuse_port(true)?;
        let addr = first.local_addr()?;
        for _ in 1..count.get() {
            let socket = open(addr.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?)?;
            #[cfg(unix)]
            socket.set_reuse_port(true)?;
            socket.bind(&addr)?;
            sockets.push(socket.into());
        }
    }
    sockets.insert(0, first.into());
    Ok(sockets)
}

fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    // The system may grant less: see `Worker::receive_buffer_bytes`.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

/// How many workers make sense here: one per core where the system spreads datagrams over
/// sockets that share an address, else one.
pub fn workers_default() -> NonZeroUsize {
    if cfg!(target_os = "linux") {
        std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
    } else {
        NonZeroUsize::MIN
    }
}

/// One socket and the task that answers what arrives on it.
pub struct Worker {
    socket: std::net::UdpSocket,
    service: Arc<Service>,
    keys: Option<KeySource>,
    has_offload: bool,
}

/// The cluster's keys as they are at any time, and the sessions of those who use them.
#[derive(Clone)]
pub(crate) struct KeySource {
    pub(crate) keys: watch::Receiver<Keys>,
    pub(crate) issuer: Arc<Issuer>,
}

impl KeySource {
    fn access(&mut self) -> Access {
        let keys = self.keys.borrow_and_update().clone();
        Access::keyed(keys, Arc::clone(&self.issuer))
    }

    /// Hands over the keys if they are others than before.
    fn refresh(&mut self, access: &mut Access) {
        // The last keys stay when their source has ended.
        if self.keys.has_changed().unwrap_or(false) {
            access.replace_keys(self.keys.borrow_and_update().clone());
        }
    }
}

impl Worker {
    pub(crate) fn new(socket: std::net::UdpSocket, service: Arc<Service>) -> Self {
        Self {
            socket,
            service,
            keys: None,
            has_offload: system::HAS_OFFLOAD,
        }
    }

    pub(crate) fn set_keys(&mut self, keys: KeySource) {
        self.keys = Some(keys);
    }

    pub(crate) fn set_offload(&mut self, is_on: bool) {
        self.has_offload = is_on && system::HAS_OFFLOAD;
    }

    /// The bytes that the system buffers for arriving datagrams, less than
    /// [`SOCKET_BUFFER_BYTES`] where its limit is lower.
    pub fn receive_buffer_bytes(&self) -> io::Result<usize> {
        socket2::SockRef::from(&self.socket).recv_buffer_size()
    }

    /// Answers datagrams until `shutdown`. Fails only if the socket cannot be had.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let socket = Arc::new(UdpSocket::from_std(self.socket)?);
        let offload = match self.has_offload {
            true => Some(Arc::new(UdpSocketState::new((&*socket).into())?)),
            false => None,
        };
        let sender = Sender {
            socket: Arc::clone(&socket),
            service: Arc::clone(&self.service),
            offload: offload.clone(),
        };
        let mut keys = self.keys;
        let completed = Arc::new(Notify::new());
        let wake = Arc::clone(&completed);
        let service = Arc::clone(&self.service);
        let mut port = Port {
            maintenance: Maintenance::new(service, move || wake.notify_one()),
            completed,
            socket,
            service: self.service,
            access: keys.as_mut().map_or(Access::Open, KeySource::access),
            keys,
            inbox: Inbox::new(offload),
            outbox: Outbox::default(),
            sender: Arc::new(sender),
            shutdown: shutdown.clone(),
        };
        shutdown.run_until_cancelled(port.serve()).await;
        Ok(())
    }
}

struct Port {
    socket: Arc<UdpSocket>,
    service: Arc<Service>,
    access: Access,
    keys: Option<KeySource>,
    inbox: Inbox,
    outbox: Outbox,
    sender: Arc<Sender>,
    maintenance: Maintenance,
    /// The disk has completed changes of this worker.
    completed: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Port {
    async fn serve(&mut self) {
        loop {
            let due = self.maintenance.poll_timeout();
            let has_turn = self.maintenance.has_turn();
            // The socket first: while datagrams arrive, the others are not even polled. What they
            // wait for is handled after every turn.
            let taken = tokio::select! {
                biased;
                readable = self.socket.readable() => match readable {
                    Ok(()) => self.take_turn().await,
                    Err(error) => Err(error),
                },
                () = self.completed.notified() => Ok(()),
                // Looks at the socket once more. A timer would round the time up.
                () = tokio::task::yield_now(), if has_turn => Ok(()),
                () = sleep_until(due) => Ok(()),
            };
            self.maintenance.handle(Arrival::Completions);
            if let Some(due) = due
                && let now = Instant::now()
                && due <= now
            {
                self.maintenance.handle_timeout(now);
            }
            while let Some(transmit) = self.maintenance.poll_transmit() {
                self.outbox.push(transmit);
            }
            self.sender.flush(&mut self.outbox).await;
            if let Err(error) = taken {
                self.service.counters.io_errors.add(1);
                tracing::warn!(%error, "receiving failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Answers what has arrived, up to a number that leaves others their turn.
    async fn take_turn(&mut self) -> io::Result<()> {
        let mut answered = 0;
        let mut arrived = Vec::new();
        while answered < DATAGRAMS_PER_TURN {
            match self.inbox.receive(&self.socket, &mut arrived) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            // What was sent after the keys were replaced is opened by the new ones.
            if let Some(keys) = &mut self.keys {
                keys.refresh(&mut self.access);
            }
            answered += arrived.len();
            for received in arrived.drain(..) {
                self.answer(received);
                if self.outbox.is_full() {
                    self.sender.flush(&mut self.outbox).await;
                }
            }
            self.service.wake_disk();
            self.sender.flush(&mut self.outbox).await;
        }
        Ok(())
    }

    fn answer(&mut self, received: Received) {
        let peer = received.peer;
        match v2::kind_of(&received.datagram) {
            v2::DatagramKind::V2 => {
                let (access, outbox) = (&mut self.access, &mut self.outbox);
                let send = &mut |reply: Vec<u8>| {
                    outbox.push(Transmit {
                        datagram: reply.into(),
                        peer,
                        protocol: Protocol::V2,
                    });
                };
                let backlog = self.maintenance.backlog();
                self.service.handle_v2(&received, access, backlog, send);
            }
            v2::DatagramKind::DamagedV2 => self.service.counters.damaged.add(1),
            v2::DatagramKind::V1 if received.datagram.is_empty() => self.answer_dump(peer),
            v2::DatagramKind::V1 => {
                let (service, deferred) = (&self.service, self.maintenance.backlog().replies());
                let response = service.handle_v1(received.datagram, peer, unix_ms(), deferred);
                if let V1Response::Datagram(datagram) = response {
                    self.outbox.push(Transmit {
                        datagram,
                        peer,
                        protocol: Protocol::V1,
                    });
                }
            }
        }
    }

    fn answer_dump(&mut self, peer: SocketAddr) {
        let (service, deferred) = (&self.service, self.maintenance.backlog().replies());
        let response = service.handle_v1(Bytes::new(), peer, unix_ms(), deferred);
        if let V1Response::Dump(dump) = response {
            let (sender, shutdown) = (Arc::clone(&self.sender), self.shutdown.clone());
            tokio::spawn(async move {
                let sending = send_dump(&sender, dump, peer);
                shutdown.run_until_cancelled(sending).await;
            });
        }
    }
}

/// Returns at this time, or never.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// What the wall clock shows; before 1970 it shows nothing of use, and tags do not rely on it.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

async fn send_dump(sender: &Sender, mut dump: Dump, peer: SocketAddr) {
    loop {
        match sender.service.step(&mut dump) {
            DumpStep::Datagram(datagram) => {
                let transmit = Transmit {
                    datagram,
                    peer,
                    protocol: Protocol::V1,
                };
                sender.send(&transmit).await;
                tokio::time::sleep(DUMP_PAUSE).await;
            }
            DumpStep::Pause => tokio::task::yield_now().await,
            DumpStep::Wait => tokio::time::sleep(DUMP_PAUSE).await,
            DumpStep::End => return,
        }
    }
}

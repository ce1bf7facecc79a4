//! Sockets in, datagrams out. Several workers may share one address (SO_REUSEPORT); the system
//! spreads peers over them, and a peer keeps its worker.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dkvs_common::wire::{v1, v2};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::service::{Response, Service};

/// What each socket asks the system to buffer in each direction, in bytes.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Most dumps that one worker sends at a time; further requests for one are dropped and counted.
const DUMPS_AT_ONCE: usize = 4;

/// Between two datagrams of a dump, so that a receiver with a small buffer can keep up.
const DUMP_PAUSE: Duration = Duration::from_millis(1);

/// How many datagrams are taken before other tasks of the runtime get their turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// After an error of the socket itself, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Binds `count` sockets to one address. An address that anyone else has bound is refused, even
/// by another server of ours: the first socket is bound without SO_REUSEPORT.
pub(crate) fn bind(addr: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<std::net::UdpSocket>> {
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
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The system may grant less; `buffers_granted` tells.
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
}

impl Worker {
    pub(crate) fn new(socket: std::net::UdpSocket, service: Arc<Service>) -> Self {
        Self { socket, service }
    }

    /// The bytes that the system buffers for arriving datagrams, less than
    /// [`SOCKET_BUFFER_BYTES`] where its limit is lower.
    pub fn receive_buffer_bytes(&self) -> io::Result<usize> {
        socket2::SockRef::from(&self.socket).recv_buffer_size()
    }

    /// Answers datagrams until `shutdown`. Fails only if the socket cannot be had.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let port = Port {
            socket: Arc::new(UdpSocket::from_std(self.socket)?),
            service: self.service,
            dumps: Arc::new(Semaphore::new(DUMPS_AT_ONCE)),
        };
        shutdown.run_until_cancelled(port.serve(&shutdown)).await;
        Ok(())
    }
}

struct Port {
    socket: Arc<UdpSocket>,
    service: Arc<Service>,
    dumps: Arc<Semaphore>,
}

impl Port {
    async fn serve(&self, shutdown: &CancellationToken) {
        // One byte more than any datagram of the protocol, so that a longer one shows.
        let mut buffer = vec![0; v1::DATAGRAM_BYTES_MAX + 1];
        loop {
            if let Err(error) = self.socket.readable().await {
                self.pause_after(&error).await;
                continue;
            }
            for _ in 0..DATAGRAMS_PER_TURN {
                match self.socket.try_recv_from(&mut buffer) {
                    Ok((length, peer)) => {
                        let datagram = Bytes::copy_from_slice(&buffer[..length]);
                        self.answer(datagram, peer, shutdown).await;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.pause_after(&error).await;
                        break;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&self, datagram: Bytes, peer: SocketAddr, shutdown: &CancellationToken) {
        if v2::is_v2(&datagram) {
            let mut replies = Vec::new();
            self.service
                .handle_v2(&datagram, peer, Instant::now(), &mut |reply| {
                    replies.push(reply);
                });
            for reply in replies {
                send(&self.socket, &self.service, &reply, peer).await;
            }
            return;
        }
        if datagram.is_empty() {
            // Every pair is gathered for a dump, so the limit comes before the service.
            let Ok(permit) = Arc::clone(&self.dumps).try_acquire_owned() else {
                self.service.counters.dumps_dropped.add(1);
                tracing::warn!(%peer, "a dump was asked for and dropped: {DUMPS_AT_ONCE} are under way");
                return;
            };
            if let Response::Dump(dump) = self.service.handle_v1(datagram, unix_ms()) {
                let (socket, service) = (Arc::clone(&self.socket), Arc::clone(&self.service));
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    let sending = send_dump(&socket, &service, dump, peer);
                    shutdown.run_until_cancelled(sending).await;
                    drop(permit);
                });
            }
            return;
        }
        if let Response::Datagram(reply) = self.service.handle_v1(datagram, unix_ms()) {
            send(&self.socket, &self.service, &reply, peer).await;
        }
    }

    async fn pause_after(&self, error: &io::Error) {
        self.service.counters.io_errors.add(1);
        tracing::warn!(%error, "receiving failed");
        tokio::time::sleep(ERROR_PAUSE).await;
    }
}

/// What the wall clock shows; before 1970 it shows nothing of use, and tags do not rely on it.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

async fn send_dump(socket: &UdpSocket, service: &Service, dump: v1::Dump, peer: SocketAddr) {
    for datagram in dump {
        send(socket, service, &datagram, peer).await;
        tokio::time::sleep(DUMP_PAUSE).await;
    }
}

async fn send(socket: &UdpSocket, service: &Service, datagram: &[u8], peer: SocketAddr) {
    let sent = match socket.try_send_to(datagram, peer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.send_to(datagram, peer).await
        }
        sent => sent,
    };
    if let Err(error) = sent {
        service.counters.io_errors.add(1);
        tracing::debug!(%peer, %error, "a reply could not be sent");
    }
}

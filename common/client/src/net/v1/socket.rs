//! A socket for one exchange at a time with one server.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dkvs_common::cluster::ServerId;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What each socket asks the system to buffer, in bytes: a few of the largest datagrams.
pub const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// How many sockets are open.
#[derive(Clone, Default)]
pub(super) struct OpenSockets(Arc<AtomicUsize>);

impl OpenSockets {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A socket connected to one server, so that the system drops what comes from anyone else. It is
/// counted while it is open.
pub(in crate::net) struct PooledSocket {
    socket: UdpSocket,
    server: ServerId,
    addr: SocketAddr,
    port: u16,
    open: OpenSockets,
}

impl Drop for PooledSocket {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PooledSocket {
    /// Connects a socket to `server`. Fails if `sockets_max` are open.
    pub(super) fn connect(
        server: ServerId,
        addr: SocketAddr,
        open: &OpenSockets,
        sockets_max: usize,
    ) -> io::Result<Self> {
        let connected = if open.0.fetch_add(1, Ordering::Relaxed) < sockets_max {
            connect(addr)
        } else {
            let error = format!("all {sockets_max} sockets are in use");
            Err(io::Error::other(error))
        };
        let (socket, port) = connected.inspect_err(|_| {
            open.0.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(Self {
            socket,
            server,
            addr,
            port,
            open: open.clone(),
        })
    }

    pub(super) fn server(&self) -> ServerId {
        self.server
    }

    /// The server's address.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port at this end.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether nothing has arrived on a socket that expects nothing. Asks the system, not the
    /// runtime, which may not have noticed yet. An error of an earlier exchange is cleared.
    pub(super) fn is_silent(&self) -> bool {
        let socket = SockRef::from(&self.socket);
        let _ = socket.take_error();
        let arrived = socket.recv(&mut [MaybeUninit::uninit(); 1]);
        arrived.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a datagram without waiting.
    pub(super) fn try_send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.try_send(datagram).map(drop)
    }

    pub(super) async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(datagram).await.map(drop)
    }

    /// Waits until a datagram or an error has arrived, and returns what `receive` makes of it,
    /// which is to call [`Self::receive_now`].
    pub(super) async fn receive<R>(&self, receive: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        // An ICMP error makes the socket "erroneous", not readable: ask for both.
        let interest = Interest::READABLE | Interest::ERROR;
        self.socket.async_io(interest, receive).await
    }

    /// Reads the next datagram into `buffer`; returns its length.
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(&self.socket)).read(buffer)
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

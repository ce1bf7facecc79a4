//! Listening sockets, one for each worker.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections waiting to be accepted, per worker.
const BACKLOG: i32 = 1_024;

/// What the system takes of a response before it has sent what it has, in bytes: a caller who takes
/// nothing holds no more of it than that.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// A listening socket, not yet part of a runtime.
pub struct Listener(pub(super) std::net::TcpListener);

impl Listener {
    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// `count` listeners on one address, over which the system spreads connections.
///
/// # Errors
///
/// If another process listens there, even another gateway: the first socket is bound without
/// SO_REUSEPORT.
pub fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<Listener>> {
    let first = open(addr)?;
    first.bind(&addr.into())?;
    let mut sockets = Vec::with_capacity(count);
    if count > 1 {
        #[cfg(unix)]
        first.set_reuse_port(true)?;
        let addr = first.local_addr()?;
        for _ in 1..count {
            let socket = open(addr.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?)?;
            #[cfg(unix)]
            socket.set_reuse_port(true)?;
            socket.bind(&addr)?;
            sockets.push(socket);
        }
    }
    sockets.insert(0, first);
    sockets
        .into_iter()
        .map(|socket| socket.listen(BACKLOG).map(|()| Listener(socket.into())))
        .collect()
}

fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart then need not wait for connections of the process before it.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Connections have it from their listener. Where it does not exist, the system decides.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    Ok(socket)
}

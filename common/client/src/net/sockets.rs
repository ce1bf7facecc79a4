//! The sockets of a worker: one per server that speaks DKVS/2, connected to it, so that the system
//! drops what comes from anyone else and reports a port where nobody listens.
//!
//! ```text
//!   core: poll_transmit ---- send_all, once a turn ----> socket
//!                                                          |
//!   core: handle_datagram <--- receive, all that have arrived
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use dkvs_common::cluster::ServerId;
use dkvs_common::server_map::ServerMap;

use super::socket::{ReceiveBuffer, ServerSocket};
use crate::core::{Core, Endpoint, Now};

/// The open sockets, and a buffer that they share.
pub(super) struct Sockets {
    entries: ServerMap<OpenSocket>,
    buffer: ReceiveBuffer,
    offload: bool,
}

struct OpenSocket {
    socket: Arc<ServerSocket>,
    /// What the system could not buffer yet. It is sent before anything else.
    blocked: VecDeque<Segments>,
}

/// Datagrams for one call to the system.
struct Segments {
    datagrams: Vec<u8>,
    /// The length of each datagram but the last, which may be shorter.
    segment_bytes: usize,
}

impl Sockets {
    /// No sockets. With `offload`, the system sends and receives many datagrams at once.
    pub(super) fn new(offload: bool) -> Self {
        Self {
            entries: ServerMap::default(),
            buffer: ReceiveBuffer::new(offload),
            offload,
        }
    }

    /// Opens the socket towards a server. Fails if the system has none.
    pub(super) fn open(
        &mut self,
        server: ServerId,
        addr: SocketAddrV4,
    ) -> io::Result<(Arc<ServerSocket>, Endpoint)> {
        let socket = Arc::new(ServerSocket::connect(addr, self.offload)?);
        let endpoint = Endpoint {
            local: socket.local_addr(),
            window_bytes_max: socket.window_bytes_max(),
        };
        let entry = OpenSocket {
            socket: Arc::clone(&socket),
            blocked: VecDeque::new(),
        };
        self.entries.insert(server, entry);
        Ok((socket, endpoint))
    }

    /// Sends all that the core has for a server. Returns the socket if the system accepts no more now:
    /// the rest has to be sent once the socket is writable.
    pub(super) fn send_all(
        &mut self,
        core: &mut Core,
        server: ServerId,
        now: Now,
    ) -> Option<Arc<ServerSocket>> {
        let entry = self.entries.get_mut(server)?;
        while let Some(segments) = entry.blocked.pop_front() {
            if !entry.send(core, server, segments, now) {
                return Some(Arc::clone(&entry.socket));
            }
        }
        let mut next = core.poll_transmit(server, now);
        while let Some(mut datagrams) = next.take() {
            // Datagrams of one length, and a shorter one after them, are sent by one call.
            let segment_bytes = datagrams.len();
            let mut count = 1;
            next = core.poll_transmit(server, now);
            while let Some(more) = &next
                && more.len() <= segment_bytes
                && count < entry.socket.segments_max(segment_bytes)
            {
                let is_last = more.len() < segment_bytes;
                datagrams.extend_from_slice(more);
                count += 1;
                next = core.poll_transmit(server, now);
                if is_last {
                    break;
                }
            }
            let segments = Segments {
                datagrams,
                segment_bytes,
            };
            if !entry.send(core, server, segments, now) {
                entry.blocked.extend(next.map(|datagram| Segments {
                    segment_bytes: datagram.len(),
                    datagrams: datagram,
                }));
                return Some(Arc::clone(&entry.socket));
            }
        }
        None
    }

    /// Passes the datagrams that have arrived from a server to the core, with what the clocks show by
    /// then. Fails if none has.
    pub(super) fn receive(
        &mut self,
        core: &mut Core,
        server: ServerId,
        socket: &ServerSocket,
        clocks: impl Fn() -> Now,
    ) -> io::Result<()> {
        let mut read = None;
        let received = socket.receive_now(&mut self.buffer, |datagram| {
            let now = *read.get_or_insert_with(&clocks);
            core.handle_datagram(server, &datagram, now);
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => {
                handle_error(core, server, &error, clocks());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

impl OpenSocket {
    /// Sends datagrams by one call. Returns whether more can be sent.
    fn send(&mut self, core: &mut Core, server: ServerId, segments: Segments, now: Now) -> bool {
        let sent = self
            .socket
            .try_send(&segments.datagrams, segments.segment_bytes);
        match sent {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked.push_front(segments);
                false
            }
            Err(error) => {
                handle_error(core, server, &error, now);
                true
            }
        }
    }
}

fn handle_error(core: &mut Core, server: ServerId, error: &io::Error, now: Now) {
    let is_unreachable = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    );
    let addr = core.view().name(server);
    if is_unreachable {
        core.handle_unreachable(server, now);
    } else if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
        tracing::warn!(
            %addr,
            "a datagram is longer than the path takes: lower --max-datagram here and there"
        );
    } else {
        tracing::debug!(%addr, %error, "the system could not send or receive");
    }
}

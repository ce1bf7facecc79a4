//! The DKVS/2 sockets of a worker: one per server, connected to it, so that the system drops what
//! comes from anyone else and reports a port where nobody listens.
//!
//! ```text
//!   core: poll_transmit ---- flush, once a turn ----> socket
//!                                                       |
//!   core: handle_datagram <---- receive, all that have arrived
//! ```
//!
//! What one turn of the runtime sends to a server goes out together, when the driver flushes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use dkvs_common::cluster::ServerId;
use dkvs_common::ring::PreferenceList;

use super::socket::{ReceiveBuffer, ServerSocket};
use super::{Coordinator, Protocol, Shared, State, Waiter};
use crate::core::{Core, Now, Path};

/// The sockets, and a buffer that they share.
pub(super) struct Sockets {
    /// By server; none before its first request.
    entries: Vec<Option<Entry>>,
    buffer: ReceiveBuffer,
    offload: bool,
}

struct Entry {
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
    pub(super) fn new(servers: usize, offload: bool) -> Self {
        Self {
            entries: (0..servers).map(|_| None).collect(),
            buffer: ReceiveBuffer::new(offload),
            offload,
        }
    }
}

impl Coordinator {
    /// Opens a socket and a link to each server of a preference list that has none yet. One that
    /// cannot be opened counts as overloaded.
    pub(super) fn open_all(&self, state: &mut State, list: &PreferenceList, now: Now) {
        for point in list {
            if !state.core.is_open(point.server) {
                self.open(state, point.server, now);
            }
        }
    }

    /// The same for every server of the cluster, if DKVS/2 is spoken at all.
    pub(super) fn open_each(&self, state: &mut State, now: Now) {
        for (server, _) in self.shared().cluster.iter() {
            if self.0.protocol != Protocol::V1 && !state.core.is_open(server) {
                self.open(state, server, now);
            }
        }
    }

    pub(super) fn open(&self, state: &mut State, server: ServerId, now: Now) {
        let addr = self.shared().cluster.servers()[server.index()].addr;
        let Sockets {
            entries, offload, ..
        } = &mut state.sockets;
        let socket = match ServerSocket::connect(addr, *offload) {
            Ok(socket) => Arc::new(socket),
            Err(error) => return tracing::warn!(%addr, %error, "no socket towards a server"),
        };
        let path = Path {
            local: socket.local_addr(),
            window_bytes_max: socket.window_bytes_max(),
        };
        state.core.open(server, path, now);
        tokio::spawn(receive(self.clone(), server, Arc::clone(&socket)));
        let blocked = VecDeque::new();
        entries[server.index()] = Some(Entry { socket, blocked });
    }

    /// Sends all datagrams that the core has.
    pub(super) fn flush(&self, now: Now) {
        let mut state = self.state();
        let State { core, sockets } = &mut *state;
        while let Some(server) = core.poll_server() {
            if let Some(entry) = &mut sockets.entries[server.index()] {
                self.send_all(core, server, entry, now);
            }
        }
        self.after(state);
    }

    fn send_all(&self, core: &mut Core<Waiter>, server: ServerId, entry: &mut Entry, now: Now) {
        while let Some(segments) = entry.blocked.pop_front() {
            if !self.send(core, server, entry, segments, now) {
                return;
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
            if !self.send(core, server, entry, segments, now) {
                entry.blocked.extend(next.map(|datagram| Segments {
                    segment_bytes: datagram.len(),
                    datagrams: datagram,
                }));
                return;
            }
        }
    }

    /// Sends datagrams by one call. Returns whether more can be sent.
    fn send(
        &self,
        core: &mut Core<Waiter>,
        server: ServerId,
        entry: &mut Entry,
        segments: Segments,
        now: Now,
    ) -> bool {
        let sent = entry
            .socket
            .try_send(&segments.datagrams, segments.segment_bytes);
        match sent {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.blocked.push_front(segments);
                let (coordinator, socket) = (self.clone(), Arc::clone(&entry.socket));
                tokio::spawn(async move {
                    if socket.writable().await.is_ok() {
                        coordinator.state().core.resume(server);
                        coordinator.0.woken.notify_one();
                    }
                });
                false
            }
            Err(error) => {
                handle_error(self.shared(), core, server, &error, now);
                true
            }
        }
    }

    /// Passes the datagrams that have arrived from `server` to the core. Fails if none has.
    fn receive(&self, server: ServerId, socket: &ServerSocket) -> io::Result<()> {
        let now = super::now();
        let mut state = self.state();
        let State { core, sockets } = &mut *state;
        let received = socket.receive_now(&mut sockets.buffer, |datagram| {
            core.handle_datagram(server, &datagram, now);
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => handle_error(self.shared(), core, server, &error, now),
            Ok(()) => {}
        }
        self.after(state);
        Ok(())
    }
}

fn handle_error(
    shared: &Shared,
    core: &mut Core<Waiter>,
    server: ServerId,
    error: &io::Error,
    now: Now,
) {
    let addr = shared.name(server);
    let is_unreachable = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    );
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

/// Receives from one server until its socket fails.
async fn receive(coordinator: Coordinator, server: ServerId, socket: Arc<ServerSocket>) {
    loop {
        let received = socket
            .receive(|| coordinator.receive(server, &socket))
            .await;
        if let Err(error) = received {
            tracing::error!(%error, "a socket towards a server cannot be waited on");
            return;
        }
    }
}

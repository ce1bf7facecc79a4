//! The sockets of a core: one per server that speaks DKVS/2, connected to it, so that the system
//! drops what comes from anyone else and tells of a port where nobody listens.
//!
//! ```text
//!   core: outboxes ---- flush, once a turn ----> socket
//!                                                  |
//!   core: handle_datagram <--- receive, as many as there are
//! ```
//!
//! What one turn of the runtime asks of a server goes out together, when the driver flushes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use dkvs_common::cluster::ServerId;
use dkvs_common::ring::PreferenceList;

use super::socket::{ReceiveBuffer, ServerSocket};
use super::{Coordinator, Protocol, Shared, State, Waiter};
use crate::core::{Core, Now, Path};

/// By server; none before it is first asked.
pub(super) struct Sockets {
    entries: Vec<Option<Entry>>,
    buffer: ReceiveBuffer,
    offload: bool,
}

struct Entry {
    socket: Arc<ServerSocket>,
    /// What could not be sent yet, with the lengths of its datagrams; nothing goes before it.
    stuck: VecDeque<(Vec<u8>, usize)>,
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
    /// Opens sockets and links to those of a list that have none yet. One that cannot be opened
    /// counts as overloaded.
    pub(super) fn open_all(&self, state: &mut State, list: &PreferenceList, now: Now) {
        for point in list {
            if !state.core.is_open(point.server) {
                self.open(state, point.server, now);
            }
        }
    }

    /// The same for every server of the cluster, if they are to be asked by DKVS/2.
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
        let stuck = VecDeque::new();
        entries[server.index()] = Some(Entry { socket, stuck });
    }

    /// Sends what there is to send.
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
        while let Some((datagrams, segment_bytes)) = entry.stuck.pop_front() {
            if !self.send(core, server, entry, (datagrams, segment_bytes), now) {
                return;
            }
        }
        let mut next = core.poll_transmit(server, now);
        while let Some(mut datagrams) = next.take() {
            // Those that are equally long, and a shorter one after them, go by one call.
            let segment_bytes = datagrams.len();
            let mut segments = 1;
            next = core.poll_transmit(server, now);
            while let Some(more) = &next
                && more.len() <= segment_bytes
                && segments < entry.socket.segments_max(segment_bytes)
            {
                let is_last = more.len() < segment_bytes;
                datagrams.extend_from_slice(more);
                segments += 1;
                next = core.poll_transmit(server, now);
                if is_last {
                    break;
                }
            }
            if !self.send(core, server, entry, (datagrams, segment_bytes), now) {
                entry.stuck.extend(next.map(|datagram| {
                    let bytes = datagram.len();
                    (datagram, bytes)
                }));
                return;
            }
        }
    }

    /// Sends datagrams, all but the last of the length given; tells whether more can be sent.
    fn send(
        &self,
        core: &mut Core<Waiter>,
        server: ServerId,
        entry: &mut Entry,
        (datagrams, segment_bytes): (Vec<u8>, usize),
        now: Now,
    ) -> bool {
        match entry.socket.try_send(&datagrams, segment_bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.stuck.push_front((datagrams, segment_bytes));
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

    /// Takes what has arrived from `server`. Fails if nothing has.
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

/// Takes what arrives from one server.
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

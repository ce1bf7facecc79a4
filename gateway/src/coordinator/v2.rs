//! Sockets that speak DKVS/2: one per server, connected to it, so that the system drops what
//! comes from anyone else and tells of a port where nobody listens.
//!
//! ```text
//!   ask --> [ link: outbox ] ---- flush, once a turn ----> socket
//!                                                            |
//!   Coordinator::heard <--- events <--- [ link ] <--- receive, as many as there are
//! ```
//!
//! What one turn of the runtime asks of a server goes out together, when the driver flushes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::connection::fetch::{Assembly, Digest};
use dkvs_common::connection::link::{Event, Link, Ticket};
use dkvs_common::connection::peer::{Config, Counters, RequestError, Speaks};
use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::read::ReadReply;
use dkvs_common::quorum::write::WriteReply;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use tokio::sync::Notify;

use super::socket::{ReceiveBuffer, ServerSocket};
use super::table::{Asked, Heard, Question, RequestId};
use super::{Coordinator, Settings, Shared};

/// Which question of which request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    id: RequestId,
    asked: Asked,
}

/// All links of a worker. Clones are handles to the same. The lock is the worker's own.
#[derive(Clone)]
pub(super) struct Links {
    shared: Arc<Shared>,
    settings: Settings,
    state: Arc<Mutex<State>>,
    /// Wakes the driver.
    woken: Arc<Notify>,
}

struct State {
    /// By server; none before it is first asked.
    entries: Vec<Option<Entry>>,
    /// The servers towards which there is something to send.
    dirty: Vec<ServerId>,
    buffer: ReceiveBuffer,
    /// No link has anything due before.
    next_due: Option<Instant>,
    random: VecDeque<u64>,
}

struct Entry {
    socket: Arc<ServerSocket>,
    link: Link<Token>,
    is_dirty: bool,
    /// What could not be sent yet, with the lengths of its datagrams; nothing goes before it.
    stuck: VecDeque<(Vec<u8>, usize)>,
    datagrams_received: u64,
}

/// What a link knows of its server.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkStatus {
    pub(super) round_trip: Option<Duration>,
    pub(super) counters: Counters,
    pub(super) datagrams_received: u64,
}

pub(super) type Events = Vec<(ServerId, Event<Token>)>;

impl Links {
    /// Links that draw their randomness from `random`, one number each.
    pub(super) fn new(
        shared: Arc<Shared>,
        settings: Settings,
        random: VecDeque<u64>,
        woken: Arc<Notify>,
    ) -> Self {
        let servers = shared.cluster.servers().len();
        let state = State {
            entries: (0..servers).map(|_| None).collect(),
            dirty: Vec::new(),
            buffer: ReceiveBuffer::new(settings.offload),
            next_due: None,
            random,
        };
        Self {
            shared,
            settings,
            state: Arc::new(Mutex::new(state)),
            woken,
        }
    }

    /// What `server` speaks, as far as is known.
    pub(super) fn speaks(&self, server: ServerId) -> Speaks {
        let state = self.state();
        let entry = state.entries[server.index()].as_ref();
        entry.map_or(Speaks::Unknown, |entry| entry.link.speaks())
    }

    /// What is known of `server`, if it was ever asked.
    pub(super) fn status(&self, server: ServerId) -> Option<LinkStatus> {
        let state = self.state();
        let entry = state.entries[server.index()].as_ref()?;
        Some(LinkStatus {
            round_trip: entry.link.round_trip(),
            counters: entry.link.counters(),
            datagrams_received: entry.datagrams_received,
        })
    }

    /// Greets a server that speaks DKVS/1, lest it was restarted as one that speaks DKVS/2.
    pub(super) fn greet_if_due(&self, coordinator: &Coordinator, server: ServerId, now: Instant) {
        let mut state = self.state();
        if let Ok(entry) = self.entry(&mut state, coordinator, server, now) {
            entry.link.greet_if_due(now);
            self.mark(&mut state, server);
        }
    }

    /// Those of `servers` that turned out to speak DKVS/1.
    pub(super) fn those_of_v1(&self, servers: &[ServerId]) -> Vec<ServerId> {
        let state = self.state();
        let speaks_v1 = |server: &ServerId| {
            let entry = state.entries[server.index()].as_ref();
            entry.is_some_and(|entry| entry.link.speaks() == Speaks::V1)
        };
        servers.iter().copied().filter(speaks_v1).collect()
    }

    /// Asks each of `servers` the same. Gives a ticket for each that was asked.
    pub(super) fn ask(
        &self,
        coordinator: &Coordinator,
        (id, asked): (RequestId, Asked),
        question: &Question,
        servers: impl Iterator<Item = ServerId>,
        (now, deadline): (Instant, Instant),
    ) -> Vec<(ServerId, Result<Ticket, RequestError>)> {
        let mut asked_of = Vec::new();
        let token = Token { id, asked };
        let mut state = self.state();
        for server in servers {
            let request = match question {
                Question::Get { key } => Request::Get { key: key.clone() },
                Question::Put { key, record } => Request::Put {
                    key: key.clone(),
                    record: record.clone(),
                },
                Question::Status => Request::Stats,
            };
            let result = match self.entry(&mut state, coordinator, server, now) {
                Ok(entry) => entry.link.ask(request, token, now, deadline),
                Err(error) => {
                    tracing::warn!(%error, "no socket towards a server");
                    Err(RequestError::TooMany)
                }
            };
            if result.is_ok() {
                self.mark(&mut state, server);
            }
            asked_of.push((server, result));
        }
        asked_of
    }

    /// Fetches a value from `server`.
    pub(super) fn fetch(
        &self,
        coordinator: &Coordinator,
        id: RequestId,
        server: ServerId,
        (key, assembly): (Key, Assembly),
        (now, deadline): (Instant, Instant),
    ) -> Result<Ticket, RequestError> {
        let asked = Asked::Fetch;
        let token = Token { id, asked };
        let mut state = self.state();
        let entry = self.entry(&mut state, coordinator, server, now);
        let entry = entry.map_err(|_| RequestError::TooMany)?;
        let ticket = entry.link.fetch(key, assembly, token, now, deadline)?;
        self.mark(&mut state, server);
        Ok(ticket)
    }

    /// Nobody waits for the answers to these any more.
    pub(super) fn abandon(&self, tickets: &[(ServerId, Ticket)]) {
        if tickets.is_empty() {
            return;
        }
        let mut state = self.state();
        for (server, ticket) in tickets {
            if let Some(entry) = &mut state.entries[server.index()] {
                entry.link.abandon(*ticket);
            }
        }
    }

    /// The link of `server`; opens it and starts its tasks if it is the first time.
    fn entry<'a>(
        &self,
        state: &'a mut State,
        coordinator: &Coordinator,
        server: ServerId,
        now: Instant,
    ) -> io::Result<&'a mut Entry> {
        let place = &mut state.entries[server.index()];
        if let Some(entry) = place {
            return Ok(entry);
        }
        let addr = self.shared.cluster.servers()[server.index()].addr;
        let socket = Arc::new(ServerSocket::connect(addr, self.settings.offload)?);
        let keys = self.settings.keys.as_ref();
        let config = Config {
            datagram_bytes_max: self.settings.datagram_bytes_max,
            window_bytes_max: socket.window_bytes_max(),
            epoch: self.shared.ring.epoch(),
            keys: keys.map(|keys| (Arc::new(keys.borrow().clone()), socket.local_addr())),
        };
        let random = state.random.pop_front().unwrap_or_default();
        let receive = receive(
            coordinator.clone(),
            self.clone(),
            server,
            Arc::clone(&socket),
        );
        tokio::spawn(receive);
        Ok(place.insert(Entry {
            socket,
            link: Link::new(config, random, now),
            is_dirty: false,
            stuck: VecDeque::new(),
            datagrams_received: 0,
        }))
    }

    /// There is something to send to `server`, this turn.
    fn mark(&self, state: &mut State, server: ServerId) {
        if let Some(entry) = &mut state.entries[server.index()]
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            state.dirty.push(server);
            if state.dirty.len() == 1 {
                self.woken.notify_one();
            }
        }
    }

    /// Sends what there is to send, and gives what has happened meanwhile.
    pub(super) fn flush(&self, now: Instant) -> Events {
        let mut state = self.state();
        let mut events = Vec::new();
        let dirty = std::mem::take(&mut state.dirty);
        for server in dirty {
            let Some(entry) = &mut state.entries[server.index()] else {
                continue;
            };
            entry.is_dirty = false;
            self.send_all(server, entry, now);
            drain(server, entry, &mut events);
            let due = entry.link.poll_timeout();
            state.next_due = state.next_due.into_iter().chain(due).min();
        }
        events
    }

    fn send_all(&self, server: ServerId, entry: &mut Entry, now: Instant) {
        while let Some((datagrams, segment_bytes)) = entry.stuck.pop_front() {
            if !self.send(server, entry, datagrams, segment_bytes, now) {
                return;
            }
        }
        let mut next = entry.link.poll_transmit(now);
        while let Some(mut datagrams) = next.take() {
            // Those that are equally long, and a shorter one after them, go by one call.
            let segment_bytes = datagrams.len();
            let mut segments = 1;
            next = entry.link.poll_transmit(now);
            while let Some(more) = &next
                && more.len() <= segment_bytes
                && segments < entry.socket.segments_max(segment_bytes)
            {
                let is_last = more.len() < segment_bytes;
                datagrams.extend_from_slice(more);
                segments += 1;
                next = entry.link.poll_transmit(now);
                if is_last {
                    break;
                }
            }
            if !self.send(server, entry, datagrams, segment_bytes, now) {
                entry.stuck.extend(next.map(|datagram| {
                    let bytes = datagram.len();
                    (datagram, bytes)
                }));
                return;
            }
        }
    }

    /// Sends datagrams; tells whether more can be sent.
    fn send(
        &self,
        server: ServerId,
        entry: &mut Entry,
        datagrams: Vec<u8>,
        segment_bytes: usize,
        now: Instant,
    ) -> bool {
        match entry.socket.try_send(&datagrams, segment_bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.stuck.push_front((datagrams, segment_bytes));
                let (links, socket) = (self.clone(), Arc::clone(&entry.socket));
                tokio::spawn(async move {
                    if socket.writable().await.is_ok() {
                        let mut state = links.state();
                        links.mark(&mut state, server);
                    }
                });
                false
            }
            Err(error) => {
                self.handle_error(server, entry, &error, now);
                true
            }
        }
    }

    fn handle_error(&self, server: ServerId, entry: &mut Entry, error: &io::Error, now: Instant) {
        let addr = self.shared.cluster.servers()[server.index()].addr;
        let is_unreachable = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
        );
        if is_unreachable {
            entry.link.handle_unreachable(now);
        } else if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
            tracing::warn!(
                %addr,
                "a datagram is longer than the path takes: lower --max-datagram here and there"
            );
        } else {
            tracing::debug!(%addr, %error, "the system could not send or receive");
        }
    }

    /// Takes what has arrived from `server`. Fails if nothing has.
    fn receive(&self, server: ServerId, socket: &ServerSocket) -> io::Result<Events> {
        let now = Instant::now();
        let mut state = self.state();
        let State {
            entries, buffer, ..
        } = &mut *state;
        let mut events = Vec::new();
        let Some(entry) = &mut entries[server.index()] else {
            return Ok(events);
        };
        let Entry {
            link,
            datagrams_received,
            ..
        } = entry;
        let received = socket.receive_now(buffer, |datagram| {
            *datagrams_received += 1;
            link.handle_datagram(&datagram, now);
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => self.handle_error(server, entry, &error, now),
            Ok(()) => {}
        }
        drain(server, entry, &mut events);
        // What arrived may have made room for more.
        self.mark(&mut state, server);
        Ok(events)
    }

    pub(super) fn handle_timeouts(&self, now: Instant) -> Events {
        let mut state = self.state();
        let mut events = Vec::new();
        state.next_due = None;
        for number in 0..state.entries.len() {
            let server = ServerId(number as u16);
            let Some(entry) = &mut state.entries[number] else {
                continue;
            };
            let due = entry.link.poll_timeout();
            if due.is_some_and(|due| due <= now) {
                entry.link.handle_timeout(now);
                drain(server, entry, &mut events);
                self.mark(&mut state, server);
            } else {
                state.next_due = state.next_due.into_iter().chain(due).min();
            }
        }
        events
    }

    pub(super) fn take_new_keys(&self) {
        let Some(keys) = &self.settings.keys else {
            return;
        };
        let keys = Arc::new(keys.borrow().clone());
        for entry in self.state().entries.iter_mut().flatten() {
            entry.link.set_keys(Arc::clone(&keys));
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().next_due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drain(server: ServerId, entry: &mut Entry, events: &mut Events) {
    while let Some(event) = entry.link.poll_event() {
        events.push((server, event));
    }
}

/// Takes what arrives from one server.
async fn receive(
    coordinator: Coordinator,
    links: Links,
    server: ServerId,
    socket: Arc<ServerSocket>,
) {
    loop {
        match socket.receive(|| links.receive(server, &socket)).await {
            Ok(events) => coordinator.handle_events(events, Instant::now()),
            Err(error) => {
                tracing::error!(%error, "a socket towards a server cannot be waited on");
                return;
            }
        }
    }
}

impl Coordinator {
    pub(super) fn handle_events(&self, events: Events, now: Instant) {
        for (server, event) in events {
            let (token, heard) = match event {
                Event::Reply {
                    token,
                    reply,
                    after,
                } => {
                    if let Some(after) = after {
                        self.shared().record_round_trip(server, after);
                    }
                    (token, heard(token.asked, reply))
                }
                Event::Fetched { token, value } => (token, Heard::Fetched(value)),
                Event::FetchFailed { token, assembly } => (token, Heard::FetchFailed(assembly)),
                Event::Unreachable { token, sent } => (token, Heard::Unreachable { sent }),
                Event::TooLong { token } => {
                    (token, Heard::refused(token.asked, Refusal::Unrepresentable))
                }
                Event::NotV2 { token } => {
                    self.ask_by_v1(token.id, token.asked, server);
                    continue;
                }
                // The deadline is the request's own, and its end is seen to elsewhere.
                Event::Expired { .. } => continue,
                Event::Restarted => {
                    let addr = self.shared().cluster.servers()[server.index()].addr;
                    tracing::info!(%addr, "a server was restarted");
                    continue;
                }
            };
            self.heard(token.id, server, token.asked, heard, now);
        }
    }
}

/// What a reply means to the request.
fn heard(asked: Asked, reply: Reply) -> Heard {
    let refusal = match reply {
        Reply::Done => match asked {
            Asked::Put { .. } => return Heard::Write(WriteReply::Stored),
            _ => Refusal::Internal,
        },
        Reply::Record {
            tag,
            content_type,
            value_bytes,
            checksum,
            block,
        } => {
            let digest = Digest {
                tag,
                content_type,
                value_bytes,
                checksum,
            };
            return Heard::Record(digest, block);
        }
        Reply::Absent { tag } => match asked {
            Asked::Get => {
                let tombstone = (tag != Tag::ZERO).then_some(tag);
                return Heard::Read(ReadReply::Absent(tombstone));
            }
            _ => Refusal::Internal,
        },
        Reply::Superseded { tag } => match asked {
            Asked::Put { .. } => return Heard::Write(WriteReply::Superseded(tag)),
            _ => Refusal::Internal,
        },
        Reply::Stats(statistics) => return Heard::Status(statistics),
        Reply::TooLarge { value_bytes_max } => Refusal::TooLarge { value_bytes_max },
        Reply::Full => Refusal::Full,
        Reply::ReadOnly => Refusal::ReadOnly,
        Reply::WrongEpoch { .. } => Refusal::WrongEpoch,
        Reply::Unsupported => Refusal::Unsupported,
        Reply::Busy => Refusal::Busy,
        Reply::Corrupt => Refusal::Corrupt,
        Reply::Greeting(_)
        | Reply::Block { .. }
        | Reply::Tag { .. }
        | Reply::Digest { .. }
        | Reply::Staged { .. }
        | Reply::Page { .. }
        | Reply::Internal => Refusal::Internal,
    };
    Heard::refused(asked, refusal)
}

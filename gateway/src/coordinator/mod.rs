//! The gateway's side towards the servers: requests in flight, sockets, timers.
//!
//! ```text
//!   handler --read/write--> [ table: request id -> machine ] <--reply-- exchange <-- socket
//!                                     |                                    ^
//!                                     +------ poll_transmit: ask ----------+
//! ```
//!
//! One coordinator per worker; workers share nothing here but the ledger of burned ports and
//! the last round trips. The decisions are those of [`dkvs_common::quorum`]; this module only
//! carries words to the machines and wakes the handler when a machine has decided.

mod deadlines;
mod driver;
mod ports;
mod probe;
mod socket;
mod table;
mod v1;
mod v2;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::connection::fetch::Assembly;
use dkvs_common::connection::peer::{RequestError, Speaks};
use dkvs_common::kv::{KEY_BYTES_MAX, Key};
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::write::Write;
use dkvs_common::quorum::{Refusal, Transmit};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::{Position, PreferenceList, Ring};
use dkvs_common::tag::{Exhausted, Tag, TagClock};
use dkvs_common::wire::v1::{KEY_OR_VALUE_BYTES_MAX, Unrepresentable};
use dkvs_common::wire::v2::envelope::{AUTHENTICATED_BYTES, PLAIN_BYTES};
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::request::Request;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use ports::BurnedPorts;
use probe::Probe;
use table::{
    Asked, Ended, Handled, Heard, InFlight, Machine, Next, Question, RequestId, Round, Table,
};
pub use v1::SOCKET_BUFFER_BYTES;

/// Which protocol to speak to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// DKVS/2 where the server does, else DKVS/1.
    #[default]
    Auto,
    /// DKVS/1 only.
    V1,
    /// DKVS/2 only.
    V2,
}

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// As soon as the quorum is decided.
    #[default]
    Quorum,
    /// When every replica was heard out or has timed out.
    All,
}

/// Why a request was not even begun. Nothing was sent to any server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotBegun {
    /// As many requests are in flight as this worker takes, or no socket is to be had.
    #[error("the gateway is overloaded: {what}")]
    Overloaded {
        /// Which limit was reached.
        what: &'static str,
    },
    /// DKVS/1 cannot carry the key or the value.
    #[error(transparent)]
    Unrepresentable(#[from] Unrepresentable),
    /// DKVS/1 cannot delete.
    #[error("the servers speak DKVS/1, which cannot delete a key")]
    NoDeletion,
    /// The key fits no DKVS/2 datagram.
    #[error(
        "the key is {key_bytes} bytes long; with datagrams as short as they are set here, the \
         limit is {key_bytes_max}"
    )]
    KeyTooLong {
        /// Its length.
        key_bytes: usize,
        /// The limit.
        key_bytes_max: usize,
    },
}

/// How much a coordinator takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests in flight.
    pub requests_max: usize,
    /// DKVS/1 sockets towards the servers, in use, pooled or still owed a reply.
    pub sockets_max: usize,
    /// Bytes of long values on their way in either direction.
    pub value_bytes_in_flight_max: usize,
}

/// What the workers of a gateway know together.
pub struct Shared {
    /// The servers.
    pub cluster: Cluster,
    /// Their ring.
    pub ring: Ring,
    /// Their addresses as text, in the cluster's order.
    names: Vec<String>,
    /// Ports at which a late reply may still arrive.
    burned_ports: BurnedPorts,
    /// Per server, the last round trip in microseconds; 0 when none was ever completed.
    round_trips_us: Vec<AtomicU64>,
}

impl Shared {
    /// Nothing known but the cluster.
    pub fn new(cluster: Cluster) -> Self {
        let servers = cluster.servers().len();
        Self {
            ring: Ring::new(&cluster),
            names: cluster
                .servers()
                .iter()
                .map(|server| server.addr.to_string())
                .collect(),
            burned_ports: BurnedPorts::new(servers),
            round_trips_us: (0..servers).map(|_| AtomicU64::new(0)).collect(),
            cluster,
        }
    }

    /// A server's address as text.
    pub fn name(&self, server: ServerId) -> &str {
        &self.names[server.index()]
    }

    /// How long the last reply of a server took.
    pub fn last_round_trip(&self, server: ServerId) -> Option<Duration> {
        let us = self.round_trips_us[server.index()].load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    fn record_round_trip(&self, server: ServerId, round_trip: Duration) {
        let us = u64::try_from(round_trip.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        self.round_trips_us[server.index()].store(us, Ordering::Relaxed);
    }
}

/// How a coordinator talks to the servers, and how much it takes on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which protocol.
    pub protocol: Protocol,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest value that may be put by DKVS/2, in bytes.
    pub value_bytes_max: usize,
    /// Whether the system sends and receives many datagrams at once.
    pub offload: bool,
    /// The cluster's keys, if it has any, as they change.
    pub keys: Option<watch::Receiver<Keys>>,
    /// How much.
    pub limits: Limits,
}

/// One worker's requests and sockets. Clones are handles to the same.
#[derive(Clone)]
pub struct Coordinator(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    protocol: Protocol,
    key_bytes_max: usize,
    value_bytes_max: usize,
    table: Table,
    v1: v1::Links,
    v2: v2::Links,
    /// Mints tags greater than those that a server was heard to hold instead of ours.
    clock: Mutex<TagClock>,
    driver: Once,
    woken: Arc<Notify>,
    keys: Option<watch::Receiver<Keys>>,
    /// Kibibytes of long values that may be under way.
    memory: Arc<Semaphore>,
}

/// The key that is asked for to see whether a DKVS/1 server answers; what it holds does not
/// matter.
const PROBE_KEY: &str = "dkvs probe";

/// What a server is and does, as far as one worker knows.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// What it speaks.
    pub speaks: Speaks,
    /// The smoothed round trip, by DKVS/2.
    pub round_trip: Option<Duration>,
    /// Its statistics by number, by DKVS/2.
    pub statistics: Vec<(u8, u64)>,
    /// What went to it and came from it, by DKVS/2.
    pub traffic: Option<Traffic>,
}

/// What went to a server and came from it since the worker started.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Requests, each counted once.
    pub requests: u64,
    /// Requests that were sent again.
    pub retransmissions: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams that were dropped: damaged, not proved, or answers to nothing that was asked.
    pub dropped: u64,
}

impl Coordinator {
    /// A coordinator for one worker. Its futures run on that worker's runtime. Fails if the
    /// system has no random bytes.
    pub fn new(shared: Arc<Shared>, settings: Settings) -> Result<Self, getrandom::Error> {
        let Limits {
            requests_max,
            sockets_max,
            value_bytes_in_flight_max,
        } = settings.limits;
        let servers = shared.cluster.servers().len();
        let random = (0..servers).map(|_| getrandom::u64());
        let random = random.collect::<Result<_, _>>()?;
        let clock = TagClock::new(getrandom::u32()?);
        let woken = Arc::new(Notify::new());
        Ok(Self(Arc::new(Inner {
            keys: settings.keys.clone(),
            driver: Once::new(),
            protocol: settings.protocol,
            key_bytes_max: key_bytes_max(&settings),
            value_bytes_max: settings.value_bytes_max,
            table: Table::new(requests_max),
            v1: v1::Links::new(Arc::clone(&shared), sockets_max),
            v2: v2::Links::new(Arc::clone(&shared), settings, random, Arc::clone(&woken)),
            woken,
            clock: Mutex::new(clock),
            memory: Arc::new(Semaphore::new(value_bytes_in_flight_max >> 10)),
            shared,
        })))
    }

    /// The cluster and what is known of it.
    pub fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Reads `key` from the `quorum.n()` replicas of its preference list. Returns once decided
    /// (or, with [`Wait::All`], once complete), at the latest after `timeout`.
    pub async fn read(
        &self,
        key: &Key,
        quorum: Quorum,
        timeout: Duration,
        wait: Wait,
    ) -> Result<Read, NotBegun> {
        self.check(key, None)?;
        let list = self.preference_list(key, quorum);
        let now = Instant::now();
        let deadline = now + timeout;
        let mut read = Read::new(list, quorum, now, deadline);
        let servers = to_all(|| read.poll_transmit());
        let question = Question::Get { key: key.clone() };
        let machine = Machine::Read(read);
        let begun = self.begin(machine, question, Asked::Get, &servers, deadline, wait)?;
        match begun.finish().await.machine {
            Machine::Read(read) => Ok(read),
            _ => unreachable!("a request ends with its own machine"),
        }
    }

    /// Writes `content` to the `quorum.n()` replicas of the key's preference list; otherwise as
    /// [`Self::read`]. Dropping the future does not take back what was sent.
    pub async fn write(
        &self,
        key: &Key,
        content: Content,
        quorum: Quorum,
        timeout: Duration,
        wait: Wait,
    ) -> Result<Written, NotBegun> {
        self.check(key, Some(&content))?;
        let list = self.preference_list(key, quorum);
        let now = Instant::now();
        let deadline = now + timeout;
        let mut write = Write::new(list, quorum, now, deadline);
        let servers = to_all(|| write.poll_transmit());
        let tag = self.mint(Tag::ZERO).map_err(|_| NotBegun::Overloaded {
            what: "no tag is greater than those of the servers",
        })?;
        let question = Question::Put {
            key: key.clone(),
            record: Record::new(key, tag, content),
        };
        let machine = Machine::Write(write);
        let asked = Asked::Put { round: 0 };
        let begun = self.begin(machine, question, asked, &servers, deadline, wait)?;
        let ended = begun.finish().await;
        match ended.machine {
            Machine::Write(write) => Ok(Written {
                write,
                tag: ended.tag,
            }),
            _ => unreachable!("a request ends with its own machine"),
        }
    }

    /// Whether the protocols that may be spoken can carry the key and, to write it, the content.
    fn check(&self, key: &Key, content: Option<&Content>) -> Result<(), NotBegun> {
        if self.0.protocol == Protocol::V1 {
            return v1::check(key, content);
        }
        let (key_bytes, key_bytes_max) = (key.as_bytes().len(), self.0.key_bytes_max);
        if self.0.protocol == Protocol::V2 && key_bytes > key_bytes_max {
            return Err(NotBegun::KeyTooLong {
                key_bytes,
                key_bytes_max,
            });
        }
        Ok(())
    }

    /// Why a key or a content could not travel to servers that found so.
    pub fn unrepresentable(&self, key: &Key, content: Option<&Content>) -> NotBegun {
        let by_v1 = v1::check(key, content).err();
        by_v1.unwrap_or(NotBegun::KeyTooLong {
            key_bytes: key.as_bytes().len(),
            key_bytes_max: self.0.key_bytes_max,
        })
    }

    /// The longest value that may be put, in bytes.
    pub fn value_bytes_max(&self) -> usize {
        match self.0.protocol {
            Protocol::V1 => KEY_OR_VALUE_BYTES_MAX,
            Protocol::V2 | Protocol::Auto => self.0.value_bytes_max,
        }
    }

    /// Takes `value_bytes` of the memory for long values, for as long as the permit is held.
    pub fn take_memory(&self, value_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kibibytes = u32::try_from(value_bytes.div_ceil(1 << 10)).ok()?;
        let memory = Arc::clone(&self.0.memory);
        memory.try_acquire_many_owned(kibibytes).ok()
    }

    /// Asks every server whether it answers and how it does, for up to `timeout`. One entry per
    /// server, in the cluster's order.
    pub async fn probe(&self, timeout: Duration) -> Result<Vec<ServerStatus>, NotBegun> {
        let servers: Vec<ServerId> = self.shared().cluster.iter().map(|(id, _)| id).collect();
        let machine = Machine::Probe(Probe::new(servers.len()));
        let (asked, wait) = (Asked::Status, Wait::All);
        let deadline = Instant::now() + timeout;
        let begun = self.begin(machine, Question::Status, asked, &servers, deadline, wait)?;
        let answers = match begun.finish().await.machine {
            Machine::Probe(probe) => probe.into_answers(),
            _ => unreachable!("a request ends with its own machine"),
        };
        let status = |(server, answer): (ServerId, Option<Vec<(u8, u64)>>)| {
            let link = self.0.v2.status(server);
            let traffic = link.map(|link| Traffic {
                requests: link.counters.sent,
                retransmissions: link.counters.sent_again,
                datagrams_sent: link.counters.datagrams_sent,
                datagrams_received: link.datagrams_received,
                dropped: link.counters.damaged + link.counters.strays,
            });
            ServerStatus {
                is_reachable: answer.is_some(),
                speaks: self.speaks(server),
                round_trip: link.and_then(|link| link.round_trip),
                statistics: answer.unwrap_or_default(),
                traffic,
            }
        };
        Ok(servers.into_iter().zip(answers).map(status).collect())
    }

    fn speaks(&self, server: ServerId) -> Speaks {
        match self.0.protocol {
            Protocol::V1 => Speaks::V1,
            Protocol::V2 | Protocol::Auto => self.0.v2.speaks(server),
        }
    }

    fn preference_list(&self, key: &Key, quorum: Quorum) -> PreferenceList {
        let n = usize::from(quorum.n());
        let position = Position::of_key(key);
        self.shared().ring.preference_list(position, n)
    }

    /// Enters a request and asks all its servers, or fails and asks none.
    fn begin(
        &self,
        machine: Machine,
        question: Question,
        asked: Asked,
        servers: &[ServerId],
        deadline: Instant,
        wait: Wait,
    ) -> Result<Begun, NotBegun> {
        let inner = &self.0;
        inner.driver.call_once(|| {
            let drive = driver::drive(self.clone(), Arc::clone(&inner.woken), inner.keys.clone());
            drop(tokio::spawn(drive));
        });
        let (done, result) = oneshot::channel();
        let in_flight = InFlight {
            machine,
            question: question.clone(),
            deadline,
            wait,
            done,
            tickets: Vec::new(),
            fetches: Vec::new(),
            beginning: None,
            assembly: None,
            memory: None,
        };
        let id = inner.table.insert(Instant::now(), in_flight)?;
        // For the deadline, if for nothing else.
        inner.woken.notify_one();
        let begun = Begun {
            coordinator: self.clone(),
            id,
            result,
        };
        self.ask(id, asked, &question, servers, deadline)?;
        Ok(begun)
    }

    /// Asks each server by the protocol that it speaks. Fails, with nobody asked, if there are no
    /// sockets to be had.
    fn ask(
        &self,
        id: RequestId,
        asked: Asked,
        question: &Question,
        servers: &[ServerId],
        deadline: Instant,
    ) -> Result<(), NotBegun> {
        let now = Instant::now();
        let by_v1: Vec<ServerId> = match self.0.protocol {
            Protocol::V1 => servers.to_vec(),
            Protocol::V2 => Vec::new(),
            Protocol::Auto => self.0.v2.those_of_v1(servers),
        };
        if !by_v1.is_empty() {
            let sockets = self.0.v1.take(&by_v1)?;
            for (server, socket) in by_v1.iter().copied().zip(sockets) {
                self.ask_one_by_v1(id, asked, question, (server, socket), deadline);
                if self.0.protocol == Protocol::Auto {
                    self.0.v2.greet_if_due(self, server, now);
                }
            }
        }
        if by_v1.len() < servers.len() {
            let by_v2 = servers.iter().copied();
            let by_v2 = by_v2.filter(|server| !by_v1.contains(server));
            let times = (now, deadline);
            let asked_of = self.0.v2.ask(self, (id, asked), question, by_v2, times);
            let tickets = asked_of.iter().filter_map(|(server, result)| {
                let ticket = result.as_ref().ok()?;
                Some((*server, *ticket))
            });
            self.0
                .table
                .with(id, |in_flight| in_flight.tickets.extend(tickets));
            for (server, result) in asked_of {
                let heard = match result {
                    Ok(_) => continue,
                    Err(RequestError::TooLong { .. }) => {
                        Heard::refused(asked, Refusal::Unrepresentable)
                    }
                    Err(RequestError::TooMany) => Heard::refused(asked, Refusal::Busy),
                    Err(RequestError::Unreachable) => Heard::Unreachable { sent: false },
                };
                self.heard(id, server, asked, heard, now);
            }
        }
        Ok(())
    }

    fn ask_one_by_v1(
        &self,
        id: RequestId,
        asked: Asked,
        question: &Question,
        (server, socket): (ServerId, Option<v1::LinkSocket>),
        deadline: Instant,
    ) {
        let (heard, unused) = match (v1::encode(question), socket) {
            (Ok(datagram), Some(socket)) => {
                let links = &self.0.v1;
                return links.ask(self, (id, asked), socket, &datagram, deadline);
            }
            (Err(refusal), socket) => (Heard::refused(asked, refusal), socket),
            (Ok(_), None) => (Heard::Unreachable { sent: false }, None),
        };
        self.0.v1.give_back(vec![unused]);
        self.heard(id, server, asked, heard, Instant::now());
    }

    /// A server turned out to speak DKVS/1 only: asks it so, if that is allowed.
    fn ask_by_v1(&self, id: RequestId, asked: Asked, server: ServerId) {
        let now = Instant::now();
        let request = |in_flight: &mut InFlight| {
            in_flight.tickets.retain(|(asked, _)| *asked != server);
            (in_flight.question.clone(), in_flight.deadline)
        };
        let Some((question, deadline)) = self.0.table.with(id, request) else {
            return;
        };
        let heard = match asked {
            Asked::Fetch => Heard::FetchFailed(None),
            _ if self.0.protocol == Protocol::V2 => Heard::refused(asked, Refusal::NotV2),
            _ => match self.0.v1.take(&[server]) {
                Ok(mut sockets) => {
                    let socket = (server, sockets.pop().flatten());
                    return self.ask_one_by_v1(id, asked, &question, socket, deadline);
                }
                Err(_) => Heard::Unreachable { sent: false },
            },
        };
        self.heard(id, server, asked, heard, now);
    }

    /// Sends what is to be sent.
    fn flush(&self, now: Instant) {
        let events = self.0.v2.flush(now);
        self.handle_events(events, now);
    }

    /// Time has passed.
    fn handle_timeouts(&self, now: Instant) {
        // Requests first: that a fetch ends at its request's deadline is no failure of the server.
        let abandoned = self.0.table.expire(now);
        self.0.v2.abandon(&abandoned);
        let events = self.0.v2.handle_timeouts(now);
        self.handle_events(events, now);
    }

    /// Nothing is due before this.
    fn next_due(&self) -> Option<Instant> {
        let deadline = self.0.table.next_deadline();
        deadline.into_iter().chain(self.0.v2.next_due()).min()
    }

    fn take_new_keys(&self) {
        self.0.v2.take_new_keys();
    }

    /// A server has its word. Whatever that makes necessary is done.
    fn heard(&self, id: RequestId, from: ServerId, asked: Asked, heard: Heard, now: Instant) {
        match self.0.table.handle(id, from, asked, heard, now) {
            Handled::Ended(tickets) => self.0.v2.abandon(&tickets),
            Handled::Open(None) => {}
            Handled::Open(Some(Next::Exceed(seen))) => self.write_again(id, seen),
            Handled::Open(Some(Next::Fetch {
                from,
                key,
                assembly,
                deadline,
            })) => self.fetch(id, from, (key, assembly), (now, deadline)),
        }
    }

    fn write_again(&self, id: RequestId, seen: Tag) {
        let Ok(tag) = self.mint(seen) else {
            self.0.table.give_up(id);
            return;
        };
        let Some(round) = self.0.table.restart(id, tag) else {
            return;
        };
        let Round {
            question,
            servers,
            asked,
            deadline,
        } = round;
        if let Err(error) = self.ask(id, asked, &question, &servers, deadline) {
            tracing::warn!(%error, "a write could not be repeated under a greater tag");
            self.0.table.give_up(id);
        }
    }

    fn fetch(
        &self,
        id: RequestId,
        from: ServerId,
        (key, assembly): (Key, Assembly),
        times: (Instant, Instant),
    ) {
        let value_bytes = assembly.digest().value_bytes as usize;
        let has_memory = self.0.table.with(id, |in_flight| {
            if in_flight.memory.is_none() {
                in_flight.memory = self.take_memory(value_bytes);
            }
            in_flight.memory.is_some()
        });
        let begun = match has_memory {
            Some(true) => self.0.v2.fetch(self, id, from, (key, assembly), times),
            Some(false) => Err(RequestError::TooMany),
            None => return,
        };
        match begun {
            Ok(ticket) => drop(self.0.table.with(id, |in_flight| {
                in_flight.tickets.push((from, ticket));
            })),
            Err(_) => {
                let failed = Heard::FetchFailed(None);
                self.heard(id, from, Asked::Fetch, failed, times.0);
            }
        }
    }

    /// A tag greater than `seen`, and than all that were minted before.
    fn mint(&self, seen: Tag) -> Result<Tag, Exhausted> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // Before 1970 the clock shows nothing of use, and tags do not rely on it.
        let unix_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let mut clock = self.0.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.mint(unix_ms, seen)
    }
}

/// A write that has ended, and the tag under which; none if no server was asked by DKVS/2.
pub struct Written {
    /// What became of it.
    pub write: Write,
    /// Its tag.
    pub tag: Option<Tag>,
}

/// Everyone whom a machine wants to be asked.
fn to_all(poll_transmit: impl FnMut() -> Option<Transmit>) -> Vec<ServerId> {
    let transmits = std::iter::from_fn(poll_transmit);
    transmits.map(|transmit| transmit.to).collect()
}

/// The longest key that fits a datagram with everything else that a put may say.
fn key_bytes_max(settings: &Settings) -> usize {
    let head = Request::PUT_HEAD_BYTES_MAX;
    let envelope = match settings.keys {
        Some(_) => AUTHENTICATED_BYTES,
        None => PLAIN_BYTES,
    };
    settings
        .datagram_bytes_max
        .saturating_sub(head + envelope)
        .min(KEY_BYTES_MAX)
}

/// A request that is in flight. Whoever drops it drops the request.
struct Begun {
    coordinator: Coordinator,
    id: RequestId,
    result: oneshot::Receiver<Ended>,
}

impl Begun {
    /// Waits for the decision or the deadline, which the driver looks after.
    async fn finish(mut self) -> Ended {
        let ended = (&mut self.result).await;
        ended.expect("a request leaves the table only with its result")
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let coordinator = &self.coordinator.0;
        let tickets = coordinator.table.remove(self.id);
        coordinator.v2.abandon(&tickets);
    }
}

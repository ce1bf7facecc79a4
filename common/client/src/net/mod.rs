//! The gateway's side towards the servers: requests in flight, sockets, timers.
//!
//! ```text
//!   handler --read/write--> [ core: requests, machines, links ] <--datagrams-- sockets
//!      ^                          |                 |                            ^
//!      +------- ended ------------+                 +---- driver: flush, timers -+
//! ```
//!
//! One coordinator per worker; workers share nothing here but the ledger of burned ports and
//! the last round trips. What happens to a request is decided in [`core`]; this module only
//! carries datagrams to it and wakes the handler when a request has ended.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clocks and sockets are read here, and nowhere else in this package"
)]

mod driver;
mod ports;
mod socket;
mod sockets;
#[cfg(test)]
mod tests;
mod v1;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::transport::peer::Speaks;
use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::kv::Key;
use dkvs_common::quorum::list::{List, Listing};
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::write::Write;
use dkvs_common::record::Content;
use dkvs_common::ring::Ring;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v1::{KEY_OR_VALUE_BYTES_MAX, Unrepresentable};
use dkvs_common::wire::v2::keys::Keys;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::core::{
    AskByV1, Core, Ended, Heard, Limit, LinkStatus, Machine, Now, RequestId, ServerCounts, Token,
    Totals, V1Only, Wish,
};
use dkvs_common::histogram::Histogram;
pub use ports::BurnedPorts;
use sockets::Sockets;
pub use v1::SOCKET_BUFFER_BYTES;

/// Which protocol to speak to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// DKVS/2 with servers that do, DKVS/1 with those that answer nothing else.
    Auto,
    /// DKVS/1 only.
    V1,
    /// DKVS/2 only.
    #[default]
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
    /// DKVS/1 cannot list keys in pages.
    #[error("the gateway speaks DKVS/1, which cannot list keys")]
    NoListing,
    /// A linearizable request needs tags, and a replica has none.
    #[error("{server} speaks DKVS/1 only, which has no tags; consistency=agreement needs none")]
    NoTags {
        /// Which one.
        server: String,
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

    pub(crate) fn record_round_trip(&self, server: ServerId, round_trip: Duration) {
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
    /// The longest that any gateway of the cluster lets a request take.
    pub timeout_max: Duration,
    /// How much.
    pub limits: Limits,
}

/// One worker's requests and sockets. Clones are handles to the same.
#[derive(Clone)]
pub struct Coordinator(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    protocol: Protocol,
    value_bytes_max: usize,
    /// The lock is the worker's own; it is there so that handlers may be `Send`, and is never held
    /// across an await. Others take it only to copy counts, when somebody asks for metrics.
    state: Mutex<State>,
    v1: v1::Links,
    driver: Once,
    woken: Arc<Notify>,
    keys: Option<watch::Receiver<Keys>>,
    /// Kibibytes of long values that may be under way.
    memory: Arc<Semaphore>,
    limits: Limits,
}

struct State {
    core: Core<Waiter>,
    sockets: Sockets,
}

/// Who waits for a request to end.
type Waiter = oneshot::Sender<Ended>;

/// What a server is and does, as far as one worker knows.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// What it speaks.
    pub speaks: Speaks,
    /// Whether it answers by DKVS/1 alone, where DKVS/2 is spoken as well.
    pub v1_only: Option<V1Only>,
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

/// What a worker has counted since its start, and what it has in hand.
pub struct Snapshot {
    /// How reads and writes ended, and which limits were hit.
    pub totals: Totals,
    /// In the cluster's order.
    pub servers: Vec<ServerSnapshot>,
    /// The same: how long they took to answer, by either protocol.
    pub round_trips: Arc<[Histogram]>,
    /// Reads, writes and questions how servers do.
    pub requests_in_flight: usize,
    /// The memory that long values on their way have taken, in bytes.
    pub value_bytes_in_flight: usize,
    /// Sockets for DKVS/1.
    pub v1_sockets_open: usize,
    /// The most of each.
    pub limits: Limits,
}

/// The same of one server.
pub struct ServerSnapshot {
    /// What went to it and came from it by DKVS/2; none before it was first asked.
    pub link: Option<LinkStatus>,
    /// What was counted about it.
    pub counts: ServerCounts,
}

impl Coordinator {
    /// A coordinator for one worker. Its futures run on that worker's runtime. Fails if the
    /// system has no random bytes.
    pub fn new(shared: Arc<Shared>, settings: Settings) -> Result<Self, getrandom::Error> {
        let servers = shared.cluster.servers().len();
        let random = (0..=servers).map(|_| getrandom::u64());
        let random: Vec<u64> = random.collect::<Result<_, _>>()?;
        let mut random = random.into_iter();
        let limits = settings.limits;
        let memory = Arc::new(Semaphore::new(limits.value_bytes_in_flight_max >> 10));
        let core = Core::new(Arc::clone(&shared), &settings, Arc::clone(&memory), || {
            random
                .next()
                .expect("there is one for every server and one more")
        });
        let sockets = Sockets::new(servers, settings.offload);
        Ok(Self(Arc::new(Inner {
            protocol: settings.protocol,
            value_bytes_max: settings.value_bytes_max,
            state: Mutex::new(State { core, sockets }),
            v1: v1::Links::new(Arc::clone(&shared), limits.sockets_max),
            driver: Once::new(),
            woken: Arc::new(Notify::new()),
            keys: settings.keys,
            memory,
            limits,
            shared,
        })))
    }

    /// Which protocol is spoken to the servers.
    pub fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// The cluster and what is known of it.
    pub fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Reads `key` from the `wish.quorum.n()` replicas of its preference list. Returns once
    /// decided (or, with [`Wait::All`], once complete), at the latest after `wish.timeout`. Begins
    /// at once, not when it is first awaited: nothing of the request is kept beside the future.
    pub fn read(
        &self,
        key: &Key,
        wish: Wish,
    ) -> impl Future<Output = Result<Read, NotBegun>> + use<> {
        let begin = |state: &mut State, waiter, now| {
            let list = state.core.preference_list(key, wish.quorum);
            if self.0.protocol != Protocol::V1 {
                self.open_all(state, &list, now);
            }
            state.core.read(key, list, wish, waiter, now)
        };
        let begun = self.begin(begin);
        async {
            match begun?.finish().await.machine {
                Machine::Read(read) => Ok(read),
                _ => unreachable!("a request ends with its own machine"),
            }
        }
    }

    /// Writes `content` to the `wish.quorum.n()` replicas of the key's preference list; otherwise
    /// as [`Self::read`]. With a `tag`, it is the write that had this tag once more. Dropping the
    /// future does not take back what was sent.
    pub fn write(
        &self,
        key: &Key,
        content: Content,
        tag: Option<Tag>,
        wish: Wish,
    ) -> impl Future<Output = Result<Written, NotBegun>> + use<> {
        let begin = |state: &mut State, waiter, now| {
            let list = state.core.preference_list(key, wish.quorum);
            if self.0.protocol != Protocol::V1 {
                self.open_all(state, &list, now);
            }
            let core = &mut state.core;
            core.write(key, content, list, tag, wish, waiter, now)
        };
        let begun = self.begin(begin);
        async {
            let ended = begun?.finish().await;
            match ended.machine {
                Machine::Write(write) => Ok(Written {
                    write,
                    tag: ended.tag,
                }),
                _ => unreachable!("a request ends with its own machine"),
            }
        }
    }

    /// Lists keys, for up to `timeout`.
    pub async fn list(&self, listing: Listing, timeout: Duration) -> Result<List, NotBegun> {
        let begin = |state: &mut State, waiter, now| {
            self.open_each(state, now);
            state.core.list(listing, timeout, waiter, now)
        };
        match self.begin(begin)?.finish().await.machine {
            Machine::List(list) => Ok(list),
            _ => unreachable!("a request ends with its own machine"),
        }
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
        let taken = crate::core::take_memory(&self.0.memory, value_bytes);
        if taken.is_none() {
            self.state().core.note_limit(Limit::ValueMemory);
        }
        taken
    }

    /// What this worker has counted, and what it has in hand. May be asked by any thread.
    pub fn snapshot(&self) -> Snapshot {
        let servers = self.shared().cluster.iter().map(|(id, _)| id);
        let servers: Vec<ServerId> = servers.collect();
        let taken_kibibytes = (self.0.limits.value_bytes_in_flight_max >> 10)
            .saturating_sub(self.0.memory.available_permits());
        let mut links = Vec::with_capacity(servers.len());
        let state = self.state();
        let core = &state.core;
        links.extend(servers.iter().map(|server| ServerSnapshot {
            link: core.link_status(*server),
            counts: core.server_counts(*server),
        }));
        Snapshot {
            totals: core.totals(),
            servers: links,
            round_trips: Arc::clone(core.round_trips()),
            requests_in_flight: core.in_flight(),
            value_bytes_in_flight: taken_kibibytes << 10,
            v1_sockets_open: self.0.v1.open_sockets(),
            limits: self.0.limits,
        }
    }

    /// Asks every server whether it answers and how it does, for up to `timeout`. One entry per
    /// server, in the cluster's order.
    pub async fn probe(&self, timeout: Duration) -> Result<Vec<ServerStatus>, NotBegun> {
        let servers: Vec<ServerId> = self.shared().cluster.iter().map(|(id, _)| id).collect();
        let begin = |state: &mut State, waiter, now| {
            self.open_each(state, now);
            state.core.probe(timeout, waiter, now)
        };
        let answers = match self.begin(begin)?.finish().await.machine {
            Machine::Probe(probe) => probe.into_answers(),
            _ => unreachable!("a request ends with its own machine"),
        };
        let state = self.state();
        let status = |(server, answer): (ServerId, Option<Vec<(u8, u64)>>)| {
            let link = state.core.link_status(server);
            let traffic = link.map(|link| Traffic {
                requests: link.counters.sent,
                retransmissions: link.counters.sent_again,
                datagrams_sent: link.counters.datagrams_sent,
                datagrams_received: link.datagrams_received,
                dropped: link.counters.damaged + link.counters.strays,
            });
            ServerStatus {
                is_reachable: answer.is_some(),
                speaks: state.core.speaks(server),
                v1_only: state.core.v1_only(server),
                round_trip: link.and_then(|link| link.round_trip),
                statistics: answer.unwrap_or_default(),
                traffic,
            }
        };
        Ok(servers.into_iter().zip(answers).map(status).collect())
    }

    /// Begins a request. Fails, with nobody asked, if it cannot.
    fn begin(
        &self,
        begin: impl FnOnce(&mut State, Waiter, Now) -> Result<RequestId, NotBegun>,
    ) -> Result<Begun, NotBegun> {
        let inner = &self.0;
        inner.driver.call_once(|| {
            let drive = driver::drive(self.clone(), Arc::clone(&inner.woken), inner.keys.clone());
            drop(tokio::spawn(drive));
        });
        let (waiter, result) = oneshot::channel();
        let mut state = self.state();
        let id = match begin(&mut state, waiter, now()) {
            Ok(id) => id,
            Err(error) => {
                // A server may have to be greeted all the same.
                self.after(state);
                return Err(error);
            }
        };
        let begun = Begun {
            coordinator: self.clone(),
            id,
            result,
        };
        let by_v1 = by_v1(&mut state.core);
        let servers: Vec<ServerId> = by_v1.iter().map(|ask| ask.server).collect();
        // Nothing goes out before the driver has its turn.
        let sockets = match inner.v1.take(&servers) {
            Ok(sockets) => sockets,
            Err(error) => {
                state.core.note_limit(Limit::V1Sockets);
                state.core.withdraw(id);
                drop(state);
                return Err(error);
            }
        };
        self.after(state);
        // For the deadline, if for nothing else.
        inner.woken.notify_one();
        for (ask, socket) in by_v1.into_iter().zip(sockets) {
            self.ask_by_v1(ask, socket);
        }
        Ok(begun)
    }

    /// Sees to what the core wants done, once it was told something.
    fn after(&self, mut state: MutexGuard<'_, State>) {
        while let Some((waiter, ended)) = state.core.poll_ended() {
            // A handler that is gone does not need it.
            drop(waiter.send(ended));
        }
        let by_v1 = by_v1(&mut state.core);
        if state.core.wants_to_send() {
            self.0.woken.notify_one();
        }
        drop(state);
        for ask in by_v1 {
            match self.0.v1.take(&[ask.server]) {
                Ok(mut sockets) => self.ask_by_v1(ask, sockets.pop().flatten()),
                Err(_) => {
                    self.state().core.note_limit(Limit::V1Sockets);
                    self.heard_by_v1(ask.token, ask.server, unreachable());
                }
            }
        }
    }

    fn ask_by_v1(&self, ask: AskByV1, socket: Option<v1::LinkSocket>) {
        let AskByV1 {
            token,
            server,
            question,
            deadline,
        } = ask;
        let (heard, unused) = match (question.to_v1(), socket) {
            (Ok(datagram), Some(socket)) => {
                return self.0.v1.ask(self, token, socket, &datagram, deadline);
            }
            (Err(refusal), socket) => (Heard::refused(token.asked, refusal), socket),
            (Ok(_), None) => (unreachable(), None),
        };
        self.0.v1.give_back(vec![unused]);
        self.heard_by_v1(token, server, heard);
    }

    fn heard_by_v1(&self, token: Token, from: ServerId, heard: Heard) {
        let mut state = self.state();
        state.core.handle_v1(token, from, heard, now());
        self.after(state);
    }

    fn handle_timeouts(&self) {
        let mut state = self.state();
        state.core.handle_timeout(now());
        self.after(state);
    }

    /// Nothing is due before this.
    fn next_due(&self) -> Option<Instant> {
        self.state().core.poll_timeout()
    }

    fn take_new_keys(&self) {
        if let Some(keys) = &self.0.keys {
            let keys = keys.borrow().clone();
            self.state().core.set_keys(keys);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_v1(core: &mut Core<Waiter>) -> Vec<AskByV1> {
    std::iter::from_fn(|| core.poll_ask_by_v1()).collect()
}

fn unreachable() -> Heard {
    Heard::Unreachable { sent: false }
}

/// What the clocks show.
pub fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // Before 1970 the clock shows nothing of use, and tags do not rely on it.
    let unix_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    Now {
        at: Instant::now(),
        unix_ms,
    }
}

/// A write that has ended, and the tag under which; none if no server was asked by DKVS/2.
pub struct Written {
    /// What became of it.
    pub write: Write,
    /// Its tag.
    pub tag: Option<Tag>,
}

/// A request that is in flight. Whoever drops it drops the request, if it is no write.
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
        self.coordinator.state().core.cancel(self.id);
    }
}

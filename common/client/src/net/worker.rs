//! The core of a worker and its sockets, behind one lock.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dkvs_common::cluster::ServerId;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::ring::PreferenceList;
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::{Notify, watch};

use super::config::ClientConfig;
use super::shared::Shared;
use super::socket::ServerSocket;
use super::sockets::Sockets;
use super::v1;
use crate::core::{AdmissionError, Core, Limit, MemoryBudget, Now, Protocol, RequestId, Token};
use crate::transport::v1::Exchange;

/// One worker's core and sockets. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Worker(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    protocol: Protocol,
    /// The lock is the worker's own; it is there so that callers may be `Send`, and is never held
    /// across an await. Others take it only to copy counts, for metrics.
    state: Mutex<State>,
    v1: v1::Pool,
    started: Once,
    woken: Notify,
    keys: Option<watch::Receiver<Keys>>,
    memory: MemoryBudget,
}

/// What the lock guards.
pub(super) struct State {
    pub(super) core: Core,
    sockets: Sockets,
}

impl Worker {
    /// A worker that has opened no socket. `random` has to differ from that of any other, ever.
    pub(super) fn new(shared: Arc<Shared>, config: ClientConfig, random: u64) -> Self {
        let memory = MemoryBudget::new(config.limits.value_bytes_in_flight_max);
        let core = Core::new(
            config.core(),
            shared.view(),
            config.keys.as_ref().map(|keys| keys.borrow().clone()),
            memory.clone(),
            shared.round_trips.clone(),
            random,
        );
        let sockets = Sockets::new(config.offload);
        Self(Arc::new(Inner {
            protocol: config.protocol,
            state: Mutex::new(State { core, sockets }),
            v1: v1::Pool::new(Arc::clone(&shared), config.limits.sockets_max),
            started: Once::new(),
            woken: Notify::new(),
            keys: config.keys,
            memory,
            shared,
        }))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(super) fn memory(&self) -> &MemoryBudget {
        &self.0.memory
    }

    pub(super) fn v1_sockets_open(&self) -> usize {
        self.0.v1.open_sockets()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `start` the first time only.
    pub(super) fn start_once(&self, start: impl FnOnce()) {
        self.0.started.call_once(start);
    }

    /// Waits until there is something to send, or a timer has changed.
    pub(super) async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// The cluster's keys as they change, if it has any.
    pub(super) fn keys(&self) -> Option<watch::Receiver<Keys>> {
        self.0.keys.clone()
    }

    /// Begins a request; fails, with nothing sent, if it cannot.
    pub(super) fn begin(
        &self,
        begin: impl FnOnce(&mut State) -> Result<RequestId, AdmissionError>,
    ) -> Result<RequestId, AdmissionError> {
        let mut state = self.state();
        let id = match begin(&mut state) {
            Ok(id) => id,
            Err(error) => {
                // A server may have to be greeted all the same.
                self.after(state);
                return Err(error);
            }
        };
        let exchanges = exchanges(&mut state.core);
        let server = |exchange: &Exchange<Token>| (exchange.server, exchange.addr.into());
        let servers: Vec<(ServerId, SocketAddr)> = exchanges.iter().map(server).collect();
        // Nothing goes out before the driver has its turn.
        let sockets = match self.0.v1.take(&servers) {
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
        self.0.woken.notify_one();
        for (exchange, socket) in exchanges.into_iter().zip(sockets) {
            self.begin_exchange(exchange, socket);
        }
        Ok(id)
    }

    /// Opens sockets and links to those of a list that have none yet. One that cannot be opened
    /// counts as overloaded.
    pub(super) fn open_for(&self, state: &mut State, list: &PreferenceList, now: Now) {
        for point in list {
            self.open(state, point.server, now);
        }
    }

    /// The same for every server of the cluster.
    pub(super) fn open_cluster(&self, state: &mut State, now: Now) {
        let view = Arc::clone(state.core.view());
        for server in view.servers() {
            self.open(state, server, now);
        }
    }

    /// The same for one server, if it is to be asked by DKVS/2.
    pub(super) fn open(&self, state: &mut State, server: ServerId, now: Now) {
        if self.0.protocol == Protocol::V1 || state.core.is_open(server) {
            return;
        }
        let Some(addr) = state.core.view().cluster().addr(server) else {
            return;
        };
        let random = match getrandom::u64() {
            Ok(random) => random,
            Err(error) => return tracing::warn!(%addr, %error, "no random bytes for a link"),
        };
        match state.sockets.open(server, addr) {
            Ok((socket, endpoint)) => {
                state.core.open(server, endpoint, random, now);
                tokio::spawn(receive(self.clone(), server, socket));
            }
            Err(error) => tracing::warn!(%addr, %error, "no socket towards a server"),
        }
    }

    /// Sends all that the core has to send.
    pub(super) fn flush(&self) {
        let now = now();
        let mut state = self.state();
        let State { core, sockets } = &mut *state;
        while let Some(server) = core.poll_server() {
            let blocked = sockets.send_all(core, server, now);
            if let Some(socket) = blocked {
                let worker = self.clone();
                tokio::spawn(async move {
                    if socket.writable().await.is_ok() {
                        worker.state().core.resume(server);
                        worker.0.woken.notify_one();
                    }
                });
            }
        }
        self.after(state);
    }

    /// Takes what has arrived from `server`. Fails if nothing has.
    fn receive(&self, server: ServerId, socket: &ServerSocket) -> io::Result<()> {
        let mut state = self.state();
        let State { core, sockets } = &mut *state;
        sockets.receive(core, server, socket, now)?;
        self.after(state);
        Ok(())
    }

    /// Time has passed.
    pub(super) fn handle_timeouts(&self) {
        let mut state = self.state();
        state.core.handle_timeout(now());
        self.after(state);
    }

    /// Nothing is due before this.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().core.poll_timeout()
    }

    /// Takes other keys into use.
    pub(super) fn set_keys(&self, keys: Keys) {
        self.state().core.set_keys(keys);
        self.0.woken.notify_one();
    }

    /// Takes another view of the cluster into use.
    pub(super) fn set_view(&self, view: Arc<ClusterView>) {
        self.state().core.set_view(view);
    }

    /// Wakes the driver and starts exchanges, as the core asks after something was reported to it.
    fn after(&self, mut state: MutexGuard<'_, State>) {
        let exchanges = exchanges(&mut state.core);
        if state.core.wants_to_send() {
            self.0.woken.notify_one();
        }
        drop(state);
        for exchange in exchanges {
            match self.0.v1.take(&[(exchange.server, exchange.addr.into())]) {
                Ok(mut sockets) => self.begin_exchange(exchange, sockets.pop().flatten()),
                Err(_) => {
                    self.state().core.note_limit(Limit::V1Sockets);
                    v1::Recipient::handle_unreachable(self, exchange.token, exchange.server);
                }
            }
        }
    }

    fn begin_exchange(&self, exchange: Exchange<Token>, socket: Option<v1::PooledSocket>) {
        match socket {
            Some(socket) => self.0.v1.begin(self.clone(), exchange, socket),
            None => v1::Recipient::handle_unreachable(self, exchange.token, exchange.server),
        }
    }
}

impl v1::Recipient for Worker {
    fn handle_round_trip(&self, server: ServerId, round_trip: Duration) {
        self.state().core.note_round_trip(server, round_trip);
    }

    fn handle_response(&self, token: Token, from: ServerId, response: ReplicaResponse) {
        let mut state = self.state();
        state.core.handle_exchange(token, from, response, now());
        self.after(state);
    }

    fn handle_unreachable(&self, token: Token, to: ServerId) {
        let mut state = self.state();
        state.core.handle_exchange_unreachable(token, to, now());
        self.after(state);
    }
}

fn exchanges(core: &mut Core) -> Vec<Exchange<Token>> {
    std::iter::from_fn(|| core.poll_exchange()).collect()
}

/// Takes what arrives from one server.
async fn receive(worker: Worker, server: ServerId, socket: Arc<ServerSocket>) {
    loop {
        let received = socket.receive(|| worker.receive(server, &socket)).await;
        if let Err(error) = received {
            tracing::error!(%error, "a socket towards a server cannot be waited on");
            return;
        }
    }
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

//! What handlers share: the state of a worker, and that of the gateway.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use dkvs_client::{CallerId, Client};
use tokio_util::sync::CancellationToken;

use super::batch::batch_writes;
use super::checks::{Checks, PROBE_TIMEOUT};
use super::counts::Counts;
use super::fair::{FairSemaphore, FairSlots, Pace};
use super::feed::Feed;
use super::gate::Gate;
use super::list::lists_in_flight;
use super::liveness::Liveness;
use super::parameters::RequestDefaults;
use super::request_id::RequestIds;
use crate::cursor_keys::CursorKeys;
use crate::embedded::ServerSwitch;

/// What the workers of one gateway share.
pub struct GatewayState {
    pub(super) started: SystemTime,
    /// Stops and starts embedded servers; none if all servers are elsewhere.
    pub(super) switch: Option<ServerSwitch>,
    pub(super) feed: Feed,
    pub(super) checks: Checks,
    pub(super) liveness: Liveness,
    /// By which cursors of lists are sealed.
    pub(super) cursors: CursorKeys,
}

impl GatewayState {
    /// The state of a gateway that starts now.
    pub fn new(switch: Option<ServerSwitch>, cursors: CursorKeys) -> Self {
        Self {
            started: SystemTime::now(),
            switch,
            feed: Feed::default(),
            checks: Checks::default(),
            liveness: Liveness::default(),
            cursors,
        }
    }
}

/// What the handlers of one worker share.
#[derive(Clone)]
pub struct App(Arc<WorkerState>);

/// The state of one worker.
pub struct WorkerState {
    pub(super) client: Client,
    /// Copies of each key.
    pub(super) replication: u8,
    timeout: Duration,
    /// Cancelled when the gateway is to end; it is then no longer ready.
    pub(super) draining: CancellationToken,
    pub(super) request_ids: RequestIds,
    pub(super) gate: Gate,
    pub(super) counts: Arc<Counts>,
    /// The lists that it carries out.
    pub(super) lists: Arc<FairSlots>,
    /// The bytes of long values that batches are writing.
    pub(super) batch_writes: Arc<FairSemaphore>,
    pub(super) pace: Arc<Pace>,
    pub(super) gateway: Arc<GatewayState>,
    /// All workers of the gateway; unset where there is no other.
    workers: OnceLock<Arc<[WorkerView]>>,
}

/// What other workers see of a worker.
#[derive(Clone)]
pub(super) struct WorkerView {
    pub(super) counts: Arc<Counts>,
    pub(super) client: Client,
}

impl App {
    /// Handlers over one worker's client.
    ///
    /// # Errors
    ///
    /// If the system has no random bytes.
    pub fn new(
        client: Client,
        replication: u8,
        timeout: Duration,
        draining: CancellationToken,
        gate: Gate,
        gateway: Arc<GatewayState>,
    ) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(WorkerState {
            client,
            replication,
            timeout,
            draining,
            request_ids: RequestIds::new()?,
            gate,
            counts: Arc::new(Counts::new()),
            lists: Arc::new(lists_in_flight()),
            batch_writes: Arc::new(batch_writes()),
            pace: Arc::default(),
            gateway,
            workers: OnceLock::new(),
        })))
    }

    /// Makes workers one gateway: from now on each reports the counts of all, and so does what watches
    /// them, which is no worker.
    pub fn unite(workers: &[Self], watch: &Self) {
        let all: Arc<[WorkerView]> = workers.iter().map(|it| it.view()).collect();
        for worker in workers.iter().chain([watch]) {
            // A worker that is part of a gateway already stays part of that one.
            let _ = worker.workers.set(Arc::clone(&all));
        }
    }

    /// All workers of this worker's gateway.
    pub(super) fn workers(&self) -> Arc<[WorkerView]> {
        match self.workers.get() {
            Some(workers) => Arc::clone(workers),
            None => Arc::new([self.view()]),
        }
    }

    /// Watches the gateway: checks the servers for all who ask, and looks whether the workers move.
    pub async fn watch(&self) -> Infallible {
        let workers = self.workers();
        let hearts: Vec<_> = workers.iter().map(|it| &it.counts.heart).collect();
        tokio::join!(
            self.gateway
                .checks
                .run(|| self.client.status(PROBE_TIMEOUT, CallerId::Internal)),
            self.gateway.liveness.watch(&hearts),
        )
        .0
    }

    fn view(&self) -> WorkerView {
        WorkerView {
            counts: Arc::clone(&self.counts),
            client: self.client.clone(),
        }
    }
}

impl WorkerState {
    /// What holds for a request that begins now and does not say otherwise.
    pub(super) fn defaults(&self) -> RequestDefaults {
        RequestDefaults {
            servers: self.client.view().servers().len(),
            replication: self.replication,
            timeout: self.timeout,
        }
    }
}

impl Deref for App {
    type Target = WorkerState;

    fn deref(&self) -> &WorkerState {
        &self.0
    }
}

//! The client's interface: reads, writes and lists of a cluster, each as a future.

use std::sync::Arc;
use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::epoch::Epoch;
use dkvs_common::kv::Key;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::conditional::{Attempt, Condition};
use dkvs_common::quorum::list::Listing;
use dkvs_common::record::{Attributes, Content};
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v1::KEY_OR_VALUE_BYTES_MAX;
use tokio::sync::oneshot;

use super::config::ClientConfig;
use super::driver;
use super::shared::Shared;
use super::status::{ServerSnapshot, ServerStatus, Snapshot, Traffic};
use super::worker::{State, Worker, now};
use crate::core::{
    AdmissionError, CallerId, ConditionalResult, InspectResult, Limits, ListResult, MemoryAccount,
    Now, Protocol, ReadRequest, ReadResult, RequestId, RequestOptions, WriteRequest, WriteResult,
};

/// One worker's client of the cluster. Clones are handles to the same. Its futures run on that
/// worker's runtime.
#[derive(Clone)]
pub struct Client {
    worker: Worker,
    protocol: Protocol,
    value_bytes_max: usize,
    limits: Limits,
}

impl Client {
    /// A client that has opened no socket. Fails if the system has no random bytes.
    pub fn new(shared: Arc<Shared>, config: ClientConfig) -> Result<Self, getrandom::Error> {
        Ok(Self {
            protocol: config.protocol,
            value_bytes_max: config.value_bytes_max,
            limits: config.limits,
            worker: Worker::new(shared, config, getrandom::u64()?),
        })
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Which protocol is spoken to the servers.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What all clients of the process share.
    pub fn shared(&self) -> &Shared {
        self.worker.shared()
    }

    /// The cluster as requests that begin now see it.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(self.worker.state().core.view())
    }

    /// The longest value that may be put, in bytes.
    pub fn value_bytes_max(&self) -> usize {
        match self.protocol {
            Protocol::V1 => KEY_OR_VALUE_BYTES_MAX,
            Protocol::V2 | Protocol::Auto => self.value_bytes_max,
        }
    }

    /// The memory for long values, as `caller` takes of it.
    pub fn memory(&self, caller: CallerId) -> MemoryAccount {
        self.worker.memory().account(caller)
    }

    /// Reads `key` from the `options.quorum.n()` replicas of its preference list. Returns once
    /// decided (or, with [`Wait::All`](crate::core::Wait::All), once complete), at the latest after
    /// `options.timeout`. Begins at once, not when it is first awaited: nothing of the request is kept
    /// beside the future.
    pub fn read(
        &self,
        key: &Key,
        options: RequestOptions,
    ) -> impl Future<Output = Result<ReadResult, AdmissionError>> + use<> {
        let pending = self.begin(|state, now, ended| {
            let list = state.core.preference_list(key, options.quorum);
            self.worker.open_for(state, &list, now);
            let key = key.clone();
            let request = ReadRequest { key, list, options };
            state.core.read(request, now, send_to(ended))
        });
        async { Ok(pending?.ended().await) }
    }

    /// Writes `content` to the `options.quorum.n()` replicas of the key's preference list; otherwise
    /// as [`Self::read`]. With a `tag`, it is the write that had this tag once more. Dropping the
    /// future does not take back what was sent.
    pub fn write(
        &self,
        key: &Key,
        content: Content,
        tag: Option<Tag>,
        options: RequestOptions,
    ) -> impl Future<Output = Result<WriteResult, AdmissionError>> + use<> {
        let pending = self.begin(|state, now, ended| {
            let list = state.core.preference_list(key, options.quorum);
            self.worker.open_for(state, &list, now);
            let request = WriteRequest {
                key: key.clone(),
                content,
                attributes: Attributes::NONE,
                tag,
                list,
                options,
            };
            state.core.write(request, now, send_to(ended))
        });
        async { Ok(pending?.ended().await) }
    }

    /// Makes a conditional write of this server's own: see [`Core::request_of_server`](crate::core::Core::request_of_server).
    pub fn finish(
        &self,
        key: Key,
        record: (Content, Attributes),
        condition: (Condition, Attempt),
        timeout: Duration,
    ) -> impl Future<Output = Result<ConditionalResult, AdmissionError>> + use<> {
        let pending = self.begin(|state, now, ended| {
            let request = state
                .core
                .request_of_server(key, record, condition, timeout);
            self.worker.open_for(state, &request.list, now);
            state.core.write_if(request, now, send_to(ended))
        });
        async { Ok(pending?.ended().await) }
    }

    /// Asks the `options.quorum.n()` replicas of `key` what they hold, for up to `options.timeout`. Reads
    /// no value, and changes nothing.
    pub async fn inspect(
        &self,
        key: &Key,
        options: RequestOptions,
    ) -> Result<InspectResult, AdmissionError> {
        let pending = self.begin(|state, now, ended| {
            let list = state.core.preference_list(key, options.quorum);
            self.worker.open_for(state, &list, now);
            let key = key.clone();
            let request = ReadRequest { key, list, options };
            state.core.inspect(request, now, send_to(ended))
        });
        Ok(pending?.ended().await)
    }

    /// Lists keys, for up to `timeout`.
    pub async fn list(
        &self,
        listing: Listing,
        timeout: Duration,
        caller: CallerId,
    ) -> Result<ListResult, AdmissionError> {
        let pending = self.begin(|state, now, ended| {
            self.worker.open_cluster(state, now);
            state
                .core
                .list(listing, timeout, caller, now, send_to(ended))
        });
        Ok(pending?.ended().await)
    }

    /// Asks one server to carry out a command, for up to `timeout`. Returns its response, with the whole
    /// of a long value; none if it did not answer in time, or there was no memory for its value.
    pub fn ask(
        &self,
        to: ServerId,
        command: ReplicaCommand,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<ReplicaResponse>, AdmissionError>> + use<> {
        let pending = self.begin(|state, now, ended| {
            self.worker.open(state, to, now);
            state.core.ask(to, command, timeout, now, send_to(ended))
        });
        async { Ok(pending?.ended().await) }
    }

    /// Asks every server whether it answers and how it does, for up to `timeout`. One entry per
    /// server, in the cluster's order.
    pub async fn status(
        &self,
        timeout: Duration,
        caller: CallerId,
    ) -> Result<Vec<ServerStatus>, AdmissionError> {
        let pending = self.begin(|state, now, ended| {
            self.worker.open_cluster(state, now);
            state.core.status(timeout, caller, now, send_to(ended))
        });
        let answers = pending?.ended().await;
        let core = &self.worker.state().core;
        let statuses = answers.into_iter().map(|(server, answer)| {
            let link = core.link_status(server);
            ServerStatus {
                server,
                is_reachable: answer.is_some(),
                version: core.speaks(server).into(),
                description: core.description(server),
                is_other_configuration: core.is_other_configuration(server),
                v1_only: core.v1_only(server),
                round_trip: link.and_then(|link| link.round_trip),
                statistics: answer.unwrap_or_default(),
                traffic: link.map(Traffic::from),
            }
        });
        Ok(statuses.collect())
    }

    /// The configuration that requests belong to which begin now.
    pub fn epoch(&self) -> Epoch {
        self.worker.state().core.epoch()
    }

    /// What this worker has counted, and what it has in hand. May be asked by any thread.
    pub fn snapshot(&self) -> Snapshot {
        let value_bytes_in_flight = self.worker.memory().taken_bytes();
        let v1_sockets_open = self.worker.v1_sockets_open();
        let state = self.worker.state();
        let core = &state.core;
        let servers = core.view().servers().map(|server| ServerSnapshot {
            server,
            link: core.link_status(server),
            counts: core.server_counts(server),
            round_trips: core.round_trips(server),
        });
        Snapshot {
            totals: core.totals(),
            servers: servers.collect(),
            requests_undecided: core.undecided(),
            requests_decided: core.decided(),
            value_bytes_in_flight,
            v1_sockets_open,
            limits: self.limits,
        }
    }

    /// Starts what a worker does beside its requests.
    fn start(&self) {
        let worker = || self.worker.clone();
        tokio::spawn(driver::drive(worker()));
        let (views, to) = (self.shared().views(), worker());
        to.set_view(self.shared().view());
        tokio::spawn(driver::follow(views, move |view| to.set_view(view)));
        if let Some(keys) = self.worker.keys() {
            let to = worker();
            tokio::spawn(driver::follow(keys, move |keys| to.set_keys(keys)));
        }
    }

    /// Begins a request. Fails, with nothing sent, if it cannot.
    fn begin<T>(
        &self,
        begin: impl FnOnce(&mut State, Now, oneshot::Sender<T>) -> Result<RequestId, AdmissionError>,
    ) -> Result<PendingRequest<T>, AdmissionError> {
        self.worker.start_once(|| self.start());
        let (ended, result) = oneshot::channel();
        let id = self.worker.begin(|state| begin(state, now(), ended))?;
        Ok(PendingRequest {
            worker: self.worker.clone(),
            id,
            result,
        })
    }
}

/// Sends an outcome to its caller, if the caller still waits.
fn send_to<T: Send>(ended: oneshot::Sender<T>) -> impl FnOnce(T) + Send {
    move |outcome| drop(ended.send(outcome))
}

/// A request that is in flight. When it is dropped, the request ends, unless it is a write.
struct PendingRequest<T> {
    worker: Worker,
    id: RequestId,
    result: oneshot::Receiver<T>,
}

impl<T> PendingRequest<T> {
    /// Waits for the decision or the deadline, which the driver looks after.
    async fn ended(mut self) -> T {
        let ended = (&mut self.result).await;
        ended.expect("a request leaves the core only with its outcome")
    }
}

impl<T> Drop for PendingRequest<T> {
    fn drop(&mut self) {
        self.worker.state().core.cancel(self.id, now());
    }
}

//! Drives the machine of anti-entropy, by a client of the server's cluster, on a thread of its own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dkvs_client::{Client, ClientConfig, Limits, Protocol, Shared};
use dkvs_common::model::ReplicaResponse;
use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::state::{AntiEntropy, Timing};
use crate::high_water::file;
use crate::leaves::Membership;
use crate::service::Service;

/// Most memory for long values that are being pulled, in bytes, where two of the longest fit into it.
const VALUE_BYTES_IN_FLIGHT_MAX: usize = 8 << 20;

/// Requests to peers that may be under way: more than the machine has.
const REQUESTS_MAX: usize = 128;

/// How a server pulls.
#[derive(Clone)]
pub struct PullOptions {
    /// How much a second, in bytes; not 0.
    pub bytes_per_second: u64,
    /// The cluster's keys, if it has any, as they change.
    pub keys: Option<watch::Receiver<Keys>>,
    /// The longest datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// Whether the system sends and receives many datagrams at once.
    pub offload: bool,
    /// Where it is kept how far the peers have come, if anywhere.
    pub marks_file: Option<PathBuf>,
}

/// The thread of a server's anti-entropy. It ends when this is dropped.
pub struct PullThread {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl PullThread {
    /// Starts the anti-entropy of a server; none of one that does not know its cluster.
    ///
    /// # Errors
    ///
    /// If the system has no thread or no random bytes for it.
    pub fn start(service: &Arc<Service>, options: PullOptions) -> io::Result<Option<Self>> {
        let Some(leaf_sums) = service.leaf_sums() else {
            return Ok(None);
        };
        let Membership {
            view, replication, ..
        } = leaf_sums.membership();
        let shared = Arc::new(Shared::new(view.cluster().clone()));
        let value_bytes_max = service.config().value_bytes_max;
        let timing = Timing::default();
        let config = ClientConfig {
            protocol: Protocol::V2,
            replication: *replication,
            datagram_bytes_max: options.datagram_bytes_max,
            value_bytes_max,
            offload: options.offload,
            keys: options.keys,
            timeout_max: timing.answer,
            limits: Limits {
                requests_max: REQUESTS_MAX,
                sockets_max: 0,
                value_bytes_in_flight_max: VALUE_BYTES_IN_FLIGHT_MAX.max(2 * value_bytes_max),
            },
        };
        let client = Client::new(shared, config).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let (service, rate) = (Arc::clone(service), options.bytes_per_second);
        let marks_file = options.marks_file;
        let thread = thread::Builder::new().name("anti-entropy".into());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped => {}
                    () = run(service, timing, rate, client, marks_file) => {}
                }
            });
        })?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for PullThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that pulls from other replicas panicked");
        }
    }
}

/// Returns if the server does not know its cluster, and else never.
async fn run(
    service: Arc<Service>,
    timing: Timing,
    rate: u64,
    client: Client,
    marks_file: Option<PathBuf>,
) {
    let marked = Arc::clone(&service);
    let stored = Arc::new(Notify::new());
    let wake = Arc::clone(&stored);
    let wake = move || wake.notify_one();
    let Some(mut machine) = AntiEntropy::new(service, timing, rate, Instant::now(), wake) else {
        return;
    };
    // Bounded by what the machine asks at a time.
    let (answered, mut answers) = mpsc::unbounded_channel::<(u64, Option<ReplicaResponse>)>();
    machine.handle_timeout(Instant::now());
    loop {
        if let Some(path) = &marks_file {
            file::keep(marked.peer_marks(), path);
        }
        while let Some(ask) = machine.poll_ask() {
            let asked = client.ask(ask.to, ask.command, ask.timeout);
            let answered = answered.clone();
            tokio::spawn(async move {
                let answer = asked.await.ok().flatten();
                // It fails only if nobody waits any more.
                let _ = answered.send((ask.id, answer));
            });
        }
        while let Some(finish) = machine.poll_finish() {
            let condition = (finish.condition, finish.attempt);
            let record = (finish.content, finish.attributes);
            let written = client.finish(finish.key, record, condition, finish.timeout);
            tokio::spawn(async move {
                let ended = written.await.map(|result| result.outcome);
                tracing::debug!(?ended, "a conditional write that was left is finished");
            });
        }
        let due = machine.poll_timeout();
        // Nothing is due where there are no peers.
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
        tokio::select! {
            Some((id, answer)) = answers.recv() => {
                machine.handle_answer(id, answer, Instant::now());
            }
            () = stored.notified() => machine.handle_wake(Instant::now()),
            () = tokio::time::sleep_until(due.into()) => machine.handle_timeout(Instant::now()),
        }
    }
}

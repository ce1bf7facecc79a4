//! `/events`: how the gateway and its servers do, once a second, for the web console.
//!
//! ```text
//!   workers' counts, servers --one task--> [ the last snapshot ] --> listeners of all workers
//! ```
//!
//! The task runs while somebody listens. A listener gets the last snapshot there is: one that
//! takes them slowly misses some, and nothing waits for it.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use dkvs_common::quorum::Level;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::cluster::{ServerBody, ask_servers};
use super::error::Problem;
use super::metrics::{Worker, workers};
use super::{App, params};
use crate::tokens::Tokens;
use dkvs_client::core::{Kind, Outcome};
use dkvs_common::histogram;

/// Between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// Most listeners of a gateway.
const LISTENERS_MAX: usize = 64;

/// A stream's beginning: how soon a browser is to come back when it ends.
const BEGINNING: &[u8] = b"retry: 1000\n\n";

const KEY_ROUTE: &str = "/kv/{key}";

/// The routes whose requests are about keys.
const KEY_ROUTES: [&str; 3] = [KEY_ROUTE, "/kv", "/batch"];

/// How a read or a write ends of which too few replicas agreed or confirmed.
const QUORUM_FAILURES: [Outcome; 4] = [
    Outcome::Disagree,
    Outcome::Refused,
    Outcome::Unreachable,
    Outcome::TimedOut,
];

/// Where the listeners of all workers find the snapshots.
pub(super) struct Feed {
    places: Arc<Semaphore>,
    source: Mutex<Weak<Source>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            source: Mutex::default(),
        }
    }
}

/// The task that makes snapshots; it ends when nobody has this any more.
struct Source {
    snapshots: watch::Receiver<Option<Bytes>>,
    task: AbortHandle,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    fn listen(&self, app: &App) -> Result<Listener, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Problem::too_many_listeners())?;
        let mut shared = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let source = shared.upgrade().unwrap_or_else(|| {
            let (told, snapshots) = watch::channel(None);
            let task = tokio::spawn(tell(app.clone(), told)).abort_handle();
            let source = Arc::new(Source { snapshots, task });
            *shared = Arc::downgrade(&source);
            source
        });
        let mut snapshots = source.snapshots.clone();
        // What is there already is news to this one.
        snapshots.mark_changed();
        Ok(Listener {
            snapshots,
            tokens: app.0.gate.tokens_from_now(),
            draining: app.0.draining.clone(),
            _source: source,
            _place: place,
        })
    }
}

struct Listener {
    snapshots: watch::Receiver<Option<Bytes>>,
    tokens: Option<watch::Receiver<Tokens>>,
    draining: CancellationToken,
    _source: Arc<Source>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next snapshot. None when the gateway is to end; and when its tokens have been replaced,
    /// so that whoever has one that is gone does not go on listening.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => changed.ok()?,
                () = replaced(self.tokens.as_mut()) => return None,
                () = self.draining.cancelled() => return None,
            }
            if let Some(snapshot) = &*self.snapshots.borrow_and_update() {
                return Some(snapshot.clone());
            }
        }
    }
}

/// Waits until there are other tokens; for ever where there are none, or nobody to replace them.
async fn replaced(tokens: Option<&mut watch::Receiver<Tokens>>) {
    let is_replaced = match tokens {
        Some(tokens) => tokens.changed().await.is_ok(),
        None => false,
    };
    if !is_replaced {
        pending::<()>().await;
    }
}

pub(super) async fn events(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    params::none(&uri)?;
    let listener = app.0.common.events.listen(&app)?;
    let beginning = stream::once(ready(Bytes::from_static(BEGINNING)));
    let snapshots = stream::unfold(listener, async |mut listener| {
        let snapshot = listener.next().await?;
        Some((snapshot, listener))
    });
    let events = beginning.chain(snapshots).map(Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// Makes a snapshot at once and then every second.
async fn tell(app: App, told: watch::Sender<Option<Bytes>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let workers = workers(&app);
    let mut servers = Vec::new();
    loop {
        ticks.tick().await;
        // A gateway that has too much in hand to ask them tells what they said last.
        if let Ok(answered) = ask_servers(&app).await {
            servers = answered;
        }
        let snapshot = Snapshot::new(&app, &workers, &servers);
        // Its maps have keys of text, which is all that could fail.
        if let Ok(json) = serde_json::to_string(&snapshot) {
            told.send_replace(Some(format!("event: snapshot\ndata: {json}\n\n").into()));
        }
    }
}

/// What all workers have counted, and what the servers say.
#[derive(Serialize)]
struct Snapshot<'a> {
    at_ms: u64,
    started_ms: u64,
    version: &'static str,
    embedded: bool,
    replication: u8,
    totals: Totals,
    latency: Latency,
    servers: &'a [ServerBody],
}

/// Counts since the gateway started.
#[derive(Serialize)]
struct Totals {
    requests: Requests,
    errors: u64,
    quorum_failures: u64,
    repairs: u64,
}

/// Requests about keys, by method; lists, batches and HEAD are among the others.
#[derive(Default, Serialize)]
struct Requests {
    #[serde(rename = "GET")]
    get: u64,
    #[serde(rename = "PUT")]
    put: u64,
    #[serde(rename = "DELETE")]
    delete: u64,
    other: u64,
}

/// How long the same requests took.
#[derive(Serialize)]
struct Latency {
    count: u64,
    sum_us: u64,
    buckets: Vec<Bucket>,
}

/// How many took no longer than this.
#[derive(Serialize)]
struct Bucket {
    le_us: u64,
    count: u64,
}

impl<'a> Snapshot<'a> {
    fn new(app: &App, workers: &[Worker], servers: &'a [ServerBody]) -> Self {
        let started = app.0.common.started.duration_since(UNIX_EPOCH);
        Self {
            at_ms: dkvs_client::now().unix_ms,
            started_ms: started.map_or(0, |since| since.as_millis() as u64),
            version: env!("CARGO_PKG_VERSION"),
            embedded: app.0.common.switch.is_some(),
            replication: app.0.replication,
            totals: Totals::new(workers),
            latency: Latency::new(workers),
            servers,
        }
    }
}

impl Totals {
    fn new(workers: &[Worker]) -> Self {
        let (mut requests, mut errors) = (Requests::default(), 0);
        for (route, method, status, count) in workers.iter().flat_map(|it| it.counts.requests()) {
            if !KEY_ROUTES.contains(&route) {
                continue;
            }
            *match (route, method) {
                (KEY_ROUTE, "GET") => &mut requests.get,
                (KEY_ROUTE, "PUT") => &mut requests.put,
                (KEY_ROUTE, "DELETE") => &mut requests.delete,
                _ => &mut requests.other,
            } += count;
            if status.starts_with('5') {
                errors += count;
            }
        }
        let (mut quorum_failures, mut repairs) = (0, 0);
        for snapshot in workers.iter().map(|it| it.client.snapshot()) {
            for level in [Level::Linearizable, Level::Agreement] {
                for kind in Kind::ALL {
                    let ended = |outcome: &Outcome| snapshot.totals.ended(level, kind, *outcome);
                    quorum_failures += QUORUM_FAILURES.iter().map(ended).sum::<u64>();
                }
            }
            let sent = snapshot.servers.iter().map(|it| it.counts.repairs_sent);
            repairs += sent.sum::<u64>();
        }
        Self {
            requests,
            errors,
            quorum_failures,
            repairs,
        }
    }
}

impl Latency {
    fn new(workers: &[Worker]) -> Self {
        let durations = workers.iter().flat_map(|it| it.counts.durations());
        let durations = durations.filter(|(route, ..)| KEY_ROUTES.contains(route));
        let all = histogram::sum(durations.map(|(.., histogram)| histogram));
        let in_us = |seconds: f64| (seconds * 1e6).round() as u64;
        let mut count = 0;
        let mut buckets = Vec::with_capacity(all.counts.len());
        for (bound, more) in all.bounds.iter().zip(&all.counts) {
            count += more;
            // The last has no bound: all are in it.
            if bound.is_finite() {
                let le_us = in_us(*bound);
                buckets.push(Bucket { le_us, count });
            }
        }
        Self {
            count,
            sum_us: in_us(all.sum),
            buckets,
        }
    }
}

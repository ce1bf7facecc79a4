//! How the gateway and its servers do, as the web console shows it.

use std::time::UNIX_EPOCH;

use dkvs_client::core::{RequestKind, RequestOutcome};
use dkvs_common::histogram;
use dkvs_common::quorum::Level;
use serde::Serialize;

use super::app::{App, WorkerView};
use super::operations::{BATCH_PATH, KEY_PATH, LIST_PATH};
use super::servers::ServerBody;

/// The routes whose requests are about keys.
const KEY_ROUTES: [&str; 3] = [KEY_PATH, LIST_PATH, BATCH_PATH];

/// The outcomes of reads and writes for which too few replicas agreed or confirmed.
const QUORUM_FAILURES: [RequestOutcome; 4] = [
    RequestOutcome::Disagree,
    RequestOutcome::Refused,
    RequestOutcome::Unreachable,
    RequestOutcome::TimedOut,
];

/// The counts of all workers, and the statuses of the servers.
#[derive(Serialize)]
pub(super) struct Snapshot<'a> {
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

/// The durations of the same requests.
#[derive(Serialize)]
struct Latency {
    count: u64,
    sum_us: u64,
    buckets: Vec<Bucket>,
}

/// The number of requests that took no longer than this.
#[derive(Serialize)]
struct Bucket {
    le_us: u64,
    count: u64,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(app: &App, workers: &[WorkerView], servers: &'a [ServerBody]) -> Self {
        let started = app.gateway.started.duration_since(UNIX_EPOCH);
        Self {
            at_ms: dkvs_client::now().unix_ms,
            started_ms: started.map_or(0, |since| since.as_millis() as u64),
            version: env!("CARGO_PKG_VERSION"),
            embedded: app.gateway.switch.is_some(),
            replication: app.replication,
            totals: Totals::new(workers),
            latency: Latency::new(workers),
            servers,
        }
    }
}

impl Totals {
    fn new(workers: &[WorkerView]) -> Self {
        let (mut requests, mut errors) = (Requests::default(), 0);
        for (route, method, status, count) in workers.iter().flat_map(|it| it.counts.requests()) {
            if !KEY_ROUTES.contains(&route) {
                continue;
            }
            *match (route, method) {
                (KEY_PATH, "GET") => &mut requests.get,
                (KEY_PATH, "PUT") => &mut requests.put,
                (KEY_PATH, "DELETE") => &mut requests.delete,
                _ => &mut requests.other,
            } += count;
            if status.is_some_and(|status| status >= 500) {
                errors += count;
            }
        }
        let (mut quorum_failures, mut repairs) = (0, 0);
        for snapshot in workers.iter().map(|it| it.client.snapshot()) {
            for level in [Level::Linearizable, Level::Agreement] {
                for kind in RequestKind::ALL {
                    let ended =
                        |outcome: &RequestOutcome| snapshot.totals.ended(level, kind, *outcome);
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
    fn new(workers: &[WorkerView]) -> Self {
        let durations = workers.iter().flat_map(|it| it.counts.durations());
        let durations = durations.filter(|(route, ..)| KEY_ROUTES.contains(route));
        let all = histogram::sum(durations.map(|(.., histogram)| histogram));
        let in_us = |seconds: f64| (seconds * 1e6).round() as u64;
        let mut count = 0;
        let mut buckets = Vec::with_capacity(all.counts.len());
        for (bound, more) in all.bounds.iter().zip(&all.counts) {
            count += more;
            // The last bucket has no bound: it counts all.
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

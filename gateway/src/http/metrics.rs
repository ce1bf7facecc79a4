//! `/metrics`: what all workers have counted together, and what the servers say of themselves.
//!
//! Every metric is documented in docs/metrics.md.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri, header};
use axum::response::IntoResponse;
use dkvs_common::quorum::Level;
use dkvs_common::view::ClusterView;
use dkvs_runtime::log;
use dkvs_runtime::metrics::page::{Form, Labels, Number, Page, Samples};
use dkvs_storage_node::metrics::statistics;

use super::counts::Counts;
use super::error::Problem;
use super::{App, cluster, params};
use dkvs_client::core::{Kind, Limit, LinkStatus, Totals};
use dkvs_client::{Client, ServerSnapshot, ServerStatus, Snapshot};
use dkvs_common::histogram;

/// A worker as others see it.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) counts: Arc<Counts>,
    pub(super) client: Client,
}

/// What one worker counts, and where it finds the others.
pub(super) struct Metrics {
    pub(super) counts: Arc<Counts>,
    /// All workers of the gateway; none where there is no other.
    workers: OnceLock<Arc<[Worker]>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            counts: Arc::new(Counts::new()),
            workers: OnceLock::new(),
        }
    }
}

/// Makes workers one gateway: from now on each answers `/metrics` for all of them.
pub fn unite(workers: &[App]) {
    let all: Arc<[Worker]> = workers.iter().map(worker).collect();
    for App(inner) in workers {
        // Whoever is part of a gateway stays part of that one.
        let _ = inner.metrics.workers.set(Arc::clone(&all));
    }
}

/// All workers of a worker's gateway.
pub(super) fn workers(app: &App) -> Arc<[Worker]> {
    match app.0.metrics.workers.get() {
        Some(workers) => Arc::clone(workers),
        None => Arc::new([worker(app)]),
    }
}

fn worker(App(inner): &App) -> Worker {
    Worker {
        counts: Arc::clone(&inner.metrics.counts),
        client: inner.client.clone(),
    }
}

pub(super) async fn metrics(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    params::none(&uri)?;
    // A gateway that has as much in hand as it takes says so in what it counts itself.
    let statuses = app.0.client.status(cluster::PROBE_TIMEOUT).await;
    let statuses = statuses.unwrap_or_default();
    let workers = workers(&app);
    let snapshots: Vec<Snapshot> = workers.iter().map(|it| it.client.snapshot()).collect();
    let view = app.0.client.view();
    let mut page = Page::default();
    push_process(&mut page, app.0.common.started, workers.len());
    push_http(&mut page, &workers);
    push_requests(&mut page, &snapshots, &workers);
    push_links(&mut page, &view, &snapshots);
    push_servers(&mut page, &view, &statuses);

    let accept = headers.get_all(header::ACCEPT).iter();
    let form = Form::accepted(accept.filter_map(|accept| accept.to_str().ok()));
    let content_type = [(header::CONTENT_TYPE, form.content_type())];
    Ok((content_type, page.render(form)).into_response())
}

fn push_process(page: &mut Page, started: SystemTime, workers: usize) {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    page.push(
        "dkvs_gateway_build_info",
        "1, with the gateway's version as a label",
        Samples::Gauge(vec![(version, Number::Whole(1))]),
    );
    let started = started.duration_since(UNIX_EPOCH);
    let started = started.map_or(0.0, |since| since.as_secs_f64());
    page.push(
        "dkvs_gateway_start_time_seconds",
        "When the gateway was started, in Unix time",
        Samples::Gauge(vec![(Labels::new(), Number::Real(started))]),
    );
    page.push("dkvs_gateway_workers", "Threads that serve", gauge(workers));
    page.push(
        "dkvs_gateway_log_lines_dropped",
        log::LINES_DROPPED_HELP,
        counter(log::lines_dropped()),
    );
}

fn push_http(page: &mut Page, workers: &[Worker]) {
    let mut requests = BTreeMap::new();
    for worker in workers {
        for (route, method, status, count) in worker.counts.requests() {
            *requests.entry((route, method, status)).or_insert(0) += count;
        }
    }
    let requests = requests
        .into_iter()
        .map(|((route, method, status), count)| {
            let labels = labels([("route", route), ("method", method), ("status", status)]);
            (labels, Number::Whole(count))
        });
    page.push(
        "dkvs_gateway_http_requests",
        "Requests answered",
        Samples::Counter(requests.collect()),
    );
    let mut durations: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for worker in workers {
        for (route, method, histogram) in worker.counts.durations() {
            if !histogram.is_empty() {
                durations
                    .entry((route, method))
                    .or_default()
                    .push(histogram);
            }
        }
    }
    let durations = durations.into_iter().map(|((route, method), histograms)| {
        let labels = labels([("route", route), ("method", method)]);
        (labels, histogram::sum(histograms))
    });
    page.push(
        "dkvs_gateway_http_request_duration_seconds",
        "From the head of a request to the head of its answer",
        Samples::Histogram(durations.collect()),
    );
    let sum = |of: fn(&Counts) -> u64| workers.iter().map(|it| of(&it.counts)).sum::<u64>();
    page.push(
        "dkvs_gateway_http_requests_in_flight",
        "Requests that are being answered",
        gauge(sum(|counts| counts.in_flight.level())),
    );
    page.push(
        "dkvs_gateway_http_requests_abandoned",
        "Requests whose caller went away before the answer",
        counter(sum(|counts| counts.abandoned.load(Ordering::Relaxed))),
    );
    page.push(
        "dkvs_gateway_connections_open",
        "HTTP connections open",
        gauge(sum(|counts| counts.connections.level())),
    );
    page.push(
        "dkvs_gateway_connections_max",
        "Most HTTP connections that may be open",
        gauge(sum(|counts| counts.connections_max.load(Ordering::Relaxed))),
    );
    page.push(
        "dkvs_gateway_connections",
        "HTTP connections accepted and served",
        counter(sum(|counts| {
            counts.connections_accepted.load(Ordering::Relaxed)
        })),
    );
}

fn push_requests(page: &mut Page, snapshots: &[Snapshot], workers: &[Worker]) {
    let mut totals = Totals::default();
    for snapshot in snapshots {
        totals.add(&snapshot.totals);
    }
    let mut ended = Vec::new();
    for level in [Level::Linearizable, Level::Agreement] {
        for kind in Kind::ALL {
            for outcome in kind.outcomes() {
                let labels = labels([
                    ("level", level.name()),
                    ("kind", kind.name()),
                    ("outcome", outcome.name()),
                ]);
                let count = totals.ended(level, kind, *outcome);
                ended.push((labels, Number::Whole(count)));
            }
        }
    }
    page.push(
        "dkvs_gateway_quorum_requests",
        "Reads and writes that have ended",
        Samples::Counter(ended),
    );
    let refused = |worker: &Worker| worker.counts.connections_refused.load(Ordering::Relaxed);
    let limits = Limit::ALL.map(|limit| (limit.name(), totals.limit_hit(limit)));
    let connections = ("connections", workers.iter().map(refused).sum());
    let limits = limits.into_iter().chain([connections]);
    let limits = limits.map(|(name, count)| (labels([("limit", name)]), Number::Whole(count)));
    page.push(
        "dkvs_gateway_limits_hit",
        "How often something was refused because a limit was reached",
        Samples::Counter(limits.collect()),
    );
    let sum = |of: fn(&Snapshot) -> usize| gauge(snapshots.iter().map(of).sum::<usize>());
    page.push(
        "dkvs_gateway_quorum_requests_in_flight",
        "Reads, writes and questions how servers do that have not ended",
        sum(|it| it.requests_in_flight),
    );
    page.push(
        "dkvs_gateway_quorum_requests_max",
        "Most of them that may be in flight",
        sum(|it| it.limits.requests_max),
    );
    page.push(
        "dkvs_gateway_value_memory_bytes",
        "Memory that long values on their way have taken",
        sum(|it| it.value_bytes_in_flight),
    );
    page.push(
        "dkvs_gateway_value_memory_max_bytes",
        "Most memory that they may take",
        sum(|it| it.limits.value_bytes_in_flight_max),
    );
    page.push(
        "dkvs_gateway_v1_sockets_open",
        "Sockets for DKVS/1 that are open",
        sum(|it| it.v1_sockets_open),
    );
    page.push(
        "dkvs_gateway_v1_sockets_max",
        "Most of them that may be open",
        sum(|it| it.limits.sockets_max),
    );
}

/// What went to servers and came from them: one series for each, summed over the workers.
struct Links<'a> {
    view: &'a ClusterView,
    snapshots: &'a [Snapshot],
}

/// One number of a link.
type OfLink = fn(&LinkStatus) -> u64;

impl Links<'_> {
    fn each(&self, of: impl Fn(&ServerSnapshot) -> u64) -> Vec<(Labels, Number)> {
        let series = self.view.servers().map(|id| {
            let of_worker = |snapshot: &Snapshot| snapshot.of(id).map_or(0, &of);
            let sum = self.snapshots.iter().map(of_worker).sum();
            let labels = labels([("server", self.view.name(id))]);
            (labels, Number::Whole(sum))
        });
        series.collect()
    }

    fn link(&self, of: impl Fn(&LinkStatus) -> u64) -> Vec<(Labels, Number)> {
        self.each(|server| server.link.as_ref().map_or(0, &of))
    }

    fn causes<const N: usize>(&self, causes: [(&'static str, OfLink); N]) -> Samples {
        let series = causes.into_iter().flat_map(|(cause, of)| {
            let mut series = self.link(of);
            for (labels, _) in &mut series {
                labels.push(("cause", cause.to_owned()));
            }
            series
        });
        Samples::Counter(series.collect())
    }
}

fn push_links(page: &mut Page, view: &ClusterView, snapshots: &[Snapshot]) {
    let links = Links { view, snapshots };
    let round_trips = view.servers().map(|id| {
        let of_worker = |snapshot: &Snapshot| snapshot.of(id)?.round_trips.clone();
        let of_workers: Vec<_> = snapshots.iter().filter_map(of_worker).collect();
        (
            labels([("server", view.name(id))]),
            histogram::sum(of_workers.iter().map(|of_worker| &**of_worker)),
        )
    });
    page.push(
        "dkvs_gateway_round_trip_seconds",
        "From the first transmission of a request to a server to the answer, by either protocol",
        Samples::Histogram(round_trips.collect()),
    );
    let counters: [(_, _, OfLink); 7] = [
        (
            "dkvs_gateway_link_requests",
            "Requests sent to the server, each counted once",
            |link| link.counters.sent,
        ),
        (
            "dkvs_gateway_link_retransmissions",
            "Requests sent again",
            |link| link.counters.sent_again,
        ),
        (
            "dkvs_gateway_link_unanswered",
            "Requests sent and not answered before they were given up",
            |link| link.counters.unanswered,
        ),
        ("dkvs_gateway_link_replies", "Answers to requests", |link| {
            link.counters.replies
        }),
        (
            "dkvs_gateway_link_unreachable",
            "How often the system told that nothing listens at the server's port",
            |link| link.counters.unreachable,
        ),
        (
            "dkvs_gateway_link_datagrams_sent",
            "Datagrams sent to the server",
            |link| link.counters.datagrams_sent,
        ),
        (
            "dkvs_gateway_link_datagrams_received",
            "Datagrams that came from the server",
            |link| link.datagrams_received,
        ),
    ];
    for (name, help, of) in counters {
        page.push(name, help, Samples::Counter(links.link(of)));
    }
    page.push(
        "dkvs_gateway_link_drops",
        "What came from the server and was dropped, and what was not sent again for want of budget",
        links.causes([
            ("damaged", |link| link.counters.damaged),
            ("stray", |link| link.counters.strays),
            ("over_budget", |link| link.counters.over_budget),
        ]),
    );
    page.push(
        "dkvs_gateway_link_in_flight_bytes",
        "Bytes on their way to the server, or asked of it",
        Samples::Gauge(links.link(|link| link.in_flight_bytes as u64)),
    );
    page.push(
        "dkvs_gateway_link_window_bytes",
        "How many may be",
        Samples::Gauge(links.link(|link| link.window_bytes as u64)),
    );
    page.push(
        "dkvs_gateway_repairs",
        "Newer records that reads have sent to the server because it was behind",
        Samples::Counter(links.each(|server| server.counts.repairs_sent)),
    );
    page.push(
        "dkvs_gateway_repairs_stored",
        "How many of them the server has stored",
        Samples::Counter(links.each(|server| server.counts.repairs_stored)),
    );
}

fn push_servers(page: &mut Page, view: &ClusterView, statuses: &[ServerStatus]) {
    let servers = || statuses.iter();
    let reachable = servers().map(|status| {
        let labels = labels([("server", view.name(status.server))]);
        (labels, Number::Whole(status.is_reachable.into()))
    });
    page.push(
        "dkvs_gateway_server_reachable",
        "1 if the server has just answered, else 0",
        Samples::Gauge(reachable.collect()),
    );
    let told = servers().map(|status| {
        let name = view.name(status.server).to_owned();
        (name, &status.statistics[..])
    });
    statistics::push(page, &told.collect::<Vec<_>>());
}

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    let labels = labels.into_iter();
    labels
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

fn gauge(level: impl TryInto<u64>) -> Samples {
    let level = level.try_into().unwrap_or(u64::MAX);
    Samples::Gauge(vec![(Labels::new(), Number::Whole(level))])
}

fn counter(count: u64) -> Samples {
    Samples::Counter(vec![(Labels::new(), Number::Whole(count))])
}

//! The HTTP counts of one worker.
//!
//! Every series has its place in an array from the start, so that counting takes no lock and no
//! allocation. Only the worker writes here; pages of metrics and events read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;

use dkvs_common::histogram::Histogram;

use super::liveness::Heart;
use super::operations::{OPERATIONS, matches};

/// The methods that have a series of their own; any other is the last.
const METHODS: [&str; 10] = [
    "GET", "PUT", "HEAD", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "CONNECT", "other",
];

/// The status codes that have a series of their own; any other is the last.
const STATUSES: [u16; 33] = [
    200, 404, 304, 206, 201, 204, 301, 302, 303, 307, 308, 400, 401, 403, 405, 406, 408, 409, 411,
    412, 413, 414, 415, 416, 417, 421, 429, 431, 500, 501, 503, 504, 507,
];
const STATUS_PLACES: usize = STATUSES.len() + 1;

/// The route of requests for no path of the API.
const OTHER_ROUTE: &str = "other";

/// The HTTP counts of one worker.
#[derive(Debug)]
pub(super) struct Counts {
    /// The paths of the API, and at last the route of everything else.
    routes: Vec<&'static str>,
    /// By route, method and status.
    answered: Vec<AtomicU64>,
    /// By route and method.
    durations: Vec<Histogram>,
    pub(super) in_flight: Gauge,
    pub(super) abandoned: AtomicU64,
    pub(super) connections: Gauge,
    pub(super) connections_max: AtomicU64,
    pub(super) connections_accepted: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    /// Closed to make room for others.
    pub(super) connections_evicted: AtomicU64,
    /// Memory that long heads have taken, and the most that they may.
    pub(super) long_head_bytes: AtomicU64,
    pub(super) long_head_bytes_max: AtomicU64,
    pub(super) heads_refused: AtomicU64,
    pub(super) heart: Heart,
    /// Lists refused because the worker carried out too many.
    pub(super) lists_refused: AtomicU64,
    /// Lists refused because their caller had too many.
    pub(super) lists_refused_of_caller: AtomicU64,
    /// Lists that had begun, and gave way to those of callers with fewer.
    pub(super) lists_displaced: AtomicU64,
    /// Listeners to events refused because there were too many.
    pub(super) listeners_refused: AtomicU64,
    /// Listeners to events refused because their caller had too many.
    pub(super) listeners_refused_of_caller: AtomicU64,
    /// Listeners to events that gave way to those of callers with fewer.
    pub(super) listeners_displaced: AtomicU64,
    /// Connections closed because too many handshakes were under way.
    pub(super) handshakes_refused: AtomicU64,
    /// Bodies refused because their chunks were too short.
    pub(super) short_chunks_refused: AtomicU64,
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicU64);

impl Gauge {
    fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn level(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The series of a request: its route and method, as places in the arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Series {
    route: usize,
    method: usize,
}

impl Counts {
    pub(super) fn new() -> Self {
        let mut routes: Vec<&'static str> = Vec::new();
        for operation in OPERATIONS {
            if !routes.contains(&operation.path) {
                routes.push(operation.path);
            }
        }
        routes.push(OTHER_ROUTE);
        let places = routes.len() * METHODS.len();
        Self {
            answered: (0..places * STATUS_PLACES)
                .map(|_| AtomicU64::new(0))
                .collect(),
            durations: (0..places).map(|_| Histogram::default()).collect(),
            routes,
            in_flight: Gauge::default(),
            abandoned: AtomicU64::new(0),
            connections: Gauge::default(),
            connections_max: AtomicU64::new(0),
            connections_accepted: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_evicted: AtomicU64::new(0),
            long_head_bytes: AtomicU64::new(0),
            long_head_bytes_max: AtomicU64::new(0),
            heads_refused: AtomicU64::new(0),
            heart: Heart::default(),
            lists_refused: AtomicU64::new(0),
            lists_refused_of_caller: AtomicU64::new(0),
            lists_displaced: AtomicU64::new(0),
            listeners_refused: AtomicU64::new(0),
            listeners_refused_of_caller: AtomicU64::new(0),
            listeners_displaced: AtomicU64::new(0),
            handshakes_refused: AtomicU64::new(0),
            short_chunks_refused: AtomicU64::new(0),
        }
    }

    /// The series of a request for this path.
    pub(super) fn series(&self, method: &Method, path: &str) -> Series {
        let other = self.routes.len() - 1;
        let mut routes = self.routes[..other].iter();
        let route = routes.position(|route| matches(route, path));
        let method = METHODS.iter().position(|name| *name == method.as_str());
        Series {
            route: route.unwrap_or(other),
            method: method.unwrap_or(METHODS.len() - 1),
        }
    }

    /// The path of the API that a series is of, with `{key}` for any key.
    pub(super) fn route(&self, series: Series) -> &'static str {
        self.routes[series.route]
    }

    fn answered(&self, series: Series, status: u16, after: Duration) {
        let number = series.route * METHODS.len() + series.method;
        let status = status_place(status);
        self.answered[number * STATUS_PLACES + status].fetch_add(1, Ordering::Relaxed);
        self.durations[number].observe(after);
    }

    /// The count of each route, method and status that occurred; no status where it has no series.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&str, &str, Option<u16>, u64)> {
        let counts = self.answered.iter().enumerate();
        counts.filter_map(|(number, count)| {
            let count = count.load(Ordering::Relaxed);
            let (number, status) = (number / STATUS_PLACES, number % STATUS_PLACES);
            let (route, method) = self.names(number);
            let status = STATUSES.get(status).copied();
            (count > 0).then_some((route, method, status, count))
        })
    }

    /// The durations of each route and method.
    pub(super) fn durations(&self) -> impl Iterator<Item = (&str, &str, &Histogram)> {
        let histograms = self.durations.iter().enumerate();
        histograms.map(|(number, histogram)| {
            let (route, method) = self.names(number);
            (route, method, histogram)
        })
    }

    fn names(&self, number: usize) -> (&str, &str) {
        let (route, method) = (number / METHODS.len(), number % METHODS.len());
        (self.routes[route], METHODS[method])
    }
}

fn status_place(status: u16) -> usize {
    let place = STATUSES.iter().position(|known| *known == status);
    place.unwrap_or(STATUSES.len())
}

/// A request in flight. One that is dropped unanswered counts as abandoned.
pub(super) struct CountedRequest {
    counts: Arc<Counts>,
    series: Series,
    at: Instant,
    is_answered: bool,
}

impl CountedRequest {
    pub(super) fn new(counts: &Arc<Counts>, series: Series) -> Self {
        counts.in_flight.up();
        Self {
            counts: Arc::clone(counts),
            series,
            at: Instant::now(),
            is_answered: false,
        }
    }

    pub(super) fn route(&self) -> &'static str {
        self.counts.route(self.series)
    }

    /// Counts the response, and returns how long it took.
    pub(super) fn answered(mut self, status: u16) -> Duration {
        let after = self.at.elapsed();
        self.counts.answered(self.series, status, after);
        self.is_answered = true;
        after
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        self.counts.in_flight.down();
        if !self.is_answered {
            self.counts.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection that is open.
pub(super) struct CountedConnection(Arc<Counts>);

impl CountedConnection {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        counts.connections.up();
        counts.connections_accepted.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_is_part_of_a_route() {
        let counts = Counts::new();
        let route = |path: &str| counts.route(counts.series(&Method::GET, path));
        for path in ["/kv/", "/kv/k", "/kv/a/b?c", "/kv/%00", "/kv//metrics"] {
            assert_eq!(route(path), "/kv/{key}", "{path}");
        }
        assert_eq!(route("/ring"), "/ring");
        assert_eq!(route("/ring/k"), "/ring/{key}");
        assert_eq!(route("/metrics"), "/metrics");
        assert_eq!(route("/"), "/");
        assert_eq!(route("/console/main.js"), "/console/{file}");
        for path in ["//", "/console/", "/KV/k", "/metrics/", "/nothing", "*", ""] {
            assert_eq!(route(path), "other", "{path}");
        }
    }

    #[test]
    fn a_request_counts_by_route_method_and_status() {
        let counts = Arc::new(Counts::new());
        for (method, status) in [("GET", 200), ("BREW", 405), ("GET", 200), ("GET", 299)] {
            let series = counts.series(&method.parse().unwrap(), "/kv/k");
            let begun = CountedRequest::new(&counts, series);
            assert_eq!(counts.in_flight.level(), 1);
            begun.answered(status);
        }
        let mut requests: Vec<_> = counts.requests().collect();
        requests.sort_unstable();
        let expected = [
            ("/kv/{key}", "GET", None, 1),
            ("/kv/{key}", "GET", Some(200), 2),
            ("/kv/{key}", "other", Some(405), 1),
        ];
        assert_eq!(requests, expected);
        let durations = counts.durations().filter(|(.., it)| !it.is_empty());
        let mut durations: Vec<_> = durations
            .map(|(route, method, _)| (route, method))
            .collect();
        durations.sort_unstable();
        assert_eq!(durations, [("/kv/{key}", "GET"), ("/kv/{key}", "other")]);
        assert_eq!(counts.in_flight.level(), 0);
        assert_eq!(counts.abandoned.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_request_that_nobody_waits_for_any_more_counts_as_abandoned() {
        let counts = Arc::new(Counts::new());
        drop(CountedRequest::new(
            &counts,
            counts.series(&Method::GET, "/kv/k"),
        ));
        assert_eq!(counts.abandoned.load(Ordering::Relaxed), 1);
        assert_eq!(counts.in_flight.level(), 0);
        assert_eq!(counts.requests().count(), 0);
    }

    #[test]
    fn every_status_that_an_operation_declares_has_a_series() {
        for status in OPERATIONS.iter().flat_map(|operation| operation.statuses) {
            assert_ne!(status_place(*status), STATUSES.len(), "{status}");
        }
    }
}

//! What one worker has counted of HTTP.
//!
//! Every series has its place in an array from the start, so that a request counts without a lock,
//! an allocation or a search for a name. Only the worker writes here; whoever makes a page reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;

use super::{OPERATIONS, path};
use dkvs_common::histogram::Histogram;

/// The methods that have a series of their own; any other is the last.
const METHODS: [&str; 10] = [
    "GET", "PUT", "HEAD", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "CONNECT", "other",
];

/// The status codes that have a series of their own; any other is the last.
const STATUSES: [&str; 32] = [
    "200", "404", "304", "206", "201", "204", "301", "302", "303", "307", "308", "400", "401",
    "403", "405", "406", "408", "409", "411", "412", "413", "414", "415", "416", "421", "429",
    "431", "500", "501", "503", "504", "507",
];
const OTHER_STATUS: &str = "other";
const STATUS_PLACES: usize = STATUSES.len() + 1;

/// The route of whatever is at no path of the API.
const OTHER_ROUTE: &str = "other";

/// What one worker has counted of HTTP.
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
}

/// What goes up and down.
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

/// A series: route, method and the rest of what tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
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
        }
    }

    /// Where a request for this path counts.
    pub(super) fn place(&self, method: &Method, path: &str) -> Place {
        let other = self.routes.len() - 1;
        let mut routes = self.routes[..other].iter();
        let route = routes.position(|route| path::is_at(route, path));
        let method = METHODS.iter().position(|name| *name == method.as_str());
        Place {
            route: route.unwrap_or(other),
            method: method.unwrap_or(METHODS.len() - 1),
        }
    }

    /// The path of the API that a place stands for, `{key}` in it for any key.
    pub(super) fn route(&self, place: Place) -> &'static str {
        self.routes[place.route]
    }

    fn answered(&self, place: Place, status: u16, after: Duration) {
        let number = place.route * METHODS.len() + place.method;
        let status = status_place(status);
        self.answered[number * STATUS_PLACES + status].fetch_add(1, Ordering::Relaxed);
        self.durations[number].observe(after);
    }

    /// How often each route, method and status was met, those that never were left out.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&str, &str, &str, u64)> {
        let counts = self.answered.iter().enumerate();
        counts.filter_map(|(number, count)| {
            let count = count.load(Ordering::Relaxed);
            let (number, status) = (number / STATUS_PLACES, number % STATUS_PLACES);
            let (route, method) = self.names(number);
            let status = STATUSES.get(status).copied().unwrap_or(OTHER_STATUS);
            (count > 0).then_some((route, method, status, count))
        })
    }

    /// How long the requests of each route and method took.
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
    let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    let place = STATUSES.iter().position(|known| known.as_bytes() == digits);
    place.unwrap_or(STATUSES.len())
}

/// A request in flight. One that is dropped unanswered counts as abandoned.
pub(super) struct Begun {
    counts: Arc<Counts>,
    place: Place,
    at: Instant,
    is_answered: bool,
}

impl Begun {
    pub(super) fn new(counts: &Arc<Counts>, place: Place) -> Self {
        counts.in_flight.up();
        Self {
            counts: Arc::clone(counts),
            place,
            at: Instant::now(),
            is_answered: false,
        }
    }

    pub(super) fn route(&self) -> &'static str {
        self.counts.route(self.place)
    }

    /// Counts the answer; how long it took.
    pub(super) fn answered(mut self, status: u16) -> Duration {
        let after = self.at.elapsed();
        self.counts.answered(self.place, status, after);
        self.is_answered = true;
        after
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.counts.in_flight.down();
        if !self.is_answered {
            self.counts.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection that is open.
pub(super) struct Connected(Arc<Counts>);

impl Connected {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        counts.connections.up();
        counts.connections_accepted.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Connected {
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
        let route = |path: &str| counts.route(counts.place(&Method::GET, path));
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
            let place = counts.place(&method.parse().unwrap(), "/kv/k");
            let begun = Begun::new(&counts, place);
            assert_eq!(counts.in_flight.level(), 1);
            begun.answered(status);
        }
        let mut requests: Vec<_> = counts.requests().collect();
        requests.sort_unstable();
        let expected = [
            ("/kv/{key}", "GET", "200", 2),
            ("/kv/{key}", "GET", "other", 1),
            ("/kv/{key}", "other", "405", 1),
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
        drop(Begun::new(&counts, counts.place(&Method::GET, "/kv/k")));
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

//! HTTP requests and connections.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use dkvs_common::histogram;
use dkvs_runtime::metrics::page::{Number, Page, Samples};

use super::families::{counter, gauge, labels};
use crate::http::app::WorkerView;
use crate::http::counts::Counts;

/// The label of statuses that have no series of their own.
const OTHER_STATUS: &str = "other";

pub(super) fn push(page: &mut Page, workers: &[WorkerView]) {
    let mut requests = BTreeMap::new();
    for worker in workers {
        for (route, method, status, count) in worker.counts.requests() {
            let status = status.map_or(OTHER_STATUS.to_owned(), |status| status.to_string());
            *requests.entry((route, method, status)).or_insert(0) += count;
        }
    }
    let requests = requests
        .into_iter()
        .map(|((route, method, status), count)| {
            let labels = labels([("route", route), ("method", method), ("status", &status)]);
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
    page.push(
        "dkvs_gateway_connections_evicted",
        "HTTP connections that were closed to make room for others",
        counter(sum(|counts| {
            counts.connections_evicted.load(Ordering::Relaxed)
        })),
    );
    page.push(
        "dkvs_gateway_head_memory_bytes",
        "Memory that long heads of requests have taken",
        gauge(sum(|counts| counts.long_head_bytes.load(Ordering::Relaxed))),
    );
    page.push(
        "dkvs_gateway_head_memory_max_bytes",
        "Most memory that they may take",
        gauge(sum(|counts| {
            counts.long_head_bytes_max.load(Ordering::Relaxed)
        })),
    );
}

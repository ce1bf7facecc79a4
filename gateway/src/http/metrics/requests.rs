//! Reads and writes of the cluster, and the limits on them.

use std::sync::atomic::{AtomicU64, Ordering};

use dkvs_client::Snapshot;
use dkvs_client::core::{Limit, RequestKind, Totals};
use dkvs_common::quorum::Level;
use dkvs_runtime::metrics::page::{Number, Page, Samples};

use super::families::{gauge, labels};
use crate::http::app::WorkerView;
use crate::http::counts::Counts;

pub(super) fn push(page: &mut Page, snapshots: &[Snapshot], workers: &[WorkerView]) {
    let mut totals = Totals::default();
    for snapshot in snapshots {
        totals.add(&snapshot.totals);
    }
    let mut ended = Vec::new();
    for level in [Level::Linearizable, Level::Agreement] {
        for kind in RequestKind::ALL {
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
    let sum = |of: fn(&Counts) -> &AtomicU64| {
        let counts = workers.iter().map(|it| of(&it.counts));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    };
    let limits = Limit::ALL.map(|limit| (limit.name(), totals.limit_hit(limit)));
    let limits = limits.into_iter().chain([
        ("connections", sum(|counts| &counts.connections_refused)),
        ("head_memory", sum(|counts| &counts.heads_refused)),
        ("lists", sum(|counts| &counts.lists_refused)),
        (
            "lists_of_caller",
            sum(|counts| &counts.lists_refused_of_caller),
        ),
        ("lists_displaced", sum(|counts| &counts.lists_displaced)),
        ("listeners", sum(|counts| &counts.listeners_refused)),
        (
            "listeners_of_caller",
            sum(|counts| &counts.listeners_refused_of_caller),
        ),
        (
            "listeners_displaced",
            sum(|counts| &counts.listeners_displaced),
        ),
        ("handshakes", sum(|counts| &counts.handshakes_refused)),
        ("short_chunks", sum(|counts| &counts.short_chunks_refused)),
    ]);
    let limits = limits.map(|(name, count)| (labels([("limit", name)]), Number::Whole(count)));
    page.push(
        "dkvs_gateway_limits_hit",
        "How often something was refused because a limit was reached",
        Samples::Counter(limits.collect()),
    );
    let sum = |of: fn(&Snapshot) -> usize| gauge(snapshots.iter().map(of).sum::<usize>());
    page.push(
        "dkvs_gateway_quorum_requests_in_flight",
        "Reads, writes and questions how servers do that are not decided",
        sum(|it| it.requests_undecided),
    );
    page.push(
        "dkvs_gateway_quorum_requests_max",
        "Most of them that may be in flight",
        sum(|it| it.limits.requests_max),
    );
    page.push(
        "dkvs_gateway_quorum_requests_decided",
        "Those that are decided and wait for the other replicas",
        sum(|it| it.requests_decided),
    );
    page.push(
        "dkvs_gateway_quorum_requests_decided_max",
        "Most of them that may wait",
        sum(|it| it.limits.decided_max()),
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

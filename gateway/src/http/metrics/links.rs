//! The traffic between the gateway and each server.

use dkvs_client::core::LinkStatus;
use dkvs_client::{ServerSnapshot, Snapshot};
use dkvs_common::histogram;
use dkvs_common::view::ClusterView;
use dkvs_runtime::metrics::page::{Labels, Number, Page, Samples};

use super::families::labels;

/// The traffic of each server, summed over the workers: one series a server.
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

pub(super) fn push(page: &mut Page, view: &ClusterView, snapshots: &[Snapshot]) {
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
            |link| link.counters.retransmitted,
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
            ("stray", |link| link.counters.unmatched),
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
    page.push(
        "dkvs_gateway_nudges",
        "How often another server was told that the server may lack what was written",
        Samples::Counter(links.each(|server| server.counts.nudges)),
    );
}

//! A server's own page of metrics, in the format that Prometheus scrapes.
//!
//! Nothing is counted here: the page is made of what was counted elsewhere, when it is asked for.
//! Every metric is documented in docs/metrics.md.

use std::net::SocketAddr;
use std::time::Instant;

use dkvs_runtime::log;
use dkvs_runtime::metrics::page::{Form, Number, Page, Samples};
use dkvs_runtime::metrics::{serve, statistics};

use crate::service::Service;

/// The page of a server now. `server` is the address by which the cluster knows it.
pub fn render(service: &Service, server: SocketAddr, form: Form) -> String {
    let numbers = service.statistics(Instant::now());
    let mut page = Page::default();
    let server = server.to_string();
    statistics::push(&mut page, &[(server.clone(), &numbers)]);
    for (name, help, count) in [
        (
            "dkvs_server_log_lines_dropped",
            log::LINES_DROPPED_HELP,
            log::lines_dropped(),
        ),
        (
            "dkvs_server_metrics_connections_displaced",
            serve::CONNECTIONS_DISPLACED_HELP,
            serve::connections_displaced(),
        ),
    ] {
        let labels = vec![("server", server.clone())];
        let samples = Samples::Counter(vec![(labels, Number::Whole(count))]);
        page.push(name, help, samples);
    }
    page.render(form)
}

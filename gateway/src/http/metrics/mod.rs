//! `/metrics`: the counts of all workers together, and the statistics that the servers report.
//!
//! Every metric is documented in docs/metrics.md.

mod families;
mod http;
mod links;
mod requests;

use std::time::{Instant, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri, header};
use axum::response::IntoResponse;
use dkvs_client::{ServerStatus, Snapshot};
use dkvs_common::view::ClusterView;
use dkvs_runtime::log;
use dkvs_runtime::metrics::page::{Form, Labels, Number, Page, Samples};
use dkvs_runtime::metrics::statistics;

use super::access::Caller;
use super::app::{App, GatewayState};
use super::client_error::no_memory_for_reply;
use super::parameters;
use super::problem::Problem;
use families::{counter, gauge, labels};

pub(super) async fn metrics(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let check = app.gateway.checks.begun_since(Instant::now()).await;
    let statuses: &[ServerStatus] = check.as_ref().map_or(&[], |check| &check.statuses);
    let workers = app.workers();
    let snapshots: Vec<Snapshot> = workers.iter().map(|it| it.client.snapshot()).collect();
    let view = app.client.view();
    let mut page = Page::default();
    push_process(&mut page, &app.gateway, workers.len());
    http::push(&mut page, &workers);
    requests::push(&mut page, &snapshots, &workers);
    links::push(&mut page, &view, &snapshots);
    push_servers(&mut page, &view, statuses);

    let accept = headers.get_all(header::ACCEPT).iter();
    let form = Form::accepted(accept.filter_map(|accept| accept.to_str().ok()));
    let of_form = [
        (header::CONTENT_TYPE, form.content_type()),
        (header::VARY, "accept"),
    ];
    // As long as the cluster is large.
    let text = app
        .client
        .memory(caller.id())
        .hold(page.render(form).into());
    let text = text.map_err(no_memory_for_reply)?;
    Ok((of_form, text).into_response())
}

fn push_process(page: &mut Page, gateway: &GatewayState, workers: usize) {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    page.push(
        "dkvs_gateway_build_info",
        "1, with the gateway's version as a label",
        Samples::Gauge(vec![(version, Number::Whole(1))]),
    );
    let started = gateway.started.duration_since(UNIX_EPOCH);
    let started = started.map_or(0.0, |since| since.as_secs_f64());
    page.push(
        "dkvs_gateway_start_time_seconds",
        "When the gateway was started, in Unix time",
        Samples::Gauge(vec![(Labels::new(), Number::Real(started))]),
    );
    page.push("dkvs_gateway_workers", "Threads that serve", gauge(workers));
    page.push(
        "dkvs_gateway_workers_stalled",
        "Threads that serve and have not moved for ten seconds",
        gauge(gateway.liveness.stalled()),
    );
    page.push(
        "dkvs_gateway_log_lines_dropped",
        log::LINES_DROPPED_HELP,
        counter(log::lines_dropped()),
    );
}

fn push_servers(page: &mut Page, view: &ClusterView, statuses: &[ServerStatus]) {
    let reachable = statuses.iter().map(|status| {
        let labels = labels([("server", view.name(status.server))]);
        (labels, Number::Whole(status.is_reachable.into()))
    });
    page.push(
        "dkvs_gateway_server_reachable",
        "1 if the server has just answered, else 0",
        Samples::Gauge(reachable.collect()),
    );
    let statistics = statuses.iter().map(|status| {
        let name = view.name(status.server).to_owned();
        (name, &status.statistics[..])
    });
    statistics::push(page, &statistics.collect::<Vec<_>>());
}

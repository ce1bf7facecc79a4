//! Embedded servers, stopped and started one by one.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use dkvs_common::cluster::ServerId;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::error::Problem;
use super::kv::json;
use super::{App, params};
use crate::embedded::Switch;

pub(super) async fn stop(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    let (server, switch) = server(&app, &uri, "/stop")?;
    // It waits for a disk, and goes on whatever becomes of the caller.
    let stopped = tokio::task::spawn_blocking(move || switch.stop(server)).await;
    if let Err(error) = stopped {
        tracing::error!(%error, "an embedded server did not stop in good order");
    }
    Ok(told(&app, server, false))
}

pub(super) async fn start(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    let (server, switch) = server(&app, &uri, "/start")?;
    let started = tokio::task::spawn_blocking(move || switch.start(server)).await;
    let started = started.unwrap_or_else(|error| Err(error.into()));
    started.map_err(|error| Problem::server_not_started(format!("{error:#}")))?;
    Ok(told(&app, server, true))
}

/// The server that a path names, and what stops and starts it.
fn server(app: &App, uri: &Uri, end: &str) -> Result<(ServerId, Switch), Problem> {
    params::none(uri)?;
    let name = uri.path().strip_prefix("/servers/").unwrap_or_default();
    let name = percent_decode_str(name.strip_suffix(end).unwrap_or_default());
    let name = name.decode_utf8_lossy();
    let view = app.0.client.view();
    let mut servers = view.servers();
    let found = servers.find(|id| view.name(*id) == name);
    let server = found.ok_or_else(|| Problem::no_such_server(&name))?;
    let switch = app.0.common.switch.clone();
    Ok((server, switch.ok_or_else(Problem::not_embedded)?))
}

fn told(app: &App, server: ServerId, is_running: bool) -> Response<Body> {
    let view = app.0.client.view();
    let server = view.name(server);
    tracing::info!(server, is_running, "an embedded server was switched");
    json(&json!({ "server": server, "running": is_running }))
}

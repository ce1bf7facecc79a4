//! Stops and starts single embedded servers.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use dkvs_common::cluster::ServerId;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::app::App;
use super::json::json;
use super::problem::{Problem, ProblemType, excerpt};
use super::{conditional, parameters};
use crate::embedded::ServerSwitch;

const NO_SUCH_SERVER: ProblemType = ProblemType {
    status: StatusCode::NOT_FOUND,
    name: "no-such-server",
    title: "The cluster has no such server",
};

const NOT_EMBEDDED: ProblemType = ProblemType {
    status: StatusCode::CONFLICT,
    name: "not-embedded",
    title: "The server does not run inside the gateway",
};

const SERVER_NOT_STARTED: ProblemType = ProblemType {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "server-not-started",
    title: "The server could not be started",
};

pub(super) async fn stop(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let (server, switch) = server(&app, &uri, "/stop")?;
    conditional::check_post(&headers)?;
    // It waits for a disk, and goes on even if the caller leaves.
    let stopped = tokio::task::spawn_blocking(move || switch.stop(server)).await;
    if let Err(error) = stopped {
        tracing::error!(%error, "an embedded server did not stop in good order");
    }
    Ok(switched(&app, server, false))
}

pub(super) async fn start(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let (server, switch) = server(&app, &uri, "/start")?;
    conditional::check_post(&headers)?;
    let started = tokio::task::spawn_blocking(move || switch.start(server)).await;
    let started = started.unwrap_or_else(|error| Err(error.into()));
    started.map_err(|error| not_started(&error))?;
    Ok(switched(&app, server, true))
}

/// The server that the path names, and the switch for it.
fn server(app: &App, uri: &Uri, end: &str) -> Result<(ServerId, ServerSwitch), Problem> {
    parameters::none(uri)?;
    let name = uri.path().strip_prefix("/servers/").unwrap_or_default();
    let name = percent_decode_str(name.strip_suffix(end).unwrap_or_default());
    let name = name.decode_utf8_lossy();
    let view = app.client.view();
    let mut servers = view.servers();
    let found = servers.find(|id| view.name(*id) == name);
    let server = found.ok_or_else(|| no_such_server(&name))?;
    let switch = app.gateway.switch.clone();
    Ok((server, switch.ok_or_else(not_embedded)?))
}

fn switched(app: &App, server: ServerId, is_running: bool) -> Response<Body> {
    let view = app.client.view();
    let server = view.name(server);
    tracing::info!(server, is_running, "an embedded server was switched");
    json(&json!({ "server": server, "running": is_running }))
}

fn no_such_server(name: &str) -> Problem {
    let detail = format!(
        "{} is no server of this cluster; /servers lists all of them",
        excerpt(name)
    );
    Problem::new(&NO_SUCH_SERVER, detail)
}

fn not_embedded() -> Problem {
    Problem::new(
        &NOT_EMBEDDED,
        "this gateway only talks to its servers; stop or start the server's own process",
    )
}

fn not_started(error: &anyhow::Error) -> Problem {
    Problem::new(&SERVER_NOT_STARTED, format!("{error:#}")).with_retry_after()
}

//! The gateway's own health: whether it is alive, and whether it is ready.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};
use serde::Serialize;

use super::app::App;
use super::json::json;
use super::parameters;
use super::problem::{Problem, ProblemType};
use super::servers::advice_on;

const NOT_READY: ProblemType = ProblemType {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "not-ready",
    title: "The gateway is not ready",
};

#[derive(Serialize)]
struct ReadyBody {
    status: &'static str,
    servers: usize,
    servers_reachable: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
}

const STALLED: ProblemType = ProblemType {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "stalled",
    title: "A part of the gateway does not move",
};

/// How old a check of the servers may be, counted from its beginning.
const CHECK_AGE_MAX: Duration = Duration::from_millis(500);

pub(super) async fn live(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let stalled = app.gateway.liveness.stalled();
    if stalled > 0 {
        let workers = app.workers().len();
        let detail = format!("{stalled} of {workers} workers have not moved for ten seconds");
        return Err(Problem::new(&STALLED, detail).with_retry_after());
    }
    Ok(json(&serde_json::json!({ "status": "alive" })))
}

pub(super) async fn ready(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    if app.draining.is_cancelled() {
        return Err(not_ready(
            "the gateway is ending; it finishes what is in flight",
        ));
    }
    let client = &app.client;
    let now = Instant::now();
    let since = now.checked_sub(CHECK_AGE_MAX).unwrap_or(now);
    let check = app.gateway.checks.begun_since(since).await;
    let check = check.ok_or_else(|| not_ready("the servers could not be checked in time"))?;
    let statuses = &check.statuses;
    // Open to anyone, so it names no server: /servers does, to those who may know.
    let mut advice = BTreeMap::<_, usize>::new();
    for text in statuses.iter().filter_map(|it| advice_on(client, it)) {
        *advice.entry(text).or_default() += 1;
    }
    let advice: Vec<String> = advice
        .into_iter()
        .map(|(text, servers)| format!("servers: {servers}, which /servers names; {text}"))
        .collect();
    let servers = statuses.len();
    let reachable = statuses.iter().filter(|status| status.is_reachable).count();
    let others = statuses.iter().filter(|status| status.is_reachable);
    let others = others.filter(|status| status.is_other_configuration);
    let serving = reachable - others.count();
    if serving <= servers / 2 {
        let mut detail =
            format!("{serving} of {servers} servers can be reached and used, which is no majority");
        for advice in advice {
            detail += &format!("; {advice}");
        }
        return Err(not_ready(detail));
    }
    Ok(json(&ReadyBody {
        status: "ready",
        servers,
        servers_reachable: reachable,
        advice,
    }))
}

fn not_ready(detail: impl Into<String>) -> Problem {
    Problem::new(&NOT_READY, detail).with_retry_after()
}

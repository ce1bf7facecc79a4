//! GET /kv: the keys of the cluster, page by page.
//!
//! * `cursor`: where the next page begins, sealed
//! * `limits`: how many lists there are at a time

mod cursor;
mod limits;

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, header};
use axum::response::IntoResponse;
use dkvs_client::ListResult;
use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::list::{List, ListOutcome, ListPosition, ListServerState, Listing};
use dkvs_common::view::ClusterView;
use serde::Serialize;

use super::accept;
use super::access::Caller;
use super::app::App;
use super::client_error::not_supported;
use super::json::json;
use super::operations::LIST_PARAMETERS;
use super::operations::parameter::{CURSOR, LIMIT, PREFIX};
use super::parameters::{Query, RequestDefaults, timeout};
use super::problem::Problem;
use super::quorum_problem;
use super::report::{KeyText, micros, reason_of};

pub(super) use limits::ListsInFlight;

/// Where the rest of an NDJSON listing begins.
const DKVS_CURSOR: HeaderName = HeaderName::from_static("dkvs-cursor");

/// Present if keys are missing from an NDJSON listing.
const DKVS_LEFT_OUT: HeaderName = HeaderName::from_static("dkvs-left-out");

#[derive(Serialize)]
struct ListBody<'a> {
    keys: Vec<ListedKey<'a>>,
    cursor: Option<String>,
    /// Whether keys are missing that are too long for the datagrams of a server.
    left_out: bool,
    #[serde(flatten)]
    report: ListReport<'a>,
    elapsed_us: u64,
}

/// A key: as text, or in base64 where it is no UTF-8.
#[derive(Serialize)]
#[serde(untagged)]
enum ListedKey<'a> {
    Text(&'a str),
    Bytes(KeyText<'a>),
}

/// How each server answered.
#[derive(Serialize)]
pub(super) struct ListReport<'a> {
    servers: Vec<ListedServer<'a>>,
}

#[derive(Serialize)]
struct ListedServer<'a> {
    server: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let started = Instant::now();
    let (listing, timeout) = parse(&app, &uri)?;
    caller.may_list(&listing.prefix)?;
    let is_lines = accept::lines(&headers).ok_or_else(not_acceptable)?;
    let _permit = app.lists.begin(caller.id(), &app.counts)?;
    let client = &app.client;
    let (prefix, silent_max) = (listing.prefix.clone(), listing.silent_max);
    let ListResult { list, view } = client.list(listing, timeout, caller.id()).await?;
    let report = ListReport::new(&view, &list);
    match list.outcome() {
        Some(ListOutcome::Listed) => {}
        Some(ListOutcome::Unreachable) => {
            let speaks_v1 = |standing| standing == Some(ListServerState::Refused(Refusal::NotV2));
            let standings = list.standings().map(|(_, standing)| standing);
            let is_for_good = standings.filter(|it| speaks_v1(*it)).count() > silent_max;
            return Err(match is_for_good {
                true => speaks_v1_only(report),
                false => unreachable(report),
            });
        }
        Some(ListOutcome::TimedOut) | None => return Err(timed_out(report)),
    }
    let cursors = &app.gateway.cursors;
    let cursor = list.next();
    let cursor = cursor.map(|place| cursor::seal(cursors, &view, &prefix, place));
    let left_out = list.is_left_out();
    let keys = list.keys().iter().map(ListedKey::new);
    let mut response = match is_lines {
        true => lines(keys, cursor, left_out),
        false => json(&ListBody {
            keys: keys.collect(),
            cursor,
            left_out,
            report,
            elapsed_us: micros(started.elapsed()),
        }),
    };
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().insert(header::VARY, vary);
    Ok(response)
}

fn not_acceptable() -> Problem {
    accept::not_acceptable(
        "keys are given as application/json or as application/x-ndjson, and Accept refuses both",
    )
}

fn unreachable(report: ListReport<'_>) -> Problem {
    let detail = "so many servers cannot be asked that keys might be missing from the list";
    quorum_problem::quorum_unreachable(detail).with(report)
}

fn timed_out(report: ListReport<'_>) -> Problem {
    let detail = "too few servers answered in time to tell a single key, or that there is none";
    quorum_problem::timeout(detail).with(report)
}

/// So many servers speak DKVS/1 that there is no list, however well the others do.
fn speaks_v1_only(report: ListReport<'_>) -> Problem {
    not_supported(
        "so many servers speak DKVS/1 only, which cannot list keys, that keys might be missing; \
         they have to speak DKVS/2 for it",
    )
    .with(report)
}

fn parse(app: &App, uri: &Uri) -> Result<(Listing, Duration), Problem> {
    let defaults: RequestDefaults = app.defaults();
    let mut query = Query::new(uri, LIST_PARAMETERS);
    let prefix = query.bytes(&PREFIX).unwrap_or_default();
    let limit = query.number(&LIMIT);
    let start = query.text(&CURSOR).map(|cursor| {
        let cursors = &app.gateway.cursors;
        cursor::open(cursors, &app.client.view(), &prefix, &cursor)
    });
    if start == Some(None) {
        query.refuse(
            &CURSOR,
            "it is none that a list with this very `prefix` gave, or the keys by which gateways seal \
             cursors have changed since; begin the list anew, without a cursor",
        );
    }
    let timeout = timeout(&mut query, &defaults);
    query.finish()?;
    let replication = usize::from(defaults.replication);
    let listing = Listing {
        start: start.flatten().unwrap_or(ListPosition::START),
        prefix: prefix.into(),
        keys_max: limit.unwrap_or(LIMIT.schema.max) as usize,
        silent_max: replication - (replication / 2 + 1),
    };
    Ok((listing, timeout))
}

/// One key a line, as JSON.
fn lines<'a>(
    keys: impl Iterator<Item = ListedKey<'a>>,
    cursor: Option<String>,
    left_out: bool,
) -> Response<Body> {
    let mut text = Vec::new();
    for key in keys {
        serde_json::to_writer(&mut text, &key).expect("keys are strings");
        text.push(b'\n');
    }
    let content_type = HeaderValue::from_static("application/x-ndjson");
    let mut response = ([(header::CONTENT_TYPE, content_type)], text).into_response();
    if let Some(Ok(cursor)) = cursor.map(HeaderValue::try_from) {
        response.headers_mut().insert(DKVS_CURSOR, cursor);
    }
    if left_out {
        let left_out = HeaderValue::from_static("true");
        response.headers_mut().insert(DKVS_LEFT_OUT, left_out);
    }
    response
}

impl<'a> ListedKey<'a> {
    fn new(key: &'a Key) -> Self {
        match std::str::from_utf8(key.as_bytes()) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Bytes(KeyText::new(key)),
        }
    }
}

impl<'a> ListReport<'a> {
    fn new(view: &'a ClusterView, list: &List) -> Self {
        let server = |(server, standing)| {
            let mut reason = None;
            let status = match standing {
                Some(ListServerState::Answered) => "answered",
                Some(ListServerState::Incomplete) => "incomplete",
                Some(ListServerState::Refused(refusal)) => {
                    reason = Some(reason_of(refusal));
                    "refused"
                }
                Some(ListServerState::Unreachable) => "unreachable",
                Some(ListServerState::TimedOut) => "timeout",
                None => "pending",
            };
            ListedServer {
                server: view.name(server),
                status,
                reason,
            }
        };
        Self {
            servers: list.standings().map(server).collect(),
        }
    }
}

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
use bytes::Bytes;
use dkvs_client::{CallerId, Client, ListResult};
use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::list::{List, ListOutcome, ListPosition, ListServerState, Listing};
use dkvs_common::view::ClusterView;
use serde::Serialize;

use super::accept;
use super::access::Caller;
use super::app::App;
use super::client_error::{no_memory_for_reply, not_supported};
use super::document::{Document, Json};
use super::json::{json_of, text};
use super::operations::LIST_PARAMETERS;
use super::operations::parameter::{CURSOR, LIMIT, PREFIX};
use super::parameters::{Query, RequestDefaults, timeout};
use super::problem::Problem;
use super::quorum_problem;
use super::report::{micros, reason_of};

pub(super) use limits::lists_in_flight;

/// Where the rest of an NDJSON listing begins.
const DKVS_CURSOR: HeaderName = HeaderName::from_static("dkvs-cursor");

/// Present if keys are missing from an NDJSON listing.
const DKVS_LEFT_OUT: HeaderName = HeaderName::from_static("dkvs-left-out");

/// What follows the keys.
#[derive(Serialize)]
struct ListRest<'a> {
    cursor: Option<String>,
    /// Whether keys are missing that are too long for the datagrams of a server.
    left_out: bool,
    #[serde(flatten)]
    report: ListReport<'a>,
    elapsed_us: u64,
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
    let slot = limits::begin(&app.lists, caller.id(), &app.counts)?;
    let client = &app.client;
    let (prefix, silent_max) = (listing.prefix.clone(), listing.silent_max);
    let ListResult {
        list,
        view,
        refused,
        memory,
    } = tokio::select! {
        listed = client.list(listing, timeout, caller.id()) => listed?,
        () = slot.displaced() => return Err(limits::displaced(&app.counts)),
    };
    if let Some(error) = refused {
        return Err(no_memory_for_reply(error));
    }
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
    let mut document = Document::default();
    if let Some(memory) = memory {
        document.hold(memory);
    }
    let caller = (client, caller.id());
    if is_lines {
        push_keys(&mut document, list.keys(), "\n", "\n");
        return Ok(vary_by_form(lines(caller, document, cursor, left_out)?));
    }
    document.text(&br#"{"keys":["#[..]);
    push_keys(&mut document, list.keys(), ",", "");
    let rest = text(&ListRest {
        cursor,
        left_out,
        report,
        elapsed_us: micros(started.elapsed()),
    });
    document.text(&b"],"[..]);
    document.text(Bytes::from(rest).slice(1..));
    let response = json_of(caller, HeaderMap::new(), Json::Parts(document))?;
    Ok(vary_by_form(response))
}

/// Says that `Accept` decides the form.
fn vary_by_form(mut response: Response<Body>) -> Response<Body> {
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().insert(header::VARY, vary);
    response
}

/// Adds keys as JSON: as text, or in base64 where they are no UTF-8.
fn push_keys(document: &mut Document, keys: &[Key], between: &'static str, end: &'static str) {
    for (number, key) in keys.iter().enumerate() {
        if number > 0 {
            document.text(between);
        }
        let bytes = key.clone().into_bytes();
        if std::str::from_utf8(&bytes).is_ok() {
            document.text("\"");
            document.string(bytes);
            document.text("\"");
        } else {
            document.text(r#"{"key_base64":""#);
            document.string(bytes);
            document.text("\"}");
        }
    }
    if !keys.is_empty() {
        document.text(end);
    }
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
fn lines(
    (client, caller): (&Client, CallerId),
    keys: Document,
    cursor: Option<String>,
    left_out: bool,
) -> Result<Response<Body>, Problem> {
    let body = Json::Parts(keys).into_body(client, caller);
    let mut response = Response::new(body.map_err(no_memory_for_reply)?);
    let content_type = HeaderValue::from_static("application/x-ndjson");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    if let Some(Ok(cursor)) = cursor.map(HeaderValue::try_from) {
        response.headers_mut().insert(DKVS_CURSOR, cursor);
    }
    if left_out {
        let left_out = HeaderValue::from_static("true");
        response.headers_mut().insert(DKVS_LEFT_OUT, left_out);
    }
    Ok(response)
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

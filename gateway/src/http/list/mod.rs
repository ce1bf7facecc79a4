//! GET /kv: the keys of the cluster in order, page by page, with folders or values if they are asked for.
//!
//! * `query`: what is asked for; `cursor`: where the next page begins, sealed
//! * `limits`: how many lists there are at a time
//! * `report`: what each server had to say, and how lists fail

mod cursor;
mod limits;
mod query;
mod report;

use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, header};
use bytes::Bytes;
use dkvs_client::ListResult;
use dkvs_common::kv::Key;
use dkvs_common::quorum::list::ListItem;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::accept;
use super::access::Caller;
use super::app::App;
use super::client_error::no_memory_for_reply;
use super::document::Document;
use super::json::{json_text, text};
use super::parameters::KeyParameters;
use super::problem::Problem;
use super::repeatable::{RepeatableRead, ReplyFrame, ReplyPart, body};
use super::report::micros;
use query::ListQuery;
use report::ListReport;

pub(super) use limits::lists_in_flight;

/// Where the rest of an NDJSON listing begins.
const DKVS_CURSOR: HeaderName = HeaderName::from_static("dkvs-cursor");

/// Present if keys are missing from an NDJSON listing.
const DKVS_LEFT_OUT: HeaderName = HeaderName::from_static("dkvs-left-out");

/// Most values of a list that are read at a time.
const READS_AT_A_TIME: usize = 32;

/// What follows the keys.
#[derive(Serialize)]
struct ListRest<'a> {
    cursor: Option<String>,
    /// Whether keys are missing that are too long for the datagrams of a server.
    left_out: bool,
    #[serde(flatten)]
    report: ListReport<'a>,
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let started = Instant::now();
    let query = ListQuery::parse(&app, &uri, caller.id())?;
    caller.may_list(&query.listing.prefix)?;
    let is_lines = accept::lines(&headers).ok_or_else(not_acceptable)?;
    let slot = limits::begin(&app.lists, caller.id(), &app.counts)?;
    let client = &app.client;
    let silent_max = query.listing.silent_max;
    let listing = query.listing.clone();
    let ListResult {
        list,
        view,
        refused,
        memory,
    } = tokio::select! {
        listed = client.list(listing, query.timeout, caller.id()) => listed?,
        () = slot.displaced() => return Err(limits::displaced(&app.counts)),
    };
    if let Some(error) = refused {
        return Err(no_memory_for_reply(error));
    }
    report::check(&view, &list, silent_max)?;
    let cursors = &app.gateway.cursors;
    let cursor = list.next();
    let cursor = cursor.map(|place| cursor::seal(cursors, &view, &query.listed, place));
    let left_out = list.is_left_out();
    let mut beginning = Document::default();
    if let Some(memory) = memory {
        beginning.hold(memory);
    }
    let is_json = !is_lines;
    if is_json {
        push_keys(&mut beginning, list.items(), &query);
    }
    let parts = match is_json && query.values.is_none() {
        true => Vec::new(),
        false => tokio::select! {
            parts = parts(&app, list.items(), query.values, is_lines) => parts,
            () = slot.displaced() => return Err(limits::displaced(&app.counts)),
        },
    };
    let rest = ListRest {
        cursor: cursor.clone(),
        left_out,
        report: ListReport::new(&view, &list),
    };
    // The list is under way until its reply has gone, or whoever takes that.
    let ending: Box<dyn FnOnce() -> String + Send> = match is_lines {
        true => Box::new(move || {
            drop(slot);
            String::new()
        }),
        false => {
            let mut rest = text(&rest);
            rest.truncate(rest.trim_ascii_end().len() - 1);
            // What serde writes is UTF-8; behind its first brace.
            let rest = String::from_utf8(rest.split_off(1)).unwrap_or_default();
            Box::new(move || {
                drop(slot);
                format!("],{rest},\"elapsed_us\":{}}}\n", micros(started.elapsed()))
            })
        }
    };
    let frame = ReplyFrame {
        beginning,
        between: if is_lines { "" } else { "," },
        ending,
    };
    let body = body(&app, caller.id(), parts, frame)?;
    Ok(vary_by_form(match is_lines {
        true => lines(body, cursor, left_out),
        false => json_text(HeaderMap::new(), body),
    }))
}

/// Says that `Accept` decides the form.
fn vary_by_form(mut response: Response<Body>) -> Response<Body> {
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().insert(header::VARY, vary);
    response
}

/// Adds keys and folders as members, up to the one that is not complete yet.
fn push_keys(document: &mut Document, items: &[ListItem], query: &ListQuery) {
    let keys = items.iter().filter_map(|item| match item {
        ListItem::Key(key) => Some(key.clone().into_bytes()),
        ListItem::Folder(_) => None,
    });
    document.text(&br#"{"keys":["#[..]);
    push_names(document, keys, "key_base64");
    if !query.listed.delimiter.is_empty() {
        let folders = items.iter().filter_map(|item| match item {
            ListItem::Key(_) => None,
            ListItem::Folder(folder) => Some(folder.clone()),
        });
        document.text(&br#"],"folders":["#[..]);
        push_names(document, folders, "folder_base64");
    }
    if query.values.is_some() {
        document.text(&br#"],"entries":["#[..]);
    }
}

fn push_names(document: &mut Document, names: impl Iterator<Item = Bytes>, binary: &str) {
    for (number, name) in names.enumerate() {
        if number > 0 {
            document.text(",");
        }
        push_name(document, name, binary);
    }
}

/// Adds a name as JSON: as text, or as an object with its base64 where it is no UTF-8.
fn push_name(document: &mut Document, name: Bytes, binary: &str) {
    if std::str::from_utf8(&name).is_ok() {
        document.text("\"");
        document.string(name);
        document.text("\"");
    } else {
        document.text(format!(r#"{{"{binary}":""#));
        document.string(name);
        document.text("\"}");
    }
}

/// The parts of a reply: the entries of keys whose values are read, else lines of keys; and lines of
/// folders.
async fn parts(
    app: &App,
    items: &[ListItem],
    values: Option<KeyParameters>,
    is_lines: bool,
) -> Vec<ReplyPart> {
    let part = |item: ListItem| async move {
        let mut line = Document::default();
        match (item, values) {
            (ListItem::Key(key), Some(parameters)) => {
                return ReplyPart::read(app, entry(key, parameters, is_lines)).await;
            }
            (ListItem::Key(key), None) => push_name(&mut line, key.into_bytes(), "key_base64"),
            // They are members of a JSON document already.
            (ListItem::Folder(_), _) if !is_lines => return line.into(),
            (ListItem::Folder(folder), _) => {
                let is_text = std::str::from_utf8(&folder).is_ok();
                let name = if is_text { "folder" } else { "folder_base64" };
                line.text(format!(r#"{{"{name}":""#));
                line.string(folder);
                line.text("\"}");
            }
        }
        line.text("\n");
        line.into()
    };
    let parts = stream::iter(items.iter().cloned()).map(part);
    parts.buffered(READS_AT_A_TIME).collect().await
}

/// The read of a key's value, which becomes an entry. One that was deleted meanwhile becomes nothing.
fn entry(key: Key, parameters: KeyParameters, is_line: bool) -> RepeatableRead {
    RepeatableRead {
        key,
        parameters,
        show: |found, key, short_max| found.entry(key, short_max),
        frame: match is_line {
            true => |key, found| {
                let mut line = framed_entry(key, found);
                if !line.is_empty() {
                    line.text("\n");
                }
                line
            },
            false => framed_entry,
        },
    }
}

fn framed_entry(key: &Key, found: Result<Document, Problem>) -> Document {
    let problem = match found {
        Ok(document) => return document,
        Err(problem) => problem,
    };
    let mut entry = Document::default();
    if problem.status() == 404 {
        return entry;
    }
    let is_text = std::str::from_utf8(key.as_bytes()).is_ok();
    let name = if is_text { "key" } else { "key_base64" };
    entry.text(format!(r#"{{"{name}":""#));
    entry.string(key.clone().into_bytes());
    let (status, problem) = (problem.status(), problem.document());
    entry.text(format!(r#"","status":{status},"problem":{problem}}}"#));
    entry
}

fn not_acceptable() -> Problem {
    accept::not_acceptable(
        "keys are given as application/json or as application/x-ndjson, and Accept refuses both",
    )
}

/// One key a line, as JSON.
fn lines(body: Body, cursor: Option<String>, left_out: bool) -> Response<Body> {
    let mut response = Response::new(body);
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
    response
}

//! JSON documents as responses.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use dkvs_client::{CallerId, Client};
use dkvs_common::kv::Key;
use serde::Serialize;

use super::client_error::no_memory_for_reply;
use super::document::Json;
use super::object::Object;
use super::problem::Problem;

/// The usual length of the report on a small value, in bytes.
const JSON_BYTES_USUAL: usize = 1_024;

/// The usual number of headers that a response has when it leaves.
const HEADERS_USUAL: usize = 9;

/// A response with a JSON document and a line end, for terminals.
pub(super) fn json(document: &impl Serialize) -> Response<Body> {
    json_text(HeaderMap::with_capacity(HEADERS_USUAL), text(document))
}

/// The most bytes of a report on `n` replicas and a key.
pub(super) fn report_bytes_max(key: &Key, n: u8) -> usize {
    const HEAD: usize = 1_024;
    const REPLICA: usize = 400;
    // A byte of a key becomes six at most.
    HEAD + 6 * key.as_bytes().len() + REPLICA * usize::from(n)
}

/// A response with a JSON document that is text already. `map` becomes its headers, without what it
/// has: the request's own map is large enough, and saves an allocation.
pub(super) fn json_text(mut map: HeaderMap, text: impl Into<Body>) -> Response<Body> {
    map.clear();
    let json = HeaderValue::from_static("application/json");
    map.insert(header::CONTENT_TYPE, json);
    let mut response = Response::new(text.into());
    *response.headers_mut() = map;
    response
}

/// The same, of a document that may be long: it takes memory from its caller's share.
///
/// # Errors
///
/// If there is none.
pub(super) fn json_of(
    (client, caller): (&Client, CallerId),
    map: HeaderMap,
    json: Json,
) -> Result<Response<Body>, Problem> {
    let body = json.into_body(client, caller);
    Ok(json_text(map, body.map_err(no_memory_for_reply)?))
}

/// The same, of a document about the cluster, which is as long as that is large.
///
/// # Errors
///
/// If there is none.
pub(super) fn counted_json(
    client_and_caller: (&Client, CallerId),
    document: &impl Serialize,
) -> Result<Response<Body>, Problem> {
    counted_text(client_and_caller, text(document))
}

/// The same, of a document that is text already.
///
/// # Errors
///
/// If there is none.
pub(super) fn counted_text(
    client_and_caller: (&Client, CallerId),
    text: Vec<u8>,
) -> Result<Response<Body>, Problem> {
    let map = HeaderMap::with_capacity(HEADERS_USUAL);
    json_of(client_and_caller, map, Json::Text(text))
}

/// An object with the members that `write` writes, and a line end.
pub(super) fn object_text(write: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut text = Vec::with_capacity(JSON_BYTES_USUAL);
    let mut object = Object::begin(&mut text);
    write(&mut object);
    object.end();
    text.push(b'\n');
    text
}

/// A JSON document and a line end.
pub(super) fn text(document: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(JSON_BYTES_USUAL);
    serde_json::to_writer(&mut text, document)
        .expect("reports have string keys and no failing parts");
    text.push(b'\n');
    text
}

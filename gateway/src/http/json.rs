//! JSON documents as responses.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use serde::Serialize;

/// The usual length of the report on a small value, in bytes.
const JSON_BYTES_USUAL: usize = 1_024;

/// The usual number of headers that a response has when it leaves.
const HEADERS_USUAL: usize = 9;

/// A response with a JSON document and a line end, for terminals.
pub(super) fn json(document: &impl Serialize) -> Response<Body> {
    json_text(HeaderMap::with_capacity(HEADERS_USUAL), text(document))
}

/// A response with a JSON document that is text already. `map` becomes its headers, without what it
/// has: the request's own map is large enough, and saves an allocation.
pub(super) fn json_text(mut map: HeaderMap, text: Vec<u8>) -> Response<Body> {
    map.clear();
    let json = HeaderValue::from_static("application/json");
    map.insert(header::CONTENT_TYPE, json);
    let mut response = Response::new(Body::from(text));
    *response.headers_mut() = map;
    response
}

/// A JSON document and a line end.
pub(super) fn text(document: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(JSON_BYTES_USUAL);
    serde_json::to_writer(&mut text, document)
        .expect("reports have string keys and no failing parts");
    text.push(b'\n');
    text
}

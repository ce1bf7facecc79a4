//! What the head of a request for a key asks for.

use axum::http::request;
use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::record::ContentType;

use crate::http::access::Caller;
use crate::http::key_value::invalid_value;
use crate::http::operations::{Integer, Parameter};
use crate::http::parameters::{KeyParameters, Query, RequestDefaults};
use crate::http::problem::Problem;
use crate::http::{path, trace};

const PREFIX: &str = "/kv/";

/// The key that a request is about, and its parameters; `required` names the size of the quorum.
pub(super) fn key_and_parameters(
    defaults: &RequestDefaults,
    head: &request::Parts,
    declared: &[Parameter],
    required: &Parameter<Integer>,
) -> Result<(Key, KeyParameters), Problem> {
    let key = path::key(&head.uri, PREFIX)?;
    let query = Query::new(&head.uri, declared);
    let mut parameters = KeyParameters::parse(defaults, query, required)?;
    parameters.options.caller = Caller::of(&head.extensions)?.id();
    parameters.options.trace = trace::sampled(&head.headers);
    Ok((key, parameters))
}

/// The content type to store with a value.
pub(in crate::http) fn content_type_of(given: impl Into<Bytes>) -> Result<ContentType, Problem> {
    ContentType::new(given).map_err(|error| invalid_value(error.to_string()))
}

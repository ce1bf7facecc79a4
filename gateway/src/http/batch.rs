//! POST /batch: many operations in one request, each with its own result.
//!
//! All of them begin in one turn of the worker, so their messages to a server share datagrams. They
//! are as independent of each other as separate requests, and run at once.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::Content;
use dkvs_common::trace::Trace;
use serde::Deserialize;
use serde_json::Number;

use super::access::Caller;
use super::app::App;
use super::body::invalid_body;
use super::json::json_text;
use super::key_value::{invalid_key, invalid_value, value_too_large};
use super::operations::parameter::{CONSISTENCY, N, R, TAG, TIMEOUT_MS, W, WAIT};
use super::operations::{GET_PARAMETERS, Integer, Parameter, WRITE_PARAMETERS};
use super::parameters::{self, KeyParameters, Query};
use super::problem::{Problem, ProblemType, excerpt};
use super::report::micros;
use super::{body, conditional, kv, trace};
use crate::tokens::Scope;

const BATCH_TOO_LARGE: ProblemType = ProblemType {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    name: "batch-too-large",
    title: "The batch is too large",
};

/// Most operations in a batch.
const OPERATIONS_MAX: usize = 128;

/// What the body of a batch may take besides two values of the greatest length, in bytes: keys,
/// parameters, and many short values.
const BODY_BYTES_BESIDE: usize = 1 << 20;

/// Most characters of an error of the JSON that are shown.
const ERROR_CHARS_MAX: usize = 400;

// serde names these types and their members in its errors, which callers see.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Get(Get),
    Put(BatchPut),
    Delete(Delete),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    key: Option<String>,
    key_base64: Option<String>,
    n: Option<Number>,
    r: Option<Number>,
    consistency: Option<String>,
    timeout_ms: Option<Number>,
    wait: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchPut {
    key: Option<String>,
    key_base64: Option<String>,
    value: String,
    #[serde(default)]
    encoding: Encoding,
    content_type: Option<String>,
    n: Option<Number>,
    w: Option<Number>,
    consistency: Option<String>,
    timeout_ms: Option<Number>,
    wait: Option<String>,
    tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    key: Option<String>,
    key_base64: Option<String>,
    n: Option<Number>,
    w: Option<Number>,
    consistency: Option<String>,
    timeout_ms: Option<Number>,
    wait: Option<String>,
    tag: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    Base64,
}

pub(super) async fn batch(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (head, mut body) = request.into_parts();
    let batch = run(&app, &caller, &head, &mut body).await;
    if batch.is_err() {
        body::drain_body(&head.headers, body);
    }
    batch
}

async fn run(
    app: &App,
    caller: &Caller,
    head: &request::Parts,
    body: &mut Body,
) -> Result<Response<Body>, Problem> {
    let started = Instant::now();
    parameters::none(&head.uri)?;
    body::check_coding(&head.headers)?;
    let client = &app.client;
    let bytes_max = 2 * client.value_bytes_max() + BODY_BYTES_BESIDE;
    let too_large = || batch_too_large(bytes_max);
    let (text, _memory) = body::read(client, body, bytes_max, too_large).await?;
    let batch: BatchBody =
        serde_json::from_slice(&text).map_err(|error| not_a_batch(&shown(&error)))?;
    drop(text);
    let count = batch.operations.len();
    if !(1..=OPERATIONS_MAX).contains(&count) {
        return Err(not_a_batch(&format!(
            "it has {count} operations, and may have 1 to {OPERATIONS_MAX}"
        )));
    }
    conditional::check_post(&head.headers)?;
    let context = BatchContext {
        app,
        caller,
        trace: trace::sampled(&head.headers),
    };
    let results = batch.operations.into_iter();
    let results = futures_util::future::join_all(results.map(|one| result(context, one))).await;
    let mut text = b"{\"results\":[".to_vec();
    text.extend(results.join(&b','));
    text.extend(format!("],\"elapsed_us\":{}}}\n", micros(started.elapsed())).bytes());
    Ok(json_text(HeaderMap::new(), text))
}

fn batch_too_large(bytes_max: usize) -> Problem {
    let detail = format!(
        "the batch is longer than {bytes_max} bytes, which is the limit here; send it in \
         parts, and long values by PUT"
    );
    Problem::new(&BATCH_TOO_LARGE, detail)
}

/// What is wrong with a text, and where. It may have names from that text, as long as the text is.
fn shown(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&place).unwrap_or(&text);
    let parts = what.split_inclusive('`').map(excerpt);
    let parts: String = parts.take(ERROR_CHARS_MAX).collect();
    parts.chars().take(ERROR_CHARS_MAX).collect::<String>() + &place
}

fn not_a_batch(why: &str) -> Problem {
    invalid_body(format!(
        "the body is no batch: {why}; nothing was sent to any server"
    ))
}

/// Who sent the batch, and what its operations share.
#[derive(Clone, Copy)]
struct BatchContext<'a> {
    app: &'a App,
    caller: &'a Caller,
    trace: Option<Trace>,
}

/// The result of an operation, as a member of the batch's results.
async fn result(context: BatchContext<'_>, operation: Operation) -> Vec<u8> {
    let (name, done) = match operation {
        Operation::Get(get) => ("read", read(context, get).await),
        Operation::Put(put) => ("write", write(context, put).await),
        Operation::Delete(operation) => ("write", delete(context, operation).await),
    };
    let (status, name, document) = match done {
        Ok(document) => (200, name, document),
        Err(problem) => (
            problem.status(),
            "problem",
            problem.document().to_string().into(),
        ),
    };
    let mut result = format!("{{\"status\":{status},\"{name}\":").into_bytes();
    result.extend(document.trim_ascii_end());
    result.push(b'}');
    result
}

async fn read(context: BatchContext<'_>, get: Get) -> Result<Vec<u8>, Problem> {
    let fields = KeyFields {
        key: get.key,
        key_base64: get.key_base64,
        n: get.n,
        required: (&R, get.r),
        consistency: get.consistency,
        timeout_ms: get.timeout_ms,
        wait: get.wait,
        tag: None,
    };
    let (key, parameters) = fields.check(context, Scope::Read, GET_PARAMETERS)?;
    kv::read(context.app, &key, &parameters, |found| Ok(found.json(&key))).await
}

async fn write(context: BatchContext<'_>, put: BatchPut) -> Result<Vec<u8>, Problem> {
    let fields = KeyFields {
        key: put.key,
        key_base64: put.key_base64,
        n: put.n,
        required: (&W, put.w),
        consistency: put.consistency,
        timeout_ms: put.timeout_ms,
        wait: put.wait,
        tag: put.tag,
    };
    let (key, parameters) = fields.check(context, Scope::Write, WRITE_PARAMETERS)?;
    let bytes: Bytes = match put.encoding {
        Encoding::Utf8 => put.value.into(),
        Encoding::Base64 => STANDARD
            .decode(put.value)
            .map_err(|error| invalid_value(format!("it is no base64: {error}")))?
            .into(),
    };
    let value_bytes_max = context.app.client.value_bytes_max();
    let value = Value::new(bytes)
        .ok()
        .filter(|value| value.len() <= value_bytes_max)
        .ok_or_else(|| value_too_large(value_bytes_max))?;
    let content = Content::Value {
        content_type: kv::content_type_of(put.content_type.unwrap_or_default())?,
        value,
    };
    kv::write(context.app, &key, content, &parameters).await
}

async fn delete(context: BatchContext<'_>, delete: Delete) -> Result<Vec<u8>, Problem> {
    let fields = KeyFields {
        key: delete.key,
        key_base64: delete.key_base64,
        n: delete.n,
        required: (&W, delete.w),
        consistency: delete.consistency,
        timeout_ms: delete.timeout_ms,
        wait: delete.wait,
        tag: delete.tag,
    };
    let (key, parameters) = fields.check(context, Scope::Write, WRITE_PARAMETERS)?;
    kv::write(context.app, &key, Content::Tombstone, &parameters).await
}

/// What every operation on a key has.
struct KeyFields {
    key: Option<String>,
    key_base64: Option<String>,
    n: Option<Number>,
    /// `w` or `r`.
    required: (&'static Parameter<Integer>, Option<Number>),
    consistency: Option<String>,
    timeout_ms: Option<Number>,
    wait: Option<String>,
    tag: Option<String>,
}

impl KeyFields {
    /// The key, which the caller may read or write, and the parameters.
    fn check(
        self,
        context: BatchContext<'_>,
        scope: Scope,
        declared: &[Parameter],
    ) -> Result<(Key, KeyParameters), Problem> {
        let key = key(self.key, self.key_base64)?;
        context.caller.may(scope, Some(&key))?;
        let (required_parameter, required) = self.required;
        let given = [
            (N.name, text(self.n)),
            (required_parameter.name, text(required)),
            (CONSISTENCY.name, self.consistency),
            (TIMEOUT_MS.name, text(self.timeout_ms)),
            (WAIT.name, self.wait),
            (TAG.name, self.tag),
        ];
        let query = Query::of_values(given, declared);
        let mut parameters =
            KeyParameters::parse(&context.app.defaults(), query, required_parameter)?;
        parameters.options.caller = context.caller.id();
        parameters.options.trace = context.trace;
        Ok((key, parameters))
    }
}

/// The key of an operation, of which it has one or the other.
fn key(key: Option<String>, key_base64: Option<String>) -> Result<Key, Problem> {
    let bytes: Bytes = match (key, key_base64) {
        (Some(key), None) => key.into(),
        (None, Some(key)) => STANDARD
            .decode(key)
            .map_err(|error| invalid_key(format!("`key_base64` is no base64: {error}")))?
            .into(),
        _ => {
            let detail = "an operation has either `key` or `key_base64`";
            return Err(invalid_key(detail));
        }
    };
    Ok(Key::new(bytes)?)
}

fn text(number: Option<Number>) -> Option<String> {
    number.map(|number| number.to_string())
}

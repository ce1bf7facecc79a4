//! POST /batch: many operations in one request, each with its own result.
//!
//! All of them begin in one turn of the worker, so their messages to a server share datagrams. They
//! are as independent of each other as separate requests, and run at once; but long values are written few
//! at a time, in turns by caller, so that nobody else's request waits for megabytes to be sent.

mod operations;
mod results;
mod writes;

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::Content;
use dkvs_common::trace::Trace;
use serde_json::Number;

use super::access::Caller;
use super::app::App;
use super::body::invalid_body;
use super::key_value::{invalid_key, invalid_value, value_too_large};
use super::operations::parameter::{CONSISTENCY, N, R, TAG, TIMEOUT_MS, W, WAIT};
use super::operations::{GET_PARAMETERS, Integer, Parameter, WRITE_PARAMETERS};
use super::parameters::{self, KeyParameters, Query};
use super::problem::{Problem, ProblemType};
use super::repeatable::{RepeatableRead, ReplyPart};
use super::{body, conditional, kv, trace};
use crate::tokens::Scope;
use operations::{BatchPut, Delete, Encoding, Get, Operation, parse};
use results::{of_problem, of_write, respond};
pub(super) use writes::batch_writes;

const BATCH_TOO_LARGE: ProblemType = ProblemType {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    name: "batch-too-large",
    title: "The batch is too large",
};

/// The longest body of a batch, in bytes, where the longest value has `value_bytes_max`.
const fn body_bytes_max(value_bytes_max: usize) -> usize {
    2 * value_bytes_max + BODY_BYTES_BESIDE
}

/// What the longest batch holds at a time, in bytes: its text, and what is copied out of it.
pub const fn batch_bytes_held(value_bytes_max: usize) -> usize {
    2 * body_bytes_max(value_bytes_max)
}

/// A batch that is longer than this takes a turn of its worker to be parsed, in bytes.
const PARSED_AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// What the body of a batch may take besides two values of the greatest length, in bytes: keys,
/// parameters, and many short values.
const BODY_BYTES_BESIDE: usize = 1 << 20;

pub(super) async fn batch(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (head, mut body) = request.into_parts();
    run(&app, &caller, &head, &mut body).await
}

async fn run(
    app: &App,
    caller: &Caller,
    head: &request::Parts,
    body: &mut Body,
) -> Result<Response<Body>, Problem> {
    let started = Instant::now();
    parameters::none(&head.uri)?;
    caller.may_read_or_write()?;
    body::check_coding(&head.headers)?;
    let client = &app.client;
    let memory = client.memory(caller.id());
    let bytes_max = body_bytes_max(client.value_bytes_max());
    let too_large = || batch_too_large(bytes_max);
    let text = body::read(&memory, body, bytes_max, too_large).await?;
    // For the strings that are copied out of the text.
    let parsed = memory.take(text.len())?;
    if text.len() > PARSED_AT_ONCE_BYTES_MAX {
        app.pace.long_work(caller.id()).await;
    }
    let operations = parse(&text).map_err(|error| not_a_batch(&error))?;
    drop(text);
    conditional::check_post(&head.headers)?;
    let context = BatchContext {
        app,
        caller,
        trace: trace::sampled(&head.headers),
    };
    let results = operations.into_iter().map(|one| result(context, one));
    let results = futures_util::future::join_all(results).await;
    drop(parsed);
    respond(app, caller.id(), results, started)
}

fn batch_too_large(bytes_max: usize) -> Problem {
    let detail = format!(
        "the batch is longer than {bytes_max} bytes, which is the limit here; send it in \
         parts, and long values by PUT"
    );
    Problem::new(&BATCH_TOO_LARGE, detail)
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

/// The result of an operation.
async fn result(context: BatchContext<'_>, operation: Operation) -> ReplyPart {
    match operation {
        Operation::Get(get) => match prepare(context, get) {
            Ok(read) => ReplyPart::read(context.app, read).await,
            Err(problem) => of_problem(problem).into(),
        },
        Operation::Put(put) => of_write(write(context, put).await),
        Operation::Delete(operation) => of_write(delete(context, operation).await),
    }
}

fn prepare(context: BatchContext<'_>, get: Get) -> Result<RepeatableRead, Problem> {
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
    Ok(results::read(key, parameters))
}

async fn write(context: BatchContext<'_>, put: BatchPut) -> Result<Bytes, Problem> {
    let (key, parameters) = change(context, put.change)?;
    let bytes: Bytes = match put.encoding {
        Encoding::Utf8 => put.value.into(),
        Encoding::Base64 => STANDARD
            .decode(put.value)
            .map_err(|error| invalid_value(format!("it is no base64: {error}")))?
            .into(),
    };
    let value_bytes_max = context.app.client.value_bytes_max();
    if bytes.len() > value_bytes_max {
        return Err(value_too_large(value_bytes_max));
    }
    let caller = context.caller.id();
    let length = bytes.len();
    let write = async {
        // A write goes on when its batch has gone.
        let bytes = context.app.client.memory(caller).hold(bytes)?;
        let content = Content::Value {
            content_type: kv::content_type_of(put.content_type.unwrap_or_default())?,
            value: Value::new(bytes).map_err(|_| value_too_large(value_bytes_max))?,
        };
        kv::write(context.app, &key, content, &parameters).await
    };
    writes::in_turn(&context.app.batch_writes, caller, length, write).await
}

async fn delete(context: BatchContext<'_>, delete: Delete) -> Result<Bytes, Problem> {
    let (key, parameters) = change(context, delete)?;
    kv::write(context.app, &key, Content::Tombstone, &parameters).await
}

/// The key and the parameters of an operation that writes.
fn change(context: BatchContext<'_>, change: Delete) -> Result<(Key, KeyParameters), Problem> {
    let fields = KeyFields {
        key: change.key,
        key_base64: change.key_base64,
        n: change.n,
        required: (&W, change.w),
        consistency: change.consistency,
        timeout_ms: change.timeout_ms,
        wait: change.wait,
        tag: change.tag,
    };
    fields.check(context, Scope::Write, WRITE_PARAMETERS)
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

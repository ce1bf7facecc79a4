//! POST /batch: many operations in one request, each with its own result.
//!
//! All of them are begun in one turn of the worker, so what they ask of a server shares datagrams.
//! They are as independent of each other as requests of their own would be, and run at once.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::Content;
use dkvs_common::trace::Trace;
use serde::Deserialize;
use serde_json::Number;

use super::access::{Caller, Scope};
use super::error::Problem;
use super::kv;
use super::params::{self, KvParameters, Query};
use super::report::micros;
use super::{App, READ, WRITE, body, trace};

/// Most operations in a batch.
pub(super) const OPERATIONS_MAX: usize = 128;

/// What the body of a batch may take beside two values of the greatest length, in bytes: keys,
/// parameters, and many short values.
const BODY_BYTES_BESIDE: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Get(Get),
    Put(Put),
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
struct Put {
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
        body::linger(&head.headers, body);
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
    params::none(&head.uri)?;
    let client = &app.0.client;
    let bytes_max = 2 * client.value_bytes_max() + BODY_BYTES_BESIDE;
    let too_large = || Problem::batch_too_large(bytes_max);
    let (text, _memory) = body::read(client, body, bytes_max, too_large).await?;
    let batch: BatchBody =
        serde_json::from_slice(&text).map_err(|error| Problem::no_batch(&error.to_string()))?;
    drop(text);
    let count = batch.operations.len();
    if !(1..=OPERATIONS_MAX).contains(&count) {
        return Err(Problem::no_batch(&format!(
            "it has {count} operations, and may have 1 to {OPERATIONS_MAX}"
        )));
    }
    let by = By {
        app,
        caller,
        trace: trace::sampled(&head.headers),
    };
    let results = batch.operations.into_iter();
    let results = futures_util::future::join_all(results.map(|one| result(by, one))).await;
    let mut text = b"{\"results\":[".to_vec();
    text.extend(results.join(&b','));
    text.extend(format!("],\"elapsed_us\":{}}}\n", micros(started.elapsed())).bytes());
    Ok(kv::json_text(HeaderMap::new(), text))
}

/// What the operations of a batch have in common.
#[derive(Clone, Copy)]
struct By<'a> {
    app: &'a App,
    caller: &'a Caller,
    trace: Option<Trace>,
}

/// The member of a batch's results that an operation comes to.
async fn result(by: By<'_>, operation: Operation) -> Vec<u8> {
    let (name, done) = match operation {
        Operation::Get(get) => ("read", read(by, get).await),
        Operation::Put(put) => ("write", write(by, put).await),
        Operation::Delete(delete) => ("write", erase(by, delete).await),
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

async fn read(by: By<'_>, get: Get) -> Result<Vec<u8>, Problem> {
    let common = Common {
        key: get.key,
        key_base64: get.key_base64,
        n: get.n,
        needed: ("r", get.r),
        consistency: get.consistency,
        timeout_ms: get.timeout_ms,
        wait: get.wait,
        tag: None,
    };
    let (key, parameters) = common.check(by, Scope::Read, READ)?;
    kv::read(by.app, &key, &parameters, |found| Ok(found.json(&key))).await
}

async fn write(by: By<'_>, put: Put) -> Result<Vec<u8>, Problem> {
    let common = Common {
        key: put.key,
        key_base64: put.key_base64,
        n: put.n,
        needed: ("w", put.w),
        consistency: put.consistency,
        timeout_ms: put.timeout_ms,
        wait: put.wait,
        tag: put.tag,
    };
    let (key, parameters) = common.check(by, Scope::Write, WRITE)?;
    let bytes: Bytes = match put.encoding {
        Encoding::Utf8 => put.value.into(),
        Encoding::Base64 => STANDARD
            .decode(put.value)
            .map_err(|error| Problem::invalid_value(format!("it is no base64: {error}")))?
            .into(),
    };
    let value_bytes_max = by.app.0.client.value_bytes_max();
    let value = Value::new(bytes)
        .ok()
        .filter(|value| value.len() <= value_bytes_max)
        .ok_or_else(|| Problem::value_too_large(value_bytes_max))?;
    let content = Content::Value {
        content_type: kv::content_type_of(put.content_type.unwrap_or_default())?,
        value,
    };
    kv::write(by.app, &key, content, &parameters).await
}

async fn erase(by: By<'_>, delete: Delete) -> Result<Vec<u8>, Problem> {
    let common = Common {
        key: delete.key,
        key_base64: delete.key_base64,
        n: delete.n,
        needed: ("w", delete.w),
        consistency: delete.consistency,
        timeout_ms: delete.timeout_ms,
        wait: delete.wait,
        tag: delete.tag,
    };
    let (key, parameters) = common.check(by, Scope::Write, WRITE)?;
    kv::write(by.app, &key, Content::Tombstone, &parameters).await
}

/// What an operation has whatever it is.
struct Common {
    key: Option<String>,
    key_base64: Option<String>,
    n: Option<Number>,
    /// `w` or `r`.
    needed: (&'static str, Option<Number>),
    consistency: Option<String>,
    timeout_ms: Option<Number>,
    wait: Option<String>,
    tag: Option<String>,
}

impl Common {
    /// The key, which the caller may read or write, and the parameters, of those that are `known`.
    fn check(
        self,
        by: By<'_>,
        scope: Scope,
        known: &[&str],
    ) -> Result<(Key, KvParameters), Problem> {
        let key = key(self.key, self.key_base64)?;
        by.caller.may(scope, Some(&key))?;
        let (needed_name, needed) = self.needed;
        let given = [
            ("n", text(self.n)),
            (needed_name, text(needed)),
            ("consistency", self.consistency),
            ("timeout_ms", text(self.timeout_ms)),
            ("wait", self.wait),
            ("tag", self.tag),
        ];
        let query = Query::given(given, known);
        let mut parameters = KvParameters::of(by.app, query, needed_name)?;
        parameters.wish.trace = by.trace;
        Ok((key, parameters))
    }
}

/// The key of an operation, of which it has one or the other.
fn key(key: Option<String>, key_base64: Option<String>) -> Result<Key, Problem> {
    let bytes: Bytes = match (key, key_base64) {
        (Some(key), None) => key.into(),
        (None, Some(key)) => STANDARD
            .decode(key)
            .map_err(|error| Problem::invalid_key(format!("`key_base64` is no base64: {error}")))?
            .into(),
        _ => {
            let detail = "an operation has either `key` or `key_base64`";
            return Err(Problem::invalid_key(detail.to_owned()));
        }
    };
    Ok(Key::new(bytes)?)
}

fn text(number: Option<Number>) -> Option<String> {
    number.map(|number| number.to_string())
}

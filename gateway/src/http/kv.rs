//! PUT, GET, HEAD and DELETE of /kv/{key}.

use std::borrow::Cow;
use std::future::ready;
use std::mem;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request,
};
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::read::{ReadOutcome, ReplicaStanding};
use dkvs_common::quorum::write::WriteOutcome;
use dkvs_common::record::{Content, ContentType};
use dkvs_common::tag::Tag;
use futures_util::future::Either;
use serde::Serialize;

use super::accept::{self, Form};
use super::conditional::{self, Part};
use super::error::Problem;
use super::params::KvParameters;
use super::report::{KeyText, ReadReport, ValueText, WriteReport, micros};
use super::{App, READ, WRITE, body, path, refusal, trace};
use dkvs_client::RequestOptions;
use dkvs_client::{ReadResult, WriteResult};

const PREFIX: &str = "/kv/";

/// Not an `async fn`, like the other handlers here: such a one keeps its request beside what it
/// makes of it, and the larger a future is, the more it costs to allocate.
pub(super) fn put(
    State(app): State<App>,
    request: Request<Body>,
) -> impl Future<Output = Answer> + Send {
    let (head, mut body) = request.into_parts();
    let asked = Put::parse(&app, &head);
    let headers = head.headers;
    let asked = match asked {
        Ok(asked) => asked,
        Err(problem) => {
            body::linger(&headers, body);
            return Either::Left(ready(Err(problem)));
        }
    };
    Either::Right(async move {
        let written = put_value(&app, &asked, &mut body).await;
        if written.is_err() {
            body::linger(&headers, body);
        }
        Ok(json_text(headers, written?))
    })
}

type Answer = Result<Response<Body>, Problem>;

/// The key that a request is about, and its parameters, of those that are `known`; `needed` is what
/// it calls its quorum.
fn key_and_parameters(
    app: &App,
    head: &request::Parts,
    known: &[&str],
    needed: &str,
) -> Result<(Key, KvParameters), Problem> {
    let key = path::key(&head.uri, PREFIX)?;
    let mut parameters = KvParameters::parse(app, &head.uri, known, needed)?;
    parameters.wish.trace = trace::sampled(&head.headers);
    Ok((key, parameters))
}

/// What the head of a PUT asks for.
struct Put {
    key: Key,
    parameters: KvParameters,
    content_type: ContentType,
}

impl Put {
    fn parse(app: &App, head: &request::Parts) -> Result<Self, Problem> {
        let (key, parameters) = key_and_parameters(app, head, WRITE, "w")?;
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.map_or(&[][..], HeaderValue::as_bytes);
        Ok(Self {
            key,
            parameters,
            content_type: content_type_of(Bytes::copy_from_slice(content_type))?,
        })
    }
}

async fn put_value(app: &App, asked: &Put, body: &mut Body) -> Result<Vec<u8>, Problem> {
    let client = &app.0.client;
    let value_bytes_max = client.value_bytes_max();
    let too_large = || Problem::value_too_large(value_bytes_max);
    let (value, _memory) = body::read(client, body, value_bytes_max, too_large).await?;
    let content = Content::Value {
        content_type: asked.content_type.clone(),
        value: Value::new(value).map_err(|_| too_large())?,
    };
    write(app, &asked.key, content, &asked.parameters).await
}

pub(super) fn delete(
    State(app): State<App>,
    request: Request<Body>,
) -> impl Future<Output = Answer> + Send {
    let (head, _) = request.into_parts();
    let (key, parameters) = match key_and_parameters(&app, &head, WRITE, "w") {
        Ok(asked) => asked,
        Err(problem) => return Either::Left(ready(Err(problem))),
    };
    Either::Right(async move {
        let written = write(&app, &key, Content::Tombstone, &parameters).await?;
        Ok(json_text(head.headers, written))
    })
}

/// Writes; gives what it came to as JSON.
pub(super) fn write(
    app: &App,
    key: &Key,
    content: Content,
    parameters: &KvParameters,
) -> impl Future<Output = Result<Vec<u8>, Problem>> {
    let started = Instant::now();
    let KvParameters { wish, tag, .. } = parameters;
    let client = &app.0.client;
    let written = client.write(key, content.clone(), *tag, *wish);
    async move {
        let written = written.await?;
        let elapsed_us = micros(started.elapsed());
        tell_written(key, &content, wish, &written, elapsed_us)
    }
}

/// What a write came to.
fn tell_written(
    key: &Key,
    content: &Content,
    wish: &RequestOptions,
    written: &WriteResult,
    elapsed_us: u64,
) -> Result<Vec<u8>, Problem> {
    let report = WriteReport::new(written);
    match written.write.outcome() {
        Some(WriteOutcome::Committed) => Ok(text(&WriteBody {
            key: KeyText::new(key),
            report,
            elapsed_us,
        })),
        Some(WriteOutcome::Refused) => {
            let refusals: Vec<Refusal> = written.write.refusals().collect();
            Err(match refusal::in_force(&refusals, wish.quorum) {
                Some(Refusal::NotV2) if wish.insists_on_tags() => {
                    Problem::no_tags(None).with(report)
                }
                Some(refusal) => Problem::write_refused(refusal, (key, Some(content)), report),
                None => Problem::write_unreachable(report),
            })
        }
        Some(WriteOutcome::Superseded) => {
            Err(Problem::superseded(written.write.is_resubmission(), report))
        }
        Some(WriteOutcome::Unreachable) => Err(Problem::write_unreachable(report)),
        Some(WriteOutcome::TimedOut) | None => Err(Problem::write_timeout(report)),
    }
}

pub(super) fn content_type_of(given: impl Into<Bytes>) -> Result<ContentType, Problem> {
    ContentType::new(given).map_err(|error| Problem::invalid_value(error.to_string()))
}

#[derive(Serialize)]
struct WriteBody<'a> {
    #[serde(flatten)]
    key: KeyText<'a>,
    #[serde(flatten)]
    report: WriteReport<'a>,
    elapsed_us: u64,
}

/// GET, and HEAD with it: the body of a HEAD is taken off further out.
pub(super) fn get(
    State(app): State<App>,
    request: Request<Body>,
) -> impl Future<Output = Answer> + Send {
    // The parts as they are: extracted one by one, the headers would be copied.
    let (head, _) = request.into_parts();
    let asked = match Get::parse(&app, head) {
        Ok(asked) => asked,
        Err(problem) => return Either::Left(ready(Err(problem))),
    };
    Either::Right(async move {
        let mut headers = asked.headers;
        let show = |found: Found<'_>| {
            let (tag, size) = (found.report.tag, found.value.len());
            let mut response = match asked.form {
                _ if tag.is_some_and(|tag| conditional::is_held(&headers, tag)) => {
                    not_modified(&found.report)
                }
                Form::Json => json_text(mem::take(&mut headers), found.json(&asked.key)),
                // Of a HEAD there are no parts.
                Form::Raw if asked.is_head => found.raw(Part::Whole)?,
                Form::Raw => found.raw(conditional::part(&headers, tag, size))?,
            };
            name_version(response.headers_mut(), tag, asked.form);
            Ok(response)
        };
        read(&app, &asked.key, &asked.parameters, show).await
    })
}

/// What a GET asks for.
struct Get {
    key: Key,
    parameters: KvParameters,
    form: Form,
    is_head: bool,
    headers: HeaderMap,
}

impl Get {
    fn parse(app: &App, head: request::Parts) -> Result<Self, Problem> {
        let (key, parameters) = key_and_parameters(app, &head, READ, "r")?;
        let form = if parameters.raw {
            Form::Raw
        } else {
            accept::form(&head.headers).ok_or_else(Problem::not_acceptable)?
        };
        Ok(Self {
            key,
            parameters,
            form,
            is_head: head.method == Method::HEAD,
            headers: head.headers,
        })
    }
}

/// Reads; gives what `show` makes of the value.
pub(super) fn read<R>(
    app: &App,
    key: &Key,
    parameters: &KvParameters,
    show: impl FnOnce(Found<'_>) -> Result<R, Problem>,
) -> impl Future<Output = Result<R, Problem>> {
    let started = Instant::now();
    let wish = &parameters.wish;
    let client = &app.0.client;
    let read = client.read(key, *wish);
    async move {
        let read = read.await?;
        tell_read(key, wish, &read, started, show)
    }
}

/// What a read came to.
fn tell_read<R>(
    key: &Key,
    wish: &RequestOptions,
    result: &ReadResult,
    started: Instant,
    show: impl FnOnce(Found<'_>) -> Result<R, Problem>,
) -> Result<R, Problem> {
    let ReadResult { read, view } = result;
    // So it is told, too, if it ended before it could tell for that reason.
    let outcome = match read.has_met_v1() {
        true => Some(&ReadOutcome::CameByV1),
        false => read.outcome(),
    };
    let tag = match outcome {
        Some(ReadOutcome::Found(_, version)) => version.tag,
        Some(ReadOutcome::Absent) => read.tombstone(),
        _ => None,
    };
    let report = ReadReport::new(view, key, read, tag);
    match outcome {
        Some(ReadOutcome::Found(value, version)) => show(Found {
            value,
            content_type: version.content_type.as_bytes(),
            report,
            elapsed_us: micros(started.elapsed()),
        }),
        Some(ReadOutcome::Absent) => Err(Problem::key_not_found(report)),
        Some(ReadOutcome::CameByV1) => Err(Problem::came_by_v1().with(report)),
        Some(ReadOutcome::Disagree) => Err(Problem::replicas_disagree(report)),
        Some(ReadOutcome::Unreachable) => {
            let replicas = read.replicas().iter();
            let refusals = replicas.filter_map(|replica| match read.standing(replica) {
                ReplicaStanding::Refused(refusal) => Some(refusal),
                _ => None,
            });
            let refusals: Vec<Refusal> = refusals.collect();
            let about_key = refusals
                .iter()
                .copied()
                .filter(|it| refusal::is_about_key(*it));
            let about_key: Vec<Refusal> = about_key.collect();
            Err(match refusal::in_force(&about_key, wish.quorum) {
                Some(refusal) => Problem::not_carried(refusal, key, None).with(report),
                None if refusals.contains(&Refusal::NotV2) && wish.insists_on_tags() => {
                    Problem::no_tags(None).with(report)
                }
                None => Problem::read_unreachable(report),
            })
        }
        Some(ReadOutcome::TimedOut) | None => Err(Problem::read_timeout(report)),
    }
}

/// A value that was read, and what the replicas said.
pub(super) struct Found<'a> {
    value: &'a Value,
    content_type: &'a [u8],
    report: ReadReport<'a>,
    elapsed_us: u64,
}

#[derive(Serialize)]
struct GetBody<'a> {
    #[serde(flatten)]
    key: KeyText<'a>,
    #[serde(flatten)]
    value: ValueText<'a>,
    content_type: Option<Cow<'a, str>>,
    #[serde(flatten)]
    report: ReadReport<'a>,
    elapsed_us: u64,
}

impl Found<'_> {
    /// The whole of it as JSON.
    pub(super) fn json(self, key: &Key) -> Vec<u8> {
        let content_type = self.content_type;
        text(&GetBody {
            key: KeyText::new(key),
            value: ValueText::new(self.value),
            content_type: (!content_type.is_empty()).then(|| String::from_utf8_lossy(content_type)),
            report: self.report,
            elapsed_us: self.elapsed_us,
        })
    }

    /// The value's bytes, or some of them. The value may be someone else's HTML, so browsers are
    /// told to run nothing in it.
    fn raw(self, part: Part) -> Result<Response<Body>, Problem> {
        let bytes = self.value.clone().into_bytes();
        let size = bytes.len();
        let mut response = match part {
            Part::Whole => Response::new(Body::from(bytes)),
            Part::Bytes(range) => {
                let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let mut response = Response::new(Body::from(bytes.slice(range)));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                if let Ok(told) = HeaderValue::try_from(told) {
                    response.headers_mut().insert(header::CONTENT_RANGE, told);
                }
                response
            }
            Part::None => return Err(Problem::no_such_range(size)),
        };
        let headers = response.headers_mut();
        let fixed = [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; sandbox",
            ),
            (header::ACCEPT_RANGES, "bytes"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let stored = HeaderValue::from_bytes(self.content_type)
            .ok()
            .filter(|stored| !stored.is_empty());
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(header::CONTENT_TYPE, stored.unwrap_or(octets));
        diagnose(headers, &self.report);
        Ok(response)
    }
}

/// Which version this is, in which form. Without more, nobody uses it again unasked.
fn name_version(headers: &mut HeaderMap, tag: Option<Tag>, form: Form) {
    if let Some(tag) = tag {
        headers.insert(header::ETAG, conditional::entity_tag(tag, form));
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
}

/// The caller has it already.
fn not_modified(report: &ReadReport<'_>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    diagnose(response.headers_mut(), report);
    response
}

/// What the JSON would have said of the read.
fn diagnose(headers: &mut HeaderMap, report: &ReadReport<'_>) {
    const CONSISTENCY: HeaderName = HeaderName::from_static("dkvs-consistency");
    const QUORUM: HeaderName = HeaderName::from_static("dkvs-quorum");
    const TAG: HeaderName = HeaderName::from_static("dkvs-tag");
    const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

    let quorum = &report.quorum;
    let quorum = format!(
        "n={}, r={}, agreeing={}",
        quorum.n, quorum.r, quorum.agreeing
    );
    let replicas = report.replicas.iter().enumerate();
    let timing: Vec<String> = replicas
        .map(|(number, replica)| replica.server_timing(number))
        .collect();

    headers.insert(CONSISTENCY, HeaderValue::from_static(report.consistency));
    let texts = [
        (QUORUM, Some(quorum)),
        (SERVER_TIMING, Some(timing.join(", "))),
        (TAG, report.tag.map(|tag| tag.to_string())),
    ];
    for (name, text) in texts {
        if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
}

/// What the report on a small value takes.
const JSON_BYTES_USUAL: usize = 1_024;

/// Headers that a reply has when it leaves.
const HEADERS_USUAL: usize = 9;

/// A JSON document and a line end, which a terminal is glad of.
pub(super) fn json(document: &impl Serialize) -> Response<Body> {
    json_text(HeaderMap::with_capacity(HEADERS_USUAL), text(document))
}

/// The same of one that is text already. `map` may hold the request's headers, which are taken out
/// of it: it has room for the reply's.
pub(super) fn json_text(mut map: HeaderMap, text: Vec<u8>) -> Response<Body> {
    map.clear();
    let json = HeaderValue::from_static("application/json");
    map.insert(header::CONTENT_TYPE, json);
    let mut response = Response::new(Body::from(text));
    *response.headers_mut() = map;
    response
}

fn text(document: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(JSON_BYTES_USUAL);
    serde_json::to_writer(&mut text, document)
        .expect("reports have string keys and no failing parts");
    text.push(b'\n');
    text
}

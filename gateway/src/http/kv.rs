//! PUT, GET, HEAD and DELETE of /kv/{key}.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, request};
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::read::{ReadOutcome, Standing};
use dkvs_common::quorum::write::WriteOutcome;
use dkvs_common::quorum::{Refusal, Version};
use dkvs_common::record::{Content, ContentType};
use http_body_util::BodyExt as _;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::accept::{self, Form};
use super::error::Problem;
use super::params::KvParameters;
use super::report::{KeyText, ReadReport, ValueText, WriteReport, micros};
use super::{App, READ, WRITE, path};
use crate::coordinator::Coordinator;

const PREFIX: &str = "/kv/";

/// How long the body of a request may make no progress.
const BODY_PROGRESS: Duration = Duration::from_secs(10);

/// For how long, and for how many bytes, a body is read on after it was refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 << 20;

pub(super) async fn put(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (head, mut body) = request.into_parts();
    let put = put_value(&app, &head, &mut body).await;
    // A caller who waits to be asked for the body is not asked for it any more.
    if put.is_err() && !head.headers.contains_key(header::EXPECT) {
        tokio::spawn(linger(body));
    }
    put
}

async fn put_value(
    app: &App,
    head: &request::Parts,
    body: &mut Body,
) -> Result<Response<Body>, Problem> {
    let key = path::key(&head.uri, PREFIX)?;
    let parameters = KvParameters::parse(app, &head.uri, WRITE, "w")?;
    let content_type = content_type(&head.headers)?;
    let coordinator = &app.0.coordinator;
    let (value, _memory) = read_value(coordinator, body).await?;
    let content = Content::Value {
        content_type,
        value,
    };
    write(app, &key, content, &parameters).await
}

pub(super) async fn delete(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    let key = path::key(&uri, PREFIX)?;
    let parameters = KvParameters::parse(&app, &uri, WRITE, "w")?;
    write(&app, &key, Content::Tombstone, &parameters).await
}

async fn write(
    app: &App,
    key: &Key,
    content: Content,
    parameters: &KvParameters,
) -> Result<Response<Body>, Problem> {
    let started = Instant::now();
    let KvParameters { wish, tag, .. } = *parameters;
    let coordinator = &app.0.coordinator;
    let written = coordinator.write(key, content.clone(), tag, wish).await?;
    let report = WriteReport::new(coordinator.shared(), &written);
    match written.write.outcome() {
        Some(WriteOutcome::Committed) => Ok(json(&WriteBody {
            key: KeyText::new(key),
            report,
            elapsed_us: micros(started.elapsed()),
        })),
        Some(WriteOutcome::Refused) => Err(match most_common(written.write.refusals()) {
            Some(Refusal::Unrepresentable) => {
                Problem::from(coordinator.unrepresentable(key, Some(&content))).with(report)
            }
            Some(Refusal::NotV2) if wish.insists_on_tags() => Problem::no_tags(None).with(report),
            Some(refusal) => Problem::write_refused(refusal, report),
            None => Problem::write_unreachable(report),
        }),
        Some(WriteOutcome::Superseded) => Err(Problem::superseded(report)),
        Some(WriteOutcome::Unreachable) => Err(Problem::write_unreachable(report)),
        Some(WriteOutcome::TimedOut) | None => Err(Problem::write_timeout(report)),
    }
}

/// The reason that most replicas gave; the first of them among equals.
fn most_common(refusals: impl Iterator<Item = Refusal>) -> Option<Refusal> {
    let refusals: Vec<Refusal> = refusals.collect();
    let count = |refusal: &&Refusal| refusals.iter().filter(|other| other == refusal).count();
    // `max_by_key` takes the last among equals.
    refusals.iter().rev().max_by_key(count).copied()
}

fn content_type(headers: &HeaderMap) -> Result<ContentType, Problem> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.map_or(&[][..], HeaderValue::as_bytes);
    ContentType::new(Bytes::copy_from_slice(given))
        .map_err(|error| Problem::invalid_value(error.to_string()))
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
pub(super) async fn get(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let key = path::key(&uri, PREFIX)?;
    let parameters = KvParameters::parse(&app, &uri, READ, "r")?;
    let form = if parameters.raw {
        Form::Raw
    } else {
        accept::form(&headers).ok_or_else(Problem::not_acceptable)?
    };

    let started = Instant::now();
    let coordinator = &app.0.coordinator;
    let read = coordinator.read(&key, parameters.wish).await?;
    let outcome = read.outcome();
    let tag = match outcome {
        Some(ReadOutcome::Found(_, version)) => version.tag,
        Some(ReadOutcome::Absent) => read.tombstone(),
        _ => None,
    };
    let report = ReadReport::new(coordinator.shared(), &read, tag);
    match outcome {
        Some(ReadOutcome::Found(value, version)) => {
            let elapsed_us = micros(started.elapsed());
            Ok(match form {
                Form::Json => found_json(&key, value, version, report, elapsed_us),
                Form::Raw => found_raw(value, version, &report),
            })
        }
        Some(ReadOutcome::Absent) => Err(Problem::key_not_found(report)),
        Some(ReadOutcome::Disagree) => Err(Problem::replicas_disagree(report)),
        Some(ReadOutcome::Unreachable) => {
            let has_refused = |refusal| {
                let mut replicas = read.replicas().iter();
                replicas.any(|replica| read.standing(replica) == Standing::Refused(refusal))
            };
            Err(if has_refused(Refusal::Unrepresentable) {
                Problem::from(coordinator.unrepresentable(&key, None)).with(report)
            } else if has_refused(Refusal::NotV2) && parameters.wish.insists_on_tags() {
                Problem::no_tags(None).with(report)
            } else {
                Problem::read_unreachable(report)
            })
        }
        Some(ReadOutcome::TimedOut) | None => Err(Problem::read_timeout(report)),
    }
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

fn found_json(
    key: &Key,
    value: &Value,
    version: &Version,
    report: ReadReport<'_>,
    elapsed_us: u64,
) -> Response<Body> {
    let content_type = version.content_type.as_bytes();
    json(&GetBody {
        key: KeyText::new(key),
        value: ValueText::new(value),
        content_type: (!content_type.is_empty()).then(|| String::from_utf8_lossy(content_type)),
        report,
        elapsed_us,
    })
}

/// The value's bytes, the diagnostics in headers. The value may be someone else's HTML, so
/// browsers are told to run nothing in it.
fn found_raw(value: &Value, version: &Version, report: &ReadReport<'_>) -> Response<Body> {
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

    let mut response = Response::new(Body::from(value.clone().into_bytes()));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value))
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    set(CONSISTENCY, report.consistency);
    let stored = version.content_type.as_bytes();
    let stored = HeaderValue::from_bytes(stored)
        .ok()
        .filter(|stored| !stored.is_empty());
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, stored.unwrap_or(octets));
    let texts = [
        (QUORUM, Some(quorum)),
        (SERVER_TIMING, Some(timing.join(", "))),
        (TAG, version.tag.map(|tag| tag.to_string())),
    ];
    for (name, text) in texts {
        if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    response
}

/// What the report on a small value takes.
const JSON_BYTES_USUAL: usize = 1_024;

/// A JSON document and a line end, which a terminal is glad of.
pub(super) fn json(document: &impl Serialize) -> Response<Body> {
    let mut text = Vec::with_capacity(JSON_BYTES_USUAL);
    serde_json::to_writer(&mut text, document)
        .expect("reports have string keys and no failing parts");
    text.push(b'\n');
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], text).into_response()
}

/// The body, refused as soon as it is known to be longer than what may be put, or when there is no
/// memory for it. The permit stands for that memory.
async fn read_value(
    coordinator: &Coordinator,
    body: &mut Body,
) -> Result<(Value, Option<OwnedSemaphorePermit>), Problem> {
    let value_bytes_max = coordinator.value_bytes_max();
    let too_large = || Problem::value_too_large(value_bytes_max);
    let announced = http_body::Body::size_hint(body).lower();
    if announced > value_bytes_max as u64 {
        return Err(too_large());
    }
    let mut memory: Option<OwnedSemaphorePermit> = None;
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_PROGRESS, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Problem::body_timeout(BODY_PROGRESS.as_secs()))? else {
            break;
        };
        let frame: Bytes = frame
            .map_err(|_| Problem::body_broken())?
            .into_data()
            .unwrap_or_default();
        if bytes.len() + frame.len() > value_bytes_max {
            return Err(too_large());
        }
        if bytes.is_empty() && frame.len() as u64 == announced {
            // All of it, as it is.
            let memory = take_memory(coordinator, frame.len(), 0, memory);
            let memory = memory.map_err(|Full| Problem::no_memory())?;
            let value = Value::new(frame).map_err(|_| too_large())?;
            return Ok((value, memory));
        }
        if bytes.capacity() < bytes.len() + frame.len() {
            let wanted = (announced as usize)
                .max(2 * bytes.capacity())
                .max(frame.len())
                .min(value_bytes_max);
            memory = match take_memory(coordinator, wanted, bytes.capacity(), memory) {
                Ok(memory) => memory,
                Err(Full) => return Err(Problem::no_memory()),
            };
            bytes.reserve(wanted - bytes.len());
        }
        bytes.extend_from_slice(&frame);
    }
    let value = Value::new(bytes.freeze()).map_err(|_| too_large())?;
    Ok((value, memory))
}

/// Values that are longer than this, in bytes, count against the memory for long ones.
const LONG: usize = 32 << 10;

struct Full;

/// Makes the permit one for `wanted` bytes, `held` of which it stands for already.
fn take_memory(
    coordinator: &Coordinator,
    wanted: usize,
    held: usize,
    memory: Option<OwnedSemaphorePermit>,
) -> Result<Option<OwnedSemaphorePermit>, Full> {
    if wanted <= LONG {
        return Ok(memory);
    }
    let more = if memory.is_some() {
        wanted - held
    } else {
        wanted
    };
    let more = coordinator.take_memory(more).ok_or(Full)?;
    Ok(Some(match memory {
        Some(mut memory) => {
            memory.merge(more);
            memory
        }
        None => more,
    }))
}

/// Reads on in a body that was refused, for a while, so that the caller gets to read the answer:
/// closing a connection with unread bytes would take the answer back.
async fn linger(mut body: Body) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.into_data().map_or(0, |data| data.len());
            if read > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    // Past it the connection is closed.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// The same of a whole request, as far as it has a body and its caller sends that unasked.
pub(super) fn linger_in<B>(request: Request<B>)
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    let (head, body) = request.into_parts();
    if !body.is_end_stream() && !head.headers.contains_key(header::EXPECT) {
        tokio::spawn(linger(Body::new(body)));
    }
}

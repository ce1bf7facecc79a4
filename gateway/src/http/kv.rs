//! PUT, GET and HEAD of /kv/{key}.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, header};
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::read::ReadOutcome;
use dkvs_common::quorum::write::WriteOutcome;
use dkvs_common::wire::v1;
use http_body_util::BodyExt as _;
use serde::Serialize;

use super::accept::{self, Form};
use super::error::Problem;
use super::params::KvParameters;
use super::report::{KeyText, ReadReport, ValueText, WriteReport, micros};
use super::{App, READ, WRITE, path};

const PREFIX: &str = "/kv/";

/// How long the body of a request may make no progress.
const BODY_PROGRESS: Duration = Duration::from_secs(10);

/// For how long, and for how many bytes, a body is read on after it was refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 << 20;

pub(super) async fn put(
    State(app): State<App>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (head, mut body) = request.into_parts();
    let put = put_value(&app, &head.uri, &mut body).await;
    // A caller who waits to be asked for the body is not asked for it any more.
    if put.is_err() && !head.headers.contains_key(header::EXPECT) {
        tokio::spawn(linger(body));
    }
    put
}

async fn put_value(app: &App, uri: &Uri, body: &mut Body) -> Result<Response<Body>, Problem> {
    let key = path::key(uri, PREFIX)?;
    let parameters = KvParameters::parse(app, uri, WRITE, "w")?;
    let value = read_value(body, v1::KEY_OR_VALUE_BYTES_MAX).await?;

    let started = Instant::now();
    let KvParameters {
        quorum,
        timeout,
        wait,
        ..
    } = parameters;
    let coordinator = &app.0.coordinator;
    let write = coordinator
        .write(&key, &value, quorum, timeout, wait)
        .await?;
    let report = WriteReport::new(&coordinator.shared().cluster, &write);
    match write.outcome() {
        Some(WriteOutcome::Committed) => Ok(json(&PutBody {
            key: KeyText::new(&key),
            report,
            elapsed_us: micros(started.elapsed()),
        })),
        Some(WriteOutcome::Refused) => Err(Problem::storage_full(report)),
        Some(WriteOutcome::Unreachable) => Err(Problem::write_unreachable(report)),
        Some(WriteOutcome::TimedOut) | None => Err(Problem::write_timeout(report)),
    }
}

#[derive(Serialize)]
struct PutBody<'a> {
    #[serde(flatten)]
    key: KeyText<'a>,
    #[serde(flatten)]
    report: WriteReport,
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
    let KvParameters {
        quorum,
        timeout,
        wait,
        ..
    } = parameters;
    let coordinator = &app.0.coordinator;
    let read = coordinator.read(&key, quorum, timeout, wait).await?;
    let report = ReadReport::new(&coordinator.shared().cluster, &read);
    match read.outcome() {
        Some(ReadOutcome::Found(value)) => {
            let elapsed_us = micros(started.elapsed());
            Ok(match form {
                Form::Json => found_json(&key, value, report, elapsed_us),
                Form::Raw => found_raw(value, &report),
            })
        }
        Some(ReadOutcome::Absent) => Err(Problem::key_not_found(report)),
        Some(ReadOutcome::Disagree) => Err(Problem::replicas_disagree(report)),
        Some(ReadOutcome::Unreachable) => Err(Problem::read_unreachable(report)),
        Some(ReadOutcome::TimedOut) | None => Err(Problem::read_timeout(report)),
    }
}

#[derive(Serialize)]
struct GetBody<'a> {
    #[serde(flatten)]
    key: KeyText<'a>,
    #[serde(flatten)]
    value: ValueText<'a>,
    /// DKVS/1 has no place for it.
    content_type: Option<&'a str>,
    #[serde(flatten)]
    report: ReadReport,
    elapsed_us: u64,
}

fn found_json(key: &Key, value: &Value, report: ReadReport, elapsed_us: u64) -> Response<Body> {
    json(&GetBody {
        key: KeyText::new(key),
        value: ValueText::new(value),
        content_type: None,
        report,
        elapsed_us,
    })
}

/// The value's bytes, the diagnostics in headers. The value may be someone else's HTML, so
/// browsers are told to run nothing in it.
fn found_raw(value: &Value, report: &ReadReport) -> Response<Body> {
    const CONSISTENCY: HeaderName = HeaderName::from_static("dkvs-consistency");
    const QUORUM: HeaderName = HeaderName::from_static("dkvs-quorum");
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
    set(header::CONTENT_TYPE, "application/octet-stream");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    set(CONSISTENCY, report.consistency);
    for (name, text) in [(QUORUM, quorum), (SERVER_TIMING, timing.join(", "))] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    response
}

/// A JSON document and a line end, which a terminal is glad of.
pub(super) fn json(document: &impl Serialize) -> Response<Body> {
    let mut text =
        serde_json::to_vec(document).expect("reports have string keys and no failing parts");
    text.push(b'\n');
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], text).into_response()
}

/// The body, refused as soon as it is known to be longer than `value_bytes_max`.
async fn read_value(body: &mut Body, value_bytes_max: usize) -> Result<Value, Problem> {
    let too_large = || Problem::value_too_large(value_bytes_max);
    let announced = http_body::Body::size_hint(body).lower();
    if announced > value_bytes_max as u64 {
        return Err(too_large());
    }
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
        bytes.extend_from_slice(&frame);
    }
    Value::new(bytes.freeze()).map_err(|_| too_large())
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

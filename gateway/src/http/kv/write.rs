//! Writes of keys: PUT and DELETE, and those of a batch.

use std::future::ready;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, header, request};
use bytes::Bytes;
use dkvs_client::{RequestOptions, UNCOUNTED_BYTES_MAX, WriteResult};
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::write::WriteOutcome;
use dkvs_common::record::{Content, ContentType};
use futures_util::future::Either;

use super::request::{content_type_of, key_and_parameters};
use super::{refusal, write_problem};
use crate::http::app::App;
use crate::http::client_error::no_tags;
use crate::http::json::{json_text, object_text, report_bytes_max};
use crate::http::key_value::{invalid_value, value_too_large};
use crate::http::operations::WRITE_PARAMETERS;
use crate::http::operations::parameter::W;
use crate::http::parameters::KeyParameters;
use crate::http::problem::Problem;
use crate::http::report::{WriteReport, micros, write_key};
use crate::http::{body, conditional};

/// Not an `async fn`, like the other handlers here: that would keep the request as well as what it
/// parses from it, and a larger future costs more to allocate.
pub(in crate::http) fn put(
    State(app): State<App>,
    request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Problem>> + Send {
    let (head, mut body) = request.into_parts();
    let wanted = PutRequest::parse(&app, &head);
    let headers = head.headers;
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(problem) => return Either::Left(ready(Err(problem))),
    };
    Either::Right(async move {
        let written = put_value(&app, &wanted, &mut body).await?;
        Ok(json_text(headers, written))
    })
}

/// What the head of a PUT asks for.
struct PutRequest {
    key: Key,
    parameters: KeyParameters,
    content_type: ContentType,
}

impl PutRequest {
    fn parse(app: &App, head: &request::Parts) -> Result<Self, Problem> {
        let (key, parameters) = key_and_parameters(&app.defaults(), head, WRITE_PARAMETERS, &W)?;
        conditional::check_write(&head.headers)?;
        body::check_whole(&head.headers)?;
        body::check_coding(&head.headers)?;
        let mut given = head.headers.get_all(header::CONTENT_TYPE).iter();
        let content_type = given.next().map_or(&[][..], HeaderValue::as_bytes);
        if given.next().is_some() {
            return Err(invalid_value("there is more than one Content-Type"));
        }
        Ok(Self {
            key,
            parameters,
            content_type: content_type_of(Bytes::copy_from_slice(content_type))?,
        })
    }
}

async fn put_value(app: &App, wanted: &PutRequest, body: &mut Body) -> Result<Bytes, Problem> {
    let value_bytes_max = app.client.value_bytes_max();
    let too_large = || value_too_large(value_bytes_max);
    let memory = app.client.memory(wanted.parameters.options.caller);
    let value = body::read(&memory, body, value_bytes_max, too_large).await?;
    let content = Content::Value {
        content_type: wanted.content_type.clone(),
        value: Value::new(value).map_err(|_| too_large())?,
    };
    write(app, &wanted.key, content, &wanted.parameters).await
}

pub(in crate::http) fn delete(
    State(app): State<App>,
    request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Problem>> + Send {
    let (head, _) = request.into_parts();
    let wanted = key_and_parameters(&app.defaults(), &head, WRITE_PARAMETERS, &W);
    let checked = wanted.and_then(|wanted| {
        conditional::check_write(&head.headers)?;
        Ok(wanted)
    });
    let (key, parameters) = match checked {
        Ok(wanted) => wanted,
        Err(problem) => return Either::Left(ready(Err(problem))),
    };
    Either::Right(async move {
        let written = write(&app, &key, Content::Tombstone, &parameters).await?;
        Ok(json_text(head.headers, written))
    })
}

/// Writes, and returns the report on the write as JSON. A long report holds the memory that it takes.
/// Without that, nothing is sent.
pub(in crate::http) fn write(
    app: &App,
    key: &Key,
    content: Content,
    parameters: &KeyParameters,
) -> impl Future<Output = Result<Bytes, Problem>> {
    let started = Instant::now();
    let KeyParameters { options, tag, .. } = parameters;
    let client = &app.client;
    let bytes = report_bytes_max(key, options.quorum.n());
    let permit = (bytes > UNCOUNTED_BYTES_MAX).then(|| client.memory(options.caller).take(bytes));
    let begun = permit.transpose().map(|permit| {
        let written = client.write(key, content.clone(), *tag, *options);
        (permit, written)
    });
    async move {
        let (permit, written) = begun?;
        let written = written.await?;
        let elapsed_us = micros(started.elapsed());
        let report: Bytes = conclude(key, &content, options, &written, elapsed_us)?.into();
        Ok(match permit {
            Some(permit) => permit.hold(report),
            None => report,
        })
    }
}

/// The report on a write that succeeded, or the problem of one that did not.
fn conclude(
    key: &Key,
    content: &Content,
    options: &RequestOptions,
    written: &WriteResult,
    elapsed_us: u64,
) -> Result<Vec<u8>, Problem> {
    let report = WriteReport::new(written);
    match written.write.outcome() {
        Some(WriteOutcome::Committed) => Ok(object_text(|object| {
            write_key(object, key);
            report.write(object);
            object.number("elapsed_us", elapsed_us);
        })),
        Some(WriteOutcome::Refused) => {
            let refusals: Vec<Refusal> = written.write.refusals().collect();
            Err(match refusal::in_force(&refusals, options.quorum) {
                Some(Refusal::NotV2) if options.insists_on_tags() => {
                    no_tags(None).with_members(|object| report.write(object))
                }
                Some(refusal) => write_problem::refused(refusal, (key, content), report),
                None => write_problem::unreachable(report),
            })
        }
        Some(WriteOutcome::Superseded) => Err(write_problem::superseded(
            written.write.is_resubmission(),
            report,
        )),
        Some(WriteOutcome::Unreachable) => Err(write_problem::unreachable(report)),
        Some(WriteOutcome::TimedOut) | None => Err(write_problem::timed_out(report)),
    }
}

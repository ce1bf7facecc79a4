//! Reads of keys: GET and HEAD, and those of a batch.

use std::future::ready;
use std::mem;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, request};
use dkvs_client::{ReadResult, RequestOptions, UNCOUNTED_BYTES_MAX};
use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::read::{Read, ReadOutcome, ReplicaStanding};
use futures_util::future::Either;

use super::found::{Found, name_version};
use super::request::key_and_parameters;
use super::{read_problem, refusal};
use crate::http::accept::{self, Form};
use crate::http::app::App;
use crate::http::client_error::{no_memory_for_reply, no_tags};
use crate::http::conditional::{self, Verdict};
use crate::http::json::json_of;
use crate::http::operations::GET_PARAMETERS;
use crate::http::operations::parameter::R;
use crate::http::parameters::KeyParameters;
use crate::http::problem::Problem;
use crate::http::ranges::{self, Part};
use crate::http::report::{ReadReport, micros};

/// GET and HEAD. The connection drops the body of a HEAD.
pub(in crate::http) fn get(
    State(app): State<App>,
    request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Problem>> + Send {
    // Takes the parts as a whole: extractors would copy the headers.
    let (head, _) = request.into_parts();
    let wanted = match GetRequest::parse(&app, head) {
        Ok(wanted) => wanted,
        Err(problem) => return Either::Left(ready(Err(problem))),
    };
    Either::Right(async move {
        let mut headers = wanted.headers;
        let caller = wanted.parameters.options.caller;
        let has_tokens = app.gate.has_tokens();
        let show = |found: Found<'_>| {
            let form = match wanted.is_raw {
                true => Some(Form::Raw),
                false => accept::form(&headers, found.content_type),
            };
            let form = form.ok_or_else(not_acceptable)?;
            let (tag, size) = (found.tag(), found.size());
            let mut response = match conditional::judge_version(&headers, tag, form) {
                Verdict::Failed => return Err(found.precondition_failed()),
                Verdict::NotModified => found.not_modified(form),
                Verdict::Proceed => match form {
                    Form::Json => {
                        let json = found.json(&wanted.key, UNCOUNTED_BYTES_MAX);
                        json_of((&app.client, caller), mem::take(&mut headers), json)?
                    }
                    // A HEAD has no parts.
                    Form::Raw if wanted.is_head => found.raw(Part::Whole)?,
                    Form::Raw => found.raw(ranges::part(&headers, tag, size))?,
                },
            };
            name_version(response.headers_mut(), tag, form, has_tokens);
            Ok(response)
        };
        read(&app, &wanted.key, &wanted.parameters, show).await
    })
}

/// What a GET asks for.
struct GetRequest {
    key: Key,
    parameters: KeyParameters,
    /// Whether the bytes are wanted, whatever `Accept` says.
    is_raw: bool,
    is_head: bool,
    headers: HeaderMap,
}

impl GetRequest {
    fn parse(app: &App, head: request::Parts) -> Result<Self, Problem> {
        let (key, parameters) = key_and_parameters(&app.defaults(), &head, GET_PARAMETERS, &R)?;
        Ok(Self {
            key,
            is_raw: parameters.raw,
            parameters,
            is_head: head.method == Method::HEAD,
            headers: head.headers,
        })
    }
}

fn not_acceptable() -> Problem {
    accept::not_acceptable(
        "a value is given as application/json, as application/octet-stream or as the type that it \
         was stored with, and Accept refuses all of them",
    )
}

/// Reads, and returns what `show` makes of the value.
pub(in crate::http) fn read<R>(
    app: &App,
    key: &Key,
    parameters: &KeyParameters,
    show: impl FnOnce(Found<'_>) -> Result<R, Problem>,
) -> impl Future<Output = Result<R, Problem>> {
    let started = Instant::now();
    let options = &parameters.options;
    let client = &app.client;
    let read = client.read(key, *options);
    async move {
        let read = read.await?;
        conclude(key, options, &read, started, show)
    }
}

/// What `show` makes of the value, or the problem of a read that found none.
fn conclude<R>(
    key: &Key,
    options: &RequestOptions,
    result: &ReadResult,
    started: Instant,
    show: impl FnOnce(Found<'_>) -> Result<R, Problem>,
) -> Result<R, Problem> {
    let ReadResult {
        read,
        view,
        refused,
    } = result;
    // A read that ended early for this reason has no outcome of its own.
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
        Some(ReadOutcome::Absent) => Err(read_problem::key_not_found(report)),
        Some(ReadOutcome::CameByV1) => Err(read_problem::came_by_v1(report)),
        Some(ReadOutcome::Disagree) => Err(read_problem::replicas_disagree(report)),
        Some(ReadOutcome::Unreachable) => Err(unreachable(key, options, read, report)),
        None if let Some(error) = refused => Err(no_memory_for_reply(*error)),
        Some(ReadOutcome::TimedOut) | None => Err(read_problem::timed_out(report)),
    }
}

/// Names what replicas refused the key for, if that is why too few can answer.
fn unreachable(
    key: &Key,
    options: &RequestOptions,
    read: &Read,
    report: ReadReport<'_>,
) -> Problem {
    let replicas = read.replicas().iter();
    let refusals = replicas.filter_map(|replica| match read.standing(replica) {
        ReplicaStanding::Refused(refusal) => Some(refusal),
        _ => None,
    });
    let refusals: Vec<Refusal> = refusals.collect();
    let about_key = refusals.iter().copied();
    let about_key: Vec<Refusal> = about_key.filter(|it| refusal::is_about_key(*it)).collect();
    match refusal::in_force(&about_key, options.quorum) {
        Some(refusal) => {
            refusal::not_carried(refusal, key, None).with_members(|object| report.write(object))
        }
        None if refusals.contains(&Refusal::NotV2) && options.insists_on_tags() => {
            no_tags(None).with_members(|object| report.write(object))
        }
        None => read_problem::unreachable(report),
    }
}

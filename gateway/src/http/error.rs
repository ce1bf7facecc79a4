//! Failures as problem documents (RFC 9457), and the only place that names their status codes.
//!
//! One cause, one type: `urn:dkvs:problem:<name>`. The types are listed, with what a caller
//! should do, in docs/problems.md.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use dkvs_common::kv::{Key, KeyError};
use dkvs_common::quorum::Refusal;
use dkvs_common::record::Content;
use dkvs_common::wire::v1::Unrepresentable;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::list::ListReport;
use super::params::InvalidParameter;
use super::report::{ReadReport, WriteReport};
use dkvs_client::AdmissionError;

/// A failure on its way to the caller. The request's name is added when it leaves.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Json>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            status,
            name,
            title,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
        }))
    }

    /// Adds the members of a JSON object.
    pub(super) fn with(mut self, members: impl Serialize) -> Self {
        if let Ok(Json::Object(mut members)) = serde_json::to_value(members) {
            self.0.members.append(&mut members);
        }
        self
    }

    fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    fn with_retry_after(self) -> Self {
        self.with_header(header::RETRY_AFTER, "1")
    }

    pub(super) fn invalid_parameters(invalid: Vec<InvalidParameter>) -> Self {
        let told: Vec<_> = invalid
            .iter()
            .map(|i| format!("{}: {}", i.name, i.reason))
            .collect();
        let invalid = serde_json::json!({ "invalid_parameters": invalid });
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-parameter",
            "A parameter is not valid",
            told.join("; "),
        )
        .with(invalid)
    }

    pub(super) fn bad_escape(offset: usize) -> Self {
        Self::invalid_key(format!(
            "the % at byte {offset} of the encoded key is not followed by two hexadecimal digits; \
             a % in a key is written %25"
        ))
    }

    pub(super) fn invalid_key(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-key",
            "The key is not valid",
            detail,
        )
    }

    fn key_too_long(detail: String) -> Self {
        let mut problem = Self::invalid_key(detail);
        problem.0.status = StatusCode::URI_TOO_LONG;
        problem
    }

    pub(super) fn invalid_value(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-value",
            "The value cannot be stored",
            detail,
        )
    }

    pub(super) fn value_too_large(value_bytes_max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "value-too-large",
            "The value is too large",
            format!("the value is longer than {value_bytes_max} bytes, which is the limit here"),
        )
        .with(serde_json::json!({ "value_bytes_max": value_bytes_max }))
    }

    pub(super) fn body_timeout(seconds: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "The body did not arrive in time",
            format!(
                "no more of the request's body arrived for {seconds} seconds; nothing was stored"
            ),
        )
        .with_header(header::CONNECTION, "close")
    }

    pub(super) fn body_broken() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-body",
            "The body could not be read",
            "the request's body ended early or was not well-formed; nothing was stored",
        )
    }

    /// The body of a batch is not one.
    pub(super) fn no_batch(why: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-body",
            "The body could not be read",
            format!("the body is no batch: {why}; nothing was sent to any server"),
        )
    }

    pub(super) fn batch_too_large(bytes_max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "batch-too-large",
            "The batch is too large",
            format!(
                "the batch is longer than {bytes_max} bytes, which is the limit here; send it in \
                 parts, and long values by PUT"
            ),
        )
    }

    pub(super) fn no_such_list_form() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "No acceptable form",
            "keys are given as application/json or as application/x-ndjson, and Accept refuses both",
        )
    }

    pub(super) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "No acceptable form",
            "a value is given as application/json or as application/octet-stream, and Accept refuses both",
        )
    }

    /// `size` is that of the value, in bytes.
    pub(super) fn no_such_range(size: usize) -> Self {
        let mut problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range-not-satisfiable",
            "The value has no such bytes",
            format!("the value has {size} bytes, and Range asks for others"),
        );
        if let Ok(told) = HeaderValue::try_from(format!("bytes */{size}")) {
            problem.0.headers.push((header::CONTENT_RANGE, told));
        }
        problem
    }

    pub(super) fn no_such_path(path: &str) -> Self {
        let shown: String = path.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "There is nothing at this path",
            format!(
                "there is nothing at {shown}; keys are at /kv/<key>, and /openapi.yaml lists all paths"
            ),
        )
    }

    pub(super) fn no_such_server(name: &str) -> Self {
        let shown: String = name.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-server",
            "The cluster has no such server",
            format!("{shown} is no server of this cluster; /servers lists all of them"),
        )
    }

    pub(super) fn not_embedded() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "not-embedded",
            "The server does not run inside the gateway",
            "this gateway only talks to its servers; stop or start the server's own process",
        )
    }

    pub(super) fn server_not_started(detail: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server-not-started",
            "The server could not be started",
            detail,
        )
        .with_retry_after()
    }

    pub(super) fn method_not_allowed(method: &Method) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The path does not take this method",
            format!("this path does not take {method}; the Allow header lists what it takes"),
        )
    }

    pub(super) fn bad_host(detail: &'static str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-host",
            "The Host header is not valid",
            format!("{detail}; a request has exactly one, with the host that it is sent to"),
        )
    }

    pub(super) fn host_not_allowed(host: &str) -> Self {
        let shown: String = host.chars().take(100).collect();
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host-not-allowed",
            "The gateway does not go by this name",
            format!(
                "the request is for the host {shown:?}, which this gateway does not go by; if it \
                 should, start it with --allowed-host and that name"
            ),
        )
    }

    pub(super) fn cross_site() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "cross-site",
            "A page of another origin may not do this",
            "a browser sent this for a page of another origin, which may not change anything here; \
             if it should, start the gateway with --cors-origin and the page's origin",
        )
    }

    pub(super) fn no_token() -> Self {
        Self::unauthorized(
            "the request has no access token; send the header Authorization: Bearer <token>",
        )
        .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"dkvs\"")
    }

    pub(super) fn wrong_token() -> Self {
        Self::unauthorized("the access token is none that this gateway knows").with_header(
            header::WWW_AUTHENTICATE,
            "Bearer realm=\"dkvs\", error=\"invalid_token\"",
        )
    }

    fn unauthorized(detail: &'static str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "An access token is needed",
            detail,
        )
    }

    pub(super) fn forbidden_scope(token: &str, scope: &str) -> Self {
        Self::forbidden(format!(
            "the access token {token:?} does not have the scope {scope}, which this needs"
        ))
    }

    pub(super) fn forbidden_key(token: &str) -> Self {
        Self::forbidden(format!(
            "the key is outside of the prefixes of the access token {token:?}"
        ))
    }

    pub(super) fn forbidden_listing(token: &str) -> Self {
        Self::forbidden(format!(
            "not all keys with this prefix are within a prefix of the access token {token:?}"
        ))
    }

    fn forbidden(detail: String) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "The access token is not good for this",
            detail,
        )
    }

    pub(super) fn not_ready(detail: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "The gateway is not ready",
            detail,
        )
        .with_retry_after()
    }

    pub(super) fn key_not_found(report: ReadReport<'_>) -> Self {
        let (agreeing, n) = (report.quorum.agreeing, report.quorum.n);
        Self::new(
            StatusCode::NOT_FOUND,
            "key-not-found",
            "There is no such key",
            format!("{agreeing} of {n} replicas hold no value for this key"),
        )
        .with(serde_json::json!({ "deleted": report.tag.is_some() }))
        .with(report)
    }

    pub(super) fn replicas_disagree(report: ReadReport<'_>) -> Self {
        let (n, r) = (report.quorum.n, report.quorum.r);
        Self::new(
            StatusCode::CONFLICT,
            "replicas-disagree",
            "The replicas do not agree",
            match report.consistency {
                "linearizable" => format!(
                    "{n} replicas hold different values under one tag, and no {r} the same: a tag \
                     was used for two writes; write the value you want"
                ),
                _ => format!(
                    "no {r} of {n} replicas agree on this key; a write may be under way or have \
                     failed half way: read again, read with a smaller r, or write the value you \
                     want"
                ),
            },
        )
        .with(report)
    }

    pub(super) fn read_unreachable(report: ReadReport<'_>) -> Self {
        let (n, r) = (report.quorum.n, report.quorum.r);
        Self::quorum_unreachable(format!(
            "so many of the {n} replicas cannot be reached that {r} can no longer answer"
        ))
        .with(report)
    }

    pub(super) fn read_timeout(report: ReadReport<'_>) -> Self {
        let (n, r) = (report.quorum.n, report.quorum.r);
        let what = match report.consistency {
            "linearizable" => "told or confirmed the newest value",
            _ => "answered",
        };
        Self::timeout(format!("fewer than {r} of {n} replicas {what} in time")).with(report)
    }

    pub(super) fn list_unreachable(report: ListReport<'_>) -> Self {
        let detail = "so many servers cannot be asked that keys might be missing from the list";
        Self::quorum_unreachable(detail.to_owned()).with(report)
    }

    pub(super) fn list_timeout(report: ListReport<'_>) -> Self {
        let detail = "too few servers answered in time to tell a single key, or that there is none";
        Self::timeout(detail.to_owned()).with(report)
    }

    pub(super) fn write_unreachable(report: WriteReport<'_>) -> Self {
        let (n, w) = (report.quorum.n, report.quorum.w);
        let what = report.what_became();
        Self::quorum_unreachable(format!(
            "so many of the {n} replicas cannot be reached that {w} can no longer confirm; {what}"
        ))
        .with(report)
    }

    pub(super) fn write_timeout(report: WriteReport<'_>) -> Self {
        let (n, w) = (report.quorum.n, report.quorum.w);
        let what = report.what_became();
        Self::timeout(format!(
            "fewer than {w} of {n} replicas confirmed in time; {what}"
        ))
        .with(report)
    }

    /// Too many replicas refused, most of them for this reason.
    pub(super) fn write_refused(
        refusal: Refusal,
        (key, content): (&Key, Option<&Content>),
        report: WriteReport<'_>,
    ) -> Self {
        match refusal {
            Refusal::Full => Self::storage_full(report),
            Refusal::TooLarge { value_bytes_max } => {
                Self::value_too_large(value_bytes_max as usize).with(report)
            }
            Refusal::KeyTooLong { .. } | Refusal::HasNul => {
                Self::not_carried(refusal, key, content).with(report)
            }
            Refusal::Unstated => {
                let (n, w) = (report.quorum.n, report.quorum.w);
                let what = report.what_became();
                Self::quorum_unreachable(format!(
                    "so many of the {n} replicas answered that they failed that {w} can no longer \
                     confirm; they speak DKVS/1, which gives no reason: they may have no room, or \
                     have stored it all the same; {what}"
                ))
                .with(report)
            }
            Refusal::NoDeletion => Self::no_deletion().with(report),
            Refusal::TagTaken => Self::tag_conflict(report),
            _ => {
                let (n, w) = (report.quorum.n, report.quorum.w);
                let what = report.what_became();
                Self::quorum_unreachable(format!(
                    "so many of the {n} replicas refused that {w} can no longer confirm; their \
                     reasons stand with each; {what}"
                ))
                .with(report)
            }
        }
    }

    pub(super) fn no_memory() -> Self {
        Self::from(AdmissionError::Overloaded {
            what: "too many long values are on their way",
        })
    }

    pub(super) fn too_many_listeners() -> Self {
        Self::from(AdmissionError::Overloaded {
            what: "as many as may listen to its events do so",
        })
    }

    /// A key, or what was to be stored under it, that cannot travel to the servers; without content,
    /// it was to be read.
    pub(super) fn not_carried(refusal: Refusal, key: &Key, content: Option<&Content>) -> Self {
        let bytes = key.as_bytes().len();
        match refusal {
            Refusal::KeyTooLong { key_bytes_max } => Self::key_too_long(format!(
                "the key is {bytes} bytes long; with datagrams to the servers as short as they \
                 are{}, the limit is {key_bytes_max}",
                match content {
                    Some(Content::Value { .. }) => ", and this value and content type",
                    _ => "",
                }
            )),
            _ if key.as_bytes().contains(&0) => Self::invalid_key(
                "the key has a NUL byte, which the servers cannot take: they speak DKVS/1".into(),
            ),
            _ => Self::invalid_value(
                "the value has a NUL byte, which the servers cannot take: they speak DKVS/1".into(),
            ),
        }
    }

    /// Linearizable was asked for, and servers have no tags.
    pub(super) fn no_tags(server: Option<String>) -> Self {
        let who = server.map_or("too many of the replicas speak".to_owned(), |server| {
            format!("{server} speaks")
        });
        Self::invalid_parameters(vec![InvalidParameter {
            name: "consistency".to_owned(),
            reason: format!(
                "it cannot be linearizable: {who} DKVS/1 only, which has no tags; \
                 consistency=agreement needs none"
            ),
        }])
    }

    /// Linearizable was asked for, and a replica holds what a client wrote by DKVS/1.
    pub(super) fn came_by_v1() -> Self {
        Self::invalid_parameters(vec![InvalidParameter {
            name: "consistency".to_owned(),
            reason: "it cannot be linearizable: a replica holds a record of this key that came by \
                     DKVS/1, which does not tell how old it is; consistency=agreement reads what \
                     the replicas agree on, and a PUT that reaches all of them makes the key \
                     linearizable again"
                .to_owned(),
        }])
    }

    /// A write met something newer under which it does not count as done: one that was sent again,
    /// with no replica that holds it or too few, or something that came by DKVS/1.
    pub(super) fn superseded(is_resubmission: bool, report: WriteReport<'_>) -> Self {
        let (n, w) = (report.quorum.n, report.quorum.w);
        let what = if !is_resubmission {
            format!(
                "so many of the {n} replicas hold a record that came by DKVS/1, which may be newer, \
                 that {w} can no longer confirm this one; whether it is on others is not known: to \
                 write it now, send it again"
            )
        } else if report.consistency == "linearizable" {
            format!(
                "{w} or more of the {n} replicas hold a newer value, and none holds this one under \
                 its tag; whether it was there before is not known: to write it now, leave the tag \
                 out"
            )
        } else {
            format!(
                "so many of the {n} replicas hold a newer value that {w} can no longer confirm this \
                 one under its tag; whether it was there before is not known: to write it now, \
                 leave the tag out"
            )
        };
        Self::new(
            StatusCode::CONFLICT,
            "superseded",
            "A newer value is there",
            what,
        )
        .with(report)
    }

    /// Another value was sent under the tag of one that replicas hold.
    fn tag_conflict(report: WriteReport<'_>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "tag-conflict",
            "The tag belongs to another value",
            "replicas hold another value under this tag; a tag repeats the write that had it, with \
             the same value and content type, and no other: leave the tag out",
        )
        .with(report)
    }

    fn no_listing() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "not-supported",
            "The servers cannot do this",
            "the gateway speaks DKVS/1, which cannot list keys; it takes servers that speak DKVS/2",
        )
    }

    /// So many servers speak DKVS/1 that there is no list however well the others do.
    pub(super) fn list_of_v1(report: ListReport<'_>) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "not-supported",
            "The servers cannot do this",
            "so many servers speak DKVS/1 only, which cannot list keys, that keys might be missing; \
             they have to speak DKVS/2 for it",
        )
        .with(report)
    }

    fn no_deletion() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "not-supported",
            "The servers cannot do this",
            "the servers speak DKVS/1, which cannot delete a key; they have to speak DKVS/2 for it",
        )
    }

    fn storage_full(report: WriteReport<'_>) -> Self {
        let (n, w) = (report.quorum.n, report.quorum.w);
        let what = report.what_became();
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "storage-full",
            "The servers have no room",
            format!(
                "so many of the {n} replicas have no room that {w} can no longer confirm; {what}"
            ),
        )
        .with(report)
    }

    fn quorum_unreachable(detail: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "quorum-unreachable",
            "Too few replicas can be reached",
            detail,
        )
        .with_retry_after()
    }

    fn timeout(detail: String) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "Too few replicas answered in time",
            detail,
        )
    }

    /// Whether the gateway has as much in hand as it takes.
    pub(super) fn is_overload(&self) -> bool {
        self.0.name == "overloaded"
    }

    /// Its status code.
    pub(super) fn status(&self) -> u16 {
        self.0.status.as_u16()
    }

    /// The document, without the request's name in it.
    pub(super) fn document(self) -> Json {
        self.into_document(None).0
    }

    fn into_document(self, instance: Option<String>) -> (Json, Vec<(HeaderName, HeaderValue)>) {
        let Inner {
            status,
            name,
            title,
            detail,
            members,
            headers,
        } = *self.0;
        let mut document = Map::new();
        document.insert("type".into(), format!("urn:dkvs:problem:{name}").into());
        document.insert("title".into(), title.into());
        document.insert("status".into(), status.as_u16().into());
        document.insert("detail".into(), detail.into());
        if let Some(instance) = instance {
            document.insert("instance".into(), instance.into());
        }
        document.extend(members);
        (document.into(), headers)
    }

    /// The response, with the request's name in it.
    pub(super) fn into_named_response(self, request_id: &HeaderValue) -> Response<Body> {
        let status = self.0.status;
        let request_id = request_id.to_str().unwrap_or_default();
        let instance = format!("urn:dkvs:request:{request_id}");
        let (document, headers) = self.into_document(Some(instance));
        let mut response = Response::new(Body::from(format!("{document}\n")));
        *response.status_mut() = status;
        let content_type = HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().extend(headers);
        response
    }

    #[cfg(test)]
    pub(super) fn invalid_parameters_told(&self) -> Vec<InvalidParameter> {
        let told = self.0.members["invalid_parameters"]
            .as_array()
            .unwrap()
            .iter();
        told.map(|told| InvalidParameter {
            name: told["name"].as_str().unwrap().to_owned(),
            reason: told["reason"].as_str().unwrap().to_owned(),
        })
        .collect()
    }
}

impl WriteReport<'_> {
    /// A sentence on the fate of the value.
    fn what_became(&self) -> &'static str {
        match self.outcome {
            "not_applied" => "the value is on none of them",
            _ => "the value may be on some of them and may surface later",
        }
    }
}

/// Leaves the document to be written when the request's name is known.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => Self::invalid_key(error.to_string()),
            KeyError::TooLong { .. } => Self::key_too_long(error.to_string()),
        }
    }
}

impl From<AdmissionError> for Problem {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Overloaded { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "The gateway is overloaded",
                format!("{error}; nothing was sent to any server"),
            )
            .with_retry_after(),
            AdmissionError::NoDeletion => Self::no_deletion(),
            AdmissionError::NoListing => Self::no_listing(),
            AdmissionError::NoTags { server } => Self::no_tags(Some(server)),
            AdmissionError::Unrepresentable(error) => match error {
                Unrepresentable::KeyHasNul { .. } => Self::invalid_key(error.to_string()),
                Unrepresentable::KeyTooLong { .. } => Self::key_too_long(error.to_string()),
                Unrepresentable::ValueHasNul { .. } => Self::invalid_value(error.to_string()),
                Unrepresentable::ValueTooLong { .. } => {
                    Self::value_too_large(dkvs_common::wire::v1::KEY_OR_VALUE_BYTES_MAX)
                }
            },
        }
    }
}

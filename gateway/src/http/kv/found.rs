//! A value as a response: a JSON document, or its bytes with the report in headers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::tag::Tag;
use serde_json::json;

use crate::http::accept::Form;
use crate::http::conditional::{self, precondition_failed};
use crate::http::document::{Document, Json, is_long};
use crate::http::json::object_text;
use crate::http::object::Object;
use crate::http::problem::{Problem, ProblemType};
use crate::http::ranges::Part;
use crate::http::report::{BASE64, ReadReport, UTF_8, write_key, write_tag, write_value};

const RANGE_NOT_SATISFIABLE: ProblemType = ProblemType {
    status: StatusCode::RANGE_NOT_SATISFIABLE,
    name: "range-not-satisfiable",
    title: "The value has no such bytes",
};

/// Nothing in a value is run or loaded, and it shares nothing with the gateway's own pages.
const RAW_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// The usual number of headers that a value has when it leaves.
const HEADERS_USUAL: usize = 16;

/// A value that was read, and the report on the read.
pub(in crate::http) struct Found<'a> {
    pub(super) value: &'a Value,
    pub(super) content_type: &'a [u8],
    pub(super) report: ReadReport<'a>,
    pub(super) elapsed_us: u64,
}

/// A JSON object without its end.
fn begun(write: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut text = Vec::new();
    write(&mut Object::begin(&mut text));
    text
}

impl<'a> Found<'a> {
    pub(super) fn tag(&self) -> Option<Tag> {
        self.report.tag
    }

    /// The value's length in bytes.
    pub(super) fn size(&self) -> usize {
        self.value.len()
    }

    /// The response to a caller who has this version already.
    pub(super) fn not_modified(&self, form: Form) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        let headers = response.headers_mut();
        if form == Form::Raw {
            // A cache puts these in place of those that it has.
            headers.insert(header::CONTENT_SECURITY_POLICY, RAW_POLICY);
        }
        diagnose(headers, &self.report);
        response
    }

    /// The problem of a caller whose preconditions do not hold for this version, with its tag.
    pub(super) fn precondition_failed(&self) -> Problem {
        let tag = self.tag().map(|tag| tag.to_string());
        precondition_failed().with(json!({ "tag": tag }))
    }

    /// The JSON document, with the report in it. A value of more than `short_max` bytes is not copied
    /// into it.
    pub(in crate::http) fn json(self, key: &Key, short_max: usize) -> Json {
        document(key, self.value, short_max, |object| {
            self.write_size_and_type(object);
            self.report.write(object);
            object.number("elapsed_us", self.elapsed_us);
        })
    }

    /// The same as an entry of a list, without the report.
    pub(in crate::http) fn entry(self, key: &Key, short_max: usize) -> Json {
        document(key, self.value, short_max, |object| {
            self.write_size_and_type(object);
            object.plain("consistency", self.report.consistency.name());
            write_tag(object, self.tag());
            object.number("status", StatusCode::OK.as_u16());
        })
    }

    fn write_size_and_type(&self, object: &mut Object<'_>) {
        object.number("size", self.value.len() as u64);
        match self.content_type {
            [] => object.null("content_type"),
            given => object.string("content_type", &String::from_utf8_lossy(given)),
        }
    }

    /// The value's bytes, or some of them. The value may be someone else's HTML, so the headers
    /// forbid browsers to run anything in it.
    ///
    /// # Errors
    ///
    /// If it has none of the bytes that are asked for.
    pub(super) fn raw(self, part: Part) -> Result<Response<Body>, Problem> {
        let bytes = match is_long(self.value.len()) {
            true => self.value.clone().into_bytes(),
            // Not to keep the datagrams that it arrived with.
            false => Bytes::copy_from_slice(self.value.as_bytes()),
        };
        let size = bytes.len();
        let mut response = match part {
            Part::Whole => Response::new(Body::from(bytes)),
            Part::Bytes(range) => {
                let given = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let mut response = Response::new(Body::from(bytes.slice(range)));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                if let Ok(given) = HeaderValue::try_from(given) {
                    response.headers_mut().insert(header::CONTENT_RANGE, given);
                }
                response
            }
            Part::None => return Err(no_such_range(size)),
        };
        let headers = response.headers_mut();
        headers.reserve(HEADERS_USUAL);
        headers.insert(header::CONTENT_SECURITY_POLICY, RAW_POLICY);
        let ranges = HeaderValue::from_static("bytes");
        headers.insert(header::ACCEPT_RANGES, ranges);
        let stored = HeaderValue::from_bytes(self.content_type)
            .ok()
            .filter(|stored| !stored.is_empty());
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(header::CONTENT_TYPE, stored.unwrap_or(octets));
        diagnose(headers, &self.report);
        Ok(response)
    }
}

/// A key and its value, and what follows them.
fn document(
    key: &Key,
    value: &Value,
    short_max: usize,
    rest: impl FnOnce(&mut Object<'_>),
) -> Json {
    if value.len() <= short_max {
        return Json::Text(object_text(|object| {
            write_key(object, key);
            write_value(object, value);
            rest(object);
        }));
    }
    let mut document = Document::default();
    document.text(begun(|object| write_key(object, key)));
    document.text(&br#","value":""#[..]);
    let encoding = match document.string(value.clone().into_bytes()) {
        true => UTF_8,
        false => BASE64,
    };
    document.text(format!(r#"","encoding":"{encoding}","#));
    document.text(begun(rest).split_off(1));
    document.text(&b"}\n"[..]);
    Json::Parts(document)
}

/// Names the version and its form for caches, which may keep it and ask each time whether it is still
/// the one: it may be another one at any moment. Where callers have tokens, only their own caches may.
pub(super) fn name_version(
    headers: &mut HeaderMap,
    tag: Option<Tag>,
    form: Form,
    has_tokens: bool,
) {
    const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
    const SHARED: HeaderValue = HeaderValue::from_static("no-cache");
    const ACCEPT: HeaderValue = HeaderValue::from_static("accept");

    if let Some(tag) = tag {
        headers.insert(header::ETAG, conditional::entity_tag(tag, form));
    }
    headers.insert(
        header::CACHE_CONTROL,
        if has_tokens { PRIVATE } else { SHARED },
    );
    headers.insert(header::VARY, ACCEPT);
}

/// The report on the read, as headers.
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

    headers.insert(
        CONSISTENCY,
        HeaderValue::from_static(report.consistency.name()),
    );
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

/// `size` is that of the value, in bytes.
fn no_such_range(size: usize) -> Problem {
    let detail = format!("the value has {size} bytes, and Range asks for others");
    let problem = Problem::new(&RANGE_NOT_SATISFIABLE, detail);
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(range) => problem.with_header(header::CONTENT_RANGE, range),
        Err(_) => problem,
    }
}

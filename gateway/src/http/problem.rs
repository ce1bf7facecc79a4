//! A failure as a problem document (RFC 9457).
//!
//! One cause, one type: `urn:dkvs:problem:<name>`. The types are listed, with what a caller should
//! do, in docs/problems.md. Each endpoint defines the problems that are its own; nothing here knows
//! any of them.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::object::Object;

/// What all problems of one type have in common.
#[derive(Debug)]
pub(super) struct ProblemType {
    pub(super) status: StatusCode,
    /// The last part of its URN.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
}

/// A failure on its way to the caller. The request's id is added when it leaves.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    of: &'static ProblemType,
    detail: String,
    members: Map<String, Json>,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_overload: bool,
    lacks_memory: bool,
}

impl Problem {
    /// A problem of a type, with what happened to this request.
    pub(super) fn new(of: &'static ProblemType, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            of,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
            is_overload: false,
            lacks_memory: false,
        }))
    }

    /// Adds the members of a JSON object.
    pub(super) fn with(mut self, members: impl Serialize) -> Self {
        if let Ok(Json::Object(mut members)) = serde_json::to_value(members) {
            self.0.members.append(&mut members);
        }
        self
    }

    /// Adds the members that `write` writes.
    pub(super) fn with_members(self, write: impl FnOnce(&mut Object<'_>)) -> Self {
        let mut text = Vec::new();
        let mut object = Object::begin(&mut text);
        write(&mut object);
        object.end();
        let members: Map<String, Json> =
            serde_json::from_slice(&text).expect("what was written is an object");
        self.with(members)
    }

    /// Adds a header to the response.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Asks the caller to try again after a second.
    pub(super) fn with_retry_after(self) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Marks the problem as one of an overloaded gateway.
    pub(super) fn marked_as_overload(mut self) -> Self {
        self.0.is_overload = true;
        self
    }

    /// Marks the problem as one that will pass when replies have been read.
    pub(super) fn marked_as_lack_of_memory(mut self) -> Self {
        self.0.lacks_memory = true;
        self
    }

    /// Whether there was no memory for a reply.
    pub(super) fn lacks_memory(&self) -> bool {
        self.0.lacks_memory
    }

    /// Whether the gateway is overloaded.
    pub(super) fn is_overload(&self) -> bool {
        self.0.is_overload
    }

    /// Its status code.
    pub(super) fn status(&self) -> u16 {
        self.0.of.status.as_u16()
    }

    /// The document, without the request's id in it.
    pub(super) fn document(self) -> Json {
        self.into_document(None).0
    }

    fn into_document(self, instance: Option<String>) -> (Json, Vec<(HeaderName, HeaderValue)>) {
        let Inner {
            of:
                ProblemType {
                    status,
                    name,
                    title,
                },
            detail,
            members,
            headers,
            is_overload: _,
            lacks_memory: _,
        } = *self.0;
        let mut document = Map::new();
        document.insert("type".into(), format!("urn:dkvs:problem:{name}").into());
        document.insert("title".into(), (*title).into());
        document.insert("status".into(), status.as_u16().into());
        document.insert("detail".into(), detail.into());
        if let Some(instance) = instance {
            document.insert("instance".into(), instance.into());
        }
        document.extend(members);
        (document.into(), headers)
    }

    /// The response, with the request's id in it.
    pub(super) fn into_identified_response(self, request_id: &HeaderValue) -> Response<Body> {
        let status = self.0.of.status;
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

    /// A member of the document, for the tests of endpoints.
    #[cfg(test)]
    pub(super) fn member(&self, name: &str) -> &Json {
        &self.0.members[name]
    }
}

/// Leaves the document to be written once the request's id is known.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.of.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// Most characters of what a caller sent that a problem shows in one place.
const EXCERPT_CHARS_MAX: usize = 64;

/// The beginning of what a caller sent, for the detail of a problem. Control characters, which JSON
/// would write with six bytes each, are replaced.
pub(super) fn excerpt(text: &str) -> String {
    let shown = |char: char| if char.is_control() { '\u{fffd}' } else { char };
    let mut chars = text.chars();
    let mut excerpt: String = chars.by_ref().take(EXCERPT_CHARS_MAX).map(shown).collect();
    if chars.next().is_some() {
        excerpt.push('\u{2026}');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEAPOT: ProblemType = ProblemType {
        status: StatusCode::IM_A_TEAPOT,
        name: "teapot",
        title: "This is a teapot",
    };

    #[test]
    fn a_document_has_its_own_members_last_and_the_request_only_if_asked() {
        let problem = Problem::new(&TEAPOT, "short and stout").with(serde_json::json!({ "n": 1 }));
        let expected = r#"{"type":"urn:dkvs:problem:teapot","title":"This is a teapot","status":418,"detail":"short and stout","n":1}"#;
        assert_eq!(problem.clone().document().to_string(), expected);
        let (document, _) = problem.into_document(Some("urn:dkvs:request:7".into()));
        let expected = expected.replace(r#","n":1"#, r#","instance":"urn:dkvs:request:7","n":1"#);
        assert_eq!(document.to_string(), expected);
    }

    #[test]
    fn an_excerpt_is_short_whatever_it_is_of() {
        assert_eq!(excerpt("a key"), "a key");
        let whole = "k".repeat(EXCERPT_CHARS_MAX);
        assert_eq!(excerpt(&whole), whole);
        for text in ["k", "\0", "\u{1f600}", "\"", "\\", "\u{7f}"] {
            let excerpt = excerpt(&text.repeat(100_000));
            assert_eq!(excerpt.chars().count(), EXCERPT_CHARS_MAX + 1);
            let json = Json::from(excerpt).to_string();
            assert!(json.len() <= 4 * EXCERPT_CHARS_MAX + 5, "{}", json.len());
        }
    }

    #[test]
    fn a_response_has_the_status_the_headers_and_the_request_of_its_problem() {
        let problem = Problem::new(&TEAPOT, "").with_retry_after();
        let response = problem.into_identified_response(&HeaderValue::from_static("7"));
        assert_eq!(response.status(), 418);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let content_type = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(content_type, "application/problem+json");
    }
}

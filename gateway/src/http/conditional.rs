//! Preconditions of requests (RFC 9110, section 13).
//!
//! A version's tag is its entity tag: strong for the value's bytes, weak for the JSON about it, which
//! differs from read to read. Its date is the time in its tag. That is never shown as Last-Modified,
//! and If-Modified-Since is ignored: where a clock lags, two versions may have one date, and a 304
//! would hide the later one. If-Unmodified-Since only ever refuses by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use axum::response::IntoResponse as _;
use dkvs_common::tag::Tag;

use super::accept::Form;
use super::client_error::not_supported;
use super::operations::KEY_PATH;
use super::problem::{Problem, ProblemType};

const PRECONDITION_FAILED: ProblemType = ProblemType {
    status: StatusCode::PRECONDITION_FAILED,
    name: "precondition-failed",
    title: "A precondition of the request does not hold",
};

/// The entity tag of a version in a form.
pub(super) fn entity_tag(tag: Tag, form: Form) -> HeaderValue {
    let weak = match form {
        Form::Json => "W/",
        Form::Raw => "",
    };
    let text = [weak, "\"", tag.text().as_str(), "\""].concat();
    HeaderValue::try_from(text).expect("a tag is hexadecimal digits and a dash")
}

/// What the preconditions of a GET or HEAD come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of them hold, or there are none.
    Proceed,
    /// The caller has this version.
    NotModified,
    /// One of them does not hold.
    Failed,
}

/// Judges a version of a value, which may have no tag, in a form.
pub(super) fn judge_version(headers: &HeaderMap, tag: Option<Tag>, form: Form) -> Verdict {
    if !has_any(headers) {
        return Verdict::Proceed;
    }
    let etag = tag.map(|tag| entity_tag(tag, form));
    // Whoever follows a version on a condition has the time of that one.
    let dated = tag.filter(|tag| !tag.is_by_v1() && !tag.is_by_agreement());
    let date = dated.map(|tag| UNIX_EPOCH + Duration::from_millis(tag.unix_ms()));
    judge(headers, etag.as_ref(), date)
}

fn has_any(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_MATCH)
        || headers.contains_key(header::IF_NONE_MATCH)
        || headers.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Evaluates the preconditions in the order of section 13.2.2, for a representation that there is.
fn judge(headers: &HeaderMap, etag: Option<&HeaderValue>, date: Option<SystemTime>) -> Verdict {
    let current = etag.and_then(|etag| EntityTag::parse(etag.as_bytes()));
    let holds = if headers.contains_key(header::IF_MATCH) {
        is_named(headers, header::IF_MATCH, current, |a, b| a.is_strongly(b))
    } else {
        is_unmodified(headers, date)
    };
    if !holds {
        return Verdict::Failed;
    }
    match is_named(headers, header::IF_NONE_MATCH, current, |a, b| {
        a.is_weakly(b)
    }) {
        true => Verdict::NotModified,
        false => Verdict::Proceed,
    }
}

/// Whether `If-Unmodified-Since` holds. Ignores one that is no date, or stands twice, and any where
/// there is no date to compare it with.
fn is_unmodified(headers: &HeaderMap, date: Option<SystemTime>) -> bool {
    let mut given = headers.get_all(header::IF_UNMODIFIED_SINCE).iter();
    let (Some(since), None, Some(date)) = (given.next(), given.next(), date) else {
        return true;
    };
    let since = since.to_str().ok();
    let Some(since) = since.and_then(|since| httpdate::parse_http_date(since).ok()) else {
        return true;
    };
    // Dates in headers have no fractions of seconds.
    date < since + Duration::from_secs(1)
}

/// Whether a list of entity tags has the current one, or is `*`, for any.
fn is_named(
    headers: &HeaderMap,
    name: HeaderName,
    current: Option<EntityTag<'_>>,
    is_same: impl Fn(EntityTag<'_>, EntityTag<'_>) -> bool,
) -> bool {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    lines.any(|line| {
        let mut list = EntityTags(line);
        line.trim_ascii() == b"*"
            || current.is_some_and(|current| list.any(|given| is_same(given, current)))
    })
}

/// An entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntityTag<'a> {
    is_weak: bool,
    /// Without its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        Self::split_first(text).map(|(first, _)| first)
    }

    /// The entity tag at the beginning of a text, and what follows.
    fn split_first(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let unmarked = text.strip_prefix(b"W/");
        let quoted = unmarked.unwrap_or(text).strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let tag = Self {
            is_weak: unmarked.is_some(),
            opaque: &quoted[..end],
        };
        Some((tag, &quoted[end + 1..]))
    }

    fn is_weakly(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    fn is_strongly(self, other: EntityTag<'_>) -> bool {
        !self.is_weak && !other.is_weak && self.opaque == other.opaque
    }
}

/// The entity tags of a list, up to its end or what is no entity tag. Their text may have commas.
struct EntityTags<'a>(&'a [u8]);

impl<'a> Iterator for EntityTags<'a> {
    type Item = EntityTag<'a>;

    fn next(&mut self) -> Option<EntityTag<'a>> {
        let is_between = |byte: &u8| matches!(byte, b',' | b' ' | b'\t');
        let begin = self.0.iter().position(|byte| !is_between(byte))?;
        let first = EntityTag::split_first(&self.0[begin..]);
        let (tag, rest) = first.unzip();
        // Another one begins after a comma only.
        let rest = rest.map(<[u8]>::trim_ascii_start);
        let rest = rest.filter(|rest| rest.first().is_none_or(|next| *next == b','));
        self.0 = rest.unwrap_or_default();
        tag
    }
}

/// The preconditions of a GET or HEAD of anything but a value, kept while it is answered. What it is
/// answered with is judged then: whatever has no entity tag has the state of the moment.
pub(super) struct Preconditions(HeaderMap);

impl Preconditions {
    /// Those of a request, if it has any.
    pub(super) fn of<B>(request: &Request<B>, route: &str) -> Option<Self> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let applies = is_read && route != KEY_PATH && has_any(request.headers());
        applies.then(|| Self(request.headers().clone()))
    }

    /// The response itself, or what takes its place.
    pub(super) fn apply(&self, mut response: Response<Body>) -> Response<Body> {
        if response.status() != StatusCode::OK {
            return response;
        }
        match judge(&self.0, response.headers().get(header::ETAG), None) {
            Verdict::Proceed => response,
            Verdict::Failed => precondition_failed().into_response(),
            Verdict::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::empty();
                response.headers_mut().remove(header::CONTENT_TYPE);
                response.headers_mut().remove(header::CONTENT_LENGTH);
                response
            }
        }
    }
}

/// The version is not the one that the caller wants.
pub(super) fn precondition_failed() -> Problem {
    Problem::new(
        &PRECONDITION_FAILED,
        "what is there is none of what If-Match names, or newer than If-Unmodified-Since",
    )
}

/// Refuses the preconditions of a POST that do not hold: nothing is at its path that has a version.
pub(super) fn check_post(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.contains_key(header::IF_MATCH) {
        true => Err(precondition_failed()),
        false => Ok(()),
    }
}

/// Refuses the preconditions of a write: ignoring one would make a lost update of what the caller
/// meant to prevent.
pub(super) fn check_write(headers: &HeaderMap) -> Result<(), Problem> {
    match has_any(headers) {
        true => Err(not_supported(
            "a write cannot depend on the version that is there: If-Match, If-None-Match and \
             If-Unmodified-Since are for reads; nothing was sent to any server",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag {
        time: 1_000_000_000_500 << 16,
        op: 0xabc << 32,
    };

    fn headers(given: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn quoted() -> String {
        format!("\"{TAG}\"")
    }

    #[test]
    fn preconditions_are_evaluated_in_their_order_and_by_their_comparison() {
        use Verdict::{Failed, NotModified, Proceed};
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
        let strong = &*quoted();
        let weak = &*format!("W/{strong}");
        let list = &*format!("\"a, b\" ,, {strong}\t,\"c\"");
        let hidden = &*format!("\"a, {strong}\"");
        let (before, same, after) = (
            "Sun, 09 Sep 2001 01:46:39 GMT",
            "Sun, 09 Sep 2001 01:46:40 GMT",
            "Sunday, 09-Sep-01 01:46:41 GMT",
        );
        for (given, raw, json) in [
            (vec![], Proceed, Proceed),
            (vec![(IF_MATCH, strong)], Proceed, Failed),
            (vec![(IF_MATCH, weak)], Failed, Failed),
            (vec![(IF_MATCH, list)], Proceed, Failed),
            (
                vec![(IF_MATCH, "\"a\""), (IF_MATCH, strong)],
                Proceed,
                Failed,
            ),
            (vec![(IF_MATCH, hidden)], Failed, Failed),
            (vec![(IF_MATCH, "*")], Proceed, Proceed),
            (vec![(IF_MATCH, "\"*\"")], Failed, Failed),
            (vec![(IF_MATCH, "")], Failed, Failed),
            (vec![(IF_MATCH, &strong[..18])], Failed, Failed),
            (vec![(IF_NONE_MATCH, strong)], NotModified, NotModified),
            (vec![(IF_NONE_MATCH, weak)], NotModified, NotModified),
            (vec![(IF_NONE_MATCH, list)], NotModified, NotModified),
            (vec![(IF_NONE_MATCH, hidden)], Proceed, Proceed),
            (vec![(IF_NONE_MATCH, "*")], NotModified, NotModified),
            (vec![(IF_NONE_MATCH, "\"a\"")], Proceed, Proceed),
            (vec![(IF_NONE_MATCH, &strong[1..])], Proceed, Proceed),
            (
                vec![(IF_MATCH, "\"a\""), (IF_NONE_MATCH, strong)],
                Failed,
                Failed,
            ),
            (
                vec![(IF_MATCH, "*"), (IF_NONE_MATCH, strong)],
                NotModified,
                NotModified,
            ),
            (vec![(IF_UNMODIFIED_SINCE, before)], Failed, Failed),
            (vec![(IF_UNMODIFIED_SINCE, same)], Proceed, Proceed),
            (vec![(IF_UNMODIFIED_SINCE, after)], Proceed, Proceed),
            (
                vec![(IF_UNMODIFIED_SINCE, "Sun Sep  9 01:46:39 2001")],
                Failed,
                Failed,
            ),
            (vec![(IF_UNMODIFIED_SINCE, "yesterday")], Proceed, Proceed),
            (
                vec![(IF_UNMODIFIED_SINCE, before), (IF_UNMODIFIED_SINCE, before)],
                Proceed,
                Proceed,
            ),
            (
                vec![(IF_MATCH, "*"), (IF_UNMODIFIED_SINCE, before)],
                Proceed,
                Proceed,
            ),
            (
                vec![(IF_UNMODIFIED_SINCE, after), (IF_NONE_MATCH, strong)],
                NotModified,
                NotModified,
            ),
            (vec![(IF_MODIFIED_SINCE, after)], Proceed, Proceed),
        ] {
            let headers = headers(&given);
            let found = judge_version(&headers, Some(TAG), Form::Raw);
            assert_eq!(found, raw, "{given:?}");
            let found = judge_version(&headers, Some(TAG), Form::Json);
            assert_eq!(found, json, "{given:?} of JSON");
        }
    }

    #[test]
    fn a_value_without_a_tag_is_some_value_and_no_named_one() {
        for (name, value, expected) in [
            (header::IF_MATCH, "*", Verdict::Proceed),
            (header::IF_MATCH, "\"a\"", Verdict::Failed),
            (header::IF_NONE_MATCH, "*", Verdict::NotModified),
            (header::IF_NONE_MATCH, "\"a\"", Verdict::Proceed),
            (
                header::IF_UNMODIFIED_SINCE,
                "Sun, 09 Sep 2001 01:46:39 GMT",
                Verdict::Proceed,
            ),
        ] {
            let headers = headers(&[(name.clone(), value)]);
            let found = judge_version(&headers, None, Form::Raw);
            assert_eq!(found, expected, "{name} {value}");
        }
    }

    #[test]
    fn each_byte_of_a_list_is_looked_at_once() {
        // Each of these is as long as a head may be, and has no end of beginnings.
        for unit in ["\"a\",", ",", "W/\"\",", "W/", " ", "\"", "\"\"", "*"] {
            let list = unit.repeat((128 << 10) / unit.len());
            let tags = EntityTags(list.as_bytes());
            let named: usize = tags.map(|tag| tag.opaque.len() + 1).sum();
            assert!(named <= list.len(), "{unit}");
        }
    }
}

//! The trace that a request belongs to (W3C Trace Context): taken from `traceparent`, or begun
//! here.
//!
//! No response has it: the recommendation defines no header for that.

use axum::http::{HeaderMap, HeaderName, Method};
use dkvs_common::hex;
use dkvs_common::trace::{SpanId, Trace, TraceId};
use tracing::{Level, Span, debug_span, field};

#[cfg(feature = "otel")]
use super::problem::excerpt;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The span of a request, for its log lines and its export, and its trace. There is neither if requests
/// are neither logged nor exported.
pub(super) fn begin(
    headers: &HeaderMap,
    request_id: &str,
    method: &Method,
    route: &str,
) -> (Span, Option<TraceId>) {
    if !tracing::span_enabled!(target: TARGET, Level::DEBUG) {
        return (Span::none(), None);
    }
    let span = new_span(request_id, method, route);
    let parent = Parent::of(headers);
    let trace_id = exported(&span, parent.as_ref()).or_else(|| match parent {
        Some(parent) => Some(parent.trace_id),
        None => random_trace(),
    });
    if let Some(trace_id) = trace_id {
        span.record("trace_id", field::display(trace_id));
    }
    (span, trace_id)
}

/// The target of a request's span is that of its event, so a filter that has one has both.
const TARGET: &str = "dkvs_gateway::http::serve";

#[cfg(not(feature = "otel"))]
fn new_span(request_id: &str, _: &Method, _: &str) -> Span {
    let trace_id = field::Empty;
    debug_span!(target: TARGET, parent: None, "request", request_id, trace_id)
}

/// With the fields that OpenTelemetry has names for.
#[cfg(feature = "otel")]
fn new_span(request_id: &str, method: &Method, route: &str) -> Span {
    debug_span!(
        target: TARGET,
        parent: None,
        "request",
        otel.name = format!("{} {route}", excerpt(method.as_str())),
        otel.kind = "server",
        http.request.method = %excerpt(method.as_str()),
        http.route = route,
        http.response.status_code = field::Empty,
        request_id,
        trace_id = field::Empty,
    )
}

#[cfg(not(feature = "otel"))]
fn exported(_: &Span, _: Option<&Parent>) -> Option<TraceId> {
    None
}

/// The trace under which a span is exported, if it is.
#[cfg(feature = "otel")]
fn exported(span: &Span, parent: Option<&Parent>) -> Option<TraceId> {
    if let Some(parent) = parent {
        crate::otel::set_parent(span, parent.trace_id.0, parent.span_id, parent.flags);
    }
    crate::otel::trace_id(span).map(TraceId)
}

/// Records a request's status in its span, if that is exported.
pub(super) fn end(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
}

/// The caller's part of the trace, as `traceparent` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    trace_id: TraceId,
    span_id: [u8; 8],
    flags: u8,
}

impl Parent {
    /// The one of the header, if there is exactly one and it is well-formed.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        match values.next() {
            None => Self::parse(value.as_bytes()),
            Some(_) => None,
        }
    }

    /// `version "-" trace-id "-" parent-id "-" flags`, all in lower-case hexadecimal digits. A
    /// later version than 0 may have more after that.
    fn parse(text: &[u8]) -> Option<Self> {
        const BYTES: usize = 55;
        let (known, rest) = text.split_at_checked(BYTES)?;
        let version = hex::parse::<1>(&known[..2])?;
        let trace_id = hex::parse::<16>(&known[3..35])?;
        let span_id = hex::parse::<8>(&known[36..52])?;
        let [flags] = hex::parse(&known[53..])?;
        let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let is_as_long_as_it_may_be = match version {
            [0] => rest.is_empty(),
            [0xff] => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let is_lower_case = !known.iter().any(u8::is_ascii_uppercase);
        let is_valid = has_dashes
            && is_lower_case
            && is_as_long_as_it_may_be
            && trace_id.iter().any(|byte| *byte != 0)
            && span_id.iter().any(|byte| *byte != 0);
        is_valid.then_some(Self {
            trace_id: TraceId(trace_id),
            span_id,
            flags,
        })
    }
}

/// A random trace. None if the system has no random bytes.
fn random_trace() -> Option<TraceId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    bytes
        .iter()
        .any(|byte| *byte != 0)
        .then_some(TraceId(bytes))
}

/// The trace that servers are to log a request under: that of a caller who samples it.
pub(super) fn sampled(headers: &HeaderMap) -> Option<Trace> {
    const SAMPLED: u8 = 1;
    let parent = Parent::of(headers)?;
    (parent.flags & SAMPLED != 0).then_some(Trace {
        trace_id: parent.trace_id,
        span_id: SpanId(parent.span_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn parsed(text: &str) -> Option<String> {
        let parent = Parent::parse(text.as_bytes());
        parent.map(|parent| parent.trace_id.to_string())
    }

    #[test]
    fn a_well_formed_traceparent_is_taken() {
        assert_eq!(parsed(GOOD).as_deref(), Some(ID));
        assert_eq!(parsed(&GOOD.replace("-01", "-00")).as_deref(), Some(ID));
        let later = format!("cc{}", &GOOD[2..]);
        assert_eq!(parsed(&later).as_deref(), Some(ID));
        assert_eq!(parsed(&format!("{later}-more")).as_deref(), Some(ID));
    }

    #[test]
    fn a_malformed_traceparent_is_not() {
        let zeros = |digits| "0".repeat(digits);
        for text in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &format!("{GOOD}-more"),
            &format!("cc{}more", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.replace('-', "_"),
            &GOOD.replace(ID, &zeros(32)),
            &GOOD.replace("b7ad6b7169203331", &zeros(16)),
            &GOOD.to_uppercase(),
            &GOOD.replace("0af7", "0ag7"),
            &GOOD.replace("-01", "-0x"),
            &GOOD.replacen("00-", "0x-", 1),
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn only_one_traceparent_that_is_good_is_taken() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, HeaderValue::from_static(value));
            }
            Parent::of(&headers)
        };
        let parent = of(&[GOOD]).unwrap();
        assert_eq!(parent.trace_id.to_string(), ID);
        assert_eq!(u64::from_be_bytes(parent.span_id), 0xb7ad_6b71_6920_3331);
        assert_eq!(parent.flags, 1);
        for values in [&[][..], &["00-x"], &[GOOD, GOOD]] {
            assert_eq!(of(values), None);
        }
        assert_ne!(random_trace(), random_trace());
    }
}

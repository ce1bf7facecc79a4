//! What browsers and caches are told of every reply of either program.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

/// Which pages may show what is in a reply.
pub const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// The headers of a reply that does not say otherwise: not to guess what it is, to load nothing for it, to
/// keep it nowhere, since it is the state of a moment, to tell nobody where it came from, and to show it
/// to no page of others.
pub const BROWSER_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'"),
    ),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
];

/// The headers as lines of the head of a reply.
pub fn browser_header_lines() -> String {
    let line = |(name, value): (HeaderName, HeaderValue)| {
        let value = value.to_str().expect("the values are text");
        format!("{name}: {value}\r\n")
    };
    BROWSER_HEADERS.map(line).concat()
}

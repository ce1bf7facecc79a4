//! The checks of every request before it is routed: that it is meant for this gateway, that no
//! foreign web page sends it, and that its caller has a token. And the headers of every response for
//! browsers.
//!
//! Nothing here reads the body of a request.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::Entry;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use axum::response::IntoResponse as _;
use dkvs_client::CallerId;
use dkvs_runtime::browsers::{BROWSER_HEADERS, CROSS_ORIGIN_RESOURCE_POLICY};
use dkvs_runtime::hosts::Authority;
use tokio::sync::watch;

use super::access::{Caller, no_token, wrong_token};
use super::hosts::{BrowserPolicy, Scheme};
use super::operations::{Access, OPERATIONS, matches};
use super::problem::{Problem, ProblemType, excerpt};
use super::validity;
use crate::tokens::Tokens;

const HOST_NOT_ALLOWED: ProblemType = ProblemType {
    status: StatusCode::MISDIRECTED_REQUEST,
    name: "host-not-allowed",
    title: "The gateway does not go by this name",
};

const CROSS_SITE: ProblemType = ProblemType {
    status: StatusCode::FORBIDDEN,
    name: "cross-site",
    title: "A page of another origin may not do this",
};

/// The longest token that is hashed and looked up, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// For how long a browser that came by TLS comes by nothing else: a year.
const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");
const ALL_HEADERS: HeaderValue = HeaderValue::from_static("*");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// For how many seconds a browser may cache the response to a preflight.
const PREFLIGHT_SECONDS: &str = "600";

/// The checks of one worker.
#[derive(Clone)]
pub struct Gate {
    tokens: Option<watch::Receiver<Tokens>>,
    policy: Arc<BrowserPolicy>,
    scheme: Scheme,
}

impl Gate {
    /// Demands one of these tokens, of requests that come by this scheme; without any, every caller
    /// passes.
    pub fn new(
        tokens: Option<watch::Receiver<Tokens>>,
        policy: Arc<BrowserPolicy>,
        scheme: Scheme,
    ) -> Self {
        Self {
            tokens,
            policy,
            scheme,
        }
    }

    /// Whether callers need a token.
    pub(super) fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The tokens, if there are any; only later ones count as a change.
    pub(super) fn tokens_from_now(&self) -> Option<watch::Receiver<Tokens>> {
        let mut tokens = self.tokens.clone()?;
        tokens.mark_unchanged();
        Some(tokens)
    }

    /// The response to a request that is rejected here; none to one that passes. That has its
    /// [`Caller`] in its extensions. `address` is where it came from.
    pub(super) fn reject<B>(
        &self,
        request: &mut Request<B>,
        address: CallerId,
    ) -> Option<Response<Body>> {
        let is_preflight = match self.check_sender(request) {
            Ok(is_preflight) => is_preflight,
            Err(problem) => return Some(problem.into_response()),
        };
        if is_preflight {
            return Some(preflight());
        }
        let caller = match &self.tokens {
            None => Ok(Caller::anyone(address)),
            Some(tokens) => caller(&tokens.borrow(), request.headers()),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(_) if is_open(request.method(), request.uri()) => Caller::without_token(address),
            Err(problem) => return Some(problem.into_response()),
        };
        request.extensions_mut().insert(caller);
        None
    }

    /// Whether a request is the preflight of an allowed page.
    ///
    /// # Errors
    ///
    /// If the request is not valid, is meant for another host, or comes from a page that may not
    /// send it.
    fn check_sender<B>(&self, request: &Request<B>) -> Result<bool, Problem> {
        let (method, headers) = (request.method(), request.headers());
        let authority = validity::check(request, self.scheme)?;
        if let Some(authority) = authority
            && !self.policy.hosts.allow(authority.host)
        {
            return Err(host_not_allowed(authority.host));
        }
        if self.policy.allowed_origin(headers).is_some() {
            return Ok(is_preflight(method, headers));
        }
        if is_from_foreign_page(method, headers, authority, self.scheme) {
            return Err(cross_site());
        }
        Ok(false)
    }

    /// The origin of a page that may read the response, for [`Self::decorate`].
    pub(super) fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        self.policy.allowed_origin(headers).cloned()
    }

    /// Adds what caches and browsers may do with a response, where it does not say so itself.
    pub(super) fn decorate(&self, headers: &mut HeaderMap, allowed_origin: Option<HeaderValue>) {
        let mut add = |name: HeaderName, value: HeaderValue| {
            headers.entry(name).or_insert(value);
        };
        if allowed_origin.is_some() {
            add(CROSS_ORIGIN_RESOURCE_POLICY, CROSS_ORIGIN);
        }
        for (name, value) in BROWSER_HEADERS {
            add(name, value);
        }
        if self.scheme == Scheme::Https {
            add(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
        }
        if allowed_origin.is_some() {
            add(header::ACCESS_CONTROL_EXPOSE_HEADERS, ALL_HEADERS);
        }
        self.vary(headers);
        if let Some(origin) = allowed_origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }

    /// Adds what every response depends on to what this one does, which is `accept` or nothing.
    fn vary(&self, headers: &mut HeaderMap) {
        let has_origins = !self.policy.origins.is_empty();
        let (alone, with_accept) = match (self.has_tokens(), has_origins) {
            (false, false) => return,
            (true, false) => ("authorization", "accept, authorization"),
            (false, true) => ("origin", "accept, origin"),
            (true, true) => ("authorization, origin", "accept, authorization, origin"),
        };
        match headers.entry(header::VARY) {
            Entry::Vacant(entry) => {
                entry.insert(HeaderValue::from_static(alone));
            }
            Entry::Occupied(mut entry) => {
                entry.insert(HeaderValue::from_static(with_accept));
            }
        }
    }
}

/// Whether a browser asks by this request if a page may send another one.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, PUT, POST, DELETE",
        ),
        // `*` does not cover `authorization`.
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, *"),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a browser sends this for a page of another origin, and it may change something. Browsers
/// that are old, or find the gateway's address insecure, send the origin alone. Clients other than
/// browsers send neither header.
fn is_from_foreign_page(
    method: &Method,
    headers: &HeaderMap,
    authority: Option<Authority<'_>>,
    scheme: Scheme,
) -> bool {
    if method.is_safe() {
        return false;
    }
    match (headers.get(SEC_FETCH_SITE), headers.get(header::ORIGIN)) {
        (Some(site), _) => site != "same-origin" && site != "none",
        (None, Some(origin)) => {
            let origin = origin.to_str().ok();
            let is_own = |(origin, own): (&str, Authority<'_>)| scheme.is_own_origin(own, origin);
            !origin.zip(authority).is_some_and(is_own)
        }
        (None, None) => false,
    }
}

fn host_not_allowed(host: &str) -> Problem {
    let shown = excerpt(host);
    let detail = format!(
        "the request is for the host {shown:?}, which this gateway does not go by; if it \
         should, start it with --allowed-host and that name"
    );
    Problem::new(&HOST_NOT_ALLOWED, detail)
}

fn cross_site() -> Problem {
    Problem::new(
        &CROSS_SITE,
        "a browser sent this for a page of another origin, which may not change anything here; \
         if it should, start the gateway with --cors-origin and the page's origin",
    )
}

/// The caller with the token of the one Authorization header.
fn caller(tokens: &Tokens, headers: &HeaderMap) -> Result<Caller, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(no_token)?;
    let token = bearer(value.as_bytes()).ok_or_else(no_token)?;
    if values.next().is_some() || token.len() > TOKEN_BYTES_MAX {
        return Err(wrong_token());
    }
    let token = tokens.find(token).ok_or_else(wrong_token)?;
    Ok(Caller::with(token))
}

/// The token of `Bearer <token>`; schemes have no case.
fn bearer(credentials: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = credentials.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

/// Whether a request is for an operation that needs no token.
fn is_open(method: &Method, uri: &Uri) -> bool {
    OPERATIONS.iter().any(|operation| {
        let is_head = method == Method::HEAD && operation.method == Method::GET;
        operation.access == Access::Open
            && matches(operation.path, uri.path())
            && (operation.method == *method || is_head)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_its_scheme() {
        for (credentials, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER   abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            let expected = token.map(str::as_bytes);
            assert_eq!(bearer(credentials.as_bytes()), expected, "{credentials}");
        }
    }

    #[test]
    fn what_a_foreign_page_may_change_something_with_is_known() {
        for (method, site, origin, is_foreign) in [
            ("PUT", None, None, false),
            ("PUT", Some("none"), None, false),
            ("PUT", Some("same-origin"), Some("http://kv:80"), false),
            ("PUT", Some("cross-site"), None, true),
            ("POST", Some("same-site"), None, true),
            ("POST", Some("cross-site"), Some("http://kv:80"), true),
            ("DELETE", Some("anything"), None, true),
            ("POST", None, Some("http://kv:80"), false),
            ("POST", None, Some("http://KV:80"), false),
            ("POST", None, Some("https://KV:80"), true),
            ("POST", None, Some("https://kv"), true),
            ("POST", None, Some("http://kv"), false),
            ("POST", None, Some("http://kv:8080"), true),
            ("POST", None, Some("http://other"), true),
            ("POST", None, Some("null"), true),
            ("GET", Some("cross-site"), Some("http://other"), false),
            ("HEAD", Some("cross-site"), None, false),
            ("OPTIONS", Some("cross-site"), Some("http://other"), false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(SEC_FETCH_SITE, site), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let method = method.parse().unwrap();
            let own = Authority::parse("kv:80");
            let found = is_from_foreign_page(&method, &headers, own, Scheme::Http);
            assert_eq!(found, is_foreign, "{method} {site:?} {origin:?}");
        }
    }
}

//! What every request has to be, whoever sends it and whatever it is for: of a method that the gateway
//! knows, with a target and a host that are well-formed, and without transfer codings and
//! expectations that it cannot meet (RFC 9110 and 9112).
//!
//! The HTTP library has checked before that the bytes are a message, and where it ends.

use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use dkvs_runtime::hosts::{Authority, authority};

use super::hosts::Scheme;
use super::problem::{Problem, ProblemType, excerpt};

const INVALID_HOST: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "invalid-host",
    title: "The Host header is not valid",
};

const INVALID_TARGET: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "invalid-target",
    title: "The request target is not valid",
};

const WRONG_SCHEME: ProblemType = ProblemType {
    status: StatusCode::MISDIRECTED_REQUEST,
    ..INVALID_TARGET
};

const EXPECTATION_FAILED: ProblemType = ProblemType {
    status: StatusCode::EXPECTATION_FAILED,
    name: "expectation-failed",
    title: "The gateway does not meet this expectation",
};

const METHOD_NOT_IMPLEMENTED: ProblemType = ProblemType {
    status: StatusCode::NOT_IMPLEMENTED,
    name: "method-not-implemented",
    title: "The gateway does not know this method",
};

const TRANSFER_CODING: ProblemType = ProblemType {
    status: StatusCode::NOT_IMPLEMENTED,
    name: "transfer-coding",
    title: "The gateway does not know this transfer coding",
};

const CHUNKED_TWICE: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    ..TRANSFER_CODING
};

/// The length of the longest method that is served, OPTIONS, in bytes. A longer one is none that the
/// gateway knows, whatever the path.
const METHOD_BYTES_MAX: usize = 7;

/// Checks a request that came by this scheme, and returns the host that it is for: that of its target
/// if it is a URL, else of its one Host header, which only HTTP/1.0 may leave out.
pub(super) fn check<B>(
    request: &Request<B>,
    scheme: Scheme,
) -> Result<Option<Authority<'_>>, Problem> {
    check_method(request.method())?;
    check_target(request.method(), request.uri(), scheme)?;
    let authority = authority(request).map_err(invalid_host)?;
    check_transfer_coding(request.headers())?;
    check_expectation(request.headers())?;
    Ok(authority)
}

fn check_method(method: &Method) -> Result<(), Problem> {
    if method.as_str().len() <= METHOD_BYTES_MAX && method != Method::CONNECT {
        return Ok(());
    }
    let method = excerpt(method.as_str());
    let detail = format!("no path takes the method {method}");
    Err(Problem::new(&METHOD_NOT_IMPLEMENTED, detail))
}

fn invalid_host(what: &'static str) -> Problem {
    let detail = format!("{what}; a request has exactly one, with the host that it is sent to");
    Problem::new(&INVALID_HOST, detail)
}

/// A target is a path, or a URL, or `*` (RFC 9112, section 3.2).
fn check_target(method: &Method, uri: &Uri, scheme: Scheme) -> Result<(), Problem> {
    let Some(given) = uri.scheme_str() else {
        return match uri.authority() {
            Some(_) => Err(invalid_target("a host without a path is for CONNECT alone")),
            None if uri.path() == "*" && method != Method::OPTIONS => {
                Err(invalid_target("* is for OPTIONS alone"))
            }
            None => Ok(()),
        };
    };
    if !given.eq_ignore_ascii_case(scheme.name()) {
        let detail = format!(
            "the request target is a URL of another scheme than {}, by which the request came",
            scheme.name()
        );
        return Err(Problem::new(&WRONG_SCHEME, detail));
    }
    let authority = uri.authority().map(|it| it.as_str());
    match authority.and_then(Authority::parse) {
        Some(_) => Ok(()),
        None => Err(invalid_target(
            "its host is none, or stands behind the name of a user",
        )),
    }
}

fn invalid_target(what: &'static str) -> Problem {
    let detail = format!("the request target is not valid: {what}");
    Problem::new(&INVALID_TARGET, detail)
}

/// The HTTP library has checked that `chunked` comes last, and takes whatever comes before it for part
/// of the body.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut chunked = 0;
    for coding in lines.flat_map(|line| members(line.as_bytes())) {
        if !coding.eq_ignore_ascii_case(b"chunked") {
            let detail = "the gateway takes the transfer coding chunked, and no other";
            return Err(Problem::new(&TRANSFER_CODING, detail));
        }
        chunked += 1;
    }
    if chunked > 1 {
        let detail = "the body is said to be chunked more than once";
        return Err(Problem::new(&CHUNKED_TWICE, detail));
    }
    Ok(())
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Problem> {
    let lines = headers.get_all(header::EXPECT).iter();
    let mut expected = lines.flat_map(|line| members(line.as_bytes()));
    if expected.all(|one| one.eq_ignore_ascii_case(b"100-continue")) {
        return Ok(());
    }
    let detail = "the only expectation that the gateway meets is 100-continue";
    Err(Problem::new(&EXPECTATION_FAILED, detail))
}

/// The members of a list; empty ones do not count.
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of a request's rejection; 0 for one that passes.
    fn status_of(request: &Request<()>, scheme: Scheme) -> u16 {
        check(request, scheme).map_or_else(|problem| problem.status(), |_| 0)
    }

    fn request(method: &str, target: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(target);
        request.header(header::HOST, "kv").body(()).unwrap()
    }

    #[test]
    fn a_target_has_a_form_that_its_method_takes_and_the_scheme_of_the_connection() {
        for (method, target, http, https) in [
            ("GET", "/livez", 0, 0),
            ("GET", "//livez", 0, 0),
            ("OPTIONS", "*", 0, 0),
            ("GET", "*", 400, 400),
            ("PUT", "kv:80", 400, 400),
            ("GET", "kv", 400, 400),
            ("CONNECT", "kv:80", 501, 501),
            ("GET", "http://kv/", 0, 421),
            ("GET", "HTTP://kv:80", 0, 421),
            ("GET", "https://kv/", 421, 0),
            ("GET", "ftp://kv/", 421, 421),
            ("GET", "http://user@kv/", 400, 421),
            ("GET", "http://kv:99999/", 400, 421),
            ("BREW", "/", 0, 0),
            ("PROPFIND", "/", 501, 501),
        ] {
            let Ok(target) = target.parse::<Uri>() else {
                // The HTTP library refuses it.
                assert_ne!(http, 0, "{target}");
                continue;
            };
            let mut request = request(method, "/");
            *request.uri_mut() = target;
            let found = [Scheme::Http, Scheme::Https].map(|scheme| status_of(&request, scheme));
            assert_eq!(found, [http, https], "{method} {}", request.uri());
        }
    }

    #[test]
    fn no_coding_but_chunked_and_no_expectation_but_continue_is_met() {
        for (name, lines, expected) in [
            (header::TRANSFER_ENCODING, &["chunked"][..], 0),
            (header::TRANSFER_ENCODING, &["Chunked,"], 0),
            (header::TRANSFER_ENCODING, &["chunked, chunked"], 400),
            (header::TRANSFER_ENCODING, &["chunked", "chunked"], 400),
            (header::TRANSFER_ENCODING, &["gzip, chunked"], 501),
            (header::TRANSFER_ENCODING, &["identity", "chunked"], 501),
            (header::EXPECT, &["100-continue"], 0),
            (header::EXPECT, &["100-Continue", "100-continue"], 0),
            (header::EXPECT, &["200-ok"], 417),
            (header::EXPECT, &["100-continue, x"], 417),
            (header::EXPECT, &["100-continue;a=b"], 417),
        ] {
            let mut request = request("PUT", "/kv/k");
            for line in lines {
                request.headers_mut().append(&name, line.parse().unwrap());
            }
            assert_eq!(
                status_of(&request, Scheme::Http),
                expected,
                "{name} {lines:?}"
            );
        }
    }
}

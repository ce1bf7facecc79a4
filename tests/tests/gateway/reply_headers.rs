//! What caches and browsers are told by every reply.

use dkvs_gateway::http::{OPERATIONS, Operation};
use dkvs_gateway::tokens::{Scopes, mint};
use dkvs_tests::http::{Reply, client, put, send, target_of};
use dkvs_tests::keys::set_mode;
use dkvs_tests::process::{Gateway, ServersFile};
use dkvs_tests::programs;

/// A token that is good for everything, and the file that has it.
pub struct Reader {
    pub token: String,
    pub file: ServersFile,
}

pub fn reader() -> Reader {
    let minted = mint("reader", Scopes::parse("read,write,admin").unwrap(), &[]).unwrap();
    let file = ServersFile::with_text(&minted.line);
    set_mode(&file, 0o600);
    Reader {
        token: minted.token,
        file,
    }
}

/// The Cache-Control of a success.
fn caching(operation: &Operation, has_tokens: bool) -> &'static str {
    match operation.id.as_str() {
        "getValue" | "headValue" if has_tokens => "private, no-cache",
        "getValue" | "headValue" | "getConsole" | "getConsoleFile" | "getOpenapiYaml"
        | "getOpenapiJson" | "getDocs" => "no-cache",
        "getDocsScript" | "getDocsViewer" | "getDocsStyle" => "public, max-age=3600",
        _ => "no-store",
    }
}

/// Whether the form of a success depends on Accept.
fn has_forms(operation: &Operation) -> bool {
    ["getValue", "headValue", "listKeys", "getMetrics"].contains(&operation.id.as_str())
}

fn vary(has_forms: bool, has_tokens: bool, has_origins: bool) -> String {
    let parts = [
        (has_forms, "accept"),
        (has_tokens, "authorization"),
        (has_origins, "origin"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    parts.join(", ")
}

fn assert_browser_headers(reply: &Reply, is_allowed_page: bool, context: &str) {
    for (name, expected) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        (
            "cross-origin-resource-policy",
            if is_allowed_page {
                "cross-origin"
            } else {
                "same-origin"
            },
        ),
        // Only TLS has it; the tests of TLS show it.
        ("strict-transport-security", ""),
    ] {
        assert_eq!(
            reply.header(name),
            expected,
            "{name} of {context}: {reply:?}"
        );
    }
    let policy = reply.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{context}");
    for name in [
        "cache-control",
        "content-security-policy",
        "x-content-type-options",
    ] {
        assert_eq!(
            reply.headers.get_all(name).iter().count(),
            1,
            "{name} of {context}"
        );
    }
}

async fn every_operation(gateway: &Gateway, known: Option<&Reader>, origin: Option<&str>) {
    let (has_tokens, has_origins) = (known.is_some(), origin.is_some());
    let client = client();
    let ask = |operation: &Operation, more: &str| {
        let target = target_of(operation.path) + more;
        let request = client.request(operation.method.clone(), gateway.url(&target));
        let request = match known {
            Some(known) => request.bearer_auth(&known.token),
            None => request,
        };
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        send(match operation.id.as_str() {
            "runBatch" => request.body(r#"{"operations":[{"op":"get","key":"k"}]}"#),
            _ => request,
        })
    };
    let mut successes = 0;
    for operation in OPERATIONS {
        if operation.id.as_str() == "deleteValue" {
            continue;
        }
        let context = format!("{} of {known}", operation.id, known = known.is_some());
        let reply = ask(operation, "").await;
        assert_browser_headers(&reply, has_origins, &context);
        if reply.status == 200 {
            successes += 1;
            let expected = caching(operation, has_tokens);
            assert_eq!(reply.header("cache-control"), expected, "{context}");
            let expected = vary(has_forms(operation), has_tokens, has_origins);
            assert_eq!(reply.header("vary"), expected, "{context}");
        } else {
            assert_eq!(reply.header("cache-control"), "no-store", "{context}");
        }
        // A problem of each.
        let problem = ask(operation, "?nothing=1").await;
        assert!(problem.status.is_client_error(), "{context}");
        assert_browser_headers(&problem, has_origins, &context);
        assert_eq!(problem.header("cache-control"), "no-store", "{context}");
        let expected = vary(false, has_tokens, has_origins);
        assert_eq!(problem.header("vary"), expected, "{context}");
    }
    // All but the switches, of which there is no such server.
    assert_eq!(successes, OPERATIONS.len() - 3);
}

#[tokio::test]
async fn every_reply_says_what_caches_and_browsers_may_do_with_it() {
    const APP: &str = "https://app.example";
    let known = reader();
    for has_tokens in [false, true] {
        for origin in [None, Some(APP)] {
            let mut arguments = vec!["--embedded", "3"];
            if has_tokens {
                arguments.extend(["--tokens", known.file.path()]);
            }
            if origin.is_some() {
                arguments.extend(["--cors-origin", APP]);
            }
            let gateway = programs!().gateway(&arguments);
            let request = client().put(gateway.url("/kv/k")).bearer_auth(&known.token);
            assert_eq!(send(request.body("v")).await.status, 200);
            every_operation(&gateway, has_tokens.then_some(&known), origin).await;
        }
    }
}

#[tokio::test]
async fn failures_are_kept_by_no_cache() {
    let known = reader();
    let tokens = ["--tokens", known.file.path()];
    let embedded = ["--embedded", "3", "--max-value", "1024"];
    let gateway = programs!().gateway(&[&embedded[..], &tokens].concat());
    let silent = programs!().cluster(3, &tokens);
    for node in &silent.nodes {
        node.process.stop();
    }
    let client = client();
    let plain =
        |method: &str, path: &str| client.request(method.parse().unwrap(), gateway.url(path));
    let with = |method: &str, path: &str| plain(method, path).bearer_auth(&known.token);
    let unanswered = |path: &str| {
        let request = client.get(silent.gateway.url(path));
        request.bearer_auth(&known.token)
    };
    assert_eq!(send(with("PUT", "/kv/k").body("v")).await.status, 200);
    for (request, status) in [
        (with("GET", "/kv/k?n=x"), 400),
        (plain("GET", "/kv/k"), 401),
        (
            with("PUT", "/kv/k").header("sec-fetch-site", "cross-site"),
            403,
        ),
        (with("GET", "/kv/none"), 404),
        (with("GET", "/nothing"), 404),
        (with("PATCH", "/kv/k"), 405),
        (with("GET", "/kv/k").header("accept", "image/png"), 406),
        (with("GET", "/kv/k").header("if-match", "\"a\""), 412),
        (with("PUT", "/kv/k").header("content-encoding", "gzip"), 415),
        (
            with("GET", "/kv/k?raw=true").header("range", "bytes=9-"),
            416,
        ),
        (with("PUT", "/kv/k").header("expect", "more"), 417),
        (with("GET", "/kv/k").header("host", "evil.example"), 421),
        (with("PROPFIND", "/kv/k"), 501),
        (with("PUT", "/kv/k").header("if-match", "*"), 501),
        (with("PUT", "/kv/k").body("v".repeat(1_025)), 413),
        // No datagram to a server is as long.
        (unanswered(&format!("/kv/{}", "k".repeat(2_000))), 414),
        (unanswered("/readyz"), 503),
        (unanswered("/kv/k?timeout_ms=1"), 504),
    ] {
        let reply = send(request).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_browser_headers(&reply, false, &status.to_string());
        assert_eq!(reply.header("cache-control"), "no-store", "{reply:?}");
        assert_eq!(reply.header("vary"), "authorization", "{reply:?}");
        let is_401 = status == 401;
        assert_eq!(!reply.header("www-authenticate").is_empty(), is_401);
        assert_eq!(!reply.header("allow").is_empty(), status == 405);
    }
    let gone = put(&client, gateway.url("/kv/k"), "v").await;
    assert_eq!(gone.status, 401);
}

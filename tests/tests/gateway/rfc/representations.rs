//! RFC 9110, section 8: what is sent and stored, and in which form it is given.

use dkvs_tests::http::{Connection, exchange, target_of};
use dkvs_tests::programs;

use super::{ask, shown, stored};

#[tokio::test]
async fn every_reply_with_a_body_has_its_type_and_length_and_its_date() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    stored(&gateway, "k", "text/plain", "v").await;
    for line in [
        "GET /kv/k",
        "GET /kv/k?raw=true",
        "GET /kv/none",
        "GET /kv",
        "GET /metrics",
        "GET /",
        "GET /docs",
        "GET /openapi.yaml",
        "PUT /kv/k",
        "DELETE /kv/k",
        "POST /batch",
        "GET /nothing",
        "PATCH /kv/k",
    ] {
        let reply = ask(&gateway, line, "", "").await;
        assert_ne!(reply.header("content-type"), "", "{line}");
        let length = reply.header("content-length");
        assert_eq!(length, reply.body.len().to_string(), "{line}");
        assert_eq!(reply.header("transfer-encoding"), "", "{line}");
        let date = reply.header("date");
        assert!(date.ends_with(" GMT") && date.len() == 29, "{line}: {date}");
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_its_get() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    stored(&gateway, "k", "text/plain", "a value").await;
    let targets = [
        "/kv/k?raw=true",
        "/kv/k",
        "/kv/none",
        "/kv/k?n=9",
        "/nothing",
        "/kv/",
    ];
    let of_table = dkvs_gateway::http::OPERATIONS
        .iter()
        .filter(|it| it.method == "GET" && it.path != "/events")
        .map(|it| target_of(it.path));
    for target in targets.map(str::to_owned).into_iter().chain(of_table) {
        let get = ask(
            &gateway,
            &format!("GET {target}"),
            "x-request-id: a\r\n",
            "",
        )
        .await;
        let mut connection = Connection::open(gateway.addr).await;
        let head = format!("HEAD {target} HTTP/1.1\r\nhost: localhost\r\nx-request-id: a\r\n\r\n");
        connection.send(head).await;
        let head = connection.reply_to("HEAD").await;
        assert_eq!(head.status, get.status, "{target}");
        let names = |headers: &reqwest::header::HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&head.headers), names(&get.headers), "{target}");
        for (name, value) in &get.headers {
            // These are of the moment, or of a document that tells of it.
            let is_of_moment = ["date", "server-timing"].contains(&name.as_str())
                || name == "content-length"
                    && (get.json.get("elapsed_us").is_some()
                        || get.json.get("replicas").is_some()
                        || get.json.get("servers").is_some()
                        || target == "/metrics");
            if !is_of_moment {
                assert_eq!(head.headers.get(name), Some(value), "{name} of {target}");
            }
        }
        // There was no body.
        connection
            .send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await;
        assert_eq!(connection.reply().await.json["status"], "alive", "{target}");
    }
}

#[tokio::test]
async fn a_reply_without_content_has_no_length() {
    let arguments = ["--embedded", "1", "--cors-origin", "https://app.example"];
    let gateway = programs!().gateway(&arguments);
    let preflight = "origin: https://app.example\r\naccess-control-request-method: PUT\r\n";
    for (line, headers) in [("OPTIONS /kv/k", preflight), ("OPTIONS *", "")] {
        let reply = ask(&gateway, line, headers, "").await;
        assert_eq!(reply.status, 204, "{line}");
        for name in ["content-length", "transfer-encoding", "content-type"] {
            assert_eq!(reply.header(name), "", "{line}");
        }
    }
    let tunnel = "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n";
    let reply = exchange(gateway.addr, tunnel).await;
    assert_eq!(shown(&reply), (501, "method-not-implemented"));
}

#[tokio::test]
async fn a_body_that_is_coded_is_refused_and_says_what_is_taken() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    for coding in [
        "gzip",
        "x-gzip",
        "br",
        "compress",
        "identity, gzip",
        "nonsense",
        "GZIP",
    ] {
        for line in ["PUT /kv/k", "POST /batch"] {
            let headers = format!("content-encoding: {coding}\r\ncontent-length: 2\r\n");
            let reply = ask(&gateway, line, &headers, "{}").await;
            assert_eq!(shown(&reply), (415, "content-coding"), "{line} {coding}");
            assert_eq!(reply.header("accept-encoding"), "identity");
        }
    }
    assert_eq!(ask(&gateway, "GET /kv/k", "", "").await.status, 404);
    for coding in ["identity", "", "Identity, "] {
        let headers = format!("content-encoding: {coding}\r\ncontent-length: 1\r\n");
        let reply = ask(&gateway, "PUT /kv/k", &headers, "v").await;
        assert_eq!(reply.status, 200, "{coding}");
    }
    let read = ask(
        &gateway,
        "GET /kv/k?raw=true",
        "accept-encoding: gzip\r\n",
        "",
    )
    .await;
    assert_eq!(read.header("content-encoding"), "");
}

#[tokio::test]
async fn a_content_location_of_a_put_changes_nothing_and_is_not_kept() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let headers = "content-location: /kv/other\r\ncontent-language: de\r\ncontent-length: 1\r\n";
    assert_eq!(ask(&gateway, "PUT /kv/k", headers, "v").await.status, 200);
    assert_eq!(ask(&gateway, "GET /kv/other", "", "").await.status, 404);
    let read = ask(&gateway, "GET /kv/k?raw=true", "", "").await;
    assert_eq!(read.body, b"v");
    assert_eq!(read.header("content-location"), "");
    let twice = "content-type: a/b\r\ncontent-type: c/d\r\ncontent-length: 1\r\n";
    let reply = ask(&gateway, "PUT /kv/k", twice, "w").await;
    assert_eq!(shown(&reply), (400, "invalid-value"));
}

#[tokio::test]
async fn an_entity_tag_is_strong_for_the_bytes_and_weak_for_what_differs_each_time() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut seen = Vec::new();
    for value in ["a", "b", "a"] {
        let tag = stored(&gateway, "k", "text/plain", value).await;
        let raw = ask(&gateway, "GET /kv/k?raw=true", "", "").await;
        assert_eq!(raw.header("etag"), format!("\"{tag}\""));
        // By whatever way the bytes are asked for.
        for accept in ["application/octet-stream", "text/plain"] {
            let headers = format!("accept: {accept}\r\n");
            let same = ask(&gateway, "GET /kv/k", &headers, "").await;
            assert_eq!(same.header("etag"), raw.header("etag"));
            assert_eq!(same.header("content-type"), "text/plain");
            assert_eq!(same.body, value.as_bytes());
        }
        let json = ask(&gateway, "GET /kv/k", "", "").await;
        assert_eq!(json.header("etag"), format!("W/\"{tag}\""));
        // Its date is never told: see the decision on it.
        assert_eq!(raw.header("last-modified"), "");
        assert!(!seen.contains(&tag));
        seen.push(tag);
    }
}

#[tokio::test]
async fn a_value_is_given_as_its_own_type_where_that_is_what_the_caller_accepts() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    const JSON: &str = "application/json";
    let gateway = programs!().gateway(&["--embedded", "3"]);
    for (stored_as, accept, given) in [
        ("text/plain", "text/plain", "text/plain"),
        ("text/plain", "text/*", "text/plain"),
        (
            "text/plain",
            "text/plain, application/json;q=0.9",
            "text/plain",
        ),
        ("text/plain", "text/plain, */*", JSON),
        ("text/plain", "*/*", JSON),
        ("text/plain", BROWSER, JSON),
        ("text/plain", "text/html", ""),
        ("text/plain", "text/plain;q=0", ""),
        (
            "text/plain;charset=utf-8",
            "text/plain",
            "text/plain;charset=utf-8",
        ),
        ("text/plain;charset=utf-8", "text/plain;charset=utf-16", ""),
        (
            "image/png",
            "image/avif,image/*;q=0.8,*/*;q=0.5",
            "image/png",
        ),
        ("image/png", "application/octet-stream", "image/png"),
        ("text/html", BROWSER, "text/html"),
        (JSON, JSON, JSON),
    ] {
        stored(&gateway, "k", stored_as, "{}").await;
        let headers = format!("accept: {accept}\r\n");
        let reply = ask(&gateway, "GET /kv/k", &headers, "").await;
        if given.is_empty() {
            assert_eq!(
                shown(&reply),
                (406, "not-acceptable"),
                "{stored_as} {accept}"
            );
            continue;
        }
        assert_eq!(reply.header("content-type"), given, "{stored_as} {accept}");
        let is_document = reply.json["content_type"] == stored_as;
        assert_eq!(is_document, given == JSON, "{stored_as} {accept}");
        if !is_document {
            assert_eq!(reply.body, b"{}");
            // Whatever is in it, a browser runs nothing of it.
            let policy = reply.header("content-security-policy");
            assert_eq!(policy, "default-src 'none'; sandbox");
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
        }
        assert_eq!(reply.header("vary"), "accept");
    }
}

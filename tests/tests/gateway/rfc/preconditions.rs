//! RFC 9110, section 13: conditional requests.

use dkvs_tests::http::{exchange, target_of};
use dkvs_tests::programs;

use super::{ask, shown, stored};

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const FAR_AHEAD: &str = "Fri, 31 Dec 9999 23:59:59 GMT";

const FAILED: (u16, &str) = (412, "precondition-failed");

#[tokio::test]
async fn preconditions_of_a_read_are_evaluated_in_their_order() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let tag = stored(&gateway, "k", "text/plain", "0123456789").await;
    let (strong, weak) = (format!("\"{tag}\""), format!("W/\"{tag}\""));
    let list = format!("\"a, b\", {strong}");
    let ok = (200, "");
    let held = (304, "");
    for (conditions, raw, json) in [
        (vec![], ok, ok),
        // The strong comparison.
        (vec![("if-match", &*strong)], ok, FAILED),
        (vec![("if-match", &*weak)], FAILED, FAILED),
        (vec![("if-match", &*list)], ok, FAILED),
        (vec![("if-match", "\"other\"")], FAILED, FAILED),
        (vec![("if-match", "*")], ok, ok),
        (vec![("if-match", "nonsense")], FAILED, FAILED),
        // The weak one.
        (vec![("if-none-match", &*strong)], held, held),
        (vec![("if-none-match", &*weak)], held, held),
        (vec![("if-none-match", &*list)], held, held),
        (vec![("if-none-match", "*")], held, held),
        (vec![("if-none-match", "\"other\"")], ok, ok),
        (vec![("if-unmodified-since", LONG_AGO)], FAILED, FAILED),
        (vec![("if-unmodified-since", FAR_AHEAD)], ok, ok),
        // In the two obsolete forms.
        (
            vec![("if-unmodified-since", "Sunday, 06-Nov-94 08:49:37 GMT")],
            FAILED,
            FAILED,
        ),
        (
            vec![("if-unmodified-since", "Sun Nov  6 08:49:37 1994")],
            FAILED,
            FAILED,
        ),
        (vec![("if-unmodified-since", "long ago")], ok, ok),
        (
            vec![
                ("if-unmodified-since", LONG_AGO),
                ("if-unmodified-since", LONG_AGO),
            ],
            ok,
            ok,
        ),
        // There is no modification date that a caller might have.
        (vec![("if-modified-since", FAR_AHEAD)], ok, ok),
        (vec![("if-modified-since", LONG_AGO)], ok, ok),
        // One makes another void, or comes before it.
        (
            vec![("if-match", "*"), ("if-unmodified-since", LONG_AGO)],
            ok,
            ok,
        ),
        (
            vec![("if-match", "\"other\""), ("if-none-match", &*strong)],
            FAILED,
            FAILED,
        ),
        (
            vec![("if-match", "*"), ("if-none-match", &*strong)],
            held,
            held,
        ),
        (
            vec![
                ("if-unmodified-since", LONG_AGO),
                ("if-none-match", &*strong),
            ],
            FAILED,
            FAILED,
        ),
        (
            vec![
                ("if-none-match", "\"other\""),
                ("if-modified-since", FAR_AHEAD),
            ],
            ok,
            ok,
        ),
    ] {
        let headers: String = conditions
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        for (target, expected) in [("/kv/k?raw=true", raw), ("/kv/k", json)] {
            let get = ask(&gateway, &format!("GET {target}"), &headers, "").await;
            assert_eq!(shown(&get), expected, "{target} {headers}");
            if get.status == 412 {
                assert_eq!(get.json["tag"], tag);
            }
            let head = dkvs_tests::http::client().head(gateway.url(target));
            let head = conditions
                .iter()
                .fold(head, |head, (name, value)| head.header(*name, *value));
            let head = dkvs_tests::http::send(head).await;
            assert_eq!(head.status, expected.0, "HEAD {target} {headers}");
        }
    }
}

#[tokio::test]
async fn a_download_in_parts_never_splices_two_versions() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let first = stored(&gateway, "k", "text/plain", "aaaaaaaaaa").await;
    let line = "GET /kv/k?raw=true";
    let begin = ask(&gateway, line, "range: bytes=0-4\r\n", "").await;
    assert_eq!((begin.status.as_u16(), &*begin.body), (206, &b"aaaaa"[..]));
    stored(&gateway, "k", "text/plain", "bbbbbbbbbb").await;
    for condition in [
        format!("if-match: \"{first}\""),
        format!("if-unmodified-since: {LONG_AGO}"),
    ] {
        let headers = format!("range: bytes=5-\r\n{condition}\r\n");
        let rest = ask(&gateway, line, &headers, "").await;
        assert_eq!(shown(&rest), FAILED, "{condition}");
    }
    let headers = format!("range: bytes=5-\r\nif-range: \"{first}\"\r\n");
    let rest = ask(&gateway, line, &headers, "").await;
    assert_eq!(
        (rest.status.as_u16(), &*rest.body),
        (200, &b"bbbbbbbbbb"[..])
    );
}

#[tokio::test]
async fn preconditions_do_not_matter_where_the_reply_is_no_success_without_them() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    stored(&gateway, "k", "text/plain", "v").await;
    let conditions = format!("if-match: \"other\"\r\nif-unmodified-since: {LONG_AGO}\r\n");
    for (line, accept, expected) in [
        ("GET /kv/none", "*/*", (404, "key-not-found")),
        ("GET /kv/k?n=9", "*/*", (400, "invalid-parameter")),
        ("GET /kv/k", "image/png", (406, "not-acceptable")),
        ("PUT /kv/k?n=9", "*/*", (400, "invalid-parameter")),
        ("GET /nothing", "*/*", (404, "no-such-path")),
        ("POST /nothing", "*/*", (404, "no-such-path")),
        ("POST /batch", "*/*", (400, "invalid-body")),
        ("POST /livez", "*/*", (405, "method-not-allowed")),
        // These have nothing to do with a representation.
        ("OPTIONS *", "*/*", (204, "")),
        ("OPTIONS /kv/k", "*/*", (405, "method-not-allowed")),
        ("TRACE /kv/k", "*/*", (405, "method-not-allowed")),
    ] {
        let headers = format!("{conditions}accept: {accept}\r\n");
        let reply = ask(&gateway, line, &headers, "").await;
        assert_eq!(shown(&reply), expected, "{line}");
    }
    // Before a range that cannot be given.
    let headers = "if-none-match: *\r\nrange: bytes=99-\r\n";
    let reply = ask(&gateway, "GET /kv/k?raw=true", headers, "").await;
    assert_eq!(shown(&reply), (304, ""));
}

#[tokio::test]
async fn a_write_that_depends_on_a_version_is_refused_and_not_done() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let tag = stored(&gateway, "k", "text/plain", "v").await;
    for condition in [
        format!("if-match: \"{tag}\""),
        "if-match: *".to_owned(),
        "if-match: \"other\"".to_owned(),
        "if-none-match: *".to_owned(),
        "if-none-match: \"other\"".to_owned(),
        format!("if-unmodified-since: {FAR_AHEAD}"),
        format!("if-unmodified-since: {LONG_AGO}"),
    ] {
        let headers = format!("{condition}\r\ncontent-length: 1\r\n");
        for key in ["k", "new"] {
            let put = ask(&gateway, &format!("PUT /kv/{key}"), &headers, "w").await;
            assert_eq!(shown(&put), (501, "not-supported"), "{condition}");
            assert_eq!(put.json["outcome"], serde_json::Value::Null);
        }
        let delete = ask(&gateway, "DELETE /kv/k", &format!("{condition}\r\n"), "").await;
        assert_eq!(shown(&delete), (501, "not-supported"), "{condition}");
    }
    let kept = ask(&gateway, "GET /kv/k", "", "").await;
    assert_eq!(
        (&kept.json["value"], &kept.json["tag"]),
        (&"v".into(), &tag.into())
    );
    assert_eq!(ask(&gateway, "GET /kv/new", "", "").await.status, 404);
    // That is for reads alone, and is passed over elsewhere.
    let headers = format!("if-modified-since: {FAR_AHEAD}\r\ncontent-length: 1\r\n");
    let put = ask(&gateway, "PUT /kv/k", &headers, "w").await;
    assert_eq!(put.status, 200);
}

#[tokio::test]
async fn what_has_no_version_is_there_and_is_none_that_is_named() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    for operation in dkvs_gateway::http::OPERATIONS {
        let path = operation.path;
        if operation.method != "GET" || path == "/kv/{key}" {
            continue;
        }
        let target = target_of(path);
        let etag = match operation.id.as_str() {
            "getConsole" | "getConsoleFile" => {
                let whole = ask(&gateway, &format!("GET {target}"), "", "").await;
                whole.header("etag").to_owned()
            }
            _ => "\"\"".to_owned(),
        };
        let has_etag = etag.len() > 2;
        for (condition, expected) in [
            ("if-match: *", 200),
            ("if-match: \"other\"", 412),
            ("if-none-match: *", 304),
            ("if-none-match: \"other\"", 200),
            (
                &format!("if-match: {etag}"),
                if has_etag { 200 } else { 412 },
            ),
            (
                &format!("if-none-match: {etag}"),
                if has_etag { 304 } else { 200 },
            ),
            (&format!("if-modified-since: {FAR_AHEAD}"), 200),
            (&format!("if-unmodified-since: {LONG_AGO}"), 200),
        ] {
            let request = dkvs_tests::http::client().get(gateway.url(&target));
            let (name, value) = condition.split_once(": ").unwrap();
            let reply = dkvs_tests::http::send(request.header(name, value)).await;
            assert_eq!(reply.status, expected, "{target} {condition}");
            if reply.status == 304 {
                assert_eq!(reply.body, b"");
                assert_eq!(reply.header("content-type"), "");
                let given = reply.header("etag");
                assert!(given == etag || !has_etag && given.is_empty());
            }
        }
    }
    // A POST changes something that has no representation.
    let batch = r#"{"operations":[{"op":"put","key":"k","value":"v"}]}"#;
    for (condition, expected) in [
        ("if-match: *", FAILED),
        ("if-match: \"other\"", FAILED),
        ("if-none-match: *", (200, "")),
        (
            "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT",
            (200, ""),
        ),
    ] {
        let headers = format!("{condition}\r\ncontent-length: {}\r\n", batch.len());
        let reply = ask(&gateway, "POST /batch", &headers, batch).await;
        assert_eq!(shown(&reply), expected, "{condition}");
        let absent = ask(&gateway, "GET /kv/k", "", "").await;
        assert_eq!(absent.status == 404, expected == FAILED, "{condition}");
    }
}

#[tokio::test]
async fn a_304_has_what_a_cache_needs_and_no_length_of_its_own() {
    let known = super::super::reply_headers::reader();
    let gateway = programs!().gateway(&["--embedded", "3", "--tokens", known.file.path()]);
    let authorization = format!("authorization: Bearer {}\r\n", known.token);
    let headers = format!("{authorization}content-type: text/html\r\ncontent-length: 2\r\n");
    let put = ask(&gateway, "PUT /kv/k", &headers, "<p").await;
    assert_eq!(put.status, 200, "{put:?}");
    for target in ["/kv/k", "/kv/k?raw=true", "/"] {
        let line = format!("GET {target}");
        let whole = ask(&gateway, &line, &authorization, "").await;
        let etag = whole.header("etag");
        let headers = format!("{authorization}if-none-match: {etag}\r\n");
        let mut held = dkvs_tests::http::Connection::open(gateway.addr).await;
        held.send(format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"
        ))
        .await;
        let held = held.reply_to("HEAD").await;
        assert_eq!(held.status, 304);
        for name in [
            "etag",
            "vary",
            "cache-control",
            "content-security-policy",
            "x-content-type-options",
            "cross-origin-resource-policy",
            "referrer-policy",
        ] {
            assert_eq!(held.header(name), whole.header(name), "{name} of {target}");
            assert_ne!(held.header(name), "", "{name} of {target}");
        }
        assert_ne!(held.header("date"), "");
        for name in ["content-length", "transfer-encoding", "content-type"] {
            assert_eq!(held.header(name), "", "{name} of {target}");
        }
    }
    let unknown = exchange(
        gateway.addr,
        "GET /kv/k HTTP/1.1\r\nhost: localhost\r\nif-none-match: *\r\n\r\n",
    )
    .await;
    assert_eq!(shown(&unknown), (401, "unauthorized"));
}

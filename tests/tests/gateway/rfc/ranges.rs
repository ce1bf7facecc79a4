//! RFC 9110, section 14: parts of a value.

use dkvs_tests::http::Connection;
use dkvs_tests::programs;

use super::{ask, shown, stored};

const RAW: &str = "GET /kv/k?raw=true";

#[tokio::test]
async fn one_range_of_bytes_is_given_in_part_and_anything_else_in_whole() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let tag = stored(&gateway, "k", "text/plain", "0123456789").await;
    const WHOLE: (u16, &str, &str) = (200, "0123456789", "");
    const NONE: (u16, &str, &str) = (416, "", "bytes */10");
    for (range, expected) in [
        ("bytes=0-0", (206, "0", "bytes 0-0/10")),
        ("bytes=2-4", (206, "234", "bytes 2-4/10")),
        ("bytes=8-", (206, "89", "bytes 8-9/10")),
        ("bytes=8-99", (206, "89", "bytes 8-9/10")),
        (
            "bytes=0-99999999999999999999999",
            (206, "0123456789", "bytes 0-9/10"),
        ),
        ("bytes=-3", (206, "789", "bytes 7-9/10")),
        ("bytes=-99", (206, "0123456789", "bytes 0-9/10")),
        ("Bytes=2-4", (206, "234", "bytes 2-4/10")),
        ("bytes= 2-4 ,", (206, "234", "bytes 2-4/10")),
        ("bytes=10-", NONE),
        ("bytes=99999999999999999999999-", NONE),
        ("bytes=-0", NONE),
        ("bytes=4-2", WHOLE),
        ("bytes=0-1,3-4", WHOLE),
        ("bytes=0-0,-1", WHOLE),
        ("bytes", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=a-b", WHOLE),
        ("seconds=1-2", WHOLE),
        ("bytes=0-1\r\nrange: bytes=2-3", WHOLE),
    ] {
        let reply = ask(&gateway, RAW, &format!("range: {range}\r\n"), "").await;
        let (status, text, content_range) = expected;
        assert_eq!(reply.status, status, "{range}");
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        if status == 416 {
            assert_eq!(reply.problem(), "range-not-satisfiable");
            continue;
        }
        assert_eq!(reply.body, text.as_bytes(), "{range}");
        assert_eq!(reply.header("accept-ranges"), "bytes");
        // What a whole reply would have had.
        assert_eq!(reply.header("etag"), format!("\"{tag}\""));
        assert_eq!(reply.header("content-type"), "text/plain");
        assert_eq!(reply.header("cache-control"), "no-cache");
        assert_eq!(reply.header("vary"), "accept");
        assert_ne!(reply.header("date"), "");
    }
}

#[tokio::test]
async fn an_empty_value_has_no_part_but_its_end_is_all_of_it() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    stored(&gateway, "k", "text/plain", "").await;
    for (range, status, content_range) in [
        ("bytes=0-", 416, "bytes */0"),
        ("bytes=0-0", 416, "bytes */0"),
        ("bytes=-0", 416, "bytes */0"),
        ("bytes=-5", 200, ""),
    ] {
        let reply = ask(&gateway, RAW, &format!("range: {range}\r\n"), "").await;
        assert_eq!(reply.status, status, "{range}");
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        assert_eq!(reply.body.is_empty(), status == 200);
    }
}

#[tokio::test]
async fn a_range_is_for_a_get_of_the_bytes_alone() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    stored(&gateway, "k", "text/plain", "0123456789").await;
    let range = "range: bytes=2-4\r\n";
    let json = ask(&gateway, "GET /kv/k", range, "").await;
    assert_eq!(
        (json.status.as_u16(), &json.json["value"]),
        (200, &"0123456789".into())
    );
    let mut connection = Connection::open(gateway.addr).await;
    for range in ["bytes=2-4", "bytes=99-"] {
        let head =
            format!("HEAD /kv/k?raw=true HTTP/1.1\r\nhost: localhost\r\nrange: {range}\r\n\r\n");
        connection.send(head).await;
        let head = connection.reply_to("HEAD").await;
        assert_eq!(head.status, 200, "{range}");
        assert_eq!(head.header("content-length"), "10");
    }
    let put = format!("{range}content-length: 1\r\n");
    assert_eq!(ask(&gateway, "PUT /kv/k", &put, "v").await.status, 200);
    assert_eq!(ask(&gateway, "DELETE /kv/k", range, "").await.status, 200);
    for path in ["/livez", "/openapi.yaml", "/"] {
        let whole = ask(&gateway, &format!("GET {path}"), range, "").await;
        assert_eq!(whole.status, 200, "{path}");
        assert_eq!(whole.header("content-range"), "", "{path}");
    }
}

#[tokio::test]
async fn a_range_is_given_only_of_the_very_version_that_if_range_names() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let tag = stored(&gateway, "k", "text/plain", "0123456789").await;
    for (version, status) in [
        (format!("\"{tag}\""), 206),
        (format!("W/\"{tag}\""), 200),
        (tag.clone(), 200),
        ("\"other\"".to_owned(), 200),
        ("*".to_owned(), 200),
        ("Fri, 31 Dec 9999 23:59:59 GMT".to_owned(), 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 200),
        ("nonsense".to_owned(), 200),
    ] {
        let headers = format!("range: bytes=2-4\r\nif-range: {version}\r\n");
        let reply = ask(&gateway, RAW, &headers, "").await;
        assert_eq!(reply.status, status, "{version}");
        // Also in place of a 416.
        let headers = format!("range: bytes=99-\r\nif-range: {version}\r\n");
        let reply = ask(&gateway, RAW, &headers, "").await;
        assert_eq!(
            reply.status,
            if status == 206 { 416 } else { 200 },
            "{version}"
        );
        // Without a range it means nothing.
        let headers = format!("if-range: {version}\r\n");
        let reply = ask(&gateway, RAW, &headers, "").await;
        assert_eq!(reply.status, 200, "{version}");
        let headers = format!("range: bytes=2-4\r\nif-range: {version}\r\n");
        let json = ask(&gateway, "GET /kv/k", &headers, "").await;
        assert_eq!(json.status, 200, "{version}");
    }
}

#[tokio::test]
async fn a_put_of_a_part_is_refused_and_changes_nothing() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    stored(&gateway, "k", "text/plain", "0123456789").await;
    for range in ["bytes 8-9/10", "bytes */10", "bytes 0-1/2", "nonsense"] {
        let headers = format!("content-range: {range}\r\ncontent-length: 2\r\n");
        let put = ask(&gateway, "PUT /kv/k", &headers, "ab").await;
        assert_eq!(shown(&put), (400, "partial-put"), "{range}");
    }
    let kept = ask(&gateway, "GET /kv/k", "", "").await;
    assert_eq!(kept.json["value"], "0123456789");
    // Elsewhere it has no meaning.
    let range = "content-range: bytes 8-9/10\r\n";
    for line in ["GET /kv/k", "DELETE /kv/k", "GET /livez"] {
        assert_eq!(ask(&gateway, line, range, "").await.status, 200, "{line}");
    }
}

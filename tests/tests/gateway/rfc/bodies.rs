//! RFC 9112, section 6: where the body of a message ends. What is ambiguous is in `malformed`.

use dkvs_tests::http::{Connection, exchange};
use dkvs_tests::programs;

use super::{ask, shown};

#[tokio::test]
async fn a_chunked_body_is_its_chunks_and_nothing_else() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for (name, chunks, value) in [
        ("one", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("several", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("none", "0\r\n\r\n", ""),
        ("zeros", "005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("letters", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        (
            "extensions",
            "5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n",
            "hello",
        ),
        (
            "trailers",
            "5\r\nhello\r\n0\r\ncontent-type: text/html\r\nif-match: \"a\"\r\n\r\n",
            "hello",
        ),
    ] {
        let put = ask(
            &gateway,
            &format!("PUT /kv/{name}"),
            "transfer-encoding: Chunked\r\n",
            chunks,
        )
        .await;
        assert_eq!(put.status, 200, "{name}: {put:?}");
        let read = ask(&gateway, &format!("GET /kv/{name}"), "", "").await;
        assert_eq!(read.json["value"], value, "{name}");
        // A trailer is no header.
        assert_eq!(read.json["content_type"], serde_json::Value::Null, "{name}");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_is_not_known_is_501_and_one_that_is_wrong_400() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for (coding, expected) in [
        ("gzip, chunked", (501, "transfer-coding")),
        ("gzip,chunked", (501, "transfer-coding")),
        ("identity, chunked", (501, "transfer-coding")),
        ("x, gzip, chunked", (501, "transfer-coding")),
        (
            "gzip\r\ntransfer-encoding: chunked",
            (501, "transfer-coding"),
        ),
        ("chunked, chunked", (400, "transfer-coding")),
        (
            "chunked\r\ntransfer-encoding: chunked",
            (400, "transfer-coding"),
        ),
        // The last is not chunked, so nobody knows where the body ends.
        ("gzip", (400, "")),
        ("identity", (400, "")),
        ("chunked, gzip", (400, "")),
        ("", (400, "")),
        ("chunked;a=b", (400, "")),
    ] {
        let headers = format!("transfer-encoding: {coding}\r\n");
        for line in ["PUT /kv/k", "POST /batch", "GET /livez"] {
            let reply = ask(&gateway, line, &headers, "1\r\nv\r\n0\r\n\r\n").await;
            assert_eq!(shown(&reply), expected, "{line} {coding}");
        }
    }
    assert_eq!(ask(&gateway, "GET /kv/k", "", "").await.status, 404);
}

#[tokio::test]
async fn after_a_request_with_two_lengths_or_of_an_older_version_the_connection_ends() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let chunks = "1\r\nv\r\n0\r\n\r\n";
    for (version, headers, statuses) in [
        (
            "1.1",
            "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
            &[200][..],
        ),
        (
            "1.1",
            "content-length: 99\r\ntransfer-encoding: chunked\r\n",
            &[200],
        ),
        ("1.0", "transfer-encoding: chunked\r\n", &[400]),
        (
            "1.0",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            &[400],
        ),
        (
            "1.0",
            "connection: keep-alive\r\ntransfer-encoding: chunked\r\n",
            &[400],
        ),
    ] {
        let mut connection = Connection::open(gateway.addr).await;
        let first = format!("PUT /kv/k HTTP/{version}\r\nhost: localhost\r\n{headers}\r\n{chunks}");
        let second = "PUT /kv/second HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
        connection.send(first + second).await;
        let replies = String::from_utf8(connection.rest().await).unwrap();
        let mut codes = Vec::new();
        for reply in replies.split("HTTP/1.").skip(1) {
            codes.push(reply[2..5].parse::<u16>().unwrap());
        }
        assert_eq!(codes, statuses, "{version} {headers}: {replies}");
    }
    assert_eq!(ask(&gateway, "GET /kv/second", "", "").await.status, 404);
}

#[tokio::test]
async fn a_length_is_one_number_or_nothing_is_stored() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for length in [
        "1, 2",
        "1\r\ncontent-length: 2",
        "-1",
        "+1",
        "1.0",
        "0x1",
        "one",
        "",
        "1 1",
        "18446744073709551616",
        "99999999999999999999999999999999",
    ] {
        let headers = format!("content-length: {length}\r\n");
        let reply = ask(&gateway, "PUT /kv/k", &headers, "v").await;
        assert_eq!(reply.status, 400, "{length}");
    }
    let huge = "content-length: 9223372036854775807\r\n";
    let reply = ask(&gateway, "PUT /kv/k", huge, "v").await;
    assert_eq!(shown(&reply), (413, "value-too-large"));
    assert_eq!(ask(&gateway, "GET /kv/k", "", "").await.status, 404);
    let same = "content-length: 1\r\ncontent-length: 1\r\n";
    assert_eq!(ask(&gateway, "PUT /kv/k", same, "v").await.status, 200);
    let read = ask(&gateway, "GET /kv/k", "", "").await;
    assert_eq!(read.json["value"], "v");
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_stored() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for (headers, body) in [
        ("content-length: 5\r\n", "hell"),
        ("transfer-encoding: chunked\r\n", "4\r\nhell\r\n"),
        ("transfer-encoding: chunked\r\n", "5\r\nhell"),
        ("transfer-encoding: chunked\r\n", "4\r\nhell\r\n0\r\n"),
    ] {
        let mut connection = Connection::open(gateway.addr).await;
        let head = format!("PUT /kv/k HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}");
        connection.send(head).await;
        connection.finish().await;
        let reply = String::from_utf8(connection.rest().await).unwrap();
        let is_refused = reply.starts_with("HTTP/1.1 400") && reply.contains("invalid-body");
        assert!(is_refused, "{headers} {body:?}: {reply}");
    }
    assert_eq!(ask(&gateway, "GET /kv/k", "", "").await.status, 404);
}

#[tokio::test]
async fn a_stream_without_a_length_ends_with_its_connection_where_chunks_are_not_known() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let mut connection = Connection::open(gateway.addr).await;
    connection
        .send("GET /events HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .await;
    let mut length = 64;
    let head = loop {
        let bytes = connection.first_bytes(length).await;
        let text = String::from_utf8(bytes).unwrap();
        if text.contains("\r\n\r\n") {
            break text;
        }
        length += 64;
    };
    assert!(head.contains(" 200 OK"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(!head.contains("keep-alive"), "{head}");

    // A body of a GET is read, and means nothing.
    let reply = exchange(
        gateway.addr,
        "GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc",
    )
    .await;
    assert_eq!(reply.status, 200);
}

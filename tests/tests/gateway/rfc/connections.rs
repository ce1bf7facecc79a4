//! RFC 9112, section 9: what becomes of a connection.

use dkvs_tests::http::Connection;
use dkvs_tests::process::Gateway;
use dkvs_tests::programs;

/// Everything that is answered to these bytes until the gateway closes.
async fn until_closed(gateway: &Gateway, bytes: &str) -> String {
    let mut connection = Connection::open(gateway.addr).await;
    connection.send(bytes).await;
    String::from_utf8(connection.rest().await).unwrap()
}

#[tokio::test]
async fn a_connection_persists_as_its_version_and_its_options_say() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let request = |version: &str, option: &str| {
        format!("GET /livez HTTP/{version}\r\nhost: localhost\r\n{option}\r\n")
    };
    for (version, option, persists) in [
        ("1.1", "", true),
        ("1.1", "connection: keep-alive\r\n", true),
        ("1.1", "connection: close\r\n", false),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "connection: x, close\r\n", false),
        (
            "1.1",
            "connection: close\r\nconnection: keep-alive\r\n",
            false,
        ),
        ("1.1", "connection: x\r\n", true),
        ("1.0", "", false),
        ("1.0", "connection: close\r\n", false),
        ("1.0", "connection: keep-alive\r\n", true),
    ] {
        let mut connection = Connection::open(gateway.addr).await;
        connection.send(request(version, option)).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200);
        let said = reply.header("connection").to_ascii_lowercase();
        if persists {
            assert_ne!(said, "close", "{version} {option}");
            if version == "1.0" {
                assert_eq!(said, "keep-alive");
            }
            connection.send(request("1.1", "")).await;
            assert_eq!(connection.reply().await.status, 200, "{version} {option}");
        } else {
            // An older version closes without being told.
            assert!(said == "close" || version == "1.0", "{version} {option}");
            assert_eq!(connection.rest().await, b"", "{version} {option}");
        }
    }
}

#[tokio::test]
async fn nothing_that_follows_the_last_request_is_processed() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let put = |key: &str, option: &str| {
        format!("PUT /kv/{key} HTTP/1.1\r\nhost: localhost\r\n{option}content-length: 1\r\n\r\nv")
    };
    let bytes = put("first", "connection: close\r\n") + &put("second", "");
    let replies = until_closed(&gateway, &bytes).await;
    assert_eq!(replies.matches("HTTP/1.1 200").count(), 1, "{replies}");
    assert!(replies.contains("connection: close"), "{replies}");
    let read = super::ask(&gateway, "GET /kv/second", "", "").await;
    assert_eq!(read.status, 404);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut bytes = String::new();
    for number in 0..8 {
        bytes += &format!(
            "PUT /kv/{number} HTTP/1.1\r\nhost: localhost\r\nx-request-id: p{number}\r\n\
             content-length: 1\r\n\r\n{number}"
        );
        bytes += &format!(
            "GET /kv/{number} HTTP/1.1\r\nhost: localhost\r\nx-request-id: g{number}\r\n\r\n"
        );
    }
    let mut connection = Connection::open(gateway.addr).await;
    connection.send(bytes).await;
    for number in 0..8 {
        let put = connection.reply().await;
        assert_eq!(put.header("x-request-id"), format!("p{number}"));
        let get = connection.reply().await;
        assert_eq!(get.header("x-request-id"), format!("g{number}"));
        assert_eq!(get.json["value"], number.to_string());
    }
}

#[tokio::test]
async fn after_a_refusal_the_rest_of_its_body_is_no_request() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let hidden = "PUT /kv/hidden HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    for head in [
        "PUT /nothing",
        "PUT /kv/k?n=9",
        "PATCH /kv/k",
        "PROPFIND /kv/k",
        "GET /livez",
        "DELETE /kv/k",
        "POST /batch",
    ] {
        for extra in [
            "",
            "content-encoding: gzip\r\n",
            "if-match: *\r\n",
            "expect: x\r\n",
        ] {
            let mut connection = Connection::open(gateway.addr).await;
            let length = hidden.len();
            let request = format!(
                "{head} HTTP/1.1\r\nhost: localhost\r\n{extra}content-length: {length}\r\n\
                 connection: close\r\n\r\n{hidden}"
            );
            connection.send(request).await;
            let replies = String::from_utf8(connection.rest().await).unwrap();
            assert_eq!(
                replies.matches("HTTP/1.1 ").count(),
                1,
                "{head} {extra}: {replies}"
            );
        }
    }
    let read = super::ask(&gateway, "GET /kv/hidden", "", "").await;
    assert_eq!(read.status, 404);
}

#[tokio::test]
async fn a_reply_after_which_the_connection_ends_says_so() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for bytes in [
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET  /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost : localhost\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let reply = until_closed(&gateway, bytes).await;
        assert!(
            reply.contains("connection: close\r\n"),
            "{bytes:?}: {reply}"
        );
    }
}

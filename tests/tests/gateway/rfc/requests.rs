//! RFC 9112, sections 3 and 5: request lines, targets, hosts and field lines.

use std::net::SocketAddr;

use dkvs_tests::http::{Connection, exchange};
use dkvs_tests::programs;

use super::shown;

/// The status of what is answered; 0 where the connection is closed without a reply.
async fn raw(addr: SocketAddr, bytes: &str) -> u16 {
    let mut connection = Connection::open(addr).await;
    connection.send(bytes).await;
    let line = connection.first_bytes("HTTP/1.1 200".len()).await;
    let line = String::from_utf8(line).unwrap();
    let status = line.strip_prefix("HTTP/1.1 ");
    let status = status.or_else(|| line.strip_prefix("HTTP/1.0 "));
    status.map_or(0, |status| status.parse().unwrap())
}

#[tokio::test]
async fn a_target_has_one_of_the_forms_that_its_method_takes() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let many = "a".repeat(40_000);
    for (line, expected) in [
        ("GET /livez", (200, "")),
        ("GET http://localhost/livez", (200, "")),
        ("GET HTTP://LOCALHOST:80/livez", (200, "")),
        ("GET http://127.0.0.1:9/livez?", (200, "")),
        ("GET http://localhost", (200, "")),
        ("GET http://evil.example/livez", (421, "host-not-allowed")),
        ("GET https://localhost/livez", (421, "invalid-target")),
        ("GET ftp://localhost/livez", (421, "invalid-target")),
        ("GET http://user@localhost/livez", (400, "invalid-target")),
        (
            "GET http://user:word@localhost/livez",
            (400, "invalid-target"),
        ),
        ("GET http://localhost:99999/livez", (400, "invalid-target")),
        ("GET localhost", (400, "invalid-target")),
        ("GET localhost:80", (400, "invalid-target")),
        ("PUT localhost:80", (400, "invalid-target")),
        ("GET *", (400, "invalid-target")),
        ("PUT *", (400, "invalid-target")),
        ("OPTIONS *", (204, "")),
        ("CONNECT localhost:80", (501, "method-not-implemented")),
        ("BREWING /livez", (405, "method-not-allowed")),
        ("BREWINGS /livez", (501, "method-not-implemented")),
        (&format!("{many} /livez"), (501, "method-not-implemented")),
        (&format!("{many} /nothing"), (501, "method-not-implemented")),
    ] {
        let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let reply = exchange(gateway.addr, head).await;
        let line: String = line.chars().take(60).collect();
        assert_eq!(shown(&reply), expected, "{line}");
    }
    let options = exchange(
        gateway.addr,
        "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(
        options.header("allow"),
        "GET, HEAD, PUT, POST, DELETE, OPTIONS"
    );
}

#[tokio::test]
async fn a_request_line_that_is_not_one_is_400() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for line in [
        "GET  /livez HTTP/1.1",
        "GET /livez  HTTP/1.1",
        "GET /livez HTTP/1.1 ",
        "GET /li vez HTTP/1.1",
        "GET livez HTTP/1.1 x",
        "GET ?a HTTP/1.1",
        "GET /livez http/1.1",
        "GET /livez HTTP/1.",
        "GET /livez HTTP/11",
        "GET /livez",
        "GET",
        " GET /livez HTTP/1.1",
        "G\tT /livez HTTP/1.1",
        "G(T /livez HTTP/1.1",
        "GET /li\x01vez HTTP/1.1",
        "GET /livez# HTTP/1.1",
        "GET /livez#a?b HTTP/1.1",
        "GET /livez?#a HTTP/1.1",
        "GET http://localhost/livez#a HTTP/1.1",
        "GET http://localhost#a HTTP/1.1",
        "GET # HTTP/1.1",
        "GET http:///livez HTTP/1.1",
        "GET http://local host/livez HTTP/1.1",
    ] {
        let status = raw(gateway.addr, &format!("{line}\r\nhost: localhost\r\n\r\n")).await;
        assert_eq!(status, 400, "{line}");
    }
    // An empty line or two before it is passed over.
    let head = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for before in ["\r\n", "\r\n\r\n", "\n"] {
        assert_eq!(raw(gateway.addr, &format!("{before}{head}")).await, 200);
    }
}

#[tokio::test]
async fn a_fragment_names_no_other_key_whatever_comes_before_it() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let put = |key: &str, fields: &str| {
        format!("PUT /kv/{key} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\n")
    };
    let read = |key: &'static str| {
        let head = format!("GET /kv/{key} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        exchange(gateway.addr, head)
    };
    let chunked = "transfer-encoding: chunked";
    for before in [
        String::new(),
        "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".into(),
        put("first", "content-length: 17") + "GET /a#b HTTP/1.1",
        put("first", chunked) + "11\r\nGET /a#b HTTP/1.1\r\n0\r\nx: #\r\n\r\n",
    ] {
        let mut connection = Connection::open(gateway.addr).await;
        let refused = put("key#1", "content-length: 5") + "other";
        connection.send(format!("{before}{refused}")).await;
        let replies = String::from_utf8(connection.rest().await).unwrap();
        let statuses = replies.matches("HTTP/1.1 200 ").count();
        assert_eq!(statuses, usize::from(!before.is_empty()), "{replies}");
        assert_eq!(replies.matches("HTTP/1.1 400 ").count(), 1, "{replies}");
        assert_eq!(shown(&read("key").await), (404, "key-not-found"));
    }
    let first = read("first").await;
    let first = String::from_utf8(first.body).unwrap();
    assert!(first.contains(r#""value":"GET /a#b HTTP/1.1""#), "{first}");
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for (length, status) in [(65_000, 400), (65_535, 414), (100_000, 414)] {
        let target = format!("/kv?{}", "a".repeat(length - 4));
        let head = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert_eq!(raw(gateway.addr, &head).await, status, "{length}");
    }
}

#[tokio::test]
async fn a_request_has_exactly_one_host_and_that_is_one() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for (hosts, status) in [
        ("host: localhost\r\n", 200),
        ("Host:localhost:\r\n", 200),
        ("HOST:  localhost:00080 \r\n", 200),
        ("host: [::1]:1\r\n", 200),
        ("", 400),
        ("host:\r\n", 400),
        ("host: :80\r\n", 400),
        ("host: localhost\r\nhost: localhost\r\n", 400),
        ("host: localhost\r\nx: y\r\nHost: evil.example\r\n", 400),
        ("host: localhost:x\r\n", 400),
        ("host: localhost:65536\r\n", 400),
        ("host: localhost:-1\r\n", 400),
        ("host: localhost:80:80\r\n", 400),
        ("host: user@localhost\r\n", 400),
        ("host: http://localhost\r\n", 400),
        ("host: localhost/\r\n", 400),
        ("host: localhost?\r\n", 400),
        ("host: localhost#\r\n", 400),
        ("host: local host\r\n", 400),
        ("host: localhost localhost\r\n", 400),
        ("host: localhost\\\r\n", 400),
        ("host: <localhost>\r\n", 400),
        ("host: \"localhost\"\r\n", 400),
        ("host: caf\u{e9}\r\n", 400),
        ("host: localhost%\r\n", 400),
        ("host: [::1\r\n", 400),
        ("host: ::1\r\n", 400),
        ("host: [localhost]\r\n", 400),
        ("host: evil.example\r\n", 421),
        ("host: localhost%2e\r\n", 421),
    ] {
        for target in ["/livez", "http://localhost/livez"] {
            let head = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
            // The host of a target counts, and only takes the place of one that is valid.
            let expected = match status {
                421 if target != "/livez" => 200,
                status => status,
            };
            assert_eq!(raw(gateway.addr, &head).await, expected, "{target} {hosts}");
        }
    }
    assert_eq!(raw(gateway.addr, "GET /livez HTTP/1.0\r\n\r\n").await, 200);
    assert_eq!(
        raw(gateway.addr, "GET /livez HTTP/1.0\r\nhost: a b\r\n\r\n").await,
        400
    );
}

#[tokio::test]
async fn a_field_line_that_is_not_one_is_400() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for line in [
        "accept : */*",
        "accept\t: */*",
        " accept: */*",
        "accept",
        ": */*",
        "ac cept: */*",
        "acc(ept: */*",
        "x: y\r\n z",
        "x: y\r\n\tz",
        "x: y\r\n ",
        "x: a\rb",
        "x: a\0b",
        "x: a\x01b",
        "x: a\x7fb",
    ] {
        let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{line}\r\n\r\n");
        assert_eq!(raw(gateway.addr, &head).await, 400, "{line:?}");
        // Between the request line and the first field, too.
        let head = format!("GET /livez HTTP/1.1\r\n{line}\r\nhost: localhost\r\n\r\n");
        assert_eq!(raw(gateway.addr, &head).await, 400, "{line:?}");
    }
    for line in ["x:y", "x:   y  ", "x:", "x: \u{e9}", "X-1!#$%&'*+.^_`|~: y"] {
        let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{line}\r\n\r\n");
        assert_eq!(raw(gateway.addr, &head).await, 200, "{line:?}");
    }
}

#[tokio::test]
async fn an_expectation_that_is_not_met_is_417_and_continue_is() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let put = |version: &str, expect: &str| {
        format!(
            "PUT /kv/k HTTP/{version}\r\nhost: localhost\r\ncontent-length: 1\r\nexpect: {expect}\r\n\r\n"
        )
    };
    for expect in [
        "more",
        "100-continue, more",
        "100-continue=1",
        "\"100-continue\"",
    ] {
        let reply = exchange(gateway.addr, put("1.1", expect)).await;
        assert_eq!(shown(&reply), (417, "expectation-failed"), "{expect}");
    }
    for expect in ["100-continue", "100-Continue"] {
        let mut connection = Connection::open(gateway.addr).await;
        connection.send(put("1.1", expect)).await;
        assert_eq!(connection.reply().await.status, 100);
        connection.send("v").await;
        assert_eq!(connection.reply().await.status, 200);
    }
    // HTTP/1.0 has no interim replies.
    let mut connection = Connection::open(gateway.addr).await;
    connection.send(put("1.0", "100-continue") + "v").await;
    assert_eq!(connection.reply().await.status, 200);
    // A refusal takes the place of the interim reply.
    let refused = put("1.1", "100-continue").replace("/kv/k", "/kv/k?n=9");
    let reply = exchange(gateway.addr, refused).await;
    assert_eq!(shown(&reply), (400, "invalid-parameter"));
}

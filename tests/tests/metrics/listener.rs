//! The port on which a storage server serves its metrics, and what unknown clients find there.

use std::net::SocketAddr;

use dkvs_tests::http::{Connection, Reply, client, exchange, request};

use crate::{measured_node, measured_node_at, page, scrape_at};

/// Connections that may be open at once.
const PLACES: usize = 32;

async fn ask(addr: SocketAddr, head: &str) -> Reply {
    exchange(addr, format!("{head}\r\n\r\n")).await
}

#[tokio::test]
async fn it_serves_metrics_and_nothing_else() {
    let (_node, addr) = measured_node(&[]);
    for (head, status, allow) in [
        ("GET /metrics HTTP/1.1\r\nhost: localhost", 200, ""),
        ("GET /metrics?a=b HTTP/1.1\r\nhost: localhost", 200, ""),
        (
            "GET http://localhost/metrics HTTP/1.1\r\nhost: localhost",
            200,
            "",
        ),
        ("GET /metrics HTTP/1.0", 200, ""),
        ("GET / HTTP/1.1\r\nhost: localhost", 404, ""),
        ("GET /kv/k HTTP/1.1\r\nhost: localhost", 404, ""),
        ("GET /metrics/ HTTP/1.1\r\nhost: localhost", 404, ""),
        ("GET /%6Detrics HTTP/1.1\r\nhost: localhost", 404, ""),
        ("OPTIONS * HTTP/1.1\r\nhost: localhost", 404, ""),
        ("POST /metrics HTTP/1.1\r\nhost: localhost", 405, "GET,HEAD"),
        (
            "OPTIONS /metrics HTTP/1.1\r\nhost: localhost",
            405,
            "GET,HEAD",
        ),
        ("BREW /metrics HTTP/1.1\r\nhost: localhost", 405, "GET,HEAD"),
    ] {
        let reply = ask(addr, head).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("allow")),
            (status, allow),
            "{head}"
        );
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{head}");
        let policy = reply.header("content-security-policy");
        assert_eq!(policy, "default-src 'none'", "{head}");
        assert_eq!(reply.header("cache-control"), "no-store", "{head}");
        let policy = reply.header("cross-origin-resource-policy");
        assert_eq!(policy, "same-origin", "{head}");
        if status == 200 {
            page(&reply);
        }
    }
    let mut connection = Connection::open(addr).await;
    connection.send(request("HEAD", "/metrics", None)).await;
    let head = connection.reply_to("HEAD").await;
    let length: usize = head.header("content-length").parse().unwrap();
    assert!(head.status == 200 && length > 1_000, "{head:?}");
    assert_eq!(connection.rest().await, b"", "no body");
}

#[tokio::test]
async fn it_answers_for_its_own_hosts_alone() {
    let named = ["--allowed-host", "kv.example.org,192.0.2.7"];
    let (_near, near) = measured_node(&named);
    let (_far, far) = measured_node_at("0.0.0.0:0", &[&named[..], &["--insecure"]].concat());
    let far = SocketAddr::from(([127, 0, 0, 1], far.port()));
    for (host, by_near, by_far) in [
        ("localhost", 200, 200),
        ("LOCALHOST:1", 200, 200),
        ("127.0.0.1:9100", 200, 200),
        ("[::1]", 200, 200),
        ("kv.example.org:80", 200, 200),
        ("192.0.2.7", 200, 200),
        ("192.0.2.8", 421, 200),
        ("[2001:db8::1]:9100", 421, 200),
        ("evil.example", 421, 421),
        ("localhost.evil.example", 421, 421),
        ("a@localhost", 400, 400),
        ("localhost:port", 400, 400),
        ("localhost, evil.example", 400, 400),
        ("", 400, 400),
    ] {
        for (addr, expected) in [(near, by_near), (far, by_far)] {
            let reply = ask(addr, &format!("GET /metrics HTTP/1.1\r\nhost: {host}")).await;
            assert_eq!(reply.status, expected, "{host}: {reply:?}");
            let text = String::from_utf8_lossy(&reply.body);
            assert_eq!(text.contains("--allowed-host"), expected == 421, "{text}");
        }
    }
    for (head, expected) in [
        ("GET /metrics HTTP/1.1", 400),
        (
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\nhost: localhost",
            400,
        ),
        ("GET /metrics HTTP/1.1\r\nhost: caf\u{e9}", 400),
        ("GET /metrics HTTP/1.0\r\nhost: evil.example", 421),
        (
            "GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost",
            421,
        ),
        (
            "GET http://localhost:1/metrics HTTP/1.1\r\nhost: evil.example",
            200,
        ),
    ] {
        assert_eq!(ask(near, head).await.status, expected, "{head}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_whoever_is_still_sending() {
    let (_node, addr) = measured_node(&[]);
    let body = vec![b'v'; 1 << 20];
    for (target, expected) in [("/metrics", 405), ("/kv/k", 404)].repeat(10) {
        let reply = exchange(addr, request("PUT", target, Some(&body))).await;
        assert_eq!(reply.status, expected);
    }
    // And whoever has said that nothing more will come.
    let mut connection = Connection::open(addr).await;
    connection.send(request("GET", "/metrics", None)).await;
    connection.finish().await;
    page(&connection.reply().await);
}

#[tokio::test]
async fn heads_are_bounded() {
    let (_node, addr) = measured_node(&[]);
    let field = |name: &str, length| format!("{name}: {}\r\n", "v".repeat(length));
    let many: String = (0..65)
        .map(|number| field(&format!("x-{number}"), 1))
        .collect();
    for (fields, expected) in [
        (field("x", 8_000), 200),
        (field("x", 64 << 10), 431),
        (field("x", 7_000).repeat(9), 431),
        (many, 431),
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{fields}");
        assert_eq!(ask(addr, head.trim_end()).await.status, expected);
    }
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_the_oldest() {
    let (_node, addr) = measured_node(&[]);
    let mut open = Vec::new();
    for _ in 0..PLACES {
        let mut connection = Connection::open(addr).await;
        connection.send("GET /metrics HTTP/1.1\r\n").await;
        open.push(connection);
    }
    let displaced = |page: &dkvs_tests::exposition::Page| {
        page.sum("dkvs_server_metrics_connections_displaced_total", &[])
    };
    assert_eq!(displaced(&scrape_at(&client(), addr).await), 1.0);
    let mut open = open.into_iter();
    let refused = open.next().unwrap().reply().await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("cache-control"), "no-store");
    for mut connection in open {
        connection.send("host: localhost\r\n\r\n").await;
        page(&connection.reply().await);
    }
}

#[tokio::test]
async fn who_says_nothing_is_told_that_it_took_too_long() {
    let (_node, addr) = measured_node(&[]);
    let mut silent = Connection::open(addr).await;
    let mut slow = Connection::open(addr).await;
    slow.send("GET /metrics HTTP/1.1\r\n").await;
    for connection in [&mut silent, &mut slow] {
        assert_eq!(connection.reply().await.status, 408);
        assert_eq!(connection.rest().await, b"");
    }
}

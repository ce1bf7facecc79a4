//! HTTP itself: request ids, keep-alive, pipelining, expectations, ill-formed requests.

use std::collections::BTreeSet;

use dkvs_tests::http::{Connection, Events, Reply, client, exchange, get, put, request, send};
use dkvs_tests::programs;

#[tokio::test]
async fn every_reply_has_a_request_id_of_its_own() {
    let cluster = programs!().cluster(3, &["--workers", "2"]);
    let client = client();
    let mut ids = BTreeSet::new();
    let mut replies = 0;
    // Connections of their own, so that both workers have their share.
    for _ in 0..20 {
        for target in [
            "/kv/k",
            "/kv/k?raw=true",
            "/kv/none",
            "/kv/k?n=9",
            "/kv/",
            "/x",
            "/livez",
        ] {
            let reply = exchange(cluster.gateway.addr, request("GET", target, None)).await;
            let id = reply.header("x-request-id").to_owned();
            assert!(!id.is_empty(), "{reply:?}");
            if reply.status != 200 {
                assert_eq!(reply.json["instance"], format!("urn:dkvs:request:{id}"));
            }
            ids.insert(id);
            replies += 1;
        }
        let put = put(&client, cluster.gateway.url("/kv/k"), "v").await;
        ids.insert(put.header("x-request-id").to_owned());
        replies += 1;
    }
    assert_eq!(ids.len(), replies);
}

/// A snapshot comes once a second, or later, and that is up to the gateway.
#[tokio::test]
async fn events_go_on_where_connections_may_be_idle_for_a_second_only() {
    let cluster = programs!().cluster(3, &["--idle-timeout", "1"]);
    let listen = client().get(cluster.gateway.url("/events"));
    let mut events = Events::open(listen).await;
    for number in 0..5 {
        assert!(events.next().await.is_some(), "{number}");
    }
    // One that says nothing more is idle, and that is up to its caller.
    let mut silent = Connection::open(cluster.gateway.addr).await;
    silent.send(request("GET", "/livez", None)).await;
    assert_eq!(silent.reply().await.status, 200);
    assert_eq!(silent.rest().await, b"", "it is closed");
    assert!(events.next().await.is_some());
}

#[tokio::test]
async fn a_plain_request_id_of_the_caller_is_kept_and_any_other_replaced() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let client = client();
    for (id, is_kept) in [
        ("abc-123_4.5", true),
        (&*"x".repeat(64), true),
        (&*"x".repeat(65), false),
        ("a b", false),
        ("a\"b", false),
        ("a,b", false),
        ("", false),
    ] {
        let request = client.get(gateway.url("/kv/none"));
        let reply = send(request.header("x-request-id", id)).await;
        assert_eq!(reply.header("x-request-id") == id, is_kept, "{id}");
        let instance = format!("urn:dkvs:request:{}", reply.header("x-request-id"));
        assert_eq!(reply.json["instance"], instance);
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut connection = Connection::open(gateway.addr).await;
    for round in 0..100 {
        let value = format!("value {round}");
        let target = format!("/kv/{}?wait=all", round % 7);
        connection
            .send(request("PUT", &target, Some(value.as_bytes())))
            .await;
        assert_eq!(connection.reply().await.status, 200);
        connection.send(request("GET", &target, None)).await;
        assert_eq!(connection.reply().await.json["value"], value);
        // A failure does not end the connection.
        connection.send(request("GET", "/kv/none", None)).await;
        assert_eq!(connection.reply().await.status, 404);
    }
    let last = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    connection.send(last).await;
    assert_eq!(connection.reply().await.header("connection"), "close");
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut connection = Connection::open(gateway.addr).await;
    let mut requests = Vec::new();
    for number in 0..100 {
        let value = format!("value {number}");
        let target = format!("/kv/{number}?wait=all");
        requests.extend(request("PUT", &target, Some(value.as_bytes())));
        requests.extend(request("GET", &target, None));
    }
    connection.send(requests).await;
    for number in 0..100 {
        let put = connection.reply().await;
        assert_eq!(put.json["key"], number.to_string());
        assert_eq!(put.json["outcome"], "committed");
        let get = connection.reply().await;
        assert_eq!(get.json["key"], number.to_string());
        assert_eq!(get.json["value"], format!("value {number}"));
    }
}

#[tokio::test]
async fn a_request_may_arrive_byte_by_byte() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut connection = Connection::open(gateway.addr).await;
    for byte in request("PUT", "/kv/k?wait=all", Some(b"hello")) {
        connection.send([byte]).await;
    }
    assert_eq!(connection.reply().await.status, 200);
    for byte in request("GET", "/kv/k", None) {
        connection.send([byte]).await;
    }
    assert_eq!(connection.reply().await.json["value"], "hello");
}

async fn expecting(connection: &mut Connection, content_length: usize) -> Reply {
    let head = "PUT /kv/k?wait=all HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n";
    let length = format!("content-length: {content_length}\r\n\r\n");
    connection.send(head.to_owned() + &length).await;
    connection.reply().await
}

#[tokio::test]
async fn who_expects_a_100_gets_it_unless_the_value_is_refused_unseen() {
    for (protocol, longest) in [("v1", 32_753), ("v2", 1 << 20)] {
        refused_unseen(protocol, longest).await;
    }
}

async fn refused_unseen(protocol: &str, longest: usize) {
    let gateway = programs!().gateway(&["--embedded", "3", "--protocol", protocol]);
    let mut connection = Connection::open(gateway.addr).await;
    assert_eq!(expecting(&mut connection, 5).await.status, 100);
    connection.send("hello").await;
    assert_eq!(connection.reply().await.status, 200);
    connection.send(request("GET", "/kv/k", None)).await;
    assert_eq!(connection.reply().await.json["value"], "hello");

    assert_eq!(expecting(&mut connection, longest).await.status, 100);
    connection.send("v".repeat(longest)).await;
    assert_eq!(connection.reply().await.status, 200);

    let refused = expecting(&mut connection, longest + 1).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem()),
        (413, "value-too-large")
    );
}

#[tokio::test]
async fn http_1_0_is_understood() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut connection = Connection::open(gateway.addr).await;
    connection
        .send("PUT /kv/k?wait=all HTTP/1.0\r\ncontent-length: 1\r\n\r\nv")
        .await;
    assert_eq!(connection.reply().await.status, 200);
    assert_eq!(connection.rest().await, b"", "and closed");
    let get = exchange(gateway.addr, "GET /kv/k HTTP/1.0\r\n\r\n").await;
    assert_eq!(get.json["value"], "v");
}

#[tokio::test]
async fn ill_formed_requests_are_refused_and_change_nothing() {
    let cluster = programs!().cluster(3, &[]);
    let many_headers: String = (0..64).map(|number| format!("h{number}: x\r\n")).collect();
    let many_headers = format!("PUT /kv/k HTTP/1.1\r\nhost: localhost\r\n{many_headers}\r\n");
    let long_header = format!(
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nh: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    for request in [
        "\r\n\r\nnonsense\r\n\r\n",
        "PUT\r\n\r\n",
        "PUT /kv/k\r\n\r\n",
        "PUT /kv/k HTTP/9.9\r\n\r\n",
        "PUT /kv/a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "PUT kv/k HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\n: no name\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\na\0b: x\r\n\r\n",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\nv",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1x\r\n\r\nv",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nvv",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\nv",
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nv\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}fc\u{3}\u{3}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &many_headers,
        &long_header,
    ] {
        let shown: String = request.chars().take(60).collect();
        let mut connection = Connection::open(cluster.gateway.addr).await;
        connection.send(request).await;
        connection.finish().await;
        let reply = String::from_utf8(connection.rest().await).unwrap();
        assert!(
            reply.is_empty() || reply.starts_with("HTTP/1.1 4"),
            "{shown:?}: {reply}"
        );
    }
    let read = get(&client(), cluster.gateway.url("/kv/k?wait=all")).await;
    assert_eq!(read.statuses(), ["absent"; 3]);
}

#[tokio::test]
async fn a_request_with_two_framings_is_not_taken_for_two_requests() {
    let cluster = programs!().cluster(3, &[]);
    let mut connection = Connection::open(cluster.gateway.addr).await;
    let smuggled = "PUT /kv/smuggled HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nv";
    let both = format!(
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{smuggled}\r\n0\r\n\r\n",
        smuggled.len()
    );
    connection.send(both).await;
    connection.finish().await;
    let replies = String::from_utf8(connection.rest().await).unwrap();
    assert!(replies.matches("HTTP/1.1 ").count() <= 1, "{replies}");
    let read = get(&client(), cluster.gateway.url("/kv/smuggled?wait=all")).await;
    assert_eq!(read.statuses(), ["absent"; 3]);
}

//! Clients that go away in the middle, and more of them than there is room for.

use dkvs_tests::http::{Connection, Reply, busy_connection, client, get, put, request};
use dkvs_tests::process::{Cluster, Programs};
use dkvs_tests::{patiently, programs, until};
use tokio::select;

const PROGRAMS: Programs = programs!();

/// Sends a request twice where only one finds room. The connection of the one that is in flight
/// comes back; the other got the reply that the gateway is overloaded.
pub async fn in_flight(cluster: &Cluster, request: Vec<u8>) -> Connection {
    let mut connections = [
        Connection::open(cluster.gateway.addr).await,
        Connection::open(cluster.gateway.addr).await,
    ];
    for connection in &mut connections {
        connection.send(&request).await;
    }
    let [mut one, mut other] = connections;
    let (refused, taken): (Reply, _) = select! {
        refused = one.reply() => (refused, other),
        refused = other.reply() => (refused, one),
    };
    assert_eq!(refused.problem(), "overloaded");
    taken
}

#[tokio::test]
async fn a_client_that_goes_away_gives_up_its_place() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-in-flight", "1"]);
    let client = client();
    for node in &cluster.nodes {
        node.process.stop();
    }
    // Were each place held until the time-out of half a minute, this would take two.
    patiently(async {
        for _ in 0..4 {
            let taken = in_flight(&cluster, request("GET", "/kv/k", None)).await;
            taken.reset();
            until("there is room", async || {
                let url = cluster.gateway.url("/kv/k?timeout_ms=1");
                get(&client, url).await.problem() == "timeout"
            })
            .await;
        }
    })
    .await;
    for node in &cluster.nodes {
        node.process.go_on();
    }
    let url = cluster.gateway.url("/kv/k?wait=all");
    assert_eq!(put(&client, url, "v").await.statuses(), ["stored"; 3]);
}

#[tokio::test]
async fn clients_that_go_away_at_any_point_do_no_harm() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    let put_url = |number: usize| cluster.gateway.url(&format!("/kv/{number}?wait=all"));
    for number in 0..20 {
        put(&client, put_url(number), format!("value {number}")).await;
    }
    let abandoned = request("PUT", "/kv/abandoned?wait=all", Some(&[b'v'; 30_000]));
    let step = abandoned.len() / 199;
    for round in 0..200 {
        let mut connection = Connection::open(cluster.gateway.addr).await;
        connection.send(&abandoned[..round * step]).await;
        if round % 2 == 0 {
            connection.send(request("GET", "/kv/1", None)).await;
        }
        drop(connection);
        let number = round % 20;
        let reply = get(&client, put_url(number)).await;
        assert_eq!(reply.json["value"], format!("value {number}"));
    }
    // Nobody takes the replies of these.
    for round in 0..50 {
        let mut connection = Connection::open(cluster.gateway.addr).await;
        let requests = request("GET", format!("/kv/{}?raw=true", round % 20), None).repeat(20);
        connection.send(requests).await;
    }
    for number in 0..20 {
        let reply = get(&client, put_url(number)).await;
        assert_eq!(reply.json["value"], format!("value {number}"));
    }
}

#[tokio::test]
async fn a_write_goes_on_after_its_client_has_gone() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-in-flight", "1"]);
    let client = client();
    for node in &cluster.nodes {
        node.process.stop();
    }
    drop(in_flight(&cluster, request("PUT", "/kv/k", Some(b"v"))).await);
    for node in &cluster.nodes {
        node.process.go_on();
    }
    until("it is stored", async || {
        let reply = get(&client, cluster.gateway.url("/kv/k?r=3")).await;
        reply.json["value"] == "v"
    })
    .await;
}

#[tokio::test]
async fn past_the_limit_a_connection_is_refused_with_the_reason_and_closed() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-connections", "2"]);
    // Connections without a request under way would make room.
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(busy_connection(cluster.gateway.addr).await);
    }
    for _ in 0..10 {
        let mut third = Connection::open(cluster.gateway.addr).await;
        third.send(request("PUT", "/kv/k", Some(b"v"))).await;
        let refused = third.reply().await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (503, "overloaded")
        );
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.header("connection"), "close");
        third.finish().await;
        assert_eq!(third.rest().await, b"");
    }
    // Those that were there first are served on.
    for connection in &mut taken {
        connection.send("v").await;
        assert_eq!(connection.reply().await.status, 200);
        connection.send(request("PUT", "/kv/k", Some(b"v"))).await;
        assert_eq!(connection.reply().await.status, 200);
    }
    // And then make room, the one that was served first.
    let mut another = Connection::open(cluster.gateway.addr).await;
    another.send(request("GET", "/kv/k", None)).await;
    assert_eq!(another.reply().await.status, 200);
    assert_eq!(taken[0].rest().await, b"");
    taken[1].send(request("GET", "/kv/k", None)).await;
    assert_eq!(taken[1].reply().await.status, 200);
}

/// The gateway gives each ten seconds, which is what this test takes.
#[tokio::test]
async fn a_body_that_stops_is_answered_with_that_and_a_head_that_stops_is_closed() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let mut body = Connection::open(cluster.gateway.addr).await;
    body.send("PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nva")
        .await;
    let mut head = Connection::open(cluster.gateway.addr).await;
    head.send("GET /kv/k HTTP/1.1\r\nho").await;
    let (reply, cut_off) = patiently(async { tokio::join!(body.reply(), head.rest()) }).await;
    assert_eq!(
        (reply.status.as_u16(), reply.problem()),
        (408, "request-timeout")
    );
    assert_eq!(reply.header("connection"), "close");
    assert_eq!(cut_off, b"");
    let get = get(&client(), cluster.gateway.url("/kv/k")).await;
    assert_eq!(get.problem(), "key-not-found");
}

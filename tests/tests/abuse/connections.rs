//! Connections that are opened and say nothing, or too little.

use std::net::SocketAddr;

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::process::{Gateway, ServersFile, own_loopback};
use dkvs_tests::until;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metrics;

/// The places of the gateway, which has one worker.
const PLACES: usize = 64;

fn gateway_of(cluster: &dkvs_tests::process::Cluster, more: &[&str]) -> Gateway {
    let places = PLACES.to_string();
    let arguments = ["--workers", "1", "--max-connections", &*places];
    PROGRAMS.gateway_over(&cluster.servers, &[&arguments, more].concat())
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let _alone = alone().await;
    let cluster = PROGRAMS.cluster(3, &[]);
    let mut gateway = gateway_of(&cluster, &[]);
    let addr = gateway.addr;
    beside_callers(&mut gateway, 64 << 20, async || {
        // More by far than there are places: nothing, a part of a head, or a whole request and then
        // nothing. From one address, and from many.
        let addresses = [own_loopback(), own_loopback(), own_loopback()];
        let mut silent = Vec::new();
        for number in 0..6 * PLACES {
            let from = match number % 2 {
                0 => addresses[0],
                _ => addresses[number % addresses.len()],
            };
            let mut connection = Connection::open_from(from, addr).await;
            match number % 3 {
                0 => {}
                1 => connection.send("GET /kv/k HTTP/1.1\r\nhost: local").await,
                _ => {
                    connection.send(request("GET", "/livez", None)).await;
                    assert_eq!(connection.reply().await.status, 200);
                }
            }
            silent.push(connection);
            if number % 32 == 0 {
                for (target, status) in [
                    ("/livez", 200),
                    ("/readyz", 200),
                    ("/metrics", 200),
                    ("/kv/k", 404),
                ] {
                    let reply = exchange(addr, request("GET", target, None)).await;
                    assert_eq!(reply.status, status, "{target}: {reply:?}");
                }
            }
        }
        let samples = [
            "dkvs_gateway_connections_evicted_total",
            "dkvs_gateway_limits_hit_total{limit=\"connections\"}",
        ];
        let [evicted, refused] = metrics(addr, samples).await;
        assert!(evicted > 3 * PLACES as u64, "{evicted}");
        assert_eq!(refused, 0);
    })
    .await;
}

#[tokio::test]
async fn a_connection_with_a_request_under_way_makes_no_room() {
    let _alone = alone().await;
    let cluster = PROGRAMS.cluster(3, &[]);
    let gateway = gateway_of(&cluster, &[]);
    for node in &cluster.nodes {
        node.process.stop();
    }
    let mut busy = Vec::new();
    for _ in 0..PLACES {
        let mut connection = Connection::open(gateway.addr).await;
        connection.send(request("GET", "/kv/k", None)).await;
        busy.push(connection);
    }
    // Only once all heads have arrived.
    until("all places are taken by requests", async || {
        let reply = exchange(gateway.addr, request("GET", "/livez", None)).await;
        reply.status == 503
    })
    .await;
    for node in &cluster.nodes {
        node.process.go_on();
    }
    for mut connection in busy {
        assert_eq!(connection.reply().await.status, 404);
    }
}

#[tokio::test]
async fn health_and_metrics_have_connections_of_their_own() {
    let _alone = alone().await;
    let cluster = PROGRAMS.cluster(3, &[]);
    let mut gateway = gateway_of(&cluster, &["--admin-listen", "127.0.0.1:0"]);
    let line = gateway
        .process
        .stderr_line_with("health and metrics are at");
    let (_, admin) = line.split_once("http://").expect("a URL");
    let admin: SocketAddr = admin.trim().parse().expect("its address");
    for node in &cluster.nodes {
        node.process.stop();
    }
    // All places are taken by requests, and all of the other listener by silence.
    let mut busy = Vec::new();
    for _ in 0..PLACES {
        let mut connection = Connection::open(gateway.addr).await;
        connection.send(request("GET", "/kv/k", None)).await;
        busy.push(connection);
    }
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Connection::open(admin).await);
    }
    for (target, status) in [
        ("/livez", 200),
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 200),
        ("/kv/k", 404),
        ("/", 404),
    ] {
        let mut connection = Connection::open(admin).await;
        connection.send(request("GET", target, None)).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, status, "{target}: {reply:?}");
        assert_eq!(connection.rest().await, b"", "one request a connection");
    }
    let host = "GET /metrics HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    assert_eq!(exchange(admin, host).await.status, 421);
    for node in &cluster.nodes {
        node.process.go_on();
    }
    until("the servers are back", async || {
        exchange(admin, request("GET", "/readyz", None))
            .await
            .status
            == 200
    })
    .await;
}

#[tokio::test]
async fn thousands_who_ask_for_readiness_take_no_place_of_a_request() {
    let _alone = alone().await;
    let cluster = PROGRAMS.cluster(3, &[]);
    // A server that never answers, beside three that do.
    let silent = UdpSocket::bind((own_loopback(), 0))
        .await
        .expect("a socket");
    let mut addrs: Vec<_> = cluster.nodes.iter().map(|node| node.addr).collect();
    addrs.push(silent.local_addr().expect("an address"));
    let servers = ServersFile::new(&addrs);
    let mut gateway = PROGRAMS.gateway_over(&servers, &["--workers", "1", "--max-in-flight", "8"]);
    let addr = gateway.addr;
    beside_callers(&mut gateway, 128 << 20, async || {
        let mut asking = JoinSet::new();
        for _ in 0..1_000 {
            asking.spawn(async move {
                let mut connection = Connection::open(addr).await;
                for _ in 0..3 {
                    connection.send(request("GET", "/readyz", None)).await;
                    let reply = connection.reply().await;
                    assert_eq!(reply.json["servers_reachable"], 3, "{reply:?}");
                }
            });
        }
        asking.join_all().await;
    })
    .await;
}

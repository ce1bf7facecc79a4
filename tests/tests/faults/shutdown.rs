//! How a gateway ends.

use dkvs_tests::http::{Connection, client, exchange, put, request};
use dkvs_tests::process::{Cluster, Gateway, Node, Programs, ServersFile, own_loopback};
use dkvs_tests::{programs, until};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::clients::in_flight;

const PROGRAMS: Programs = programs!();

/// Three servers, and a gateway of one worker at an address that nobody takes over when it ends.
fn cluster(arguments: &[&str]) -> Cluster {
    let nodes: Vec<Node> = (0..3).map(|_| PROGRAMS.node(&[])).collect();
    let addrs: Vec<_> = nodes.iter().map(|node| node.addr).collect();
    let servers = ServersFile::new(&addrs);
    let mut command = PROGRAMS.gateway_command();
    command.args(["--servers", servers.path(), "--workers", "1"]);
    command.args(["--listen", &format!("{}:0", own_loopback())]);
    command.args(arguments);
    Cluster {
        nodes,
        servers,
        gateway: Gateway::of(command),
    }
}

async fn refuses_connections(cluster: &Cluster) -> bool {
    let refused = TcpStream::connect(cluster.gateway.addr).await;
    refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn a_request_in_flight_gets_its_reply_before_the_gateway_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut cluster = cluster(&["--max-in-flight", "1"]);
        let url = cluster.gateway.url("/kv/k?wait=all&timeout_ms=30000");
        assert_eq!(put(&client(), url, "v").await.status, 200);
        for node in &cluster.nodes {
            node.process.stop();
        }
        let mut connection =
            in_flight(&cluster, request("GET", "/kv/k?timeout_ms=30000", None)).await;
        cluster.gateway.process.signal(signal);
        until("connections are refused", async || {
            refuses_connections(&cluster).await
        })
        .await;
        assert!(cluster.gateway.process.is_running());
        for node in &cluster.nodes {
            node.process.go_on();
        }
        let reply = connection.reply().await;
        assert_eq!(reply.json["value"], "v", "{reply:?}");
        assert_eq!(reply.header("connection"), "close");
        assert_eq!(connection.rest().await, b"");
        let status = cluster.gateway.process.end();
        assert!(status.success(), "{status:?}");
    }
}

#[tokio::test]
async fn a_request_that_times_out_meanwhile_is_answered_with_that() {
    let mut cluster = cluster(&["--max-in-flight", "1"]);
    for node in &cluster.nodes {
        node.process.stop();
    }
    let mut connection = in_flight(&cluster, request("GET", "/kv/k?timeout_ms=5000", None)).await;
    cluster.gateway.process.signal(Signal::TERM);
    let reply = connection.reply().await;
    assert_eq!((reply.status.as_u16(), reply.problem()), (504, "timeout"));
    let status = cluster.gateway.process.end();
    assert!(status.success(), "{status:?}");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let mut cluster = cluster(&[]);
    let mut used = Connection::open(cluster.gateway.addr).await;
    used.send(request("GET", "/livez", None)).await;
    assert_eq!(used.reply().await.status, 200);
    let mut unused = Connection::open(cluster.gateway.addr).await;
    cluster.gateway.process.signal(Signal::TERM);
    assert_eq!(used.rest().await, b"");
    assert_eq!(unused.rest().await, b"");
    let status = cluster.gateway.process.end();
    assert!(status.success(), "{status:?}");
    let log = cluster.gateway.process.rest_of_stderr().join("\n");
    assert!(
        log.contains("stopped") && !log.contains("still busy"),
        "{log}"
    );
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut cluster = cluster(&["--max-in-flight", "1"]);
    for node in &cluster.nodes {
        node.process.stop();
    }
    let mut connection = in_flight(&cluster, request("GET", "/kv/k?timeout_ms=30000", None)).await;
    cluster.gateway.process.signal(Signal::TERM);
    until("connections are refused", async || {
        refuses_connections(&cluster).await
    })
    .await;
    cluster
        .gateway
        .process
        .stderr_line_with("finishing what is in flight");
    let (status, _) = cluster.gateway.process.end_with(Signal::TERM);
    assert_eq!(status.code(), Some(1));
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn a_gateway_that_gives_notice_serves_on_and_says_that_it_is_not_ready() {
    let mut cluster = cluster(&["--shutdown-notice", "600000"]);
    let addr = cluster.gateway.addr;
    let mut kept = Connection::open(addr).await;
    cluster.gateway.process.signal(Signal::TERM);
    let begun = "not ready, and serving for 600s";
    cluster.gateway.process.stderr_line_with(begun);
    let reply = exchange(addr, request("GET", "/readyz", None)).await;
    assert_eq!((reply.status.as_u16(), reply.problem()), (503, "not-ready"));
    let value = request("PUT", "/kv/k?timeout_ms=30000", Some(b"v"));
    for _ in 0..2 {
        assert_eq!(exchange(addr, &value).await.status, 200);
        kept.send(&value).await;
        assert_eq!(kept.reply().await.status, 200);
    }
    assert!(cluster.gateway.process.is_running());
    // Another signal ends the notice, and not what is in flight.
    let (status, _) = cluster.gateway.process.end_with(Signal::TERM);
    assert!(status.success(), "{status:?}");
    assert_eq!(kept.rest().await, b"");
}

#[tokio::test]
async fn a_notice_comes_to_an_end() {
    let mut cluster = cluster(&["--shutdown-notice", "1"]);
    let (status, _) = cluster.gateway.process.end_with(Signal::TERM);
    assert!(status.success(), "{status:?}");
}

#[tokio::test]
async fn a_gateway_comes_back_at_its_address_at_once() {
    let mut cluster = cluster(&[]);
    let addr = cluster.gateway.addr;
    for round in 0..5 {
        let mut connection = Connection::open(addr).await;
        let value = format!("value {round}");
        let put = request(
            "PUT",
            "/kv/k?wait=all&timeout_ms=30000",
            Some(value.as_bytes()),
        );
        connection.send(put).await;
        assert_eq!(connection.reply().await.status, 200);
        // It closes the connection, and so has to wait for what may still come there.
        let (status, _) = cluster.gateway.process.end_with(Signal::TERM);
        assert!(status.success(), "{status:?}");
        let mut command = PROGRAMS.gateway_command();
        command.args(["--servers", cluster.servers.path()]);
        command.args(["--listen", &addr.to_string(), "--timeout", "30000"]);
        cluster.gateway = Gateway::of(command);
        let get = exchange(addr, request("GET", "/kv/k", None)).await;
        assert_eq!(get.json["value"], value, "the servers have kept it");
    }
}

#[tokio::test]
async fn an_embedded_cluster_ends_with_its_gateway() {
    for workers in ["1", "2"] {
        let mut gateway = PROGRAMS.gateway(&["--embedded", "3", "--workers", workers]);
        put(&client(), gateway.url("/kv/k"), "v").await;
        assert!(gateway.process.end_with(Signal::TERM).0.success());
    }
}

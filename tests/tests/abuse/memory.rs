//! All that callers can have a gateway keep, at once, in a container of the size that it asks for.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::memory_limit::MemoryLimit;
use dkvs_tests::process::{Gateway, own_loopback};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};

/// Connections that the gateway takes, and values of a megabyte that are on their way to it.
const CONNECTIONS: usize = 400;
const VALUES: usize = 280;

#[tokio::test]
async fn a_gateway_lives_within_the_sum_that_it_names() {
    let _alone = alone().await;
    let cluster = PROGRAMS.cluster(3, &[]);
    let mut command = PROGRAMS.gateway_command();
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--servers",
        cluster.servers.path(),
    ]);
    command.args([
        "--timeout",
        "30000",
        "--workers",
        "1",
        "--max-in-flight",
        "64",
    ]);
    command.args(["--max-connections", &CONNECTIONS.to_string()]);
    let bytes = named_sum(&command) << 20;
    let limit = MemoryLimit::new(bytes);
    if let Some(limit) = &limit {
        command = limit.around(&command);
    }
    let mut gateway = Gateway::of(command);
    let addr = gateway.addr;
    beside_callers(&mut gateway, bytes, async || {
        let mut attackers = JoinSet::new();
        // None of them has more than its share.
        let from = [(); 5].map(|()| own_loopback());
        for number in 0..VALUES {
            attackers.spawn(value(from[number % from.len()], addr));
        }
        for number in 0..CONNECTIONS {
            attackers.spawn(head(from[number % from.len()], addr, number % 2 * 126_000));
        }
        let held = attackers.join_all().await;
        for target in ["/livez", "/readyz", "/metrics"] {
            let reply = exchange(addr, request("GET", target, None)).await;
            assert_eq!(reply.status, 200, "{target}: {reply:?}");
        }
        drop(held);
    })
    .await;
}

/// What a command that starts a gateway would take, in mebibytes, as it says itself.
fn named_sum(command: &Command) -> u64 {
    let mut check = Command::new(command.get_program());
    check.args(command.get_args()).arg("--check-config");
    let (status, out, err) = PROGRAMS.run_to_end(check);
    assert!(status.success(), "{err}");
    let (_, sum) = out.split_once("memory at most ").expect("a sum");
    let (sum, _) = sum.split_once(" MiB").expect("in mebibytes");
    sum.parse().expect("a number")
}

/// A connection that sends a value but for its last byte.
async fn value(from: Ipv4Addr, addr: SocketAddr) -> Option<Connection> {
    let mut connection = connect(from, addr).await?;
    let head = "PUT /kv/long HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n";
    connection.send(head).await;
    connection.send(vec![b'v'; (1 << 20) - 1]).await;
    Some(connection)
}

/// A connection that sends so many bytes of a head, if it is let.
async fn head(from: Ipv4Addr, addr: SocketAddr, bytes: usize) -> Option<Connection> {
    let mut connection = connect(from, addr).await?;
    if bytes > 0 {
        connection
            .send("GET /kv/k HTTP/1.1\r\nhost: localhost\r\n")
            .await;
        let field = format!("x: {}\r\n", "x".repeat(bytes));
        connection.send(field).await;
    }
    Some(connection)
}

async fn connect(from: Ipv4Addr, addr: SocketAddr) -> Option<Connection> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind((from, 0).into()).ok()?;
    Some(Connection::over(socket.connect(addr).await.ok()?))
}

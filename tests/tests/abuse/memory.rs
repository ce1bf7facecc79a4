//! All that callers can have a gateway keep, at once, in a container of the size that it asks for.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::memory_limit::MemoryLimit;
use dkvs_tests::process::{Gateway, own_loopback};
use dkvs_tests::until;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metrics;

/// Connections that the gateway takes; and more values of a megabyte, and more heads, than it has memory
/// for.
const CONNECTIONS: usize = 400;
const VALUES: usize = 280;
const HEADS: usize = 130;

/// Bytes of a value that are sent singly, so that it makes progress.
const REST: usize = 120;

/// What is taken, and the most that may be.
const PLACES: [&str; 2] = [
    "dkvs_gateway_connections_open",
    "dkvs_gateway_connections_max",
];
const VALUE_MEMORY: [&str; 2] = [
    "dkvs_gateway_value_memory_bytes",
    "dkvs_gateway_value_memory_max_bytes",
];
const HEAD_MEMORY: [&str; 2] = [
    "dkvs_gateway_head_memory_bytes",
    "dkvs_gateway_head_memory_max_bytes",
];

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
    match &limit {
        Some(limit) => command = limit.around(&command),
        None => eprintln!("the system lets no limit be set: the peak alone is measured"),
    }
    let mut gateway = Gateway::of(command);
    let addr = gateway.addr;
    beside_callers(&mut gateway, bytes, async || {
        // None of them has more than its share.
        let from = [(); 5].map(|()| own_loopback());
        let mut attackers = JoinSet::new();
        for number in 0..CONNECTIONS {
            attackers.spawn(silence(from[number % from.len()], addr));
        }
        until("connections take the places", async || {
            let [open, max] = metrics(addr, PLACES).await;
            10 * open >= 9 * max
        })
        .await;
        for number in 0..VALUES {
            attackers.spawn(value(from[number % from.len()], addr));
        }
        // A quarter is left for callers who hold little.
        until("values take the memory for them", async || {
            let [taken, max] = metrics(addr, VALUE_MEMORY).await;
            10 * taken >= 7 * max
        })
        .await;
        for number in 0..HEADS {
            attackers.spawn(head(from[number % from.len()], addr));
        }
        until("all is taken at once", async || {
            let [open, max] = metrics(addr, PLACES).await;
            let [values, values_max] = metrics(addr, VALUE_MEMORY).await;
            let [heads, heads_max] = metrics(addr, HEAD_MEMORY).await;
            10 * open >= 9 * max && 10 * values >= 7 * values_max && 2 * heads >= heads_max
        })
        .await;
        for target in ["/livez", "/readyz", "/metrics"] {
            let reply = exchange(addr, request("GET", target, None)).await;
            assert_eq!(reply.status, 200, "{target}: {reply:?}");
        }
        drop(attackers);
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

/// A connection that says nothing.
async fn silence(from: Ipv4Addr, addr: SocketAddr) {
    let mut connection = Connection::open_from(from, addr).await;
    connection.rest().await;
}

/// A connection that sends a value but for its end, of which it sends a byte now and then.
async fn value(from: Ipv4Addr, addr: SocketAddr) {
    let mut connection = Connection::open_from(from, addr).await;
    let head = "PUT /kv/long HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n";
    connection.send(head).await;
    connection.send(vec![b'v'; (1 << 20) - REST]).await;
    for _ in 1..REST {
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection.send("v").await;
    }
}

/// A connection that sends so much of a head as it is let.
async fn head(from: Ipv4Addr, addr: SocketAddr) {
    let mut connection = Connection::open_from(from, addr).await;
    connection
        .send("GET /kv/k HTTP/1.1\r\nhost: localhost\r\n")
        .await;
    let field = format!("x: {}\r\n", "x".repeat(126_000));
    connection.send(field).await;
    connection.rest().await;
}

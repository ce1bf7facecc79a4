//! Heads of requests that are long, and never end.

use std::net::{Ipv4Addr, SocketAddr};

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::process::own_loopback;
use dkvs_tests::until;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metrics;

/// Heads from each of the addresses, and how long each is.
const HEADS: usize = 200;
const HEAD_BYTES: usize = 126_000;

/// What heads take, the most that they may, and how often one got none of it.
const HEAD_MEMORY: [&str; 3] = [
    "dkvs_gateway_head_memory_bytes",
    "dkvs_gateway_head_memory_max_bytes",
    "dkvs_gateway_limits_hit_total{limit=\"head_memory\"}",
];

#[tokio::test]
async fn unfinished_heads_take_what_there_is_for_them_and_no_more() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    // What comes in would be 126 MB.
    beside_callers(&mut cluster.gateway, 64 << 20, async || {
        let mut attackers = JoinSet::new();
        for _ in 0..5 {
            let from = own_loopback();
            for _ in 0..HEADS {
                attackers.spawn(head(from, addr));
            }
        }
        let opened = attackers.join_all().await;
        until("the heads have half of the memory for them", async || {
            let [taken, max, refused] = metrics(addr, HEAD_MEMORY).await;
            2 * taken >= max && refused > 0
        })
        .await;
        // A long head of someone who behaves has room: it is read, though no key may be as long.
        let key = "k".repeat(30_000);
        let reply = exchange(addr, request("GET", format!("/kv/{key}"), None)).await;
        assert_eq!(reply.problem(), "invalid-key", "{reply:?}");
        drop(opened);
    })
    .await;
}

/// A connection that sends the most of a head, if it is let, and stays open.
async fn head(from: Ipv4Addr, addr: SocketAddr) -> Connection {
    let mut connection = Connection::open_from(from, addr).await;
    connection
        .send("GET /kv/k HTTP/1.1\r\nhost: localhost\r\n")
        .await;
    for _ in 0..HEAD_BYTES / 6_000 {
        let field = format!("x: {}\r\n", "x".repeat(6_000));
        if !connection.try_send(field).await {
            break;
        }
    }
    connection
}

#[tokio::test]
async fn who_sends_too_much_of_heads_gets_the_reason() {
    let _alone = alone().await;
    let cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    // All from one address, whose share of the memory is enough for 32 of them.
    let mut waiting = JoinSet::new();
    for _ in 0..60 {
        waiting.spawn(async move {
            let mut connection = head(Ipv4Addr::LOCALHOST, addr).await;
            // One that is held is closed without a reply, at last.
            match connection.first_bytes(1).await.is_empty() {
                true => None,
                false => Some(connection.reply().await),
            }
        });
    }
    let mut refused = 0;
    while refused < 60 - 32 {
        let reply = waiting.join_next().await.expect("more are refused");
        let Some(reply) = reply.unwrap() else {
            continue;
        };
        refused += 1;
        assert_eq!(reply.problem(), "overloaded");
        let detail = reply.json["detail"].as_str().expect("a detail");
        assert!(detail.contains("long heads"), "{detail}");
    }
}

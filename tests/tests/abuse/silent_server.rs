//! Requests that wait for a server that is silent, as long as they may.

use std::net::{Ipv4Addr, SocketAddr};

use dkvs_tests::http::{Connection, Reply, request};
use dkvs_tests::process::Cluster;
use dkvs_tests::until;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::{metric, metrics};

/// Where the attack comes from; those who behave come from 127.0.0.1. Not every system has it.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const CONNECTIONS: usize = 256;

/// Requests that the gateway takes on at a time, and the share of one caller.
const PLACES: usize = 32;
const SHARE: usize = 24;

/// The requests in flight, and those that are decided and wait.
const UNDECIDED: &str = "dkvs_gateway_quorum_requests_in_flight";
const DECIDED: &str = "dkvs_gateway_quorum_requests_decided";

/// A gateway with few places, and three servers of which one is silent.
fn cluster() -> Cluster {
    let places = PLACES.to_string();
    let cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-in-flight", &places]);
    cluster.nodes[0].process.stop();
    cluster
}

/// Sends the same request on many connections, each of which is kept open.
async fn open_all(addr: SocketAddr, request: &[u8]) -> Vec<Connection> {
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let request = request.to_vec();
        connections.spawn(async move {
            let mut connection = Connection::open_from(ATTACKER, addr).await;
            connection.send(request).await;
            connection
        });
    }
    connections.join_all().await
}

/// Waits for the first replies, so many of them.
async fn replies(connections: Vec<Connection>, count: usize) -> (Vec<Reply>, JoinSet<Reply>) {
    let mut waiting = JoinSet::new();
    for mut connection in connections {
        waiting.spawn(async move { connection.reply().await });
    }
    let mut replies = Vec::new();
    for _ in 0..count {
        replies.push(waiting.join_next().await.unwrap().unwrap());
    }
    (replies, waiting)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn reads_that_wait_for_all_leave_their_places_and_end_with_what_they_have() {
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    let read = request("GET", "/kv/k?wait=all&timeout_ms=30000", None);
    beside_callers(&mut cluster.gateway, 96 << 20, async || {
        let mut insisting = JoinSet::new();
        for mut connection in open_all(addr, &read).await {
            let read = read.clone();
            insisting.spawn(async move {
                loop {
                    let reply = connection.reply().await;
                    if reply.status != 503 {
                        return reply;
                    }
                    assert_is_share(&reply);
                    connection.send(&read).await;
                }
            });
        }
        // Three quarters of twice the places wait; all others are answered before.
        let waiting = 2 * SHARE;
        for _ in 0..CONNECTIONS - waiting {
            let reply = insisting.join_next().await.unwrap().unwrap();
            assert_eq!(reply.problem(), "key-not-found");
            assert_eq!(reply.count("pending"), 1, "{reply:?}");
        }
        let decided = metric(addr, DECIDED).await;
        assert!(decided <= waiting as u64, "{decided}");
        let ended = "dkvs_gateway_limits_hit_total{limit=\"requests_decided\"}";
        assert!(metric(addr, ended).await > 0);
        drop(insisting);
    })
    .await;
    until("nobody waits any more", async || {
        metric(addr, DECIDED).await == 0
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn reads_that_need_the_silent_server_take_the_share_of_their_caller() {
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    let read = request("GET", "/kv/k?r=3&timeout_ms=30000", None);
    beside_callers(&mut cluster.gateway, 96 << 20, async || {
        let connections = open_all(addr, &read).await;
        let (refused, still_waiting) = replies(connections, CONNECTIONS - SHARE).await;
        refused.iter().for_each(assert_is_share);
        let refusals = "dkvs_gateway_limits_hit_total{limit=\"requests_of_caller\"}";
        let refusals = metric(addr, refusals).await;
        assert!(refusals >= (CONNECTIONS - SHARE) as u64, "{refusals}");
        drop(still_waiting);
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn writes_whose_callers_have_gone_leave_others_their_places() {
    let _alone = alone().await;
    for target in [
        // Decided by two; the third is waited for, though nobody is there to hear of it.
        "/kv/k?wait=all&timeout_ms=30000",
        // Not decided before the third has answered.
        "/kv/k?w=3&timeout_ms=30000",
    ] {
        let mut cluster = cluster();
        let addr = cluster.gateway.addr;
        let write = request("PUT", target, Some(b"v"));
        beside_callers(&mut cluster.gateway, 96 << 20, async || {
            for _ in 0..2 {
                // Begun, and then abandoned: some as soon as they have arrived.
                let connections = open_all(addr, &write).await;
                until("writes take half of a share", async || {
                    let [undecided, decided] = metrics(addr, [UNDECIDED, DECIDED]).await;
                    match target.contains("wait=all") {
                        true => decided >= SHARE as u64 / 2,
                        false => undecided >= SHARE as u64 / 2,
                    }
                })
                .await;
                connections.into_iter().for_each(Connection::reset);
            }
        })
        .await;
        let in_flight = metric(addr, UNDECIDED).await;
        assert!(
            in_flight <= SHARE as u64,
            "{in_flight} are held by one caller"
        );
        if target.contains("wait=all") {
            until("what is decided and abandoned has ended", async || {
                let decided = metric(addr, DECIDED).await;
                decided == 0
            })
            .await;
        }
    }
}

fn assert_is_share(reply: &Reply) {
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.problem(), "overloaded");
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains("share"), "{detail}");
    assert_eq!(reply.header("retry-after"), "1");
}

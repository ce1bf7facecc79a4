//! Connections whose requests never end, all of one address.

use std::net::{Ipv4Addr, SocketAddr};

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::process::own_loopback;
use dkvs_tests::until;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metric;

/// Connections that the gateway takes; the attackers are twice as many.
const CONNECTIONS: usize = 64;

const EVICTED: &str = "dkvs_gateway_connections_evicted_total";

const MEMORY_BYTES: u64 = 128 << 20;

/// The head of a request whose body never comes.
const UNFINISHED: &str = "PUT /kv/never HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n";

#[tokio::test]
async fn an_address_whose_requests_never_end_keeps_no_other_out() {
    let _alone = alone().await;
    let most = CONNECTIONS.to_string();
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-connections", &most]);
    let addr = cluster.gateway.addr;
    beside_callers(&mut cluster.gateway, MEMORY_BYTES, async || {
        let from = own_loopback();
        let mut attackers = JoinSet::new();
        for _ in 0..2 * CONNECTIONS {
            attackers.spawn(insist(from, addr));
        }
        until("the attackers have lost connections", async || {
            metric(addr, EVICTED).await >= 20
        })
        .await;
        for _ in 0..50 {
            for target in ["/livez", "/metrics", "/readyz"] {
                let reply = exchange(addr, request("GET", target, None)).await;
                assert_eq!(reply.status, 200, "{target}: {reply:?}");
            }
        }
        attackers.shutdown().await;
    })
    .await;
}

/// Each has a part of all connections, and none more than half.
#[tokio::test]
async fn addresses_that_share_all_connections_keep_no_other_out() {
    let _alone = alone().await;
    let most = CONNECTIONS.to_string();
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-connections", &most]);
    let addr = cluster.gateway.addr;
    beside_callers(&mut cluster.gateway, MEMORY_BYTES, async || {
        for addresses in [2, 4] {
            let mut attackers = JoinSet::new();
            for _ in 0..addresses {
                let from = own_loopback();
                for _ in 0..2 * CONNECTIONS / addresses {
                    attackers.spawn(insist(from, addr));
                }
            }
            let before = metric(addr, EVICTED).await;
            until("the attackers have lost connections", async || {
                metric(addr, EVICTED).await >= before + 20
            })
            .await;
            for _ in 0..50 {
                for target in ["/livez", "/kv/none"] {
                    let reply = exchange(addr, request("GET", target, None)).await;
                    assert_ne!(reply.status, 503, "{target}: {reply:?}");
                }
            }
            attackers.shutdown().await;
        }
    })
    .await;
}

/// Opens another connection as soon as one ends.
async fn insist(from: Ipv4Addr, addr: SocketAddr) {
    loop {
        let mut connection = Connection::open_from(from, addr).await;
        connection.send(UNFINISHED).await;
        connection.rest().await;
        tokio::task::yield_now().await;
    }
}

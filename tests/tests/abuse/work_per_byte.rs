//! Requests whose work or reply is out of proportion to their bytes.

use std::net::SocketAddr;

use dkvs_tests::http::{exchange, request};
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};

/// How often each of the connections sends its request.
const ROUNDS: usize = 4;

#[tokio::test]
async fn thousands_of_unknown_parameters_cost_little() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &[]);
    let addr = cluster.gateway.addr;
    let names = "a0&b&c&d&e&f&g&h&".repeat(2_000);
    let target = format!("/livez?{names}");
    let gateway = &mut cluster.gateway;
    beside_callers(gateway, 64 << 20, async || {
        let connections = (0..4).map(|_| insist(addr, target.clone()));
        connections.collect::<JoinSet<()>>().join_all().await;
    })
    .await;
}

async fn insist(addr: SocketAddr, target: String) {
    for _ in 0..ROUNDS {
        let reply = exchange(addr, request("GET", &target, None)).await;
        assert_eq!(reply.status, 400);
    }
}

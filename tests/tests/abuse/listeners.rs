//! Listeners to events, of which a gateway has few.

use std::net::Ipv4Addr;

use dkvs_tests::http::{Connection, request};
use dkvs_tests::process::own_loopback;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metrics;

/// Most listeners of a gateway, and of one address.
const LISTENERS_MAX: usize = 64;
const PER_CALLER_MAX: usize = 16;

/// Whether a listener from this address gets events.
async fn listen(from: Ipv4Addr, addr: std::net::SocketAddr) -> Option<Connection> {
    let mut connection = Connection::open_from(from, addr).await;
    connection.send(request("GET", "/events", None)).await;
    let begun = connection.first_bytes(12).await;
    match &begun[..] {
        b"HTTP/1.1 200" => Some(connection),
        b"HTTP/1.1 503" => None,
        other => panic!("{}", other.escape_ascii()),
    }
}

#[tokio::test]
async fn whoever_has_most_listeners_gives_way_to_others() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(1, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    beside_callers(&mut cluster.gateway, 96 << 20, async || {
        let mut listening = Vec::new();
        // Four addresses take all that there are.
        for _ in 0..LISTENERS_MAX / PER_CALLER_MAX {
            let from = own_loopback();
            for _ in 0..PER_CALLER_MAX {
                listening.push(listen(from, addr).await.expect("a listener"));
            }
            assert!(listen(from, addr).await.is_none(), "its share is taken");
        }
        // And still others get events: each takes the newest of one of those.
        let from = own_loopback();
        for _ in 0..4 {
            let mut newcomer = listen(from, addr).await.expect("a listener");
            let mut events = Vec::new();
            while !events.windows(15).any(|part| part == b"event: snapshot") {
                events.extend(newcomer.piece().await.expect("events"));
            }
            listening.push(newcomer);
        }
        let limits = ["listeners_of_caller", "listeners_displaced", "listeners"];
        let sample = |limit| format!("dkvs_gateway_limits_hit_total{{limit=\"{limit}\"}}");
        let samples = limits.map(sample);
        let [of_caller, displaced, refused] =
            metrics(addr, [&*samples[0], &*samples[1], &*samples[2]]).await;
        assert_eq!((of_caller, displaced, refused), (4, 4, 0));
    })
    .await;
}

//! The port on which a storage server serves its metrics, held by others.

use std::net::SocketAddr;

use dkvs_tests::http::{Connection, client, get, request};
use dkvs_tests::process::ServersFile;
use dkvs_tests::until;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metric;

const CONNECTIONS: usize = 64;

/// How often the metrics are asked for meanwhile.
const SCRAPES: usize = 5;

#[tokio::test]
async fn connections_that_are_held_keep_no_scraper_away() {
    let _alone = alone().await;
    let mut node = PROGRAMS.node(&["--metrics", "127.0.0.1:0"]);
    let line = node.process.stderr_line_with("metrics are at");
    let (_, url) = line.split_once("http://").expect("a URL");
    let addr = url.strip_suffix("/metrics").expect("its path");
    let addr: SocketAddr = addr.parse().expect("its address");
    let displaced = format!(
        "dkvs_server_metrics_connections_displaced_total{{server=\"{}\"}}",
        node.addr
    );
    let servers = ServersFile::new(&[node.addr]);
    let mut gateway = PROGRAMS.gateway_over(&servers, &[]);
    beside_callers(&mut gateway, 64 << 20, async || {
        let _held: JoinSet<()> = (0..CONNECTIONS).map(|way| hold(addr, way)).collect();
        until("all places are taken, and taken away", async || {
            metric(addr, &displaced).await > 0
        })
        .await;
        let client = client();
        for _ in 0..SCRAPES {
            let reply = get(&client, format!("http://{addr}/metrics")).await;
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    })
    .await;
    if let Some(peak) = node.process.peak_bytes() {
        assert!(peak < 32 << 20, "{peak} bytes");
    }
}

/// Holds a connection, and opens another as soon as it is closed.
async fn hold(addr: SocketAddr, way: usize) {
    loop {
        let mut connection = Connection::open(addr).await;
        match way % 4 {
            // Says nothing.
            0 | 1 => {}
            // Begins a head, as long as may be.
            2 => {
                let begun = format!("GET /metrics HTTP/1.1\r\nx: {}", "v".repeat(15 << 10));
                connection.send(begun).await;
            }
            // Does not close once it is answered.
            _ => connection.send(request("GET", "/metrics", None)).await,
        }
        connection.rest().await;
    }
}

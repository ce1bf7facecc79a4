//! Bodies in chunks of a byte each, which cost as much work as kilobytes in one piece.

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::process::own_loopback;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::metric;

const REFUSED: &str = "dkvs_gateway_limits_hit_total{limit=\"short_chunks\"}";

/// A request with a body of so many chunks of so many bytes each.
fn chunked(target: &str, chunks: usize, chunk_bytes: usize) -> Vec<u8> {
    let head =
        format!("PUT {target} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("{chunk_bytes:x}\r\n{}\r\n", "v".repeat(chunk_bytes));
    [head, chunk.repeat(chunks), "0\r\n\r\n".to_owned()]
        .concat()
        .into()
}

#[tokio::test]
async fn a_body_in_the_shortest_chunks_is_refused_and_read_no_further() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    beside_callers(&mut cluster.gateway, 96 << 20, async || {
        let from = own_loopback();
        for (target, status) in [("/kv/chunks", 400), ("/nothing", 404)] {
            let body = chunked(target, 200_000, 1);
            for _ in 0..8 {
                let mut connection = Connection::open_from(from, addr).await;
                connection.send(&body).await;
                let reply = connection.reply().await;
                assert_eq!(reply.status, status, "{reply:?}");
                if status == 400 {
                    assert_eq!(reply.problem(), "invalid-body", "{reply:?}");
                }
                assert_eq!(connection.rest().await, b"", "the connection ends");
            }
        }
        // Both while a handler reads, and where none does.
        assert_eq!(metric(addr, REFUSED).await, 16);
        // A short body may come in any chunks, and a long one in those that clients send.
        for (chunks, chunk_bytes) in [(1_000, 1), (40_000, 20), (40, 16_000)] {
            let body = chunked("/kv/chunks", chunks, chunk_bytes);
            assert_eq!(exchange(addr, body).await.status, 200, "{chunk_bytes}");
            let stored = exchange(addr, request("GET", "/kv/chunks?raw=true", None)).await;
            assert_eq!(stored.body.len(), chunks * chunk_bytes);
        }
        assert_eq!(metric(addr, REFUSED).await, 16);
    })
    .await;
}

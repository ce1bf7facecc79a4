//! Batches that write as much as a batch may.

use dkvs_tests::http::{Connection, exchange, request};
use dkvs_tests::process::own_loopback;
use serde_json::json;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};

/// Batches at a time, and what each writes.
const BATCHES: usize = 6;
const PUTS: usize = 128;
const VALUE_BYTES: usize = 20 << 10;

/// The memory of the gateway, of its servers, and of what they store.
const MEMORY_BYTES: u64 = 384 << 20;

/// Short requests are answered while the batches are under way, and not after them.
#[tokio::test]
async fn long_values_of_batches_are_written_in_turns_with_short_requests() {
    let _alone = alone().await;
    let mut gateway = PROGRAMS.gateway(&["--embedded", "3", "--workers", "1"]);
    let addr = gateway.addr;
    let value = "v".repeat(VALUE_BYTES);
    let put = |number| {
        let key = format!("b/{number}");
        json!({ "op": "put", "key": key, "value": value, "timeout_ms": 30_000 })
    };
    let batch = json!({ "operations": (0..PUTS).map(put).collect::<Vec<_>>() }).to_string();
    let batch = request("POST", "/batch", Some(batch.as_bytes()));
    beside_callers(&mut gateway, MEMORY_BYTES, async || {
        let (from, mut batches) = (own_loopback(), JoinSet::new());
        for _ in 0..BATCHES {
            let batch = batch.clone();
            batches.spawn(async move {
                let mut connection = Connection::open_from(from, addr).await;
                connection.send(batch).await;
                let reply = connection.reply().await;
                let results = reply.json["results"].as_array().expect("results");
                let failed = results.iter().find(|result| result["status"] != 200);
                assert!(failed.is_none() && results.len() == PUTS, "{failed:?}");
            });
        }
        let mut answers = 0;
        while !batches.is_empty() {
            while let Some(ended) = batches.try_join_next() {
                ended.expect("a batch is stored");
            }
            let reply = exchange(addr, request("GET", "/kv/none", None)).await;
            assert_eq!(reply.status, 404, "{reply:?}");
            answers += 1;
        }
        assert!(answers >= BATCHES, "{answers} answers meanwhile");
    })
    .await;
}

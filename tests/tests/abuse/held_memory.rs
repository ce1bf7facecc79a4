//! Requests and replies that hold much memory for long. The attackers come from one address and the
//! callers who behave from another, so that each has a share of its own.

use std::net::Ipv4Addr;

use dkvs_tests::http::{Connection, client, put, request};
use dkvs_tests::process::{Cluster, Gateway, own_loopback};
use dkvs_tests::{patiently, until};
use serde_json::json;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers_with_values};
use crate::statistics::metric;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// What a gateway of one worker takes beside what it counts, in these tests.
const BASE_BYTES: u64 = 80 << 20;

/// The share of one caller.
const SHARE_BYTES: u64 = 64 << 20;

/// The values of the callers who behave; they take memory, too.
const CALLERS_BYTES: usize = 100 << 10;

/// Each of its bytes becomes six in JSON.
fn control_characters() -> Vec<u8> {
    vec![1; 1 << 20]
}

fn cluster() -> Cluster {
    PROGRAMS.cluster(3, &["--workers", "1"])
}

async fn attack(gateway: &mut Gateway, attack: impl AsyncFnOnce()) {
    let bytes_max = SHARE_BYTES + BASE_BYTES;
    beside_callers_with_values(gateway, CALLERS_BYTES, bytes_max, attack).await;
}

const SHARE_REFUSALS: &str = "dkvs_gateway_limits_hit_total{limit=\"value_memory_share\"}";

/// Each value takes a mebibyte, and there are more than a share has. Some of them are six in the reply.
#[tokio::test]
async fn a_batch_of_long_replies_is_answered_in_order_within_the_share() {
    const GETS: usize = 80;
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    for (path, value) in [
        ("/kv/control", control_characters()),
        ("/kv/plain", vec![b'v'; 1 << 20]),
    ] {
        let stored = put(&client(), cluster.gateway.url(path), value).await;
        assert_eq!(stored.status, 200);
    }
    let keys = (0..GETS).map(|number| match number % 8 {
        0 => "control",
        1 => "none",
        _ => "plain",
    });
    let get = |key| json!({ "op": "get", "key": key, "timeout_ms": 30_000 });
    let operations: Vec<_> = keys.clone().map(get).collect();
    let batch = json!({ "operations": operations }).to_string();
    let head = format!(
        "POST /batch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        batch.len()
    );
    let request = [head, batch].concat();
    attack(&mut cluster.gateway, async || {
        let mut connection = Connection::open_from(ATTACKER, addr).await;
        connection.send(&request).await;
        let mut counts = [0; 128];
        let mut bytes = 0;
        patiently(async {
            while let Some(piece) = connection.piece().await {
                bytes += piece.len();
                for byte in piece {
                    counts[usize::from(byte & 127)] += 1;
                }
            }
        })
        .await;
        // All values are there, as often as they were asked for.
        let [controls, plains] =
            ["control", "plain"].map(|name| keys.clone().filter(|key| *key == name).count());
        let (escapes, letters) = (counts[usize::from(b'\\')], counts[usize::from(b'v')]);
        let is_so_many = |found: usize, values: usize| (found >> 20) == values;
        assert!(is_so_many(escapes, controls), "{escapes}");
        assert!(is_so_many(letters, plains), "{letters}");
        assert!(is_so_many(bytes, 6 * controls + plains), "{bytes}");
    })
    .await;
    assert!(metric(addr, SHARE_REFUSALS).await > 0);
}

/// Each of those that are answered holds a value of a mebibyte.
#[tokio::test]
async fn callers_that_do_not_read_hold_their_share_alone() {
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    let stored = put(
        &client(),
        cluster.gateway.url("/kv/k"),
        control_characters(),
    )
    .await;
    assert_eq!(stored.status, 200);
    attack(&mut cluster.gateway, async || {
        let mut unread = Vec::new();
        for number in 0..300 {
            let target = ["/kv/k", "/kv/k?raw=true"][number % 2];
            let mut connection = Connection::open_from(ATTACKER, addr).await;
            connection.send(request("GET", target, None)).await;
            unread.push(connection);
        }
        until("the share is used up", async || {
            metric(addr, SHARE_REFUSALS).await > 50
        })
        .await;
        assert!(metric(addr, "dkvs_gateway_value_memory_bytes").await > SHARE_BYTES / 2);
    })
    .await;
    until("what they held is given back", async || {
        metric(addr, "dkvs_gateway_value_memory_bytes").await == 0
    })
    .await;
}

/// Each announces a body of 3 MiB, and sends hardly any of it.
#[tokio::test]
async fn an_announcement_takes_no_memory() {
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    attack(&mut cluster.gateway, async || {
        let mut dripping = Vec::new();
        for number in 0..200 {
            let (method, target, length) = match number % 2 {
                0 => ("POST", "/batch", 3 << 20),
                _ => ("PUT", "/kv/k", 1 << 20),
            };
            let mut connection = Connection::open_from(ATTACKER, addr).await;
            let head = format!(
                "{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
            );
            connection.send(head).await;
            connection.send("{").await;
            dripping.push(connection);
        }
        for connection in &mut dripping {
            connection.send("\"").await;
        }
        let mut gauge = Connection::open(addr).await;
        gauge.send(request("GET", "/livez", None)).await;
        assert_eq!(gauge.reply().await.status, 200);
        let taken = metric(addr, "dkvs_gateway_value_memory_bytes").await;
        assert!(
            taken < 2 << 20,
            "{taken} bytes, which callers who behave hold at most"
        );
    })
    .await;
    assert_eq!(metric(addr, SHARE_REFUSALS).await, 0);
}

/// Half of each body is sent, which is as much as is held of it.
#[tokio::test]
async fn bodies_that_never_end_hold_their_callers_share_alone() {
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    attack(&mut cluster.gateway, async || {
        let mut unfinished = JoinSet::new();
        for _ in 0..100 {
            unfinished.spawn(async move {
                let mut connection = Connection::open_from(ATTACKER, addr).await;
                let body = vec![b'v'; 1 << 20];
                let request = request("PUT", "/kv/k", Some(&body));
                connection.send(&request[..request.len() - 1]).await;
                connection
            });
        }
        let unfinished = unfinished.join_all().await;
        until("the share is used up", async || {
            metric(addr, SHARE_REFUSALS).await > 20
        })
        .await;
        assert!(metric(addr, "dkvs_gateway_value_memory_bytes").await > SHARE_BYTES / 2);
        drop(unfinished);
    })
    .await;
    until("what they held is given back", async || {
        metric(addr, "dkvs_gateway_value_memory_bytes").await == 0
    })
    .await;
}

/// Each of the callers sends as much as is taken of it, and none of it ends.
#[tokio::test]
async fn several_callers_who_take_all_they_can_leave_some_for_others() {
    let _alone = alone().await;
    let mut cluster = cluster();
    let addr = cluster.gateway.addr;
    let bytes_max = 4 * SHARE_BYTES + BASE_BYTES;
    let gateway = &mut cluster.gateway;
    beside_callers_with_values(gateway, CALLERS_BYTES, bytes_max, async || {
        let mut unfinished = Vec::new();
        // More than each gets: the first three a quarter of all, the others half of what is left.
        for bodies in [80, 80, 80, 48, 24, 16, 16] {
            let (from, mut sending) = (own_loopback(), JoinSet::new());
            for _ in 0..bodies {
                sending.spawn(async move {
                    let mut connection = Connection::open_from(from, addr).await;
                    let request = request("PUT", "/kv/k", Some(&[b'v'; 1 << 20]));
                    connection.send(&request[..request.len() - 1]).await;
                    connection
                });
            }
            unfinished.extend(sending.join_all().await);
        }
        let refused = "dkvs_gateway_limits_hit_total{limit=\"value_memory\"}";
        until("they have taken what they get", async || {
            metric(addr, refused).await > 20
        })
        .await;
        assert!(metric(addr, "dkvs_gateway_value_memory_bytes").await > 3 * SHARE_BYTES);
    })
    .await;
}

/// Keys as long as they can be, each byte of which becomes six.
#[tokio::test]
async fn lists_of_long_keys_are_counted_and_written_in_pieces() {
    const KEYS: usize = 100;
    const KEY_BYTES: usize = 30_000;
    let _alone = alone().await;
    let arguments = ["--embedded", "3", "--workers", "1"];
    let mut gateway = PROGRAMS.gateway(&arguments);
    let addr = gateway.addr;
    let mut putting = Connection::open(addr).await;
    for first in (0..KEYS).step_by(10) {
        // No path is as long.
        let put = |number| {
            let key = format!("{number:03}{}", "\u{1}".repeat(KEY_BYTES - 3));
            json!({ "op": "put", "key": key, "value": "v" })
        };
        let operations: Vec<_> = (first..first + 10).map(put).collect();
        let batch = json!({ "operations": operations }).to_string();
        putting
            .send(request("POST", "/batch", Some(batch.as_bytes())))
            .await;
        let reply = putting.reply().await;
        let results = reply.json["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"] == 200));
    }
    // The embedded servers keep three copies.
    let stored = 3 * (KEYS * KEY_BYTES) as u64;
    let bytes_max = SHARE_BYTES + BASE_BYTES + 2 * stored;
    beside_callers_with_values(&mut gateway, CALLERS_BYTES, bytes_max, async || {
        let mut list = Connection::open_from(ATTACKER, addr).await;
        list.send(request("GET", "/kv?limit=1000&timeout_ms=20000", None))
            .await;
        let reply = list.reply().await;
        assert_eq!(reply.status, 200);
        let keys = reply.json["keys"].as_array().unwrap();
        let long = keys
            .iter()
            .filter(|key| key.as_str().unwrap().len() == KEY_BYTES);
        assert_eq!(long.count(), KEYS);
        let mut unread = Vec::new();
        for _ in 0..8 {
            let mut connection = Connection::open_from(ATTACKER, addr).await;
            let lists = request("GET", "/kv?limit=1000&timeout_ms=20000", None);
            connection.send(lists).await;
            unread.push(connection);
        }
        // That of the list which took longest to ask for, and more.
        until("lists are waiting to be read", async || {
            metric(addr, "dkvs_gateway_value_memory_bytes").await > (KEYS * KEY_BYTES) as u64
        })
        .await;
    })
    .await;
}

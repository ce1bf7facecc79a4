//! Lists that look at many keys and find none, since all are deleted.

use dkvs_common::model::Statistic;
use dkvs_tests::http::{Connection, client, exchange, get, request, send};
use dkvs_tests::process::{Cluster, own_loopback};
use dkvs_tests::until;
use serde_json::json;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::{metric, statistic};

/// Deleted keys, all of which begin with the prefix that is listed.
const KEYS: usize = 20_000;

/// Lists at a time, and how many pages each of them asks for.
const LISTS: usize = 64;
const PAGES: usize = 6;

/// What a server looks at for a page of a gateway's caller, at the most: 256 of its own, each of one key
/// more than the caller's has.
const RECORDS_PER_REQUEST_MAX: u64 = 256 * 101;

#[tokio::test]
async fn lists_of_deleted_keys_take_turns_and_are_limited() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    fill(&cluster.gateway.url("/batch")).await;
    let url = cluster.gateway.url("/kv?prefix=none/&timeout_ms=30000");
    let gateway = &mut cluster.gateway;
    let walks = beside_callers(gateway, 96 << 20, async || {
        let walks = (0..LISTS).map(|_| walk(url.clone()));
        walks.collect::<JoinSet<Walk>>().join_all().await
    })
    .await;
    let pages = walks.iter().map(|walk| walk.pages).sum::<u64>();
    let refused = walks.iter().map(|walk| walk.refused).sum::<u64>();
    // All of them are one caller, who may have four at a time.
    assert!(pages > 0 && refused > 0, "{pages} {refused}");
    // What the lists cost was bounded, page by page.
    for node in &cluster.nodes {
        let examined = statistic(node.addr, Statistic::ListRecordsExamined);
        assert!(
            examined <= pages * RECORDS_PER_REQUEST_MAX,
            "{examined} {pages}"
        );
        assert_eq!(statistic(node.addr, Statistic::ListsRefusedBusy), 0);
    }
    let metrics = get(&client(), cluster.gateway.url("/metrics")).await;
    let line = format!("dkvs_gateway_limits_hit_total{{limit=\"lists_of_caller\"}} {refused}\n");
    let page = String::from_utf8_lossy(&metrics.body);
    assert!(page.contains(&line), "{line}{page}");
    // A list that goes on when it is refused comes to its end.
    let (mut cursor, mut empty_pages) = (String::new(), 0);
    loop {
        let page = get(&client(), format!("{url}{cursor}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.json["keys"], json!([]), "{page:?}");
        match page.json["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        empty_pages += 1;
    }
    assert!(empty_pages >= 1, "a page does not look at all keys");
}

#[tokio::test]
async fn a_caller_has_four_lists_at_a_time() {
    let _alone = alone().await;
    let cluster = silent_cluster();
    let addr = cluster.gateway.addr;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(addr).await;
        let list = request("GET", "/kv?timeout_ms=30000", None);
        connection.send(list).await;
        held.push(connection);
    }
    until("all four have begun", async || {
        metric(addr, "dkvs_gateway_quorum_requests_in_flight").await == 4
    })
    .await;
    let another = exchange(addr, request("GET", "/kv", None)).await;
    assert_eq!(another.problem(), "too-many-lists", "{another:?}");
    assert_eq!(another.status, 429);
    for node in &cluster.nodes {
        node.process.go_on();
    }
    for mut connection in held {
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[tokio::test]
async fn whoever_lists_most_gives_way_to_whoever_does_not_list() {
    let _alone = alone().await;
    let cluster = silent_cluster();
    let addr = cluster.gateway.addr;
    // Four callers take all that there are.
    let mut held = Vec::new();
    let list = request("GET", "/kv?timeout_ms=30000", None);
    for _ in 0..4 {
        let from = own_loopback();
        for _ in 0..4 {
            let mut connection = Connection::open_from(from, addr).await;
            connection.send(&list).await;
            held.push(connection);
        }
    }
    let in_flight = "dkvs_gateway_quorum_requests_in_flight";
    until("all have begun", async || {
        metric(addr, in_flight).await == 16
    })
    .await;
    let displaced = "dkvs_gateway_limits_hit_total{limit=\"lists_displaced\"}";
    let mut newcomers = Vec::new();
    for number in 1..=4 {
        let mut connection = Connection::open_from(own_loopback(), addr).await;
        connection.send(&list).await;
        newcomers.push(connection);
        until("one has made room", async || {
            metric(addr, displaced).await == number
        })
        .await;
    }
    for node in &cluster.nodes {
        node.process.go_on();
    }
    for mut connection in newcomers {
        assert_eq!(connection.reply().await.status, 200);
    }
    let mut refused = 0;
    for mut connection in held {
        let reply = connection.reply().await;
        if reply.status == 429 {
            assert_eq!(reply.problem(), "too-many-lists");
            refused += 1;
        } else {
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    }
    assert_eq!(refused, 4);
}

/// A cluster of servers that answer once they are made to go on.
fn silent_cluster() -> Cluster {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    for node in &cluster.nodes {
        node.process.stop();
    }
    cluster
}

/// Deletes the keys, which leaves a tombstone of each.
async fn fill(url: &str) {
    let client = client();
    for first in (0..KEYS).step_by(128) {
        let numbers = first..KEYS.min(first + 128);
        let deletes =
            numbers.map(|number| json!({ "op": "delete", "key": format!("none/{number}") }));
        let body = json!({ "operations": deletes.collect::<Vec<_>>() });
        let done = send(client.post(url).json(&body)).await;
        assert_eq!(done.status, 200, "{done:?}");
    }
}

/// What a list came to.
struct Walk {
    pages: u64,
    refused: u64,
}

/// Lists page by page, and insists at once where it is refused.
async fn walk(url: String) -> Walk {
    let (client, mut cursor) = (client(), String::new());
    let mut walk = Walk {
        pages: 0,
        refused: 0,
    };
    for _ in 0..PAGES {
        let page = get(&client, format!("{url}{cursor}")).await;
        match page.status.as_u16() {
            200 => {
                walk.pages += 1;
                let next = page.json["cursor"].as_str();
                cursor = next.map_or_else(String::new, |next| format!("&cursor={next}"));
            }
            429 => {
                assert_eq!(page.problem(), "too-many-lists");
                assert_eq!(page.header("retry-after"), "1");
                walk.refused += 1;
            }
            _ => panic!("{page:?}"),
        }
    }
    walk
}

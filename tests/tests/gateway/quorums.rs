//! n, w and r, waiting and time-outs, as the replies show them.

use std::time::{Duration, Instant};

use dkvs_tests::http::{Reply, client, get, put};
use dkvs_tests::process::Cluster;
use dkvs_tests::{programs, until};
use reqwest::Client;

async fn write(client: &Client, cluster: &Cluster, query: &str, value: &str) -> Reply {
    let url = cluster.gateway.url(&format!("/kv/k?{query}"));
    put(client, url, value.to_owned()).await
}

async fn read(client: &Client, cluster: &Cluster, query: &str) -> Reply {
    get(client, cluster.gateway.url(&format!("/kv/k?{query}"))).await
}

#[tokio::test]
async fn every_n_w_and_r_of_five_servers_is_met_by_five_servers() {
    let cluster = programs!().cluster(5, &[]);
    let client = client();
    for n in 1..=5 {
        for needed in 1..=n {
            let value = format!("{n} {needed}");
            let query = format!("n={n}&w={needed}&wait=all");
            let put = write(&client, &cluster, &query, &value).await;
            assert_eq!(put.status, 200, "{put:?}");
            assert_eq!(put.statuses(), vec!["stored"; n]);
            let quorum = serde_json::json!({ "n": n, "w": needed, "confirmed": n });
            assert_eq!(put.json["quorum"], quorum);
            assert_eq!(put.json["outcome"], "committed");
            let level = match (n, needed) {
                (3, 2 | 3) => "linearizable",
                _ => "agreement",
            };
            assert_eq!(put.json["consistency"], level);

            let query = format!("n={n}&r={needed}&wait=all");
            let get = read(&client, &cluster, &query).await;
            assert_eq!(get.json["value"], value, "{get:?}");
            assert_eq!(get.statuses(), vec!["match"; n]);
            assert_eq!(get.json["consistency"], level);
            let quorum = serde_json::json!({ "n": n, "r": needed, "agreeing": n });
            assert_eq!(get.json["quorum"], quorum);
            assert_eq!(get.servers(), put.servers());
            let mut servers = get.servers();
            servers.sort();
            servers.dedup();
            assert_eq!(servers.len(), n, "distinct servers");
        }
    }
}

#[tokio::test]
async fn what_is_not_said_is_the_replication_and_a_majority() {
    for (arguments, query, n, needed) in [
        (&[][..], "", 3, 2),
        (&[], "n=5", 5, 3),
        (&[], "n=4", 4, 3),
        (&[], "n=1", 1, 1),
        (&[], "w=1", 3, 1),
        (&[], "w=5", 5, 5),
        (&["--replication", "5"], "", 5, 3),
        (&["--replication", "1"], "", 1, 1),
        (&["--replication", "1"], "w=2", 2, 2),
    ] {
        let gateway = programs!().gateway(&[&["--embedded", "5"], arguments].concat());
        let client = client();
        let put = put(&client, gateway.url(&format!("/kv/k?{query}")), "v").await;
        let get = get(
            &client,
            gateway.url(&format!("/kv/k?{}", query.replace('w', "r"))),
        )
        .await;
        for (reply, name) in [(put, "w"), (get, "r")] {
            let quorum = &reply.json["quorum"];
            assert_eq!((&quorum["n"], &quorum[name]), (&n.into(), &needed.into()));
        }
    }
    let gateway = programs!().gateway(&["--embedded", "2"]);
    let put = put(&client(), gateway.url("/kv/k"), "v").await;
    assert_eq!(
        (&put.json["quorum"]["n"], &put.json["quorum"]["w"]),
        (&2.into(), &2.into())
    );
}

#[tokio::test]
async fn with_some_servers_dead_a_request_succeeds_exactly_if_enough_are_left() {
    for protocol in ["v1", "v2"] {
        // One worker, lest another's clock be a tag ahead.
        let arguments = ["--workers", "1", "--protocol", protocol];
        some_servers_dead(programs!().cluster(5, &arguments)).await;
    }
}

async fn some_servers_dead(mut cluster: Cluster) {
    let client = client();
    let put = write(&client, &cluster, "n=5&w=5", "v0").await;
    let order = put.servers();
    // The second and the fourth of the preference list.
    cluster.node(order[1]).process.kill();
    cluster.node(order[3]).process.kill();
    let mut held = "v0".to_owned();
    for (n, alive) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        for needed in 1..=n {
            let query = format!("n={n}&r={needed}&wait=all");
            let get = read(&client, &cluster, &query).await;
            if needed <= alive {
                assert_eq!(get.json["value"], held, "{get:?}");
                assert_eq!(get.json["quorum"]["agreeing"], alive);
            } else {
                assert_eq!(get.problem(), "quorum-unreachable");
            }
            assert_eq!(get.count("unreachable"), n - alive);

            // To all that are left, lest two values are in the way of the next read.
            held = format!("{n} {needed}");
            let put = write(&client, &cluster, "n=5&w=1&wait=all", &held).await;
            assert_eq!(put.count("stored"), 3, "{put:?}");
            let query = format!("n={n}&w={needed}&wait=all");
            let put = write(&client, &cluster, &query, &held).await;
            assert_eq!(put.count("unreachable"), n - alive);
            // What asks for as many tags as have to confirm sends no record where there are fewer.
            let is_begun = needed <= alive || put.json["consistency"] == "agreement";
            let stored = if is_begun { alive } else { 0 };
            assert_eq!(put.count("stored"), stored, "{put:?}");
            if needed <= alive {
                assert_eq!(
                    (put.status.as_u16(), put.json["outcome"].as_str()),
                    (200, Some("committed"))
                );
            } else {
                assert_eq!(put.problem(), "quorum-unreachable");
                let outcome = if is_begun { "unknown" } else { "not_applied" };
                assert_eq!(put.json["outcome"], outcome);
            }
        }
    }
}

#[tokio::test]
async fn a_request_is_answered_at_its_quorum_and_names_who_is_still_pending() {
    let mut cluster = programs!().cluster(3, &[]);
    let client = client();
    let put = write(&client, &cluster, "w=3", "old").await;
    assert_eq!(put.status, 200);
    let stopped = put.servers()[1];
    cluster.node(stopped).process.stop();

    let put = write(&client, &cluster, "", "new").await;
    assert_eq!(put.statuses(), ["stored", "pending", "stored"]);
    assert_eq!(
        put.json["replicas"][1]["latency_us"],
        serde_json::Value::Null
    );
    let get = read(&client, &cluster, "").await;
    assert_eq!(get.statuses(), ["match", "pending", "match"]);
    assert_eq!(get.json["value"], "new");
    let one = read(&client, &cluster, "n=1&r=1").await;
    assert_eq!(one.statuses(), ["match"]);
}

#[tokio::test]
async fn wait_all_waits_for_every_replica_up_to_the_timeout() {
    let mut cluster = programs!().cluster(3, &[]);
    let client = client();
    let put = write(&client, &cluster, "wait=all", "v").await;
    assert_eq!(put.statuses(), ["stored"; 3]);
    cluster.node(put.servers()[2]).process.stop();

    for timeout_ms in [100, 400] {
        let query = &format!("wait=all&timeout_ms={timeout_ms}");
        // On a busy machine the other two may be too late as well.
        until("two stored it in time", async || {
            let put = write(&client, &cluster, query, "v").await;
            assert_eq!(put.statuses()[2], "timeout");
            put.count("stored") == 2 && answered_after(&put, timeout_ms)
        })
        .await;
        until("two answered in time", async || {
            let get = read(&client, &cluster, query).await;
            assert_eq!(get.statuses()[2], "timeout");
            get.count("match") == 2 && answered_after(&get, timeout_ms)
        })
        .await;
    }
}

/// Asserts a success that did not come before its time.
fn answered_after(reply: &Reply, timeout_ms: u64) -> bool {
    assert_eq!(reply.status, 200, "{reply:?}");
    let elapsed_us = reply.json["elapsed_us"].as_u64().unwrap();
    assert!(elapsed_us >= timeout_ms * 1_000, "{reply:?}");
    true
}

#[tokio::test]
async fn the_gateways_own_timeout_holds_where_a_request_names_none() {
    let mut cluster = programs!().cluster(3, &["--timeout", "300"]);
    let client = client();
    let put = write(&client, &cluster, "wait=all&timeout_ms=30000", "v").await;
    cluster.node(put.servers()[0]).process.stop();
    until("two answered in time", async || {
        let get = read(&client, &cluster, "wait=all").await;
        assert_eq!(get.statuses()[0], "timeout");
        get.count("match") == 2 && answered_after(&get, 300)
    })
    .await;
}

#[tokio::test]
async fn a_request_without_a_quorum_ends_after_its_timeout_and_not_before() {
    for is_met in [false, true] {
        let cluster = programs!().cluster(3, &["--workers", "1"]);
        a_request_without_a_quorum_ends(cluster, is_met).await;
    }
}

/// Of servers that the gateway has met, or not.
async fn a_request_without_a_quorum_ends(cluster: Cluster, is_met: bool) {
    let client = client();
    if is_met {
        let get = read(&client, &cluster, "wait=all&timeout_ms=30000").await;
        assert_eq!(get.statuses(), ["absent"; 3]);
    }
    for node in &cluster.nodes {
        node.process.stop();
    }
    for timeout_ms in [1, 250] {
        let query = format!("timeout_ms={timeout_ms}");
        let begun = Instant::now();
        let get = read(&client, &cluster, &query).await;
        assert!(begun.elapsed() >= Duration::from_millis(timeout_ms));
        assert_eq!((get.status.as_u16(), get.problem()), (504, "timeout"));
        assert_eq!(get.statuses(), ["timeout"; 3]);
        // Before it had a tag, or had met enough of them, nobody was asked to store it.
        let agreement = if is_met { "unknown" } else { "not_applied" };
        for (level, outcome) in [("linearizable", "not_applied"), ("agreement", agreement)] {
            let query = format!("{query}&consistency={level}");
            let begun = Instant::now();
            let put = write(&client, &cluster, &query, "v").await;
            assert!(begun.elapsed() >= Duration::from_millis(timeout_ms));
            assert_eq!((put.status.as_u16(), put.problem()), (504, "timeout"));
            assert_eq!(put.statuses(), ["timeout"; 3]);
            assert_eq!(put.json["outcome"], outcome);
        }
    }
}

#[tokio::test]
async fn the_servers_and_readiness_are_reported_as_they_are() {
    for (protocol, answer) in [("v1", "DKVS/1"), ("v2", "DKVS/2")] {
        let cluster = programs!().cluster(3, &["--protocol", protocol]);
        servers_and_readiness(cluster, answer).await;
    }
}

async fn servers_and_readiness(mut cluster: Cluster, protocol: &str) {
    let client = client();
    let gateway = &cluster.gateway;
    // A server has half a second to show that it is there, which may be too little at times.
    let reachable = async || -> Vec<bool> {
        let answer = get(&client, gateway.url("/servers")).await;
        let servers = answer.json["servers"].as_array().unwrap().iter();
        let reachable = servers.map(|server| server["reachable"].as_bool().unwrap());
        reachable.collect()
    };
    let ready = async || {
        let ready = get(&client, gateway.url("/readyz")).await;
        (ready.status == 200).then(|| ready.json["servers_reachable"].as_u64().unwrap())
    };
    until("all three are reachable", async || {
        reachable().await == [true; 3]
    })
    .await;
    until("the gateway is ready", async || ready().await == Some(3)).await;
    let answer = get(&client, gateway.url("/servers")).await;
    let servers = answer.json["servers"].as_array().unwrap();
    for (server, node) in servers.iter().zip(&cluster.nodes) {
        assert_eq!(server["server"], node.addr.to_string());
        assert_eq!(server["protocol"], protocol);
        assert!(server["last_round_trip_us"].as_u64() > Some(0));
    }

    cluster.nodes[0].process.kill();
    until("the others are reachable", async || {
        let reachable = reachable().await;
        assert!(!reachable[0]);
        reachable[1] && reachable[2]
    })
    .await;
    until("two are a majority", async || ready().await == Some(2)).await;

    cluster.nodes[1].process.stop();
    // What it says may be of a moment ago.
    until("one is no majority", async || ready().await.is_none()).await;
    let not_ready = get(&client, gateway.url("/readyz")).await;
    assert_eq!(
        (not_ready.status.as_u16(), not_ready.problem()),
        (503, "not-ready")
    );
    assert_eq!(not_ready.header("retry-after"), "1");
    for path in ["/livez", "/healthz"] {
        let live = get(&client, gateway.url(path)).await;
        assert_eq!(live.json["status"], "alive");
    }
}

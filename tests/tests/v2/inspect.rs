//! What each replica holds, as `GET /ring/{key}?replicas=true` shows it. Servers do not know each other in
//! here: they come together by reads alone.

use std::net::{SocketAddr, UdpSocket};

use dkvs_common::kv::Value;
use dkvs_common::record::{Attributes, Content, ContentType, checksum};
use dkvs_tests::faulty::Manner;
use dkvs_tests::http::{Reply, client, get, put, send};
use dkvs_tests::process::{Cluster, DataDir, Gateway, Node, ServersFile, own_loopback};
use dkvs_tests::v2::key;
use dkvs_tests::{until, v1};
use reqwest::Client;
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use super::PROGRAMS;
use super::mixed::Mixed;

async fn holdings(client: &Client, gateway: &Gateway, key_and_query: &str) -> Reply {
    let separator = if key_and_query.contains('?') {
        '&'
    } else {
        '?'
    };
    let target = format!("/ring/{key_and_query}{separator}replicas=true");
    let reply = get(client, gateway.url(&target)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// What is said of one server.
fn of(reply: &Reply, server: SocketAddr) -> &Json {
    let mut replicas = reply.json["replicas"].as_array().unwrap().iter();
    let found = replicas.find(|it| it["server"] == server.to_string());
    found.unwrap_or_else(|| panic!("{server} is no replica: {reply:?}"))
}

/// An address for a server with a data directory, whose port has to stay the same.
fn free_addr() -> SocketAddr {
    let socket = UdpSocket::bind((own_loopback(), 0)).unwrap();
    socket.local_addr().unwrap()
}

fn durable(addr: SocketAddr, data: &DataDir, arguments: &[&str]) -> Node {
    let directory = ["--data-dir", data.path(), "--durability", "buffered"];
    PROGRAMS.node_at(addr, &[&directory, arguments].concat())
}

#[tokio::test]
async fn a_replica_that_missed_a_write_is_behind_until_a_read_repairs_it() {
    let data = DataDir::new();
    let here = [PROGRAMS.node(&[]), PROGRAMS.node(&[])];
    let addr = free_addr();
    let mut away = durable(addr, &data, &["--declare", "new"]);
    let servers = ServersFile::new(&[here[0].addr, here[1].addr, addr]);
    let (client, gateway) = (client(), PROGRAMS.gateway_over(&servers, &[]));
    let old = put(&client, gateway.url("/kv/k?wait=all"), "old").await;
    assert_eq!(old.count("stored"), 3, "{old:?}");

    let (status, _) = away.process.end_with(Signal::TERM);
    assert!(status.success());
    let new = put(&client, gateway.url("/kv/k?wait=all"), "newer").await;
    assert_eq!(new.count("stored"), 2, "{new:?}");
    let held = holdings(&client, &gateway, "k").await;
    assert_eq!(of(&held, addr)["status"], "unreachable");
    assert_eq!(held.count("value"), 2);
    assert_eq!(
        (&held.json["in_step"], &held.json["tag"]),
        (&Json::Null, &new.json["tag"])
    );

    let _away = durable(addr, &data, &[]);
    until("it is back", async || {
        let held = holdings(&client, &gateway, "k").await;
        of(&held, addr)["status"] != "unreachable"
    })
    .await;
    // To ask is not to repair.
    for _ in 0..3 {
        let held = holdings(&client, &gateway, "k").await;
        let behind = of(&held, addr);
        assert_eq!(
            (&behind["status"], &behind["size"]),
            (&json!("value"), &json!(3))
        );
        assert_eq!(behind["tag"], old.json["tag"]);
        for server in &here {
            let holds = of(&held, server.addr);
            assert_eq!(
                (&holds["tag"], &holds["size"]),
                (&new.json["tag"], &json!(5))
            );
        }
        assert_eq!(
            (&held.json["in_step"], &held.json["tag"]),
            (&json!(false), &new.json["tag"])
        );
    }
    let read = get(&client, gateway.url("/kv/k?wait=all")).await;
    assert_eq!(read.count("repaired"), 1, "{read:?}");
    let held = holdings(&client, &gateway, "k").await;
    assert_eq!(held.json["in_step"], true, "{held:?}");
}

#[tokio::test]
async fn values_tombstones_and_nothing_are_shown_without_values() {
    let cluster = PROGRAMS.cluster(5, &[]);
    let (client, gateway) = (client(), &cluster.gateway);
    let long = "what nobody is to see ".repeat(40_000);
    for value in ["what nobody is to see", &long] {
        let request = client.put(gateway.url("/kv/k?wait=all"));
        let request = request.header("content-type", "text/plain");
        let written = send(request.body(value.to_owned())).await;
        let held = holdings(&client, gateway, "k").await;
        assert!(!String::from_utf8_lossy(&held.body).contains("nobody"));
        assert_eq!(
            (&held.json["in_step"], &held.json["key"]),
            (&json!(true), &json!("k"))
        );
        let tag = written.json["tag"].as_str().unwrap();
        let content = Content::Value {
            value: Value::new(value.to_owned()).unwrap(),
            content_type: ContentType::new("text/plain").unwrap(),
        };
        let checksum = checksum(&key("k"), tag.parse().unwrap(), &Attributes::NONE, &content);
        assert_eq!(held.servers(), written.servers());
        for replica in held.json["replicas"].as_array().unwrap() {
            assert_eq!(replica["status"], "value");
            assert_eq!(replica["tag"], tag);
            assert_eq!(replica["size"], value.len());
            assert_eq!(replica["checksum"], format!("{checksum:08x}"));
            assert!(replica["latency_us"].is_u64());
        }
    }
    // The other servers hold nothing.
    let held = holdings(&client, gateway, "k?n=5").await;
    assert_eq!((held.count("value"), held.count("absent")), (3, 2));
    assert_eq!(held.json["in_step"], false);

    let deleted = send(client.delete(gateway.url("/kv/k?wait=all"))).await;
    let held = holdings(&client, gateway, "k").await;
    assert_eq!(held.statuses(), ["tombstone"; 3]);
    assert_eq!(
        (&held.json["in_step"], &held.json["tag"]),
        (&json!(true), &deleted.json["tag"])
    );
    let held = holdings(&client, gateway, "never").await;
    assert_eq!(held.statuses(), ["absent"; 3]);
    assert_eq!(
        (&held.json["in_step"], &held.json["tag"]),
        (&json!(true), &Json::Null)
    );
}

#[tokio::test]
async fn a_server_that_is_silent_is_waited_for_no_longer_than_was_asked_for() {
    let Cluster { nodes, gateway, .. } = PROGRAMS.cluster(3, &[]);
    let client = client();
    let written = put(&client, gateway.url("/kv/k?wait=all"), "v").await;
    nodes[0].process.stop();
    let held = holdings(&client, &gateway, "k?timeout_ms=300").await;
    nodes[0].process.go_on();
    let silent = of(&held, nodes[0].addr);
    assert_eq!(
        (&silent["status"], &silent["latency_us"]),
        (&json!("timeout"), &Json::Null)
    );
    assert_eq!(held.count("value"), 2);
    assert_eq!(
        (&held.json["in_step"], &held.json["tag"]),
        (&Json::Null, &written.json["tag"])
    );
}

#[tokio::test]
async fn a_server_that_lost_records_says_that_it_does_not_know() {
    let data = DataDir::new();
    let lost = durable(free_addr(), &data, &["--declare", "incomplete"]);
    let others = [PROGRAMS.node(&[]), PROGRAMS.node(&[])];
    let servers = ServersFile::new(&[others[0].addr, others[1].addr, lost.addr]);
    let (client, gateway) = (client(), PROGRAMS.gateway_over(&servers, &[]));
    let held = holdings(&client, &gateway, "k").await;
    let refused = of(&held, lost.addr);
    assert_eq!(refused["status"], "refused");
    assert!(
        refused["reason"]
            .as_str()
            .unwrap()
            .contains("has lost records"),
        "{held:?}"
    );
    assert_eq!(held.count("absent"), 2);
    assert_eq!(held.json["in_step"], Json::Null);
}

#[tokio::test]
async fn of_servers_of_dkvs_1_nothing_is_known() {
    let auto = &["--protocol", "auto"][..];
    for (ours, others, arguments) in [(2, 1, auto), (0, 3, auto), (0, 3, &["--protocol", "v1"])] {
        let mixed = Mixed::of(
            (0..ours).map(|_| PROGRAMS.node(&[])).collect(),
            others,
            Manner::Sound,
            arguments,
        );
        let (client, gateway) = (&mixed.client, &mixed.gateway);
        let written = put(client, gateway.url("/kv/k?w=3"), "v").await;
        assert_eq!(written.count("stored"), 3, "{written:?}");
        let held = holdings(client, gateway, "k").await;
        for other in &mixed.others {
            let refused = of(&held, other.addr);
            assert_eq!(refused["status"], "refused");
            assert!(
                refused["reason"]
                    .as_str()
                    .unwrap()
                    .contains("speaks DKVS/1 only")
            );
        }
        assert_eq!(held.count("value"), ours);
        assert_eq!(held.json["in_step"], Json::Null, "{held:?}");
    }
}

#[tokio::test]
async fn records_that_came_by_dkvs_1_are_not_compared() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let (client, gateway) = (client(), &cluster.gateway);
    for node in &cluster.nodes {
        v1::Client::new(node.addr).store("k", "the same");
    }
    let held = holdings(&client, gateway, "k").await;
    assert_eq!(held.statuses(), ["value"; 3]);
    assert_eq!(
        (&held.json["in_step"], &held.json["tag"]),
        (&Json::Null, &Json::Null)
    );
    for replica in held.json["replicas"].as_array().unwrap() {
        assert!(
            replica["reason"]
                .as_str()
                .unwrap()
                .contains("came by DKVS/1")
        );
    }
    let written = put(&client, gateway.url("/kv/k?wait=all"), "by HTTP").await;
    assert_eq!(written.count("stored"), 3, "{written:?}");
    let held = holdings(&client, gateway, "k").await;
    assert_eq!(
        (&held.json["in_step"], &held.json["tag"]),
        (&json!(true), &written.json["tag"])
    );
}

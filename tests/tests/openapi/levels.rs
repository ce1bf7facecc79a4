//! Replies that show how the levels of consistency differ, and what a tag repeats.

use dkvs_common::model::ReplicaResponse;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_tests::process::ServersFile;
use dkvs_tests::{programs, v2};
use serde_json::json;

use crate::replies::{Witness, assert_members, sorted_statuses};

pub async fn replicas_that_fell_behind(witness: &mut Witness) {
    let cluster = programs!().cluster(3, &[]);
    let mut at = witness.at(&cluster.gateway);
    let tag = Tag { time: 1, op: 1 };
    let mut client = v2::Client::new(cluster.nodes[0].addr);
    assert_eq!(
        client.ask(&v2::put("k", "v", tag)),
        Reply::Response(ReplicaResponse::Done)
    );
    let get = at.ask("getValue", "/kv/k?wait=all&r=3", "200").await;
    assert_members(&get, json!({ "value": "v", "consistency": "linearizable" }));
    assert_eq!(sorted_statuses(&get), ["match", "repaired", "repaired"]);
    let get = at.read("/kv/k?wait=all", "200").await;
    assert_eq!(get.statuses(), ["match"; 3]);

    // One has no room for the longer value: it stays behind, and does not keep the others back.
    let node = |memory| programs!().node(&["--max-memory", memory, "k", "v"]);
    let nodes = [node("110"), node("1M"), node("1M")];
    let servers = ServersFile::new(&nodes.each_ref().map(|node| node.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/k?wait=all", "v".repeat(100), "200").await;
    assert_eq!(sorted_statuses(&put), ["refused", "stored", "stored"]);
    let get = at.read("/kv/k?wait=all", "200").await;
    assert_eq!(sorted_statuses(&get), ["match", "match", "stale"]);
}

pub async fn replicas_that_fell_behind_a_deletion(witness: &mut Witness) {
    let mut cluster = programs!().cluster(3, &[]);
    let mut at = witness.at(&cluster.gateway);
    at.delete("/kv/k?wait=all", "200").await;
    let node = &mut cluster.nodes[0];
    node.process.kill();
    *node = programs!().node_at(node.addr, &["k", "v"]);
    at.ask("getServers", "/servers", "200").await;
    let get = at.ask("getValue", "/kv/k?wait=all&r=3", "404 key-not-found");
    let statuses = ["repaired", "tombstone", "tombstone"];
    assert_eq!(sorted_statuses(&get.await), statuses);

    // One has no room for the tombstone: it stays behind, and does not keep the others back.
    let node = |memory| programs!().node(&["--max-memory", memory, "k", "v"]);
    let nodes = [node("112"), node("1M"), node("1M")];
    let servers = ServersFile::new(&nodes.each_ref().map(|node| node.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    at.delete("/kv/other?wait=all", "200").await;
    let get = at.read("/kv/other?wait=all", "404 key-not-found").await;
    assert_eq!(sorted_statuses(&get), ["absent", "tombstone", "tombstone"]);
}

pub async fn a_write_that_one_replica_stored(witness: &mut Witness) {
    let full = [(); 2].map(|()| programs!().node(&["--max-memory", "117", "k", "v"]));
    let node = programs!().node(&[]);
    let servers = ServersFile::new(&[full[0].addr, full[1].addr, node.addr]);
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/k?wait=all", "v".repeat(100), "507 storage-full");
    let put = put.await;
    assert_members(&put, json!({ "outcome": "unknown" }));
    assert_eq!(sorted_statuses(&put), ["refused", "refused", "stored"]);
    // A read finds it, and cannot make it sure: so it returns nothing.
    let get = at
        .read("/kv/k?wait=all&r=3", "503 quorum-unreachable")
        .await;
    assert_eq!(sorted_statuses(&get), ["differs", "stale", "stale"]);
}

pub async fn writes_that_are_sent_again(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    let first = at.put("/kv/k?wait=all", "first", "200").await;
    let tag = first.json["tag"].as_str().expect("a tag").to_owned();
    let again = format!("/kv/k?wait=all&tag={tag}");
    let repeat = at.put(&again, "first", "200").await;
    assert_members(
        &repeat,
        json!({ "tag": tag, "quorum": first.json["quorum"] }),
    );
    assert_eq!(repeat.statuses(), ["stored"; 3]);

    let other = at.put(&again, "other", "409 tag-conflict").await;
    assert_members(&other, json!({ "outcome": "unknown", "tag": tag }));
    assert_eq!(other.statuses(), ["refused"; 3]);
    at.delete(&again, "409 tag-conflict").await;

    // Nobody knows any more whether the first was ever there, nor whether a reply gave the tag.
    at.put("/kv/k?wait=all", "second", "200").await;
    let made_up = "0000000000010000-0000000000000001";
    for tag in [&*tag, made_up] {
        for level in ["linearizable", "agreement"] {
            let again = format!("/kv/k?tag={tag}&consistency={level}");
            for again in [again.clone(), again + "&wait=all"] {
                let repeat = at.put(&again, "first", "409 superseded").await;
                assert_members(&repeat, json!({ "outcome": "unknown", "tag": tag }));
                assert_eq!(repeat.json["consistency"], level);
            }
            let by_all = format!("/kv/k?wait=all&tag={tag}&consistency={level}");
            let deletion = at.delete(&by_all, "409 superseded").await;
            assert_eq!(deletion.statuses(), ["superseded"; 3]);
        }
    }
    let get = at.read("/kv/k?wait=all", "200").await;
    assert_members(&get, json!({ "value": "second" }));
}

/// A write that one replica kept, as it missed what came after: that one proves that it was there.
pub async fn a_write_that_one_replica_still_holds(witness: &mut Witness) {
    let mut cluster = programs!().cluster(3, &["--protocol", "v2"]);
    let mut at = witness.at(&cluster.gateway);
    let first = at.put("/kv/k?wait=all", "first", "200").await;
    let tag = first.json["tag"].as_str().expect("a tag").to_owned();
    // Two have something newer.
    for node in &cluster.nodes[..2] {
        let mut newer: Tag = tag.parse().unwrap();
        newer.time += 1;
        let put = v2::put("k", "second", newer);
        assert_eq!(
            v2::Client::new(node.addr).ask(&put),
            Reply::Response(ReplicaResponse::Done)
        );
    }
    let again = format!("/kv/k?tag={tag}&wait=all");
    let repeat = at.put(&again, "first", "200").await;
    assert_members(&repeat, json!({ "outcome": "committed", "tag": tag }));
    let statuses = ["stored", "superseded", "superseded"];
    assert_eq!(sorted_statuses(&repeat), statuses);
    // Without that one it is not known.
    cluster.nodes[2].process.kill();
    let repeat = at.put(&again, "first", "409 superseded").await;
    assert_members(&repeat, json!({ "outcome": "unknown", "tag": tag }));
    let statuses = ["superseded", "superseded", "unreachable"];
    assert_eq!(sorted_statuses(&repeat), statuses);
}

//! DELETE leaves a tombstone, which reads as absent and says when.

use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::{Reply, client, get, put, send};
use dkvs_tests::process::{Gateway, ServersFile};
use reqwest::{Client, Method};

use crate::PROGRAMS;

async fn delete(client: &Client, gateway: &Gateway, path: &str) -> Reply {
    send(client.request(Method::DELETE, gateway.url(path))).await
}

/// A get of what was deleted under a tag.
fn assert_deleted(get: &Reply, tag: &serde_json::Value) {
    assert_eq!((get.status.as_u16(), get.problem()), (404, "key-not-found"));
    assert_eq!(get.json["deleted"], true, "{get:?}");
    assert_eq!(&get.json["tag"], tag);
}

#[tokio::test]
async fn what_was_deleted_is_absent_and_reported_as_deleted() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let (client, gateway) = (client(), &cluster.gateway);
    let url = gateway.url("/kv/k?wait=all");
    for value in [&b"short"[..], &[0; 100_000]] {
        let put = put(&client, url.clone(), value).await;
        let deleted = delete(&client, gateway, "/kv/k?wait=all").await;
        assert_eq!(deleted.status, 200, "{deleted:?}");
        assert_eq!(deleted.json["outcome"], "committed");
        assert_eq!(deleted.statuses(), ["stored"; 3]);
        let (before, tag) = (&put.json["tag"], &deleted.json["tag"]);
        assert!(tag.as_str() > before.as_str(), "{before} {tag}");
        let absent = get(&client, url.clone()).await;
        assert_deleted(&absent, tag);
        assert_eq!(absent.statuses(), ["tombstone"; 3]);
        let raw = get(&client, url.clone() + "&raw=true").await;
        assert_deleted(&raw, tag);
        let head = send(client.head(&url)).await;
        assert_eq!(head.status, 404);
    }
    let put = put(&client, url.clone(), "again").await;
    assert_eq!(put.statuses(), ["stored"; 3]);
    assert_eq!(get(&client, url).await.json["value"], "again");
}

#[tokio::test]
async fn nothing_can_be_deleted_and_never_was_there() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let (client, gateway) = (client(), &cluster.gateway);
    let never = get(&client, gateway.url("/kv/k?wait=all")).await;
    assert_eq!(never.json["deleted"], false);
    assert_eq!(never.json["tag"], serde_json::Value::Null);
    let mut last = String::new();
    for _ in 0..2 {
        let deleted = delete(&client, gateway, "/kv/k?w=3").await;
        assert_eq!((deleted.status.as_u16(), deleted.count("stored")), (200, 3));
        let tag = deleted.json["tag"].as_str().unwrap();
        assert!(*tag > *last, "{tag} after {last}");
        last = tag.to_owned();
        let absent = get(&client, gateway.url("/kv/k")).await;
        assert_deleted(&absent, &deleted.json["tag"]);
    }
}

#[tokio::test]
async fn a_delete_is_done_with_one_server_down_and_not_with_two() {
    let mut cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    let path = "/kv/k?wait=all";
    let put = put(&client, cluster.gateway.url(path), "v").await;
    assert_eq!(put.statuses(), ["stored"; 3]);
    cluster.nodes[0].process.kill();
    let deleted = delete(&client, &cluster.gateway, path).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let counts = (deleted.count("stored"), deleted.count("unreachable"));
    assert_eq!(counts, (2, 1));
    let absent = get(&client, cluster.gateway.url(path)).await;
    assert_deleted(&absent, &deleted.json["tag"]);
    cluster.nodes[1].process.kill();
    let failed = delete(&client, &cluster.gateway, path).await;
    assert_eq!(
        (failed.status.as_u16(), failed.problem()),
        (503, "quorum-unreachable")
    );
    assert_eq!(failed.json["outcome"], "not_applied");
}

#[tokio::test]
async fn servers_that_speak_dkvs_1_only_cannot_delete_and_say_so() {
    let servers: Vec<_> = (0..3).map(|_| FaultyServer::start(Manner::Sound)).collect();
    let addrs: Vec<_> = servers.iter().map(|server| server.addr).collect();
    let file = ServersFile::new(&addrs);
    for protocol in ["auto", "v1"] {
        let gateway = PROGRAMS.gateway_over(&file, &["--protocol", protocol]);
        let client = client();
        let url = gateway.url("/kv/k?wait=all");
        assert_eq!(put(&client, url.clone(), "v").await.status, 200);
        let refused = delete(&client, &gateway, "/kv/k?wait=all").await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (501, "not-supported"),
            "{protocol}"
        );
        let kept = get(&client, url).await;
        assert_eq!((kept.status.as_u16(), kept.count("match")), (200, 3));
    }
}

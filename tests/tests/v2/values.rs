//! Any bytes of any length up to the limit come back as they went in, with their type, however
//! long the datagrams are and however they are sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dkvs_tests::http::{Reply, client, get, put, send};
use dkvs_tests::process::Cluster;
use dkvs_tests::random::Random;
use reqwest::Client;

use crate::PROGRAMS;

const LONGEST: usize = 1 << 20;

/// Puts a value of so many bytes to all replicas and gets it as it is.
async fn survives(client: &Client, cluster: &Cluster, value_bytes: usize) {
    let value = Random::new(value_bytes as u64).bytes(value_bytes);
    let url = cluster.gateway.url("/kv/k?wait=all");
    let put = put(client, url.clone(), value.clone()).await;
    assert_eq!(put.status, 200, "{value_bytes}: {put:?}");
    assert_eq!(put.statuses(), ["stored"; 3], "{value_bytes}");
    let raw = get(client, url + "&raw=true").await;
    assert_eq!(raw.status, 200, "{value_bytes}: {raw:?}");
    assert!(raw.body == value, "{value_bytes}");
    assert_eq!(raw.header("dkvs-quorum"), "n=3, r=2, agreeing=3");
}

async fn all_lengths_survive(node: &[&str], gateway: &[&str]) {
    let cluster = PROGRAMS.cluster_of(3, node, gateway);
    let client = client();
    // Around the room for a value in a datagram of 512 bytes, of 1,200, and of 65,507; the limits
    // of DKVS/1 and of a datagram; our own.
    let lengths = (0..3)
        .chain(380..480)
        .chain(1_050..=1_250)
        .chain(32_752..=32_755)
        .chain((65_380..65_540).step_by(3))
        .chain([LONGEST - 1, LONGEST]);
    for value_bytes in lengths {
        survives(&client, &cluster, value_bytes).await;
    }
    let url = cluster.gateway.url("/kv/k");
    let refused = put(&client, url, vec![0; LONGEST + 1]).await;
    assert_eq!(refused.status, 413);
    assert_eq!(refused.problem(), "value-too-large");
    assert_eq!(refused.json["value_bytes_max"], LONGEST);
}

#[tokio::test]
async fn values_of_all_lengths_survive() {
    all_lengths_survive(&[], &[]).await;
}

#[tokio::test]
async fn values_of_all_lengths_survive_the_longest_datagrams() {
    let longest = ["--max-datagram", "65507"];
    all_lengths_survive(&longest, &longest).await;
}

#[tokio::test]
async fn values_of_all_lengths_survive_the_shortest_datagrams() {
    let shortest = ["--max-datagram", "512"];
    all_lengths_survive(&shortest, &shortest).await;
}

#[tokio::test]
async fn values_of_all_lengths_survive_datagrams_sent_one_by_one() {
    all_lengths_survive(&["--udp-offload", "off"], &["--udp-offload", "off"]).await;
}

#[tokio::test]
async fn the_shorter_limit_of_the_two_holds_for_both() {
    let (short, long) = (["--max-datagram", "512"], ["--max-datagram", "9000"]);
    for (node, gateway) in [(short, long), (long, short)] {
        let cluster = PROGRAMS.cluster_of(3, &node, &gateway);
        let client = client();
        for value_bytes in [0, 400, 600, 9_100, LONGEST] {
            survives(&client, &cluster, value_bytes).await;
        }
    }
}

#[tokio::test]
async fn every_byte_is_returned_raw_and_as_json() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    let every_byte: Vec<u8> = (0..=255).collect();
    let long: Vec<u8> = every_byte.repeat(4_096);
    let nul_text = "a\0b".as_bytes();
    for value in [&every_byte[..], &long, nul_text] {
        let url = cluster.gateway.url("/kv/k");
        assert_eq!(put(&client, url.clone(), value.to_vec()).await.status, 200);
        let raw = get(&client, url.clone() + "?raw=true").await;
        assert!(raw.body == value);
        let answer = get(&client, url).await;
        assert_eq!(answer.json["size"], value.len());
        let text = answer.json["value"].as_str().unwrap();
        if value == nul_text {
            assert_eq!((&answer.json["encoding"], text), (&"utf-8".into(), "a\0b"));
        } else {
            assert_eq!(answer.json["encoding"], "base64");
            assert!(STANDARD.decode(text).unwrap() == value);
        }
    }
}

#[tokio::test]
async fn the_content_type_comes_back_with_the_value() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    let url = cluster.gateway.url("/kv/k");
    let put_as = async |content_type: Option<&str>, value: Vec<u8>| -> Reply {
        let request = client.put(&url).body(value);
        match content_type {
            Some(content_type) => send(request.header("content-type", content_type)).await,
            None => send(request).await,
        }
    };
    let longest = "x/".to_owned() + &"y".repeat(253);
    for value in [Vec::new(), b"short".to_vec(), vec![0; 100_000]] {
        for content_type in [
            Some("image/png"),
            Some("text/html; charset=utf-8"),
            Some(&longest),
            None,
        ] {
            let put = put_as(content_type, value.clone()).await;
            assert_eq!(put.status, 200, "{put:?}");
            let raw = get(&client, url.clone() + "?raw=true").await;
            assert!(raw.body == value);
            let expected = content_type.unwrap_or("application/octet-stream");
            assert_eq!(raw.header("content-type"), expected);
            let answer = get(&client, url.clone()).await;
            assert_eq!(answer.json["content_type"], serde_json::json!(content_type));
        }
    }
    let too_long = longest + "y";
    let refused = put_as(Some(&too_long), b"v".to_vec()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem()),
        (400, "invalid-value")
    );
    let answer = get(&client, url.clone()).await;
    assert_eq!(answer.json["size"], 100_000, "as it was");
}

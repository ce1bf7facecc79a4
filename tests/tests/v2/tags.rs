//! Every write has a tag, and a later one a greater, whatever the servers hold by then.

use dkvs_common::model::ReplicaResponse;
use dkvs_common::tag::{AHEAD_MS_MAX, CLOCK_MS_MAX, Tag};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_tests::http::{client, get, put};
use dkvs_tests::process::Cluster;
use dkvs_tests::v2;

use crate::PROGRAMS;

/// Has servers hold a value under a tag.
fn plant<'a>(cluster: &'a Cluster, servers: impl IntoIterator<Item = &'a usize>, tag: Tag) {
    for server in servers {
        let mut client = v2::Client::new(cluster.nodes[*server].addr);
        assert_eq!(
            client.ask(&v2::put("k", "planted", tag)),
            Reply::Response(ReplicaResponse::Done)
        );
    }
}

#[tokio::test]
async fn tags_grow_and_are_returned_with_the_value() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    let url = cluster.gateway.url("/kv/k?wait=all");
    let mut last = Tag::ZERO;
    for round in 0..50 {
        let put = put(&client, url.clone(), round.to_string()).await;
        let text = put.json["tag"].as_str().unwrap().to_owned();
        let tag: Tag = text.parse().unwrap();
        assert!(tag > last, "{tag} after {last}");
        last = tag;
        let reported = get(&client, url.clone()).await;
        assert_eq!(reported.json["value"], round.to_string());
        assert_eq!(reported.json["tag"], text);
        for replica in reported.json["replicas"].as_array().unwrap() {
            assert_eq!(replica["tag"], text);
        }
        let raw = get(&client, url.clone() + "&raw=true").await;
        assert_eq!(raw.header("dkvs-tag"), text);
    }
}

#[tokio::test]
async fn a_write_outdoes_tags_from_clocks_that_are_ahead() {
    // An hour ahead, and far beyond any clock.
    let cluster = PROGRAMS.cluster(3, &[]);
    let (client, url) = (client(), cluster.gateway.url("/kv/k?wait=all"));
    let first = put(&client, url.clone(), "first").await;
    let first: Tag = first.json["tag"].as_str().unwrap().parse().unwrap();
    for (ahead, holders) in [
        (3_600_000, &[0, 1, 2][..]),
        // At fewer than a majority, a write may be done without the answer that shows it.
        (1 << 46, &[1, 2]),
        (1 << 47, &[0, 2]),
    ] {
        let planted = Tag {
            time: first.time + (ahead << 16),
            op: 1,
        };
        plant(&cluster, holders, planted);
        for round in 0..3 {
            let value = format!("{ahead} {round}");
            let put = put(&client, url.clone(), value.clone()).await;
            assert_eq!(put.status, 200, "{put:?}");
            assert_eq!(put.json["outcome"], "committed");
            let reported = get(&client, cluster.gateway.url("/kv/k")).await;
            assert_eq!(reported.json["value"], value, "{reported:?}");
        }
        // The replica that held it answered, with all of them as replicas.
        let put = put(&client, cluster.gateway.url("/kv/k?w=3"), "last").await;
        assert_eq!(put.statuses(), ["stored"; 3]);
        let tag: Tag = put.json["tag"].as_str().unwrap().parse().unwrap();
        assert!(tag > planted, "{tag} {planted}");
    }
}

#[tokio::test]
async fn a_tag_is_taken_again_that_a_clock_gave_which_was_far_ahead() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    let url = |query: &str| cluster.gateway.url(&format!("/kv/k?wait=all&{query}"));
    let first = put(&client, url(""), "first").await;
    let first: Tag = first.json["tag"].as_str().unwrap().parse().unwrap();
    // Two days ahead, a century, and as far as it goes.
    for time in [
        first.time + ((2 * AHEAD_MS_MAX) << 16),
        first.time + ((36_500 * AHEAD_MS_MAX) << 16),
        (CLOCK_MS_MAX << 16) | 0xfffe,
    ] {
        // The next write returns the tag of a gateway with such a clock.
        plant(&cluster, &[0, 1, 2], Tag { time, op: 1 });
        let reported = put(&client, url(""), "value").await;
        let tag = reported.json["tag"].as_str().unwrap().to_owned();
        assert_eq!(tag.parse::<Tag>().unwrap().time, time + 1, "{reported:?}");
        let again = put(&client, url(&format!("tag={tag}")), "value").await;
        assert_eq!(again.json["outcome"], "committed", "{again:?}");
        assert_eq!(again.json["tag"], tag);
        assert_eq!(again.statuses(), ["stored"; 3]);
        let kept = get(&client, url("")).await;
        assert_eq!(kept.json["tag"], tag, "{kept:?}");
    }
    let made_up = Tag {
        time: (CLOCK_MS_MAX + 1) << 16,
        op: 1,
    };
    let refused = put(&client, url(&format!("tag={made_up}")), "value").await;
    assert_eq!(refused.problem(), "invalid-parameter", "{refused:?}");
    // The other half of all tags is left to the key.
    assert_eq!(put(&client, url(""), "last").await.status, 200);
    assert_eq!(get(&client, url("")).await.json["value"], "last");
}

#[tokio::test]
async fn a_tag_that_none_exceeds_refuses_writes_of_its_key_and_of_no_other() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let client = client();
    let greatest = Tag {
        time: u64::MAX,
        op: u64::MAX,
    };
    plant(&cluster, &[0, 1, 2], greatest);
    for round in 0..3 {
        let refused = put(&client, cluster.gateway.url("/kv/k"), "v").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        let kept = get(&client, cluster.gateway.url("/kv/k")).await;
        assert_eq!(kept.json["value"], "planted");
        let other = put(&client, cluster.gateway.url("/kv/other"), round.to_string()).await;
        assert_eq!(other.status, 200, "{other:?}");
    }
}

#[tokio::test]
async fn replicas_that_a_c_client_gave_the_same_bytes_agree() {
    for consistency in ["", "&consistency=agreement"] {
        let cluster = PROGRAMS.cluster(3, &[]);
        let client = client();
        let url = format!("/kv/k?n=3&r=2&wait=all{consistency}");
        let url = cluster.gateway.url(&url);
        // Which two of them answer first, of three different tags, is a matter of chance.
        for round in 0..30 {
            let value = format!("by a C client {round}");
            for node in &cluster.nodes {
                dkvs_tests::v1::Client::new(node.addr).store("k", &value);
            }
            let reported = get(&client, url.clone()).await;
            assert_eq!(reported.json["value"], value, "{reported:?}");
            assert_eq!(reported.json["quorum"]["agreeing"], 3, "{reported:?}");
            for status in reported.statuses() {
                // One that was behind by its tag may have been given the newest.
                let is_alike = ["match", "repaired"].contains(&status);
                assert!(is_alike, "{reported:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_c_client_put_last_is_outdone_by_the_next_write() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let (client, url) = (client(), cluster.gateway.url("/kv/k?w=3"));
    for round in 0..50 {
        for node in &cluster.nodes {
            dkvs_tests::v1::Client::new(node.addr).store("k", format!("by a C client {round}"));
        }
        // Each server gave it a tag of its own, and a write asks as many as have to store it.
        let value = format!("by the gateway {round}");
        let put = put(&client, url.clone(), value.clone()).await;
        assert_eq!(put.status, 200, "{put:?}");
        let reported = get(&client, cluster.gateway.url("/kv/k?r=3")).await;
        assert_eq!(reported.json["value"], value);
    }
}

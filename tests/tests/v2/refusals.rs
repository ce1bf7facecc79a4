//! What cannot succeed is not begun, and what is refused is refused for the reason that holds.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use std::net::SocketAddr;

use dkvs_tests::faulty::Manner;
use dkvs_tests::http::{Reply, get, path_of, put, send};
use dkvs_tests::v1;
use reqwest::Method;

use crate::PROGRAMS;
use crate::mixed::Mixed;

const AUTO: [&str; 2] = ["--protocol", "auto"];

impl Mixed {
    /// Sends a request about a key; without a value, a PUT has an empty one.
    async fn ask(&self, method: &Method, key: &[u8], query: &str, value: &[u8]) -> Reply {
        let url = self.gateway.url(&format!("{}?{query}", path_of(key)));
        let request = self.client.request(method.clone(), url);
        send(match *method {
            Method::PUT => request.body(value.to_vec()),
            _ => request,
        })
        .await
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        let ours = self.ours.iter().map(|node| node.addr);
        ours.chain(self.others.iter().map(|other| other.addr))
            .collect()
    }

    /// What each server holds under a key, asked by DKVS/1.
    fn held(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let addrs = self.addrs().into_iter();
        addrs.map(|addr| v1::Client::new(addr).get(key)).collect()
    }
}

#[tokio::test]
async fn what_too_few_servers_can_take_is_begun_nowhere() {
    let long = vec![b'v'; 32_754];
    let cases = [
        (Method::PUT, &b"k"[..], &long[..], 413, "value-too-large"),
        (Method::PUT, b"k", b"a\0b", 400, "invalid-value"),
        (Method::PUT, b"k\0", b"v", 400, "invalid-key"),
        (Method::DELETE, b"k", b"", 501, "not-supported"),
    ];
    // Servers of ours, others, w.
    for (ours, others, w) in [(1, 2, 2), (2, 1, 3), (0, 3, 1)] {
        for (method, key, value, status, problem) in &cases {
            let mixed = Mixed::start(ours, others, &AUTO);
            if !key.contains(&0) {
                for addr in mixed.addrs() {
                    v1::Client::new(addr).store(key, "before");
                }
            }
            let before = mixed.held(key);
            // The gateway has not met any of them at first.
            for query in ["", "&wait=all", "&consistency=agreement", ""] {
                let query = format!("w={w}{query}");
                let refused = mixed.ask(method, key, &query, value).await;
                let case = format!("{ours} {others} {method} {query}: {refused:?}");
                assert_eq!(refused.status, *status, "{case}");
                assert_eq!(refused.problem(), *problem, "{case}");
                assert_eq!(refused.json["outcome"], "not_applied", "{case}");
                assert_eq!(refused.json["tag"], serde_json::Value::Null, "{case}");
                assert_eq!(refused.json["replicas"].as_array().unwrap().len(), 3);
                if *status == 413 {
                    assert_eq!(refused.json["value_bytes_max"], 32_753, "{case}");
                }
            }
            assert_eq!(mixed.held(key), before, "{ours} {others} {method}");
            let read = mixed.ask(&Method::GET, key, "r=3", b"").await;
            let expected = match key.contains(&0) {
                true => serde_json::Value::Null,
                false => "before".into(),
            };
            assert_eq!(read.json["value"], expected, "{read:?}");
        }
    }
}

/// The repeat of a write may come to any gateway, also to one that has met no server. By default,
/// servers of DKVS/1 can take nothing.
#[tokio::test]
async fn what_too_few_servers_can_take_is_begun_nowhere_by_a_gateway_that_has_met_none() {
    let long = vec![b'v'; 32_754];
    const REPEAT: &str = "tag=01a3000000000000-9f3c21d4000000aa";
    let (put, delete) = (Method::PUT, Method::DELETE);
    let (auto, v2) = (&AUTO[..], &[][..]);
    let insisting = format!("{REPEAT}&consistency=linearizable");
    for (arguments, method, value, query, status) in [
        (auto, &delete, &b""[..], REPEAT, 501),
        (auto, &put, b"a\0b", REPEAT, 400),
        (auto, &put, &long, REPEAT, 413),
        (auto, &put, b"v", &insisting, 400),
        (v2, &put, b"v", REPEAT, 503),
        (v2, &put, b"v", "consistency=agreement", 503),
        (v2, &delete, b"", "consistency=agreement", 503),
        (v2, &put, b"v", "", 503),
    ] {
        let mixed = Mixed::start(1, 2, arguments);
        let before = mixed.held(b"k");
        let refused = mixed.ask(method, b"k", query, value).await;
        let case = format!("{arguments:?} {method} {query}: {refused:?}");
        assert_eq!(refused.status, status, "{case}");
        assert_eq!(refused.count("stored"), 0, "{case}");
        assert_eq!(mixed.held(b"k"), before, "{case}");
        let mut ours = dkvs_tests::v2::Client::new(mixed.ours[0].addr);
        let key = dkvs_tests::v2::key("k");
        let held = ours.ask(&dkvs_common::wire::v2::request::Request::Command(
            ReplicaCommand::GetTag { key },
        ));
        let nothing = dkvs_common::wire::v2::reply::Reply::Response(ReplicaResponse::absent(
            dkvs_common::tag::Tag::ZERO,
        ));
        assert_eq!(held, nothing, "{case}");
    }
}

#[tokio::test]
async fn what_servers_of_dkvs_1_can_take_is_done_by_a_gateway_that_has_met_none() {
    let (long_key, long_value) = (vec![b'k'; 20_000], vec![b'v'; 32_753]);
    let repeat = "tag=01a3000000000000-9f3c21d4000000aa";
    for (key, value, query) in [
        (&long_key[..], &b"v"[..], ""),
        (b"k", &long_value, ""),
        (b"k", &long_value, repeat),
        (b"k", &long_value[..500], repeat),
        (b"k", b"v", repeat),
    ] {
        for ours in [0, 1] {
            let mixed = Mixed::start(ours, 3 - ours, &AUTO);
            let put = mixed.ask(&Method::PUT, key, query, value).await;
            assert_eq!(put.status, 200, "{} {query} {put:?}", key.len());
            let other = PROGRAMS.gateway_over(&mixed.servers, &AUTO);
            let url = other.url(&path_of(key));
            let read = get(&mixed.client, url).await;
            assert_eq!(read.status, 200, "{} {query} {read:?}", key.len());
        }
    }
}

#[tokio::test]
async fn what_enough_servers_can_take_is_done_though_the_gateway_has_met_none_of_them() {
    let long = vec![b'v'; 32_754];
    for query in ["w=2", "w=2&consistency=agreement", "w=1"] {
        for value in [&long[..], b"a\0b"] {
            let mixed = Mixed::start(2, 1, &AUTO);
            let put = mixed.ask(&Method::PUT, b"k", query, value).await;
            assert_eq!(put.status, 200, "{query} {put:?}");
        }
        let mixed = Mixed::start(2, 1, &AUTO);
        let delete = mixed.ask(&Method::DELETE, b"k", query, b"").await;
        assert_eq!(delete.status, 200, "{query} {delete:?}");
    }
}

/// The first write finds out, and may be on the one that has room. What follows under a new key is
/// not begun, if the servers are asked about the key first; what takes the place of as much is.
#[tokio::test]
async fn what_servers_have_no_room_for_is_not_begun_on_the_one_that_has() {
    let value = "v".repeat(200);
    for (query, outcome) in [
        ("w=2", "not_applied"),
        ("w=2&consistency=agreement", "unknown"),
    ] {
        let full = || PROGRAMS.node(&["--max-memory", "500", "k", &value]);
        let ours = vec![full(), full(), PROGRAMS.node(&["k", &value])];
        let mixed = Mixed::of(ours, 0, Manner::Sound, &["--workers", "1"]);
        let all = format!("{query}&wait=all");
        let first = mixed
            .ask(&Method::PUT, b"one", &all, value.as_bytes())
            .await;
        assert_eq!(
            (first.status.as_u16(), first.problem()),
            (507, "storage-full")
        );
        assert_eq!((first.count("stored"), first.count("refused")), (1, 2));
        assert_eq!(first.json["outcome"], "unknown", "{first:?}");

        let second = mixed
            .ask(&Method::PUT, b"two", query, value.as_bytes())
            .await;
        assert_eq!(
            (second.status.as_u16(), second.problem()),
            (507, "storage-full")
        );
        assert_eq!(second.json["outcome"], outcome, "{second:?}");
        if outcome == "not_applied" {
            assert_eq!(mixed.held(b"two"), [v1::NUL; 3]);
        }

        let other = value.replace('v', "w");
        let overwrite = mixed.ask(&Method::PUT, b"k", &all, other.as_bytes()).await;
        assert_eq!(
            (overwrite.status.as_u16(), overwrite.count("stored")),
            (200, 3)
        );
        let short = mixed.ask(&Method::PUT, b"two", query, b"v").await;
        assert_eq!(short.status, 200, "{short:?}");
        let deleted = mixed.ask(&Method::DELETE, b"k", query, b"").await;
        assert_eq!(deleted.status, 200, "{deleted:?}");
    }
}

#[tokio::test]
async fn a_write_that_turns_on_a_silent_server_waits_for_it_and_is_stored_nowhere() {
    let mixed = Mixed::start(1, 2, &AUTO);
    mixed.others[0].set(Manner::Silent);
    for query in ["timeout_ms=300", "timeout_ms=300&consistency=agreement"] {
        let deleted = mixed.ask(&Method::DELETE, b"k", query, b"").await;
        assert_eq!(deleted.status, 504, "{deleted:?}");
        assert_eq!(deleted.json["outcome"], "not_applied", "{deleted:?}");
    }
    let mut ours = dkvs_tests::v2::Client::new(mixed.ours[0].addr);
    let key = dkvs_tests::v2::key("k");
    let held = ours.ask(&dkvs_common::wire::v2::request::Request::Command(
        ReplicaCommand::GetTag { key },
    ));
    let nothing = dkvs_common::wire::v2::reply::Reply::Response(ReplicaResponse::absent(
        dkvs_common::tag::Tag::ZERO,
    ));
    assert_eq!(held, nothing);
}

/// Which limit a key has is a question of its request, of the datagrams, and of nothing else.
#[tokio::test]
async fn a_key_is_refused_exactly_beyond_the_limit_that_is_reported() {
    let megabyte = vec![b'v'; 1 << 20];
    let (put, delete, read) = (Method::PUT, Method::DELETE, Method::GET);
    for (arguments, max_datagram) in [
        (["--protocol", "auto"], "1200"),
        (["--protocol", "auto"], "600"),
        (["--protocol", "v2"], "600"),
    ] {
        let node = || PROGRAMS.node(&["--max-datagram", max_datagram]);
        let short = 1_200 - max_datagram.parse::<usize>().unwrap();
        for (method, value, limit, ok) in [
            (&put, &b"v"[..], 1_137, 200),
            (&put, &megabyte, 1_127, 200),
            (&delete, b"", 1_139, 200),
            (&read, b"", 1_160, 404),
        ] {
            let limit = limit - short;
            let ours = (0..3).map(|_| node()).collect();
            let mixed = Mixed::of(ours, 0, Manner::Sound, &arguments);
            for round in 0..2 {
                for query in ["", "consistency=agreement"] {
                    let too_long = vec![b'k'; limit + 1];
                    let refused = mixed.ask(method, &too_long, query, value).await;
                    let case = format!("{arguments:?} {max_datagram} {method} {round} {query}");
                    assert_eq!(refused.status, 414, "{case}: {refused:?}");
                    assert_eq!(refused.problem(), "invalid-key", "{case}");
                    let detail = refused.json["detail"].as_str().unwrap();
                    let reported = format!("the limit is {limit}");
                    assert!(detail.ends_with(&reported), "{case}: {detail}");
                    if *method != read {
                        assert_eq!(refused.json["outcome"], "not_applied", "{case}");
                    }
                    let longest = vec![b'k'; limit];
                    let taken = mixed.ask(method, &longest, query, value).await;
                    assert_eq!(taken.status, ok, "{case}: {taken:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn servers_of_dkvs_1_have_no_lists_for_good() {
    for (ours, others, protocol, status) in [
        (0, 3, "auto", 501),
        (0, 3, "v2", 501),
        (0, 3, "v1", 501),
        (1, 2, "auto", 501),
        (2, 1, "auto", 200),
    ] {
        let mixed = Mixed::start(ours, others, &["--protocol", protocol]);
        for _ in 0..2 {
            let list = get(&mixed.client, mixed.gateway.url("/kv")).await;
            assert_eq!(list.status, status, "{ours} {others} {protocol}: {list:?}");
            if status == 501 {
                assert_eq!(list.problem(), "not-supported");
                assert!(!list.headers.contains_key("retry-after"));
            }
        }
    }
    // Who is merely gone may come back.
    let mut mixed = Mixed::start(2, 1, &AUTO);
    mixed.ours[0].process.kill();
    let list = get(&mixed.client, mixed.gateway.url("/kv")).await;
    assert_eq!(list.status, 503, "{list:?}");
}

#[tokio::test]
async fn what_a_server_does_not_say_is_not_reported() {
    // One kind stores the value, the other does not, and both answer alike.
    for (manner, is_stored) in [(Manner::OldEdition, true), (Manner::Refusing, false)] {
        for protocol in ["auto", "v1"] {
            let mixed = Mixed::of(Vec::new(), 3, manner, &["--protocol", protocol]);
            let url = mixed.gateway.url("/kv/k?wait=all");
            let reported = put(&mixed.client, url.clone(), "v").await;
            assert_eq!(reported.status, 503, "{reported:?}");
            assert_eq!(reported.problem(), "quorum-unreachable");
            assert_eq!(reported.json["outcome"], "unknown");
            assert_eq!(reported.statuses(), ["refused"; 3]);
            let detail = reported.json["detail"].as_str().unwrap();
            assert!(detail.contains("gives no reason"), "{detail}");
            for replica in reported.json["replicas"].as_array().unwrap() {
                let reason = replica["reason"].as_str().unwrap();
                assert!(reason.contains("gives no reason"), "{reason}");
            }
            let read = get(&mixed.client, url).await;
            assert_eq!(read.status == 200, is_stored, "{read:?}");
        }
    }
}

//! A key is the bytes after `/kv/`, percent-decoded once and never normalised.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dkvs_tests::http::{Reply, exchange, path_of, request};
use dkvs_tests::process::Cluster;
use dkvs_tests::{programs, v1};
use serde_json::Value;

/// What follows `/kv/` in the request line, and the key it is. No two lines are the same key.
const SPELLINGS: &[(&[u8], &[u8])] = &[
    (b"a", b"a"),
    (b"A", b"A"),
    (b"a/b", b"a/b"),
    (b"a//b", b"a//b"),
    (b"/a", b"/a"),
    (b"/", b"/"),
    (b"//", b"//"),
    (b"a/", b"a/"),
    (b".", b"."),
    (b"..", b".."),
    (b"./", b"./"),
    (b"../", b"../"),
    (b"../livez", b"../livez"),
    (b"../../etc/passwd", b"../../etc/passwd"),
    (b"a/../b", b"a/../b"),
    (b"a/./b", b"a/./b"),
    (b"kv/a", b"kv/a"),
    (b"%252F", b"%2F"),
    (b"%25252F", b"%252F"),
    (b"%252e%252e", b"%2e%2e"),
    (b"%20", b" "),
    (b"a%20b", b"a b"),
    (b"a+b", b"a+b"),
    (b"%2B", b"+"),
    (b"a%3Fn=1", b"a?n=1"),
    (b"a%23b", b"a#b"),
    (b"a&b=c;d", b"a&b=c;d"),
    (b"%25", b"%"),
    (b"{key}", b"{key}"),
    (b"*", b"*"),
    (b":key", b":key"),
    (b"%22%3C%3E%5C%5E%60%7B%7C%7D", b"\"<>\\^`{|}"),
    (b"%01%09%0A%0D%1B%7F", b"\x01\t\n\r\x1b\x7f"),
    (b"%0D%0Ax-header:%201", b"\r\nx-header: 1"),
    (b"%FF%FE", b"\xff\xfe"),
    (b"%C3", b"\xc3"),
    (b"%ED%A0%80", b"\xed\xa0\x80"),
    // e with an acute accent, composed and decomposed, and as Latin-1 has it.
    (b"%C3%A9", b"\xc3\xa9"),
    (b"e%CC%81", b"e\xcc\x81"),
    (b"%E9", b"\xe9"),
];

/// More spellings of keys that are there already.
const OTHER_SPELLINGS: &[(&[u8], &[u8])] = &[
    (b"%61", b"a"),
    (b"%41", b"A"),
    (b"a%2Fb", b"a/b"),
    (b"a%2fb", b"a/b"),
    (b"a%2F%2Fb", b"a//b"),
    (b"%2F", b"/"),
    (b"%2e%2E", b".."),
    (b"%2E", b"."),
    (b"a/%2e%2e/b", b"a/../b"),
    (b"%c3%a9", b"\xc3\xa9"),
    // As no client should send it, and some do.
    (b"\xc3\xa9", b"\xc3\xa9"),
];

fn target(spelling: &[u8]) -> Vec<u8> {
    [b"/kv/", spelling].concat()
}

/// A value that belongs to this key alone.
fn value_of(key: &[u8]) -> String {
    format!("the value of {}", key.escape_ascii())
}

#[tokio::test]
async fn every_spelling_is_its_bytes_and_distinct_bytes_are_distinct_keys() {
    let distinct: BTreeSet<_> = SPELLINGS.iter().map(|(_, key)| key).collect();
    assert_eq!(distinct.len(), SPELLINGS.len());
    let cluster = programs!().cluster(3, &[]);
    let addr = cluster.gateway.addr;

    for (spelling, key) in SPELLINGS {
        let body = value_of(key);
        let put = request("PUT", target(spelling), Some(body.as_bytes()));
        let put = exchange(addr, put).await;
        assert_eq!(put.status, 200, "{put:?}");
    }
    for (spelling, key) in SPELLINGS.iter().chain(OTHER_SPELLINGS) {
        let reply = exchange(addr, request("GET", target(spelling), None)).await;
        assert_eq!(reply.json["value"], value_of(key), "{reply:?}");
        match std::str::from_utf8(key) {
            Ok(text) => {
                assert_eq!(reply.json["key"], text);
                assert!(reply.json.get("key_base64").is_none(), "{reply:?}");
            }
            Err(_) => {
                assert!(reply.json["key_base64"].is_string(), "{reply:?}");
                assert!(reply.json.get("key").is_none(), "{reply:?}");
            }
        }
        let escaped = exchange(addr, request("GET", path_of(key), None)).await;
        assert_eq!(escaped.json["value"], value_of(key), "{escaped:?}");
    }
    for node in &cluster.nodes {
        let client = v1::Client::new(node.addr);
        for (_, key) in SPELLINGS {
            assert_eq!(client.get(key), value_of(key).as_bytes());
        }
        let dump = client.dump().concat();
        let count = format!("storing {} key-value pairs:\n", SPELLINGS.len());
        assert!(dump.starts_with(count.as_bytes()), "and no other key");
    }
}

#[tokio::test]
async fn a_key_that_is_not_utf_8_is_returned_in_base64() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let put = exchange(
        gateway.addr,
        request("PUT", "/kv/%FF%FE?wait=all", Some(b"v")),
    );
    assert_eq!(put.await.json["key_base64"], "//4=");
    let ring = exchange(gateway.addr, request("GET", "/ring/%FF%FE", None));
    assert_eq!(ring.await.json["key_base64"], "//4=");
}

#[tokio::test]
async fn an_absolute_target_names_the_same_key() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let put = request("PUT", "http://localhost:1/kv/a//..", Some(b"v"));
    assert_eq!(exchange(gateway.addr, put).await.status, 200);
    let get = exchange(gateway.addr, request("GET", "/kv/a//..", None)).await;
    assert_eq!(get.json["value"], "v", "{get:?}");
}

#[tokio::test]
async fn an_empty_key_and_a_broken_escape_are_invalid_keys() {
    for protocol in ["v1", "v2"] {
        let gateway = programs!().gateway(&["--embedded", "3", "--protocol", protocol]);
        for target in ["/kv/", "/kv/?n=1", "/kv/%", "/kv/%2", "/kv/a%zz", "/kv/%+1"] {
            assert_invalid(gateway.addr, target).await;
        }
    }
}

#[tokio::test]
async fn a_nul_in_a_key_is_invalid_by_dkvs_1() {
    let gateway = programs!().gateway(&["--embedded", "3", "--protocol", "v1"]);
    for target in ["/kv/%00", "/kv/a%00b"] {
        assert_invalid(gateway.addr, target).await;
    }
}

async fn assert_invalid(gateway: SocketAddr, target: &str) {
    for method in ["GET", "PUT"] {
        let body = (method == "PUT").then_some(&b"v"[..]);
        let reply = exchange(gateway, request(method, target, body)).await;
        assert_eq!(reply.status, 400, "{method} {target}: {reply:?}");
        assert_eq!(reply.problem(), "invalid-key", "{method} {target}");
    }
}

#[tokio::test]
async fn a_key_of_nuls_and_any_other_bytes_is_a_key_of_its_own_by_dkvs_2() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let every_byte: Vec<u8> = (0..=255).collect();
    let keys = [b"a", &b"\0"[..], b"\0\0", b"a\0b", b"\0DK2", &every_byte];
    for key in keys {
        let body = value_of(key);
        let put = request("PUT", path_of(key), Some(body.as_bytes()));
        let put = exchange(gateway.addr, put).await;
        assert_eq!(put.status, 200, "{put:?}");
    }
    for key in keys {
        let reply = exchange(gateway.addr, request("GET", path_of(key), None)).await;
        assert_eq!(reply.json["value"], value_of(key), "{reply:?}");
    }
}

#[tokio::test]
async fn the_longest_key_is_32753_bytes_and_a_longer_one_is_414() {
    let nodes = ["--max-datagram", "65507"];
    for gateway in [&["--protocol", "v1"][..], &nodes] {
        let cluster = programs!().cluster_of(3, &nodes, gateway);
        longest_key(cluster.gateway.addr).await;
    }
}

async fn longest_key(addr: SocketAddr) {
    let longest = "k".repeat(32_753);
    let put = request("PUT", path_of(&longest), Some(b"v"));
    let put = exchange(addr, put).await;
    assert_eq!(put.status, 200, "{put:?}");
    let get = exchange(addr, request("GET", path_of(&longest), None)).await;
    assert_eq!(get.json["key"], longest);
    assert_eq!(get.json["value"], "v");
    // As many as fit the request line are escaped: 16,388 * 3 + 16,365 + 4 is 65,533 bytes.
    let escaped = "%6b".repeat(16_388) + &"k".repeat(16_365);
    let get = exchange(addr, request("GET", format!("/kv/{escaped}"), None)).await;
    assert_eq!(get.json["value"], "v");

    for method in ["GET", "PUT"] {
        let body = (method == "PUT").then_some(&b"v"[..]);
        let target = path_of(longest.clone() + "k");
        let reply = exchange(addr, request(method, target, body)).await;
        assert_eq!(reply.status, 414, "{reply:?}");
        assert_eq!(reply.problem(), "invalid-key");
    }
    let ring = format!("/ring/{longest}k");
    let ring = exchange(addr, request("GET", ring, None)).await;
    assert_eq!((ring.status.as_u16(), ring.problem()), (414, "invalid-key"));
    // A request line that HTTP itself does not carry here.
    let reply = exchange(
        addr,
        request("GET", "/kv/".to_owned() + &"k".repeat(65_531), None),
    );
    assert_eq!(reply.await.status, 414);
}

#[tokio::test]
async fn a_key_that_fits_no_datagram_is_414_with_the_limit() {
    let cluster = programs!().cluster(3, &["--protocol", "v2"]);
    let addr = cluster.gateway.addr;
    let put = async |key_bytes| {
        let target = path_of("k".repeat(key_bytes)) + "?wait=all";
        // The longest content type that there may be takes the most room.
        let put = format!("PUT {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n");
        let content_type = format!("content-type: {}\r\n\r\nv", "t".repeat(255));
        exchange(addr, put + &content_type).await
    };
    let limit = |reply: &Reply| -> usize {
        assert_eq!(
            (reply.status.as_u16(), reply.problem()),
            (414, "invalid-key")
        );
        let detail = reply.json["detail"].as_str().unwrap();
        let (_, limit) = detail.rsplit_once(' ').unwrap();
        limit.parse().unwrap_or_else(|_| panic!("{detail}"))
    };
    let longest = limit(&put(2_000).await);
    for (key_bytes, status) in [(longest, 200), (longest + 1, 414)] {
        let put = put(key_bytes).await;
        assert_eq!(put.status, status, "{put:?}");
    }
    let read = exchange(addr, request("GET", path_of("k".repeat(2_000)), None)).await;
    assert!(limit(&read) > longest, "whatever was put can be read");
}

#[tokio::test]
async fn the_longest_key_and_the_longest_value_go_together() {
    let nodes = ["--max-datagram", "65507"];
    for (gateway, longest) in [(&["--protocol", "v1"][..], 32_753), (&nodes, 1 << 20)] {
        let cluster = programs!().cluster_of(3, &nodes, gateway);
        longest_pair(&cluster, "v".repeat(longest)).await;
    }
}

async fn longest_pair(cluster: &Cluster, value: String) {
    let key = "k".repeat(32_753);
    let target = path_of(&key) + "?wait=all";
    let put = request("PUT", target, Some(value.as_bytes()));
    let put = exchange(cluster.gateway.addr, put).await;
    assert_eq!(put.count("stored"), 3, "{:?}", put.status);
    let get = request("GET", path_of(&key) + "?raw=true", None);
    let get = exchange(cluster.gateway.addr, get).await;
    assert_eq!(get.body, value.as_bytes());
}

#[tokio::test]
async fn the_ring_shows_where_a_key_goes() {
    let cluster = programs!().cluster(5, &[]);
    let addr = cluster.gateway.addr;
    for key in ["a", "a/b", "..", "\u{e9}"] {
        let path = path_of(key);
        let ring_path = path.replacen("/kv/", "/ring/", 1);
        let answer = exchange(addr, request("GET", format!("{ring_path}?n=4"), None)).await;
        let put = exchange(addr, request("PUT", format!("{path}?n=4"), Some(b"v"))).await;
        assert_eq!(answer.json["key"], key);
        assert_eq!(answer.servers(), put.servers());
        let ring_points = |reply: &Reply| -> Vec<Value> {
            let replicas = reply.json["replicas"].as_array().unwrap().iter();
            replicas
                .map(|replica| replica["ring_point"].clone())
                .collect()
        };
        assert_eq!(ring_points(&answer), ring_points(&put));
    }
}

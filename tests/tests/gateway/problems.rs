//! Every problem that a caller can run into, with its status and what it says.
//!
//! Those of keys and values are in `keys` and `values`.

use std::time::{Duration, Instant};

use dkvs_tests::http::{Reply, client, exchange, get, put, request, send};
use dkvs_tests::process::{Cluster, Programs, ServersFile};
use dkvs_tests::stamps::Stamping;
use dkvs_tests::{programs, until, v1};
use reqwest::{Client, Method};

const PROGRAMS: Programs = programs!();

async fn write(client: &Client, cluster: &Cluster, query: &str) -> Reply {
    put(client, cluster.gateway.url(&format!("/kv/k?{query}")), "v").await
}

async fn read(client: &Client, cluster: &Cluster, query: &str) -> Reply {
    get(client, cluster.gateway.url(&format!("/kv/k?{query}"))).await
}

/// Status, type and fate of a write.
fn failure(reply: &Reply) -> (u16, &str, &str) {
    let outcome = reply.json["outcome"].as_str().unwrap_or_default();
    (reply.status.as_u16(), reply.problem(), outcome)
}

#[tokio::test]
async fn invalid_parameters_are_reported_all_at_once_and_nothing_is_stored() {
    let cluster = PROGRAMS.cluster(5, &[]);
    let client = client();
    let query = "n=0&w=6&timeout_ms=30001&wait=some&consistency=strong&colour=red&raw=true";
    let refused = write(&client, &cluster, query).await;
    assert_eq!(failure(&refused), (400, "invalid-parameter", ""));
    let reported = refused.json["invalid_parameters"].as_array().unwrap();
    let mut names: Vec<_> = reported
        .iter()
        .map(|reported| reported["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    let expected = [
        "colour",
        "consistency",
        "n",
        "raw",
        "timeout_ms",
        "w",
        "wait",
    ];
    assert_eq!(names, expected);
    for reported in reported {
        let (name, reason) = (
            reported["name"].as_str().unwrap(),
            reported["reason"].as_str().unwrap(),
        );
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("{name}: {reason}")), "{detail}");
    }
    assert_eq!(
        read(&client, &cluster, "wait=all").await.statuses(),
        ["absent"; 3]
    );
}

#[tokio::test]
async fn each_operation_refuses_parameters_that_are_not_its_own() {
    let gateway = PROGRAMS.gateway(&["--embedded", "5"]);
    let client = client();
    for (method, target, name) in [
        (Method::GET, "/kv/k?w=1", "w"),
        (Method::PUT, "/kv/k?r=1", "r"),
        (Method::GET, "/kv/k?n=2&n=2", "n"),
        (Method::GET, "/kv/k?n=6", "n"),
        (Method::GET, "/kv/k?n=2&r=3", "r"),
        (Method::GET, "/kv/k?r=0", "r"),
        (Method::HEAD, "/kv/k?r=x", "r"),
        (Method::GET, "/kv/k?N=1", "N"),
        (Method::GET, "/kv/k?raw=yes", "raw"),
        (Method::GET, "/ring?n=1", "n"),
        (Method::GET, "/ring/k?r=1", "r"),
        (Method::GET, "/ring/k?n=6", "n"),
        (Method::GET, "/ring/k?replicas", "replicas"),
        (Method::GET, "/ring/k?replicas=1", "replicas"),
        (
            Method::GET,
            "/ring/k?replicas=true&replicas=true",
            "replicas",
        ),
        (
            Method::GET,
            "/ring/k?replicas=true&timeout_ms=0",
            "timeout_ms",
        ),
        (Method::GET, "/ring/k?replicas=true&wait=all", "wait"),
        (Method::GET, "/servers?all", "all"),
        (Method::GET, "/livez?x=1", "x"),
        (Method::GET, "/healthz?x=1", "x"),
        (Method::GET, "/readyz?x=1", "x"),
        (Method::GET, "/openapi.yaml?x=1", "x"),
    ] {
        let refused = send(client.request(method.clone(), gateway.url(target))).await;
        assert_eq!(refused.status, 400, "{target}");
        if method != Method::HEAD {
            assert_eq!(refused.problem(), "invalid-parameter", "{target}");
            assert_eq!(refused.json["invalid_parameters"][0]["name"], name);
        }
    }
}

#[tokio::test]
async fn a_key_that_nobody_holds_is_not_found() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let absent = read(&client(), &cluster, "wait=all").await;
    assert_eq!(failure(&absent), (404, "key-not-found", ""));
    assert_eq!(absent.statuses(), ["absent"; 3]);
    let quorum = serde_json::json!({ "n": 3, "r": 2, "agreeing": 3 });
    assert_eq!(absent.json["quorum"], quorum);
}

#[tokio::test]
async fn replicas_that_hold_different_values_disagree() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    for (number, node) in cluster.nodes.iter().enumerate() {
        v1::Client::new(node.addr).store("k", format!("value {number}"));
    }
    for query in ["", "&r=3", "&wait=all"] {
        let query = format!("consistency=agreement{query}");
        let differ = read(&client, &cluster, &query).await;
        assert_eq!(failure(&differ), (409, "replicas-disagree", ""), "{query}");
        assert_eq!(differ.json["quorum"]["agreeing"], 1);
        assert!(differ.count("differs") >= 2, "{differ:?}");
    }
    let any = read(&client, &cluster, "r=1").await;
    assert!(any.json["value"].as_str().unwrap().starts_with("value "));

    // Two agree, and all three were to.
    v1::Client::new(cluster.nodes[1].addr).store("k", "value 0");
    let two = read(&client, &cluster, "r=3&wait=all&consistency=agreement").await;
    assert_eq!(failure(&two), (409, "replicas-disagree", ""));
    assert_eq!(two.json["quorum"]["agreeing"], 2);
    // What a write half done leaves behind: it is written again, and all is well.
    assert_eq!(write(&client, &cluster, "w=3").await.status, 200);
    // A server of several workers may answer a later get before an earlier put.
    until("it is on all three", async || {
        read(&client, &cluster, "r=3").await.json["value"] == "v"
    })
    .await;
}

#[tokio::test]
async fn a_value_on_one_of_two_answering_replicas_is_no_agreement() {
    let mut cluster = PROGRAMS.cluster(3, &[]);
    v1::Client::new(cluster.nodes[0].addr).store("k", "v");
    cluster.nodes[2].process.kill();
    let reply = read(&client(), &cluster, "wait=all&consistency=agreement").await;
    assert_eq!(failure(&reply), (409, "replicas-disagree", ""));
    for status in ["differs", "absent", "unreachable"] {
        assert_eq!(reply.count(status), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn dead_servers_make_a_quorum_unreachable_and_the_problem_says_whether_anything_was_stored() {
    for (protocol, level) in [
        ("v1", "agreement"),
        ("v2", "agreement"),
        ("v2", "linearizable"),
    ] {
        dead_servers(PROGRAMS.cluster(3, &["--protocol", protocol]), level).await;
    }
}

async fn dead_servers(mut cluster: Cluster, level: &str) {
    let client = client();
    let query = format!("wait=all&consistency={level}");
    // A linearizable write is not sent before a majority has returned its tags.
    let outcome_of_two = match level {
        "linearizable" => "not_applied",
        _ => "unknown",
    };
    for (dead, put_fails, outcome) in [
        (1, false, ""),
        (2, true, outcome_of_two),
        (3, true, "not_applied"),
    ] {
        cluster.nodes[dead - 1].process.kill();
        // The first request to notice by DKVS/2 does not know whether the server had it before it ended.
        let get = read(&client, &cluster, &query).await;
        let put = write(&client, &cluster, &query).await;
        for reply in [&put, &get] {
            assert_eq!(reply.count("unreachable"), dead, "{reply:?}");
        }
        if put_fails {
            assert_eq!(failure(&put), (503, "quorum-unreachable", outcome));
            assert_eq!(put.header("retry-after"), "1");
            assert_eq!(failure(&get), (503, "quorum-unreachable", ""));
            assert_eq!(get.header("retry-after"), "1");
        } else {
            assert_eq!((put.status.as_u16(), get.status.as_u16()), (200, 404));
        }
    }
}

#[tokio::test]
async fn a_timed_out_write_may_have_happened_and_surfaces_if_it_did() {
    let cluster = PROGRAMS.cluster(3, &["--protocol", "v1"]);
    let client = client();
    for node in &cluster.nodes {
        node.process.stop();
    }
    let put = write(&client, &cluster, "timeout_ms=100").await;
    assert_eq!(failure(&put), (504, "timeout", "unknown"));
    assert_eq!(put.statuses(), ["timeout"; 3]);
    let get = read(&client, &cluster, "timeout_ms=100").await;
    assert_eq!(failure(&get), (504, "timeout", ""));
    for node in &cluster.nodes {
        node.process.go_on();
    }
    // A server's workers each have a queue: the read may be answered before the write is done.
    until("the value is on all three", async || {
        read(&client, &cluster, "r=3").await.json["value"] == "v"
    })
    .await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn by_dkvs_2_a_write_that_lay_in_stopped_servers_past_its_deadline_never_happens() {
    let _stamping = Stamping::begin();
    let cluster = PROGRAMS.cluster_of(3, &["--workers", "1"], &[]);
    let client = client();
    // They have met, so that it is the write itself that lies there.
    assert_eq!(read(&client, &cluster, "wait=all").await.status, 404);
    for node in &cluster.nodes {
        node.process.stop();
    }
    let begun = Instant::now();
    let put = write(&client, &cluster, "timeout_ms=100&consistency=agreement").await;
    assert_eq!(failure(&put), (504, "timeout", "unknown"));
    assert_eq!(put.statuses(), ["timeout"; 3]);
    // What was sent at the last moment waits for a millisecond more, rounded up.
    until("its time is over", async || {
        begun.elapsed() > Duration::from_millis(200)
    })
    .await;
    for node in &cluster.nodes {
        node.process.go_on();
    }
    let get = read(&client, &cluster, "wait=all").await;
    assert_eq!(failure(&get), (404, "key-not-found", ""));
    assert_eq!(get.statuses(), ["absent"; 3]);
}

#[tokio::test]
async fn full_servers_refuse_and_the_write_succeeds_exactly_if_enough_have_room() {
    let client = client();
    for (full, status, outcome) in [
        (0, 200, "committed"),
        (1, 200, "committed"),
        (2, 507, "unknown"),
        (3, 507, "not_applied"),
    ] {
        let memory = |number| if number < full { "120" } else { "1M" };
        let node = |number| PROGRAMS.node(&["--max-memory", memory(number), "held", "1"]);
        let nodes: Vec<_> = (0..3).map(node).collect();
        let addrs: Vec<_> = nodes.iter().map(|node| node.addr).collect();
        let servers = ServersFile::new(&addrs);
        let gateway = PROGRAMS.gateway_over(&servers, &[]);

        let put = put(&client, gateway.url("/kv/k?wait=all"), "v").await;
        assert_eq!(put.status, status, "{put:?}");
        assert_eq!(put.json["outcome"], outcome);
        assert_eq!(
            (put.count("refused"), put.count("stored")),
            (full, 3 - full)
        );
        for replica in put.json["replicas"].as_array().unwrap() {
            assert_eq!(
                replica["reason"].is_string(),
                replica["status"] == "refused"
            );
        }
        if status == 507 {
            assert_eq!(put.problem(), "storage-full");
        }
        // A full server goes on serving what it has.
        let held = get(&client, gateway.url("/kv/held?r=3")).await;
        assert_eq!(held.json["value"], "1");
    }
}

#[tokio::test]
async fn past_the_limit_of_requests_in_flight_a_request_is_refused_with_the_reason() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-in-flight", "1"]);
    let client = client();
    for node in &cluster.nodes {
        node.process.stop();
    }
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..8 {
        let url = cluster.gateway.url(&format!("/kv/{number}?wait=all"));
        let client = client.clone();
        requests.spawn(async move { put(&client, url, "v").await });
    }
    for _ in 1..8 {
        let refused = requests.join_next().await.unwrap().unwrap();
        assert_eq!(failure(&refused), (503, "overloaded", ""));
        assert_eq!(refused.header("retry-after"), "1");
        assert!(
            refused.json["detail"]
                .as_str()
                .unwrap()
                .contains("nothing was sent")
        );
    }
    let refused = get(&client, cluster.gateway.url("/servers")).await;
    assert_eq!(failure(&refused), (503, "overloaded", ""));
    // The check of the servers takes no place.
    let refused = get(&client, cluster.gateway.url("/readyz")).await;
    assert_eq!(failure(&refused), (503, "not-ready", ""));
    let live = get(&client, cluster.gateway.url("/livez")).await;
    assert_eq!(live.status, 200);
    for node in &cluster.nodes {
        node.process.go_on();
    }
    let taken = requests.join_next().await.unwrap().unwrap();
    assert_eq!(taken.statuses(), ["stored"; 3], "{taken:?}");
    assert_eq!(write(&client, &cluster, "").await.status, 200);
}

#[tokio::test]
async fn a_form_that_is_not_on_offer_is_not_acceptable() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let client = client();
    write(&client, &cluster, "").await;
    let url = cluster.gateway.url("/kv/k");
    for (accept, form) in [
        ("text/html", None),
        ("application/json;q=0", None),
        ("*/*", Some("application/json")),
        ("application/octet-stream", Some("application/octet-stream")),
        (
            "application/octet-stream;q=0.1, application/json",
            Some("application/json"),
        ),
    ] {
        let reply = send(client.get(&url).header("accept", accept)).await;
        match form {
            None => assert_eq!(failure(&reply), (406, "not-acceptable", ""), "{accept}"),
            Some(form) => assert_eq!(reply.header("content-type"), form, "{accept}"),
        }
    }
    let raw = send(client.get(url + "?raw=true").header("accept", "text/html")).await;
    assert_eq!(raw.body, b"v");
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_reported_as_such() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3"]);
    for (method, target) in [
        ("GET", "/index.html"),
        ("GET", "/kvk"),
        ("GET", "/KV/k"),
        ("PUT", "//kv/k"),
        ("GET", "/./kv/k"),
        ("GET", "/x/../kv/k"),
        ("GET", "/%6bv/k"),
        ("GET", "/ringk"),
        ("GET", "/livez/"),
        ("GET", "/openapi.yaml/"),
        ("POST", "/nothing"),
        ("OPTIONS", "/nothing"),
    ] {
        let reply = exchange(gateway.addr, request(method, target, None)).await;
        assert_eq!(
            failure(&reply),
            (404, "no-such-path", ""),
            "{method} {target}"
        );
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_refused_with_those_it_does() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3"]);
    let client = client();
    for (method, path, allowed) in [
        (Method::POST, "/kv/k", &["DELETE", "GET", "HEAD", "PUT"][..]),
        (Method::POST, "/kv/k/l", &["DELETE", "GET", "HEAD", "PUT"]),
        (Method::PATCH, "/kv/", &["DELETE", "GET", "HEAD", "PUT"]),
        (Method::OPTIONS, "/kv/k", &["DELETE", "GET", "HEAD", "PUT"]),
        (Method::PUT, "/ring", &["GET", "HEAD"]),
        (Method::PUT, "/ring/k", &["GET", "HEAD"]),
        (Method::POST, "/livez", &["GET", "HEAD"]),
        (Method::DELETE, "/servers", &["GET", "HEAD"]),
        (
            Method::from_bytes(b"BREW").unwrap(),
            "/kv/k",
            &["DELETE", "GET", "HEAD", "PUT"],
        ),
    ] {
        let reply = send(client.request(method.clone(), gateway.url(path))).await;
        assert_eq!(
            failure(&reply),
            (405, "method-not-allowed", ""),
            "{method} {path}"
        );
        let mut allow: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{method} {path}");
    }
}

//! Real replies of every kind, each judged by what the file declares of it.

use dkvs_gateway::http::OPERATIONS;
use dkvs_gateway::tokens::{Scopes, mint};
use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::{self, Reply, exchange, target_of};
use dkvs_tests::keys::set_mode;
use dkvs_tests::process::{Gateway, ServersFile};
use dkvs_tests::{patiently, programs, until, v1};
use reqwest::{Body, Client, Method, RequestBuilder};
use serde_json::{Value as Json, json};
use tokio::net::UdpSocket;

use crate::contract::{Contract, Facts, TEXT, reference};
use crate::{console, levels, listing, versions};

/// What the file declares and no reply here shows.
const NOT_SHOWN: &[&str] = &[
    // It takes ten seconds of silence in the middle of a body; the tests of faults show it.
    "putValue 408",
    "putValue 408 Connection",
    "putValue 408 X-Request-Id",
    "Problem.type is \"urn:dkvs:problem:request-timeout\"",
    "runBatch 408",
    "runBatch 408 Connection",
    "runBatch 408 X-Request-Id",
    // It takes 256 MiB of long values under way.
    "runBatch 503",
    "runBatch 503 Retry-After",
    "runBatch 503 X-Request-Id",
    // It takes a worker that does not move.
    "getLiveness 503",
    "getLiveness 503 Retry-After",
    "getLiveness 503 X-Request-Id",
    "getHealth 503",
    "getHealth 503 Retry-After",
    "getHealth 503 X-Request-Id",
    "Problem.type is \"urn:dkvs:problem:stalled\"",
];

#[tokio::test]
async fn replies_keep_to_the_file_and_show_all_that_it_declares() {
    let mut witness = Witness::new();
    values_in_json(&mut witness).await;
    console::files_and_events(&mut witness).await;
    console::servers_that_are_stopped(&mut witness).await;
    values_as_bytes(&mut witness).await;
    the_cluster_and_its_health(&mut witness).await;
    paths_that_are_refused(&mut witness).await;
    values_that_are_refused(&mut witness).await;
    callers_that_are_refused(&mut witness).await;
    replicas_that_disagree(&mut witness).await;
    servers_that_are_gone(&mut witness).await;
    a_server_that_is_silent(&mut witness).await;
    servers_that_are_all_silent(&mut witness).await;
    servers_that_are_full(&mut witness).await;
    a_gateway_that_is_busy(&mut witness).await;
    a_caller_who_lists_too_much(&mut witness).await;
    levels::replicas_that_fell_behind(&mut witness).await;
    levels::replicas_that_fell_behind_a_deletion(&mut witness).await;
    levels::a_write_that_one_replica_stored(&mut witness).await;
    levels::writes_that_are_sent_again(&mut witness).await;
    levels::a_write_that_one_replica_still_holds(&mut witness).await;
    listing::parts_and_versions(&mut witness).await;
    listing::keys_of_the_cluster(&mut witness).await;
    listing::folders_and_entries(&mut witness).await;
    listing::keys_of_servers_that_fail(&mut witness).await;
    listing::batches(&mut witness).await;
    listing::pages_of_the_contract(&mut witness).await;
    versions::tags_and_tombstones(&mut witness).await;
    versions::content_types(&mut witness).await;
    versions::long_values(&mut witness).await;
    versions::servers_of_both_protocols(&mut witness).await;
    versions::servers_with_disks(&mut witness).await;
    versions::servers_of_the_first_protocol_alone(&mut witness).await;
    versions::a_gateway_of_the_first_protocol(&mut witness).await;
    versions::a_version_that_none_exceeds(&mut witness).await;
    let declared = witness.contract.declared_facts();
    let not_shown: Vec<_> = declared.difference(&witness.shown).collect();
    let mut excused = NOT_SHOWN.to_vec();
    excused.sort_unstable();
    assert_eq!(not_shown, excused, "declared, and shown by no reply");
}

/// Has replies judged and keeps what they have shown.
pub struct Witness {
    pub contract: Contract,
    client: Client,
    shown: Facts,
}

impl Witness {
    pub fn new() -> Self {
        Self {
            contract: Contract::read(),
            client: http::client(),
            shown: Facts::new(),
        }
    }

    pub fn at<'a>(&'a mut self, gateway: &'a Gateway) -> At<'a> {
        At {
            witness: self,
            gateway,
        }
    }
}

/// A witness at a gateway. What is expected there is a status code, and the name of the problem
/// where there is a document.
pub struct At<'a> {
    witness: &'a mut Witness,
    gateway: &'a Gateway,
}

impl At<'_> {
    pub async fn ask(&mut self, id: &str, target: &str, expected: &str) -> Reply {
        let request = self.request(id, target);
        self.send(id, request, expected).await
    }

    pub async fn put(&mut self, target: &str, value: impl Into<Body>, expected: &str) -> Reply {
        let request = self.request("putValue", target).body(value);
        self.send("putValue", request, expected).await
    }

    pub async fn delete(&mut self, target: &str, expected: &str) -> Reply {
        self.ask("deleteValue", target, expected).await
    }

    /// A HEAD and a GET, which come to the same.
    pub async fn read(&mut self, target: &str, expected: &str) -> Reply {
        let (status, _) = expected.split_once(' ').unwrap_or((expected, ""));
        self.ask("headValue", target, status).await;
        self.ask("getValue", target, expected).await
    }

    /// What the replicas of a key hold; `target` has a query.
    pub async fn holdings(&mut self, target: &str) -> Reply {
        let target = format!("{target}&replicas=true");
        self.ask("getPreferenceList", &target, "200").await
    }

    pub fn request(&self, id: &str, target: &str) -> RequestBuilder {
        let method = self.witness.contract.operation(id).method.clone();
        let url = self.gateway.url(target);
        self.witness.client.request(method, url)
    }

    /// What the body of a request has shown of the file.
    pub fn show_request(&mut self, id: &str, body: &Json) {
        match self.witness.contract.judge_request(id, body) {
            Ok(facts) => self.witness.shown.extend(facts),
            Err(wrong) => panic!("{id}: {wrong}\nin {body}"),
        }
    }

    /// What the data of an event have shown of it.
    pub fn show_event(&mut self, id: &str, data: &Json) {
        match self.witness.contract.judge_event(id, data) {
            Ok(facts) => self.witness.shown.extend(facts),
            Err(wrong) => panic!("{id}: {wrong}\nin {data}"),
        }
    }

    pub async fn send(&mut self, id: &str, request: RequestBuilder, expected: &str) -> Reply {
        let reply = http::send(request).await;
        self.judge(id, reply, expected)
    }

    fn judge(&mut self, id: &str, reply: Reply, expected: &str) -> Reply {
        let status = reply.status.as_u16();
        let shown = match reply.header("content-type") {
            "application/problem+json" if !reply.body.is_empty() => {
                format!("{status} {}", reply.problem())
            }
            _ => status.to_string(),
        };
        assert_eq!(shown, expected, "{id}: {reply:?}");
        match self.witness.contract.judge(id, &reply) {
            Ok(facts) => self.witness.shown.extend(facts),
            Err(wrong) => panic!("{id}: {wrong}\nin {reply:?}"),
        }
        reply
    }
}

/// Asserts what some members are; null is for one that is not there, too.
pub fn assert_members(reply: &Reply, expected: Json) {
    for (name, expected) in expected.as_object().expect("members") {
        assert_eq!(reply.json[name], *expected, "{name} of {reply:?}");
    }
}

/// The statuses of the replicas, whichever has which.
pub fn sorted_statuses(reply: &Reply) -> Vec<&str> {
    let mut statuses = reply.statuses();
    statuses.sort_unstable();
    statuses
}

async fn values_in_json(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    let key_of_text = json!({ "key": "a/b c", "key_base64": null });
    let key_of_bytes = json!({ "key": null, "key_base64": "/w==" });
    let put = at.put("/kv/a/b%20c", "text", "200").await;
    assert_members(&put, key_of_text.clone());
    let put = at.put("/kv/%ff?wait=all", &b"\xff\xfe"[..], "200").await;
    assert_members(&put, key_of_bytes.clone());

    let get = at.read("/kv/a/b%20c", "200").await;
    assert_members(&get, key_of_text);
    assert_members(&get, json!({ "value": "text", "encoding": "utf-8" }));
    let get = at.read("/kv/%ff", "200").await;
    assert_members(&get, key_of_bytes);
    assert_members(&get, json!({ "value": "//4=", "encoding": "base64" }));

    at.read("/kv/absent", "404 key-not-found").await;
    for (id, expected) in [
        ("getValue", "412 precondition-failed"),
        ("headValue", "412"),
    ] {
        let request = at.request(id, "/kv/%ff").header("if-match", "\"other\"");
        at.send(id, request, expected).await;
    }
    for (id, expected) in [("getValue", "406 not-acceptable"), ("headValue", "406")] {
        let request = at.request(id, "/kv/%ff").header("accept", "text/html");
        at.send(id, request, expected).await;
    }
}

async fn values_as_bytes(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    at.put("/kv/k", &b"\xff\xfe"[..], "200").await;
    let by_parameter = at.ask("getValue", "/kv/k?raw=true", "200").await;
    let request = at.request("getValue", "/kv/k");
    let request = request.header("accept", "application/octet-stream");
    let by_header = at.send("getValue", request, "200").await;
    let head = at.ask("headValue", "/kv/k?raw=true", "200").await;
    assert_eq!(by_parameter.body, b"\xff\xfe");
    assert_eq!(by_header.body, b"\xff\xfe");
    assert_eq!(head.header("content-length"), "2");
    for reply in [by_parameter, by_header, head] {
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        for name in [
            "DKVS-Consistency",
            "DKVS-Quorum",
            "Server-Timing",
            "X-Content-Type-Options",
            "Content-Security-Policy",
        ] {
            assert_ne!(reply.header(name), "", "{name} of {reply:?}");
        }
    }
}

async fn the_cluster_and_its_health(witness: &mut Witness) {
    let cluster = programs!().cluster(3, &[]);
    let mut at = witness.at(&cluster.gateway);
    for (id, path) in [
        ("getRing", "/ring"),
        ("getServers", "/servers"),
        ("getLiveness", "/livez"),
        ("getHealth", "/healthz"),
        ("getReadiness", "/readyz"),
        ("getMetrics", "/metrics"),
        ("getOpenapiYaml", "/openapi.yaml"),
    ] {
        at.ask(id, path, "200").await;
        let target = format!("{path}?n=1");
        at.ask(id, &target, "400 invalid-parameter").await;
    }
    let list = at.ask("getPreferenceList", "/ring/a/b?n=2", "200").await;
    assert_members(&list, json!({ "key": "a/b", "key_base64": null }));
    assert_eq!(list.servers().len(), 2);
    let list = at.ask("getPreferenceList", "/ring/%ff%00", "200").await;
    assert_members(&list, json!({ "key": null, "key_base64": "/wA=" }));

    at.put("/kv/%ff?wait=all", "v", "200").await;
    let held = at.holdings("/ring/%ff?n=2").await;
    assert_members(&held, json!({ "key": null, "key_base64": "/w==" }));
    assert_eq!(held.statuses(), ["value"; 2]);
    at.delete("/kv/deleted?wait=all", "200").await;
    let held = at.holdings("/ring/deleted?n=3").await;
    assert_members(&held, json!({ "key": "deleted", "in_step": true }));
    assert_eq!(held.statuses(), ["tombstone"; 3]);
    let held = at.holdings("/ring/absent?n=3").await;
    assert_members(&held, json!({ "in_step": true, "tag": null }));
    assert_eq!(held.statuses(), ["absent"; 3]);

    let yaml = at.ask("getOpenapiYaml", "/openapi.yaml", "200").await;
    assert!(yaml.body == TEXT.as_bytes(), "it is another file");
    assert_eq!(yaml.header("content-type"), "application/yaml");
}

async fn paths_that_are_refused(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    let long = "k".repeat(32_754);
    for (target, expected) in [
        ("/kv/k?n=9&colour=red", "400 invalid-parameter"),
        ("/kv/", "400 invalid-key"),
        ("/kv/%zz", "400 invalid-key"),
        (&format!("/kv/{long}"), "414 invalid-key"),
    ] {
        at.put(target, "v", expected).await;
        at.delete(target, expected).await;
        at.read(target, expected).await;
    }
    for (target, expected) in [
        ("/ring/k?n=9", "400 invalid-parameter"),
        ("/ring/k?replicas=1", "400 invalid-parameter"),
        ("/ring/", "400 invalid-key"),
        (&format!("/ring/{long}"), "414 invalid-key"),
    ] {
        at.ask("getPreferenceList", target, expected).await;
    }
    // A PATCH is judged as if it were an operation of its path; any but a HEAD has a document.
    let operations = Contract::read().operations;
    for operation in operations.iter().filter(|it| it.method != Method::HEAD) {
        let url = gateway.url(&target_of(&operation.path));
        let request = at.witness.client.patch(url);
        at.send(&operation.id, request, "405 method-not-allowed")
            .await;
    }
}

async fn values_that_are_refused(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3", "--max-value", "1000"]);
    let mut at = witness.at(&gateway);
    at.put("/kv/k", "v".repeat(1_000), "200").await;
    let too_long = "v".repeat(1_001);
    let reply = at.put("/kv/k", too_long, "413 value-too-large").await;
    assert_members(&reply, json!({ "value_bytes_max": 1_000, "outcome": null }));

    let head = "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let reply = exchange(gateway.addr, format!("{head}no length\r\n")).await;
    at.judge("putValue", reply, "400 invalid-body");
    let compressed = head.replace("chunked", "gzip, chunked");
    let reply = exchange(gateway.addr, compressed + "0\r\n\r\n").await;
    at.judge("putValue", reply, "501 transfer-coding");
    for (name, value, expected) in [
        ("if-none-match", "*", "501 not-supported"),
        ("content-range", "bytes 0-0/2", "400 partial-put"),
        ("content-encoding", "gzip", "415 content-coding"),
        ("expect", "a reply", "417 expectation-failed"),
    ] {
        let request = at.request("putValue", "/kv/k").header(name, value);
        at.send("putValue", request.body("v"), expected).await;
    }
    let batch = at.request("runBatch", "/batch").body("{}");
    let coded = batch.header("content-encoding", "gzip");
    at.send("runBatch", coded, "415 content-coding").await;
    let batch = json!({ "operations": [{ "op": "get", "key": "k" }] });
    let batch = at.request("runBatch", "/batch").body(batch.to_string());
    let conditional = batch.header("if-match", "*");
    at.send("runBatch", conditional, "412 precondition-failed")
        .await;
    let method = Method::from_bytes(b"PROPFIND").unwrap();
    let unknown = at.witness.client.request(method, gateway.url("/kv/k"));
    at.send("deleteValue", unknown, "501 method-not-implemented")
        .await;
    let whole = "GET * HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let reply = exchange(gateway.addr, whole).await;
    at.judge("getServers", reply, "400 invalid-target");
}

async fn callers_that_are_refused(witness: &mut Witness) {
    let known = mint(
        "known",
        Scopes::parse("read,write").unwrap(),
        &["other".into()],
    )
    .unwrap();
    let tokens = ServersFile::with_text(&known.line);
    set_mode(&tokens, 0o600);
    let arguments = ["--embedded", "3", "--tokens", tokens.path()];
    let gateway = programs!().gateway(&arguments);
    let mut at = witness.at(&gateway);
    for operation in OPERATIONS {
        let (id, target) = (operation.id.as_str(), target_of(operation.path));
        let is_head = operation.method == Method::HEAD;
        let expect = |reported: &'static str| if is_head { &reported[..3] } else { reported };
        let elsewhere = at.request(id, &target).header("host", "other.example");
        at.send(id, elsewhere, expect("421 host-not-allowed")).await;
        if !operation.statuses.contains(&401) {
            continue;
        }
        at.ask(id, &target, expect("401 unauthorized")).await;
        let wrong = at.request(id, &target).bearer_auth("wrong");
        at.send(id, wrong, expect("401 unauthorized")).await;
        // Of a batch each operation is refused by itself.
        if operation.statuses.contains(&403) && id != "runBatch" {
            let limited = at.request(id, &target).bearer_auth(&known.token);
            at.send(id, limited, expect("403 forbidden")).await;
        }
    }
    for (id, target) in [
        ("deleteValue", "/kv/k"),
        ("runBatch", "/batch"),
        ("stopServer", "/servers/127.0.0.1:1/stop"),
        ("startServer", "/servers/127.0.0.1:1/start"),
    ] {
        let foreign = at.request(id, target);
        let foreign = foreign.header("sec-fetch-site", "cross-site");
        at.send(id, foreign, "403 cross-site").await;
    }
    let nowhere = "GET /servers HTTP/1.1\r\n\r\n";
    let reply = exchange(gateway.addr, nowhere).await;
    at.judge("getServers", reply, "400 invalid-host");
}

async fn replicas_that_disagree(witness: &mut Witness) {
    let cluster = programs!().cluster(3, &[]);
    for (number, node) in cluster.nodes.iter().enumerate() {
        v1::Client::new(node.addr).store("k", format!("value {number}"));
    }
    v1::Client::new(cluster.nodes[0].addr).store("rare", "v");
    let mut at = witness.at(&cluster.gateway);
    let path = "/kv/k?wait=all&consistency=agreement";
    let reply = at.read(path, "409 replicas-disagree").await;
    assert_eq!(reply.statuses(), ["differs"; 3]);
    let reply = at.read("/kv/rare?r=1&wait=all", "200").await;
    assert_eq!(sorted_statuses(&reply), ["absent", "absent", "match"]);
}

async fn servers_that_are_gone(witness: &mut Witness) {
    const UNREACHABLE: &str = "503 quorum-unreachable";
    let mut cluster = programs!().cluster(3, &[]);
    let mut at = witness.at(&cluster.gateway);
    cluster.nodes[0].process.kill();
    let put = at.put("/kv/k?wait=all", "v", "200").await;
    assert_eq!(sorted_statuses(&put), ["stored", "stored", "unreachable"]);
    v1::Client::new(cluster.nodes[1].addr).store("k", "another");
    let get = at.read("/kv/k?r=1&wait=all", "200").await;
    assert_eq!(sorted_statuses(&get), ["differs", "match", "unreachable"]);

    cluster.nodes[1].process.kill();
    let put = at.put("/kv/k?wait=all", "v", UNREACHABLE).await;
    // A linearizable write is not sent before a majority has returned its tags.
    assert_members(&put, json!({ "outcome": "not_applied", "tag": null }));
    at.read("/kv/k?wait=all", UNREACHABLE).await;
    let held = at.holdings("/ring/k?n=3").await;
    assert_eq!(
        sorted_statuses(&held),
        ["unreachable", "unreachable", "value"]
    );
    at.ask("getReadiness", "/readyz", "503 not-ready").await;

    // It was there a moment ago, and may have ended after it had stored the value.
    cluster.nodes[2].process.kill();
    let path = "/kv/k?wait=all&consistency=agreement";
    let put = at.put(path, "v", UNREACHABLE).await;
    assert_members(&put, json!({ "outcome": "unknown" }));
    let replicas = put.json["replicas"].as_array().unwrap().iter();
    assert_eq!(replicas.filter(|it| it["reason"].is_string()).count(), 1);
    let put = at.put("/kv/k?wait=all", "v", UNREACHABLE).await;
    assert_members(&put, json!({ "outcome": "not_applied" }));
    at.delete("/kv/k?wait=all", UNREACHABLE).await;
}

async fn a_server_that_is_silent(witness: &mut Witness) {
    let nodes = [programs!().node(&[]), programs!().node(&[])];
    let silent = FaultyServer::start(Manner::Silent);
    let servers = ServersFile::new(&[nodes[0].addr, nodes[1].addr, silent.addr]);
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/k", "v", "200").await;
    assert_eq!(sorted_statuses(&put), ["pending", "stored", "stored"]);
    let get = at.read("/kv/k", "200").await;
    assert_eq!(sorted_statuses(&get), ["match", "match", "pending"]);
    let get = at.read("/kv/absent", "404 key-not-found").await;
    assert_eq!(sorted_statuses(&get), ["absent", "absent", "pending"]);

    let wait = "/kv/k?wait=all&timeout_ms=500";
    let put = at.put(&format!("{wait}&w=1"), "v", "200").await;
    assert_eq!(put.count("timeout"), 1);
    let get = at.read(&format!("{wait}&r=1"), "200").await;
    assert_eq!(get.count("timeout"), 1);
    let held = at.holdings("/ring/k?n=3&timeout_ms=500").await;
    assert_eq!(held.count("timeout"), 1);
}

async fn servers_that_are_all_silent(witness: &mut Witness) {
    let silent = [Manner::Silent; 3].map(FaultyServer::start);
    let servers = ServersFile::new(&silent.each_ref().map(|it| it.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    at.put("/kv/k?timeout_ms=1", "v", "504 timeout").await;
    at.delete("/kv/k?timeout_ms=1", "504 timeout").await;
    at.read("/kv/k?timeout_ms=1", "504 timeout").await;
}

async fn servers_that_are_full(witness: &mut Witness) {
    let full = [(); 3].map(|()| programs!().node(&["--max-memory", "1"]));
    let mut addrs = full.each_ref().map(|it| it.addr).to_vec();
    let gateway = programs!().gateway_over(&ServersFile::new(&addrs), &[]);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/k?wait=all", "v", "507 storage-full").await;
    assert_members(&put, json!({ "outcome": "not_applied" }));
    assert_eq!(put.statuses(), ["refused"; 3]);
    at.delete("/kv/k?wait=all", "507 storage-full").await;

    let node = programs!().node(&[]);
    addrs.push(node.addr);
    let gateway = programs!().gateway_over(&ServersFile::new(&addrs), &[]);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/k?n=4&w=1&wait=all", "v", "200").await;
    assert_eq!((put.count("stored"), put.count("refused")), (1, 3));
}

async fn a_gateway_that_is_busy(witness: &mut Witness) {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = ServersFile::new(&[server.local_addr().unwrap()]);
    let limits = ["--workers", "1", "--max-in-flight", "1"];
    let gateway = programs!().gateway_over(&servers, &limits);
    let mut at = witness.at(&gateway);
    let first = at.request("getValue", "/kv/k?timeout_ms=30000");
    let first = tokio::spawn(first.send());
    // A server that was asked and does not answer: the request is in flight.
    patiently(server.recv(&mut [0; 64])).await.unwrap();
    at.put("/kv/k", "v", "503 overloaded").await;
    at.delete("/kv/k", "503 overloaded").await;
    at.read("/kv/k", "503 overloaded").await;
    at.ask("getServers", "/servers", "503 overloaded").await;
    let inspect = "/ring/k?replicas=true";
    at.ask("getPreferenceList", inspect, "503 overloaded").await;
    at.ask("getPreferenceList", "/ring/k", "200").await;
    first.abort();
}

async fn a_caller_who_lists_too_much(witness: &mut Witness) {
    let silent = FaultyServer::start(Manner::Silent);
    let servers = ServersFile::new(&[silent.addr]);
    let gateway = programs!().gateway_over(&servers, &["--workers", "1"]);
    let mut at = witness.at(&gateway);
    let list = |timeout_ms| format!("/kv?timeout_ms={timeout_ms}");
    let client = http::client();
    let hold = |url: String, client: reqwest::Client| async move {
        // While one that asks below has its place, it is refused.
        while http::get(&client, url.clone()).await.status == 429 {}
    };
    let lists = (0..4).map(|_| hold(gateway.url(&list(30_000)), client.clone()));
    let lists: Vec<_> = lists.map(tokio::spawn).collect();
    until("four lists are in flight", async || {
        let list = http::get(&client, gateway.url(&list(1))).await;
        list.status == 429
    })
    .await;
    at.ask("listKeys", &list(1), "429 too-many-lists").await;
    lists.iter().for_each(|list| list.abort());
}

#[tokio::test]
async fn a_connection_too_many_is_refused_by_a_problem_as_well() {
    let limits = [
        "--embedded",
        "1",
        "--workers",
        "1",
        "--max-connections",
        "1",
    ];
    let gateway = programs!().gateway(&limits);
    let _busy = http::busy_connection(gateway.addr).await;
    let reply = exchange(gateway.addr, "").await;
    assert_eq!(
        (reply.status.as_u16(), reply.problem()),
        (503, "overloaded")
    );
    let contract = Contract::read();
    let violations = contract.violations(&reference("Problem"), &reply.json);
    assert_eq!(violations, [""; 0]);
}

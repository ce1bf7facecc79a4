//! Replies about many keys at once, about parts of values, and the pages that show the contract.

use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::Reply;
use dkvs_tests::process::{DataDir, Gateway, ServersFile, own_loopback};
use dkvs_tests::{programs, v1};
use serde_json::{Value as Json, json};

use crate::contract::{Contract, TEXT};
use crate::replies::{At, Witness, assert_members};

/// What the servers had to say to a listing, whichever said it.
fn said(reply: &Reply) -> Vec<&str> {
    let servers = reply.json["servers"].as_array().expect("servers").iter();
    let mut said: Vec<&str> = servers.map(|it| it["status"].as_str().unwrap()).collect();
    said.sort_unstable();
    said
}

pub async fn parts_and_versions(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    at.put("/kv/k", "0123456789", "200").await;
    let whole = at.read("/kv/k?raw=true", "200").await;
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let part = at.request("getValue", "/kv/k?raw=true");
    let part = at
        .send("getValue", part.header("range", "bytes=2-4"), "206")
        .await;
    assert_eq!(part.body, b"234");
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    assert_eq!(part.header("etag"), whole.header("etag"));
    let beyond = at.request("getValue", "/kv/k?raw=true");
    let beyond = beyond.header("range", "bytes=10-");
    let expected = "416 range-not-satisfiable";
    let beyond = at.send("getValue", beyond, expected).await;
    assert_eq!(beyond.header("content-range"), "bytes */10");
    // Of a HEAD and of JSON there are no parts.
    let head = at.request("headValue", "/kv/k?raw=true");
    let head = at
        .send("headValue", head.header("range", "bytes=2-4"), "200")
        .await;
    assert_eq!(head.header("content-length"), "10");
    let json = at.request("getValue", "/kv/k");
    at.send("getValue", json.header("range", "bytes=2-4"), "200")
        .await;

    for target in ["/kv/k?raw=true", "/kv/k"] {
        let held = at.ask("getValue", target, "200").await;
        let held = held.header("etag").to_owned();
        for id in ["getValue", "headValue"] {
            let again = at.request(id, target).header("if-none-match", &held);
            let again = at.send(id, again, "304").await;
            assert_eq!(again.header("etag"), held);
            let other = at.request(id, target).header("if-none-match", "\"other\"");
            at.send(id, other, "200").await;
        }
    }
    let held = at.ask("getValue", "/kv/k", "200").await;
    at.put("/kv/k", "new", "200").await;
    let changed = at.request("getValue", "/kv/k");
    let changed = changed.header("if-none-match", held.header("etag"));
    at.send("getValue", changed, "200").await;
}

pub async fn keys_of_the_cluster(witness: &mut Witness) {
    let cluster_of_long_keys = programs!().cluster(3, &[]);
    let gateway = programs!().gateway(&["--embedded", "5"]);
    let mut at = witness.at(&gateway);
    let empty = at.ask("listKeys", "/kv", "200").await;
    let nothing = json!({ "keys": [], "cursor": null, "left_out": false });
    assert_members(&empty, nothing);
    assert_eq!(said(&empty), ["answered"; 5]);
    for path in ["/kv/a", "/kv/b/1", "/kv/b/2", "/kv/%ff", "/kv/gone"] {
        at.put(path, "v", "200").await;
    }
    at.delete("/kv/gone", "200").await;
    let all = at.ask("listKeys", "/kv", "200").await;
    let keys = all.json["keys"].as_array().unwrap();
    assert_eq!(
        all.json["keys"],
        json!(["a", "b/1", "b/2", { "key_base64": "/w==" }])
    );
    let some = at.ask("listKeys", "/kv?prefix=b%2F", "200").await;
    assert_eq!(some.json["keys"].as_array().unwrap().len(), 2);
    let binary = at.ask("listKeys", "/kv?prefix=%ff", "200").await;
    assert_members(&binary, json!({ "keys": [{ "key_base64": "/w==" }] }));

    let (mut cursor, mut answer) = (String::new(), Vec::new());
    loop {
        let target = format!("/kv?limit=1{cursor}");
        let page = at.request("listKeys", &target);
        let page = page.header("accept", "application/x-ndjson");
        let page = at.send("listKeys", page, "200").await;
        let lines = String::from_utf8(page.body.clone()).unwrap();
        answer.extend(lines.lines().map(|line| line.parse::<Json>().unwrap()));
        cursor = match page.header("dkvs-cursor") {
            "" => break,
            next => format!("&cursor={next}"),
        };
    }
    assert_eq!(answer, *keys);
    let longest = "k".repeat(1_152 + 1);
    for node in &cluster_of_long_keys.nodes {
        v1::Client::new(node.addr).store("short", "v");
        v1::Client::new(node.addr).store(&longest, "v");
    }
    let mut at = witness.at(&cluster_of_long_keys.gateway);
    let left_out = at.ask("listKeys", "/kv", "200").await;
    assert_members(&left_out, json!({ "keys": ["short"], "left_out": true }));
    let lines = at.request("listKeys", "/kv");
    let lines = lines.header("accept", "application/x-ndjson");
    let lines = at.send("listKeys", lines, "200").await;
    assert_eq!(lines.header("dkvs-left-out"), "true");

    let none = at.request("listKeys", "/kv").header("accept", "text/html");
    at.send("listKeys", none, "406 not-acceptable").await;
    at.ask("listKeys", "/kv?limit=0", "400 invalid-parameter")
        .await;
}

pub async fn folders_and_entries(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    for path in ["/kv/a", "/kv/b/1", "/kv/b/2", "/kv/%ff/1", "/kv/%fe"] {
        at.put(path, "v", "200").await;
    }
    at.put("/kv/c", &b"\xff\xfe"[..], "200").await;
    let folders = at.ask("listKeys", "/kv?delimiter=%2F", "200").await;
    let expected = json!({
        "keys": ["a", "c", { "key_base64": "/g==" }],
        "folders": ["b/", { "folder_base64": "/y8=" }],
    });
    assert_members(&folders, expected);
    let target = "/kv?delimiter=%2F&values=true&start=b&reverse=false";
    let entries = at.ask("listKeys", target, "200").await;
    let entries = &entries.json["entries"];
    assert_eq!(entries[0]["key"], "c", "{entries}");
    assert_eq!(entries[0]["value"], "//4=", "{entries}");
    assert_eq!(entries[0]["encoding"], "base64", "{entries}");
    assert_eq!(entries[1]["key_base64"], "/g==", "{entries}");
    assert_eq!(entries[1]["value"], "v", "{entries}");

    // Each replica has another value, by a client that knows no tags.
    let cluster = programs!().cluster(3, &[]);
    for (number, node) in cluster.nodes.iter().enumerate() {
        v1::Client::new(node.addr).store("k", number.to_string());
    }
    let mut at = witness.at(&cluster.gateway);
    let list = at.ask("listKeys", "/kv?values=true", "200").await;
    let entry = &list.json["entries"][0];
    assert_eq!(
        (&entry["key"], &entry["status"]),
        (&"k".into(), &409.into())
    );
    assert_eq!(
        entry["problem"]["type"],
        "urn:dkvs:problem:replicas-disagree"
    );
}

pub async fn keys_of_servers_that_fail(witness: &mut Witness) {
    let node = |arguments: &[&str]| programs!().node(arguments);
    let refusing = FaultyServer::start(Manner::Refusing);
    let silent = FaultyServer::start(Manner::Silent);
    let gone = node(&[]).addr;
    let data = DataDir::new();
    // A server with a directory keeps its address.
    let lost = ["--data-dir", data.path(), "--declare", "incomplete"];
    let lost = || programs!().node_at((own_loopback(), 4_100).into(), &lost);
    for (third, status) in [
        (refusing.addr, "refused"),
        (silent.addr, "timeout"),
        (gone, "unreachable"),
    ] {
        let nodes = [node(&[]), node(&[])];
        let servers = ServersFile::new(&[nodes[0].addr, nodes[1].addr, third]);
        let gateway = programs!().gateway_over(&servers, &[]);
        let mut at = witness.at(&gateway);
        at.put("/kv/k", "v", "200").await;
        let list = at.ask("listKeys", "/kv", "200").await;
        assert_eq!(said(&list), ["answered", "answered", status]);
        assert_members(&list, json!({ "keys": ["k"], "cursor": null }));
    }

    let mut nodes = [lost(), node(&[]), node(&[])];
    let servers = ServersFile::new(&nodes.each_ref().map(|it| it.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let list = at.ask("listKeys", "/kv", "200").await;
    assert_eq!(said(&list), ["answered", "answered", "incomplete"]);
    nodes[1].process.kill();
    let expected = "503 quorum-unreachable";
    let list = at.ask("listKeys", "/kv", expected).await;
    assert!(said(&list).contains(&"unreachable"), "{list:?}");

    let none = [silent.addr, node(&[]).addr, node(&[]).addr];
    let gateway = programs!().gateway_over(&ServersFile::new(&none), &[]);
    let mut at = witness.at(&gateway);
    let list = at.ask("listKeys", "/kv", expected).await;
    assert_eq!(said(&list), ["pending", "unreachable", "unreachable"]);

    let all_silent = [Manner::Silent; 3].map(FaultyServer::start);
    let servers = ServersFile::new(&all_silent.each_ref().map(|it| it.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let list = at.ask("listKeys", "/kv?timeout_ms=1", "504 timeout").await;
    assert_eq!(said(&list), ["timeout"; 3]);

    let cluster = programs!().cluster(3, &["--protocol", "v1"]);
    let mut at = witness.at(&cluster.gateway);
    at.ask("listKeys", "/kv", "501 not-supported").await;
}

impl At<'_> {
    async fn batch(&mut self, body: Json, expected: &str) -> Reply {
        let request = self.request("runBatch", "/batch").json(&body);
        if expected == "200" {
            self.show_request("runBatch", &body);
        }
        self.send("runBatch", request, expected).await
    }
}

pub async fn batches(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "5", "--max-value", "1000"]);
    let mut at = witness.at(&gateway);
    let done = at
        .batch(
            json!({ "operations": [
                { "op": "put", "key": "a", "value": "text", "content_type": "text/plain",
                  "n": 3, "w": 2, "consistency": "agreement", "timeout_ms": 1_000, "wait": "all" },
                { "op": "put", "key_base64": "/w==", "value": "//4=", "encoding": "base64" },
                { "op": "put", "key": "c", "value": "v", "encoding": "utf-8",
                  "consistency": "linearizable", "wait": "quorum" },
                { "op": "get", "key": "absent", "r": 2 },
                { "op": "delete", "key": "absent" },
                { "op": "get", "key": "a", "n": 9 },
                { "op": "get" },
                { "op": "put", "key": "a", "key_base64": "/w==", "value": "v" },
                { "op": "put", "key": "a", "value": "v".repeat(1_001) },
                { "op": "put", "key": "a", "value": "?", "encoding": "base64" },
            ]}),
            "200",
        )
        .await;
    let statuses = |reply: &Reply| -> Vec<u64> {
        let results = reply.json["results"].as_array().unwrap().iter();
        results.map(|it| it["status"].as_u64().unwrap()).collect()
    };
    let expected = [200, 200, 200, 404, 200, 400, 400, 400, 413, 400];
    assert_eq!(statuses(&done), expected, "{done:?}");
    let results = &done.json["results"];
    assert_eq!(results[0]["write"]["consistency"], "agreement");
    let invalid = &results[5]["problem"]["invalid_parameters"][0];
    assert_eq!(invalid["name"], "n", "{done:?}");
    let tag = results[2]["write"]["tag"].as_str().unwrap();

    let read = at
        .batch(
            json!({ "operations": [
                { "op": "get", "key": "a" },
                { "op": "get", "key_base64": "/w==" },
                { "op": "put", "key": "c", "value": "v", "tag": tag },
                { "op": "put", "key": "c", "value": "another", "tag": tag },
            ]}),
            "200",
        )
        .await;
    assert_eq!(statuses(&read), [200, 200, 200, 409], "{read:?}");
    let results = &read.json["results"];
    assert_eq!(results[0]["read"]["value"], "text");
    assert_eq!(results[0]["read"]["content_type"], "text/plain");
    assert_eq!(results[1]["read"]["value"], "//4=");
    assert_eq!(results[2]["write"]["tag"], tag);
    assert_eq!(
        results[3]["problem"]["type"],
        "urn:dkvs:problem:tag-conflict"
    );

    let get = json!({ "op": "get", "key": "a" });
    let many = |count| json!({ "operations": vec![get.clone(); count] });
    let most = at.batch(many(128), "200").await;
    assert_eq!(statuses(&most), [200; 128]);
    for refused in [
        many(0),
        many(129),
        json!({ "operations": [{ "op": "post", "key": "a" }] }),
        json!({ "operations": [{ "op": "get", "key": "a", "w": 1 }] }),
        json!({ "operations": [{ "op": "get", "key": "a", "colour": "red" }] }),
        json!({ "operations": [{ "op": "put", "key": "a" }] }),
        json!({ "operations": [], "more": 1 }),
        json!([]),
    ] {
        at.batch(refused, "400 invalid-body").await;
    }
    let target = "/batch?n=1";
    let request = at.request("runBatch", target).json(&many(1));
    at.send("runBatch", request, "400 invalid-parameter").await;
    let long = json!({ "op": "get", "key": "a".repeat(2 << 20) });
    at.batch(json!({ "operations": [long] }), "413 batch-too-large")
        .await;
}

pub async fn pages_of_the_contract(witness: &mut Witness) {
    let gateway: Gateway = programs!().gateway(&["--embedded", "1"]);
    let mut at = witness.at(&gateway);
    let yaml: Json = serde_norway::from_str(TEXT).unwrap();
    let reply = at.ask("getOpenapiJson", "/openapi.json", "200").await;
    assert_eq!(reply.json, yaml);
    let page = at.ask("getDocs", "/docs", "200").await;
    let page = String::from_utf8(page.body).unwrap();
    let operations = Contract::read().operations;
    for file in operations.iter().filter(|it| it.path.starts_with("/docs/")) {
        assert!(
            page.contains(&format!("\"{}\"", file.path)),
            "{}",
            file.path
        );
        at.ask(&file.id, &file.path, "200").await;
        let target = format!("{}?n=1", file.path);
        at.ask(&file.id, &target, "400 invalid-parameter").await;
    }
    // Nothing of the page is anyone else's.
    assert!(!page.contains("//"), "{page}");
    for (id, path) in [("getOpenapiJson", "/openapi.json"), ("getDocs", "/docs")] {
        let target = format!("{path}?n=1");
        at.ask(id, &target, "400 invalid-parameter").await;
    }
}

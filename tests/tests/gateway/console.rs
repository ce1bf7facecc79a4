//! The web console: its files, its update each second, and the servers that it stops.

use std::collections::BTreeSet;

use dkvs_gateway::tokens::{Scopes, mint};
use dkvs_tests::http::{Events, Reply, client, exchange, get, put, request, send};
use dkvs_tests::keys::set_mode;
use dkvs_tests::process::{DataDir, Gateway, ServersFile};
use dkvs_tests::{programs, until};
use reqwest::Client;
use rustix::process::Signal;

#[tokio::test]
async fn the_page_and_what_it_names_are_served_and_may_load_nothing_else() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let client = client();
    let page = get(&client, gateway.url("/")).await;
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(!text.contains("://"), "{text}");
    let mut files = BTreeSet::from(["/".to_owned()]);
    for part in text.split("\"/console/").skip(1) {
        let name = part.split('"').next().unwrap();
        files.insert(format!("/console/{name}"));
    }
    assert!(files.contains("/console/main.js"), "{files:?}");
    let mut entity_tags = BTreeSet::new();
    for path in &files {
        let file = get(&client, gateway.url(path)).await;
        let expected = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(file.status, 200, "{path}: {file:?}");
        assert_eq!(file.header("content-type"), expected, "{path}");
        assert_eq!(file.header("cache-control"), "no-cache", "{path}");
        assert_eq!(file.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(
            file.header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let entity_tag = file.header("etag").to_owned();
        let again = client.get(gateway.url(path));
        let again = send(again.header("if-none-match", &entity_tag)).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
        let other = client.get(gateway.url(path));
        let other = send(other.header("if-none-match", "\"other\"")).await;
        assert_eq!((other.status.as_u16(), other.body), (200, file.body));
        entity_tags.insert(entity_tag);
    }
    assert_eq!(entity_tags.len(), files.len());
}

#[tokio::test]
async fn no_other_file_can_be_had() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    for path in [
        "/console",
        "/console/",
        "/console/index.html",
        "/console/nothing.js",
        "/console/MAIN.JS",
        "/console/main.js/",
        "/console/./main.js",
        "/console/../console/main.js",
        "/console/../../Cargo.toml",
        "/console/..%2F..%2FCargo.toml",
        "/console//etc/passwd",
        "/index.html",
        "/../",
    ] {
        let reply = exchange(gateway.addr, request("GET", path, None)).await;
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
        assert_eq!(reply.problem(), "no-such-path", "{path}");
    }
}

#[tokio::test]
async fn every_listener_gets_what_all_workers_have_done() {
    let gateway = programs!().gateway(&["--embedded", "3", "--workers", "2"]);
    let client = client();
    let mut events = Events::open(client.get(gateway.url("/events"))).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["totals"]["requests"]["PUT"], 0);
    assert_eq!(first["latency"]["count"], 0);
    assert_eq!(first["replication"], 3);
    assert_eq!(first["embedded"], true);
    assert_eq!(first["servers"].as_array().unwrap().len(), 3);
    // Connections of their own, so that both workers have their share.
    for _ in 0..10 {
        let reply = exchange(gateway.addr, request("PUT", "/kv/k", Some(b"v"))).await;
        assert_eq!(reply.status, 200);
        let reply = exchange(gateway.addr, request("GET", "/kv/absent", None)).await;
        assert_eq!(reply.status, 404);
    }
    exchange(gateway.addr, request("GET", "/livez", None)).await;
    exchange(gateway.addr, request("GET", "/kv?limit=1", None)).await;
    let last = loop {
        let snapshot = events.next().await.unwrap();
        assert_eq!(snapshot["started_ms"], first["started_ms"]);
        assert!(snapshot["at_ms"].as_u64() > first["at_ms"].as_u64());
        if snapshot["latency"]["count"] == 21 {
            break snapshot;
        }
    };
    let requests = serde_json::json!({ "GET": 10, "PUT": 10, "DELETE": 0, "other": 1 });
    assert_eq!(last["totals"]["requests"], requests);
    assert_eq!(last["totals"]["errors"], 0);
    assert_eq!(last["totals"]["quorum_failures"], 0);
    let buckets = last["latency"]["buckets"].as_array().unwrap();
    let number = |bucket: &serde_json::Value, name: &str| bucket[name].as_u64().unwrap();
    for pair in buckets.windows(2) {
        assert!(number(&pair[0], "le_us") < number(&pair[1], "le_us"));
        assert!(number(&pair[0], "count") <= number(&pair[1], "count"));
    }
    assert_eq!(number(buckets.last().unwrap(), "count"), 21);
    // Another one gets the same at once, and a listener of long ago is not in the latencies.
    let mut other = Events::open(client.get(gateway.url("/events"))).await;
    let answer = other.next().await.unwrap();
    assert_eq!(answer["latency"]["count"], 21);
}

#[tokio::test]
async fn a_caller_may_listen_so_many_times_and_each_that_goes_leaves_a_slot() {
    let gateway = programs!().gateway(&["--embedded", "1", "--workers", "2"]);
    let client = client();
    let listen = || client.get(gateway.url("/events"));
    let mut listeners = Vec::new();
    for _ in 0..16 {
        listeners.push(Events::open(listen()).await);
    }
    let refused = send(listen()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem()),
        (503, "overloaded")
    );
    assert_eq!(refused.header("retry-after"), "1");
    for listener in &mut listeners {
        assert!(listener.next().await.is_some());
    }
    listeners.clear();
    until("there is a slot", async || {
        send(listen()).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_with_the_gateway_and_with_the_tokens_of_its_listeners() {
    let [admin, other] = ["admin", "other"].map(|name| {
        let scopes = Scopes::parse("admin").unwrap();
        mint(name, scopes, &[]).unwrap()
    });
    let tokens = ServersFile::with_text(&admin.line);
    set_mode(&tokens, 0o600);
    let mut gateway = programs!().gateway(&["--embedded", "1", "--tokens", tokens.path()]);
    let client = client();
    // Its files are open, the state of the cluster is not.
    assert_eq!(get(&client, gateway.url("/")).await.status, 200);
    let file = get(&client, gateway.url("/console/main.js")).await;
    assert_eq!(file.status, 200);
    let url = gateway.url("/events");
    assert_eq!(get(&client, url.clone()).await.problem(), "unauthorized");
    let mut events = Events::open(client.get(&url).bearer_auth(&admin.token)).await;
    assert!(events.next().await.is_some());

    std::fs::write(&tokens, &other.line).unwrap();
    gateway.process.signal(Signal::HUP);
    while events.next().await.is_some() {}
    let refused = send(client.get(&url).bearer_auth(&admin.token)).await;
    assert_eq!(refused.problem(), "unauthorized");

    let mut events = Events::open(client.get(&url).bearer_auth(&other.token)).await;
    assert!(events.next().await.is_some());
    gateway.process.signal(Signal::TERM);
    while events.next().await.is_some() {}
    assert!(gateway.process.end().success());
}

/// Stops or starts the server at an address.
async fn switch(client: &Client, gateway: &Gateway, server: &str, verb: &str) -> Reply {
    let url = gateway.url(&format!("/servers/{server}/{verb}"));
    send(client.post(url)).await
}

/// Waits until a gateway of one worker finds a server there, or not.
async fn reachable(client: &Client, gateway: &Gateway, server: &str, expected: bool) {
    until("the server is there, or not", async || {
        let answer = get(client, gateway.url("/servers")).await;
        let servers = answer.json["servers"].as_array().unwrap();
        let mut servers = servers.iter();
        let found = servers.find(|it| it["server"] == server).unwrap();
        assert_eq!(found["running"], expected);
        found["reachable"] == expected
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_stopped_is_done_without_and_repaired_when_it_is_back() {
    let gateway = programs!().gateway(&["--embedded", "3", "--workers", "1"]);
    let client = client();
    let url = gateway.url("/kv/k?wait=all");
    let written = put(&client, url.clone(), "v1").await;
    assert_eq!(written.statuses(), ["stored"; 3]);
    let boot_id = async |server: &str| {
        let answer = get(&client, gateway.url("/servers")).await;
        let servers = answer.json["servers"].as_array().unwrap();
        let found = servers.iter().find(|it| it["server"] == server).unwrap();
        found["boot_id"].as_str().unwrap().to_owned()
    };
    let server = written.servers()[0].to_string();
    let first = boot_id(&server).await;
    for _ in 0..2 {
        let stopped = switch(&client, &gateway, &server, "stop").await;
        let expected = serde_json::json!({ "server": server, "running": false });
        assert_eq!(stopped.json, expected, "{stopped:?}");
    }
    // A closed port, as that of a process that has ended.
    let port = std::net::UdpSocket::bind(&server);
    drop(port.expect("nobody has its port"));
    reachable(&client, &gateway, &server, false).await;
    let written = put(&client, url.clone(), "v2").await;
    assert_eq!(written.json["outcome"], "committed", "{written:?}");
    assert_eq!(written.statuses(), ["unreachable", "stored", "stored"]);

    for _ in 0..2 {
        let started = switch(&client, &gateway, &server, "start").await;
        let expected = serde_json::json!({ "server": server, "running": true });
        assert_eq!(started.json, expected, "{started:?}");
    }
    reachable(&client, &gateway, &server, true).await;
    assert_ne!(boot_id(&server).await, first);
    // It has forgotten all it had. A read gives it the newest, if it has not pulled that by then.
    let read = get(&client, url.clone()).await;
    assert_eq!(read.json["value"], "v2", "{read:?}");
    until("the server is repaired", async || {
        let read = get(&client, url.clone()).await;
        read.statuses() == ["match"; 3]
    })
    .await;
}

#[tokio::test]
async fn a_server_with_a_data_directory_holds_what_it_held_when_it_is_started_again() {
    let data = DataDir::new();
    let arguments = ["--embedded", "1", "--workers", "1", "--data-dir"];
    let gateway = programs!().gateway(&[&arguments[..], &[data.path()]].concat());
    let client = client();
    let written = put(&client, gateway.url("/kv/k"), "v").await;
    assert_eq!(written.status, 200, "{written:?}");
    let server = written.servers()[0].to_string();
    switch(&client, &gateway, &server, "stop").await;
    reachable(&client, &gateway, &server, false).await;
    let gone = get(&client, gateway.url("/kv/k?wait=all")).await;
    assert_eq!(gone.problem(), "quorum-unreachable");
    switch(&client, &gateway, &server, "start").await;
    reachable(&client, &gateway, &server, true).await;
    let read = get(&client, gateway.url("/kv/k")).await;
    assert_eq!(read.json["value"], "v", "{read:?}");
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_is_reported_and_pages_of_others_stop_nothing() {
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let client = client();
    let answer = get(&client, gateway.url("/servers")).await;
    let server = answer.json["servers"][0]["server"].as_str().unwrap();
    let url = gateway.url(&format!("/servers/{server}/stop"));
    let foreign = client.post(&url).header("sec-fetch-site", "cross-site");
    assert_eq!(send(foreign).await.problem(), "cross-site");
    let foreign = client.post(&url).header("origin", "http://other.example");
    assert_eq!(send(foreign).await.problem(), "cross-site");
    reachable(&client, &gateway, server, true).await;

    let escaped = server.replace(':', "%3A");
    let stopped = switch(&client, &gateway, &escaped, "stop").await;
    assert_eq!(stopped.json["running"], false, "{stopped:?}");
    let taken = std::net::UdpSocket::bind(server).unwrap();
    let refused = switch(&client, &gateway, server, "start").await;
    assert_eq!(refused.problem(), "server-not-started");
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains(server), "{detail}");
    drop(taken);
    let started = switch(&client, &gateway, server, "start").await;
    assert_eq!(started.json["running"], true, "{started:?}");
}

//! The web console's files, its events, and the switch of embedded servers.

use std::net::UdpSocket;

use dkvs_tests::http::Events;
use dkvs_tests::programs;

use crate::replies::Witness;

pub async fn files_and_events(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    for (id, target) in [
        ("getConsole", "/"),
        ("getConsoleFile", "/console/main.js"),
        ("getEvents", "/events"),
    ] {
        let reply = at.ask(id, target, "200").await;
        let wrong = format!("{target}?n=1");
        at.ask(id, &wrong, "400 invalid-parameter").await;
        if id != "getEvents" {
            let request = at.request(id, target);
            let request = request.header("if-none-match", reply.header("etag"));
            at.send(id, request, "304").await;
            let request = at.request(id, target).header("if-match", "\"other\"");
            at.send(id, request, "412 precondition-failed").await;
        }
    }
    let target = "/console/nothing.js";
    at.ask("getConsoleFile", target, "404 no-such-path").await;

    at.put("/kv/k", "v", "200").await;
    let mut listeners = Vec::new();
    for _ in 0..16 {
        listeners.push(Events::open(at.request("getEvents", "/events")).await);
    }
    let snapshot = listeners[0].next().await.unwrap();
    at.show_event("getEvents", &snapshot);
    at.ask("getEvents", "/events", "503 overloaded").await;
}

pub async fn servers_that_are_stopped(witness: &mut Witness) {
    const BOTH: [(&str, &str); 2] = [("stopServer", "stop"), ("startServer", "start")];
    let gateway = programs!().gateway(&["--embedded", "1"]);
    let mut at = witness.at(&gateway);
    let servers = at.ask("getServers", "/servers", "200").await;
    let server = servers.json["servers"][0]["server"].as_str().unwrap();
    for (id, verb) in BOTH {
        let target = format!("/servers/{server}/{verb}");
        at.ask(id, &target, "200").await;
        let request = at.request(id, &target).header("if-match", "*");
        at.send(id, request, "412 precondition-failed").await;
        at.ask(id, &format!("{target}?n=1"), "400 invalid-parameter")
            .await;
        let target = format!("/servers/127.0.0.1:1/{verb}");
        at.ask(id, &target, "404 no-such-server").await;
    }
    let target = format!("/servers/{server}/stop");
    at.ask("stopServer", &target, "200").await;
    let taken = UdpSocket::bind(server).unwrap();
    let target = format!("/servers/{server}/start");
    at.ask("startServer", &target, "503 server-not-started")
        .await;
    drop(taken);
    at.ask("startServer", &target, "200").await;

    let cluster = programs!().cluster(1, &[]);
    let mut at = witness.at(&cluster.gateway);
    for (id, verb) in BOTH {
        let target = format!("/servers/{}/{verb}", cluster.nodes[0].addr);
        at.ask(id, &target, "409 not-embedded").await;
    }
}

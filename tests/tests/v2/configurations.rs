//! Servers and gateways of one configuration, and of different ones: by their servers files, and by their
//! replication.

use std::fs;
use std::path::Path;

use dkvs_common::cluster::Cluster;
use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::ring::Ring;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::members::own_addr;
use dkvs_tests::process::{DataDir, Gateway, Node, ServersFile, end_in_order};
use dkvs_tests::v2::key;
use reqwest::{Client, StatusCode};
use rustix::process::Signal;

use super::PROGRAMS;

/// Whether a server serves a client that states no more than its ring, as those of 0.1.0 do.
fn takes_rings(node: &Node, servers: &ServersFile) -> bool {
    let cluster = Cluster::parse("servers", &fs::read(servers).unwrap()).unwrap();
    let ring = StatedEpoch::Ring(Ring::new(&cluster).epoch());
    let numbered = StatedEpoch::Numbered(Epoch::of_file(&cluster, 3));
    let reply = |stated| {
        let request = Request::Command(ReplicaCommand::GetTag { key: key("k") });
        dkvs_tests::v2::Client::new(node.addr)
            .that_states(stated)
            .ask(&request)
    };
    let absent = Reply::Response(ReplicaResponse::absent(Tag::ZERO));
    assert_eq!(reply(numbered), absent);
    reply(ring) == absent
}

#[test]
fn a_directory_of_0_1_0_serves_clients_that_know_no_configurations_until_it_is_told_not_to() {
    let directory = DataDir::new();
    let data = directory.path();
    let ours = own_addr();
    let file = ServersFile::new(&[ours]);
    let servers = ["--servers", file.path()];
    let started = |more: &[&str]| PROGRAMS.durable_node(ours, data, &[&servers, more].concat());
    let serves = |more: &[&str]| {
        let node = started(more);
        let takes_rings = takes_rings(&node, &file);
        end_in_order(node);
        takes_rings
    };
    assert!(!serves(&["--declare", "new"]), "it is new");
    assert!(serves(&["--epochs", "either"]), "because it is said");
    assert!(!serves(&[]));
    // As 0.1.0 has left it.
    let identity = Path::new(data).join("identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    let before = text.lines().filter(|line| !line.contains("\"epoch\""));
    let before: String = before.map(|line| format!("{line}\n")).collect();
    assert_ne!(before, text);
    fs::write(&identity, before).unwrap();
    let mut old = started(&[]);
    assert!(takes_rings(&old, &file));
    old.process.end_with(Signal::TERM);
    let said = old.process.rest_of_stderr().join("\n");
    assert!(said.contains("--epochs numbered"), "{said}");
    assert!(serves(&[]), "and once more");
    assert!(!serves(&["--epochs", "numbered"]));
    assert!(!serves(&[]), "it is remembered");
    // It is of its replication, too, which is no more than the servers there are.
    assert!(!serves(&["--replication", "2"]));
}

#[test]
fn a_directory_of_another_replication_is_refused() {
    let directory = DataDir::new();
    let data = directory.path();
    let ours = own_addr();
    let file = ServersFile::new(&[ours, own_addr(), own_addr()]);
    let servers = ["--servers", file.path()];
    end_in_order(PROGRAMS.durable_node(
        ours,
        data,
        &[&servers[..], &["--declare", "new"]].concat(),
    ));
    let other = [&servers[..], &["--replication", "2"]].concat();
    let said = PROGRAMS.durable_refusal(ours, data, &other);
    assert!(said.contains("another --replication than 2"), "{said}");
    end_in_order(PROGRAMS.durable_node(ours, data, &servers));
    let declared = [&other[..], &["--declare", "complete"]].concat();
    end_in_order(PROGRAMS.durable_node(ours, data, &declared));
    end_in_order(PROGRAMS.durable_node(ours, data, &other));
    assert!(
        PROGRAMS
            .durable_refusal(ours, data, &servers)
            .contains("--declare complete")
    );
}

#[tokio::test]
async fn a_gateway_with_another_replication_or_servers_file_is_refused_and_says_why() {
    let addrs = [own_addr(), own_addr(), own_addr()];
    let file = ServersFile::new(&addrs);
    let servers = ["--servers", file.path()];
    let _nodes = addrs.map(|addr| PROGRAMS.node_at(addr, &servers));
    let heavier: String = addrs
        .iter()
        .map(|it| format!("{} {} 7\n", it.ip(), it.port()))
        .collect();
    let heavier = ServersFile::with_text(heavier);
    let client = Client::new();
    let get = async |gateway: &Gateway, path: &str| {
        let reply = client.get(gateway.url(path)).send().await.unwrap();
        (reply.status(), reply.text().await.unwrap())
    };
    let put = async |gateway: &Gateway| {
        let put = client.put(gateway.url("/kv/k")).body("v");
        let reply = put.send().await.unwrap();
        (reply.status(), reply.text().await.unwrap())
    };
    let other_replication: (&ServersFile, &[&str]) = (&file, &["--replication", "2"]);
    for (file, more) in [other_replication, (&heavier, &[])] {
        let gateway = PROGRAMS.gateway_over(file, more);
        let (status, text) = put(&gateway).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            text.contains("the server is of another configuration"),
            "{text}"
        );
        let (_, servers) = get(&gateway, "/servers").await;
        assert!(
            servers.contains("it serves another configuration"),
            "{servers}"
        );
        let (status, ready) = get(&gateway, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{ready}");
        assert!(ready.contains("--replication differs"), "{ready}");
    }
    let gateway = PROGRAMS.gateway_over(&file, &["--replication", "3"]);
    assert!(put(&gateway).await.0.is_success());
    let member = |text: &str, name: &str| {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        json.pointer(name)
            .and_then(|it| it.as_str())
            .map(str::to_owned)
    };
    let (ring, servers) = (
        get(&gateway, "/ring").await.1,
        get(&gateway, "/servers").await.1,
    );
    let own = member(&ring, "/configuration").unwrap();
    assert!(own.starts_with("1-"), "{own}");
    assert_eq!(member(&servers, "/servers/1/configuration"), Some(own));
    assert_eq!(get(&gateway, "/readyz").await.0, StatusCode::OK);
}

//! Replies that DKVS/2 makes possible, and what servers of DKVS/1 make of the same requests.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use std::net::{SocketAddr, UdpSocket};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, Proof, Sender};
use dkvs_common::wire::v2::message::{RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply as Answer;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::Reply;
use dkvs_tests::process::{DataDir, ServersFile};
use dkvs_tests::{PATIENCE, programs};
use serde_json::{Value as Json, json};

use crate::replies::{Witness, assert_members, sorted_statuses};

/// The tag of a write or of what was read, and those that the replicas returned.
fn tags(reply: &Reply) -> (&Json, Vec<&Json>) {
    let replicas = reply.json["replicas"].as_array().expect("replicas");
    let reported = replicas.iter().map(|it| &it["tag"]).collect();
    (&reply.json["tag"], reported)
}

pub async fn tags_and_tombstones(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/%00?wait=all", &b"\0"[..], "200").await;
    let (written, _) = tags(&put);
    let get = at.read("/kv/%00?wait=all", "200").await;
    assert_eq!(tags(&get), (written, vec![written; 3]));
    let raw = at.ask("getValue", "/kv/%00?raw=true", "200").await;
    assert_eq!(
        (raw.header("dkvs-tag"), &*raw.body),
        (text(written), &b"\0"[..])
    );
    let head = at.ask("headValue", "/kv/%00?raw=true", "200").await;
    assert_eq!(head.header("dkvs-tag"), text(written));

    let delete = at.delete("/kv/%00?wait=all", "200").await;
    let (deleted, _) = tags(&delete);
    assert!(text(deleted) > text(written), "{delete:?}");
    let get = at.read("/kv/%00?wait=all", "404 key-not-found").await;
    assert_members(&get, json!({ "deleted": true }));
    assert_eq!(get.statuses(), ["tombstone"; 3]);
    assert_eq!(tags(&get), (deleted, vec![deleted; 3]));

    let get = at.read("/kv/never?wait=all", "404 key-not-found").await;
    assert_members(&get, json!({ "deleted": false, "tag": null }));
    assert_eq!(get.statuses(), ["absent"; 3]);
    at.delete("/kv/never", "200").await;
}

fn text(tag: &Json) -> &str {
    tag.as_str().expect("a tag")
}

pub async fn content_types(witness: &mut Witness) {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let mut at = witness.at(&gateway);
    let longest = format!("text/{}", "x".repeat(250));
    for content_type in ["text/html; charset=utf-8", &longest] {
        let put = at.request("putValue", "/kv/k").body("v");
        let put = put.header("content-type", content_type);
        at.send("putValue", put, "200").await;
        let get = at.read("/kv/k", "200").await;
        assert_members(&get, json!({ "content_type": content_type }));
        for id in ["getValue", "headValue"] {
            let raw = at.ask(id, "/kv/k?raw=true", "200").await;
            assert_eq!(raw.header("content-type"), content_type);
        }
    }
    let too_long = longest + "x";
    let put = at.request("putValue", "/kv/k").body("v");
    let put = put.header("content-type", too_long);
    at.send("putValue", put, "400 invalid-value").await;

    at.put("/kv/k", "v", "200").await;
    let get = at.read("/kv/k", "200").await;
    assert_members(&get, json!({ "content_type": null }));
}

pub async fn long_values(witness: &mut Witness) {
    let nodes = [(); 3].map(|()| programs!().node(&[]));
    let servers = ServersFile::new(&nodes.each_ref().map(|it| it.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let longest: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    at.put("/kv/k?wait=all", longest.clone(), "200").await;
    let raw = at.ask("getValue", "/kv/k?raw=true&wait=all", "200").await;
    assert!(raw.body == longest, "another value came back");
    let get = at.read("/kv/k?wait=all", "200").await;
    assert_members(&get, json!({ "size": 1 << 20, "encoding": "base64" }));
    assert_eq!(get.statuses(), ["match"; 3]);
    let too_long = [longest, vec![0]].concat();
    let put = at.put("/kv/k", too_long, "413 value-too-large").await;
    assert_members(&put, json!({ "value_bytes_max": 1 << 20, "outcome": null }));

    let nodes = [(); 3].map(|()| programs!().node(&["--max-value", "10K"]));
    let servers = ServersFile::new(&nodes.each_ref().map(|it| it.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    let mut at = witness.at(&gateway);
    let too_long = vec![0; (10 << 10) + 1];
    let put = at
        .put("/kv/k?wait=all", too_long, "413 value-too-large")
        .await;
    assert_members(
        &put,
        json!({ "value_bytes_max": 10 << 10, "outcome": "not_applied" }),
    );
    assert_refused_by_two(&put);
}

/// Two are enough to know that nothing is to be sent, whether the third was met by then or not.
fn assert_refused_by_two(reply: &Reply) {
    let statuses = sorted_statuses(reply);
    assert_eq!(statuses[1..], ["refused"; 2], "{reply:?}");
    assert!(["pending", "refused"].contains(&statuses[0]), "{reply:?}");
}

const AUTO: &[&str] = &["--protocol", "auto"];

pub async fn servers_of_both_protocols(witness: &mut Witness) {
    let nodes = [programs!().node(&[]), programs!().node(&[])];
    let first = FaultyServer::start(Manner::Refusing);
    let servers = ServersFile::new(&[nodes[0].addr, nodes[1].addr, first.addr]);
    let gateway = programs!().gateway_over(&servers, AUTO);
    let mut at = witness.at(&gateway);
    let put = at.put("/kv/%00?wait=all", "v", "200").await;
    assert_eq!(sorted_statuses(&put), ["refused", "stored", "stored"]);
    let get = at.read("/kv/%00?wait=all", "200").await;
    assert_eq!(sorted_statuses(&get), ["match", "match", "refused"]);
    let held = at.holdings("/ring/%00?n=3").await;
    assert_eq!(sorted_statuses(&held), ["refused", "value", "value"]);
    let delete = at.delete("/kv/%00?wait=all", "200").await;
    assert_eq!(sorted_statuses(&delete), ["refused", "stored", "stored"]);
    let get = at.read("/kv/%00?wait=all", "404 key-not-found").await;
    assert_eq!(sorted_statuses(&get), ["refused", "tombstone", "tombstone"]);

    let silent = FaultyServer::start(Manner::Silent);
    let servers = ServersFile::new(&[nodes[0].addr, first.addr, silent.addr]);
    let gateway = programs!().gateway_over(&servers, AUTO);
    let reply = witness
        .at(&gateway)
        .ask("getServers", "/servers", "200")
        .await;
    let mut at = witness.at(&gateway);
    let ready = at.ask("getReadiness", "/readyz", "200").await;
    assert_eq!(ready.json["advice"].as_array().unwrap().len(), 1);
    let reported = reply.json["servers"].as_array().unwrap();
    let protocols: Vec<_> = reported.iter().map(|it| &it["protocol"]).collect();
    assert_eq!(
        protocols,
        [&json!("DKVS/2"), &json!("DKVS/1"), &json!(null)]
    );
    assert_eq!(reported[0]["durability"], "memory");
    let in_memory: Vec<_> = reported.iter().map(|it| &it["storage"]).collect();
    assert_eq!(in_memory, [&json!(null); 3]);
    for name in [
        "boot_id",
        "value_bytes_max",
        "keys",
        "bytes",
        "corrupt_answers",
    ] {
        let is_told: Vec<_> = reported.iter().map(|it| !it[name].is_null()).collect();
        assert_eq!(is_told, [true, false, false], "{name}");
    }
}

pub async fn servers_with_disks(witness: &mut Witness) {
    for durability in ["fsync", "buffered"] {
        let data = DataDir::new();
        let arguments = ["--embedded", "3", "--data-dir", data.path()];
        let arguments = [&arguments[..], &["--durability", durability]].concat();
        let gateway = programs!().gateway(&arguments);
        let mut at = witness.at(&gateway);
        at.ask("getServers", "/servers", "200").await;
        at.put("/kv/k?wait=all", "v", "200").await;
        let reply = at.ask("getServers", "/servers", "200").await;
        assert_eq!(reply.json["servers"][0]["durability"], durability);
    }
}

pub async fn servers_of_the_first_protocol_alone(witness: &mut Witness) {
    let first = [Manner::Refusing; 3].map(FaultyServer::start);
    let servers = ServersFile::new(&first.each_ref().map(|it| it.addr));
    let gateway = programs!().gateway_over(&servers, AUTO);
    let mut at = witness.at(&gateway);
    let nowhere = json!({ "outcome": "not_applied", "tag": null });
    let long = vec![b'v'; 32_754];
    for (target, value, expected) in [
        ("/kv/k", &b"\0"[..], "400 invalid-value"),
        ("/kv/%00", b"v", "400 invalid-key"),
        ("/kv/k", &long, "413 value-too-large"),
    ] {
        let target = format!("{target}?wait=all");
        let put = at.put(&target, value.to_vec(), expected).await;
        assert_members(&put, nowhere.clone());
        assert_refused_by_two(&put);
    }
    let put = at.put("/kv/k?wait=all", "v", "503 quorum-unreachable");
    let put = put.await;
    assert_members(&put, json!({ "outcome": "unknown", "tag": null }));
    assert_eq!(put.statuses(), ["refused"; 3]);
    let delete = at.delete("/kv/k?wait=all", "501 not-supported").await;
    assert_members(&delete, nowhere.clone());
    let delete = at.delete("/kv/%00?wait=all", "501 not-supported").await;
    assert_members(&delete, nowhere);
    let get = at.read("/kv/%00?wait=all", "400 invalid-key").await;
    assert_eq!(get.statuses(), ["refused"; 3]);
}

pub async fn a_gateway_of_the_first_protocol(witness: &mut Witness) {
    let cluster = programs!().cluster(3, &["--protocol", "v1"]);
    let mut at = witness.at(&cluster.gateway);
    let put = at.put("/kv/k?wait=all", "v", "200").await;
    assert_members(&put, json!({ "tag": null }));
    let get = at.read("/kv/k?wait=all", "200").await;
    assert_members(&get, json!({ "tag": null, "content_type": null }));
    let raw = at.ask("getValue", "/kv/k?raw=true", "200").await;
    assert_eq!(raw.header("dkvs-tag"), "");
    let refused = [
        at.put("/kv/k", &b"\0"[..], "400 invalid-value").await,
        at.put("/kv/%00", "v", "400 invalid-key").await,
        at.put("/kv/k", vec![b'v'; 32_754], "413 value-too-large")
            .await,
        at.delete("/kv/k", "501 not-supported").await,
    ];
    for reply in refused {
        assert_members(&reply, json!({ "outcome": null, "replicas": null }));
    }
    let reply = at.ask("getServers", "/servers", "200").await;
    for server in reply.json["servers"].as_array().unwrap() {
        assert_eq!(server["protocol"], "DKVS/1");
        assert_eq!(server["traffic"], json!(null));
    }
}

pub async fn a_version_that_none_exceeds(witness: &mut Witness) {
    let cluster = programs!().cluster(3, &[]);
    let greatest = Tag {
        time: u64::MAX,
        op: 0,
    };
    for node in &cluster.nodes {
        store(node.addr, "k", greatest);
    }
    let mut at = witness.at(&cluster.gateway);
    for (level, status) in [("linearizable", "pending"), ("agreement", "superseded")] {
        let path = format!("/kv/k?consistency={level}");
        let put = at.put(&path, "v", "503 quorum-unreachable").await;
        let mut replicas = put.json["replicas"].as_array().unwrap().iter();
        let reported = replicas.find(|it| it["tag"] == greatest.to_string());
        assert_eq!(reported.expect("one that has it")["status"], status);
    }
}

/// Has a server store a value under a tag, by DKVS/2.
fn store(server: SocketAddr, key: &'static str, tag: Tag) {
    let key = Key::new(key).unwrap();
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new("a newer value").unwrap(),
    };
    let record = Record::new(&key, tag, content);
    let envelope = Envelope {
        sender: Sender::Client,
        epoch: dkvs_common::epoch::StatedEpoch::None,
        authentication: None,
    };
    let message = RequestMessage {
        id: RequestId(1),
        wait_ms: u16::MAX,
        request: Request::Command(ReplicaCommand::Put { key, record }),
    };
    let mut builder = Builder::new(envelope, 1_200);
    assert!(builder.push(|datagram| message.encode(datagram)));
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&builder.finish(), server).unwrap();
    let mut buffer = [0; 1_200];
    let length = socket.recv(&mut buffer).expect("an answer");
    let answer = Bytes::copy_from_slice(&buffer[..length]);
    let (_, mut messages) = envelope::open(&answer, Proof::Checksum).unwrap();
    let answer = next_reply(&mut messages).unwrap().expect("a reply");
    assert_eq!(answer.reply, Answer::Response(ReplicaResponse::Done));
}

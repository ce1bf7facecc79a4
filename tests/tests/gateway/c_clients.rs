//! Keys that clients of the original system write as well, without a gateway: what is confirmed to
//! them no read takes away, and what is confirmed by HTTP is not lost among their tags.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply as V2Reply;
use dkvs_tests::http::{Reply, client, get, put};
use dkvs_tests::process::{Cluster, DataDir, ServersFile, own_loopback};
use dkvs_tests::{programs, v1, v2};
use reqwest::Client;

/// Three servers, each of which holds what it is said to, put by DKVS/1 in this order.
struct Shared {
    cluster: Cluster,
    client: Client,
}

impl Shared {
    fn holding(values: [&str; 3]) -> Self {
        let shared = Self {
            cluster: programs!().cluster(3, &[]),
            client: client(),
        };
        for (server, value) in values.into_iter().enumerate() {
            shared.store(server, value);
        }
        shared
    }

    fn store(&self, server: usize, value: &str) {
        v1::Client::new(self.cluster.nodes[server].addr).store("acct", value);
    }

    /// What C clients read from each server.
    fn held(&self) -> [Vec<u8>; 3] {
        [0, 1, 2].map(|server| v1::Client::new(self.cluster.nodes[server].addr).get("acct"))
    }

    async fn get(&self, query: &str) -> Reply {
        let url = self.cluster.gateway.url(&format!("/kv/acct?{query}"));
        get(&self.client, url).await
    }

    async fn put(&self, query: &str, value: &'static str) -> Reply {
        let url = self.cluster.gateway.url(&format!("/kv/acct?{query}"));
        put(&self.client, url, value).await
    }
}

#[tokio::test]
async fn a_read_takes_nothing_of_what_was_confirmed_to_a_c_client() {
    // Of each set of values the last that was put has the greatest tag.
    for (values, expected) in [
        (["new", "new", "old"], "new"),
        (["old", "new", "new"], "new"),
        (["new", "old", "new"], "new"),
        (["same", "same", "same"], "same"),
    ] {
        let shared = Shared::holding(values);
        for query in [
            "",
            "n=3&r=2",
            "wait=all",
            "consistency=agreement",
            "r=1&wait=all",
        ] {
            for _ in 0..3 {
                let read = shared.get(query).await;
                assert_eq!(read.status, 200, "{read:?}");
                assert_eq!(read.json["consistency"], "agreement");
                if query != "r=1&wait=all" {
                    assert_eq!(read.json["value"], expected, "{query}");
                }
                assert_eq!(shared.held(), values.map(|value| value.as_bytes().to_vec()));
            }
        }
        let read = shared.get("wait=all").await;
        let agreeing = values.iter().filter(|value| **value == expected).count();
        assert_eq!(read.json["quorum"]["agreeing"], agreeing);
        assert_eq!(read.count("match"), agreeing, "{read:?}");
        assert_eq!(read.count("differs"), 3 - agreeing, "{read:?}");
        let insists = shared.get("consistency=linearizable").await;
        assert_eq!(insists.problem(), "invalid-parameter");
        let reason = insists.json["invalid_parameters"][0]["reason"].as_str();
        assert!(reason.unwrap().contains("came by DKVS/1"), "{insists:?}");
    }
}

/// The vote of the original system's handout.
#[tokio::test]
async fn a_value_that_three_confirmed_wins_over_a_later_one_that_one_did() {
    let shared = Shared::holding(["NewValue"; 3]);
    for server in [0, 1, 2] {
        shared.store(server, "value3");
        let read = shared.get("n=3&r=2").await;
        assert_eq!(read.json["value"], "NewValue", "{read:?}");
        shared.store(server, "NewValue");
    }
}

#[tokio::test]
async fn with_one_of_two_histories_silent_nobody_knows_which_it_was() {
    let mut shared = Shared::holding(["new", "new", "old"]);
    shared.cluster.nodes[0].process.kill();
    let read = shared.get("wait=all").await;
    assert_eq!(
        (read.status.as_u16(), read.problem()),
        (409, "replicas-disagree")
    );
    assert_eq!(read.json["consistency"], "agreement");
}

#[tokio::test]
async fn a_write_by_http_that_reaches_all_replicas_makes_the_key_linearizable_again() {
    let shared = Shared::holding(["one", "two", "three"]);
    let written = shared.put("wait=all", "by HTTP").await;
    assert_eq!((written.status.as_u16(), written.count("stored")), (200, 3));
    let read = shared.get("consistency=linearizable&wait=all").await;
    assert_eq!(read.json["value"], "by HTTP");
    assert_eq!(read.statuses(), ["match"; 3]);
    // Until a C client puts it again, be it on one server alone.
    shared.store(1, "by a C client");
    let read = shared.get("wait=all").await;
    assert_eq!(read.json["consistency"], "agreement");
    assert_eq!(
        (read.json["value"].as_str(), read.count("match")),
        (Some("by HTTP"), 2)
    );
}

/// A server whose clock is an hour ahead mints such tags for what comes by DKVS/1.
#[tokio::test]
async fn a_confirmed_write_is_not_lost_to_a_record_of_a_c_client_with_a_tag_far_ahead() {
    for ahead in [0, 1, 2] {
        let shared = Shared::holding(["old"; 3]);
        let addr = shared.cluster.nodes[ahead].addr;
        let time = (unix_ms() + 3_600_000) << 16;
        let mut server = v2::Client::new(addr);
        let planted = v2::put("acct", "old", Tag { time, op: 1 });
        assert_eq!(
            server.ask(&planted),
            V2Reply::Response(ReplicaResponse::Done)
        );
        shared.store(ahead, "old");
        for round in 0..20 {
            let value = ["even", "odd"][round % 2];
            let written = shared.put("wait=all", value).await;
            if written.status != 200 {
                // Its answer showed something newer than the others had.
                assert_eq!(written.json["outcome"], "unknown", "{written:?}");
                continue;
            }
            // Whatever that server said, two others hold it.
            assert!(written.count("stored") >= 2, "{written:?}");
            let held = shared.held();
            let holds = held.iter().filter(|held| *held == value.as_bytes());
            assert!(holds.count() >= 2, "{written:?}");
            assert_eq!(shared.get("").await.json["value"], value);
        }
    }
}

#[tokio::test]
async fn what_came_by_dkvs_1_is_known_as_such_after_a_restart_and_on_the_wire() {
    let directories = [(); 3].map(|()| DataDir::new());
    let start = |number: usize, addr, declares: &[&'static str]| {
        let data = ["--data-dir", directories[number].path()];
        programs!().node_at(addr, &[&data[..], declares].concat())
    };
    let new = ["--declare", "new"];
    let mut nodes = [0, 1, 2].map(|number| {
        let port = 4_200 + number as u16;
        start(number, (own_loopback(), port).into(), &new)
    });
    for (node, value) in nodes.iter().zip(["new", "new", "old"]) {
        v1::Client::new(node.addr).store("acct", value);
    }
    for (number, node) in nodes.iter_mut().enumerate() {
        node.process.kill();
        *node = start(number, node.addr, &[]);
        assert!(is_marked(node.addr), "server {number}");
    }
    let servers = ServersFile::new(&nodes.each_ref().map(|node| node.addr));
    let gateway = programs!().gateway_over(&servers, &[]);
    for _ in 0..3 {
        let read = get(&client(), gateway.url("/kv/acct?wait=all")).await;
        assert_eq!(read.json["value"], "new", "{read:?}");
        assert_eq!(read.json["consistency"], "agreement");
    }
}

/// Whether a server reports by DKVS/2 that it had a request by DKVS/1.
fn is_marked(addr: std::net::SocketAddr) -> bool {
    let key = dkvs_common::kv::Key::new("acct").unwrap();
    let get = dkvs_common::wire::v2::request::Request::Command(ReplicaCommand::Get { key });
    match v2::Client::new(addr).ask(&get) {
        V2Reply::Response(ReplicaResponse::Record { digest, .. }) => digest.tag.is_by_v1(),
        _ => false,
    }
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

//! Servers that know each other come together by themselves: nobody reads in here but replica by replica.

use std::net::{SocketAddr, UdpSocket};

use dkvs_common::cluster::Cluster;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::ring::{Position, Ring};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::process::{DataDir, Gateway, Node, ServersFile, own_loopback};
use dkvs_tests::v2::{Client, key};
use dkvs_tests::{until, v1};
use reqwest::StatusCode;

use super::PROGRAMS;

/// Five servers that know each other, on disks, and a gateway.
struct Members {
    gateway: Gateway,
    nodes: Vec<Option<Node>>,
    addrs: Vec<SocketAddr>,
    ring: Ring,
    servers: ServersFile,
    disks: Vec<DataDir>,
}

impl Members {
    fn new() -> Self {
        let free = || UdpSocket::bind((own_loopback(), 0)).unwrap().local_addr();
        let addrs: Vec<SocketAddr> = (0..5).map(|_| free().unwrap()).collect();
        let line = |addr: &SocketAddr| format!("{} {} 8\n", addr.ip(), addr.port());
        let text: String = addrs.iter().map(line).collect();
        let ring = Ring::new(&Cluster::parse("servers", text.as_bytes()).unwrap());
        let servers = ServersFile::with_text(&text);
        let mut members = Self {
            gateway: PROGRAMS.gateway_over(&servers, &[]),
            nodes: Vec::new(),
            addrs,
            ring,
            servers,
            disks: (0..5).map(|_| DataDir::new()).collect(),
        };
        for number in 0..5 {
            let node = members.started(number, "new");
            members.nodes.push(Some(node));
        }
        members
    }

    fn started(&self, number: usize, declared: &str) -> Node {
        let declare: &[&str] = match declared {
            "" => &[],
            declared => &["--declare", declared],
        };
        let arguments = [
            "--servers",
            self.servers.path(),
            "--data-dir",
            self.disks[number].path(),
            "--durability",
            "buffered",
        ];
        PROGRAMS.node_at(self.addrs[number], &[&arguments, declare].concat())
    }

    fn kill(&mut self, number: usize) {
        self.nodes[number] = None;
    }

    fn start(&mut self, number: usize, declared: &str) {
        self.nodes[number] = Some(self.started(number, declared));
    }

    /// The numbers of a key's replicas.
    fn replicas(&self, name: &str) -> Vec<usize> {
        let list = self.ring.preference_list(Position::of_key(&key(name)), 3);
        list.iter()
            .map(|point| usize::from(point.server.0))
            .collect()
    }

    fn client(&self, server: usize) -> Client {
        Client::new(self.addrs[server]).of_ring(self.ring.epoch())
    }

    /// What a server reports of itself.
    fn statistic(&self, number: usize, wanted: Statistic) -> u64 {
        let request = Request::Command(ReplicaCommand::GetStatistics);
        let Reply::Response(ReplicaResponse::Statistics(numbers)) =
            self.client(number).ask(&request)
        else {
            panic!("no statistics");
        };
        let mut numbers = numbers.into_iter();
        let found = numbers.find(|(name, _)| *name == wanted as u8);
        found.map_or(0, |(_, number)| number)
    }

    /// Waits until a server holds of these keys what the others do.
    async fn until_in_step(&self, number: usize, names: &[String]) {
        let tag = |server: usize, name: &str| {
            let request = Request::Command(ReplicaCommand::GetTag { key: key(name) });
            match self.client(server).ask(&request) {
                Reply::Response(
                    ReplicaResponse::Tag { tag } | ReplicaResponse::Absent { tag, .. },
                ) => tag,
                other => panic!("{other:?}"),
            }
        };
        for name in names {
            let replicas = self.replicas(name);
            if !replicas.contains(&number) {
                continue;
            }
            let others = replicas.iter().filter(|server| **server != number);
            let newest = others.map(|server| tag(*server, name)).max().unwrap();
            assert!(newest > Tag::ZERO, "{name} was written");
            until(name, async || tag(number, name) == newest).await;
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key {number}")).collect()
}

#[tokio::test]
async fn a_server_that_was_away_pulls_what_was_written_meanwhile_though_nobody_reads() {
    let mut members = Members::new();
    let http = reqwest::Client::new();
    let url = |name: &str| members.gateway.url(&format!("/kv/{name}"));
    let put = async |name: &str, value: String| {
        let response = http.put(url(name)).body(value).send().await.unwrap();
        assert!(response.status().is_success(), "{name}");
    };
    let names = names(200);
    for name in &names {
        put(name, "before".into()).await;
    }
    let away = members.replicas(&names[0])[0];
    members.kill(away);
    let url = |name: &str| members.gateway.url(&format!("/kv/{name}"));
    for (number, name) in names.iter().enumerate() {
        let request = match number % 10 {
            0 => http.put(url(name)).body("long ".repeat(20_000)),
            1 => http.delete(url(name)),
            _ => http.put(url(name)).body("meanwhile"),
        };
        let status = request.send().await.unwrap().status();
        assert!(
            status.is_success() || status == StatusCode::NOT_FOUND,
            "{name}"
        );
    }
    members.start(away, "");
    members.until_in_step(away, &names).await;
    assert!(members.statistic(away, Statistic::RecordsPulled) > 0);
    assert_eq!(members.statistic(away, Statistic::Peers), 4);
    // The others have nothing to pull from it.
    until("in step", async || {
        members.statistic(away, Statistic::PeersInStep) == 4
    })
    .await;
}

#[tokio::test]
async fn what_came_by_dkvs_1_stays_where_it_came_to() {
    let mut members = Members::new();
    let replicas = members.replicas("shared");
    let by_v1 = v1::Client::new(members.addrs[replicas[0]]);
    by_v1.store("shared", "by DKVS/1");
    let url = members.gateway.url("/kv/other");
    let other = reqwest::Client::new()
        .put(url)
        .body("v")
        .send()
        .await
        .unwrap();
    assert!(other.status().is_success());
    // A start compares at once: with everybody, and it pulls what there is to pull.
    let [_, late, _] = replicas[..] else {
        panic!("three replicas");
    };
    members.kill(late);
    members.start(late, "");
    until("in step", async || {
        members.statistic(late, Statistic::PeersInStep) == 4
    })
    .await;
    assert_eq!(by_v1.get("shared"), b"by DKVS/1");
    let request = Request::Command(ReplicaCommand::GetTag { key: key("shared") });
    let held = members.client(late).ask(&request);
    let nothing = ReplicaResponse::absent(Tag::ZERO);
    assert_eq!(held, Reply::Response(nothing));
}

//! Servers that speak DKVS/1 only beside ours, and gateways whose options say what to speak.

use std::net::SocketAddr;

use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::{Reply, client, get, put, send};
use dkvs_tests::process::{Gateway, Node, ServersFile};
use dkvs_tests::until;
use reqwest::Client;

use crate::PROGRAMS;

/// Servers of DKVS/1 are asked by it only where that was said.
const AUTO: &[&str] = &["--protocol", "auto"];

/// Some of our servers, some that speak DKVS/1 only, and a gateway over all of them.
pub struct Mixed {
    pub ours: Vec<Node>,
    pub others: Vec<FaultyServer>,
    pub gateway: Gateway,
    pub client: Client,
    pub servers: ServersFile,
}

impl Mixed {
    pub fn start(ours: usize, others: usize, arguments: &[&str]) -> Self {
        let ours = (0..ours).map(|_| PROGRAMS.node(&[])).collect();
        Self::of(ours, others, Manner::Sound, arguments)
    }

    /// The same of these servers, and others that answer so.
    pub fn of(ours: Vec<Node>, others: usize, manner: Manner, arguments: &[&str]) -> Self {
        let others: Vec<_> = (0..others).map(|_| FaultyServer::start(manner)).collect();
        let addrs = ours.iter().map(|node| node.addr);
        let addrs: Vec<_> = addrs.chain(others.iter().map(|other| other.addr)).collect();
        let servers = ServersFile::new(&addrs);
        Self {
            gateway: PROGRAMS.gateway_over(&servers, arguments),
            client: client(),
            ours,
            others,
            servers,
        }
    }

    async fn put(&self, query: &str, value: impl Into<reqwest::Body>) -> Reply {
        put(
            &self.client,
            self.gateway.url(&format!("/kv/k?{query}")),
            value,
        )
        .await
    }

    async fn get(&self, query: &str) -> Reply {
        get(&self.client, self.gateway.url(&format!("/kv/k?{query}"))).await
    }

    /// The statuses of our servers, and those of the others.
    fn statuses<'a>(&self, reply: &'a Reply) -> [Vec<&'a str>; 2] {
        let servers = reply.servers();
        let of = |addrs: Vec<SocketAddr>| {
            let reported = servers.iter().zip(reply.statuses());
            let reported = reported.filter(|(addr, _)| addrs.contains(addr));
            reported.map(|(_, status)| status).collect()
        };
        let ours = self.ours.iter().map(|node| node.addr).collect();
        let others = self.others.iter().map(|other| other.addr).collect();
        [of(ours), of(others)]
    }

    /// What the gateway says that its servers speak, in the order of the file.
    async fn protocols(&self) -> Vec<serde_json::Value> {
        let reported = get(&self.client, self.gateway.url("/servers")).await;
        let servers = reported.json["servers"].as_array().unwrap().iter();
        servers.map(|server| server["protocol"].clone()).collect()
    }
}

#[tokio::test]
async fn servers_of_both_versions_make_one_quorum() {
    for (ours, others) in [(2, 1), (1, 2), (0, 3)] {
        let mixed = Mixed::start(ours, others, AUTO);
        for round in 0..20 {
            let value = format!("value {round}");
            let put = mixed.put("w=3", value.clone()).await;
            assert_eq!(put.status, 200, "{put:?}");
            assert_eq!(put.statuses(), ["stored"; 3]);
            let get = mixed.get("r=3").await;
            assert_eq!(get.json["value"], value, "{get:?}");
            assert_eq!(get.statuses(), ["match"; 3]);
        }
        for other in &mixed.others {
            assert_eq!(other.value("k").unwrap(), b"value 19");
            assert!(other.asked_by_v2() > 0);
            assert_eq!(other.value(""), None);
        }
        let mut expected = vec!["DKVS/2"; ours];
        expected.extend(vec!["DKVS/1"; others]);
        // A server has half a second to answer, which may be too little at times.
        until("the gateway knows all protocols", async || {
            mixed.protocols().await == expected
        })
        .await;
    }
}

#[tokio::test]
async fn what_dkvs_1_cannot_carry_is_on_the_servers_that_can() {
    let mixed = Mixed::start(2, 1, AUTO);
    assert_eq!(mixed.put("w=3", "before").await.status, 200);
    for value in [b"a\0b".to_vec(), vec![b'v'; 32_754], vec![0; 1 << 20]] {
        let put = mixed.put("wait=all", value.clone()).await;
        assert_eq!(put.status, 200, "{put:?}");
        let expected = [vec!["stored"; 2], vec!["refused"]];
        assert_eq!(mixed.statuses(&put), expected);
        let raw = mixed.get("wait=all&raw=true").await;
        assert!(raw.body == value);
        let get = mixed.get("wait=all").await;
        let expected = [vec!["match"; 2], vec!["differs"]];
        assert_eq!(mixed.statuses(&get), expected);
        assert_eq!(mixed.others[0].value("k").unwrap(), b"before");
    }
    let all = mixed.put("w=3&wait=all", "a\0b").await;
    assert_eq!(
        (all.status.as_u16(), all.json["outcome"].as_str()),
        (400, Some("not_applied"))
    );
    assert_eq!(all.problem(), "invalid-value");

    let mixed = Mixed::start(1, 2, AUTO);
    let put = mixed.put("wait=all", "a\0b").await;
    assert_eq!((put.status.as_u16(), put.problem()), (400, "invalid-value"));
    let deleted = send(mixed.client.delete(mixed.gateway.url("/kv/k?wait=all"))).await;
    assert_eq!(
        (deleted.status.as_u16(), deleted.problem()),
        (501, "not-supported")
    );
}

#[tokio::test]
async fn a_gateway_for_dkvs_2_only_asks_nothing_of_others_and_says_why() {
    let mixed = Mixed::start(0, 3, &["--protocol", "v2"]);
    let put = mixed.put("wait=all", "v").await;
    assert_eq!(
        (put.status.as_u16(), put.problem()),
        (503, "quorum-unreachable")
    );
    assert_eq!(put.json["outcome"], "not_applied");
    let get = mixed.get("wait=all").await;
    assert_eq!(
        (get.status.as_u16(), get.problem()),
        (503, "quorum-unreachable")
    );
    for reply in [put, get] {
        for replica in reply.json["replicas"].as_array().unwrap() {
            assert_eq!(replica["status"], "refused");
            let reason = replica["reason"].as_str().unwrap();
            assert!(reason.contains("DKVS/1"), "{reason}");
        }
    }
    for other in &mixed.others {
        assert_eq!(other.asked(), other.asked_by_v2());
        assert_eq!(other.value("k"), None);
    }
}

#[tokio::test]
async fn a_gateway_for_dkvs_1_only_never_sends_a_datagram_of_dkvs_2() {
    let mixed = Mixed::start(1, 2, &["--protocol", "v1"]);
    for round in 0..20 {
        let value = format!("value {round}");
        assert_eq!(mixed.put("w=3", value.clone()).await.status, 200);
        assert_eq!(mixed.get("r=3").await.json["value"], value);
        assert_eq!(mixed.protocols().await, ["DKVS/1"; 3]);
    }
    let ready = get(&mixed.client, mixed.gateway.url("/readyz")).await;
    assert!(matches!(ready.status.as_u16(), 200 | 503), "{ready:?}");
    for other in &mixed.others {
        assert!(other.asked() >= 40);
        assert_eq!(other.asked_by_v2(), 0);
    }
}

/// What a server speaks, a gateway learns from its first requests: those have to succeed as well.
#[tokio::test]
async fn the_first_request_of_a_gateway_may_need_every_server_of_either_version() {
    let mixed = Mixed::start(2, 3, AUTO);
    let ours = mixed.ours.iter().map(|node| node.addr);
    let others = mixed.others.iter().map(|other| other.addr);
    let servers = ServersFile::new(&ours.chain(others).collect::<Vec<_>>());
    for round in 0..20 {
        let n = [3, 5][round % 2];
        let gateway = PROGRAMS.gateway_over(&servers, &[AUTO, &["--workers", "1"]].concat());
        let url = gateway.url(&format!("/kv/key-{round}?n={n}&w={n}"));
        let first = put(&mixed.client, url, "v").await;
        assert_eq!(first.status, 200, "{first:?}");
        assert_eq!(first.count("stored"), n);
        let gateway = PROGRAMS.gateway_over(&servers, &[AUTO, &["--workers", "1"]].concat());
        let url = gateway.url(&format!("/kv/key-{round}?n={n}&r={n}&wait=all"));
        let first = get(&mixed.client, url).await;
        assert_eq!(first.json["value"], "v", "{first:?}");
    }
}

#[tokio::test]
async fn a_server_that_answers_by_dkvs_1_alone_is_reported_with_what_to_do() {
    for (arguments, advice) in [
        (&[][..], "start the gateway with --protocol auto"),
        (AUTO, "agreement"),
    ] {
        let mut mixed = Mixed::start(2, 1, arguments);
        let addr = mixed.others[0].addr;
        mixed.put("", "v").await;
        until("the gateway has noticed", async || {
            mixed.protocols().await[2] == "DKVS/1"
        })
        .await;
        let servers = get(&mixed.client, mixed.gateway.url("/servers")).await;
        let reported = &servers.json["servers"];
        assert!(reported[0]["advice"].is_null() && reported[1]["advice"].is_null());
        assert!(
            reported[2]["advice"].as_str().unwrap().contains(advice),
            "{reported}"
        );
        let ready = get(&mixed.client, mixed.gateway.url("/readyz")).await;
        let reported = ready.json["advice"][0].as_str().unwrap();
        assert!(
            reported.contains("servers: 1") && reported.contains(advice),
            "{reported}"
        );
        assert!(
            !reported.contains(&addr.to_string()),
            "anybody may ask: {reported}"
        );
        let logged = mixed
            .gateway
            .process
            .stderr_line_with("answers by DKVS/1 only");
        assert!(logged.contains(&addr.to_string()), "{logged}");
    }
    let mixed = Mixed::start(1, 2, &[]);
    mixed.put("", "v").await;
    until("the gateway has noticed", async || {
        mixed.protocols().await[1..] == ["DKVS/1", "DKVS/1"]
    })
    .await;
    let ready = get(&mixed.client, mixed.gateway.url("/readyz")).await;
    assert_eq!((ready.status.as_u16(), ready.problem()), (503, "not-ready"));
    let detail = ready.json["detail"].as_str().unwrap();
    assert!(detail.contains("--protocol auto"), "{detail}");
}

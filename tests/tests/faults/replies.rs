//! Servers of DKVS/1 that answer garbage, twice, late, wrongly, or from elsewhere: alone, and as one of
//! three.

use std::time::Duration;

use dkvs_tests::faulty::{FaultyServer, Manner, WRONG_VALUE};
use dkvs_tests::http::{Reply, client, get, put};
use dkvs_tests::process::{Gateway, Node, Programs, ServersFile};
use dkvs_tests::{patiently, programs};
use reqwest::Client;
use tokio::task::JoinSet;

const PROGRAMS: Programs = programs!();

/// A gateway over sound servers and one that is not.
struct Faulty {
    server: FaultyServer,
    gateway: Gateway,
    client: Client,
    _sound: Vec<Node>,
    _servers: ServersFile,
}

impl Faulty {
    fn among(sound: usize, manner: Manner) -> Self {
        let server = FaultyServer::start(manner);
        // One worker each, so that a put that the quorum did not wait for comes before the next get.
        let node = |_| PROGRAMS.node(&["--workers", "1"]);
        let sound: Vec<Node> = (0..sound).map(node).collect();
        let mut addrs: Vec<_> = sound.iter().map(|node| node.addr).collect();
        addrs.push(server.addr);
        let servers = ServersFile::new(&addrs);
        Self {
            gateway: PROGRAMS.gateway_over(&servers, &["--protocol", "v1"]),
            client: client(),
            server,
            _sound: sound,
            _servers: servers,
        }
    }

    fn url(&self, key: &str, query: &str) -> String {
        self.gateway.url(&format!("/kv/{key}?{query}"))
    }

    async fn put(&self, key: &str, query: &str, value: &str) -> Reply {
        put(&self.client, self.url(key, query), value.to_owned()).await
    }

    async fn get(&self, key: &str, query: &str) -> Reply {
        get(&self.client, self.url(key, query)).await
    }

    /// What the faulty server is said to have done.
    fn status<'a>(&self, reply: &'a Reply) -> &'a str {
        let servers = reply.servers();
        let place = servers.iter().position(|addr| *addr == self.server.addr);
        reply.statuses()[place.expect("one of the replicas")]
    }

    /// One request after another and many at once: every one succeeds with its own value.
    async fn nothing_is_mixed_up(&self, query: &str) {
        for round in 0..50 {
            let value = format!("value {round}");
            let put = self.put("one", query, &value).await;
            assert_eq!(put.status, 200, "{put:?}");
            let get = self.get("one", query).await;
            assert_eq!(get.json["value"], value, "{get:?}");
        }
        let mut clients = JoinSet::new();
        for number in 0..32 {
            let client = self.client.clone();
            let url = self.url(&number.to_string(), query);
            clients.spawn(async move {
                for round in 0..20 {
                    let value = format!("value {round} of {number}");
                    let put = put(&client, url.clone(), value.clone()).await;
                    assert_eq!(put.status, 200, "{put:?}");
                    let get = get(&client, url.clone()).await;
                    assert_eq!(get.json["value"], value, "{get:?}");
                }
            });
        }
        patiently(clients.join_all()).await;
    }
}

#[tokio::test]
async fn a_sound_server_passes_for_one() {
    let faulty = Faulty::among(0, Manner::Sound);
    faulty.nothing_is_mixed_up("").await;
    let faulty = Faulty::among(2, Manner::Sound);
    faulty.nothing_is_mixed_up("wait=all").await;
}

#[tokio::test]
async fn garbage_silence_and_replies_from_elsewhere_are_time_outs() {
    for manner in [Manner::Garbage, Manner::Silent, Manner::FromAnotherPort] {
        let faulty = Faulty::among(0, manner);
        for _ in 0..10 {
            let put = faulty.put("k", "timeout_ms=30", "v").await;
            assert_eq!((put.status.as_u16(), put.problem()), (504, "timeout"));
            assert_eq!(put.statuses(), ["timeout"], "{manner:?}");
            assert_eq!(put.json["outcome"], "unknown");
            let get = faulty.get("k", "timeout_ms=30").await;
            assert_eq!((get.status.as_u16(), get.problem()), (504, "timeout"));
            assert_eq!(get.statuses(), ["timeout"], "{manner:?}");
        }
        faulty.server.set(Manner::Sound);
        faulty.nothing_is_mixed_up("").await;
    }
}

#[tokio::test]
async fn one_of_three_with_garbage_silence_or_another_port_is_outvoted() {
    for manner in [Manner::Garbage, Manner::Silent, Manner::FromAnotherPort] {
        let faulty = Faulty::among(2, manner);
        faulty.nothing_is_mixed_up("").await;
        // A request that waits for it waits in vain.
        let get = faulty.get("one", "wait=all&timeout_ms=1000").await;
        assert_eq!(faulty.status(&get), "timeout", "{manner:?}");
        let put = faulty.put("one", "w=3&timeout_ms=100", "v").await;
        assert_eq!((put.status.as_u16(), put.problem()), (504, "timeout"));
        assert_eq!(faulty.status(&put), "timeout", "{manner:?}");
        faulty.server.set(Manner::Sound);
        faulty.nothing_is_mixed_up("wait=all").await;
    }
}

#[tokio::test]
async fn garbage_before_a_reply_does_not_hide_it() {
    Faulty::among(0, Manner::GarbageFirst)
        .nothing_is_mixed_up("")
        .await;
    let faulty = Faulty::among(2, Manner::GarbageFirst);
    faulty.nothing_is_mixed_up("n=3&wait=all").await;
}

#[tokio::test]
async fn the_second_of_two_replies_is_nobodys() {
    Faulty::among(0, Manner::Twice)
        .nothing_is_mixed_up("")
        .await;
    let faulty = Faulty::among(2, Manner::Twice);
    faulty.nothing_is_mixed_up("wait=all").await;
    let get = faulty.get("one", "r=3").await;
    assert_eq!(get.statuses(), ["match"; 3]);
}

#[tokio::test]
async fn one_of_three_that_comes_late_is_outvoted_and_then_counted() {
    let faulty = Faulty::among(2, Manner::Late(Duration::from_millis(40)));
    faulty.nothing_is_mixed_up("").await;
    let put = faulty.put("k", "wait=all", "v").await;
    assert_eq!(faulty.status(&put), "stored");
    let get = faulty.get("k", "wait=all").await;
    assert_eq!(faulty.status(&get), "match");
}

#[tokio::test]
async fn replies_after_the_time_out_change_nothing() {
    let faulty = Faulty::among(0, Manner::Sound);
    assert_eq!(faulty.put("other", "", "its own").await.status, 200);
    // Later than any socket is left to rest, and than the time-out.
    faulty.server.set(Manner::Late(Duration::from_millis(60)));
    for round in 0..30 {
        let value = format!("value {round}");
        let put = faulty.put("k", "timeout_ms=10", &value).await;
        // Where the gateway itself is held up its answer may yet come in time.
        assert!(put.status == 200 || put.problem() == "timeout", "{put:?}");
        let get = faulty.get("other", "timeout_ms=10").await;
        let own = get.json["value"] == "its own";
        assert!(own || get.problem() == "timeout", "{get:?}");
    }
    faulty.nothing_is_mixed_up("").await;
}

#[tokio::test]
async fn one_of_three_that_makes_values_up_is_outvoted() {
    let faulty = Faulty::among(2, Manner::WrongValue);
    faulty.nothing_is_mixed_up("").await;
    let read = faulty.get("one", "wait=all").await;
    assert_eq!(faulty.status(&read), "differs");
    let none = faulty.get("none", "wait=all").await;
    assert_eq!(
        (none.status.as_u16(), none.problem()),
        (404, "key-not-found")
    );
    assert_eq!(faulty.status(&none), "differs");
    let all = faulty.get("one", "r=3").await;
    assert_eq!(all.problem(), "replicas-disagree");
    // Alone, no other replica contradicts it.
    let alone = Faulty::among(0, Manner::WrongValue);
    let read = alone.get("k", "").await;
    assert_eq!(read.json["value"].as_str().unwrap().as_bytes(), WRONG_VALUE);
}

#[tokio::test]
async fn one_of_three_that_refuses_puts_is_not_needed() {
    let faulty = Faulty::among(2, Manner::Refusing);
    faulty.nothing_is_mixed_up("").await;
    let put = faulty.put("k", "wait=all", "v").await;
    assert_eq!(faulty.status(&put), "refused");
    let needed = faulty.put("k", "w=3", "v").await;
    // It gives no reason, and may have stored it all the same.
    let unreachable = (503, "quorum-unreachable");
    assert_eq!((needed.status.as_u16(), needed.problem()), unreachable);
    let alone = Faulty::among(0, Manner::Refusing);
    let put = alone.put("k", "", "v").await;
    assert_eq!((put.status.as_u16(), put.problem()), unreachable);
    assert_eq!(put.json["outcome"], "unknown");
}

#[tokio::test]
async fn one_of_three_that_answers_twice_once_or_never_is_borne() {
    Faulty::among(2, Manner::Moody)
        .nothing_is_mixed_up("")
        .await;
}

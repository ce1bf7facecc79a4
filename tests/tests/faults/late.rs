//! Replies by DKVS/1 that come when nobody waits for them any more are never taken for other replies.

use std::net::SocketAddr;

use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::{Connection, Reply, client, get, put, request};
use dkvs_tests::process::{Gateway, Programs, ServersFile};
use dkvs_tests::{patiently, programs, until, v1};
use reqwest::Client;
use tokio::select;
use tokio::task::JoinSet;

const PROGRAMS: Programs = programs!();

const V1: &[&str] = &["--protocol", "v1"];

fn value_of(key: usize) -> String {
    format!("the value of {key}")
}

/// Gets many keys at once.
async fn gets(
    client: &Client,
    gateway: &Gateway,
    keys: impl Iterator<Item = usize>,
    query: &str,
) -> Vec<(usize, Reply)> {
    let mut replies = JoinSet::new();
    for key in keys {
        let (client, url) = (client.clone(), gateway.url(&format!("/kv/{key}?{query}")));
        replies.spawn(async move { (key, get(&client, url).await) });
    }
    replies.join_all().await
}

fn assert_own_values(replies: &[(usize, Reply)]) {
    for (key, reply) in replies {
        assert_eq!(reply.json["value"], value_of(*key), "{reply:?}");
    }
}

#[tokio::test]
async fn what_a_stopped_server_answers_late_is_nobody_elses_reply() {
    let node = PROGRAMS.node(&[]);
    let servers = ServersFile::new(&[node.addr]);
    let gateway = PROGRAMS.gateway_over(&servers, V1);
    let c_client = v1::Client::new(node.addr);
    for key in 0..200 {
        c_client.store(key.to_string(), value_of(key));
    }
    let client = client();
    for round in 0..8 {
        let asked = (0..40).map(|number| round * 20 + number);
        // Sockets that were used before are there to be used again.
        assert_own_values(&gets(&client, &gateway, asked.clone(), "").await);
        node.process.stop();
        for (_, reply) in gets(&client, &gateway, asked, "timeout_ms=50").await {
            assert_eq!((reply.status.as_u16(), reply.problem()), (504, "timeout"));
        }
        // Asked before the server goes on, so that the late replies come first.
        let others = 160..200;
        let asked_anew = gets(&client, &gateway, others, "");
        let go_on = async {
            tokio::task::yield_now().await;
            node.process.go_on();
        };
        let (replies, ()) = tokio::join!(asked_anew, go_on);
        assert_own_values(&replies);
        assert_own_values(&gets(&client, &gateway, 0..200, "").await);
    }
}

#[tokio::test]
async fn late_confirmations_are_not_those_of_later_writes() {
    let server = FaultyServer::start(Manner::Sound);
    let servers = ServersFile::new(&[server.addr]);
    let gateway = PROGRAMS.gateway_over(&servers, &[V1, &["--workers", "1"]].concat());
    let client = client();
    for _ in 0..10 {
        let asked = server.asked();
        server.set(Manner::Held);
        // One after another, so that the first have rested for a while.
        for _ in 0..5 {
            let late = put(&client, gateway.url("/kv/k?timeout_ms=20"), "late").await;
            assert_eq!((late.status.as_u16(), late.problem()), (504, "timeout"));
        }
        until("they have reached the server", async || {
            server.asked() == asked + 5
        })
        .await;
        // While their confirmations are on their way, a write that is not confirmed.
        server.set(Manner::Silent);
        let url = gateway.url("/kv/k?timeout_ms=300");
        let unawaited = tokio::join!(put(&client, url, "unawaited"), async {
            until("it has been asked", async || server.asked() == asked + 6).await;
            assert_eq!(server.release(), 5);
        });
        assert_eq!(unawaited.0.problem(), "timeout", "{unawaited:?}");
    }
}

#[tokio::test]
async fn late_values_are_not_those_of_later_reads() {
    let server = FaultyServer::start(Manner::Sound);
    let servers = ServersFile::new(&[server.addr]);
    let gateway = PROGRAMS.gateway_over(&servers, &[V1, &["--workers", "1"]].concat());
    let client = client();
    for key in 0..100 {
        let url = gateway.url(&format!("/kv/{key}"));
        assert_eq!(put(&client, url, value_of(key)).await.status, 200);
    }
    for _ in 0..10 {
        let asked = server.asked();
        server.set(Manner::Held);
        for (_, reply) in gets(&client, &gateway, 0..50, "timeout_ms=50").await {
            assert_eq!(reply.problem(), "timeout");
        }
        // The second half is asked when the server gives its answers, those to the first half
        // first.
        let second = gets(&client, &gateway, 50..100, "");
        let release = async {
            until("it has been asked", async || server.asked() == asked + 100).await;
            assert_eq!(server.release(), 100);
        };
        assert_own_values(&tokio::join!(second, release).0);
        server.set(Manner::Sound);
        assert_own_values(&gets(&client, &gateway, 0..100, "").await);
    }
}

/// More time-outs than a gateway has sockets for, and than there are ports: most of the late
/// replies go to ports that were closed long ago. Such a port must not be in use again when they
/// come. That the gateway stops asking a server that owes it so much would be as right.
#[tokio::test]
async fn a_port_that_was_closed_while_a_reply_was_owed_is_not_used_again() {
    let server = FaultyServer::start(Manner::Sound);
    let servers = ServersFile::new(&[server.addr]);
    let gateway = PROGRAMS.gateway_over(&servers, &[V1, &["--workers", "1"]].concat());
    let client = client();
    for key in 0..500 {
        let url = gateway.url(&format!("/kv/{key}"));
        assert_eq!(put(&client, url, value_of(key)).await.status, 200);
    }
    server.set(Manner::Held);
    let mut unawaited = JoinSet::new();
    for number in 0..100 {
        unawaited.spawn(unanswered_gets(gateway.addr, number, 300));
    }
    patiently(unawaited.join_all()).await;

    let asked = server.asked();
    let mut others = std::pin::pin!(gets(&client, &gateway, 100..500, "timeout_ms=5000"));
    let all_asked = until("the server is asked", async || {
        server.asked() == asked + 400
    });
    let refused = select! {
        refused = &mut others => Some(refused),
        () = all_asked => None,
    };
    server.set(Manner::Sound);
    server.release();
    let replies = match refused {
        Some(refused) => refused,
        None => others.await,
    };
    for (key, reply) in replies {
        match reply.status.as_u16() {
            200 => assert_eq!(reply.json["value"], value_of(key), "{reply:?}"),
            503 | 504 => assert!(reply.problem() != "", "{reply:?}"),
            _ => panic!("not a status of such a get: {reply:?}"),
        }
    }
    until("the server is asked again", async || {
        let replies = gets(&client, &gateway, 0..200, "timeout_ms=5000").await;
        replies.iter().all(|(key, reply)| {
            reply.status != 200 || reply.json["value"] == value_of(*key) || panic!("{reply:?}")
        }) && replies.iter().all(|(_, reply)| reply.status == 200)
    })
    .await;
}

/// So many gets of one key on one connection, none of which is answered in time.
async fn unanswered_gets(gateway: SocketAddr, key: usize, count: usize) {
    let mut connection = Connection::open(gateway).await;
    let get = request("GET", format!("/kv/{key}?timeout_ms=1"), None);
    connection.send(get.repeat(count)).await;
    for _ in 0..count {
        let status = connection.reply().await.status.as_u16();
        assert!(matches!(status, 503 | 504), "{status}");
    }
}

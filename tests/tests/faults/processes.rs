//! Servers that are killed, stopped, continued and restarted under a running load.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;

use dkvs_tests::http::{Reply, client, get, put};
use dkvs_tests::process::{Cluster, Programs};
use dkvs_tests::random::Random;
use dkvs_tests::{patiently, programs, until};
use reqwest::Client;
use serde_json::Value as Json;

const PROGRAMS: Programs = programs!();
const CLIENTS: usize = 16;
const KEYS: usize = 8;

/// Clients that put and get until they are stopped. Every reply is judged as it comes.
struct Load {
    /// Without the key.
    url: String,
    /// How many requests each client has had answered.
    answered: [Cell<usize>; CLIENTS],
    /// How many of them were refused or failed.
    failed: Cell<usize>,
    written: RefCell<BTreeSet<String>>,
    ended: Cell<bool>,
}

impl Load {
    /// Runs a course of events under load.
    async fn run(cluster: Cluster, events: impl AsyncFnOnce(&Self, &mut Cluster)) {
        let mut cluster = cluster;
        let load = Self {
            url: cluster.gateway.url("/kv/"),
            answered: std::array::from_fn(|_| Cell::new(0)),
            failed: Cell::new(0),
            written: RefCell::default(),
            ended: Cell::new(false),
        };
        let clients = all((0..CLIENTS).map(|number| load.client(number)).collect());
        let events = async {
            load.progress().await;
            events(&load, &mut cluster).await;
            load.progress().await;
            load.ended.set(true);
        };
        patiently(async { tokio::join!(clients, events) }).await;
        load.everything_succeeds(&client()).await;
        assert!(cluster.gateway.process.is_running());
    }

    /// Waits until every client has had a few more replies.
    async fn progress(&self) {
        let goal: Vec<usize> = self.answered.iter().map(|count| count.get() + 5).collect();
        until("every client gets replies", async || {
            let answered = self.answered.iter().map(Cell::get);
            answered.zip(&goal).all(|(count, goal)| count >= *goal)
        })
        .await;
    }

    /// Waits until a request has failed that would not, were all well.
    async fn failure(&self) {
        let before = self.failed.get();
        until("a request fails", async || self.failed.get() > before).await;
    }

    async fn client(&self, number: usize) {
        let client = client();
        let mut random = Random::new(number as u64);
        let mut sequence = 0;
        while !self.ended.get() {
            let key = format!("key-{}", random.below(KEYS));
            let wait = ["quorum", "all"][random.below(2)];
            let url = format!("{}{key}?wait={wait}&timeout_ms=100", self.url);
            if random.below(2) == 0 {
                sequence += 1;
                let value = format!("{key} by {number} as {sequence}");
                self.written.borrow_mut().insert(value.clone());
                self.judge_put(&put(&client, url, value).await);
            } else {
                self.judge_get(&key, &get(&client, url).await);
            }
            self.answered[number].set(self.answered[number].get() + 1);
        }
    }

    fn judge_put(&self, reply: &Reply) {
        let outcome = reply.json["outcome"].as_str().unwrap();
        match reply.status.as_u16() {
            200 => {
                assert_eq!(outcome, "committed");
                assert!(confirmed(reply) >= 2, "{reply:?}");
                return;
            }
            503 => assert_eq!(reply.problem(), "quorum-unreachable"),
            504 => assert_eq!(reply.problem(), "timeout"),
            _ => panic!("not a status of a put: {reply:?}"),
        }
        assert!(confirmed(reply) < 2, "{reply:?}");
        let replicas = reply.json["replicas"].as_array().unwrap();
        // A reason says that the request may have arrived before.
        let certainly_not =
            |replica: &&Json| replica["status"] == "unreachable" && replica["reason"].is_null();
        // Before it had a tag, nobody was asked to store it.
        let none_stored =
            replicas.iter().filter(certainly_not).count() == 3 || reply.json["tag"].is_null();
        let expected = if none_stored {
            "not_applied"
        } else {
            "unknown"
        };
        assert_eq!(outcome, expected, "{reply:?}");
        self.failed.set(self.failed.get() + 1);
    }

    fn judge_get(&self, key: &str, reply: &Reply) {
        match reply.status.as_u16() {
            200 => {
                let value = reply.json["value"].as_str().unwrap();
                assert!(value.starts_with(&format!("{key} by ")), "{key}: {reply:?}");
                assert!(self.written.borrow().contains(value), "{reply:?}");
                assert!(
                    reply.json["quorum"]["agreeing"].as_u64() >= Some(2),
                    "{reply:?}"
                );
                return;
            }
            404 => assert_eq!(reply.problem(), "key-not-found"),
            503 => assert_eq!(reply.problem(), "quorum-unreachable"),
            504 => assert_eq!(reply.problem(), "timeout"),
            _ => panic!("not a status of a get: {reply:?}"),
        }
        if reply.status.is_server_error() {
            self.failed.set(self.failed.get() + 1);
        }
    }

    /// All servers run again: nothing that was sent from now on may fail.
    async fn everything_succeeds(&self, client: &Client) {
        for key in 0..KEYS {
            let url = format!("{}key-{key}?wait=all&timeout_ms=30000", self.url);
            let value = format!("key-{key} at the end");
            let put = put(client, url.clone(), value.clone()).await;
            assert_eq!(put.status, 200, "{put:?}");
            assert_eq!(put.statuses(), ["stored"; 3]);
            let get = get(client, url).await;
            assert_eq!(get.json["value"], value, "{get:?}");
            assert_eq!(get.statuses(), ["match"; 3]);
        }
    }
}

/// How many hold what was written, or something that came after it.
fn confirmed(reply: &Reply) -> usize {
    reply.count("stored") + reply.count("superseded")
}

/// Polls futures together, on this task.
async fn all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        match futures.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_is_killed_and_restarted_again_and_again() {
    Load::run(PROGRAMS.cluster(3, &[]), async |load, cluster| {
        for round in 0..6 {
            let node = &mut cluster.nodes[round % 3];
            node.process.kill();
            load.progress().await;
            *node = PROGRAMS.node_at(node.addr, &[]);
            load.progress().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_is_stopped_and_continued_again_and_again() {
    Load::run(PROGRAMS.cluster(3, &[]), async |load, cluster| {
        for round in 0..6 {
            let node = &cluster.nodes[round % 3];
            node.process.stop();
            load.progress().await;
            node.process.go_on();
            load.progress().await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_servers_are_killed_and_restarted() {
    Load::run(PROGRAMS.cluster(3, &[]), async |load, cluster| {
        for node in &mut cluster.nodes {
            node.process.kill();
            load.progress().await;
        }
        load.failure().await;
        for node in &mut cluster.nodes {
            *node = PROGRAMS.node_at(node.addr, &[]);
            load.progress().await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_servers_are_stopped_and_continued() {
    Load::run(PROGRAMS.cluster(3, &[]), async |load, cluster| {
        for node in &cluster.nodes {
            node.process.stop();
            load.progress().await;
        }
        load.failure().await;
        for node in &cluster.nodes {
            node.process.go_on();
            load.progress().await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_server_is_stopped_another_killed_and_the_first_dies_stopped() {
    Load::run(
        PROGRAMS.cluster(3, &["--workers", "1"]),
        async |load, cluster| {
            cluster.nodes[0].process.stop();
            load.progress().await;
            cluster.nodes[1].process.kill();
            load.failure().await;
            cluster.nodes[0].process.kill();
            load.progress().await;
            for node in &mut cluster.nodes[..2] {
                *node = PROGRAMS.node_at(node.addr, &[]);
            }
        },
    )
    .await;
}

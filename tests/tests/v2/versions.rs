//! A server that comes back in the other version is found out while requests go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::{client, get, put};
use dkvs_tests::process::{Gateway, ServersFile};
use dkvs_tests::{patiently, until};
use tokio::task::JoinSet;

use crate::PROGRAMS;

const CLIENTS: usize = 8;

async fn protocols(gateway: &Gateway) -> Vec<serde_json::Value> {
    let told = get(&client(), gateway.url("/servers")).await;
    let servers = told.json["servers"].as_array().unwrap().iter();
    servers.map(|server| server["protocol"].clone()).collect()
}

#[tokio::test]
async fn no_request_fails_while_servers_come_back_in_the_other_version() {
    let node = |addr: Option<std::net::SocketAddr>| {
        let one_worker = ["--workers", "1"];
        match addr {
            Some(addr) => PROGRAMS.node_at(addr, &one_worker),
            None => PROGRAMS.node(&one_worker),
        }
    };
    let nodes = [(); 3].map(|()| node(None));
    let addrs = nodes.each_ref().map(|node| node.addr);
    let mut ours = nodes.map(Some);
    let mut others: [Option<FaultyServer>; 3] = [const { None }; 3];
    let file = ServersFile::new(&addrs);
    let gateway = PROGRAMS.gateway_over(&file, &["--workers", "1"]);

    let ended = Arc::new(AtomicBool::new(false));
    let answered: Arc<[AtomicUsize; CLIENTS]> =
        Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for number in 0..CLIENTS {
        let url = gateway.url(&format!("/kv/key-{number}"));
        let (ended, answered) = (Arc::clone(&ended), Arc::clone(&answered));
        load.spawn(async move {
            let client = client();
            let mut round = 0;
            while !ended.load(Ordering::Relaxed) {
                round += 1;
                let value = format!("value {round} of {number}");
                let put = put(&client, url.clone(), value.clone()).await;
                assert_eq!(put.status, 200, "{put:?}");
                let get = get(&client, url.clone()).await;
                assert_eq!(get.json["value"], value, "{get:?}");
                answered[number].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut progress = async || {
        let count = |answered: &AtomicUsize| answered.load(Ordering::Relaxed);
        let goal: Vec<usize> = answered
            .iter()
            .map(|answered| count(answered) + 5)
            .collect();
        until("every client gets replies", async || {
            if let Some(failed) = load.try_join_next() {
                failed.expect("every request succeeds");
            }
            let answered = answered.iter().map(count);
            answered.zip(&goal).all(|(count, goal)| count >= *goal)
        })
        .await;
    };

    progress().await;
    let mut expected = ["DKVS/2"; 3];
    for round in 0..6 {
        let place = round % 3;
        // It has to be gone before the other takes its port.
        let was_ours = ours[place].take().is_some();
        others[place] = None;
        progress().await;
        if was_ours {
            others[place] = Some(FaultyServer::start_at(addrs[place], Manner::Sound));
        } else {
            ours[place] = Some(node(Some(addrs[place])));
        }
        expected[place] = if was_ours { "DKVS/1" } else { "DKVS/2" };
        until("the gateway has noticed", async || {
            protocols(&gateway).await == expected
        })
        .await;
        // What was confirmed while it was away is on the other two; each key is written again
        // before the next of them goes.
        progress().await;
    }
    ended.store(true, Ordering::Relaxed);
    patiently(load.join_all()).await;
}

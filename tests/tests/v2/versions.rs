//! A server that comes back in the other version is found out while requests go on.

use dkvs_tests::faulty::{FaultyServer, Manner};
use dkvs_tests::http::{client, get};
use dkvs_tests::load::Load;
use dkvs_tests::process::{Gateway, ServersFile};
use dkvs_tests::until;

use crate::PROGRAMS;

const CLIENTS: usize = 8;

async fn protocols(gateway: &Gateway) -> Vec<serde_json::Value> {
    let answer = get(&client(), gateway.url("/servers")).await;
    let servers = answer.json["servers"].as_array().unwrap().iter();
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
    let gateway = PROGRAMS.gateway_over(&file, &["--workers", "1", "--protocol", "auto"]);

    let urls = (0..CLIENTS).map(|number| gateway.url(&format!("/kv/key-{number}")));
    let mut load = Load::on(urls);
    load.progress().await;
    let mut expected = ["DKVS/2"; 3];
    for round in 0..6 {
        let place = round % 3;
        // It has to be gone before the other takes its port.
        let was_ours = ours[place].take().is_some();
        others[place] = None;
        load.progress().await;
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
        load.progress().await;
    }
    load.end().await;
}

//! Under load, requests to one server share datagrams.

use dkvs_tests::http::{Connection, client, get, request};
use dkvs_tests::patiently;
use tokio::task::JoinSet;

use crate::PROGRAMS;

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 30;

#[tokio::test]
async fn requests_of_many_connections_share_datagrams() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    let mut load = JoinSet::new();
    for number in 0..CONNECTIONS {
        load.spawn(async move {
            let mut connection = Connection::open(addr).await;
            let value = format!("value of {number}");
            let target = format!("/kv/{number}");
            for _ in 0..ROUNDS {
                let put = request("PUT", &target, Some(value.as_bytes()));
                connection.send(put).await;
                assert_eq!(connection.reply().await.status, 200);
                connection.send(request("GET", &target, None)).await;
                assert_eq!(connection.reply().await.json["value"], value);
            }
        });
    }
    patiently(load.join_all()).await;
    let answer = get(&client(), cluster.gateway.url("/servers")).await;
    for server in answer.json["servers"].as_array().unwrap() {
        let traffic = &server["traffic"];
        let requests = traffic["requests"].as_f64().unwrap();
        let datagrams = traffic["datagrams_sent"].as_f64().unwrap();
        assert!(requests >= (2 * CONNECTIONS * ROUNDS) as f64, "{traffic}");
        assert!(requests / datagrams > 1.5, "{traffic}");
    }
}

//! What servers and gateways say of themselves.

use std::net::SocketAddr;

use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::http::{exchange, request};
use dkvs_tests::v2::Client;

/// A number that a server without keys reports.
pub fn statistic(server: SocketAddr, wanted: Statistic) -> u64 {
    let request = Request::Command(ReplicaCommand::GetStatistics);
    let reply = Client::new(server).ask(&request);
    let Reply::Response(ReplicaResponse::Statistics(numbers)) = reply else {
        panic!("no statistics: {reply:?}");
    };
    let number = numbers.iter().find(|(name, _)| *name == wanted as u8);
    number.expect("a server has all of its numbers").1
}

/// A number on a page of metrics, by its name and labels.
pub async fn metric(addr: SocketAddr, sample: &str) -> u64 {
    let [number] = metrics(addr, [sample]).await;
    number
}

/// Several numbers of the same moment.
pub async fn metrics<const N: usize>(addr: SocketAddr, samples: [&str; N]) -> [u64; N] {
    let reply = exchange(addr, request("GET", "/metrics", None)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let page = String::from_utf8(reply.body).expect("text");
    samples.map(|sample| {
        let mut lines = page.lines();
        let number = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        let number = number.unwrap_or_else(|| panic!("{sample} in {page}"));
        number.parse().expect("a whole number")
    })
}

//! What servers say of themselves.

use std::net::SocketAddr;

use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
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

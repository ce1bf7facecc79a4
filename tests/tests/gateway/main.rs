//! The gateway in front of real servers, over real sockets.

mod c_clients;
mod clients;
mod connections;
mod console;
mod interop;
mod keys;
mod malformed;
mod problems;
mod quorums;
mod refusals;
mod reply_headers;
mod rfc;
mod values;
mod worked_example;

use dkvs_tests::http::{client, get, put};
use dkvs_tests::programs;

#[tokio::test]
async fn what_was_put_is_got() {
    let cluster = programs!().cluster(3, &[]);
    let client = client();
    let put = put(&client, cluster.gateway.url("/kv/k"), "v").await;
    assert_eq!(put.status, 200, "{put:?}");
    let get = get(&client, cluster.gateway.url("/kv/k?wait=all")).await;
    assert_eq!(get.json["value"], "v");
    assert_eq!(get.statuses(), ["match"; 3]);
}

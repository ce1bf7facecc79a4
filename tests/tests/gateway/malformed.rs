//! Bytes that are no good HTTP, or never end: refused or cut off, and nothing is kept of them.

use dkvs_tests::http::{Connection, client, get};
use dkvs_tests::{patiently, programs};
use tokio::task::JoinSet;

/// Requests whose framing two readers might take for different things, each with another request
/// hidden in what one of them would take for its body.
const AMBIGUOUS: &[&str] = &[
    "content-length: 0\r\ncontent-length: 5\r\n\r\n",
    "content-length: 0, 5\r\n\r\n",
    "content-length: +0\r\n\r\n",
    "content-length: 0x0\r\n\r\n",
    "content-length: 99999999999999999999\r\n\r\n",
    "content-length : 0\r\n\r\n",
    "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "x: y\r\n content-length: 0\r\n\r\n",
    "content-length: 0\rx: y\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n1\r\nvv\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n 0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n-0\r\n\r\n",
];

#[tokio::test]
async fn an_ambiguous_request_hides_no_other() {
    let cluster = programs!().cluster(3, &[]);
    let smuggled = "PUT /kv/smuggled HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nv";
    for ambiguous in AMBIGUOUS {
        let head = "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\n";
        let mut connection = Connection::open(cluster.gateway.addr).await;
        connection
            .send(format!("{head}{ambiguous}{smuggled}"))
            .await;
        connection.finish().await;
        let replies = String::from_utf8(connection.rest().await).unwrap();
        assert!(
            replies.is_empty() || replies.starts_with("HTTP/1.1 4"),
            "{ambiguous:?}: {replies}"
        );
        assert!(
            replies.matches("HTTP/1.1 ").count() <= 1,
            "{ambiguous:?}: {replies}"
        );
    }
    for key in ["k", "smuggled"] {
        let read = get(
            &client(),
            cluster.gateway.url(&format!("/kv/{key}?wait=all")),
        )
        .await;
        assert_eq!(read.statuses(), ["absent"; 3], "{key}");
    }
}

/// What is sent over and over, after a beginning.
const ENDLESS: &[(&str, &str)] = &[
    ("GET /kv/", "k"),
    ("GET /kv/k HTTP/1.1\r\nhost: localhost\r\n", "x: y\r\n"),
    ("GET /kv/k HTTP/1.1\r\nhost: localhost\r\nx: ", "y"),
    (
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
        "40\r\nvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\r\n",
    ),
    (
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1;",
        "x",
    ),
    (
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        "x: y\r\n",
    ),
    (
        "POST /batch HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n",
        "[",
    ),
    (
        "POST /batch HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
        "40\r\n[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\r\n",
    ),
    ("", "\r\n"),
    ("", "\0"),
];

/// How much of it, at most, in bytes: far more than a request may have.
const SENT_MAX: usize = 48 << 20;

/// How much the gateway may grow meanwhile, in bytes. There are more connections than fit in it
/// with what each of them sends.
const GROWTH_MAX: u64 = 192 << 20;

const ROUNDS: usize = 3;

#[tokio::test]
async fn what_never_ends_is_cut_off_and_takes_no_memory() {
    let gateway = programs!().gateway(&["--embedded", "3"]);
    let before = gateway.process.resident_bytes();
    let mut senders = JoinSet::new();
    for (beginning, more) in ENDLESS.repeat(ROUNDS) {
        let addr = gateway.addr;
        senders.spawn(async move {
            let mut connection = Connection::open(addr).await;
            let block = more.repeat((64 << 10) / more.len());
            let (mut sent, mut is_taken) = (0, connection.try_send(beginning).await);
            while is_taken && sent < SENT_MAX {
                is_taken = connection.try_send(&block).await;
                sent += block.len();
            }
            assert!(sent < SENT_MAX, "{beginning:?} {more:?} is read for ever");
        });
    }
    patiently(senders.join_all()).await;
    if let (Some(before), Some(after)) = (before, gateway.process.resident_bytes()) {
        let growth = after.saturating_sub(before);
        assert!(growth < GROWTH_MAX, "the gateway grew by {growth} bytes");
    }
    let read = get(&client(), gateway.url("/kv/k?wait=all")).await;
    assert_eq!(read.statuses(), ["absent"; 3]);
}

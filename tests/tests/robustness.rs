//! A storage server among unknown senders, and a gateway among what pretends to be its servers: whatever
//! is sent to them, a client in good standing is served, no stored value changes, and their memory
//! stays within bounds.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, DatagramKind, MAGIC, kind_of};
use dkvs_tests::flood::Flood;
use dkvs_tests::http::{client, get, put as put_by_http};
use dkvs_tests::process::{Node, Programs, ServersFile};
use dkvs_tests::random::Random;
use dkvs_tests::v2::{self, Client, key, sealed};
use dkvs_tests::{patiently, programs};
use tokio::task::JoinSet;

const PROGRAMS: Programs = programs!();

/// Another number makes other datagrams. A failure prints it.
const SEED: u64 = 2026;

/// How much the server may grow: the few pairs that unknown senders store by DKVS/1, and what the
/// allocator keeps.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// After so many datagrams the server is waited for, so that all of them fit into its socket's
/// buffer and none is lost unseen.
const PACE: usize = 32;

/// The number of the damaged among a server's statistics.
const STATISTIC_DAMAGED: u8 = 7;

fn value(client: &mut Client, name: &str) -> Bytes {
    match client.ask(&Request::Command(ReplicaCommand::Get { key: key(name) })) {
        Reply::Response(ReplicaResponse::Record { block, .. }) => block,
        reply => panic!("seed {SEED}: {name} is gone: {reply:?}"),
    }
}

fn damaged(client: &mut Client) -> u64 {
    let Reply::Response(ReplicaResponse::Statistics(statistics)) =
        client.ask(&Request::Command(ReplicaCommand::GetStatistics))
    else {
        panic!("statistics");
    };
    let damaged = statistics
        .iter()
        .find(|(name, _)| *name == STATISTIC_DAMAGED);
    damaged.expect("the server counts the damaged").1
}

fn put(name: &str, value: &str, time: u64) -> Request {
    v2::put(name, value, Tag { time, op: 1 })
}

/// Does harm to a server of one worker, while a client in good standing writes and reads. Then
/// looks at the state of the server.
fn harmless(harm: impl FnOnce(&Node)) {
    let mut node = PROGRAMS.node(&["--workers", "1"]);
    let mut client = Client::new(node.addr);
    assert_eq!(
        client.ask(&put("kept", "as it was", 1)),
        Reply::Response(ReplicaResponse::Done)
    );
    let before = node.process.resident_bytes();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (addr, is_over) = (node.addr, &is_over);
        let neighbour = scope.spawn(move || {
            let mut client = Client::new(addr);
            let mut time = 0;
            while !is_over.load(Ordering::Relaxed) || time == 0 {
                time += 1;
                let written = time.to_string();
                assert_eq!(
                    client.ask(&put("written", &written, time)),
                    Reply::Response(ReplicaResponse::Done)
                );
                assert_eq!(value(&mut client, "written"), written);
            }
        });
        // Also when it panics: the neighbour must not go on for ever.
        let harmed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| harm(&node)));
        is_over.store(true, Ordering::Relaxed);
        neighbour.join().expect("the neighbour is served");
        harmed.expect("the harm is done");
    });
    assert!(node.process.is_running(), "seed {SEED}");
    assert_eq!(value(&mut client, "kept"), "as it was", "seed {SEED}");
    if let (Some(before), Some(after)) = (before, node.process.resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(
            grown <= GROWTH_BYTES_MAX,
            "seed {SEED}: grown by {grown} bytes"
        );
    }
}

/// Sends datagrams from one socket and waits, again and again, until the server has seen them.
fn send_paced(node: &Node, datagrams: impl Iterator<Item = Vec<u8>>) {
    let unknown = Client::new(node.addr);
    let mut pace = Client::new(node.addr);
    for (number, datagram) in datagrams.enumerate() {
        unknown.send(&datagram);
        if number % PACE == PACE - 1 {
            value(&mut pace, "kept");
        }
    }
    value(&mut pace, "kept");
}

/// The datagram with each of its bits changed in turn.
fn flips(datagram: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..datagram.len() * 8).map(|bit| {
        let mut flipped = datagram.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

#[test]
fn random_datagrams_of_every_length_do_no_harm() {
    harmless(|node| {
        let mut random = Random::new(SEED);
        let datagrams = (0..=1_500).flat_map(|length| {
            let plain = random.bytes(length);
            let mut marked = [&MAGIC[..], &random.bytes(length)].concat();
            marked.truncate(length);
            // Past the version and the flags, so that more than the envelope's head is read.
            let mut likely = marked.clone();
            for (byte, good) in likely.iter_mut().skip(MAGIC.len()).zip([2, 0, 0, 0]) {
                *byte = good;
            }
            [plain, marked, likely]
        });
        send_paced(node, datagrams);
    });
}

#[test]
fn flipped_bits_of_dkvs2_are_damage_and_change_nothing() {
    harmless(|node| {
        let requests = [
            put("kept", "as it should not be", 9),
            Request::Command(ReplicaCommand::Get { key: key("kept") }),
        ];
        let flipped: Vec<Vec<u8>> = requests
            .iter()
            .flat_map(|request| flips(&sealed(RequestId(1), request)).collect::<Vec<_>>())
            .collect();
        // Of some the magic is flipped, which does not make them DKVS/1.
        let is_v1 = |datagram: &Vec<u8>| kind_of(datagram) == DatagramKind::V1;
        assert!(flipped.len() > 900 && !flipped.iter().any(is_v1));
        let sent = flipped.len() as u64;
        send_paced(node, flipped.into_iter());
        assert_eq!(damaged(&mut Client::new(node.addr)), sent);
    });
}

#[test]
fn flipped_bits_of_dkvs1_do_no_harm() {
    harmless(|node| {
        // A flipped key is another key, and a flipped value is stored: DKVS/1 cannot detect that. So
        // these are pairs of their own.
        let datagrams = [&b"stranger\0some value"[..], b"stranger"];
        send_paced(node, datagrams.into_iter().flat_map(flips));
    });
}

#[test]
fn a_flood_from_many_addresses_keeps_nobody_out() {
    const SOCKETS: usize = 200;
    const ROUNDS: usize = 100;
    harmless(|node| {
        let mut random = Random::new(SEED);
        let unknown: Vec<Client> = (0..SOCKETS).map(|_| Client::new(node.addr)).collect();
        for _ in 0..ROUNDS {
            for client in &unknown {
                let length = random.below(DATAGRAM_BYTES_DEFAULT);
                let datagram = match random.below(3) {
                    0 => random.bytes(length.max(1)),
                    1 => [&MAGIC[..], &random.bytes(length)].concat(),
                    _ => sealed(
                        RequestId(random.number()),
                        &Request::Command(ReplicaCommand::Ping),
                    ),
                };
                // Nobody reads the answers: the system drops those that do not fit.
                client.send(&datagram);
            }
        }
    });
}

/// How much a flooded gateway may grow: what the values in hand take, and what the allocator keeps.
const GATEWAY_GROWTH_BYTES_MAX: u64 = 64 << 20;

#[tokio::test]
async fn a_flooded_gateway_answers_every_request_rightly() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 60;
    let nodes: Vec<Node> = (0..3).map(|_| PROGRAMS.node(&[])).collect();
    let floods: Vec<Flood> = nodes
        .iter()
        .zip(SEED..)
        .map(|(node, seed)| Flood::before(node.addr, seed))
        .collect();
    let addrs: Vec<_> = floods.iter().map(|flood| flood.addr).collect();
    let servers = ServersFile::new(&addrs);
    let mut gateway = PROGRAMS.gateway_over(&servers, &[]);
    let mut before = None;
    // The first half is for the memory that it comes to need in any case.
    for half in 0..2 {
        let mut load = JoinSet::new();
        for number in 0..CLIENTS {
            let url = gateway.url(&format!("/kv/{number}"));
            load.spawn(async move {
                let client = client();
                let mut random = Random::new(number as u64);
                for round in 0..ROUNDS {
                    let length = [10, 1_000, 30_000][round % 3];
                    let value = random.bytes(length);
                    let put = put_by_http(&client, url.clone(), value.clone()).await;
                    assert_eq!(put.status, 200, "seed {SEED}: {put:?}");
                    let get = get(&client, url.clone() + "?raw=true").await;
                    assert_eq!(get.status, 200, "seed {SEED}: {get:?}");
                    assert!(get.body == value, "seed {SEED}: {number} {round}");
                }
            });
        }
        patiently(load.join_all()).await;
        if half == 0 {
            before = gateway.process.resident_bytes();
        }
    }
    assert!(gateway.process.is_running(), "seed {SEED}");
    for flood in &floods {
        assert!(flood.sent() > CLIENTS * ROUNDS, "{}", flood.sent());
    }
    if let (Some(before), Some(after)) = (before, gateway.process.resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(
            grown <= GATEWAY_GROWTH_BYTES_MAX,
            "seed {SEED}: grown by {grown} bytes"
        );
    }
}

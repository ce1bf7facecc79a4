//! A storage server among strangers: whatever they send, a client in good standing is served, no
//! stored value changes, and the server's memory stays within bounds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{Builder, Envelope, Proof, Sender, open};
use dkvs_common::wire::v2::message::{RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, MAGIC, is_v2};
use dkvs_tests::process::{Node, Programs};
use dkvs_tests::programs;
use dkvs_tests::random::Random;

const PROGRAMS: Programs = programs!();

/// Another number makes other datagrams. A failure prints it.
const SEED: u64 = 2026;

/// How much the server may grow: the few pairs that strangers store by DKVS/1, and what the
/// allocator keeps.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// After so many datagrams the server is waited for, so that all of them fit into its socket's
/// buffer and none is lost unseen.
const PACE: usize = 32;

/// A client's own retries.
const TRIES: usize = 40;
const PATIENCE: Duration = Duration::from_millis(500);

/// The number of the damaged among a server's statistics.
const STATISTIC_DAMAGED: u8 = 7;

struct Client {
    socket: UdpSocket,
    next_id: u64,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, next_id: 0 }
    }

    /// The reply to a request, which is sent again while none comes.
    fn ask(&mut self, request: &Request) -> Reply {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let datagram = sealed(id, request);
        let reply = (0..TRIES).find_map(|_| {
            self.socket.send(&datagram).unwrap();
            self.receive(id).ok()
        });
        reply.unwrap_or_else(|| panic!("seed {SEED}: no answer to {request:?}"))
    }

    fn receive(&self, id: RequestId) -> io::Result<Reply> {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = self.socket.recv(&mut buffer)?;
            let datagram = Bytes::copy_from_slice(&buffer[..length]);
            let (_, mut messages) = open(&datagram, Proof::Checksum).unwrap();
            while let Some(message) = next_reply(&mut messages).unwrap() {
                // The answer to a repetition may come after that to the first.
                if message.id == id {
                    return Ok(message.reply);
                }
            }
        }
    }

    fn value(&mut self, name: &str) -> Bytes {
        match self.ask(&Request::Get { key: key(name) }) {
            Reply::Record { block, .. } => block,
            reply => panic!("seed {SEED}: {name} is gone: {reply:?}"),
        }
    }

    fn damaged(&mut self) -> u64 {
        let Reply::Stats(statistics) = self.ask(&Request::Stats) else {
            panic!("statistics");
        };
        let damaged = statistics
            .iter()
            .find(|(name, _)| *name == STATISTIC_DAMAGED);
        damaged.expect("the server counts the damaged").1
    }
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned()).unwrap()
}

fn put(name: &str, value: &str, time: u64) -> Request {
    let key = key(name);
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(value.to_owned()).unwrap(),
    };
    let record = Record::new(&key, Tag { time, op: 1 }, content);
    Request::Put { key, record }
}

fn sealed(id: RequestId, request: &Request) -> Vec<u8> {
    let envelope = Envelope {
        sender: Sender::Client,
        epoch: 0,
        authentication: None,
    };
    let message = RequestMessage {
        id,
        wait_ms: 1_000,
        request: request.clone(),
    };
    let mut builder = Builder::new(envelope, DATAGRAM_BYTES_DEFAULT);
    assert!(builder.push(|datagram| message.encode(datagram)));
    builder.finish()
}

/// Does harm to a server of one worker, while a client in good standing writes and reads. Then
/// looks at what became of the server.
fn harmless(harm: impl FnOnce(&Node)) {
    let mut node = PROGRAMS.node(&["--workers", "1"]);
    let mut client = Client::new(node.addr);
    assert_eq!(client.ask(&put("kept", "as it was", 1)), Reply::Done);
    let before = node.process.resident_bytes();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (addr, is_over) = (node.addr, &is_over);
        let neighbour = scope.spawn(move || {
            let mut client = Client::new(addr);
            let mut time = 0;
            while !is_over.load(Ordering::Relaxed) || time == 0 {
                time += 1;
                let value = time.to_string();
                assert_eq!(client.ask(&put("written", &value, time)), Reply::Done);
                assert_eq!(client.value("written"), value);
            }
        });
        // Also when it panics: the neighbour must not go on for ever.
        let harmed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| harm(&node)));
        is_over.store(true, Ordering::Relaxed);
        neighbour.join().expect("the neighbour is served");
        harmed.expect("the harm is done");
    });
    assert!(node.process.is_running(), "seed {SEED}");
    assert_eq!(client.value("kept"), "as it was", "seed {SEED}");
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
    let stranger = Client::new(node.addr);
    let mut pace = Client::new(node.addr);
    for (number, datagram) in datagrams.enumerate() {
        stranger.socket.send(&datagram).unwrap();
        if number % PACE == PACE - 1 {
            pace.value("kept");
        }
    }
    pace.value("kept");
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
            Request::Get { key: key("kept") },
        ];
        let flipped: Vec<Vec<u8>> = requests
            .iter()
            .flat_map(|request| flips(&sealed(RequestId(1), request)).collect::<Vec<_>>())
            .collect();
        // Of the others the magic is flipped, which makes them DKVS/1.
        let damaged = flipped.iter().filter(|datagram| is_v2(datagram)).count();
        assert!(damaged > 800, "{damaged}");
        send_paced(node, flipped.into_iter());
        assert_eq!(Client::new(node.addr).damaged(), damaged as u64);
    });
}

#[test]
fn flipped_bits_of_dkvs1_do_no_harm() {
    harmless(|node| {
        // A flipped key is another key, and a flipped value is stored: DKVS/1 cannot tell. So
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
        let strangers: Vec<Client> = (0..SOCKETS).map(|_| Client::new(node.addr)).collect();
        for _ in 0..ROUNDS {
            for stranger in &strangers {
                let length = random.below(DATAGRAM_BYTES_DEFAULT);
                let datagram = match random.below(3) {
                    0 => random.bytes(length.max(1)),
                    1 => [&MAGIC[..], &random.bytes(length)].concat(),
                    _ => sealed(RequestId(random.number()), &Request::Ping),
                };
                // Nobody reads the answers: the system drops those that do not fit.
                stranger.socket.send(&datagram).unwrap();
            }
        }
    });
}

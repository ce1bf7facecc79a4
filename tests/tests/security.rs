//! Storage servers with keys, spoken to over sockets by those who have one and those who have not.

use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::cluster::Cluster;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::ring::Ring;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{
    self, Authentication, Builder, ClusterKey, Envelope, Proof, Sender,
};
use dkvs_common::wire::v2::message::{RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::keys::{key_bytes, key_file, key_lines, set_mode};
use dkvs_tests::process::{Programs, ServersFile, own_loopback};
use dkvs_tests::stamps::Stamping;
use dkvs_tests::{PATIENCE, programs, v1};
use rustix::process::Signal;

const PROGRAMS: Programs = programs!();

const GREET: Request = Request::Greet {
    datagram_bytes_max: 1_200,
};

/// A client of one server.
struct Client {
    socket: UdpSocket,
    addr: SocketAddrV4,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let SocketAddr::V4(addr) = socket.local_addr().unwrap() else {
            panic!("an IPv4 socket");
        };
        Self { socket, addr }
    }

    /// A datagram by a key whose bytes are its id, or by none.
    fn datagram(&self, asked: Option<Authentication>, requests: &[Request]) -> Vec<u8> {
        self.datagram_for(u16::MAX, asked, requests)
    }

    /// The same of one who waits for so many milliseconds.
    fn datagram_for(
        &self,
        wait_ms: u16,
        asked: Option<Authentication>,
        requests: &[Request],
    ) -> Vec<u8> {
        let envelope = Envelope {
            sender: Sender::Client,
            epoch: dkvs_common::epoch::StatedEpoch::None,
            authentication: asked,
        };
        let mut builder = Builder::new(envelope, 60_000);
        for request in requests {
            let message = RequestMessage {
                id: RequestId(1),
                wait_ms,
                request: request.clone(),
            };
            assert!(builder.push(|datagram| message.encode(datagram)));
        }
        match asked {
            None => builder.finish(),
            Some(Authentication { key_id, .. }) => {
                builder.finish_with(&ClusterKey::new(&key_bytes(key_id)), self.addr)
            }
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
    }

    fn receive(&self) -> Bytes {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("an answer");
        buffer.truncate(length);
        buffer.into()
    }

    /// The only reply in the next datagram.
    fn reply(&self, asked: Option<Authentication>) -> Reply {
        let datagram = self.receive();
        let key = asked.map(|asked| ClusterKey::new(&key_bytes(asked.key_id)));
        let proof = match &key {
            None => Proof::Checksum,
            Some(key) => Proof::Key {
                key,
                client: self.addr,
            },
        };
        let (envelope, mut messages) = envelope::open(&datagram, proof).unwrap();
        assert_eq!(envelope.authentication, asked);
        let reply = next_reply(&mut messages).unwrap().expect("a reply").reply;
        assert_eq!(next_reply(&mut messages), Ok(None));
        reply
    }

    fn ask(&self, asked: Option<Authentication>, request: Request) -> Reply {
        self.send(&self.datagram(asked, &[request]));
        self.reply(asked)
    }

    /// The session that a greeting begins.
    fn greet(&self, key_id: u8) -> u64 {
        match self.ask(under(key_id, 0, 0), GREET) {
            Reply::Greeting(greeting) => greeting.session,
            reply => panic!("no greeting: {reply:?}"),
        }
    }

    fn has_more(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let received = self.socket.recv(&mut [0; 65_536]);
        self.socket.set_nonblocking(false).unwrap();
        received.is_ok()
    }
}

fn under(key_id: u8, session: u64, sequence: u64) -> Option<Authentication> {
    Some(Authentication {
        key_id,
        session,
        sequence,
    })
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn put(value_bytes: usize) -> Request {
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(vec![b'v'; value_bytes]).unwrap(),
    };
    Request::Command(ReplicaCommand::Put {
        key: key(),
        record: Record::new(&key(), Tag { time: 1, op: 1 }, content),
    })
}

#[test]
fn unknown_senders_get_no_answer_and_change_nothing() {
    let keys = key_file(&[1]);
    let node = PROGRAMS.node(&["--key-file", keys.path(), "k", "v"]);
    let client = Client::new(node.addr);
    let session = client.greet(1);
    let authentic = client.datagram(under(1, session, 1), &[put(1)]);
    let mut strange: Vec<Vec<u8>> = vec![
        // DKVS/1: a dump, gets, puts, and what is neither.
        b"".into(),
        b"k".into(),
        b"absent".into(),
        b"k\0w".into(),
        b"\0".into(),
        b"\0DK".into(),
        vec![b'k'; 65_507],
        // DKVS/2 without a key, with another, or under no session.
        client.datagram(None, &[GREET]),
        client.datagram(
            None,
            &[put(1), Request::Command(ReplicaCommand::GetStatistics)],
        ),
        client.datagram(under(2, 0, 0), &[GREET]),
        client.datagram(under(2, session, 1), &[put(1)]),
        client.datagram(under(1, 0, 0), &[put(1)]),
        client.datagram(under(1, session + 1, 1), &[put(1)]),
        // What another sent.
        Client::new(node.addr).datagram(under(1, session, 1), &[put(1)]),
    ];
    strange.extend((0..authentic.len()).map(|length| authentic[..length].to_vec()));
    strange.extend((0..authentic.len() * 8).step_by(7).map(|bit| {
        let mut flipped = authentic.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    }));
    for (number, datagram) in (2..).zip(&strange) {
        client.send(datagram);
        // An answer to it would be there before this one's.
        let ping = client.ask(
            under(1, session, number),
            Request::Command(ReplicaCommand::Ping),
        );
        assert_eq!(ping, Reply::Response(ReplicaResponse::Done));
    }
    assert!(!client.has_more());
    let tag = Tag { time: 0, op: 1 };
    let last = under(1, session, strange.len() as u64 + 2);
    assert_eq!(
        client.ask(
            last,
            Request::Command(ReplicaCommand::GetTag { key: key() })
        ),
        Reply::Response(ReplicaResponse::Tag { tag }),
        "as it was from the start"
    );
}

#[test]
fn a_datagram_that_was_captured_is_worth_nothing() {
    let keys = key_file(&[1]);
    let node = PROGRAMS.node(&["--key-file", keys.path()]);
    let client = Client::new(node.addr);
    let session = client.greet(1);
    let asked = under(1, session, 1);
    let captured = client.datagram(asked, &[put(1)]);
    client.send(&captured);
    assert_eq!(client.reply(asked), Reply::Response(ReplicaResponse::Done));
    client.send(&captured);
    let thief = Client::new(node.addr);
    thief.send(&captured);
    assert_ne!(thief.greet(1), session, "the first that it hears");
    let ping = client.ask(under(1, session, 2), Request::Command(ReplicaCommand::Ping));
    assert_eq!(
        ping,
        Reply::Response(ReplicaResponse::Done),
        "the first that it hears"
    );
    assert!(!client.has_more() && !thief.has_more());
}

#[test]
fn keys_are_replaced_without_a_stop() {
    let keys = key_file(&[1]);
    let mut node = PROGRAMS.node(&["--key-file", keys.path()]);
    let client = Client::new(node.addr);
    let session = client.greet(1);
    let mut sequence = 0;
    let mut ping = |key_id| {
        sequence += 1;
        assert_eq!(
            client.ask(
                under(key_id, session, sequence),
                Request::Command(ReplicaCommand::Ping)
            ),
            Reply::Response(ReplicaResponse::Done)
        );
    };
    for (ids, works, fails) in [(&[1, 2][..], 2, 3), (&[2, 1], 1, 3), (&[2], 2, 1)] {
        fs::write(&keys, key_lines(ids)).unwrap();
        node.process.signal(Signal::HUP);
        let said = node.process.stderr_line_with("the key file was read again");
        assert!(said.contains(&format!("{ids:?}")), "{said}");
        client.send(&client.datagram(under(fails, 0, 0), &[GREET]));
        ping(works);
    }
    fs::write(&keys, "3 abcdef\n").unwrap();
    node.process.signal(Signal::HUP);
    let said = node.process.stderr_line_with("the keys stay as they were");
    assert!(said.contains(&format!("{}:1: ", keys.path())), "{said}");
    assert!(!said.contains("abcdef"), "{said}");
    ping(2);
    fs::write(&keys, key_lines(&[3])).unwrap();
    set_mode(&keys, 0o640);
    node.process.signal(Signal::HUP);
    let said = node.process.stderr_line_with("the keys stay as they were");
    assert!(said.contains("chmod 600"), "{said}");
    ping(2);
}

#[test]
fn dkvs_1_is_answered_beside_keys_if_that_is_said() {
    let keys = key_file(&[1]);
    let node = PROGRAMS.node(&["--key-file", keys.path(), "--v1", "on"]);
    v1::Client::new(node.addr).store("k", "v");
    let client = Client::new(node.addr);
    client.send(&client.datagram(None, &[GREET]));
    let session = client.greet(1);
    let asked = under(1, session, 1);
    let reported = client.ask(asked, Request::Command(ReplicaCommand::Get { key: key() }));
    assert!(
        matches!(reported, Reply::Response(ReplicaResponse::Record { block, .. }) if block == "v")
    );
}

/// Runs the server where it should not start; what it said.
fn refusal(ip: Ipv4Addr, arguments: &[&str]) -> String {
    let mut command = PROGRAMS.node_command((ip, 0).into());
    command.args(arguments);
    let (status, _, err) = PROGRAMS.run_to_end(command);
    assert!(!status.success(), "{err}");
    err
}

#[test]
fn a_key_file_that_others_may_read_or_that_is_no_such_is_refused() {
    let keys = key_file(&[1]);
    for mode in [0o640, 0o604, 0o620, 0o601] {
        set_mode(&keys, mode);
        let said = refusal(Ipv4Addr::LOCALHOST, &["--key-file", keys.path()]);
        let expected = format!("chmod 600 {}", keys.path());
        assert!(said.contains(&expected), "{said}");
        assert!(!said.contains("0101"), "{said}");
    }
    let empty = key_file(&[]);
    let said = refusal(Ipv4Addr::LOCALHOST, &["--key-file", empty.path()]);
    assert!(said.contains("no key is listed"), "{said}");
    let said = refusal(Ipv4Addr::LOCALHOST, &["--key-file", "/no/such/file"]);
    assert!(said.contains("cannot read /no/such/file"), "{said}");
}

#[test]
fn beyond_loopback_keys_are_needed_and_nothing_beside_them() {
    let said = refusal(Ipv4Addr::UNSPECIFIED, &[]);
    assert!(
        said.contains("--key-file") && said.contains("--insecure"),
        "{said}"
    );
    let keys = key_file(&[1]);
    let arguments = ["--key-file", keys.path(), "--v1", "on"];
    let said = refusal(Ipv4Addr::UNSPECIFIED, &arguments);
    assert!(said.contains("by DKVS/1"), "{said}");
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let node = PROGRAMS.node_at(everywhere, &["--key-file", keys.path()]);
    Client::new((Ipv4Addr::LOCALHOST, node.addr.port()).into()).greet(1);
}

#[test]
fn a_server_that_knows_its_ring_refuses_requests_of_another() {
    // The address is ours alone, so the port stays free.
    let ip = own_loopback();
    let addr = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
    let servers = ServersFile::new(&[addr]);
    let node = PROGRAMS.node_at(addr, &["--servers", servers.path()]);
    let cluster = Cluster::parse("", &fs::read(&servers).unwrap()).unwrap();
    let epoch = Ring::new(&cluster).epoch();
    let client = Client::new(node.addr);
    let reported = client.ask(None, Request::Command(ReplicaCommand::Get { key: key() }));
    assert_eq!(
        reported,
        Reply::Response(ReplicaResponse::Refused(Refusal::WrongEpoch { epoch }))
    );
    assert_eq!(
        client.ask(None, Request::Command(ReplicaCommand::Ping)),
        Reply::Response(ReplicaResponse::Done)
    );

    let said = refusal(Ipv4Addr::LOCALHOST, &["--servers", servers.path()]);
    assert!(said.contains("does not list 127.0.0.1:0"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_request_that_lay_in_the_socket_for_too_long_is_dropped() {
    let _stamping = Stamping::begin();
    let node = PROGRAMS.node(&[]);
    let client = Client::new(node.addr);
    node.process.stop();
    client.send(&client.datagram_for(5, None, &[put(1)]));
    let sent = Instant::now();
    while sent.elapsed() < Duration::from_millis(6) {
        std::thread::yield_now();
    }
    node.process.go_on();
    let reported = client.ask(
        None,
        Request::Command(ReplicaCommand::GetTag { key: key() }),
    );
    assert_eq!(
        reported,
        Reply::Response(ReplicaResponse::absent(Tag::ZERO)),
        "the put was dropped"
    );
    assert!(!client.has_more());
}

#[test]
fn every_reply_of_a_burst_arrives_with_offload_and_without() {
    for offload in ["on", "off"] {
        let arguments = ["--udp-offload", offload, "--max-datagram", "1500"];
        let node = PROGRAMS.node(&[&arguments[..], &["--workers", "1"]].concat());
        let (one, two) = (Client::new(node.addr), Client::new(node.addr));
        assert_eq!(
            one.ask(None, put(1_000)),
            Reply::Response(ReplicaResponse::Done)
        );
        // Three replies of a datagram each, the last of which is shorter, and those of another
        // client in between.
        let get = Request::Command(ReplicaCommand::Get { key: key() });
        let gets = [
            get.clone(),
            get.clone(),
            Request::Command(ReplicaCommand::Ping),
            get,
            Request::Command(ReplicaCommand::Ping),
        ];
        for _ in 0..10 {
            one.send(&one.datagram(None, &gets));
            two.send(b"k");
            two.send(&two.datagram(None, &[Request::Command(ReplicaCommand::Ping)]));
        }
        let mut got = Vec::new();
        while got.len() < 50 {
            let datagram = one.receive();
            assert!(datagram.len() <= 1_500);
            let (_, mut messages) = envelope::open(&datagram, Proof::Checksum).unwrap();
            while let Some(message) = next_reply(&mut messages).unwrap() {
                got.push(matches!(
                    message.reply,
                    Reply::Response(ReplicaResponse::Record { .. })
                ));
            }
        }
        let expected = [true, true, false, true, false];
        assert_eq!(got, expected.repeat(10), "in order");
        let value = vec![b'v'; 1_000];
        let from_two: Vec<Bytes> = (0..20).map(|_| two.receive()).collect();
        let values = from_two.iter().filter(|reply| **reply == value);
        assert_eq!(values.count(), 10);
        assert!(!one.has_more() && !two.has_more());
    }
}

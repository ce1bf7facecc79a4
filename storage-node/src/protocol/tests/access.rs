//! DKVS/2 datagrams where the cluster has keys.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{
    self, Authentication, Builder, ClusterKey, Envelope, Proof, Sender,
};
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_common::wire::v2::session::{REPLAY_WINDOW, SessionSecret};

use crate::config::ServiceConfig;
use crate::protocol::{Access, Backlog, Issuer, Received};
use crate::service::Service;
use crate::store::{MemoryStore, RecordStore as _, Store};

const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4_000);
const GREET: Request = Request::Greet {
    datagram_bytes_max: 1_200,
};

/// The key of an id: bytes that count up from it.
fn key_bytes(id: u8) -> [u8; 32] {
    std::array::from_fn(|at| id.wrapping_add(at as u8))
}

fn cluster_key(id: u8) -> ClusterKey {
    ClusterKey::new(&key_bytes(id))
}

/// A key file with the keys of these ids.
fn keys(ids: &[u8]) -> Keys {
    let hex = |byte| format!("{byte:02x}");
    let line = |id: &u8| format!("{id} {}\n", key_bytes(*id).map(hex).concat());
    Keys::parse("keys", ids.iter().map(line).collect::<String>().as_bytes()).unwrap()
}

struct Server {
    service: Service,
    access: Access,
}

impl Server {
    fn new(ids: &[u8]) -> Self {
        let issuer = Arc::new(Issuer::new(SessionSecret::new(&[9; 32])));
        Self {
            service: Service::new(
                Store::Memory(MemoryStore::new(usize::MAX)),
                ServiceConfig::new(1),
            ),
            access: Access::keyed(keys(ids), issuer),
        }
    }

    fn give(&mut self, datagram: &[u8], peer: SocketAddr) -> Vec<Bytes> {
        let received = Received {
            datagram: Bytes::copy_from_slice(datagram),
            peer,
            at: Instant::now(),
            waited: Duration::ZERO,
        };
        let mut replies = Vec::new();
        let send = &mut |reply: Vec<u8>| replies.push(reply.into());
        let backlog = &mut Backlog::new(|| {});
        self.service
            .handle_v2(&received, &mut self.access, backlog, send);
        replies
    }

    /// Its replies to the client, after a check of how they are authenticated.
    fn ask(&mut self, asked: Authentication, requests: Vec<Request>) -> Vec<Reply> {
        let datagram = signed(asked, &requests);
        let mut answered = Vec::new();
        for reply in self.give(&datagram, CLIENT.into()) {
            let key = &cluster_key(asked.key_id);
            let client = CLIENT;
            let (envelope, mut messages) =
                envelope::open(&reply, Proof::Key { key, client }).unwrap();
            assert_eq!(envelope.sender, Sender::Server);
            assert_eq!(envelope.authentication, Some(asked));
            while let Some(ReplyMessage { reply, .. }) = next_reply(&mut messages).unwrap() {
                answered.push(reply);
            }
        }
        answered
    }

    fn greet(&mut self, key_id: u8) -> u64 {
        let replies = self.ask(under(key_id, 0, 0), vec![GREET]);
        let [Reply::Greeting(greeting)] = &replies[..] else {
            panic!("no greeting: {replies:?}");
        };
        assert_ne!(greeting.session, 0);
        greeting.session
    }

    /// Gives it what must have no effect.
    fn give_in_vain(&mut self, datagram: &[u8], peer: SocketAddr) {
        let before = (self.access.sessions(), self.service.store().len());
        assert_eq!(self.give(datagram, peer), [""; 0]);
        assert_eq!((self.access.sessions(), self.service.store().len()), before);
    }
}

fn under(key_id: u8, session: u64, sequence: u64) -> Authentication {
    Authentication {
        key_id,
        session,
        sequence,
    }
}

fn requests_in(mut builder: Builder, requests: &[Request]) -> Builder {
    for (number, request) in (0..).zip(requests) {
        let message = RequestMessage {
            id: RequestId(number),
            wait_ms: 1_000,
            request: request.clone(),
        };
        assert!(builder.push(|datagram| message.encode(datagram)));
    }
    builder
}

fn builder(sender: Sender, authentication: Option<Authentication>) -> Builder {
    let envelope = Envelope {
        sender,
        epoch: dkvs_common::epoch::StatedEpoch::None,
        authentication,
    };
    Builder::new(envelope, 60_000)
}

/// A datagram of the client, by the key that its id names.
fn signed(asked: Authentication, requests: &[Request]) -> Vec<u8> {
    let builder = requests_in(builder(Sender::Client, Some(asked)), requests);
    builder.finish_with(&cluster_key(asked.key_id), CLIENT)
}

fn put(key: &str) -> Request {
    let key = Key::new(key.to_owned()).unwrap();
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new("v").unwrap(),
    };
    let record = Record::new(&key, Tag { time: 1, op: 1 }, content);
    Request::Command(ReplicaCommand::Put { key, record })
}

#[test]
fn a_client_with_a_key_greets_and_asks_under_the_session_that_begins() {
    let mut server = Server::new(&[1]);
    let session = server.greet(1);
    assert_eq!(
        server.access.sessions(),
        0,
        "nothing is stored for a greeting"
    );
    let replies = server.ask(
        under(1, session, 1),
        vec![put("k"), Request::Command(ReplicaCommand::Ping), GREET],
    );
    let [
        Reply::Response(ReplicaResponse::Done),
        Reply::Response(ReplicaResponse::Done),
        Reply::Greeting(greeting),
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert_eq!(greeting.session, session, "a session in use goes on");
    assert_eq!(
        (server.access.sessions(), server.service.store().len()),
        (1, 1)
    );
    assert_ne!(server.greet(1), session);
}

#[test]
fn what_does_not_authenticate_has_no_answer_and_no_effect() {
    let mut server = Server::new(&[1]);
    let session = server.greet(1);
    let asked = under(1, session, 1);
    let datagram = signed(asked, &[put("k")]);
    let bits = datagram.len() * 8;
    for bit in 0..bits {
        let mut flipped = datagram.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        server.give_in_vain(&flipped, CLIENT.into());
    }
    for length in 0..datagram.len() {
        server.give_in_vain(&datagram[..length], CLIENT.into());
    }
    for longer in 1..20 {
        let longer = [&datagram[..], &vec![0; longer]].concat();
        server.give_in_vain(&longer, CLIENT.into());
    }
    let spoofed = [
        SocketAddr::from(([127, 0, 0, 1], 4_001)),
        SocketAddr::from(([127, 0, 0, 2], 4_000)),
        SocketAddr::from(([0; 16], 4_000)),
    ];
    for peer in spoofed {
        server.give_in_vain(&datagram, peer);
    }
    let plain = |requests| requests_in(builder(Sender::Client, None), requests).finish();
    let by = |sender, key: u8, asked| {
        let builder = requests_in(builder(sender, Some(asked)), &[put("k")]);
        builder.finish_with(&cluster_key(key), CLIENT)
    };
    let strange = [
        plain(&[GREET]),
        plain(&[put("k")]),
        by(Sender::Client, 2, asked),
        by(Sender::Client, 1, under(2, session, 1)),
        by(Sender::Client, 2, under(2, session, 1)),
        by(Sender::Server, 1, asked),
    ];
    for datagram in &strange {
        server.give_in_vain(datagram, CLIENT.into());
    }
    let refused = bits + datagram.len() + 19 + spoofed.len() + strange.len();
    let counters = &server.service.counters;
    assert_eq!(counters.unauthenticated.count(), refused as u64);
    assert_eq!(
        server.ask(asked, vec![put("k")]),
        [Reply::Response(ReplicaResponse::Done)]
    );
}

#[test]
fn a_datagram_that_comes_again_has_no_answer_and_no_effect() {
    let mut server = Server::new(&[1]);
    let session = server.greet(1);
    let first = under(1, session, 10);
    assert_eq!(
        server.ask(first, vec![Request::Command(ReplicaCommand::Ping)]),
        [Reply::Response(ReplicaResponse::Done)]
    );
    server.give_in_vain(
        &signed(first, &[Request::Command(ReplicaCommand::Ping)]),
        CLIENT.into(),
    );
    server.give_in_vain(&signed(first, &[put("k")]), CLIENT.into());
    let late = under(1, session, 9);
    assert_eq!(
        server.ask(late, vec![Request::Command(ReplicaCommand::Ping)]),
        [Reply::Response(ReplicaResponse::Done)]
    );
    let far = under(1, session, 9 + REPLAY_WINDOW);
    assert_eq!(
        server.ask(far, vec![Request::Command(ReplicaCommand::Ping)]),
        [Reply::Response(ReplicaResponse::Done)]
    );
    server.give_in_vain(&signed(under(1, session, 8), &[put("k")]), CLIENT.into());
    assert_eq!(server.service.counters.replayed.count(), 3);
    assert_eq!(server.service.counters.unauthenticated.count(), 0);
}

#[test]
fn without_a_session_a_greeting_is_answered_at_its_length_and_nothing_else() {
    let mut server = Server::new(&[1]);
    let greeting = signed(under(1, 0, 0), &[GREET]);
    let replies = server.give(&greeting, CLIENT.into());
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].len(), greeting.len());
    for others in [
        &[put("k")][..],
        &[Request::Command(ReplicaCommand::Ping)],
        &[Request::Command(ReplicaCommand::GetStatistics)],
        &[put("k"), GREET],
        &[],
    ] {
        server.give_in_vain(&signed(under(1, 0, 1), others), CLIENT.into());
    }
    let replies = server.ask(under(1, 0, 2), vec![GREET, GREET, put("k")]);
    assert!(matches!(replies[..], [Reply::Greeting(_)]));
    assert_eq!(server.service.counters.not_greetings.count(), 6);
    assert_eq!(server.service.store().len(), 0);
}

#[test]
fn a_session_that_another_began_has_no_answer() {
    let mut server = Server::new(&[1]);
    let session = server.greet(1);
    server.give_in_vain(
        &signed(under(1, session ^ 1, 1), &[put("k")]),
        CLIENT.into(),
    );
    server.give_in_vain(&signed(under(1, 1 << 32, 1), &[put("k")]), CLIENT.into());
    // With the key and from its true address, but under the session of another address.
    let elsewhere = SocketAddrV4::new(*CLIENT.ip(), 4_001);
    let builder = builder(Sender::Client, Some(under(1, session, 1)));
    let datagram = requests_in(builder, &[put("k")]).finish_with(&cluster_key(1), elsewhere);
    server.give_in_vain(&datagram, elsewhere.into());
    assert_eq!(server.service.counters.sessions_refused.count(), 3);
}

#[test]
fn keys_are_replaced_one_by_one_and_sessions_go_on() {
    let mut server = Server::new(&[1]);
    let session = server.greet(1);
    server.give_in_vain(&signed(under(2, 0, 0), &[GREET]), CLIENT.into());
    server.access.replace_keys(keys(&[1, 2]));
    let ping = || vec![Request::Command(ReplicaCommand::Ping)];
    assert_eq!(
        server.ask(under(1, session, 1), ping()),
        [Reply::Response(ReplicaResponse::Done)]
    );
    assert_eq!(
        server.ask(under(2, session, 2), ping()),
        [Reply::Response(ReplicaResponse::Done)]
    );
    server.greet(1);
    server.greet(2);
    server.access.replace_keys(keys(&[2]));
    server.give_in_vain(&signed(under(1, session, 3), &ping()), CLIENT.into());
    server.give_in_vain(&signed(under(1, 0, 0), &[GREET]), CLIENT.into());
    assert_eq!(
        server.ask(under(2, session, 3), ping()),
        [Reply::Response(ReplicaResponse::Done)]
    );
}

#[test]
fn a_value_is_returned_in_blocks_that_leave_room_for_the_envelope() {
    let mut server = Server::new(&[1]);
    let session = server.greet(1);
    let key = Key::new("k").unwrap();
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(vec![b'v'; 5_000]).unwrap(),
    };
    let record = Record::new(&key, Tag { time: 1, op: 1 }, content);
    let put = server
        .service
        .store()
        .apply(&key, &record, || Box::new(drop));
    put.unwrap().unwrap();
    let replies = server.give(
        &signed(
            under(1, session, 1),
            &[Request::Command(ReplicaCommand::Get { key })],
        ),
        CLIENT.into(),
    );
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].len(), ServiceConfig::new(1).datagram_bytes_max);
}

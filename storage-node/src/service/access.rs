//! Who may ask: what a DKVS/2 datagram has to prove before anything in it is looked at.
//!
//! With keys, what does not authenticate gets no answer. What does, and shows no session, may
//! greet and nothing else: only the answer to that shows that its sender receives at the address
//! it names. So no captured datagram makes the server send to anyone more than they sent.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::wire::v2::envelope::{
    self, AUTHENTICATED_BYTES, Authentication, Builder, ClusterKey, Envelope, PLAIN_BYTES, Proof,
    Sender,
};
use dkvs_common::wire::v2::keys::Keys;

use super::Counters;
use super::sessions::{Issuer, Refusal, Sessions};

/// Who may ask one worker.
#[derive(Debug)]
pub enum Access {
    /// Anyone: a checksum proves that a datagram is whole.
    Open,
    /// Whoever has a key of the cluster.
    Keyed(Box<Keyed>),
}

/// The keys of the cluster, and who uses them.
#[derive(Debug)]
pub struct Keyed {
    keys: Keys,
    sessions: Sessions,
}

/// A datagram that is taken.
pub(super) struct Opened {
    /// The ring of its sender.
    pub(super) epoch: u32,
    pub(super) messages: Bytes,
    pub(super) standing: Standing,
    pub(super) seal: Seal,
}

/// What the sender of a datagram may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Ask for anything.
    Known {
        /// Its session; 0 where there are none.
        session: u64,
    },
    /// Greet.
    Stranger {
        /// The session that a greeting begins.
        session: u64,
    },
}

/// How the replies to a datagram are proved: as it was itself. Cheap to clone.
#[derive(Clone)]
pub(super) enum Seal {
    Checksum,
    Key(Arc<Authenticity>),
}

/// The key of a datagram, its sender, and what both its envelope and those of the replies say.
pub(super) struct Authenticity {
    key: ClusterKey,
    client: SocketAddrV4,
    authentication: Authentication,
}

impl Access {
    /// Of those who have one of `keys`, under sessions of `issuer`.
    pub fn keyed(keys: Keys, issuer: Arc<Issuer>) -> Self {
        let sessions = Sessions::new(issuer);
        Self::Keyed(Box::new(Keyed { keys, sessions }))
    }

    /// Takes these keys and no others from now on. Sessions outlast the key they began with.
    pub fn replace_keys(&mut self, keys: Keys) {
        if let Self::Keyed(keyed) = self {
            keyed.keys = keys;
        }
    }

    /// Takes a datagram or counts why not.
    pub(super) fn open(
        &mut self,
        datagram: &Bytes,
        peer: SocketAddr,
        counters: &Counters,
    ) -> Option<Opened> {
        match self {
            Self::Open => open_plain(datagram, counters),
            Self::Keyed(keyed) => keyed.open(datagram, peer, counters),
        }
    }
}

fn open_plain(datagram: &Bytes, counters: &Counters) -> Option<Opened> {
    match envelope::open(datagram, Proof::Checksum) {
        Ok((envelope, messages)) if envelope.sender == Sender::Client => Some(Opened {
            epoch: envelope.epoch,
            messages,
            standing: Standing::Known { session: 0 },
            seal: Seal::Checksum,
        }),
        _ => {
            counters.damaged.add(1);
            None
        }
    }
}

impl Keyed {
    fn open(&mut self, datagram: &Bytes, peer: SocketAddr, counters: &Counters) -> Option<Opened> {
        let Some((envelope, messages, authenticity)) = self.authenticate(datagram, peer) else {
            counters.unauthenticated.add(1);
            return None;
        };
        let Authentication {
            session, sequence, ..
        } = authenticity.authentication;
        let client = authenticity.client;
        let standing = if session == 0 {
            let session = self.sessions.issue(client);
            Standing::Stranger { session }
        } else {
            match self.sessions.take(client, session, sequence) {
                Ok(()) => Standing::Known { session },
                Err(Refusal::Session) => {
                    counters.sessions_refused.add(1);
                    return None;
                }
                Err(Refusal::Replayed) => {
                    counters.replayed.add(1);
                    return None;
                }
            }
        };
        Some(Opened {
            epoch: envelope.epoch,
            messages,
            standing,
            seal: Seal::Key(Arc::new(authenticity)),
        })
    }

    /// The envelope and the messages, if a client proved them by a key of ours.
    fn authenticate(
        &self,
        datagram: &Bytes,
        peer: SocketAddr,
    ) -> Option<(Envelope, Bytes, Authenticity)> {
        let SocketAddr::V4(client) = peer else {
            return None;
        };
        let authentication = envelope::peek(datagram).ok()?.authentication?;
        let key = self.keys.find(authentication.key_id)?;
        let (envelope, messages) = envelope::open(datagram, Proof::Key { key, client }).ok()?;
        if envelope.sender != Sender::Client {
            return None;
        }
        let authenticity = Authenticity {
            key: key.clone(),
            client,
            authentication,
        };
        Some((envelope, messages, authenticity))
    }
}

impl Seal {
    /// A datagram of replies in the making.
    pub(super) fn builder(&self, epoch: u32, datagram_bytes_max: usize) -> Builder {
        let authentication = match self {
            Self::Checksum => None,
            Self::Key(authenticity) => Some(authenticity.authentication),
        };
        let envelope = Envelope {
            sender: Sender::Server,
            epoch,
            authentication,
        };
        Builder::new(envelope, datagram_bytes_max)
    }

    /// The datagram of a builder of this seal.
    pub(super) fn finish(&self, builder: Builder) -> Vec<u8> {
        match self {
            Self::Checksum => builder.finish(),
            Self::Key(authenticity) => builder.finish_with(&authenticity.key, authenticity.client),
        }
    }

    /// Whether replies under both may share a datagram.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Checksum, Self::Checksum) => true,
            (Self::Key(ours), Self::Key(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }

    /// Bytes around the messages of a datagram.
    pub(super) fn envelope_bytes(&self) -> usize {
        match self {
            Self::Checksum => PLAIN_BYTES,
            Self::Key(_) => AUTHENTICATED_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::late::Mailbox;
    use crate::service::{Config, Received, Service};
    use crate::store::{MemoryStore, RecordStore as _, Store};
    use dkvs_common::kv::{Key, Value};
    use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
    use dkvs_common::record::{Content, ContentType, Record};
    use dkvs_common::tag::Tag;
    use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, RequestMessage, next_reply};
    use dkvs_common::wire::v2::reply::Reply;
    use dkvs_common::wire::v2::request::Request;
    use dkvs_common::wire::v2::session::{REPLAY_WINDOW, SessionSecret};
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

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
                service: Service::new(Store::Memory(MemoryStore::new(usize::MAX)), Config::new(1)),
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
            let mailbox = Mailbox::new(|| {});
            self.service
                .handle_v2(&received, &mut self.access, &mailbox, send);
            replies
        }

        /// What it says to the client, after a look at how that is proved.
        fn ask(&mut self, asked: Authentication, requests: Vec<Request>) -> Vec<Reply> {
            let datagram = sealed(asked, &requests);
            let mut told = Vec::new();
            for reply in self.give(&datagram, CLIENT.into()) {
                let key = &cluster_key(asked.key_id);
                let client = CLIENT;
                let (envelope, mut messages) =
                    envelope::open(&reply, Proof::Key { key, client }).unwrap();
                assert_eq!(envelope.sender, Sender::Server);
                assert_eq!(envelope.authentication, Some(asked));
                while let Some(ReplyMessage { reply, .. }) = next_reply(&mut messages).unwrap() {
                    told.push(reply);
                }
            }
            told
        }

        fn greet(&mut self, key_id: u8) -> u64 {
            let told = self.ask(under(key_id, 0, 0), vec![GREET]);
            let [Reply::Greeting(greeting)] = &told[..] else {
                panic!("no greeting: {told:?}");
            };
            assert_ne!(greeting.session, 0);
            greeting.session
        }

        fn sessions(&self) -> usize {
            match &self.access {
                Access::Open => 0,
                Access::Keyed(keyed) => keyed.sessions.len(),
            }
        }

        /// Gives it what must have no effect.
        fn give_in_vain(&mut self, datagram: &[u8], peer: SocketAddr) {
            let before = (self.sessions(), self.service.store().len());
            assert_eq!(self.give(datagram, peer), [""; 0]);
            assert_eq!((self.sessions(), self.service.store().len()), before);
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
            epoch: 0,
            authentication,
        };
        Builder::new(envelope, 60_000)
    }

    /// A datagram of the client, by the key that its id names.
    fn sealed(asked: Authentication, requests: &[Request]) -> Vec<u8> {
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
    fn who_has_a_key_greets_and_asks_under_the_session_that_begins() {
        let mut server = Server::new(&[1]);
        let session = server.greet(1);
        assert_eq!(server.sessions(), 0, "nothing is stored for a greeting");
        let told = server.ask(
            under(1, session, 1),
            vec![put("k"), Request::Command(ReplicaCommand::Ping), GREET],
        );
        let [
            Reply::Response(ReplicaResponse::Done),
            Reply::Response(ReplicaResponse::Done),
            Reply::Greeting(greeting),
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(greeting.session, session, "a session in use goes on");
        assert_eq!((server.sessions(), server.service.store().len()), (1, 1));
        assert_ne!(server.greet(1), session);
    }

    #[test]
    fn what_does_not_authenticate_has_no_answer_and_no_effect() {
        let mut server = Server::new(&[1]);
        let session = server.greet(1);
        let asked = under(1, session, 1);
        let datagram = sealed(asked, &[put("k")]);
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
            &sealed(first, &[Request::Command(ReplicaCommand::Ping)]),
            CLIENT.into(),
        );
        server.give_in_vain(&sealed(first, &[put("k")]), CLIENT.into());
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
        server.give_in_vain(&sealed(under(1, session, 8), &[put("k")]), CLIENT.into());
        assert_eq!(server.service.counters.replayed.count(), 3);
        assert_eq!(server.service.counters.unauthenticated.count(), 0);
    }

    #[test]
    fn without_a_session_a_greeting_is_answered_at_its_length_and_nothing_else() {
        let mut server = Server::new(&[1]);
        let greeting = sealed(under(1, 0, 0), &[GREET]);
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
            server.give_in_vain(&sealed(under(1, 0, 1), others), CLIENT.into());
        }
        let told = server.ask(under(1, 0, 2), vec![GREET, GREET, put("k")]);
        assert!(matches!(told[..], [Reply::Greeting(_)]));
        assert_eq!(server.service.counters.not_greetings.count(), 6);
        assert_eq!(server.service.store().len(), 0);
    }

    #[test]
    fn a_session_that_another_began_has_no_answer() {
        let mut server = Server::new(&[1]);
        let session = server.greet(1);
        server.give_in_vain(
            &sealed(under(1, session ^ 1, 1), &[put("k")]),
            CLIENT.into(),
        );
        server.give_in_vain(&sealed(under(1, 1 << 32, 1), &[put("k")]), CLIENT.into());
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
        server.give_in_vain(&sealed(under(2, 0, 0), &[GREET]), CLIENT.into());
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
        server.give_in_vain(&sealed(under(1, session, 3), &ping()), CLIENT.into());
        server.give_in_vain(&sealed(under(1, 0, 0), &[GREET]), CLIENT.into());
        assert_eq!(
            server.ask(under(2, session, 3), ping()),
            [Reply::Response(ReplicaResponse::Done)]
        );
    }

    #[test]
    fn a_value_is_told_in_blocks_that_leave_room_for_the_envelope() {
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
            &sealed(
                under(1, session, 1),
                &[Request::Command(ReplicaCommand::Get { key })],
            ),
            CLIENT.into(),
        );
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].len(), Config::new(1).datagram_bytes_max);
    }
}

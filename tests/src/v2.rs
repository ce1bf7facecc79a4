//! DKVS/2 by hand and without a key: one request, one reply, sent again while none comes.

use dkvs_common::model::ReplicaCommand;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::DATAGRAM_BYTES_DEFAULT;
use dkvs_common::wire::v2::envelope::{Builder, Envelope, Proof, Sender, open};
use dkvs_common::wire::v2::message::{RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

/// How often a request is sent, and how long a reply is waited for each time.
const TRIES: usize = 40;
const WAIT: Duration = Duration::from_millis(500);

/// A client of one server.
pub struct Client {
    socket: UdpSocket,
    next_id: u64,
    /// What it says it belongs to.
    epoch: StatedEpoch,
}

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        Self::from_host(Ipv4Addr::LOCALHOST, server)
    }

    /// One at an address of this machine.
    pub fn from_host(host: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        Self {
            socket,
            next_id: 0,
            epoch: StatedEpoch::None,
        }
    }

    /// The same client, of a configuration: servers that know theirs answer no other.
    pub fn of_epoch(self, epoch: Epoch) -> Self {
        self.that_states(StatedEpoch::Numbered(epoch))
    }

    /// The same client, which states this.
    pub fn that_states(self, epoch: StatedEpoch) -> Self {
        Self { epoch, ..self }
    }

    /// Sends any bytes.
    pub fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
    }

    /// The reply to a request, which is sent again while none comes.
    pub fn ask(&mut self, request: &Request) -> Reply {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let datagram = sealed_for(self.epoch, id, request);
        let reply = (0..TRIES).find_map(|_| {
            self.send(&datagram);
            self.receive(id).ok()
        });
        reply.unwrap_or_else(|| panic!("no answer to {request:?}"))
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
}

pub fn key(name: &str) -> Key {
    Key::new(name.to_owned()).unwrap()
}

/// A put under a tag of the caller's choice.
pub fn put(name: &str, value: &str, tag: Tag) -> Request {
    let key = key(name);
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(value.to_owned()).unwrap(),
    };
    let record = Record::new(&key, tag, content);
    Request::Command(ReplicaCommand::Put { key, record })
}

/// A datagram with one request.
pub fn sealed(id: RequestId, request: &Request) -> Vec<u8> {
    sealed_for(StatedEpoch::None, id, request)
}

fn sealed_for(epoch: StatedEpoch, id: RequestId, request: &Request) -> Vec<u8> {
    let envelope = Envelope {
        sender: Sender::Client,
        epoch,
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

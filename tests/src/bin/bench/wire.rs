//! What is said to a single storage server: gets and puts of both protocols, packed and counted.
//!
//! Replies are looked into as little as a load can afford: every status, nothing else. That the
//! values are right is asked once, before anything is measured.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::DATAGRAM_BYTES_DEFAULT;
use dkvs_common::wire::v2::envelope::{Builder, Envelope, Proof, Sender, open};
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

use crate::cluster::{KEYS, SMALL, key};

/// Before and after the messages of a datagram, and before the body of a reply.
const ENVELOPE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;
const REPLY_HEAD_BYTES: usize = 12;

/// How long a single answer may take, and how often it is asked for.
const PATIENCE: Duration = Duration::from_millis(500);
const TRIES: usize = 10;

/// A get of each key by DKVS/1, in an order that looks random.
pub fn gets_v1() -> Vec<Vec<u8>> {
    shuffled_keys().map(String::into_bytes).collect()
}

/// Whether a reply to one of them is a value of the right length.
pub fn answers_v1(datagram: &[u8]) -> Option<usize> {
    (datagram.len() == SMALL.len()).then_some(1)
}

/// Datagrams of as many gets by DKVS/2 as they hold, and how many that is.
pub fn gets_v2() -> anyhow::Result<(Vec<Vec<u8>>, usize)> {
    let gets = shuffled_keys().map(|key| {
        Ok(Request::Command(ReplicaCommand::Get {
            key: Key::new(key)?,
        }))
    });
    let gets = gets.collect::<anyhow::Result<Vec<_>>>()?;
    let mut datagrams = pack(&gets, DATAGRAM_BYTES_DEFAULT, StatedEpoch::None);
    let each = datagrams.first().context("there are keys")?.1;
    datagrams.retain(|(_, messages)| *messages == each);
    Ok((
        datagrams
            .into_iter()
            .map(|(datagram, _)| datagram)
            .collect(),
        each,
    ))
}

/// How many replies are in a datagram; none if any of them is not ok.
pub fn answers_v2(datagram: &[u8]) -> Option<usize> {
    let messages_bytes = datagram.len().checked_sub(CHECKSUM_BYTES)?;
    let mut messages = datagram.get(ENVELOPE_BYTES..messages_bytes)?;
    let mut count = 0;
    while let [high, low, _, status, ..] = messages {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *status != 0 || length < REPLY_HEAD_BYTES {
            return None;
        }
        messages = messages.get(length..)?;
        count += 1;
    }
    messages.is_empty().then_some(count)
}

/// The keys in steps that share no divisor with their number, so that each comes once.
fn shuffled_keys() -> impl Iterator<Item = String> {
    const STEP: usize = 6_143;
    (0..KEYS).map(|number| key(number * STEP % KEYS))
}

/// Packs requests into datagrams, each with the number of its messages.
fn pack(requests: &[Request], datagram_bytes: usize, epoch: StatedEpoch) -> Vec<(Vec<u8>, usize)> {
    let builder = || {
        let envelope = Envelope {
            sender: Sender::Client,
            epoch,
            authentication: None,
        };
        Builder::new(envelope, datagram_bytes)
    };
    let mut datagrams = Vec::new();
    let (mut open, mut messages) = (builder(), 0);
    for (id, request) in (1..).zip(requests) {
        let message = RequestMessage {
            id: RequestId(id),
            wait_ms: 1_000,
            request: request.clone(),
        };
        if !open.push(|datagram| message.encode(datagram)) {
            let full = std::mem::replace(&mut open, builder());
            datagrams.push((full.finish(), messages));
            messages = 0;
            open.push(|datagram| message.encode(datagram));
        }
        messages += 1;
    }
    datagrams.push((open.finish(), messages));
    datagrams
}

/// What values a client stores, and in datagrams of at most how many bytes.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// How long they are; each must fit a datagram.
    pub bytes: usize,
    pub datagram_bytes: usize,
}

impl Values {
    /// The usual ones.
    pub const SMALL: Self = Self {
        bytes: SMALL.len(),
        datagram_bytes: DATAGRAM_BYTES_DEFAULT,
    };

    /// The value of a key: bytes that begin as those of no other.
    fn value(self, number: usize) -> Vec<u8> {
        let mut value = format!("{number:08}").into_bytes();
        value.resize(self.bytes, b'v');
        value
    }
}

/// A client of one server, for one datagram at a time.
pub struct Client {
    socket: UdpSocket,
    values: Values,
    /// What it says it belongs to.
    epoch: StatedEpoch,
}

impl Client {
    /// Talks to `server` only.
    pub fn new(server: SocketAddr) -> anyhow::Result<Self> {
        Self::with(server, Values::SMALL)
    }

    /// The same, for other values.
    pub fn with(server: SocketAddr, values: Values) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            values,
            epoch: StatedEpoch::None,
        })
    }

    /// The same client, of a configuration: servers that know theirs answer no other.
    pub fn of_epoch(self, epoch: Epoch) -> Self {
        Self {
            epoch: StatedEpoch::Numbered(epoch),
            ..self
        }
    }

    /// The replies to some requests, in no order; each datagram is asked again if none come.
    fn ask(&self, requests: &[Request]) -> anyhow::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        for (datagram, messages) in pack(requests, self.values.datagram_bytes, self.epoch) {
            let answered = (0..TRIES).find_map(|_| self.exchange(&datagram, messages).ok());
            replies.extend(answered.context("the server does not answer")?);
        }
        Ok(replies)
    }

    fn exchange(&self, datagram: &[u8], messages: usize) -> anyhow::Result<Vec<Reply>> {
        self.socket.send(datagram)?;
        let mut replies: Vec<ReplyMessage> = Vec::new();
        let mut buffer = vec![0; 65_536];
        while replies.len() < messages {
            let length = self.socket.recv(&mut buffer)?;
            let datagram = Bytes::copy_from_slice(&buffer[..length]);
            let (_, mut messages) = open(&datagram, Proof::Checksum)?;
            while let Some(reply) = next_reply(&mut messages)? {
                replies.push(reply);
            }
        }
        Ok(replies.into_iter().map(|message| message.reply).collect())
    }

    /// Stores a value of the usual size under `count` keys.
    pub fn fill(&self, count: usize) -> anyhow::Result<()> {
        self.put_all(0..count, |number| put(number, 1, value(SMALL)?))
    }

    /// Stores a value of this client under each of these keys, under tags of this time.
    pub fn fill_with(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        time: u64,
    ) -> anyhow::Result<()> {
        self.put_all(numbers, |number| {
            put(number, time, value(self.values.value(number))?)
        })
    }

    /// Deletes these keys, under tags of this time.
    pub fn delete(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        time: u64,
    ) -> anyhow::Result<()> {
        self.put_all(numbers, |number| put(number, time, Content::Tombstone))
    }

    fn put_all(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        put: impl Fn(usize) -> anyhow::Result<Request>,
    ) -> anyhow::Result<()> {
        let mut numbers = numbers.into_iter().peekable();
        while numbers.peek().is_some() {
            let some = numbers.by_ref().take(1_000);
            let puts = some.map(&put).collect::<anyhow::Result<Vec<_>>>()?;
            for reply in self.ask(&puts)? {
                let is_stored = matches!(
                    reply,
                    Reply::Response(ReplicaResponse::Done | ReplicaResponse::Superseded { .. })
                );
                ensure!(is_stored, "a put was answered {reply:?}");
            }
        }
        Ok(())
    }

    /// Reads one of this client's values, and compares it.
    pub fn read(&self, number: usize) -> anyhow::Result<()> {
        let get = Request::Command(ReplicaCommand::Get {
            key: Key::new(key(number))?,
        });
        match self.ask(&[get])?.first() {
            Some(Reply::Response(ReplicaResponse::Record { block, .. }))
                if *block == self.values.value(number) =>
            {
                Ok(())
            }
            reply => bail!("a get of key {number} was answered {reply:?}"),
        }
    }

    /// Asks for every key once and compares the values.
    pub fn check(&self) -> anyhow::Result<()> {
        let gets = shuffled_keys().map(|key| {
            Ok(Request::Command(ReplicaCommand::Get {
                key: Key::new(key)?,
            }))
        });
        let gets = gets.collect::<anyhow::Result<Vec<_>>>()?;
        for reply in self.ask(&gets)? {
            match reply {
                Reply::Response(ReplicaResponse::Record { block, .. })
                    if block == SMALL.as_bytes() => {}
                reply => bail!("a get was answered {reply:?}"),
            }
        }
        Ok(())
    }

    /// How many gets the server has answered since it started.
    pub fn gets_answered(&self) -> anyhow::Result<u64> {
        self.statistic(Statistic::Gets)
    }

    /// A number that the server reports of itself.
    pub fn statistic(&self, wanted: Statistic) -> anyhow::Result<u64> {
        let replies = self.ask(&[Request::Command(ReplicaCommand::GetStatistics)])?;
        let Some(Reply::Response(ReplicaResponse::Statistics(statistics))) = replies.first() else {
            bail!("statistics were answered {replies:?}");
        };
        let found = statistics.iter().find(|(name, _)| *name == wanted as u8);
        Ok(found.context("the server does not report it")?.1)
    }
}

fn value(bytes: impl Into<Bytes>) -> anyhow::Result<Content> {
    Ok(Content::Value {
        content_type: ContentType::default(),
        value: Value::new(bytes)?,
    })
}

fn put(number: usize, time: u64, content: Content) -> anyhow::Result<Request> {
    let key = Key::new(key(number))?;
    let tag = Tag { time, op: 1 };
    let record = Record::new(&key, tag, content);
    Ok(Request::Command(ReplicaCommand::Put { key, record }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's datagram with these replies to gets.
    fn datagram(replies: &[Reply]) -> Vec<u8> {
        let envelope = Envelope {
            sender: Sender::Server,
            epoch: StatedEpoch::None,
            authentication: None,
        };
        let mut builder = Builder::new(envelope, DATAGRAM_BYTES_DEFAULT);
        for reply in replies {
            let message = ReplyMessage {
                id: RequestId(1),
                operation: 3,
                reply: reply.clone(),
            };
            assert!(builder.push(|datagram| message.encode(datagram)));
        }
        builder.finish()
    }

    fn found() -> Reply {
        Reply::Response(ReplicaResponse::Record {
            digest: dkvs_common::record::Digest {
                attributes: dkvs_common::record::Attributes::NONE,
                tag: Tag { time: 1, op: 1 },
                content_type: ContentType::default(),
                value_bytes: 32,
                checksum: 0,
            },
            block: Bytes::from_static(SMALL.as_bytes()),
        })
    }

    #[test]
    fn replies_are_counted_if_all_are_ok() {
        assert_eq!(answers_v2(&datagram(&[found(), found(), found()])), Some(3));
        let absent = Reply::Response(ReplicaResponse::absent(Tag::ZERO));
        assert_eq!(answers_v2(&datagram(&[found(), absent])), None);
        let whole = datagram(&[found(), found()]);
        for length in 0..whole.len() {
            assert_ne!(answers_v2(&whole[..length]), Some(2), "{length} bytes");
        }
        assert_eq!(answers_v2(b""), None, "what a server of DKVS/1 says");
    }

    #[test]
    fn every_key_is_asked_for_once_and_datagrams_are_full() {
        let mut keys: Vec<String> = shuffled_keys().collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KEYS);
        let (datagrams, each) = gets_v2().unwrap();
        assert!(datagrams.len() * each > KEYS - each);
        for datagram in datagrams {
            assert!((1_100..=DATAGRAM_BYTES_DEFAULT).contains(&datagram.len()));
        }
    }
}

//! A server of DKVS/2, or of DKVS/1, that stores in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::fixtures::{CLIENT, config};
use dkvs_common::epoch::StatedEpoch;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::Description;
use dkvs_common::model::{Durability, Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, Proof, Sender};
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, next_request};
use dkvs_common::wire::v2::reply::{Greeting, Reply};
use dkvs_common::wire::v2::request::Request;

/// A server that answers all requests of a datagram in one.
pub(super) struct Server {
    pub(super) boot_id: u64,
    pub(super) speaks_v1_only: bool,
    pub(super) datagram_bytes_max: u16,
    pub(super) keys: Option<Arc<Keys>>,
    /// What it says of itself; nothing, if it is of a version that does not know the question.
    pub(super) description: Option<Description>,
    /// What its client stated last that it belongs to.
    pub(super) stated: Option<StatedEpoch>,
    pub(super) pairs: BTreeMap<Key, Record>,
    /// The blocks of uploads, by offset.
    pub(super) uploads: BTreeMap<u64, BTreeMap<u32, Bytes>>,
    /// How often each request was carried out.
    pub(super) served: BTreeMap<RequestId, u32>,
    /// How many datagrams arrived.
    pub(super) datagrams: u32,
    /// How many belonged to the session of another process.
    pub(super) sessions_refused: u32,
}

impl Server {
    pub(super) fn new(boot_id: u64) -> Self {
        Self {
            boot_id,
            speaks_v1_only: false,
            datagram_bytes_max: 1_200,
            keys: None,
            description: Some(Description {
                store_id: 1,
                epoch: Some(config().epoch),
            }),
            stated: None,
            pairs: BTreeMap::new(),
            uploads: BTreeMap::new(),
            served: BTreeMap::new(),
            datagrams: 0,
            sessions_refused: 0,
        }
    }

    pub(super) fn handle(&mut self, datagram: &Bytes) -> Vec<Bytes> {
        self.datagrams += 1;
        if self.speaks_v1_only {
            return vec![Bytes::new()];
        }
        let opened = match &self.keys {
            None => envelope::open(datagram, Proof::Checksum),
            Some(keys) => {
                let Some(key) = envelope::peek(datagram)
                    .ok()
                    .and_then(|envelope| keys.find(envelope.authentication?.key_id))
                else {
                    return Vec::new();
                };
                let client = CLIENT;
                envelope::open(datagram, Proof::Key { key, client })
            }
        };
        let Ok((asked, mut messages)) = opened else {
            return Vec::new();
        };
        self.stated = Some(asked.epoch);
        let mut replies = Vec::new();
        let mut builder = Self::builder(asked);
        while let Some(message) = next_request(&mut messages).unwrap() {
            let message = message.unwrap();
            let is_greeting = matches!(message.request, Request::Greet { .. } | Request::Describe);
            if let Some(authentication) = asked.authentication {
                let session = if is_greeting { 0 } else { self.boot_id };
                if authentication.session != session {
                    self.sessions_refused += 1;
                    return replies;
                }
            }
            *self.served.entry(message.id).or_default() += 1;
            let operation = message.request.operation();
            let reply = ReplyMessage {
                id: message.id,
                operation,
                reply: self.serve(message.request),
            };
            if !builder.push(|datagram| reply.encode(datagram)) {
                let full = std::mem::replace(&mut builder, Self::builder(asked));
                replies.push(self.finish(full, asked));
                assert!(builder.push(|datagram| reply.encode(datagram)));
            }
        }
        replies.push(self.finish(builder, asked));
        replies
    }

    pub(super) fn builder(asked: Envelope) -> Builder {
        let envelope = Envelope {
            sender: Sender::Server,
            ..asked
        };
        Builder::new(envelope, 1_200)
    }

    /// Authenticates a reply with the key of the request.
    pub(super) fn finish(&self, builder: Builder, asked: Envelope) -> Bytes {
        match (&self.keys, asked.authentication) {
            (Some(keys), Some(authentication)) => {
                let key = keys.find(authentication.key_id).unwrap();
                builder.finish_with(key, CLIENT).into()
            }
            _ => builder.finish().into(),
        }
    }

    fn serve(&mut self, request: Request) -> Reply {
        match request {
            Request::Greet { .. } => Reply::Greeting(Greeting {
                boot_id: self.boot_id,
                session: if self.keys.is_some() { self.boot_id } else { 0 },
                datagram_bytes_max: self.datagram_bytes_max,
                value_bytes_max: 1 << 20,
                durability: Durability::Memory,
            }),
            Request::Describe => match self.description {
                Some(description) => Reply::Description(description),
                None => Reply::Response(ReplicaResponse::Refused(Refusal::Unsupported)),
            },
            Request::Command(ReplicaCommand::Ping) => Reply::Response(ReplicaResponse::Done),
            Request::Command(ReplicaCommand::Put { key, record }) => {
                assert!(record.is_sound(&key));
                self.pairs.insert(key, record);
                Reply::Response(ReplicaResponse::Done)
            }
            Request::Command(ReplicaCommand::Get { key }) => match self.pairs.get(&key) {
                None => Reply::Response(ReplicaResponse::absent(Tag::ZERO)),
                Some(record) => Reply::Response(ReplicaResponse::Tag { tag: record.tag }),
            },
            Request::Command(ReplicaCommand::Attest { boot_id, key, tag }) => {
                match self.pairs.get(&key) {
                    Some(record) if boot_id == self.boot_id && record.tag >= tag => {
                        Reply::Response(ReplicaResponse::Done)
                    }
                    _ => Reply::Response(ReplicaResponse::absent(Tag::ZERO)),
                }
            }
            Request::Command(ReplicaCommand::Stage {
                upload,
                offset,
                block_bytes,
                block,
                ..
            }) => {
                let blocks = self.uploads.entry(upload).or_default();
                blocks.insert(offset, block);
                staged(blocks, block_bytes.into())
            }
            Request::Command(ReplicaCommand::PutStaged {
                key,
                tag,
                attributes,
                content_type,
                upload,
                value_bytes,
                checksum,
            }) => {
                let blocks = self.uploads.get(&upload);
                let value: Vec<u8> = blocks
                    .into_iter()
                    .flat_map(|blocks| blocks.values().flat_map(|block| block.to_vec()))
                    .collect();
                if value.len() != value_bytes as usize {
                    return Reply::Response(ReplicaResponse::absent(Tag::ZERO));
                }
                let value = Value::new(value).unwrap();
                let content = Content::Value {
                    content_type,
                    value,
                };
                let record = Record {
                    tag,
                    attributes,
                    content,
                    checksum,
                };
                assert!(record.is_sound(&key));
                self.pairs.insert(key, record);
                Reply::Response(ReplicaResponse::Done)
            }
            Request::Command(ReplicaCommand::GetBlock {
                key,
                tag,
                offset,
                block_bytes,
            }) => match self.pairs.get(&key) {
                Some(Record {
                    tag: held,
                    content: Content::Value { value, .. },
                    ..
                }) if *held == tag => {
                    let value = value.as_bytes();
                    let start = (offset as usize).min(value.len());
                    let end = value.len().min(start + usize::from(block_bytes));
                    Reply::Response(ReplicaResponse::Block {
                        offset,
                        block: Bytes::copy_from_slice(&value[start..end]),
                    })
                }
                _ => Reply::Response(ReplicaResponse::absent(Tag::ZERO)),
            },
            _ => Reply::Response(ReplicaResponse::Refused(Refusal::Unsupported)),
        }
    }
}

/// Which blocks of an upload have arrived, as a reply reports it.
fn staged(blocks: &BTreeMap<u32, Bytes>, block_bytes: u32) -> Reply {
    let there = |number: u32| blocks.contains_key(&(number * block_bytes));
    let base = (0..).find(|number| !there(*number)).unwrap();
    let mut bitmap: Vec<u8> = (0..32)
        .map(|byte| {
            (0..8u32)
                .filter(|bit| there(base + 8 * byte + bit))
                .fold(0, |bits, bit| bits | 1 << bit)
        })
        .collect();
    while bitmap.last() == Some(&0) {
        bitmap.pop();
    }
    Reply::Response(ReplicaResponse::Staged {
        base,
        bitmap: bitmap.into(),
    })
}

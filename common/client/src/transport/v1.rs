//! A server by DKVS/1: what its datagrams can carry, and what its answers mean.
//!
//! DKVS/1 has no ids: a reply belongs to the socket that it arrives at. So each command is an
//! [`Exchange`] on a socket of its own, which the caller looks after, and nothing is kept here.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Instant;

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse, Unrepresentable};
use dkvs_common::record::Content;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v1::{self, GetReply, IllFormedReply, PutReply};

/// A command on its way by DKVS/1, and what its answer is to.
#[derive(Debug, Clone)]
pub struct Exchange<T> {
    /// Names the command to the caller.
    pub token: T,
    /// Who is asked.
    pub server: ServerId,
    /// Where it takes datagrams.
    pub addr: SocketAddrV4,
    /// The datagram to send.
    pub datagram: Bytes,
    /// What the reply can be.
    pub expects: Expects,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
}

/// What a reply can be: DKVS/1 does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// A value, or none.
    Value,
    /// Whether something was stored.
    Confirmation,
}

/// The exchanges that are to begin.
#[derive(Debug)]
pub struct Exchanges<T> {
    outbox: VecDeque<Exchange<T>>,
}

impl<T> Default for Exchanges<T> {
    fn default() -> Self {
        Self {
            outbox: VecDeque::new(),
        }
    }
}

impl<T> Exchanges<T> {
    /// Sends a command. Refused if DKVS/1 cannot carry it.
    pub fn send(
        &mut self,
        (server, addr): (ServerId, SocketAddrV4),
        command: &ReplicaCommand,
        token: T,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let (datagram, expects) = encode(command)?;
        self.outbox.push_back(Exchange {
            token,
            server,
            addr,
            datagram,
            expects,
            deadline,
        });
        Ok(())
    }

    /// The next exchange to begin.
    pub fn poll(&mut self) -> Option<Exchange<T>> {
        self.outbox.pop_front()
    }
}

/// The key that is asked for to see whether a server answers; what it holds does not matter.
const STATUS_KEY: &str = "dkvs probe";

/// The datagram of a command, and what its reply can be.
fn encode(command: &ReplicaCommand) -> Result<(Bytes, Expects), Refusal> {
    let encoded = match command {
        ReplicaCommand::Get { key } => v1::encode_get(key).map(|it| (it, Expects::Value)),
        ReplicaCommand::Put { key, record } => match &record.content {
            Content::Value { value, .. } => {
                v1::encode_put(key, value).map(|it| (it, Expects::Confirmation))
            }
            Content::Tombstone => return Err(Refusal::NoDeletion),
        },
        ReplicaCommand::GetStatistics => {
            Ok((Bytes::from_static(STATUS_KEY.as_bytes()), Expects::Value))
        }
        // What needs tags is not sent so, nor are the parts of long values.
        _ => return Err(Refusal::NotV2),
    };
    encoded.map_err(v1_refusal)
}

/// What a reply means.
pub fn decode(expects: Expects, reply: Bytes) -> Result<ReplicaResponse, IllFormedReply> {
    Ok(match expects {
        Expects::Value => match GetReply::decode(reply)? {
            GetReply::Value(value) => ReplicaResponse::Untagged { value },
            GetReply::Unknown => ReplicaResponse::absent(Tag::ZERO),
        },
        Expects::Confirmation => match PutReply::decode(&reply)? {
            PutReply::Stored => ReplicaResponse::Done,
            PutReply::Failed => ReplicaResponse::Refused(Refusal::Unstated),
        },
    })
}

/// Whether DKVS/1 can carry a key.
pub fn check_key(key: &Key) -> Result<(), Unrepresentable> {
    v1::check_key(key)
}

/// Whether DKVS/1 can carry a value.
pub fn check_value(value: &Value) -> Result<(), Unrepresentable> {
    v1::check_value(value)
}

/// What DKVS/1 cannot carry, as the refusal of a server that speaks it.
pub fn v1_refusal(error: Unrepresentable) -> Refusal {
    let limit = |bytes_max: usize| u32::try_from(bytes_max).unwrap_or(u32::MAX);
    match error {
        Unrepresentable::KeyHasNul { .. } | Unrepresentable::ValueHasNul { .. } => Refusal::HasNul,
        Unrepresentable::KeyTooLong { bytes_max, .. } => Refusal::KeyTooLong {
            key_bytes_max: limit(bytes_max),
        },
        Unrepresentable::ValueTooLong { bytes_max, .. } => Refusal::TooLarge {
            value_bytes_max: limit(bytes_max),
        },
    }
}

//! DKVS/1: a datagram of one request in, a datagram of its reply out, or many of a dump.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::wire::v1::{GetReply, PutReply, Request, is_carried};

use super::deferred::{Deferred, DeferredReplies};
use super::dump::Dump;
use crate::service::Service;
use crate::statistics::Counters;
use crate::store::{Lookup, RecordStore as _};

/// What is sent back for a datagram of DKVS/1.
pub enum V1Response {
    /// One datagram.
    Datagram(Bytes),
    /// As many datagrams as the dump makes, step by step ([`Service::step`]).
    Dump(Dump),
    /// Nothing, or nothing yet: DKVS/1 is off, the server starts, the get or put waits for the disk, another
    /// dump is under way, or DKVS/1 cannot say that a record is damaged.
    Silence,
}

impl Service {
    /// Whether DKVS/1 can carry what is held of a key. The value is not read for it.
    fn is_carried(&self, key: &Key) -> bool {
        match self.replica.store.head(key) {
            Lookup::Found(head) if !head.is_tombstone => {
                is_carried(head.value_bytes as usize, head.has_nul)
            }
            _ => true,
        }
    }

    /// Answers one datagram of DKVS/1, if that is on, at once or by `deferred`. `unix_ms` is the
    /// time of the wall clock in milliseconds.
    pub fn handle_v1(
        &self,
        datagram: Bytes,
        peer: SocketAddr,
        unix_ms: u64,
        deferred: &Arc<DeferredReplies>,
    ) -> V1Response {
        if !self.config().is_v1_on {
            self.counters.v1_refused.add(1);
            return V1Response::Silence;
        }
        if self.is_starting() {
            return V1Response::Silence;
        }
        match Request::decode(datagram) {
            Ok(Request::Get(key)) if !self.is_carried(&key) => {
                self.counters.gets.add(1);
                self.counters.values_unrepresentable.add(1);
                tracing::debug!(?key, "its value does not travel by DKVS/1: told as unknown");
                V1Response::Datagram(GetReply::Unknown.encode())
            }
            Ok(Request::Get(key)) => {
                let responder = || -> crate::handlers::Responder {
                    let (deferred, counters) = (Arc::clone(deferred), Arc::clone(&self.counters));
                    let key = key.clone();
                    Box::new(move |response| {
                        if let Some(reply) = get_reply(&counters, &key, response) {
                            deferred.push(peer, Deferred::V1(reply.encode()));
                        }
                    })
                };
                let response = self.replica.get_untagged(&key, peer.into(), responder);
                let reply = response.and_then(|response| get_reply(&self.counters, &key, response));
                reply.map_or(V1Response::Silence, |reply| {
                    V1Response::Datagram(reply.encode())
                })
            }
            Ok(Request::Put(key, value)) => {
                let responder = || -> crate::handlers::Responder {
                    let deferred = Arc::clone(deferred);
                    Box::new(move |response| {
                        let reply = put_reply(&response).encode();
                        deferred.push(peer, Deferred::V1(reply));
                    })
                };
                match self.replica.put_untagged(&key, &value, unix_ms, responder) {
                    Some(response) => V1Response::Datagram(put_reply(&response).encode()),
                    None => V1Response::Silence,
                }
            }
            Ok(Request::Dump) => self
                .begin_dump()
                .map_or(V1Response::Silence, V1Response::Dump),
            Err(malformed) => {
                self.counters.malformed.add(1);
                tracing::debug!(%malformed, "a datagram that is no request");
                V1Response::Datagram(malformed.reply())
            }
        }
    }
}

/// None if it is not known whether there is a value: DKVS/1 cannot say so.
fn get_reply(counters: &Counters, key: &Key, response: ReplicaResponse) -> Option<GetReply> {
    let value = match response {
        ReplicaResponse::Untagged { value } => value,
        ReplicaResponse::Absent { .. } => return Some(GetReply::Unknown),
        _ => return None,
    };
    let (reply, unrepresentable) = GetReply::of_stored(value);
    if let Some(reason) = unrepresentable {
        counters.values_unrepresentable.add(1);
        tracing::debug!(?key, %reason, "told as unknown");
    }
    Some(reply)
}

/// DKVS/1 knows stored and not stored.
fn put_reply(response: &ReplicaResponse) -> PutReply {
    match response {
        ReplicaResponse::Done | ReplicaResponse::Superseded { .. } => PutReply::Stored,
        _ => PutReply::Failed,
    }
}

//! DKVS/2: a datagram of requests in, datagrams of replies out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::epoch::StatedEpoch;
use dkvs_common::model::{Description, Refusal, ReplicaResponse};
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, RequestMessage, next_request};
use dkvs_common::wire::v2::reply::{
    self, Greeting, LEAF_ENTRY_BYTES, LEAF_HEAD_BYTES, LEAF_SUM_BYTES, PAGE_ENTRY_BYTES,
    PAGE_HEAD_BYTES, PROMISE_HEAD_BYTES, RECORD_HEAD_BYTES, Reply,
};
use dkvs_common::wire::v2::request::Request;

use super::access::{Access, SenderStatus};
use super::datagram::Received;
use super::deferred::{Backlog, ReplyTo};
use super::replies::Replies;
use crate::handlers::{BITMAP_BYTES_MAX, Caller, LeafRoom, ResponseRoom};
use crate::service::Service;
use crate::store::RecordStore as _;

// What a handler returns has to fit a reply.
const _: () = assert!(BITMAP_BYTES_MAX == reply::BITMAP_BYTES_MAX);

/// What the requests of a datagram have in common.
struct Origin<'a> {
    /// What the sender belongs to.
    epoch: StatedEpoch,
    peer: SocketAddr,
    sender: SenderStatus,
    /// The key that proved the datagram; 0 where none has to.
    key_id: u8,
    /// When the datagram was taken from the socket.
    now: Instant,
    /// How long it had been there.
    waited: Duration,
    /// What is answered later.
    backlog: &'a mut Backlog,
}

/// Adds a reply to those that leave together; returns its status.
fn push(replies: &mut Replies<'_>, id: RequestId, operation: u8, reply: Reply) -> u8 {
    let status = reply.status();
    replies.push(&ReplyMessage {
        id,
        operation,
        reply,
    });
    status
}

/// How long a response may be that is to fit a datagram of these replies.
fn room(replies: &Replies<'_>) -> ResponseRoom {
    let value_bytes = replies.value_bytes_max();
    ResponseRoom {
        value_bytes,
        accepted_bytes: value_bytes + RECORD_HEAD_BYTES - PROMISE_HEAD_BYTES,
        page_bytes: value_bytes + RECORD_HEAD_BYTES - PAGE_HEAD_BYTES,
        page_entry_bytes: PAGE_ENTRY_BYTES,
        leaf: LeafRoom {
            sums_max: (value_bytes + RECORD_HEAD_BYTES - LEAF_HEAD_BYTES) / LEAF_SUM_BYTES,
            bytes: value_bytes + RECORD_HEAD_BYTES - LEAF_HEAD_BYTES,
            entry_bytes: LEAF_ENTRY_BYTES,
        },
    }
}

impl Service {
    /// Answers a DKVS/2 datagram, its requests together, by calls of `send` with a datagram each;
    /// what has to wait, for the disk or for its turn, is answered from `backlog`. One that is not
    /// authentic, was taken before, or does not come from a client, gets no answer.
    pub fn handle_v2(
        &self,
        received: &Received,
        access: &mut Access,
        backlog: &mut Backlog,
        send: &mut dyn FnMut(Vec<u8>),
    ) {
        #[cfg(feature = "mutants")]
        self.replica.store_unstored();
        let Some(opened) = access.open(&received.datagram, received.peer, &self.counters) else {
            return;
        };
        let mut origin = Origin {
            epoch: opened.epoch,
            peer: received.peer,
            sender: opened.sender,
            key_id: opened.auth.key_id(),
            now: received.at,
            waited: received.waited,
            backlog,
        };
        self.counters.datagrams.add(1);
        let own = self.stated_epoch(opened.epoch);
        let datagram_bytes_max = self.config().datagram_bytes_max;
        let mut replies = Replies::new(opened.auth, own, datagram_bytes_max, send);
        match opened.sender {
            SenderStatus::InSession { .. } => {
                self.serve_all(opened.messages, &mut origin, &mut replies);
            }
            SenderStatus::Unknown { .. } => {
                self.greet(opened.messages, &mut origin, &mut replies);
            }
        }
        replies.finish();
    }

    /// What a reply states that this server belongs to: as whoever is answered states it.
    pub(crate) fn stated_epoch(&self, stated: StatedEpoch) -> StatedEpoch {
        match (self.config().served, stated) {
            (Some(served), StatedEpoch::Numbered(_)) => StatedEpoch::Numbered(served.epoch),
            (Some(served), _) => StatedEpoch::Ring(served.ring),
            (None, _) => StatedEpoch::None,
        }
    }

    /// Answers the greeting that the datagram of an unknown sender begins with, the question for a description
    /// that may follow, and nothing else: each answer, in the same envelope, is as long as what it
    /// answers.
    fn greet(&self, mut messages: Bytes, origin: &mut Origin<'_>, replies: &mut Replies<'_>) {
        match next_request(&mut messages) {
            Ok(Some(Ok(message))) if matches!(message.request, Request::Greet { .. }) => {
                let _ = self.serve_in_time(message, origin, replies);
            }
            _ => return self.counters.not_greetings.add(1),
        }
        match next_request(&mut messages) {
            Ok(Some(Ok(message))) if message.request == Request::Describe => {
                let _ = self.serve_in_time(message, origin, replies);
            }
            Ok(None) => {}
            _ => return self.counters.not_greetings.add(1),
        }
        if !messages.is_empty() {
            self.counters.not_greetings.add(1);
        }
    }

    fn serve_all(&self, mut messages: Bytes, origin: &mut Origin<'_>, replies: &mut Replies<'_>) {
        let mut traced: Option<(RequestId, Trace)> = None;
        loop {
            match next_request(&mut messages) {
                Ok(Some(Ok(message))) => match message.request {
                    Request::Trace { of, trace } => traced = Some((of, trace)),
                    _ => match traced.take_if(|(of, _)| *of == message.id) {
                        Some((_, trace)) => self.serve_traced(trace, message, origin, replies),
                        None => drop(self.serve_in_time(message, origin, replies)),
                    },
                },
                Ok(Some(Err(bad))) => {
                    self.counters.malformed.add(1);
                    tracing::debug!(error = %bad.error, "a request that is not understood");
                    let (id, operation, reply) = (
                        bad.id,
                        bad.operation,
                        ReplicaResponse::Refused(Refusal::Unsupported),
                    );
                    replies.push(&ReplyMessage {
                        id,
                        operation,
                        reply: reply.into(),
                    });
                }
                Ok(None) => break,
                Err(_) => {
                    self.counters.malformed.add(1);
                    break;
                }
            }
        }
    }

    /// Serves a request, and leaves a line in the log that its trace leads to.
    fn serve_traced(
        &self,
        trace: Trace,
        message: RequestMessage,
        origin: &mut Origin<'_>,
        replies: &mut Replies<'_>,
    ) {
        let (operation, peer) = (message.request.name(), origin.peer);
        let key = match &message.request {
            Request::Command(command) => command.key(),
            Request::Greet { .. } | Request::Describe | Request::Trace { .. } => None,
        };
        let key_bytes = key.map(|key| key.as_bytes().len());
        let status = self.serve_in_time(message, origin, replies);
        let Trace { trace_id, span_id } = trace;
        tracing::debug!(%trace_id, %span_id, operation, key_bytes, status, %peer, "served");
    }

    /// Serves a request unless its client has stopped waiting; returns the status of the
    /// reply, if it is not deferred.
    fn serve_in_time(
        &self,
        message: RequestMessage,
        origin: &mut Origin<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<u8> {
        if origin.waited >= Duration::from_millis(message.wait_ms.into()) {
            self.counters.expired.add(1);
            return None;
        }
        self.serve(message, origin, replies)
    }

    fn serve(
        &self,
        message: RequestMessage,
        origin: &mut Origin<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<u8> {
        let (id, operation) = (message.id, message.request.operation());
        self.counters.messages.add(1);
        let command = match message.request {
            Request::Command(command) => command,
            Request::Greet { .. } => {
                let reply = Reply::Greeting(self.greeting(origin.sender));
                return Some(push(replies, id, operation, reply));
            }
            Request::Describe => {
                let config = self.config();
                let reply = Reply::Description(Description {
                    store_id: config.store_id,
                    epoch: config.served.map(|served| served.epoch),
                });
                return Some(push(replies, id, operation, reply));
            }
            // It is about another request, and is not answered.
            Request::Trace { .. } => return None,
        };
        let caller = Caller {
            peer: origin.peer.into(),
            key_id: origin.key_id,
            request: id.0,
            epoch: origin.epoch,
            now: origin.now,
            wait: Duration::from_millis(message.wait_ms.into()).saturating_sub(origin.waited),
            room: room(replies),
        };
        let Backlog {
            replies: deferred,
            lists,
        } = &mut *origin.backlog;
        let reply_to = ReplyTo {
            deferred,
            peer: origin.peer,
            auth: replies.auth(),
            epoch: replies.epoch(),
            id,
            operation,
        };
        let responder = || reply_to.responder();
        let response = self.replica.handle(command, caller, lists, responder)?;
        Some(push(replies, id, operation, response.into()))
    }

    fn greeting(&self, sender: SenderStatus) -> Greeting {
        let (SenderStatus::InSession { session } | SenderStatus::Unknown { session }) = sender;
        Greeting {
            boot_id: self.config().boot_id,
            session,
            datagram_bytes_max: u16::try_from(self.config().datagram_bytes_max).unwrap_or(u16::MAX),
            value_bytes_max: u32::try_from(self.config().value_bytes_max).unwrap_or(u32::MAX),
            durability: self.store().durability(),
        }
    }
}

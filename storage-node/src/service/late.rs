//! Replies that come later than the datagrams that asked for them: what a put came to is known
//! once the disk has it.

use dkvs_common::model::ReplicaResponse;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId};

use super::Service;
use super::access::Seal;
use super::replies::Replies;
use crate::store::{Completion, PutResult};

/// Where replies wait for the worker that is to send them.
pub struct Mailbox {
    waiting: Mutex<Vec<Late>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A reply that waits.
struct Late {
    peer: SocketAddr,
    message: Message,
}

enum Message {
    V1(Bytes),
    V2(Seal, ReplyMessage),
}

/// A datagram of late replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LateDatagram {
    /// Of DKVS/1.
    V1(Bytes),
    /// Of DKVS/2.
    V2(Vec<u8>),
}

impl Mailbox {
    /// An empty one, which calls `wake` when a reply comes and none was there.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            wake: Box::new(wake),
        })
    }

    fn push(&self, late: Late) {
        // A panic while it was locked leaves no reply half in it.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(late);
        if waiting.len() == 1 {
            (self.wake)();
        }
    }

    fn take(&self) -> Vec<Late> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whom a reply is to reach, if it comes late.
#[derive(Clone, Copy)]
pub(super) struct ReplyTo<'a> {
    pub(super) mailbox: &'a Arc<Mailbox>,
    pub(super) peer: SocketAddr,
    pub(super) seal: &'a Seal,
    pub(super) id: RequestId,
    pub(super) operation: u8,
}

impl ReplyTo<'_> {
    /// Sends what `reply` makes of what a put came to.
    pub(super) fn later(
        self,
        reply: impl FnOnce(PutResult) -> ReplicaResponse + Send + 'static,
    ) -> Completion<PutResult> {
        let (mailbox, peer, seal) = (Arc::clone(self.mailbox), self.peer, self.seal.clone());
        let (id, operation) = (self.id, self.operation);
        Box::new(move |told| {
            let reply = ReplyMessage {
                id,
                operation,
                reply: reply(told).into(),
            };
            let message = Message::V2(seal, reply);
            mailbox.push(Late { peer, message });
        })
    }
}

/// The same by DKVS/1.
pub(super) fn later_v1(
    mailbox: &Arc<Mailbox>,
    peer: SocketAddr,
    reply: impl FnOnce(PutResult) -> Bytes + Send + 'static,
) -> Completion<PutResult> {
    let mailbox = Arc::clone(mailbox);
    Box::new(move |told| {
        let message = Message::V1(reply(told));
        mailbox.push(Late { peer, message });
    })
}

impl Service {
    /// Sends the replies that have come for a worker, those to one client together.
    pub fn send_late(&self, mailbox: &Mailbox, send: &mut dyn FnMut(SocketAddr, LateDatagram)) {
        let mut waiting = mailbox.take();
        // Stable: to each client in the order in which they came.
        waiting.sort_by_key(|late| late.peer);
        let mut waiting = waiting.into_iter().peekable();
        while let Some(Late { peer, message }) = waiting.next() {
            let (seal, first) = match message {
                Message::V1(datagram) => {
                    send(peer, LateDatagram::V1(datagram));
                    continue;
                }
                Message::V2(seal, first) => (seal, first),
            };
            let mut send_v2 = |datagram| send(peer, LateDatagram::V2(datagram));
            let our_epoch = self.config.epoch.unwrap_or(0);
            let bytes_max = self.config.datagram_bytes_max;
            let mut replies = Replies::new(seal.clone(), our_epoch, bytes_max, &mut send_v2);
            replies.push(&first);
            let belongs = |late: &Late| {
                let is_alike = matches!(&late.message, Message::V2(next, _) if next.is_same(&seal));
                late.peer == peer && is_alike
            };
            while let Some(Late { message, .. }) = waiting.next_if(belongs) {
                if let Message::V2(_, reply) = message {
                    replies.push(&reply);
                }
            }
            replies.finish();
        }
    }
}

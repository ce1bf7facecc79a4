//! What a worker has taken and not answered yet: replies that wait for the disk, since the outcome
//! of a put is known once the disk has it, and lists that wait for their turn.

use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dkvs_common::epoch::StatedEpoch;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId};

use super::replies::ReplyAuth;
use crate::handlers::{ListQueue, Responder};

/// What one worker answers later.
pub struct Backlog {
    pub(crate) replies: Arc<DeferredReplies>,
    pub(crate) lists: ListQueue,
}

impl Backlog {
    /// Holds nothing yet, and calls `wake` when a reply can be sent and none could before.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            replies: DeferredReplies::new(wake),
            lists: ListQueue::default(),
        }
    }

    /// Where the replies wait that are known by now.
    pub fn replies(&self) -> &Arc<DeferredReplies> {
        &self.replies
    }
}

/// Where the replies of one worker wait to be sent, once they are known.
pub struct DeferredReplies {
    waiting: Mutex<Vec<DeferredReply>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A reply that waits to be sent.
pub(crate) struct DeferredReply {
    pub(crate) peer: SocketAddr,
    pub(crate) reply: Deferred,
}

/// What it is, by protocol.
pub(crate) enum Deferred {
    V1(Bytes),
    V2(ReplyAuth, StatedEpoch, ReplyMessage),
}

impl DeferredReplies {
    /// Holds none yet, and calls `wake` when a reply comes and none was there.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            wake: Box::new(wake),
        })
    }

    pub(crate) fn push(&self, peer: SocketAddr, reply: Deferred) {
        // A panic while it was locked leaves no reply half in it.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(DeferredReply { peer, reply });
        if waiting.len() == 1 {
            (self.wake)();
        }
    }

    pub(crate) fn take(&self) -> Vec<DeferredReply> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the reply to a request of DKVS/2 goes if it is deferred.
#[derive(Clone, Copy)]
pub(super) struct ReplyTo<'a> {
    pub(super) deferred: &'a Arc<DeferredReplies>,
    pub(super) peer: SocketAddr,
    pub(super) auth: &'a ReplyAuth,
    pub(super) epoch: StatedEpoch,
    pub(super) id: RequestId,
    pub(super) operation: u8,
}

impl ReplyTo<'_> {
    /// Defers the response to the request.
    pub(super) fn responder(self) -> Responder {
        let (deferred, peer, auth) = (Arc::clone(self.deferred), self.peer, self.auth.clone());
        let (epoch, id, operation) = (self.epoch, self.id, self.operation);
        Box::new(move |response| {
            let reply = ReplyMessage {
                id,
                operation,
                reply: response.into(),
            };
            deferred.push(peer, Deferred::V2(auth, epoch, reply));
        })
    }
}

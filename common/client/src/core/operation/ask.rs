//! One command to one server, whatever the others hold: how servers ask each other.

use std::time::Instant;

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Value;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::FetchFailure;
use dkvs_common::record::Digest;

use super::contract::{CommandId, Operation, Purpose, Step};
use super::outgoing::Outgoing;
use crate::core::budget::{MemoryAccount, MemoryPermit};
use crate::transport::assembly::Assembly;

const ASK: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Ask,
};

/// Sends one server a command, and fetches the rest of a long value that it answers with.
pub struct AskOperation<F> {
    to: ServerId,
    command: ReplicaCommand,
    next: Next,
    memory: MemoryAccount,
    on_end: F,
}

/// How far it is.
enum Next {
    Send,
    Await,
    /// The rest of a value is to be fetched.
    Fetch(Digest, Bytes, MemoryPermit),
    AwaitFetch(Digest, MemoryPermit),
    Ended(Option<ReplicaResponse>),
}

impl<F> AskOperation<F> {
    /// One of which nothing was sent yet. A long value takes of `memory`.
    pub fn new(to: ServerId, command: ReplicaCommand, memory: MemoryAccount, on_end: F) -> Self {
        Self {
            to,
            command,
            next: Next::Send,
            memory,
            on_end,
        }
    }

    fn end_with(&mut self, response: Option<ReplicaResponse>) {
        self.next = Next::Ended(response);
    }
}

impl<F: FnOnce(Option<ReplicaResponse>) + Send> Operation for AskOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.next, Next::Await) {
            Next::Send => Some(Step::Send {
                to: self.to,
                id: ASK,
                outgoing: Outgoing::Command(self.command.clone()),
            }),
            Next::Fetch(digest, block, permit) => {
                let key = self.command.key()?.clone();
                self.next = Next::AwaitFetch(digest.clone(), permit);
                Some(Step::Fetch {
                    from: self.to,
                    key,
                    assembly: Assembly::new(digest, &block),
                    stalls: 0,
                })
            }
            next => {
                self.next = next;
                None
            }
        }
    }

    fn handle_response(
        &mut self,
        _from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        _now: Instant,
    ) {
        if id != ASK {
            return self.end_with(None);
        }
        let response = match self.command.key() {
            Some(key) => response.checked(key),
            None => response,
        };
        match response {
            ReplicaResponse::Record { digest, block } if digest.is_beginning(&block) => {
                match self.memory.take(digest.value_bytes as usize) {
                    Ok(permit) => self.next = Next::Fetch(digest, block, permit),
                    Err(_) => self.end_with(None),
                }
            }
            response => self.end_with(Some(response)),
        }
    }

    fn handle_unreachable(
        &mut self,
        _to: ServerId,
        _id: CommandId,
        _was_sent: bool,
        _now: Instant,
    ) {
        self.end_with(None);
    }

    fn is_decided(&self) -> bool {
        matches!(self.next, Next::Ended(_))
    }

    fn handle_deadline(&mut self, _now: Instant) {
        self.end_with(None);
    }

    fn requires_tags(&self) -> bool {
        true
    }

    fn command(&self, id: CommandId) -> Option<ReplicaCommand> {
        (id == ASK).then(|| self.command.clone())
    }

    fn is_abandoned_at_end(&self, _server: ServerId, _id: CommandId) -> bool {
        true
    }

    fn handle_fetched(&mut self, _from: ServerId, value: Value) {
        if let Next::AwaitFetch(digest, permit) = std::mem::replace(&mut self.next, Next::Await) {
            let block = permit.hold(value.into_bytes());
            self.end_with(Some(ReplicaResponse::Record { digest, block }));
        }
    }

    fn handle_fetch_failed(
        &mut self,
        _from: ServerId,
        _failure: FetchFailure,
        _assembly: Option<Assembly>,
    ) {
        self.end_with(None);
    }

    fn complete(self: Box<Self>, _puts_by_v2: bool) {
        let response = match self.next {
            Next::Ended(response) => response,
            _ => None,
        };
        (self.on_end)(response);
    }
}

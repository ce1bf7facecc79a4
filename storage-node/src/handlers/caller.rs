//! What comes with a command beside itself.

use std::time::{Duration, Instant};

use dkvs_common::epoch::StatedEpoch;
use dkvs_common::model::ReplicaResponse;

use super::leaves::LeafRoom;
use crate::peer::{Account, Peer};
use crate::store::Asker;

/// Who sent a command, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// The sender.
    pub(crate) peer: Peer,
    /// The key by which it proved itself; 0 where nobody has to.
    pub(crate) key_id: u8,
    /// The number that it gave the command.
    pub(crate) request: u64,
    /// What the sender belongs to.
    pub(crate) epoch: StatedEpoch,
    /// When the command arrived.
    pub(crate) now: Instant,
    /// For how long it waits for the response from then on.
    pub(crate) wait: Duration,
    /// How long the response may be.
    pub(crate) room: ResponseRoom,
}

impl Caller {
    /// Whom its work is charged to.
    pub(crate) fn account(&self) -> Account {
        Account::of(self.peer, self.key_id)
    }

    /// Whose turn it is when the disk is read for it.
    pub(crate) fn asker(&self) -> Asker {
        Asker::of(self.account(), self.peer)
    }

    /// Until when it waits for the response.
    pub(crate) fn deadline(&self) -> Instant {
        self.now + self.wait
    }
}

/// How much of a response fits into one datagram to a caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseRoom {
    /// The bytes of a value and its content type.
    pub(crate) value_bytes: usize,
    /// The bytes of what is accepted, as a promise tells it.
    pub(crate) accepted_bytes: usize,
    /// The bytes of the entries of a page.
    pub(crate) page_bytes: usize,
    /// The bytes of an entry of a page beside its key.
    pub(crate) page_entry_bytes: usize,
    /// The entries of a leaf.
    pub(crate) leaf: LeafRoom,
}

/// Sends the response to one command, once it is known. Called once, on any thread.
pub(crate) type Responder = Box<dyn FnOnce(ReplicaResponse) + Send>;

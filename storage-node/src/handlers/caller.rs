//! What comes with a command beside itself.

use std::time::Instant;

use dkvs_common::model::ReplicaResponse;

use crate::peer::Peer;

/// Who sent a command, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// The sender.
    pub(crate) peer: Peer,
    /// The ring of the sender.
    pub(crate) epoch: u32,
    /// When the command arrived.
    pub(crate) now: Instant,
    /// How long the response may be.
    pub(crate) room: ResponseRoom,
}

/// How much of a response fits into one datagram to a caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseRoom {
    /// The bytes of a value and its content type.
    pub(crate) value_bytes: usize,
    /// The bytes of the entries of a page.
    pub(crate) page_bytes: usize,
    /// The bytes of an entry of a page beside its key.
    pub(crate) page_entry_bytes: usize,
}

/// Sends the response to one command, once it is known. Called once, on any thread.
pub(crate) type Responder = Box<dyn FnOnce(ReplicaResponse) + Send>;

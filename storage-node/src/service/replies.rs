//! Replies on their way into datagrams.

use dkvs_common::wire::v2::envelope::Builder;
use dkvs_common::wire::v2::message::ReplyMessage;
use dkvs_common::wire::v2::reply::RECORD_HEAD_BYTES;

use super::access::Seal;

/// Replies in the making: as many to a datagram as it holds.
pub(super) struct Replies<'a> {
    builder: Builder,
    seal: Seal,
    epoch: u32,
    datagram_bytes_max: usize,
    send: &'a mut dyn FnMut(Vec<u8>),
}

impl<'a> Replies<'a> {
    /// Replies of a server of a ring, which leave by calls of `send`.
    pub(super) fn new(
        seal: Seal,
        epoch: u32,
        datagram_bytes_max: usize,
        send: &'a mut dyn FnMut(Vec<u8>),
    ) -> Self {
        Self {
            builder: seal.builder(epoch, datagram_bytes_max),
            seal,
            epoch,
            datagram_bytes_max,
            send,
        }
    }

    pub(super) fn push(&mut self, message: &ReplyMessage) {
        if self.builder.push(|datagram| message.encode(datagram)) {
            return;
        }
        if !self.builder.is_empty() {
            let next = self.seal.builder(self.epoch, self.datagram_bytes_max);
            let full = std::mem::replace(&mut self.builder, next);
            (self.send)(self.seal.finish(full));
        }
        if !self.builder.push(|datagram| message.encode(datagram)) {
            // No reply of ours is longer than a datagram.
            debug_assert!(
                false,
                "a reply to operation {} fits no datagram",
                message.operation
            );
        }
    }

    /// How they are proved.
    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Sends what has not left yet.
    pub(super) fn finish(self) {
        if !self.builder.is_empty() {
            (self.send)(self.seal.finish(self.builder));
        }
    }

    /// The most bytes of a value that a reply with a record has room for.
    pub(super) fn block_bytes_max(&self, content_type: &[u8]) -> usize {
        let overhead = self.seal.envelope_bytes() + RECORD_HEAD_BYTES + content_type.len();
        self.datagram_bytes_max.saturating_sub(overhead)
    }
}

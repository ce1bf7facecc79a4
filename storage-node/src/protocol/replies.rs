//! Replies on their way into datagrams.

use dkvs_common::wire::v2::envelope::Builder;
use dkvs_common::wire::v2::message::ReplyMessage;
use dkvs_common::wire::v2::reply::RECORD_HEAD_BYTES;

use super::reply_auth::ReplyAuth;

/// Replies in the making: as many to a datagram as it holds.
pub(crate) struct Replies<'a> {
    builder: Builder,
    auth: ReplyAuth,
    epoch: u32,
    datagram_bytes_max: usize,
    send: &'a mut dyn FnMut(Vec<u8>),
}

impl<'a> Replies<'a> {
    /// Replies of a server of a ring, which leave by calls of `send`.
    pub(crate) fn new(
        auth: ReplyAuth,
        epoch: u32,
        datagram_bytes_max: usize,
        send: &'a mut dyn FnMut(Vec<u8>),
    ) -> Self {
        Self {
            builder: auth.builder(epoch, datagram_bytes_max),
            auth,
            epoch,
            datagram_bytes_max,
            send,
        }
    }

    pub(crate) fn push(&mut self, message: &ReplyMessage) {
        if self.builder.push(|datagram| message.encode(datagram)) {
            return;
        }
        if !self.builder.is_empty() {
            let next = self.auth.builder(self.epoch, self.datagram_bytes_max);
            let full = std::mem::replace(&mut self.builder, next);
            (self.send)(self.auth.finish(full));
        }
        if !self.builder.push(|datagram| message.encode(datagram)) {
            // Every response is made to fit a datagram.
            debug_assert!(
                false,
                "a reply to operation {} fits no datagram",
                message.operation
            );
        }
    }

    /// How they are authenticated.
    pub(super) fn auth(&self) -> &ReplyAuth {
        &self.auth
    }

    /// Sends what has not left yet.
    pub(crate) fn finish(self) {
        if !self.builder.is_empty() {
            (self.send)(self.auth.finish(self.builder));
        }
    }

    /// The most bytes of a value and its content type that a reply with a record has room for.
    pub(super) fn value_bytes_max(&self) -> usize {
        let overhead = self.auth.envelope_bytes() + RECORD_HEAD_BYTES;
        self.datagram_bytes_max.saturating_sub(overhead)
    }
}

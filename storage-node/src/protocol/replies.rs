//! Replies on their way into datagrams, and how these are authenticated.

use std::net::SocketAddrV4;
use std::sync::Arc;

use dkvs_common::epoch::StatedEpoch;
use dkvs_common::wire::v2::envelope::{Authentication, Builder, ClusterKey, Envelope, Sender};
use dkvs_common::wire::v2::message::ReplyMessage;
use dkvs_common::wire::v2::reply::RECORD_HEAD_BYTES;

/// Replies in the making: as many to a datagram as it holds.
pub(crate) struct Replies<'a> {
    builder: Builder,
    auth: ReplyAuth,
    epoch: StatedEpoch,
    datagram_bytes_max: usize,
    send: &'a mut dyn FnMut(Vec<u8>),
}

impl<'a> Replies<'a> {
    /// Replies of a server, which leave by calls of `send`.
    pub(crate) fn new(
        auth: ReplyAuth,
        epoch: StatedEpoch,
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

    /// What they state.
    pub(super) fn epoch(&self) -> StatedEpoch {
        self.epoch
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
        let (before, after) = self.auth.envelope(self.epoch).around();
        let overhead = before + after + RECORD_HEAD_BYTES;
        self.datagram_bytes_max.saturating_sub(overhead)
    }
}

/// How the replies to a datagram are authenticated: as it was itself. Cheap to clone.
#[derive(Clone)]
pub(crate) enum ReplyAuth {
    Checksum,
    Key(Arc<Authenticity>),
}

/// The key of a datagram, its sender, and what both its envelope and those of the replies say.
pub(crate) struct Authenticity {
    pub(super) key: ClusterKey,
    pub(super) client: SocketAddrV4,
    pub(super) authentication: Authentication,
}

impl ReplyAuth {
    /// The key that proved what is replied to; 0 where none has to.
    pub(super) fn key_id(&self) -> u8 {
        match self {
            Self::Checksum => 0,
            Self::Key(authenticity) => authenticity.authentication.key_id,
        }
    }

    /// A datagram of replies in the making.
    pub(super) fn builder(&self, epoch: StatedEpoch, datagram_bytes_max: usize) -> Builder {
        Builder::new(self.envelope(epoch), datagram_bytes_max)
    }

    fn envelope(&self, epoch: StatedEpoch) -> Envelope {
        let authentication = match self {
            Self::Checksum => None,
            Self::Key(authenticity) => Some(authenticity.authentication),
        };
        Envelope {
            sender: Sender::Server,
            epoch,
            authentication,
        }
    }

    /// The datagram of a builder of these replies.
    pub(super) fn finish(&self, builder: Builder) -> Vec<u8> {
        match self {
            Self::Checksum => builder.finish(),
            Self::Key(authenticity) => builder.finish_with(&authenticity.key, authenticity.client),
        }
    }

    /// Whether replies under both may share a datagram.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Checksum, Self::Checksum) => true,
            (Self::Key(ours), Self::Key(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }
}

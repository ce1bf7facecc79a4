//! How replies are authenticated.

use std::net::SocketAddrV4;
use std::sync::Arc;

use dkvs_common::wire::v2::envelope::{
    AUTHENTICATED_BYTES, Authentication, Builder, ClusterKey, Envelope, PLAIN_BYTES, Sender,
};

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
    /// A datagram of replies in the making.
    pub(super) fn builder(&self, epoch: u32, datagram_bytes_max: usize) -> Builder {
        let authentication = match self {
            Self::Checksum => None,
            Self::Key(authenticity) => Some(authenticity.authentication),
        };
        let envelope = Envelope {
            sender: Sender::Server,
            epoch,
            authentication,
        };
        Builder::new(envelope, datagram_bytes_max)
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

    /// Bytes around the messages of a datagram.
    pub(super) fn envelope_bytes(&self) -> usize {
        match self {
            Self::Checksum => PLAIN_BYTES,
            Self::Key(_) => AUTHENTICATED_BYTES,
        }
    }
}

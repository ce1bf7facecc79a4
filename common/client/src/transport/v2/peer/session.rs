//! Datagrams to and from a server: their envelopes, and how they are authenticated.
//!
//! Without keys, a datagram carries a checksum. With keys, it carries an authentication code, the
//! session that the server's greeting announced, and a sequence number that never repeats.

use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;

use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::model::Description;
use dkvs_common::wire::v2::envelope::{
    self, AUTHENTICATED_BYTES, Authentication, Builder, Envelope, EnvelopeError, PLAIN_BYTES,
    Proof, Sender,
};
use dkvs_common::wire::v2::keys::Keys;

/// The client's end of a session with one server.
#[derive(Debug)]
pub(super) struct Session {
    /// What this client belongs to, as servers are told that know no configurations, and as others are.
    ring: u32,
    epoch: Epoch,
    /// Whether the server knows configurations, and its own.
    is_numbered: bool,
    /// The cluster's keys, and this client's address as the server sees it.
    keys: Option<(Arc<Keys>, SocketAddrV4)>,
    id: u64,
    /// The number of the last datagram. It continues from session to session, so that each is
    /// greater than all before it.
    sequence: u64,
}

impl Session {
    pub(super) fn new(
        (ring, epoch): (u32, Epoch),
        keys: Option<(Arc<Keys>, SocketAddrV4)>,
    ) -> Self {
        Self {
            ring,
            epoch,
            is_numbered: false,
            keys,
            id: 0,
            sequence: 0,
        }
    }

    /// Uses other keys from the next datagram on. Does nothing if the cluster has none.
    pub(super) fn set_keys(&mut self, keys: Arc<Keys>) {
        if let Some((held, _)) = &mut self.keys {
            *held = keys;
        }
    }

    /// States what a server with this description understands.
    pub(super) fn set_description(&mut self, description: Option<Description>) {
        let epoch = description.and_then(|description| description.epoch);
        self.is_numbered = epoch.is_some();
    }

    /// Uses the session that a greeting announced.
    pub(super) fn set_id(&mut self, id: u64) {
        self.id = id;
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.keys.is_some()
    }

    /// The most that an envelope takes of a datagram, in bytes.
    pub(super) fn envelope_bytes(&self) -> usize {
        match self.keys {
            None => PLAIN_BYTES,
            Some(_) => AUTHENTICATED_BYTES,
        }
    }

    /// Begins a datagram of requests.
    pub(super) fn begin(&mut self, datagram_bytes_max: usize) -> Builder {
        self.sequence += 1;
        let epoch = match self.is_numbered {
            true => StatedEpoch::Numbered(self.epoch),
            false => StatedEpoch::of_ring(self.ring),
        };
        let envelope = self.envelope(epoch, self.id, self.sequence);
        // What fits is the same whatever is stated.
        let (before, after) = envelope.around();
        let spared = self.envelope_bytes() - (before + after);
        Builder::new(envelope, datagram_bytes_max - spared)
    }

    /// Begins the datagram of a greeting, which belongs to no session, and which any server understands.
    pub(super) fn begin_greeting(&self, datagram_bytes_max: usize) -> Builder {
        let ring = StatedEpoch::of_ring(self.ring);
        Builder::new(self.envelope(ring, 0, 0), datagram_bytes_max)
    }

    /// Ends a datagram with its checksum or its authentication code.
    pub(super) fn finish(&self, builder: Builder) -> Vec<u8> {
        match &self.keys {
            None => builder.finish(),
            Some((keys, client)) => builder.finish_with(keys.sending().1, *client),
        }
    }

    /// Verifies a datagram from the server and returns its messages.
    pub(super) fn open(&self, datagram: &Bytes) -> Result<(Envelope, Bytes), EnvelopeError> {
        let Some((keys, client)) = &self.keys else {
            return envelope::open(datagram, Proof::Checksum);
        };
        let authentication = envelope::peek(datagram)?.authentication;
        let authentication = authentication.ok_or(EnvelopeError::WrongProof)?;
        let key = keys.find(authentication.key_id);
        let key = key.ok_or(EnvelopeError::NotAuthentic)?;
        let client = *client;
        envelope::open(datagram, Proof::Key { key, client })
    }

    fn envelope(&self, epoch: StatedEpoch, session: u64, sequence: u64) -> Envelope {
        let authentication = self.keys.as_ref().map(|(keys, _)| Authentication {
            key_id: keys.sending().0,
            session,
            sequence,
        });
        Envelope {
            sender: Sender::Client,
            epoch,
            authentication,
        }
    }
}

//! Whether a DKVS/2 datagram is taken: what it has to prove before anything in it is looked at.
//!
//! With keys, a datagram that does not authenticate gets no answer. One that does, and shows no
//! session, may greet and nothing else: only the answer to that shows that its sender receives at
//! the address it names. So no captured datagram makes the server send anyone more than it was
//! sent.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::epoch::StatedEpoch;
use dkvs_common::wire::v2::envelope::{self, Authentication, Envelope, Proof, Sender};
use dkvs_common::wire::v2::keys::Keys;

use super::replies::{Authenticity, ReplyAuth};
use super::sessions::{Issuer, Rejection, Sessions};
use crate::statistics::Counters;

/// Whose datagrams one worker takes.
#[derive(Debug)]
pub enum Access {
    /// Anyone's: a checksum proves that a datagram is whole.
    Open,
    /// Those of senders with a key of the cluster.
    Keyed(Box<Keyed>),
}

/// The keys of the cluster, and the sessions of those who use them.
#[derive(Debug)]
pub struct Keyed {
    keys: Keys,
    sessions: Sessions,
}

/// A datagram that is taken.
pub(super) struct Opened {
    /// What its sender belongs to.
    pub(super) epoch: StatedEpoch,
    pub(super) messages: Bytes,
    pub(super) sender: SenderStatus,
    pub(super) auth: ReplyAuth,
}

/// Whether the sender of a datagram is known to receive at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SenderStatus {
    /// It is, and may ask for anything.
    InSession {
        /// Its session; 0 where there are none.
        session: u64,
    },
    /// It is not, and may greet.
    Unknown {
        /// The session that a greeting begins.
        session: u64,
    },
}

impl Access {
    /// Takes datagrams by one of `keys`, under sessions of `issuer`.
    pub fn keyed(keys: Keys, issuer: Arc<Issuer>) -> Self {
        let sessions = Sessions::new(issuer);
        Self::Keyed(Box::new(Keyed { keys, sessions }))
    }

    /// Takes these keys and no others from now on. Sessions outlast the key they began with.
    pub fn replace_keys(&mut self, keys: Keys) {
        if let Self::Keyed(keyed) = self {
            keyed.keys = keys;
        }
    }

    /// Opens a datagram, or counts why it is not taken.
    pub(super) fn open(
        &mut self,
        datagram: &Bytes,
        peer: SocketAddr,
        counters: &Counters,
    ) -> Option<Opened> {
        match self {
            Self::Open => open_plain(datagram, counters),
            Self::Keyed(keyed) => keyed.open(datagram, peer, counters),
        }
    }
}

fn open_plain(datagram: &Bytes, counters: &Counters) -> Option<Opened> {
    match envelope::open(datagram, Proof::Checksum) {
        Ok((envelope, messages)) if envelope.sender == Sender::Client => Some(Opened {
            epoch: envelope.epoch,
            messages,
            sender: SenderStatus::InSession { session: 0 },
            auth: ReplyAuth::Checksum,
        }),
        _ => {
            counters.damaged.add(1);
            None
        }
    }
}

impl Keyed {
    fn open(&mut self, datagram: &Bytes, peer: SocketAddr, counters: &Counters) -> Option<Opened> {
        let Some((envelope, messages, authenticity)) = self.authenticate(datagram, peer) else {
            counters.unauthenticated.add(1);
            return None;
        };
        let Authentication {
            session, sequence, ..
        } = authenticity.authentication;
        let client = authenticity.client;
        let sender = if session == 0 {
            let session = self.sessions.issue(client);
            SenderStatus::Unknown { session }
        } else {
            match self.sessions.take(client, session, sequence) {
                Ok(()) => SenderStatus::InSession { session },
                Err(Rejection::Session) => {
                    counters.sessions_refused.add(1);
                    return None;
                }
                Err(Rejection::Replayed) => {
                    counters.replayed.add(1);
                    return None;
                }
            }
        };
        Some(Opened {
            epoch: envelope.epoch,
            messages,
            sender,
            auth: ReplyAuth::Key(Arc::new(authenticity)),
        })
    }

    /// The envelope and the messages, if a client proved them by one of the keys.
    fn authenticate(
        &self,
        datagram: &Bytes,
        peer: SocketAddr,
    ) -> Option<(Envelope, Bytes, Authenticity)> {
        let SocketAddr::V4(client) = peer else {
            return None;
        };
        let authentication = envelope::peek(datagram).ok()?.authentication?;
        let key = self.keys.find(authentication.key_id)?;
        let (envelope, messages) = envelope::open(datagram, Proof::Key { key, client }).ok()?;
        if envelope.sender != Sender::Client {
            return None;
        }
        let authenticity = Authenticity {
            key: key.clone(),
            client,
            authentication,
        };
        Some((envelope, messages, authenticity))
    }
}

#[cfg(test)]
impl Access {
    /// How many clients have sessions.
    pub(super) fn sessions(&self) -> usize {
        match self {
            Self::Open => 0,
            Self::Keyed(keyed) => keyed.sessions.len(),
        }
    }
}

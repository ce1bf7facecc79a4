//! The envelope: what is around the messages of a datagram, and what proves them whole.
//!
//! ```text
//!   offset  bytes
//!        0      4   magic: 00 'D' 'K' '2'
//!        4      1   version: 2
//!        5      1   flags: 1 = authenticated, 2 = from the server, 4 = numbered; no other bit
//!        6      1   key id: 1 to 255 if authenticated, else 0
//!        7      1   0
//!        8      4   if numbered: the number of the sender's configuration; else the hash of its ring, 0 = it
//!                   has none
//!       12      8   hash of the configuration, if numbered only
//!               8   session  \  if authenticated only
//!               8   sequence /
//!                   messages, one after the other
//!      end-4    4   CRC32C of all before it         (plain)
//!      end-16  16   HMAC-SHA256, its first 16 bytes (authenticated)
//! ```
//!
//! Nothing of a datagram is looked at before the trailer has proved it. The HMAC (RFC 2104) is
//! over all bytes before it, followed by the client's address as the server sees it (4 bytes of
//! IPv4 and 2 of port): a datagram that was captured proves nothing when it comes from elsewhere.

use std::net::SocketAddrV4;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use super::coding::{AppendFields as _, Reader};
use super::error::WrongLength;
use super::{MAGIC, VERSION};
use crate::epoch::{Epoch, StatedEpoch};

const AUTHENTICATED: u8 = 1;
const FROM_SERVER: u8 = 2;
const NUMBERED: u8 = 4;

/// The bits of the flags that have a meaning.
pub(super) const FLAGS: u8 = AUTHENTICATED | FROM_SERVER | NUMBERED;
const CRC_BYTES: usize = 4;
const HMAC_BYTES: usize = 16;

/// The room that a datagram in the making begins with. Most are shorter, and allocators have pieces of
/// up to a kibibyte at hand.
const DATAGRAM_BYTES_USUAL: usize = 1_000;

/// Bytes around the messages of the shortest datagram.
pub const BYTES_MIN: usize = 12 + CRC_BYTES;

/// Most bytes around the messages of a plain datagram: it is numbered.
pub const PLAIN_BYTES: usize = 20 + CRC_BYTES;

/// Most bytes around the messages of an authenticated datagram: it is numbered.
pub const AUTHENTICATED_BYTES: usize = 36 + HMAC_BYTES;

/// Who sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client: the messages are requests.
    Client,
    /// A server: they are replies.
    Server,
}

/// What an envelope says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it. A datagram that comes back to its sender is no answer.
    pub sender: Sender,
    /// What the sender belongs to.
    pub epoch: StatedEpoch,
    /// The key, session and sequence of an authenticated datagram.
    pub authentication: Option<Authentication>,
}

impl Envelope {
    /// How many bytes are before the messages, and how many behind them.
    pub fn around(&self) -> (usize, usize) {
        let numbered = match self.epoch {
            StatedEpoch::Numbered(_) => 8,
            StatedEpoch::None | StatedEpoch::Ring(_) => 0,
        };
        let authenticated = self.authentication.map_or(0, |_| 16);
        (12 + numbered + authenticated, trailer_bytes(self))
    }
}

/// The part of an authenticated envelope that a plain one lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentication {
    /// Which key of the cluster, 1 to 255.
    pub key_id: u8,
    /// The session; 0 in a greeting, which begins one.
    pub session: u64,
    /// Another one in every datagram that a client sends within a session, and seldom far below
    /// the greatest so far; a reply repeats that of the datagram which it answers.
    pub sequence: u64,
}

/// A key of the cluster, prepared. Its bytes are not to be had again and never printed.
#[derive(Clone)]
pub struct ClusterKey(Hmac<Sha256>);

impl ClusterKey {
    /// Prepares 32 bytes of key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// A key for another use, which says nothing about this one. `label` names the use; it is not how
    /// a datagram begins.
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        debug_assert!(!label.starts_with(&MAGIC));
        let mut mac = self.0.clone();
        mac.update(label);
        mac.finalize().into_bytes().into()
    }

    fn authenticate(&self, datagram: &[u8], client: SocketAddrV4) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(datagram);
        mac.update(&client.ip().octets());
        mac.update(&client.port().to_be_bytes());
        mac
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// What proves a datagram.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// CRC32C: it arrived as it was sent.
    Checksum,
    /// HMAC: it was sent by someone with the key, from or to this client.
    Key {
        /// The key that the envelope names.
        key: &'a ClusterKey,
        /// The client's address, as the server sees it.
        client: SocketAddrV4,
    },
}

/// Why a datagram is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum EnvelopeError {
    #[error("the datagram is no DKVS/2")]
    NotV2,
    #[error("the datagram is DKVS/2 of version {version}, which is not understood")]
    Version { version: u8 },
    #[error("the envelope's flags, key id or reserved byte are not as they should be")]
    Flags,
    #[error("the datagram is too short for its envelope")]
    TooShort,
    #[error("the datagram is authenticated where it should not be, or not where it should")]
    WrongProof,
    #[error("the checksum does not match: the datagram was damaged")]
    Checksum,
    #[error("the datagram does not authenticate")]
    NotAuthentic,
}

impl From<WrongLength> for EnvelopeError {
    fn from(_: WrongLength) -> Self {
        Self::TooShort
    }
}

/// Reads the envelope and trusts nothing yet: to find the key with which to [`open`].
pub fn peek(datagram: &Bytes) -> Result<Envelope, EnvelopeError> {
    read(&mut Reader::new(datagram))
}

/// Verifies a datagram and returns its envelope and the bytes of its messages.
pub fn open(datagram: &Bytes, proof: Proof<'_>) -> Result<(Envelope, Bytes), EnvelopeError> {
    let mut reader = Reader::new(datagram);
    let envelope = read(&mut reader)?;
    let mut messages = reader.rest();
    let trailer_bytes = trailer_bytes(&envelope);
    let Some(messages_bytes) = messages.len().checked_sub(trailer_bytes) else {
        return Err(EnvelopeError::TooShort);
    };
    messages.truncate(messages_bytes);
    let (proved, trailer) = datagram.split_at(datagram.len() - trailer_bytes);
    match (proof, envelope.authentication) {
        (Proof::Checksum, None) => {
            if crc32c::crc32c(proved).to_be_bytes() != *trailer {
                return Err(EnvelopeError::Checksum);
            }
        }
        (Proof::Key { key, client }, Some(_)) => {
            let mac = key.authenticate(proved, client);
            // In constant time, so that the time does not show how far a guess was right.
            mac.verify_truncated_left(trailer)
                .map_err(|_| EnvelopeError::NotAuthentic)?;
        }
        _ => return Err(EnvelopeError::WrongProof),
    }
    Ok((envelope, messages))
}

fn read(reader: &mut Reader<'_>) -> Result<Envelope, EnvelopeError> {
    if reader.array() != Ok(MAGIC) {
        return Err(EnvelopeError::NotV2);
    }
    let version = reader.u8()?;
    if version != VERSION {
        return Err(EnvelopeError::Version { version });
    }
    let [flags, key_id, reserved] = reader.array()?;
    let is_authenticated = flags & AUTHENTICATED != 0;
    if flags & !FLAGS != 0 || reserved != 0 || is_authenticated != (key_id != 0) {
        return Err(EnvelopeError::Flags);
    }
    let epoch = match (flags & NUMBERED, reader.u32()?) {
        (0, ring) => StatedEpoch::of_ring(ring),
        (_, number) => StatedEpoch::Numbered(Epoch {
            number,
            hash: reader.u64()?,
        }),
    };
    let authentication = if is_authenticated {
        Some(Authentication {
            key_id,
            session: reader.u64()?,
            sequence: reader.u64()?,
        })
    } else {
        None
    };
    let sender = match flags & FROM_SERVER {
        0 => Sender::Client,
        _ => Sender::Server,
    };
    Ok(Envelope {
        sender,
        epoch,
        authentication,
    })
}

fn trailer_bytes(envelope: &Envelope) -> usize {
    match envelope.authentication {
        None => CRC_BYTES,
        Some(_) => HMAC_BYTES,
    }
}

/// A datagram in the making: an envelope, and messages for as long as they fit.
#[derive(Debug)]
pub struct Builder {
    datagram: Vec<u8>,
    envelope: Envelope,
    head_bytes: usize,
    /// The most that [`Self::datagram`] may be before the trailer.
    bytes_max: usize,
}

impl Builder {
    /// An envelope around nothing, for a datagram of at most `datagram_bytes_max` bytes.
    ///
    /// # Panics
    /// If not even an empty datagram is as short as that.
    pub fn new(envelope: Envelope, datagram_bytes_max: usize) -> Self {
        let mut datagram = Vec::with_capacity(datagram_bytes_max.min(DATAGRAM_BYTES_USUAL));
        let mut flags = 0;
        if envelope.authentication.is_some() {
            flags |= AUTHENTICATED;
        }
        if envelope.sender == Sender::Server {
            flags |= FROM_SERVER;
        }
        if matches!(envelope.epoch, StatedEpoch::Numbered(_)) {
            flags |= NUMBERED;
        }
        datagram.put(&MAGIC);
        datagram.put(&[
            VERSION,
            flags,
            envelope.authentication.map_or(0, |a| a.key_id),
            0,
        ]);
        match envelope.epoch {
            StatedEpoch::None => datagram.put_u32(0),
            StatedEpoch::Ring(ring) => datagram.put_u32(ring),
            StatedEpoch::Numbered(Epoch { number, hash }) => {
                datagram.put_u32(number);
                datagram.put_u64(hash);
            }
        }
        if let Some(authentication) = envelope.authentication {
            datagram.put_u64(authentication.session);
            datagram.put_u64(authentication.sequence);
        }
        let bytes_max = datagram_bytes_max
            .checked_sub(trailer_bytes(&envelope))
            .filter(|bytes_max| *bytes_max >= datagram.len())
            .expect("a datagram is longer than its envelope");
        Self {
            head_bytes: datagram.len(),
            datagram,
            envelope,
            bytes_max,
        }
    }

    /// How many more bytes of messages fit.
    pub fn room(&self) -> usize {
        self.bytes_max - self.datagram.len()
    }

    /// Whether there is no message yet.
    pub fn is_empty(&self) -> bool {
        self.datagram.len() == self.head_bytes
    }

    /// Appends what `write` writes, which is whole messages, if it fits; else nothing.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.datagram.len();
        write(&mut self.datagram);
        let fits = self.datagram.len() <= self.bytes_max;
        if !fits {
            self.datagram.truncate(before);
        }
        fits
    }

    /// The datagram, proved by its checksum.
    ///
    /// # Panics
    /// If the envelope is of an authenticated datagram.
    pub fn finish(mut self) -> Vec<u8> {
        assert!(
            self.envelope.authentication.is_none(),
            "authenticated datagrams need a key"
        );
        let crc = crc32c::crc32c(&self.datagram);
        self.datagram.put_u32(crc);
        self.datagram
    }

    /// The datagram, proved by a key, from or to `client`.
    ///
    /// # Panics
    /// If the envelope is of a plain datagram.
    pub fn finish_with(mut self, key: &ClusterKey, client: SocketAddrV4) -> Vec<u8> {
        assert!(
            self.envelope.authentication.is_some(),
            "a key proves authenticated datagrams"
        );
        let mac = key
            .authenticate(&self.datagram, client)
            .finalize()
            .into_bytes();
        self.datagram.put(&mac[..HMAC_BYTES]);
        self.datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 4_000);

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::new(&[byte; 32])
    }

    fn envelope(authentication: Option<Authentication>) -> Envelope {
        Envelope {
            sender: Sender::Client,
            epoch: EPOCH,
            authentication,
        }
    }

    const EPOCH: StatedEpoch = StatedEpoch::Numbered(Epoch { number: 1, hash: 7 });

    const SESSION: Option<Authentication> = Some(Authentication {
        key_id: 1,
        session: 2,
        sequence: 3,
    });

    fn sealed(authentication: Option<Authentication>, messages: &[u8]) -> Bytes {
        let mut builder = Builder::new(envelope(authentication), 1_200);
        assert!(builder.push(|datagram| datagram.put(messages)));
        match authentication {
            None => builder.finish().into(),
            Some(_) => builder.finish_with(&key(1), CLIENT).into(),
        }
    }

    #[test]
    fn what_was_sealed_opens_as_it_was() {
        let plain = sealed(None, b"messages");
        assert_eq!(plain.len(), PLAIN_BYTES + 8);
        let opened = open(&plain, Proof::Checksum).unwrap();
        assert_eq!(opened, (envelope(None), Bytes::from_static(b"messages")));

        let authentic = sealed(SESSION, b"messages");
        assert_eq!(authentic.len(), AUTHENTICATED_BYTES + 8);
        let proof = Proof::Key {
            key: &key(1),
            client: CLIENT,
        };
        let opened = open(&authentic, proof).unwrap();
        assert_eq!(opened, (envelope(SESSION), Bytes::from_static(b"messages")));
        assert_eq!(peek(&authentic), Ok(envelope(SESSION)));
    }

    #[test]
    fn every_single_bit_matters() {
        for (datagram, is_plain) in [(sealed(None, b"m"), true), (sealed(SESSION, b"m"), false)] {
            for bit in 0..datagram.len() * 8 {
                let mut flipped = datagram.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let key = key(1);
                let proof = match is_plain {
                    true => Proof::Checksum,
                    false => Proof::Key {
                        key: &key,
                        client: CLIENT,
                    },
                };
                assert!(open(&flipped.into(), proof).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn another_key_another_client_and_another_kind_of_proof_are_refused() {
        let authentic = sealed(SESSION, b"m");
        let elsewhere = SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + 1);
        let tried = |proof| open(&authentic, proof).unwrap_err();
        let (one, two) = (key(1), key(2));
        assert_eq!(
            tried(Proof::Key {
                key: &two,
                client: CLIENT
            }),
            EnvelopeError::NotAuthentic
        );
        assert_eq!(
            tried(Proof::Key {
                key: &one,
                client: elsewhere
            }),
            EnvelopeError::NotAuthentic
        );
        assert_eq!(tried(Proof::Checksum), EnvelopeError::WrongProof);
        let plain = sealed(None, b"m");
        let proof = Proof::Key {
            key: &one,
            client: CLIENT,
        };
        assert_eq!(open(&plain, proof).unwrap_err(), EnvelopeError::WrongProof);
    }

    #[test]
    fn other_versions_and_unknown_flags_are_refused_as_such() {
        let change = |offset: usize, byte: u8| {
            let mut datagram = sealed(None, b"").to_vec();
            datagram[offset] = byte;
            open(&datagram.into(), Proof::Checksum).unwrap_err()
        };
        assert_eq!(change(0, 1), EnvelopeError::NotV2);
        assert_eq!(change(4, 3), EnvelopeError::Version { version: 3 });
        assert_eq!(change(5, 12), EnvelopeError::Flags);
        assert_eq!(change(5, 5), EnvelopeError::Flags);
        assert_eq!(change(6, 1), EnvelopeError::Flags);
        assert_eq!(change(7, 1), EnvelopeError::Flags);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut builder = Builder::new(envelope(None), PLAIN_BYTES + 3);
        assert!(builder.is_empty());
        assert!(builder.push(|datagram| datagram.put(b"ab")));
        assert_eq!(builder.room(), 1);
        assert!(!builder.push(|datagram| datagram.put(b"cd")));
        assert!(builder.push(|datagram| datagram.put(b"e")));
        let datagram = Bytes::from(builder.finish());
        assert_eq!(open(&datagram, Proof::Checksum).unwrap().1, "abe");
    }

    proptest! {
        #[test]
        fn opening_is_total(datagram in prop::collection::vec(any::<u8>(), 0..100), marked: bool) {
            let mut datagram = datagram;
            if marked {
                datagram.splice(..0, [0, b'D', b'K', b'2', 2]);
            }
            let datagram = Bytes::from(datagram);
            let _ = peek(&datagram);
            prop_assert!(open(&datagram, Proof::Checksum).is_err());
            let proof = Proof::Key { key: &key(1), client: CLIENT };
            prop_assert!(open(&datagram, proof).is_err());
        }
    }
}

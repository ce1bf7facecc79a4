//! Cursors: where a list goes on, sealed.
//!
//! ```text
//!   cursor:  | version 1 | key id 1 | nonce 12 | place, encrypted 32, 64, ... | tag 16 |  in base64url
//!   place:   | kind 1: 0 before, 1 after, 2 the end | length 2 | bytes | zeros, to a multiple of 32 |
//! ```
//!
//! Whoever has a cursor learns nothing from it but about how long the key in it is, and can neither
//! make one nor change one: that takes a key of the gateways. A cursor opens for lists of the very keys
//! of the list that gave it, in the same order ([`Listed`]), and for no other. It is not bound to a
//! token: whoever may list that prefix may go on from it.
//!
//! Nothing is kept between pages, and any gateway goes on from the cursors of any other of the same
//! cluster: [`CursorKeys`] are made of what gateways have in common.
//!
//! The encryption is ChaCha20-Poly1305 (RFC 8439), with version, key id and list as associated data.
//! The nonce is the first 96 bits of an HMAC of list and place under a key of its own: two cursors have
//! the same nonce if they are the same, and else as rarely as random ones do. So it takes no random
//! source, and no count of how many were sealed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use dkvs_common::model::{Direction, KeyPosition};
use dkvs_common::view::ClusterView;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::cursor_keys::{CursorKeys, CursorSecrets};

/// Cursors of version 1 were not sealed; those of version 2 were of lists in ring order.
const VERSION: u8 = 3;

/// A place is padded to a multiple of so many bytes.
const PADDED_BYTES: usize = 32;

/// Before the nonce.
const HEAD_BYTES: usize = 2;

/// Before the bytes of a place.
const PLACE_HEAD_BYTES: usize = 3;

const BEFORE: u8 = 0;
const AFTER: u8 = 1;
const END: u8 = 2;

/// What a list is of: the parameters that all its pages have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) prefix: Bytes,
    pub(super) start: Option<Bytes>,
    pub(super) delimiter: Bytes,
    pub(super) direction: Direction,
}

/// Why there is no place in a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorError {
    /// It is of a version before, whose lists had another order.
    OfOtherOrder,
    /// It is none that such a list gave.
    Unknown,
}

impl Listed {
    /// Different bytes for different lists.
    fn encode(&self) -> Vec<u8> {
        let mut encoded = vec![match self.direction {
            Direction::Ascending => 0,
            Direction::Descending => 1,
        }];
        let empty = Bytes::new();
        let start = self.start.as_ref().unwrap_or(&empty);
        encoded.push(self.start.is_some().into());
        for bytes in [&self.prefix, start, &self.delimiter] {
            encoded.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            encoded.extend_from_slice(bytes);
        }
        encoded
    }
}

/// The cursor of a place in a list.
pub(super) fn seal(
    keys: &CursorKeys,
    view: &ClusterView,
    listed: &Listed,
    place: &KeyPosition,
) -> String {
    let (id, secrets) = keys.sealing(view);
    let sealed = CursorKey::new(&secrets).seal(id, &listed.encode(), encode(place));
    URL_SAFE_NO_PAD.encode(sealed)
}

/// The place of a cursor that a list of the same keys gave.
pub(super) fn open(
    keys: &CursorKeys,
    view: &ClusterView,
    listed: &Listed,
    cursor: &str,
) -> Result<KeyPosition, CursorError> {
    let mut sealed = URL_SAFE_NO_PAD
        .decode(cursor)
        .map_err(|_| CursorError::Unknown)?;
    match sealed.first() {
        Some(&VERSION) => {}
        Some(1..VERSION) => return Err(CursorError::OfOtherOrder),
        _ => return Err(CursorError::Unknown),
    }
    open_sealed(keys, view, listed, &mut sealed).ok_or(CursorError::Unknown)
}

fn open_sealed(
    keys: &CursorKeys,
    view: &ClusterView,
    listed: &Listed,
    sealed: &mut [u8],
) -> Option<KeyPosition> {
    let (&[_, id], _) = sealed.split_first_chunk::<HEAD_BYTES>()?;
    let secrets = keys.opening(view, id)?;
    decode(CursorKey::new(&secrets).open(id, &listed.encode(), sealed)?)
}

/// What cursors are sealed by.
struct CursorKey {
    encryption: LessSafeKey,
    nonces: hmac::Key,
}

impl CursorKey {
    fn new(secrets: &CursorSecrets) -> Self {
        let encryption = UnboundKey::new(&CHACHA20_POLY1305, &secrets.encryption);
        Self {
            encryption: LessSafeKey::new(encryption.expect("the key has 32 bytes")),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &secrets.nonces),
        }
    }

    fn nonce(&self, list: &[u8], place: &[u8]) -> [u8; NONCE_LEN] {
        let mut mac = hmac::Context::with_key(&self.nonces);
        mac.update(&(list.len() as u64).to_be_bytes());
        mac.update(list);
        mac.update(place);
        let mac = mac.sign();
        let nonce = mac.as_ref().first_chunk();
        *nonce.expect("an HMAC-SHA256 has 32 bytes")
    }

    fn seal(&self, id: u8, list: &[u8], mut place: Vec<u8>) -> Vec<u8> {
        let nonce = self.nonce(list, &place);
        let tag = self.encryption.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            associated(id, list),
            &mut place,
        );
        // It fails for what is longer than 64 GiB.
        let tag = tag.expect("a key is short enough to be encrypted");
        [&[VERSION, id], &nonce[..], &place, tag.as_ref()].concat()
    }

    fn open<'a>(&self, id: u8, list: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, sealed) = sealed[HEAD_BYTES..].split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .encryption
            .open_in_place(nonce, associated(id, list), sealed);
        opened.ok().map(|place| &*place)
    }
}

fn associated(id: u8, list: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[VERSION, id], list].concat())
}

fn encode(place: &KeyPosition) -> Vec<u8> {
    let (kind, bytes) = match place {
        KeyPosition::Before(bytes) => (BEFORE, &bytes[..]),
        KeyPosition::After(bytes) => (AFTER, &bytes[..]),
        KeyPosition::End => (END, &[][..]),
    };
    let length = u16::try_from(bytes.len()).expect("no place is longer than a key");
    let mut place = [&[kind], &length.to_be_bytes()[..], bytes].concat();
    place.resize(place.len().next_multiple_of(PADDED_BYTES), 0);
    place
}

fn decode(place: &[u8]) -> Option<KeyPosition> {
    let (&[kind, high, low], bytes) = place.split_first_chunk::<PLACE_HEAD_BYTES>()?;
    let bytes = bytes.get(..u16::from_be_bytes([high, low]).into())?;
    let bytes = Bytes::copy_from_slice(bytes);
    match kind {
        BEFORE => Some(KeyPosition::Before(bytes)),
        AFTER => Some(KeyPosition::After(bytes)),
        END => Some(KeyPosition::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

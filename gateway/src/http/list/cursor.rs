//! Cursors: where a list goes on, sealed.
//!
//! ```text
//!   cursor:  | version 1 | key id 1 | nonce 12 | place, encrypted 32, 64, ... | tag 16 |  in base64url
//!   place:   | kind 1: 0 position, 1 key | length 2 | position or key | zeros, to a multiple of 32 |
//! ```
//!
//! Whoever has a cursor learns nothing from it but about how long the key in it is, and can neither
//! make one nor change one: that takes a key of the gateways. A cursor opens for lists with the very
//! prefix of the list that gave it and for no other. It is not bound to a token: whoever may list that
//! prefix may go on from it.
//!
//! Nothing is kept between pages, and any gateway goes on from the cursors of any other of the same
//! cluster: [`CursorKeys`] are made of what gateways have in common.
//!
//! The encryption is ChaCha20-Poly1305 (RFC 8439), with version, key id and prefix as associated data.
//! The nonce is the first 96 bits of an HMAC of prefix and place under a key of its own: two cursors have
//! the same nonce if they are the same, and else as rarely as random ones do. So it takes no random
//! source, and no count of how many were sealed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dkvs_common::kv::Key;
use dkvs_common::quorum::list::ListPosition;
use dkvs_common::ring::Position;
use dkvs_common::view::ClusterView;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::cursor_keys::{CursorKeys, CursorSecrets};

/// Cursors of version 1 were not sealed.
const VERSION: u8 = 2;

/// A place is padded to a multiple of so many bytes.
const PADDED_BYTES: usize = 32;

/// Before the nonce.
const HEAD_BYTES: usize = 2;

/// Before the bytes of a place.
const PLACE_HEAD_BYTES: usize = 3;

const OF_POSITION: u8 = 0;
const OF_KEY: u8 = 1;

/// The cursor of a place in the list of a prefix.
pub(super) fn seal(
    keys: &CursorKeys,
    view: &ClusterView,
    prefix: &[u8],
    place: &ListPosition,
) -> String {
    let (id, secrets) = keys.sealing(view);
    let sealed = CursorKey::new(&secrets).seal(id, prefix, encode(place));
    URL_SAFE_NO_PAD.encode(sealed)
}

/// The place of a cursor that a list of the same prefix gave.
pub(super) fn open(
    keys: &CursorKeys,
    view: &ClusterView,
    prefix: &[u8],
    cursor: &str,
) -> Option<ListPosition> {
    let mut sealed = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (&[version, id], _) = sealed.split_first_chunk::<HEAD_BYTES>()?;
    if version != VERSION {
        return None;
    }
    let secrets = keys.opening(view, id)?;
    decode(CursorKey::new(&secrets).open(id, prefix, &mut sealed)?)
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

    fn nonce(&self, prefix: &[u8], place: &[u8]) -> [u8; NONCE_LEN] {
        let mut mac = hmac::Context::with_key(&self.nonces);
        mac.update(&(prefix.len() as u64).to_be_bytes());
        mac.update(prefix);
        mac.update(place);
        let mac = mac.sign();
        let nonce = mac.as_ref().first_chunk();
        *nonce.expect("an HMAC-SHA256 has 32 bytes")
    }

    fn seal(&self, id: u8, prefix: &[u8], mut place: Vec<u8>) -> Vec<u8> {
        let nonce = self.nonce(prefix, &place);
        let tag = self.encryption.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            associated(id, prefix),
            &mut place,
        );
        // It fails for what is longer than 64 GiB.
        let tag = tag.expect("a key is short enough to be encrypted");
        [&[VERSION, id], &nonce[..], &place, tag.as_ref()].concat()
    }

    fn open<'a>(&self, id: u8, prefix: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, sealed) = sealed[HEAD_BYTES..].split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .encryption
            .open_in_place(nonce, associated(id, prefix), sealed);
        opened.ok().map(|place| &*place)
    }
}

fn associated(id: u8, prefix: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[VERSION, id], prefix].concat())
}

fn encode(place: &ListPosition) -> Vec<u8> {
    let (kind, bytes) = match &place.after {
        None => (OF_POSITION, &place.from.0[..]),
        Some(key) => (OF_KEY, key.as_bytes()),
    };
    let length = u16::try_from(bytes.len()).expect("a key has fewer than 2^16 bytes");
    let mut place = [&[kind], &length.to_be_bytes()[..], bytes].concat();
    place.resize(place.len().next_multiple_of(PADDED_BYTES), 0);
    place
}

fn decode(place: &[u8]) -> Option<ListPosition> {
    let (&[kind, high, low], bytes) = place.split_first_chunk::<PLACE_HEAD_BYTES>()?;
    let bytes = bytes.get(..u16::from_be_bytes([high, low]).into())?;
    match kind {
        OF_POSITION => Some(ListPosition {
            from: Position(bytes.try_into().ok()?),
            after: None,
        }),
        OF_KEY => Key::new(bytes.to_vec()).ok().map(ListPosition::after),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

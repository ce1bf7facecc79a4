//! A value that is too long for a datagram, on its way from a server.
//!
//! The bytes that have arrived may go on from one server to the next: a [`Digest`] names one value
//! and no other, so blocks of it are the same wherever they come from. The whole is checked
//! against the digest's checksum before anyone sees it.

use std::collections::BTreeMap;

use bytes::Bytes;

use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, Digest, checksum};

/// A value in the making.
#[derive(Debug)]
pub struct Assembly {
    digest: Digest,
    bytes: Vec<u8>,
    /// Parts to be asked for, and parts that were asked for and have not come: offset and length.
    unasked: Vec<(u32, u32)>,
    asked: BTreeMap<u32, u32>,
}

/// The arrived bytes do not match the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch;

impl Assembly {
    /// Nothing has arrived yet but, perhaps, the beginning.
    pub fn new(digest: Digest, beginning: &[u8]) -> Self {
        let value_bytes = digest.value_bytes;
        let mut bytes = vec![0; value_bytes as usize];
        let known = beginning.len().min(bytes.len());
        bytes[..known].copy_from_slice(&beginning[..known]);
        let known = known as u32;
        let unasked = (known < value_bytes).then_some((known, value_bytes - known));
        Self {
            digest,
            bytes,
            unasked: unasked.into_iter().collect(),
            asked: BTreeMap::new(),
        }
    }

    /// Which value it is going to be.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether every byte has arrived.
    pub fn is_whole(&self) -> bool {
        self.unasked.is_empty() && self.asked.is_empty()
    }

    /// Whoever was asked is not going to answer.
    pub fn ask_anew(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.unasked.extend(asked.into_iter().rev());
    }

    /// The next part to ask for, of at most `block_bytes`: its offset and length.
    pub(super) fn poll_part(&mut self, block_bytes: u16) -> Option<(u32, u16)> {
        let (offset, bytes) = self.unasked.pop()?;
        let part = bytes.min(block_bytes.into());
        if part < bytes {
            self.unasked.push((offset + part, bytes - part));
        }
        self.asked.insert(offset, part);
        Some((offset, part as u16))
    }

    /// Part of the value arrived. What was not asked for, or came before, changes nothing;
    /// tells whether it was of use.
    pub(super) fn handle_block(&mut self, asked: (u32, u16), offset: u32, block: &Bytes) -> bool {
        let asked_bytes = u32::from(asked.1);
        let block_bytes = block.len() as u32;
        let is_wanted = self.asked.get(&asked.0) == Some(&asked_bytes);
        if !is_wanted || offset != asked.0 || block.is_empty() || block_bytes > asked_bytes {
            return false;
        }
        self.asked.remove(&offset);
        if block_bytes < asked_bytes {
            // The server sends shorter blocks than it was asked for.
            self.unasked
                .push((offset + block_bytes, asked_bytes - block_bytes));
        }
        let start = offset as usize;
        self.bytes[start..start + block.len()].copy_from_slice(block);
        true
    }

    /// The value, once it is whole.
    pub fn finish(self, key: &Key) -> Result<Value, Mismatch> {
        let Digest {
            tag,
            content_type,
            checksum: expected,
            ..
        } = self.digest;
        let value = Value::new(self.bytes).map_err(|_| Mismatch)?;
        let content = Content::Value {
            content_type,
            value,
        };
        let is_sound = checksum(key, tag, &content) == expected;
        match content {
            Content::Value { value, .. } if is_sound => Ok(value),
            _ => Err(Mismatch),
        }
    }
}

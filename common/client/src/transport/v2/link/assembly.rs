//! A value that is too long for a datagram, put together from blocks.
//!
//! Blocks from different servers may be combined: a [`Digest`] names exactly one value, so its
//! blocks are the same everywhere. The complete value is checked against the digest's checksum
//! before the caller gets it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::block_range::BlockRange;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, Digest, checksum};

/// A value of which some blocks have arrived.
#[derive(Debug)]
pub struct Assembly {
    digest: Digest,
    bytes: Vec<u8>,
    /// The parts that were not requested: offset and length in bytes, the next last.
    missing: Vec<(u32, u32)>,
    /// The blocks that were requested and have not arrived: length by offset, in bytes.
    outstanding: BTreeMap<u32, u32>,
}

/// The arrived bytes do not match the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch;

impl Assembly {
    /// A value of which only `beginning` has arrived, which may be empty.
    pub fn new(digest: Digest, beginning: &[u8]) -> Self {
        let value_bytes = digest.value_bytes;
        let mut bytes = vec![0; value_bytes as usize];
        let known = beginning.len().min(bytes.len());
        bytes[..known].copy_from_slice(&beginning[..known]);
        let known = known as u32;
        let missing = (known < value_bytes).then_some((known, value_bytes - known));
        Self {
            digest,
            bytes,
            missing: missing.into_iter().collect(),
            outstanding: BTreeMap::new(),
        }
    }

    /// Names the value.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether every byte has arrived.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.outstanding.is_empty()
    }

    /// Makes the outstanding blocks available to be requested again: their server will not answer.
    pub fn requeue_outstanding(&mut self) {
        let outstanding = std::mem::take(&mut self.outstanding);
        self.missing.extend(outstanding.into_iter().rev());
    }

    /// The next block to request, of at most `block_bytes_max` bytes.
    pub(super) fn poll_block(&mut self, block_bytes_max: u16) -> Option<BlockRange> {
        let (offset, missing_bytes) = self.missing.pop()?;
        let bytes = missing_bytes.min(block_bytes_max.into());
        if bytes < missing_bytes {
            self.missing.push((offset + bytes, missing_bytes - bytes));
        }
        self.outstanding.insert(offset, bytes);
        Some(BlockRange {
            offset,
            bytes: bytes as u16,
        })
    }

    /// Adds the answer to the request for `requested`. A block that was not requested, or arrived
    /// before, changes nothing. Returns whether the block was added.
    pub(super) fn handle_block(
        &mut self,
        requested: BlockRange,
        offset: u32,
        block: &Bytes,
    ) -> bool {
        let requested_bytes = u32::from(requested.bytes);
        let block_bytes = block.len() as u32;
        let is_outstanding = self.outstanding.get(&requested.offset) == Some(&requested_bytes);
        let is_valid =
            offset == requested.offset && !block.is_empty() && block_bytes <= requested_bytes;
        if !is_outstanding || !is_valid {
            return false;
        }
        self.outstanding.remove(&offset);
        if block_bytes < requested_bytes {
            // The server sends shorter blocks than it was asked for.
            self.missing
                .push((offset + block_bytes, requested_bytes - block_bytes));
        }
        let start = offset as usize;
        self.bytes[start..start + block.len()].copy_from_slice(block);
        true
    }

    /// The value. Fails if the bytes do not match the digest.
    pub fn finish(self, key: &Key) -> Result<Value, Mismatch> {
        let Digest {
            tag,
            attributes,
            content_type,
            checksum: expected,
            ..
        } = self.digest;
        let value = Value::new(self.bytes).map_err(|_| Mismatch)?;
        let content = Content::Value {
            content_type,
            value,
        };
        let is_sound = checksum(key, tag, &attributes, &content) == expected;
        match content {
            Content::Value { value, .. } if is_sound => Ok(value),
            _ => Err(Mismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::record::{Attributes, ContentType};
    use dkvs_common::tag::Tag;

    const TAG: Tag = Tag { time: 1, op: 0 };

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    /// A value of `bytes` bytes, all of which differ, and its digest.
    fn value(bytes: u8) -> (Vec<u8>, Digest) {
        let value: Vec<u8> = (0..bytes).collect();
        let content = Content::Value {
            content_type: ContentType::default(),
            value: Value::new(value.clone()).unwrap(),
        };
        let digest = Digest {
            tag: TAG,
            attributes: Attributes::NONE,
            content_type: ContentType::default(),
            value_bytes: bytes.into(),
            checksum: checksum(&key(), TAG, &Attributes::NONE, &content),
        };
        (value, digest)
    }

    fn block(value: &[u8], range: BlockRange) -> Bytes {
        let start = range.offset as usize;
        Bytes::copy_from_slice(&value[start..start + usize::from(range.bytes)])
    }

    fn range(offset: u32, bytes: u16) -> BlockRange {
        BlockRange { offset, bytes }
    }

    #[test]
    fn blocks_complete_a_value_in_any_order() {
        let (value, digest) = value(10);
        let mut assembly = Assembly::new(digest, &value[..1]);
        let mut requested: Vec<_> = std::iter::from_fn(|| assembly.poll_block(4)).collect();
        assert_eq!(requested, [range(1, 4), range(5, 4), range(9, 1)]);
        requested.reverse();
        for range in requested {
            assert!(!assembly.is_complete());
            assert!(assembly.handle_block(range, range.offset, &block(&value, range)));
        }
        assert!(assembly.is_complete());
        assert_eq!(assembly.finish(&key()).unwrap().as_bytes(), value);
    }

    #[test]
    fn rest_of_a_short_block_is_requested_again() {
        let (value, digest) = value(10);
        let mut assembly = Assembly::new(digest, &[]);
        let requested = assembly.poll_block(10).unwrap();
        assert!(assembly.handle_block(requested, 0, &block(&value, range(0, 7))));
        assert_eq!(assembly.poll_block(10), Some(range(7, 3)));
        assert_eq!(assembly.poll_block(10), None);
    }

    #[test]
    fn blocks_that_do_not_answer_a_request_change_nothing() {
        let (value, digest) = value(10);
        let mut assembly = Assembly::new(digest, &[]);
        let requested = assembly.poll_block(4).unwrap();
        let right = block(&value, requested);
        assert!(!assembly.handle_block(range(4, 4), 4, &block(&value, range(4, 4))));
        assert!(!assembly.handle_block(requested, 1, &right), "elsewhere");
        assert!(!assembly.handle_block(requested, 0, &Bytes::new()), "empty");
        assert!(!assembly.handle_block(requested, 0, &block(&value, range(0, 5))));
        assert!(assembly.handle_block(requested, 0, &right));
        assert!(!assembly.handle_block(requested, 0, &right), "twice");
    }

    #[test]
    fn outstanding_blocks_can_be_requested_again() {
        let (_, digest) = value(10);
        let mut assembly = Assembly::new(digest, &[]);
        assert_eq!(assembly.poll_block(4), Some(range(0, 4)));
        assert_eq!(assembly.poll_block(4), Some(range(4, 4)));
        assembly.requeue_outstanding();
        assert_eq!(assembly.poll_block(8), Some(range(0, 4)));
        assert_eq!(assembly.poll_block(8), Some(range(4, 4)));
        assert_eq!(assembly.poll_block(8), Some(range(8, 2)));
    }

    #[test]
    fn value_with_a_wrong_byte_does_not_match_its_digest() {
        let (mut value, digest) = value(10);
        value[9] ^= 1;
        let mut assembly = Assembly::new(digest, &[]);
        let requested = assembly.poll_block(10).unwrap();
        assert!(assembly.handle_block(requested, 0, &block(&value, requested)));
        assert_eq!(assembly.finish(&key()).err(), Some(Mismatch));
    }
}

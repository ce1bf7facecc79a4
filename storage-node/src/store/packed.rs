//! A key and its record in one allocation.
//!
//! ```text
//!   tag time 8 | tag op 8 | checksum 4 | kind 1 | type length 1 | key length 2 | type | key | value
//! ```
//!
//! So a pair costs 24 bytes, an allocation's header and a place in a tree beyond its own
//! bytes, and never keeps alive the datagram in which it came.

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record, checksum};
use dkvs_common::tag::Tag;

const HEAD_BYTES: usize = 24;
const TOMBSTONE: u8 = 1;

/// A key and its record.
pub struct Packed(Box<[u8]>);

impl Packed {
    pub(super) fn new(key: &Key, record: &Record) -> Self {
        let (kind, content_type, value) = parts(&record.content);
        let key = key.as_bytes();
        let mut packed =
            Vec::with_capacity(packed_bytes(key.len(), content_type.len(), value.len()));
        packed.extend_from_slice(&record.tag.time.to_be_bytes());
        packed.extend_from_slice(&record.tag.op.to_be_bytes());
        packed.extend_from_slice(&record.checksum.to_be_bytes());
        // Content types are at most 255 bytes, and keys shorter than 2^16.
        packed.extend_from_slice(&[kind, content_type.len() as u8]);
        packed.extend_from_slice(&(key.len() as u16).to_be_bytes());
        packed.extend_from_slice(content_type);
        packed.extend_from_slice(key);
        packed.extend_from_slice(value);
        Self(packed.into())
    }

    /// How many bytes a pair takes, packed.
    pub(super) fn bytes_of(key: &Key, content: &Content) -> usize {
        let (_, content_type, value) = parts(content);
        packed_bytes(key.as_bytes().len(), content_type.len(), value.len())
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0[HEAD_BYTES + self.content_type_bytes()..self.value_start()]
    }

    /// The version.
    pub fn tag(&self) -> Tag {
        let number = |at: usize| {
            let bytes = self.0[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        Tag {
            time: number(0),
            op: number(8),
        }
    }

    /// The checksum, as it was where the record entered the cluster.
    pub fn checksum(&self) -> u32 {
        u32::from_be_bytes(self.0[16..20].try_into().expect("four bytes"))
    }

    /// Whether the key is deleted.
    pub fn is_tombstone(&self) -> bool {
        self.0[20] == TOMBSTONE
    }

    /// The value's media type.
    pub fn content_type(&self) -> &[u8] {
        &self.0[HEAD_BYTES..HEAD_BYTES + self.content_type_bytes()]
    }

    /// The value's bytes; none in a tombstone.
    pub fn value(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    /// Whether the record is what once entered the cluster under this key.
    pub fn is_sound(&self) -> bool {
        let copy = Bytes::copy_from_slice;
        let content = match self.is_tombstone() {
            true => Content::Tombstone,
            false => {
                let (Ok(content_type), Ok(value)) = (
                    ContentType::new(copy(self.content_type())),
                    Value::new(copy(self.value())),
                ) else {
                    return false;
                };
                Content::Value {
                    content_type,
                    value,
                }
            }
        };
        let key = Key::new(copy(self.key()));
        key.is_ok_and(|key| checksum(&key, self.tag(), &content) == self.checksum())
    }

    fn content_type_bytes(&self) -> usize {
        self.0[21].into()
    }

    fn value_start(&self) -> usize {
        let key_bytes = u16::from_be_bytes([self.0[22], self.0[23]]);
        HEAD_BYTES + self.content_type_bytes() + usize::from(key_bytes)
    }
}

fn parts(content: &Content) -> (u8, &[u8], &[u8]) {
    match content {
        Content::Value {
            content_type,
            value,
        } => (0, content_type.as_bytes(), value.as_bytes()),
        Content::Tombstone => (TOMBSTONE, &[], &[]),
    }
}

fn packed_bytes(key_bytes: usize, content_type_bytes: usize, value_bytes: usize) -> usize {
    HEAD_BYTES + key_bytes + content_type_bytes + value_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(key: &str, content_type: &str, value: &str) -> Packed {
        let key = Key::new(key.to_owned()).unwrap();
        let content = Content::Value {
            content_type: ContentType::new(content_type.to_owned()).unwrap(),
            value: Value::new(value.to_owned()).unwrap(),
        };
        let record = Record::new(&key, Tag { time: 5, op: 6 }, content);
        let packed = Packed::new(&key, &record);
        assert_eq!(packed.bytes(), Packed::bytes_of(&key, &record.content));
        assert_eq!(packed.checksum(), record.checksum);
        packed
    }

    #[test]
    fn every_part_is_found_where_it_was_put() {
        for (key, content_type, value) in [
            ("k", "", ""),
            ("key", "text/plain", "value"),
            ("k", "t", ""),
        ] {
            let packed = packed(key, content_type, value);
            assert_eq!(packed.key(), key.as_bytes());
            assert_eq!(packed.content_type(), content_type.as_bytes());
            assert_eq!(packed.value(), value.as_bytes());
            assert_eq!(packed.tag(), Tag { time: 5, op: 6 });
            assert!(!packed.is_tombstone() && packed.is_sound());
        }
        let key = Key::new("k").unwrap();
        let tombstone = Packed::new(&key, &Record::new(&key, Tag::ZERO, Content::Tombstone));
        assert!(tombstone.is_tombstone() && tombstone.is_sound() && tombstone.value().is_empty());
    }

    #[test]
    fn a_flipped_bit_is_not_sound() {
        let sound = packed("key", "t", "value");
        for bit in 0..sound.bytes() * 8 {
            // The lengths are checked by nothing but the sum, and may make it read elsewhere.
            if (21 * 8..24 * 8).contains(&bit) {
                continue;
            }
            let mut flipped = Packed(sound.0.clone());
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            // Kinds other than value and tombstone read as a value.
            if (20 * 8 + 1..21 * 8).contains(&bit) {
                continue;
            }
            assert!(!flipped.is_sound(), "bit {bit}");
        }
    }
}

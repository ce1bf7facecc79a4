//! What a server keeps for a key: a value or a tombstone, its tag, and a checksum over it all.

use bytes::Bytes;
use thiserror::Error;

use crate::kv::{Key, Value};
use crate::tag::Tag;

/// Longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// A media type as the writer gave it: 0 to [`CONTENT_TYPE_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentType(Bytes);

/// A content type is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the content type is {content_type_bytes} bytes long; the limit is {CONTENT_TYPE_BYTES_MAX}"
)]
pub struct ContentTypeError {
    /// Its length.
    pub content_type_bytes: usize,
}

impl ContentType {
    /// Takes up to [`CONTENT_TYPE_BYTES_MAX`] bytes; none stand for an unknown type.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, ContentTypeError> {
        let bytes = bytes.into();
        if bytes.len() > CONTENT_TYPE_BYTES_MAX {
            let content_type_bytes = bytes.len();
            return Err(ContentTypeError { content_type_bytes });
        }
        Ok(Self(bytes))
    }

    /// The type's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a write writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A value.
    Value {
        /// Its media type.
        content_type: ContentType,
        /// Its bytes.
        value: Value,
    },
    /// The key is deleted.
    Tombstone,
}

/// A version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which version.
    pub tag: Tag,
    /// What it says.
    pub content: Content,
    /// [`checksum`] as it was where the record entered the cluster.
    pub checksum: u32,
}

impl Record {
    /// A new version, with its checksum.
    pub fn new(key: &Key, tag: Tag, content: Content) -> Self {
        let checksum = checksum(key, tag, &content);
        Self {
            tag,
            content,
            checksum,
        }
    }

    /// Whether the record is what once entered the cluster under this key.
    pub fn is_sound(&self, key: &Key) -> bool {
        self.checksum == checksum(key, self.tag, &self.content)
    }
}

/// What a record says, as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// 0 for a value, 1 for a tombstone.
    pub kind: u8,
    /// The value's media type, at most [`CONTENT_TYPE_BYTES_MAX`] bytes; none in a tombstone.
    pub content_type: &'a [u8],
    /// The value; no bytes in a tombstone.
    pub value: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Those of `content`.
    pub fn of(content: &'a Content) -> Self {
        let (kind, content_type, value) = match content {
            Content::Value {
                content_type,
                value,
            } => (0, content_type.as_bytes(), value.as_bytes()),
            Content::Tombstone => (1, &[][..], &[][..]),
        };
        Self {
            kind,
            content_type,
            value,
        }
    }
}

/// What identifies a replica's value without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Which version.
    pub tag: Tag,
    /// The value's media type.
    pub content_type: ContentType,
    /// The value's length in bytes.
    pub value_bytes: u32,
    /// The record's checksum.
    pub checksum: u32,
}

impl Digest {
    /// Whether these bytes are only the beginning of the value, which is longer.
    pub fn is_beginning(&self, block: &[u8]) -> bool {
        block.len() < self.value_bytes as usize
    }
}

/// CRC32C over key, tag, kind, content type and value, each with its length where it varies.
/// Computed where a record enters the cluster and verified wherever it is read.
pub fn checksum(key: &Key, tag: Tag, content: &Content) -> u32 {
    checksum_of(key.as_bytes(), tag, &Parts::of(content))
}

/// The same, of bytes that may have been damaged meanwhile.
pub fn checksum_of(key: &[u8], tag: Tag, parts: &Parts<'_>) -> u32 {
    let mut head = [0; 20];
    head[..8].copy_from_slice(&tag.time.to_be_bytes());
    head[8..16].copy_from_slice(&tag.op.to_be_bytes());
    head[16..18].copy_from_slice(&(key.len() as u16).to_be_bytes());
    head[18] = parts.kind;
    head[19] = parts.content_type.len() as u8;
    [&head[..], key, parts.content_type, parts.value]
        .iter()
        .fold(0, |crc, bytes| crc32c::crc32c_append(crc, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn content(content_type: &str, value: &str) -> Content {
        Content::Value {
            content_type: ContentType::new(content_type.to_owned()).unwrap(),
            value: Value::new(value.to_owned()).unwrap(),
        }
    }

    #[test]
    fn the_checksum_covers_every_part_and_where_each_ends() {
        let tag = Tag { time: 1, op: 2 };
        let other_time = Tag { time: 2, ..tag };
        let other_op = Tag { op: 3, ..tag };
        let sums = [
            checksum(&key("k"), tag, &content("t", "v")),
            checksum(&key("l"), tag, &content("t", "v")),
            checksum(&key("k"), other_time, &content("t", "v")),
            checksum(&key("k"), other_op, &content("t", "v")),
            checksum(&key("k"), tag, &content("u", "v")),
            checksum(&key("k"), tag, &content("t", "w")),
            checksum(&key("kt"), tag, &content("", "v")),
            checksum(&key("k"), tag, &content("", "tv")),
            checksum(&key("k"), tag, &content("tv", "")),
            checksum(&key("k"), tag, &content("", "")),
            checksum(&key("k"), tag, &Content::Tombstone),
        ];
        for (place, sum) in sums.iter().enumerate() {
            assert!(
                !sums[..place].contains(sum),
                "{place} is like one before it"
            );
        }
    }

    #[test]
    fn a_changed_record_is_not_sound() {
        let record = Record::new(&key("k"), Tag { time: 1, op: 1 }, content("", "v"));
        assert!(record.is_sound(&key("k")));
        assert!(!record.is_sound(&key("K")));
        let damaged = Record {
            content: content("", "w"),
            ..record
        };
        assert!(!damaged.is_sound(&key("k")));
    }

    #[test]
    fn content_types_are_bounded() {
        assert!(ContentType::new(vec![b'a'; 255]).is_ok());
        assert!(ContentType::new(vec![b'a'; 256]).is_err());
    }
}

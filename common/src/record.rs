//! What a server keeps for a key: a value or a tombstone, its tag, its [`Attributes`], and a checksum
//! over it all.

mod attributes;

use bytes::Bytes;
use thiserror::Error;

use crate::kv::{Key, Value};
use crate::tag::Tag;

pub use attributes::{Attributes, AttributesError, OperationId};

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

impl Content {
    /// The same in memory of its own, so that no datagram is kept for it.
    #[must_use]
    pub fn owned(self) -> Self {
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        match self {
            Self::Tombstone => Self::Tombstone,
            Self::Value {
                content_type,
                value,
            } => Self::Value {
                content_type: ContentType(copy(&content_type.0)),
                value: Value::new(copy(value.as_bytes())).unwrap_or(value),
            },
        }
    }
}

/// A version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which version.
    pub tag: Tag,
    /// What it says beside its content.
    pub attributes: Attributes,
    /// What it says.
    pub content: Content,
    /// [`checksum`] as it was where the record entered the cluster.
    pub checksum: u32,
}

impl Record {
    /// A new version without attributes, with its checksum.
    pub fn new(key: &Key, tag: Tag, content: Content) -> Self {
        Self::with_attributes(key, tag, Attributes::NONE, content)
    }

    /// A new version, with its checksum.
    pub fn with_attributes(key: &Key, tag: Tag, attributes: Attributes, content: Content) -> Self {
        let checksum = checksum(key, tag, &attributes, &content);
        Self {
            tag,
            attributes,
            content,
            checksum,
        }
    }

    /// Which record it is, and of which age.
    pub fn version(&self) -> RecordVersion {
        RecordVersion {
            tag: self.tag,
            checksum: self.checksum,
            born: self.attributes.born,
        }
    }

    /// The same in memory of its own, so that no datagram is kept for it.
    #[must_use]
    pub fn owned(self) -> Self {
        let content = self.content.owned();
        Self { content, ..self }
    }

    /// Whether the record is what once entered the cluster under this key, whatever its age.
    pub fn is_sound(&self, key: &Key) -> bool {
        self.checksum == checksum(key, self.tag, &self.attributes, &self.content)
    }
}

/// Which record a copy is of, and of which age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordVersion {
    /// The record's tag.
    pub tag: Tag,
    /// Its checksum.
    pub checksum: u32,
    /// The copy's age: see [`Attributes::born`].
    pub born: u32,
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
        match content {
            Content::Value {
                content_type,
                value,
            } => Self::of_value(content_type, value.as_bytes()),
            Content::Tombstone => Self {
                kind: 1,
                content_type: &[],
                value: &[],
            },
        }
    }

    /// Those of a value.
    pub fn of_value(content_type: &'a ContentType, value: &'a [u8]) -> Self {
        Self {
            kind: 0,
            content_type: content_type.as_bytes(),
            value,
        }
    }
}

/// What identifies a replica's value without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Which version.
    pub tag: Tag,
    /// What the record says beside its content.
    pub attributes: Attributes,
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

    /// Whether both name one record: all is the same but perhaps the age, which may differ between
    /// its copies.
    pub fn names_same_record(&self, other: &Self) -> bool {
        self.tag == other.tag
            && self.checksum == other.checksum
            && self.value_bytes == other.value_bytes
            && self.content_type == other.content_type
            && self.attributes.of_record() == other.attributes.of_record()
    }
}

/// CRC32C over key, tag, kind, content type, value, and expiry and operation if the record has them;
/// each with its length where it varies. Computed where a record enters the cluster and verified
/// wherever it is read. Its age is not in it.
pub fn checksum(key: &Key, tag: Tag, attributes: &Attributes, content: &Content) -> u32 {
    checksum_of(key.as_bytes(), tag, attributes, &Parts::of(content))
}

/// The same, of bytes that may have been damaged meanwhile.
pub fn checksum_of(key: &[u8], tag: Tag, attributes: &Attributes, parts: &Parts<'_>) -> u32 {
    let attributes = attributes.of_record();
    let mut head = [0; 20];
    head[..8].copy_from_slice(&tag.time.to_be_bytes());
    head[8..16].copy_from_slice(&tag.op.to_be_bytes());
    head[16..18].copy_from_slice(&(key.len() as u16).to_be_bytes());
    // Which attributes follow; of a record that has none, only the kind.
    head[18] = parts.kind ^ attributes.flags() << 4;
    head[19] = parts.content_type.len() as u8;
    let fields = attributes.fields();
    [&head[..], &fields, key, parts.content_type, parts.value]
        .iter()
        // Most records have neither attributes nor a media type.
        .filter(|bytes| !bytes.is_empty())
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
        let checksum = |key: &Key, tag, content: &Content| {
            super::checksum(key, tag, &Attributes::NONE, content)
        };
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
    fn the_checksum_covers_expiry_and_operation_and_not_the_age() {
        let (key, tag, content) = (key("k"), Tag { time: 1, op: 2 }, content("t", "v"));
        let sum = |expires_ms, operation: Option<u8>, born| {
            let operation = operation.map(|byte| OperationId([byte; 16]));
            let attributes = Attributes {
                born,
                expires_ms,
                operation,
            };
            checksum(&key, tag, &attributes, &content)
        };
        let sums = [
            sum(None, None, 0),
            sum(Some(0), None, 0),
            sum(Some(1), None, 0),
            sum(None, Some(0), 0),
            sum(None, Some(1), 0),
            sum(Some(1), Some(1), 0),
            sum(Some(1), Some(2), 0),
        ];
        for (place, one) in sums.iter().enumerate() {
            assert!(!sums[..place].contains(one), "{place} is like one before");
        }
        assert_eq!(sum(None, None, 7), sums[0]);
        assert_eq!(sum(Some(1), Some(2), 7), sums[6]);
    }

    /// Records that were stored and sent before there were attributes are sound for ever.
    #[test]
    fn the_checksum_of_a_record_without_attributes_is_what_it_always_was() {
        let tag = Tag {
            time: 0x0192_f0c4_a1b2_0001,
            op: 0x9f3c_21d4_0000_0007,
        };
        let value = content("text/plain", "value");
        let sum = |content| checksum(&key("key"), tag, &Attributes::NONE, content);
        let all = [
            &tag.time.to_be_bytes()[..],
            &tag.op.to_be_bytes(),
            &[0, 3, 0, 10],
            b"keytext/plainvalue",
        ];
        assert_eq!(sum(&value), crc32c::crc32c(&all.concat()));
        let all = [all[0], all[1], &[0, 3, 1, 0], b"key"];
        assert_eq!(sum(&Content::Tombstone), crc32c::crc32c(&all.concat()));
    }

    #[test]
    fn digests_that_differ_in_the_age_alone_name_one_record() {
        let digest = Digest {
            tag: Tag { time: 1, op: 2 },
            attributes: Attributes::NONE,
            content_type: ContentType::default(),
            value_bytes: 1,
            checksum: 2,
        };
        let with = |change: fn(&mut Digest)| {
            let mut other = digest.clone();
            change(&mut other);
            digest.names_same_record(&other)
        };
        assert!(with(|it| it.attributes.born = 7));
        assert!(!with(|it| it.attributes.expires_ms = Some(1)));
        assert!(!with(
            |it| it.attributes.operation = Some(OperationId([1; 16]))
        ));
        assert!(!with(|it| it.tag.op = 3));
        assert!(!with(|it| it.content_type = ContentType::new("t").unwrap()));
        assert!(!with(|it| it.value_bytes = 2));
        assert!(!with(|it| it.checksum = 3));
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

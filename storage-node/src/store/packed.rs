//! A key and its record in one allocation.
//!
//! ```text
//!   tag time 8 | tag op 8 | checksum 4 | kind 1 | type length 1 | key length 2 | attributes | type | key | value
//!
//!   kind        bit 0: a tombstone; bits 4 to 6: which attributes there are; bit 7: the value has a byte 0
//!   attributes  born 4 | expires 8 | operation 16: those that the kind names
//! ```
//!
//! So a pair costs 24 bytes, an allocation's header and a place in a tree beyond its own
//! bytes and its attributes, and never keeps alive the datagram in which it came.

use dkvs_common::kv::Key;
use dkvs_common::record::{Attributes, Content, Parts, Record, RecordVersion, checksum_of};
use dkvs_common::tag::Tag;

use super::head::{RecordHead, TableEntry};
use super::view::{Part, RecordView};

const HEAD_BYTES: usize = 24;

/// Where the byte of the kind is.
const KIND: usize = 20;
const TOMBSTONE: u8 = 1;

/// Beside the kind: which attributes there are, as their flags say.
const ATTRIBUTES_SHIFT: u32 = 4;
const ATTRIBUTES: u8 = 0x70;

/// Beside the kind, and no part of what was written: the value has a byte 0.
const HAS_NUL: u8 = 0x80;

/// A key and its record.
pub(super) struct PackedRecord(Box<[u8]>);

impl PackedRecord {
    pub(super) fn new(key: &Key, record: &Record) -> Self {
        let Parts {
            kind,
            content_type,
            value,
        } = Parts::of(&record.content);
        let (key, attributes) = (key.as_bytes(), &record.attributes);
        let lengths = [key.len(), content_type.len(), value.len()];
        let mut packed = Vec::with_capacity(packed_bytes(attributes, lengths));
        packed.extend_from_slice(&record.tag.time.to_be_bytes());
        packed.extend_from_slice(&record.tag.op.to_be_bytes());
        packed.extend_from_slice(&record.checksum.to_be_bytes());
        // Content types are at most 255 bytes, and keys shorter than 2^16.
        let has_nul = if value.contains(&0) { HAS_NUL } else { 0 };
        let kind = kind | attributes.flags() << ATTRIBUTES_SHIFT | has_nul;
        packed.extend_from_slice(&[kind, content_type.len() as u8]);
        packed.extend_from_slice(&(key.len() as u16).to_be_bytes());
        attributes.encode_fields(&mut packed);
        packed.extend_from_slice(content_type);
        packed.extend_from_slice(key);
        packed.extend_from_slice(value);
        Self(packed.into())
    }

    /// How many bytes a pair takes, packed.
    pub(super) fn bytes_of(key: &Key, attributes: &Attributes, content: &Content) -> usize {
        let parts = Parts::of(content);
        let lengths = [
            key.as_bytes().len(),
            parts.content_type.len(),
            parts.value.len(),
        ];
        packed_bytes(attributes, lengths)
    }

    /// The checksum, as it was where the record entered the cluster.
    pub(super) fn checksum(&self) -> u32 {
        u32::from_be_bytes(self.0[16..20].try_into().expect("four bytes"))
    }

    /// What the record says beside its content; nothing if that is damaged.
    pub(super) fn attributes(&self) -> Attributes {
        let fields = &self.0[HEAD_BYTES..self.attributes_end()];
        Attributes::decode_fields(self.attribute_flags(), fields).unwrap_or_default()
    }

    /// Whether the key is deleted.
    pub(super) fn is_tombstone(&self) -> bool {
        self.kind() == TOMBSTONE
    }

    /// The value's media type.
    pub(super) fn content_type(&self) -> &[u8] {
        let start = self.attributes_end();
        &self.0[start..start + self.content_type_bytes()]
    }

    /// The value's bytes; none in a tombstone.
    pub(super) fn value(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    /// Whether the record is what once entered the cluster under this key.
    pub(super) fn is_sound(&self) -> bool {
        if self.value_start() > self.0.len() {
            return false;
        }
        let parts = Parts {
            kind: self.kind(),
            content_type: self.content_type(),
            value: self.value(),
        };
        checksum_of(self.key(), self.tag(), &self.attributes(), &parts) == self.checksum()
    }

    /// As a read of a part is shown it.
    pub(super) fn view(&self, part: Part) -> RecordView<'_> {
        let (value, attributes) = (self.value(), self.attributes());
        RecordView {
            head: self.head_with(&attributes),
            attributes,
            content_type: self.content_type(),
            value: &value[part.range(value.len())],
        }
    }

    /// What is known of the record without its value, whose attributes are these.
    fn head_with(&self, attributes: &Attributes) -> RecordHead {
        RecordHead {
            tag: self.tag(),
            checksum: self.checksum(),
            born: attributes.born,
            has_more_attributes: !attributes.of_record().is_none(),
            value_bytes: self.value().len() as u32,
            is_tombstone: self.is_tombstone(),
            has_nul: self.0[KIND] & HAS_NUL != 0,
            is_quarantined: false,
            is_damaged: false,
        }
    }

    fn kind(&self) -> u8 {
        self.0[KIND] & !(HAS_NUL | ATTRIBUTES)
    }

    fn attribute_flags(&self) -> u8 {
        (self.0[KIND] & ATTRIBUTES) >> ATTRIBUTES_SHIFT
    }

    fn attributes_end(&self) -> usize {
        HEAD_BYTES + Attributes::fields_bytes(self.attribute_flags())
    }

    fn content_type_bytes(&self) -> usize {
        self.0[21].into()
    }

    fn value_start(&self) -> usize {
        let key_bytes = u16::from_be_bytes([self.0[22], self.0[23]]);
        self.attributes_end() + self.content_type_bytes() + usize::from(key_bytes)
    }
}

/// The bytes of a pair whose key, type and value have these lengths.
impl TableEntry for PackedRecord {
    fn key(&self) -> &[u8] {
        &self.0[self.attributes_end() + self.content_type_bytes()..self.value_start()]
    }

    fn head(&self) -> RecordHead {
        self.head_with(&self.attributes())
    }

    fn version(&self) -> RecordVersion {
        RecordVersion {
            tag: self.tag(),
            checksum: self.checksum(),
            born: self.attributes().born,
        }
    }

    fn tag(&self) -> Tag {
        let number = |at: usize| {
            let bytes = self.0[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        Tag {
            time: number(0),
            op: number(8),
        }
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

fn packed_bytes(attributes: &Attributes, lengths: [usize; 3]) -> usize {
    HEAD_BYTES + Attributes::fields_bytes(attributes.flags()) + lengths.iter().sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::kv::Value;
    use dkvs_common::record::{ContentType, OperationId};

    const ALL: Attributes = Attributes {
        born: 7,
        expires_ms: Some(8),
        operation: Some(OperationId([9; 16])),
    };

    /// Each choice of attributes.
    fn choices() -> impl Iterator<Item = Attributes> {
        (0..8).map(|choice| Attributes {
            born: if choice & 1 != 0 { ALL.born } else { 0 },
            expires_ms: ALL.expires_ms.filter(|_| choice & 2 != 0),
            operation: ALL.operation.filter(|_| choice & 4 != 0),
        })
    }

    fn packed(key: &str, content_type: &str, value: &str) -> PackedRecord {
        packed_with(Attributes::NONE, key, content_type, value)
    }

    fn packed_with(
        attributes: Attributes,
        key: &str,
        content_type: &str,
        value: &str,
    ) -> PackedRecord {
        let key = Key::new(key.to_owned()).unwrap();
        let content = Content::Value {
            content_type: ContentType::new(content_type.to_owned()).unwrap(),
            value: Value::new(value.to_owned()).unwrap(),
        };
        let tag = Tag { time: 5, op: 6 };
        let record = Record::with_attributes(&key, tag, attributes, content);
        let packed = PackedRecord::new(&key, &record);
        let bytes = PackedRecord::bytes_of(&key, &record.attributes, &record.content);
        assert_eq!(packed.bytes(), bytes);
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
            let without = packed(key, content_type, value).bytes();
            for attributes in choices() {
                let packed = packed_with(attributes, key, content_type, value);
                assert_eq!(packed.attributes(), attributes);
                assert_eq!(packed.head().born, attributes.born);
                assert_eq!(
                    packed.head().has_more_attributes,
                    !attributes.of_record().is_none()
                );
                assert_eq!(packed.key(), key.as_bytes());
                assert_eq!(packed.content_type(), content_type.as_bytes());
                assert_eq!(packed.value(), value.as_bytes());
                assert_eq!(packed.tag(), Tag { time: 5, op: 6 });
                assert!(!packed.is_tombstone() && packed.is_sound());
                let more = Attributes::fields_bytes(attributes.flags());
                assert_eq!(packed.bytes(), without + more);
            }
        }
        assert_eq!(packed("k", "", "").bytes(), HEAD_BYTES + 1);
        let key = Key::new("k").unwrap();
        let tombstone = PackedRecord::new(&key, &Record::new(&key, Tag::ZERO, Content::Tombstone));
        assert!(tombstone.is_tombstone() && tombstone.is_sound() && tombstone.value().is_empty());
        let record = Record::with_attributes(&key, Tag::ZERO, ALL, Content::Tombstone);
        let tombstone = PackedRecord::new(&key, &record);
        assert!(tombstone.is_tombstone() && tombstone.is_sound() && tombstone.value().is_empty());
        assert_eq!(tombstone.attributes(), ALL);
    }

    #[test]
    fn a_flipped_bit_is_not_sound() {
        let without_age = Attributes { born: 0, ..ALL };
        for attributes in [Attributes::NONE, without_age] {
            look_at_flipped_bits(&packed_with(attributes, "key", "t", "value"));
        }
    }

    fn look_at_flipped_bits(sound: &PackedRecord) {
        for bit in 0..sound.bytes() * 8 {
            let mut flipped = PackedRecord(sound.0.clone());
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            // What the store notes of the value is no part of what was written.
            if bit == 20 * 8 + 7 {
                assert!(flipped.is_sound() && flipped.head().has_nul);
                continue;
            }
            assert!(!flipped.is_sound(), "bit {bit}");
        }
    }
}

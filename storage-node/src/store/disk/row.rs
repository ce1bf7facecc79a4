//! A record as it lies in the log.
//!
//! ```text
//!   head checksum 4 | generation 4 | the record, packed
//!
//!   the head: generation and all of the packed record but its value
//! ```
//!
//! Two checksums distinguish two kinds of damage. If the head is sound, the key and the version of
//! the record are known: that key is answered with `corrupt`, and the others are not affected. If
//! the head is not sound, the record could have been a newer version of any key.

use thiserror::Error;

use crate::store::packed::PackedRecord;

/// Bytes of a row beside the packed record.
pub(super) const ROW_HEAD_BYTES: usize = 8;

/// A row of the log.
pub(super) struct Row {
    /// The store's generation when it was attested: records of older ones are quarantined.
    pub(super) generation: u32,
    /// The record, whose value may be damaged.
    pub(super) packed: PackedRecord,
}

/// The head of a row is not what was written, so nothing says what the row was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record's head is damaged")]
pub(super) struct HeadDamaged;

impl Row {
    pub(super) fn encode(generation: u32, packed: &PackedRecord) -> Vec<u8> {
        let generation = generation.to_be_bytes();
        let sum = head_checksum(generation, packed);
        let mut row = Vec::with_capacity(ROW_HEAD_BYTES + packed.bytes());
        row.extend_from_slice(&sum.to_be_bytes());
        row.extend_from_slice(&generation);
        packed.write_to(&mut row);
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, HeadDamaged> {
        let (sum, rest) = row.split_first_chunk::<4>().ok_or(HeadDamaged)?;
        let (generation, rest) = rest.split_first_chunk::<4>().ok_or(HeadDamaged)?;
        let packed = PackedRecord::read_from(rest).ok_or(HeadDamaged)?;
        if head_checksum(*generation, &packed) != u32::from_be_bytes(*sum) {
            return Err(HeadDamaged);
        }
        let generation = u32::from_be_bytes(*generation);
        Ok(Self { generation, packed })
    }

    /// The bytes of the row of a record.
    pub(super) fn bytes_of(packed: &PackedRecord) -> u64 {
        (ROW_HEAD_BYTES + packed.bytes()) as u64
    }
}

fn head_checksum(generation: [u8; 4], packed: &PackedRecord) -> u32 {
    let mut sum = crc32c::crc32c(&generation);
    sum = crc32c::crc32c_append(sum, &(packed.value().len() as u64).to_be_bytes());
    packed.with_head(|head| crc32c::crc32c_append(sum, head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use dkvs_common::kv::{Key, Value};
    use dkvs_common::record::{Content, ContentType, Record};
    use dkvs_common::tag::Tag;

    fn packed() -> PackedRecord {
        let key = Key::new("key").unwrap();
        let content = Content::Value {
            content_type: ContentType::new("a/b").unwrap(),
            value: Value::new(Bytes::from_static(b"value")).unwrap(),
        };
        PackedRecord::new(&key, &Record::new(&key, Tag { time: 7, op: 8 }, content))
    }

    #[test]
    fn a_row_is_read_as_it_was_written_but_for_the_quarantine() {
        let mut quarantined = packed();
        quarantined.set_quarantined(true);
        let row = Row::decode(&Row::encode(3, &quarantined)).unwrap();
        assert_eq!(row.generation, 3);
        assert!(row.packed.is_sound() && !row.packed.is_quarantined());
        assert_eq!(row.packed.value(), b"value");
        assert_eq!(
            Row::bytes_of(&quarantined) as usize,
            Row::encode(3, &quarantined).len()
        );
    }

    #[test]
    fn any_flipped_bit_is_seen_and_one_in_the_value_leaves_key_and_tag_known() {
        let sound = Row::encode(3, &packed());
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is_in_value = bit / 8 >= sound.len() - 5;
            match Row::decode(&flipped) {
                Ok(row) => {
                    assert!(is_in_value, "bit {bit}");
                    assert!(!row.packed.is_sound());
                    assert_eq!(
                        (row.packed.key(), row.packed.tag()),
                        (&b"key"[..], packed().tag())
                    );
                }
                Err(HeadDamaged) => assert!(!is_in_value, "bit {bit}"),
            }
        }
        for length in 0..sound.len() {
            assert!(Row::decode(&sound[..length]).is_err());
        }
    }
}

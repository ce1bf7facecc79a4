//! Records as they lie in the log: the head, which memory needs, and the value behind it.
//!
//! ```text
//!   head of a record     version 1 | flags 1 | tag time 8 | tag op 8 | checksum 4 | value bytes 4 | born 4
//!   value of a record    [expiry 8] [operation 16] [slot: bytes 4 | slot] | type bytes 1 | type | value
//!
//!   head of a slot       version 2, and otherwise like a record's: tag of the version that it follows
//!   value of a slot      as in [`dkvs_common::slot`]
//!
//!   head of the manifest version 1 | flags 1 | is complete 1 | floor 8 | unsynced run 8 | lineage 8
//!   value of it          for each part of the ring that is attested: first position 20 | last position 20
//!
//!   flags   0-1  0: a value, 1: a tombstone, 2: a removal, 3: the manifest of the store
//!           2    quarantined
//!           3    the value has a byte 0
//!           4-6  there are an expiry, an operation, a slot
//!           7    0
//! ```
//!
//! Numbers are little-endian. The key is the log's own; the manifest's has no bytes, which no other key
//! is. A removal says that older records of its key are dead, and has the tag that was removed. The
//! log has checksums of its own over all of it. Of a tombstone and a removal nothing but the flags can
//! have a value.
//!
//! What is not used yet is written as zero, or not at all, and carried along where it is found.

use dkvs_common::kv::Key;
use dkvs_common::record::{
    Attributes, Content, OperationId, Parts, Record, RecordVersion, checksum_of,
};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use thiserror::Error;

use crate::store::ranges::{Interval, IntervalSet};

/// The version that is written of all but slots.
const VERSION: u8 = 1;

/// That of slots, and the newest that is read.
const VERSION_OF_SLOTS: u8 = 2;

/// Bytes of a record's head.
pub(super) const HEAD_BYTES: usize = 30;

const MANIFEST_BYTES: usize = 27;

/// The same before there were lineages.
const MANIFEST_BYTES_WITHOUT_LINEAGE: usize = 19;

/// Bytes of a part of the ring.
const INTERVAL_BYTES: usize = 40;

const KIND: u8 = 0b11;

/// What flags say, beside the kind.
pub(super) mod flags {
    pub(in super::super) const QUARANTINED: u8 = 1 << 2;
    pub(in super::super) const HAS_NUL: u8 = 1 << 3;
    pub(in super::super) const HAS_EXPIRY: u8 = 1 << 4;
    pub(in super::super) const HAS_OPERATION: u8 = 1 << 5;
    pub(in super::super) const HAS_SLOT: u8 = 1 << 6;
    pub(in super::super) const RESERVED: u8 = 1 << 7;
}

/// What a record of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Value = 0,
    Tombstone = 1,
    /// Older records of the key are dead, and there is none.
    Removal = 2,
    Manifest = 3,
    /// What is accepted as what follows a version. It stands beside the record of its key.
    Slot = 4,
}

impl Kind {
    fn of(flags: u8) -> Self {
        match flags & KIND {
            0 => Self::Value,
            1 => Self::Tombstone,
            2 => Self::Removal,
            _ => Self::Manifest,
        }
    }
}

/// The head of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredHead {
    pub(super) kind: Kind,
    /// Without the kind.
    pub(super) flags: u8,
    pub(super) tag: Tag,
    pub(super) checksum: u32,
    pub(super) value_bytes: u32,
    pub(super) born: u32,
}

/// What a store knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Manifest {
    /// Whether the store holds all that its server confirmed.
    pub(super) is_complete: bool,
    /// Records with this number or a smaller one are quarantined: something newer of their keys may
    /// have been lost.
    pub(super) floor: u64,
    /// The run of the machine in which records were confirmed without a sync; 0 if in none.
    pub(super) unsynced_run: u64,
    /// Another one after whatever was lost or declared; 0 if there was none yet.
    pub(super) lineage: u64,
}

/// The head of a record of the log, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    Record(StoredHead),
    Manifest(Manifest),
}

/// The head of a record is not one that this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum UnknownHead {
    #[error("it has the version {0}; this one knows those up to {VERSION_OF_SLOTS}")]
    Newer(u8),
    #[error("it has a form that this version does not know")]
    Form,
}

impl StoredHead {
    pub(super) fn of_removal(tag: Tag) -> Self {
        Self {
            kind: Kind::Removal,
            flags: 0,
            tag,
            checksum: 0,
            value_bytes: 0,
            born: 0,
        }
    }

    /// Of what is accepted as what follows `base`.
    pub(super) fn of_slot(base: Tag, value_bytes: u32) -> Self {
        Self {
            kind: Kind::Slot,
            value_bytes,
            ..Self::of_removal(base)
        }
    }

    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        (out[0], out[1]) = match self.kind {
            Kind::Slot => (VERSION_OF_SLOTS, 0),
            kind => (VERSION, kind as u8 | self.flags),
        };
        out[2..10].copy_from_slice(&self.tag.time.to_le_bytes());
        out[10..18].copy_from_slice(&self.tag.op.to_le_bytes());
        out[18..22].copy_from_slice(&self.checksum.to_le_bytes());
        out[22..26].copy_from_slice(&self.value_bytes.to_le_bytes());
        out[26..30].copy_from_slice(&self.born.to_le_bytes());
        out
    }

    /// Which record it is, and of which age.
    pub(super) fn version(&self) -> RecordVersion {
        RecordVersion {
            tag: self.tag,
            checksum: self.checksum,
            born: self.born,
        }
    }

    /// The bytes of the log's value before the value itself.
    pub(super) fn prefix_bytes(&self, log_value_bytes: usize) -> usize {
        log_value_bytes.saturating_sub(self.value_bytes as usize)
    }
}

impl Manifest {
    pub(super) fn encode(&self) -> [u8; MANIFEST_BYTES] {
        let mut out = [0; MANIFEST_BYTES];
        out[0] = VERSION;
        out[1] = Kind::Manifest as u8;
        out[2] = self.is_complete.into();
        out[3..11].copy_from_slice(&self.floor.to_le_bytes());
        out[11..19].copy_from_slice(&self.unsynced_run.to_le_bytes());
        out[19..].copy_from_slice(&self.lineage.to_le_bytes());
        out
    }
}

/// The value of a manifest.
pub(super) fn encode_attested(attested: &IntervalSet) -> Vec<u8> {
    let ends = attested.iter().flat_map(|it| [it.first.0, it.last.0]);
    ends.flatten().collect()
}

/// The parts of the ring that a manifest says are attested; none if it is not one.
pub(super) fn decode_attested(value: &[u8]) -> Option<IntervalSet> {
    let (parts, []) = value.as_chunks::<INTERVAL_BYTES>() else {
        return None;
    };
    let mut attested = IntervalSet::default();
    for part in parts {
        let (first, last) = part.split_first_chunk()?;
        let [first, last] = [*first, last.try_into().ok()?].map(Position);
        if last < first {
            return None;
        }
        attested.insert(Interval { first, last });
    }
    Some(attested)
}

/// The head of a record of the log whose key and value are so long.
pub(super) fn decode(
    head: &[u8],
    key_bytes: usize,
    log_value_bytes: usize,
) -> Result<Decoded, UnknownHead> {
    let (version, flag_bits) = match head {
        [version, flag_bits, ..] => (*version, *flag_bits),
        _ => return Err(UnknownHead::Form),
    };
    if version > VERSION_OF_SLOTS {
        return Err(UnknownHead::Newer(version));
    }
    let kind = match version {
        VERSION_OF_SLOTS if flag_bits != 0 => return Err(UnknownHead::Form),
        VERSION_OF_SLOTS => Kind::Slot,
        _ => Kind::of(flag_bits),
    };
    let number = |at: usize| {
        let bytes = head.get(at..at + 8).ok_or(UnknownHead::Form)?;
        let bytes = bytes.try_into().map_err(|_| UnknownHead::Form)?;
        Ok(u64::from_le_bytes(bytes))
    };
    if kind == Kind::Manifest {
        let is_known = version == VERSION
            && matches!(head.len(), MANIFEST_BYTES | MANIFEST_BYTES_WITHOUT_LINEAGE)
            && flag_bits == Kind::Manifest as u8
            && head[2] <= 1
            && key_bytes == 0
            && log_value_bytes.is_multiple_of(INTERVAL_BYTES);
        return match is_known {
            true => Ok(Decoded::Manifest(Manifest {
                is_complete: head[2] == 1,
                floor: number(3)?,
                unsynced_run: number(11)?,
                lineage: match head.len() {
                    MANIFEST_BYTES => number(19)?,
                    _ => 0,
                },
            })),
            false => Err(UnknownHead::Form),
        };
    }
    let short = |at: usize| {
        let bytes = head.get(at..at + 4).ok_or(UnknownHead::Form)?;
        let bytes = bytes.try_into().map_err(|_| UnknownHead::Form)?;
        Ok(u32::from_le_bytes(bytes))
    };
    let decoded = StoredHead {
        kind,
        flags: flag_bits & !KIND,
        tag: Tag {
            time: number(2)?,
            op: number(10)?,
        },
        checksum: short(18)?,
        value_bytes: short(22)?,
        born: short(26)?,
    };
    let is_known = matches!(version, VERSION | VERSION_OF_SLOTS)
        && head.len() == HEAD_BYTES
        && decoded.flags & flags::RESERVED == 0
        && (matches!(kind, Kind::Value | Kind::Slot) || decoded.value_bytes == 0)
        && decoded.value_bytes as usize <= log_value_bytes
        && key_bytes > 0;
    match is_known {
        true => Ok(Decoded::Record(decoded)),
        false => Err(UnknownHead::Form),
    }
}

/// The value of the log, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogValue<'a> {
    /// Without the age, which is in the head.
    pub(super) attributes: Attributes,
    pub(super) content_type: &'a [u8],
    /// All of the value, or what there is of it.
    pub(super) value: &'a [u8],
}

/// Takes apart a value of the log with these flags, or its beginning. None if it is too short, or not
/// what was written.
pub(super) fn take_apart(flag_bits: u8, mut bytes: &[u8]) -> Option<LogValue<'_>> {
    let mut attributes = Attributes::NONE;
    if flag_bits & flags::HAS_EXPIRY != 0 {
        let (expires_ms, rest) = bytes.split_first_chunk()?;
        attributes.expires_ms = Some(u64::from_le_bytes(*expires_ms));
        bytes = rest;
    }
    if flag_bits & flags::HAS_OPERATION != 0 {
        let (operation, rest) = bytes.split_first_chunk()?;
        attributes.operation = Some(OperationId(*operation));
        bytes = rest;
    }
    if flag_bits & flags::HAS_SLOT != 0 {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        bytes = rest.get(u32::from_le_bytes(*length) as usize..)?;
    }
    let (length, rest) = bytes.split_first()?;
    let (content_type, value) = rest.split_at_checked((*length).into())?;
    Some(LogValue {
        attributes,
        content_type,
        value,
    })
}

/// A record as it is to lie in the log: its head and value.
pub(super) fn encode(record: &Record) -> (StoredHead, Vec<u8>) {
    let Parts {
        kind,
        content_type,
        value,
    } = Parts::of(&record.content);
    let head = StoredHead {
        kind: match kind {
            0 => Kind::Value,
            _ => Kind::Tombstone,
        },
        flags: 0,
        tag: record.tag,
        checksum: record.checksum,
        value_bytes: 0,
        born: record.attributes.born,
    };
    encode_parts(head, &record.attributes, content_type, value)
}

/// The same of its parts: completes the head.
pub(super) fn encode_parts(
    mut head: StoredHead,
    attributes: &Attributes,
    content_type: &[u8],
    value: &[u8],
) -> (StoredHead, Vec<u8>) {
    if value.contains(&0) {
        head.flags |= flags::HAS_NUL;
    }
    let fields = Attributes::fields_bytes(attributes.of_record().flags());
    let mut log_value = Vec::with_capacity(fields + 1 + content_type.len() + value.len());
    if let Some(expires_ms) = attributes.expires_ms {
        head.flags |= flags::HAS_EXPIRY;
        log_value.extend_from_slice(&expires_ms.to_le_bytes());
    }
    if let Some(OperationId(operation)) = attributes.operation {
        head.flags |= flags::HAS_OPERATION;
        log_value.extend_from_slice(&operation);
    }
    // Content types have at most 255 bytes.
    log_value.push(content_type.len() as u8);
    log_value.extend_from_slice(content_type);
    log_value.extend_from_slice(value);
    head.value_bytes = value.len() as u32;
    (head, log_value)
}

/// How many bytes a record takes in the log beside the log's own.
pub(super) fn bytes_of(key: &Key, attributes: &Attributes, content: &Content) -> usize {
    let parts = Parts::of(content);
    let fields = Attributes::fields_bytes(attributes.of_record().flags());
    let value = fields + 1 + parts.content_type.len() + parts.value.len();
    key.as_bytes().len() + HEAD_BYTES + value
}

/// Whether a whole value of the log is what once entered the cluster under a key.
pub(super) fn is_sound(key: &[u8], head: &StoredHead, log_value: &[u8]) -> bool {
    let Some(LogValue {
        attributes,
        content_type,
        value,
    }) = take_apart(head.flags, log_value)
    else {
        return false;
    };
    let parts = Parts {
        kind: (head.kind == Kind::Tombstone).into(),
        content_type,
        value,
    };
    value.len() == head.value_bytes as usize
        && checksum_of(key, head.tag, &attributes, &parts) == head.checksum
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::kv::Value;
    use dkvs_common::record::ContentType;

    fn record(value: &str) -> (Key, Record) {
        let key = Key::new("key").unwrap();
        let content = Content::Value {
            content_type: ContentType::new("a/b").unwrap(),
            value: Value::new(value.to_owned()).unwrap(),
        };
        let record = Record::new(&key, Tag { time: 7, op: 8 }, content);
        (key, record)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for text in ["", "value", "with\0nul"] {
            let (key, record) = record(text);
            let (head, value) = encode(&record);
            let decoded = decode(&head.encode(), 3, value.len());
            assert_eq!(decoded, Ok(Decoded::Record(head)));
            assert_eq!(head.flags == flags::HAS_NUL, text.contains('\0'));
            let apart = take_apart(head.flags, &value).unwrap();
            assert_eq!(apart.content_type, b"a/b");
            assert_eq!(apart.value, text.as_bytes());
            assert_eq!(head.prefix_bytes(value.len()), 4);
            assert!(is_sound(b"key", &head, &value));
            assert!(!is_sound(b"kez", &head, &value));
            assert_eq!(
                bytes_of(&key, &record.attributes, &record.content),
                3 + HEAD_BYTES + value.len()
            );
        }
        let key = Key::new("key").unwrap();
        let tombstone = Record::new(&key, Tag { time: 7, op: 8 }, Content::Tombstone);
        let (head, value) = encode(&tombstone);
        assert_eq!((head.kind, head.value_bytes), (Kind::Tombstone, 0));
        assert!(is_sound(b"key", &head, &value));
    }

    #[test]
    fn what_later_versions_add_before_the_value_is_passed_over() {
        let all = flags::HAS_EXPIRY | flags::HAS_OPERATION | flags::HAS_SLOT;
        let mut value = vec![9; 8 + 16];
        value.extend_from_slice(&5_u32.to_le_bytes());
        value.extend_from_slice(b"slot!\x01tvalue");
        let apart = take_apart(all, &value).unwrap();
        assert_eq!(
            (apart.content_type, apart.value),
            (&b"t"[..], &b"value"[..])
        );
        // The prefix has to be whole, the value not.
        for length in 0..value.len() {
            let is_apart = take_apart(all, &value[..length]).is_some();
            assert_eq!(is_apart, length >= value.len() - 5, "{length}");
        }
        value[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(take_apart(all, &value), None);
    }

    #[test]
    fn heads_of_other_versions_and_forms_are_refused() {
        let (_, record) = record("value");
        let (head, value) = encode(&record);
        let sound = head.encode();
        let with = |at: usize, byte: u8| {
            let mut head = sound;
            head[at] = byte;
            decode(&head, 3, value.len())
        };
        assert_eq!(with(0, 3), Err(UnknownHead::Newer(3)));
        assert!(matches!(with(0, 2), Ok(Decoded::Record(it)) if it.kind == Kind::Slot));
        assert_eq!(with(0, 0), Err(UnknownHead::Form));
        assert_eq!(with(1, flags::RESERVED), Err(UnknownHead::Form));
        assert_eq!(
            with(1, 1),
            Err(UnknownHead::Form),
            "a tombstone with a value"
        );
        assert_eq!(with(1, 3), Err(UnknownHead::Form), "a manifest with a key");
        assert_eq!(with(25, 1), Err(UnknownHead::Form), "longer than it is");
        for length in 0..sound.len() {
            let cut = decode(&sound[..length], 3, value.len());
            assert_eq!(cut, Err(UnknownHead::Form));
        }
        assert_eq!(decode(&sound, 0, value.len()), Err(UnknownHead::Form));
        let manifest = Manifest {
            is_complete: true,
            floor: 5,
            unsynced_run: 6,
            lineage: 7,
        };
        let decoded = decode(&manifest.encode(), 0, 0);
        assert_eq!(decoded, Ok(Decoded::Manifest(manifest)));
        assert_eq!(decode(&manifest.encode(), 1, 0), Err(UnknownHead::Form));
        assert_eq!(decode(&manifest.encode(), 0, 1), Err(UnknownHead::Form));
        assert_eq!(
            decode(&manifest.encode(), 0, 80),
            Ok(Decoded::Manifest(manifest))
        );
    }
}

//! What memory keeps of a record that lies in the log.
//!
//! ```text
//!   tag time 8 | tag op 8 | checksum 4 | value bytes 4 | born 4 | segment 4 | offset 4 | record bytes 4
//!   | flags 1 | key
//! ```
//!
//! The flags are those of the [`format`](super::format), but for the last, which says that the record
//! is damaged: it is never written. With its places in the two
//! orders of the table ([`overhead_bytes`](crate::store::overhead_bytes)) a key of 20 bytes costs less than
//! 130 bytes beyond its own, as a rule, however long its value is.

use dkvs_common::tag::Tag;
use dkvs_log::Location;

use super::format::{HEAD_BYTES, Kind, StoredHead, flags};
use crate::store::head::{RecordHead, TableEntry};

/// A record, and where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub(super) head: RecordHead,
    pub(super) stored: StoredHead,
    pub(super) location: Location,
    pub(super) log_value_bytes: usize,
}

impl Located {
    pub(super) fn of(entry: &IndexEntry) -> Self {
        Self {
            head: entry.head(),
            stored: entry.stored_head(),
            location: entry.location(),
            log_value_bytes: entry.log_value_bytes(),
        }
    }
}

impl Located {
    /// Whether it says no more than is known without reading it.
    pub(super) fn is_known_whole(&self) -> bool {
        self.head.is_tombstone && !self.head.has_more_attributes
    }
}

/// Where a record lies, for a read of that very one.
#[derive(Debug, Clone, Copy)]
pub struct Place(pub(super) Located);

/// Bytes of an entry beside the key.
pub const INDEX_HEAD_BYTES: usize = 41;

/// Bytes of a record in the log beside key, head and value.
const LOG_RECORD_BYTES: usize = 32;

const CHECKSUM: usize = 16;
const VALUE_BYTES: usize = 20;
const BORN: usize = 24;
const LOCATION: usize = 28;
const FLAGS: usize = 40;

const MORE_ATTRIBUTES: u8 = flags::HAS_EXPIRY | flags::HAS_OPERATION;

/// In memory alone: the value cannot be read.
const DAMAGED: u8 = flags::RESERVED;

/// A key, what is known of its record, and where that lies.
pub(in crate::store) struct IndexEntry(Box<[u8]>);

impl IndexEntry {
    pub(super) fn new(key: &[u8], head: &StoredHead, location: Location) -> Self {
        let mut packed = Vec::with_capacity(INDEX_HEAD_BYTES + key.len());
        packed.extend_from_slice(&head.tag.time.to_le_bytes());
        packed.extend_from_slice(&head.tag.op.to_le_bytes());
        for number in [
            head.checksum,
            head.value_bytes,
            head.born,
            location.segment,
            location.offset,
            location.bytes,
        ] {
            packed.extend_from_slice(&number.to_le_bytes());
        }
        packed.push(head.kind as u8 | head.flags);
        packed.extend_from_slice(key);
        Self(packed.into())
    }

    /// Where the record lies.
    pub(in crate::store) fn place(&self) -> Place {
        Place(Located::of(self))
    }

    /// How many bytes the entry of a key takes.
    pub(super) fn bytes_of(key: &[u8]) -> usize {
        INDEX_HEAD_BYTES + key.len()
    }

    pub(super) fn location(&self) -> Location {
        Location {
            segment: self.short(LOCATION),
            offset: self.short(LOCATION + 4),
            bytes: self.short(LOCATION + 8),
        }
    }

    pub(super) fn set_location(&mut self, location: Location) {
        let numbers = [location.segment, location.offset, location.bytes];
        for (number, to) in numbers
            .iter()
            .zip(self.0[LOCATION..FLAGS].chunks_exact_mut(4))
        {
            to.copy_from_slice(&number.to_le_bytes());
        }
    }

    /// As the log has it, with the quarantine as it is known here.
    pub(super) fn stored_head(&self) -> StoredHead {
        StoredHead {
            kind: match self.is_tombstone() {
                true => Kind::Tombstone,
                false => Kind::Value,
            },
            flags: self.0[FLAGS] & !(DAMAGED | 3),
            tag: self.tag(),
            checksum: self.short(CHECKSUM),
            value_bytes: self.short(VALUE_BYTES),
            born: self.short(BORN),
        }
    }

    /// How long the log's value is, of which the record's value is the end.
    pub(super) fn log_value_bytes(&self) -> usize {
        let beside = LOG_RECORD_BYTES + HEAD_BYTES + self.key().len();
        (self.location().bytes as usize).saturating_sub(beside)
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.0[FLAGS] & 3 == Kind::Tombstone as u8
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.0[FLAGS] & flags::QUARANTINED != 0
    }

    pub(super) fn set_quarantined(&mut self, is_quarantined: bool) {
        self.set(flags::QUARANTINED, is_quarantined);
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.0[FLAGS] & DAMAGED != 0
    }

    pub(super) fn set_damaged(&mut self, is_damaged: bool) {
        self.set(DAMAGED, is_damaged);
    }

    fn set(&mut self, flag: u8, is_set: bool) {
        self.0[FLAGS] &= !flag;
        if is_set {
            self.0[FLAGS] |= flag;
        }
    }

    fn short(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

impl TableEntry for IndexEntry {
    fn key(&self) -> &[u8] {
        &self.0[INDEX_HEAD_BYTES..]
    }

    fn head(&self) -> RecordHead {
        RecordHead {
            tag: self.tag(),
            checksum: self.short(CHECKSUM),
            born: self.short(BORN),
            has_more_attributes: self.0[FLAGS] & MORE_ATTRIBUTES != 0,
            value_bytes: self.short(VALUE_BYTES),
            is_tombstone: self.is_tombstone(),
            has_nul: self.0[FLAGS] & flags::HAS_NUL != 0,
            is_quarantined: self.is_quarantined(),
            is_damaged: self.is_damaged(),
        }
    }

    fn tag(&self) -> Tag {
        let number = |at: usize| {
            let bytes = self.0[at..at + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_where_it_was_put() {
        let head = StoredHead {
            kind: Kind::Value,
            flags: flags::HAS_NUL | flags::HAS_SLOT,
            tag: Tag {
                time: u64::MAX - 1,
                op: 6,
            },
            checksum: 7,
            value_bytes: 8,
            born: 9,
        };
        let location = Location {
            segment: 10,
            offset: 11,
            bytes: 100,
        };
        let mut entry = IndexEntry::new(b"key", &head, location);
        assert_eq!(entry.bytes(), IndexEntry::bytes_of(b"key"));
        assert_eq!(entry.key(), b"key");
        assert_eq!((entry.stored_head(), entry.location()), (head, location));
        assert_eq!(entry.log_value_bytes(), 100 - 32 - 30 - 3);
        assert!(entry.head().has_nul && !entry.head().is_tombstone);
        entry.set_damaged(true);
        entry.set_quarantined(true);
        assert!(entry.head().is_damaged && entry.head().is_quarantined);
        assert_eq!(entry.stored_head().flags, head.flags | flags::QUARANTINED);
        entry.set_quarantined(false);
        assert_eq!(entry.stored_head(), head);
        let moved = Location {
            segment: 12,
            ..location
        };
        entry.set_location(moved);
        assert_eq!((entry.location(), entry.key()), (moved, &b"key"[..]));
        assert!(entry.is_damaged());
    }
}

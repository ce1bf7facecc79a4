//! What is known of a record without its value.

use dkvs_common::record::RecordVersion;
use dkvs_common::tag::Tag;

/// What a store keeps at hand of a record, whatever its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// The version.
    pub tag: Tag,
    /// The checksum, as it was where the record entered the cluster.
    pub checksum: u32,
    /// Its age: see [`Attributes::born`](dkvs_common::record::Attributes::born).
    pub born: u32,
    /// Whether it has attributes beside its age: they lie with the value.
    pub has_more_attributes: bool,
    /// The length of the value in bytes; 0 of a tombstone.
    pub value_bytes: u32,
    /// Whether the key is deleted.
    pub is_tombstone: bool,
    /// Whether the value has a byte 0, which DKVS/1 cannot carry.
    pub has_nul: bool,
    /// Whether it is quarantined: the store may have confirmed something newer and lost it.
    pub is_quarantined: bool,
    /// Whether it is known that the value cannot be read as it was written.
    pub is_damaged: bool,
}

/// A key and the head of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRecord<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What is known of the record.
    pub head: RecordHead,
}

impl RecordHead {
    /// Which record it is, and of which age.
    pub fn version(&self) -> RecordVersion {
        RecordVersion {
            tag: self.tag,
            checksum: self.checksum,
            born: self.born,
        }
    }
}

impl HeldRecord<'_> {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.key
    }

    /// The version.
    pub fn tag(&self) -> Tag {
        self.head.tag
    }

    /// Which record it is, and of which age.
    pub fn version(&self) -> RecordVersion {
        self.head.version()
    }

    /// Whether the key is deleted.
    pub fn is_tombstone(&self) -> bool {
        self.head.is_tombstone
    }
}

/// What a table of records keeps of each.
pub(super) trait TableEntry {
    /// The key.
    fn key(&self) -> &[u8];

    /// What is known of the record.
    fn head(&self) -> RecordHead;

    /// The version.
    fn tag(&self) -> Tag;

    /// What the entry takes in memory, in bytes, beside its place in the table.
    fn bytes(&self) -> usize;

    /// Another allocation of the same.
    fn duplicate(&self) -> Self;

    /// Which record it is, and of which age.
    fn version(&self) -> RecordVersion {
        self.head().version()
    }

    /// The key and the head.
    fn held(&self) -> HeldRecord<'_> {
        HeldRecord {
            key: self.key(),
            head: self.head(),
        }
    }
}

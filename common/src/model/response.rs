//! What one replica answers.

use bytes::Bytes;

use super::{KeyPosition, LeafEntry, LeafSum, Refusal};
use crate::kv::{Key, Value};
use crate::record::{Attributes, Digest, Parts, checksum_of};
use crate::slot::{Accepted, Ballot};
use crate::tag::Tag;

/// What one replica answers. Cheap to clone, but for pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaResponse {
    /// To a ping, to a put or a commit that is stored, to a record or an attestation that is accepted.
    Done,
    /// To a get: the record. Where the block is shorter than the digest says, it is the beginning of
    /// a value that is too long for one datagram.
    Record {
        /// What names the record.
        digest: Digest,
        /// The value, or its beginning.
        block: Bytes,
    },
    /// To a get by DKVS/1, which has neither tags nor media types: a value.
    Untagged {
        /// The value.
        value: Value,
    },
    /// To a get of a block.
    Block {
        /// From where in the value.
        offset: u32,
        /// The bytes.
        block: Bytes,
    },
    /// To a get of a tag.
    Tag {
        /// Which version the server holds.
        tag: Tag,
    },
    /// To a get of a digest.
    Digest {
        /// Which version.
        tag: Tag,
        /// What the record says beside its content.
        attributes: Attributes,
        /// The value's length in bytes.
        value_bytes: u32,
        /// The record's checksum.
        checksum: u32,
    },
    /// To a staged block: what has arrived of the upload.
    Staged {
        /// Every block before this one has.
        base: u32,
        /// Bit i of byte j, counted from the lowest: block `base` + 8 j + i has. The last byte is
        /// not 0.
        bitmap: Bytes,
    },
    /// To a list: keys and tags, in the order that was asked for.
    Page {
        /// Whether there are more.
        rest: PageRest,
        /// Whether the server may have lost keys, which are then not among these.
        is_incomplete: bool,
        /// Whether keys are missing that are too long for a page.
        is_left_out: bool,
        /// The keys.
        entries: Vec<PageEntry>,
    },
    /// To a request for a promise: it is given.
    Promised {
        /// What the server names it: an accept has to name the same. Another number for each promise that
        /// was ever given, also before a restart.
        grant: u64,
        /// Whether the version is a tombstone.
        is_tombstone: bool,
        /// What was accepted before.
        accepted: Option<Accepted>,
    },
    /// To a request for a promise, or to accept: another ballot has been promised to since, or none is.
    Preempted {
        /// The ballot that is promised to; [`Ballot::ZERO`] if none is.
        promised: Ballot,
    },
    /// To a request for sums: so many as were asked for, or as there are leaves. None, if the server's
    /// leaves are coarser than what was asked for.
    LeafSums {
        /// The depth of the finest leaves of which it has sums.
        depth: u8,
        /// The sums.
        sums: Vec<LeafSum>,
    },
    /// To a request for the entries of a leaf.
    LeafEntries {
        /// Whether there are more after the last of these.
        has_more: bool,
        /// Whether the server answers for all keys of the leaf, as [`LeafSum::has_answered`] says.
        is_answered: bool,
        /// The entries, in ring order.
        entries: Vec<LeafEntry>,
    },
    /// Numbers by name, which is the byte of a [`Statistic`](super::Statistic).
    Statistics(Vec<(u8, u64)>),
    /// There is no value; there may be a tombstone, whose tag this is, else [`Tag::ZERO`]. To a put of
    /// an upload: not all of it is there, or nothing. To an attestation: it is not accepted, for
    /// the server was started anew, or holds something older, whose tag this is, or nothing. So too to a
    /// prepare, an accept or a commit: what they name is not there.
    Absent {
        /// The tombstone's, or of what is held.
        tag: Tag,
        /// To a get or a digest: what the tombstone says beside that.
        attributes: Attributes,
    },
    /// A put's record is older than the one that the server holds, and keeps.
    Superseded {
        /// The tag of the one it holds.
        tag: Tag,
    },
    /// The command was not carried out.
    Refused(Refusal),
}

impl ReplicaResponse {
    /// There is no value, or it is not accepted; what is held has this tag. See [`Self::Absent`].
    pub const fn absent(tag: Tag) -> Self {
        Self::Absent {
            tag,
            attributes: Attributes::NONE,
        }
    }

    /// The same response, unless it is a whole record that does not match its checksum under this key:
    /// that is refused as corrupt. Of a long value, only the whole can be checked.
    pub fn checked(self, key: &Key) -> Self {
        let Self::Record { digest, block } = &self else {
            return self;
        };
        if digest.is_beginning(block) {
            return self;
        }
        let parts = Parts::of_value(&digest.content_type, block);
        let found = checksum_of(key.as_bytes(), digest.tag, &digest.attributes, &parts);
        match found == digest.checksum {
            true => self,
            false => Self::Refused(Refusal::Corrupt),
        }
    }
}

/// A key in a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// Which key.
    pub key: Key,
    /// Which version of it.
    pub tag: Tag,
    /// What the server has of it.
    pub kind: EntryKind,
}

/// Which keys follow those of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageRest {
    /// None.
    None,
    /// Those after the last key of the page.
    AfterLast,
    /// Those from here on. Between the last key of the page and this place are only keys that are too
    /// long for a page.
    From(KeyPosition),
}

/// What a server has of a key in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A value.
    Value = 0,
    /// A tombstone.
    Tombstone = 1,
}

//! What one replica is asked to do.

use bytes::Bytes;

use super::{Direction, HighWater, KeyPosition, LeafScope, Nudge};
use crate::kv::Key;
use crate::record::{Attributes, ContentType, OperationId, Record};
use crate::slot::Ballot;
use crate::tag::Tag;

/// What one replica is asked to do. Every command may be repeated: to carry it out twice changes no
/// more than to carry it out once. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaCommand {
    /// Answer, if you are there.
    Ping,
    /// Return the record of a key.
    Get {
        /// Which key.
        key: Key,
    },
    /// Return the tag of a key, without the value.
    GetTag {
        /// Which key.
        key: Key,
    },
    /// Return the tag, size and checksum of a key, without the value.
    GetDigest {
        /// Which key.
        key: Key,
    },
    /// Store a record whose value is in this command.
    Put {
        /// Which key.
        key: Key,
        /// The record.
        record: Record,
    },
    /// Store a record whose value was staged in blocks.
    PutStaged {
        /// Which key.
        key: Key,
        /// Which version.
        tag: Tag,
        /// What the record says beside its content.
        attributes: Attributes,
        /// The value's media type.
        content_type: ContentType,
        /// The upload that has the value.
        upload: u64,
        /// The value's length in bytes.
        value_bytes: u32,
        /// The record's checksum.
        checksum: u32,
    },
    /// Keep a part of a value that is to be stored by a later `PutStaged`.
    Stage {
        /// The upload's number, chosen by the client.
        upload: u64,
        /// The value's length in bytes.
        value_bytes: u32,
        /// Where the block lies: a multiple of `block_bytes`.
        offset: u32,
        /// The length of every block but the last.
        block_bytes: u16,
        /// The block.
        block: Bytes,
    },
    /// Return part of the value of a version that is too long for one datagram.
    GetBlock {
        /// Which key.
        key: Key,
        /// Which version.
        tag: Tag,
        /// From where.
        offset: u32,
        /// How much.
        block_bytes: u16,
    },
    /// Return a page of the keys that the server holds and that begin with a prefix, in the order of
    /// their bytes.
    List {
        /// Only keys that begin with these bytes are returned.
        prefix: Bytes,
        /// The page begins with the first key from here on.
        start: KeyPosition,
        /// In which direction.
        direction: Direction,
        /// Most keys to return.
        limit: u16,
    },
    /// Return counts and sizes.
    GetStatistics,
    /// Promise to accept, as the successor of a version, what is proposed under this ballot, and nothing
    /// under a lesser one; and return what was accepted so far. Only a server that holds exactly that
    /// version does.
    Prepare {
        /// Which key.
        key: Key,
        /// The version; [`Tag::ZERO`] where there never was one.
        base: Tag,
        /// Greater than those of the attempts before.
        ballot: Ballot,
    },
    /// Accept a record as the successor of a version, if the promise still holds that was given for it.
    Accept {
        /// Which key.
        key: Key,
        /// The version; [`Tag::ZERO`] where there never was one.
        base: Tag,
        /// The one that the server promised to.
        ballot: Ballot,
        /// What it named its promise.
        grant: u64,
        /// The record: its tag [succeeds](Tag::succeeds) that of the version.
        record: Record,
    },
    /// Store the record that was accepted, since the replicas have agreed on it.
    Commit {
        /// Which key.
        key: Key,
        /// The record's tag.
        tag: Tag,
        /// Its checksum.
        checksum: u32,
        /// Which operation wrote it.
        operation: Option<OperationId>,
    },
    /// Return what is held in leaves that the asker and the server have in common: so many sums, each
    /// of so many leaves, but for the last, which may be of fewer.
    GetLeafSums {
        /// Which leaves they have in common.
        scope: LeafScope,
        /// The first leaf.
        first: u32,
        /// How many leaves make a sum, at least 1.
        leaves_per_sum: u32,
        /// Most sums to return, at least 1.
        sums_max: u8,
    },
    /// Return which records are held in a leaf, in ring order.
    GetLeafEntries {
        /// Which leaves asker and server have in common.
        scope: LeafScope,
        /// The leaf.
        leaf: u32,
        /// Only those after this key of the leaf are returned; all, if there is none.
        after: Option<Key>,
    },
    /// Note how far a peer has come, unless it was further before: then it has been set back, and the
    /// response says so.
    NoteHighWater(HighWater),
    /// One server may lack what another has confirmed. The one that is ahead has the other told, as soon as
    /// that can be reached; the one that is behind compares itself with it. It is a hint: who is told so
    /// confirms nothing.
    Nudge(Nudge),
    /// Answer for a key from now on, though the server may have lost what it held: a read that began
    /// after this server had started found that no confirmed record is newer.
    Attest {
        /// The server's boot id when the read began.
        boot_id: u64,
        /// Which key.
        key: Key,
        /// What the read found to be newest.
        tag: Tag,
    },
}

impl ReplicaCommand {
    /// Its name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Get { .. } => "get",
            Self::GetTag { .. } => "tag",
            Self::GetDigest { .. } => "digest",
            Self::Put { .. } => "put",
            Self::PutStaged { .. } => "put staged",
            Self::Stage { .. } => "stage",
            Self::GetBlock { .. } => "get block",
            Self::List { .. } => "list",
            Self::GetStatistics => "statistics",
            Self::Prepare { .. } => "prepare",
            Self::Accept { .. } => "accept",
            Self::Commit { .. } => "commit",
            Self::GetLeafSums { .. } => "leaf sums",
            Self::GetLeafEntries { .. } => "leaf entries",
            Self::NoteHighWater(_) => "high-water mark",
            Self::Nudge(_) => "nudge",
            Self::Attest { .. } => "vouch",
        }
    }

    /// The key that it is about, if it is about one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Get { key }
            | Self::GetTag { key }
            | Self::GetDigest { key }
            | Self::Put { key, .. }
            | Self::PutStaged { key, .. }
            | Self::GetBlock { key, .. }
            | Self::Prepare { key, .. }
            | Self::Accept { key, .. }
            | Self::Commit { key, .. }
            | Self::Attest { key, .. } => Some(key),
            Self::Ping
            | Self::Stage { .. }
            | Self::List { .. }
            | Self::GetStatistics
            | Self::GetLeafSums { .. }
            | Self::GetLeafEntries { .. }
            | Self::NoteHighWater(_)
            | Self::Nudge(_) => None,
        }
    }
}

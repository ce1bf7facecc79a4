//! What a server answers, and how it is written.

use bytes::Bytes;
use thiserror::Error;

use super::coding::{
    Put as _, Reader, read_content_type, read_key, read_tag, write_content_type, write_key,
    write_tag,
};
use super::message::{MessageError, REPLY_HEAD_BYTES, operation};
use crate::kv::Key;
use crate::record::ContentType;
use crate::tag::Tag;

/// Most bytes of a [`Reply::Staged`] bitmap: 256 blocks.
pub const BITMAP_BYTES_MAX: usize = 32;

/// Bytes of a GET's reply beside the content type and the value.
pub const RECORD_HEAD_BYTES: usize = REPLY_HEAD_BYTES + 16 + 4 + 4 + 1;

/// Bytes of a page beside its entries.
pub const PAGE_HEAD_BYTES: usize = REPLY_HEAD_BYTES + 1;

/// Bytes of an entry of a page beside the key.
pub const PAGE_ENTRY_BYTES: usize = 2 + 16 + 1;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a greeting.
    Greeting(Greeting),
    /// To a ping, to a put that is stored, to a vouch if the server does: done.
    Done,
    /// To a get: the record, or its first block if it is too long for a datagram.
    Record {
        /// Which version.
        tag: Tag,
        /// The value's media type.
        content_type: ContentType,
        /// The value's whole length in bytes.
        value_bytes: u32,
        /// The record's checksum.
        checksum: u32,
        /// The value, or its beginning.
        block: Bytes,
    },
    /// To a get of a block.
    Block {
        /// From where in the value.
        offset: u32,
        /// The bytes.
        block: Bytes,
    },
    /// To a tag query.
    Tag {
        /// Which version the server holds.
        tag: Tag,
    },
    /// To a digest get.
    Digest {
        /// Which version.
        tag: Tag,
        /// The value's length in bytes.
        value_bytes: u32,
        /// The record's checksum.
        checksum: u32,
    },
    /// To a staged block: what has arrived of the upload.
    Staged {
        /// Every block before this one has.
        base: u32,
        /// Bit i of byte j, counted from the lowest: block `base` + 8 j + i has. At most
        /// [`BITMAP_BYTES_MAX`] bytes, the last of them not 0.
        bitmap: Bytes,
    },
    /// To a list: keys and tags in ring order.
    Page {
        /// Whether there are more after the last of these.
        more: bool,
        /// Whether the server may have lost keys, which are then not among these.
        is_incomplete: bool,
        /// Whether keys are missing that are too long for a page. Only clients that understand it
        /// are told.
        is_left_out: bool,
        /// The keys. One that was passed over is the last.
        entries: Vec<PageEntry>,
    },
    /// To a statistics request: numbers by name, which is the byte of a [`Statistic`].
    Stats(Vec<(u8, u64)>),
    /// There is no value; there may be a tombstone, whose tag this is, else [`Tag::ZERO`]. To a
    /// put of an upload: not all of it is there, or nothing. To a vouch: the server does not, for
    /// it was started anew, or holds something older, whose tag this is, or nothing.
    Absent {
        /// The tombstone's, or of what is held.
        tag: Tag,
    },
    /// A put's record is older than the one that the server holds, and keeps.
    Superseded {
        /// The tag of the one it holds.
        tag: Tag,
    },
    /// The value is longer than the server takes.
    TooLarge {
        /// What it takes, in bytes.
        value_bytes_max: u32,
    },
    /// The server has no room.
    Full,
    /// The server stores nothing any more.
    ReadOnly,
    /// The server belongs to another ring.
    WrongEpoch {
        /// That ring.
        epoch: u32,
    },
    /// The operation is not known, or its body is not understood.
    Unsupported,
    /// Too much is under way; later it may work.
    Busy,
    /// A record does not match its checksum, or a block or a put its upload; or the server may have
    /// lost a newer record of the key, so that it does not answer for it.
    Corrupt,
    /// Something went wrong in the server.
    Internal,
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

/// What a server has of a key in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A value.
    Value = 0,
    /// A tombstone.
    Tombstone = 1,
    /// It does not begin with the prefix that was asked for, and is told only for the list to go on
    /// after it: the server has looked at enough keys for one page.
    PassedOver = 2,
}

const MORE: u8 = 1;
const INCOMPLETE: u8 = 2;
const LEFT_OUT: u8 = 4;

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Random, and another one after every start.
    pub boot_id: u64,
    /// The session that begins; 0 without authentication.
    pub session: u64,
    /// The longest datagram that the server takes.
    pub datagram_bytes_max: u16,
    /// The longest value that it takes.
    pub value_bytes_max: u32,
    /// What a confirmed put survives.
    pub durability: Durability,
}

/// What a confirmed put survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Not the end of the server process.
    Memory = 0,
    /// The end of the process, not that of the machine.
    Buffered = 1,
    /// Power loss.
    Fsync = 2,
}

/// A number that a server tells of itself, by its byte. Counts are since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Records held, tombstones included.
    Keys = 1,
    /// What they take of the server's limit, in bytes.
    Bytes = 2,
    /// Gets answered.
    Gets = 3,
    /// Puts stored.
    Puts = 4,
    /// Puts refused because the server is full.
    PutsRefusedFull = 5,
    /// Datagrams or messages that were no request.
    Malformed = 6,
    /// Datagrams and records that did not match their checksum.
    Damaged = 7,
    /// Datagrams of DKVS/2 that proved whole.
    Datagrams = 8,
    /// Requests in them that were understood.
    Messages = 9,
    /// Uploads of which a first block was taken.
    UploadsBegun = 10,
    /// Uploads whose whole value a put took.
    UploadsCompleted = 11,
    /// Uploads dropped because no new block came.
    UploadsExpired = 12,
    /// Blocks refused for want of memory or of places for uploads.
    UploadsRefusedBusy = 13,
    /// The memory that the uploads under way have reserved, in bytes.
    UploadBytesReserved = 14,
    /// Keys left out of lists because no datagram holds them.
    ListKeysLeftOut = 15,
    /// Datagrams that did not prove, where keys are demanded.
    Unauthenticated = 16,
    /// Datagrams of a session that is not, or no longer, known.
    SessionsRefused = 17,
    /// Requests without a session that were no greeting.
    NotGreetings = 18,
    /// Datagrams that came again, or too late to tell.
    Replayed = 19,
    /// Requests whose deadline passed while they lay in the socket.
    Expired = 20,
    /// Datagrams of DKVS/1 that were dropped because it is off.
    V1Refused = 21,
    /// Replies longer than the path to their client takes.
    RepliesTooLong = 22,
    /// Puts refused because too much waited for the disk.
    PutsRefusedBusy = 23,
    /// Puts refused because the disk had failed, or failed under them.
    PutsFailed = 24,
    /// Questions answered with `corrupt`.
    CorruptAnswers = 25,
    /// 1 if the disk has failed and nothing more is stored, else 0.
    IsReadOnly = 26,
    /// 1 if the disk had no room when something was to be stored last, else 0.
    IsDiskFull = 27,
    /// 1 if the server does not vouch for all it ever confirmed, else 0.
    IsIncomplete = 28,
    /// What the rows of the log take, in bytes.
    LogBytes = 29,
    /// What its file takes of the disk, in bytes.
    DiskBytes = 30,
    /// What the disk has left, in bytes.
    DiskAvailableBytes = 31,
    /// Commits to the disk.
    Commits = 32,
    /// How long all of them took together, in microseconds.
    CommitMicros = 33,
    /// Bytes of records in them.
    CommittedBytes = 34,
    /// How long ago the last of them was done, in milliseconds.
    LastCommitAgeMs = 35,
    /// Records that wait for the disk.
    Waiting = 36,
}

/// No statistic has this byte, or none that was known when this was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no statistic {byte}")]
pub struct UnknownStatistic {
    /// The byte.
    pub byte: u8,
}

impl Statistic {
    /// Every statistic.
    pub const ALL: [Self; 36] = [
        Self::Keys,
        Self::Bytes,
        Self::Gets,
        Self::Puts,
        Self::PutsRefusedFull,
        Self::Malformed,
        Self::Damaged,
        Self::Datagrams,
        Self::Messages,
        Self::UploadsBegun,
        Self::UploadsCompleted,
        Self::UploadsExpired,
        Self::UploadsRefusedBusy,
        Self::UploadBytesReserved,
        Self::ListKeysLeftOut,
        Self::Unauthenticated,
        Self::SessionsRefused,
        Self::NotGreetings,
        Self::Replayed,
        Self::Expired,
        Self::V1Refused,
        Self::RepliesTooLong,
        Self::PutsRefusedBusy,
        Self::PutsFailed,
        Self::CorruptAnswers,
        Self::IsReadOnly,
        Self::IsDiskFull,
        Self::IsIncomplete,
        Self::LogBytes,
        Self::DiskBytes,
        Self::DiskAvailableBytes,
        Self::Commits,
        Self::CommitMicros,
        Self::CommittedBytes,
        Self::LastCommitAgeMs,
        Self::Waiting,
    ];
}

impl TryFrom<u8> for Statistic {
    type Error = UnknownStatistic;

    fn try_from(byte: u8) -> Result<Self, UnknownStatistic> {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == byte);
        known.ok_or(UnknownStatistic { byte })
    }
}

/// The body of a greeting is as long as that of its answer.
pub(super) const GREETING_BODY_BYTES: usize = 8 + 8 + 2 + 4 + 1;

/// The statuses' bytes.
mod status {
    pub(super) const OK: u8 = 0;
    pub(super) const ABSENT: u8 = 1;
    pub(super) const SUPERSEDED: u8 = 2;
    pub(super) const TOO_LARGE: u8 = 3;
    pub(super) const FULL: u8 = 4;
    pub(super) const READ_ONLY: u8 = 5;
    pub(super) const WRONG_EPOCH: u8 = 6;
    pub(super) const UNSUPPORTED: u8 = 7;
    pub(super) const BUSY: u8 = 8;
    pub(super) const CORRUPT: u8 = 9;
    pub(super) const INTERNAL: u8 = 10;
}

impl Reply {
    /// Its status' byte.
    pub fn status(&self) -> u8 {
        match self {
            Self::Greeting(_)
            | Self::Done
            | Self::Record { .. }
            | Self::Block { .. }
            | Self::Tag { .. }
            | Self::Digest { .. }
            | Self::Staged { .. }
            | Self::Page { .. }
            | Self::Stats(_) => status::OK,
            Self::Absent { .. } => status::ABSENT,
            Self::Superseded { .. } => status::SUPERSEDED,
            Self::TooLarge { .. } => status::TOO_LARGE,
            Self::Full => status::FULL,
            Self::ReadOnly => status::READ_ONLY,
            Self::WrongEpoch { .. } => status::WRONG_EPOCH,
            Self::Unsupported => status::UNSUPPORTED,
            Self::Busy => status::BUSY,
            Self::Corrupt => status::CORRUPT,
            Self::Internal => status::INTERNAL,
        }
    }

    pub(super) fn decode(
        operation: u8,
        status: u8,
        body: &mut Reader,
    ) -> Result<Self, MessageError> {
        Ok(match status {
            status::OK => Self::decode_ok(operation, body)?,
            status::ABSENT => Self::Absent {
                tag: read_tag(body)?,
            },
            status::SUPERSEDED => Self::Superseded {
                tag: read_tag(body)?,
            },
            status::TOO_LARGE => Self::TooLarge {
                value_bytes_max: body.u32()?,
            },
            status::FULL => Self::Full,
            status::READ_ONLY => Self::ReadOnly,
            status::WRONG_EPOCH => Self::WrongEpoch { epoch: body.u32()? },
            status::UNSUPPORTED => Self::Unsupported,
            status::BUSY => Self::Busy,
            status::CORRUPT => Self::Corrupt,
            status::INTERNAL => Self::Internal,
            status => return Err(MessageError::Status { operation, status }),
        })
    }

    fn decode_ok(operation: u8, body: &mut Reader) -> Result<Self, MessageError> {
        Ok(match operation {
            operation::GREET => Self::Greeting(Greeting::decode(body)?),
            operation::PING | operation::PUT | operation::PUT_STAGED | operation::VOUCH => {
                Self::Done
            }
            operation::GET => Self::Record {
                tag: read_tag(body)?,
                value_bytes: body.u32()?,
                checksum: body.u32()?,
                content_type: read_content_type(body)?,
                block: body.rest(),
            },
            operation::TAG => Self::Tag {
                tag: read_tag(body)?,
            },
            operation::DIGEST => Self::Digest {
                tag: read_tag(body)?,
                value_bytes: body.u32()?,
                checksum: body.u32()?,
            },
            operation::STAGE => Self::decode_staged(body)?,
            operation::GET_BLOCK => Self::Block {
                offset: body.u32()?,
                block: body.rest(),
            },
            operation::LIST => Self::decode_page(body)?,
            operation::STATS => Self::decode_stats(body)?,
            operation => return Err(MessageError::Operation { operation }),
        })
    }

    fn decode_staged(body: &mut Reader) -> Result<Self, MessageError> {
        let base = body.u32()?;
        let bitmap = body.rest();
        if bitmap.len() > BITMAP_BYTES_MAX || bitmap.last() == Some(&0) {
            return Err(MessageError::Field);
        }
        Ok(Self::Staged { base, bitmap })
    }

    fn decode_page(body: &mut Reader) -> Result<Self, MessageError> {
        let flags = body.u8()?;
        if flags & !(MORE | INCOMPLETE | LEFT_OUT) != 0 {
            return Err(MessageError::Field);
        }
        let mut entries = Vec::new();
        while body.end().is_err() {
            entries.push(PageEntry {
                key: read_key(body)?,
                tag: read_tag(body)?,
                kind: match body.u8()? {
                    0 => EntryKind::Value,
                    1 => EntryKind::Tombstone,
                    2 => EntryKind::PassedOver,
                    _ => return Err(MessageError::Field),
                },
            });
        }
        Ok(Self::Page {
            more: flags & MORE != 0,
            is_incomplete: flags & INCOMPLETE != 0,
            is_left_out: flags & LEFT_OUT != 0,
            entries,
        })
    }

    fn decode_stats(body: &mut Reader) -> Result<Self, MessageError> {
        let mut stats = Vec::new();
        while body.end().is_err() {
            stats.push((body.u8()?, body.u64()?));
        }
        Ok(Self::Stats(stats))
    }

    pub(super) fn encode_body(&self, body: &mut Vec<u8>) {
        match self {
            Self::Greeting(greeting) => greeting.encode(body),
            Self::Record {
                tag,
                content_type,
                value_bytes,
                checksum,
                block,
            } => {
                write_tag(body, *tag);
                body.put_u32(*value_bytes);
                body.put_u32(*checksum);
                write_content_type(body, content_type);
                body.put(block);
            }
            Self::Block { offset, block } => {
                body.put_u32(*offset);
                body.put(block);
            }
            Self::Tag { tag } | Self::Absent { tag } | Self::Superseded { tag } => {
                write_tag(body, *tag);
            }
            Self::Digest {
                tag,
                value_bytes,
                checksum,
            } => {
                write_tag(body, *tag);
                body.put_u32(*value_bytes);
                body.put_u32(*checksum);
            }
            Self::Staged { base, bitmap } => {
                body.put_u32(*base);
                body.put(bitmap);
            }
            Self::Page {
                more,
                is_incomplete,
                is_left_out,
                entries,
            } => {
                let more = if *more { MORE } else { 0 };
                let incomplete = if *is_incomplete { INCOMPLETE } else { 0 };
                let left_out = if *is_left_out { LEFT_OUT } else { 0 };
                body.put_u8(more | incomplete | left_out);
                for PageEntry { key, tag, kind } in entries {
                    write_key(body, key);
                    write_tag(body, *tag);
                    body.put_u8(*kind as u8);
                }
            }
            Self::Stats(stats) => {
                for (name, value) in stats {
                    body.put_u8(*name);
                    body.put_u64(*value);
                }
            }
            Self::TooLarge {
                value_bytes_max: number,
            }
            | Self::WrongEpoch { epoch: number } => {
                body.put_u32(*number);
            }
            Self::Done
            | Self::Full
            | Self::ReadOnly
            | Self::Unsupported
            | Self::Busy
            | Self::Corrupt
            | Self::Internal => {}
        }
    }
}

impl Greeting {
    fn decode(body: &mut Reader) -> Result<Self, MessageError> {
        Ok(Self {
            boot_id: body.u64()?,
            session: body.u64()?,
            datagram_bytes_max: body.u16()?,
            value_bytes_max: body.u32()?,
            durability: match body.u8()? {
                0 => Durability::Memory,
                1 => Durability::Buffered,
                2 => Durability::Fsync,
                _ => return Err(MessageError::Field),
            },
        })
    }

    fn encode(&self, body: &mut Vec<u8>) {
        body.put_u64(self.boot_id);
        body.put_u64(self.session);
        body.put_u16(self.datagram_bytes_max);
        body.put_u32(self.value_bytes_max);
        body.put_u8(self.durability as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_known_by_their_bytes_and_no_other_byte_is() {
        for byte in 0..=u8::MAX {
            let known = Statistic::try_from(byte).map(|statistic| statistic as u8);
            let expected = match byte {
                1..=36 => Ok(byte),
                _ => Err(UnknownStatistic { byte }),
            };
            assert_eq!(known, expected);
        }
    }
}

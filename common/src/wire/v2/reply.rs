//! What a server answers, and how it is written.

use bytes::Bytes;

use super::coding::{
    AppendFields as _, KEY_POSITION_HEAD_BYTES, Reader, read_attributes, read_ballot,
    read_content_type, read_epoch, read_key, read_key_position, read_tag, write_ballot,
    write_content_type, write_epoch, write_key, write_key_position, write_tag,
};
use super::error::MessageError;
use super::head::{REPLY_HEAD_BYTES, operation};
use super::record::{read_record, write_record};
use crate::epoch::Epoch;
use crate::model::{
    Description, Durability, EntryKind, LeafEntry, LeafScope, LeafSum, PageEntry, PageRest,
    Refusal, ReplicaResponse,
};
use crate::record::{Attributes, Digest, RecordVersion};
use crate::slot::Accepted;
use crate::tag::Tag;

/// Most bytes of a [`ReplicaResponse::Staged`] bitmap: 256 blocks.
pub const BITMAP_BYTES_MAX: usize = 32;

/// Bytes of a GET's reply beside the attributes, the content type and the value.
pub const RECORD_HEAD_BYTES: usize = REPLY_HEAD_BYTES + 16 + 4 + 4 + 1;

/// Bytes of a promise beside what it says is accepted.
pub const PROMISE_HEAD_BYTES: usize = REPLY_HEAD_BYTES + 1 + 8;

/// Bytes of a page beside its entries, if it does not say where its rest begins.
pub const PAGE_HEAD_BYTES: usize = REPLY_HEAD_BYTES + 1;

/// Bytes of where the rest of a page begins, beside those of the place.
pub const PAGE_REST_BYTES: usize = KEY_POSITION_HEAD_BYTES;

/// Bytes of an entry of a page beside the key.
pub const PAGE_ENTRY_BYTES: usize = 2 + 16 + 1;

/// Bytes of the sum of leaves.
pub const LEAF_SUM_BYTES: usize = 8 + 4 + 1;

/// Bytes of sums, or of the entries of a leaf, beside them.
pub const LEAF_HEAD_BYTES: usize = REPLY_HEAD_BYTES + 1;

/// Bytes of an entry of a leaf beside the key.
pub const LEAF_ENTRY_BYTES: usize = 2 + 16 + 4 + 4;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a greeting.
    Greeting(Greeting),
    /// To a question for a description.
    Description(Description),
    /// To a command.
    Response(ReplicaResponse),
}

impl From<ReplicaResponse> for Reply {
    fn from(response: ReplicaResponse) -> Self {
        Self::Response(response)
    }
}

const MORE: u8 = 1;
const INCOMPLETE: u8 = 2;
const LEFT_OUT: u8 = 4;

/// Of the bits of a sum, and the second of the entries of a leaf.
const ANSWERED: u8 = 2;
const UNANSWERED: u8 = 4;
/// Where the rest begins is said.
const FROM: u8 = 8;

/// In a promise: something was accepted before, and the version is a tombstone.
const ACCEPTED: u8 = 1;
const TOMBSTONE: u8 = 2;

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

/// The body of a question for a description is as long as that of its answer.
pub(super) const DESCRIPTION_BODY_BYTES: usize = 8 + Epoch::BYTES;

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
    /// As [`OK`], of a record that has attributes: they come first.
    pub(super) const OK_WITH_ATTRIBUTES: u8 = 11;
    /// As [`ABSENT`], of a tombstone that has attributes: they come first.
    pub(super) const ABSENT_WITH_ATTRIBUTES: u8 = 12;
    pub(super) const STALE: u8 = 13;
    pub(super) const BEHIND: u8 = 14;
    pub(super) const OTHER_CONFIGURATION: u8 = 15;
    pub(super) const SET_BACK: u8 = 16;
    pub(super) const PREEMPTED: u8 = 17;
}

impl Reply {
    /// Its status' byte.
    pub fn status(&self) -> u8 {
        let response = match self {
            Self::Greeting(_) | Self::Description(_) => return status::OK,
            Self::Response(response) => response,
        };
        let has_attributes = attributes(response).is_some_and(|attributes| !attributes.is_none());
        match response {
            ReplicaResponse::Record { .. } | ReplicaResponse::Digest { .. } if has_attributes => {
                status::OK_WITH_ATTRIBUTES
            }
            ReplicaResponse::Absent { .. } if has_attributes => status::ABSENT_WITH_ATTRIBUTES,
            ReplicaResponse::Done
            | ReplicaResponse::Record { .. }
            | ReplicaResponse::Block { .. }
            | ReplicaResponse::Tag { .. }
            | ReplicaResponse::Digest { .. }
            | ReplicaResponse::Staged { .. }
            | ReplicaResponse::Promised { .. }
            | ReplicaResponse::Page { .. }
            | ReplicaResponse::LeafSums { .. }
            | ReplicaResponse::LeafEntries { .. }
            | ReplicaResponse::Statistics(_) => status::OK,
            ReplicaResponse::Absent { .. } => status::ABSENT,
            ReplicaResponse::Superseded { .. } => status::SUPERSEDED,
            ReplicaResponse::Preempted { .. } => status::PREEMPTED,
            // DKVS/2 has tags: no server of ours answers so.
            ReplicaResponse::Untagged { .. } => status::INTERNAL,
            ReplicaResponse::Refused(refusal) => refusal_status(*refusal),
        }
    }

    pub(super) fn decode(
        operation: u8,
        status: u8,
        body: &mut Reader<'_>,
    ) -> Result<Self, MessageError> {
        if let (operation::GREET, status::OK) = (operation, status) {
            return Greeting::decode(body).map(Self::Greeting);
        }
        if let (operation::DESCRIBE, status::OK) = (operation, status) {
            return decode_description(body).map(Self::Description);
        }
        decode_response(operation, status, body).map(Self::Response)
    }

    pub(super) fn encode_body(&self, body: &mut Vec<u8>) {
        match self {
            Self::Greeting(greeting) => greeting.encode(body),
            Self::Description(description) => encode_description(*description, body),
            Self::Response(response) => encode_response(response, body),
        }
    }
}

/// What the record of a response says beside its content; none if it has no record.
fn attributes(response: &ReplicaResponse) -> Option<&Attributes> {
    match response {
        ReplicaResponse::Record { digest, .. } => Some(&digest.attributes),
        ReplicaResponse::Digest { attributes, .. } | ReplicaResponse::Absent { attributes, .. } => {
            Some(attributes)
        }
        _ => None,
    }
}

/// The byte of a refusal. What only clients refuse, as DKVS/1 cannot carry it, has none of its own.
fn refusal_status(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::TooLarge { .. } => status::TOO_LARGE,
        Refusal::Full => status::FULL,
        Refusal::ReadOnly => status::READ_ONLY,
        Refusal::WrongEpoch { .. } => status::WRONG_EPOCH,
        Refusal::Stale { .. } => status::STALE,
        Refusal::Behind { .. } => status::BEHIND,
        Refusal::OtherConfiguration { .. } => status::OTHER_CONFIGURATION,
        Refusal::SetBack => status::SET_BACK,
        Refusal::Unsupported => status::UNSUPPORTED,
        Refusal::Busy => status::BUSY,
        Refusal::Corrupt => status::CORRUPT,
        Refusal::Unstated
        | Refusal::KeyTooLong { .. }
        | Refusal::HasNul
        | Refusal::NoDeletion
        | Refusal::NotV2
        | Refusal::TagTaken
        | Refusal::Internal => status::INTERNAL,
    }
}

fn decode_response(
    operation: u8,
    status: u8,
    body: &mut Reader<'_>,
) -> Result<ReplicaResponse, MessageError> {
    Ok(match status {
        status::OK => decode_ok(operation, Attributes::NONE, body)?,
        status::ABSENT => ReplicaResponse::absent(read_tag(body)?),
        status::OK_WITH_ATTRIBUTES if has_record(operation) => {
            let attributes = read_attributes(body)?;
            decode_ok(operation, attributes, body)?
        }
        status::ABSENT_WITH_ATTRIBUTES if has_record(operation) => {
            let attributes = read_attributes(body)?;
            let tag = read_tag(body)?;
            if tag == Tag::ZERO {
                return Err(MessageError::Field);
            }
            ReplicaResponse::Absent { tag, attributes }
        }
        status::SUPERSEDED => ReplicaResponse::Superseded {
            tag: read_tag(body)?,
        },
        status::PREEMPTED => ReplicaResponse::Preempted {
            promised: read_ballot(body)?,
        },
        status::TOO_LARGE => ReplicaResponse::Refused(Refusal::TooLarge {
            value_bytes_max: body.u32()?,
        }),
        status::FULL => ReplicaResponse::Refused(Refusal::Full),
        status::READ_ONLY => ReplicaResponse::Refused(Refusal::ReadOnly),
        status::WRONG_EPOCH => ReplicaResponse::Refused(Refusal::WrongEpoch { epoch: body.u32()? }),
        status::STALE | status::BEHIND | status::OTHER_CONFIGURATION => {
            let served = read_epoch(body)?;
            ReplicaResponse::Refused(match status {
                status::STALE => Refusal::Stale { served },
                status::BEHIND => Refusal::Behind { served },
                _ => Refusal::OtherConfiguration { served },
            })
        }
        status::SET_BACK => ReplicaResponse::Refused(Refusal::SetBack),
        status::UNSUPPORTED => ReplicaResponse::Refused(Refusal::Unsupported),
        status::BUSY => ReplicaResponse::Refused(Refusal::Busy),
        status::CORRUPT => ReplicaResponse::Refused(Refusal::Corrupt),
        status::INTERNAL => ReplicaResponse::Refused(Refusal::Internal),
        status => return Err(MessageError::Status { operation, status }),
    })
}

/// Whether a reply to this operation has a record, whose attributes it may have as well.
fn has_record(operation: u8) -> bool {
    matches!(operation, operation::GET | operation::DIGEST)
}

fn decode_ok(
    operation: u8,
    attributes: Attributes,
    body: &mut Reader<'_>,
) -> Result<ReplicaResponse, MessageError> {
    Ok(match operation {
        operation::PING
        | operation::PUT
        | operation::PUT_STAGED
        | operation::PUT_STAGED_WITH_ATTRIBUTES
        | operation::ACCEPT
        | operation::COMMIT
        | operation::HIGH_WATER
        | operation::NUDGE
        | operation::ATTEST => ReplicaResponse::Done,
        operation::GET => ReplicaResponse::Record {
            digest: Digest {
                tag: read_tag(body)?,
                attributes,
                value_bytes: body.u32()?,
                checksum: body.u32()?,
                content_type: read_content_type(body)?,
            },
            block: body.rest(),
        },
        operation::TAG => ReplicaResponse::Tag {
            tag: read_tag(body)?,
        },
        operation::DIGEST => ReplicaResponse::Digest {
            tag: read_tag(body)?,
            attributes,
            value_bytes: body.u32()?,
            checksum: body.u32()?,
        },
        operation::STAGE => decode_staged(body)?,
        operation::GET_BLOCK => ReplicaResponse::Block {
            offset: body.u32()?,
            block: body.rest(),
        },
        operation::PREPARE => decode_promised(body)?,
        operation::LIST => decode_page(body)?,
        operation::STATS => decode_stats(body)?,
        operation::LEAF_SUMS => decode_leaf_sums(body)?,
        operation::LEAF_ENTRIES => decode_leaf_entries(body)?,
        operation => return Err(MessageError::Operation { operation }),
    })
}

fn decode_staged(body: &mut Reader<'_>) -> Result<ReplicaResponse, MessageError> {
    let base = body.u32()?;
    let bitmap = body.rest();
    if bitmap.len() > BITMAP_BYTES_MAX || bitmap.last() == Some(&0) {
        return Err(MessageError::Field);
    }
    Ok(ReplicaResponse::Staged { base, bitmap })
}

fn decode_promised(body: &mut Reader<'_>) -> Result<ReplicaResponse, MessageError> {
    let flags = body.u8()?;
    if flags & !(ACCEPTED | TOMBSTONE) != 0 {
        return Err(MessageError::Field);
    }
    Ok(ReplicaResponse::Promised {
        grant: body.u64()?,
        is_tombstone: flags & TOMBSTONE != 0,
        accepted: match flags & ACCEPTED {
            0 => None,
            _ => Some(Accepted {
                ballot: read_ballot(body)?,
                record: read_record(body)?,
            }),
        },
    })
}

fn decode_page(body: &mut Reader<'_>) -> Result<ReplicaResponse, MessageError> {
    let flags = body.u8()?;
    let rest = match flags & (MORE | FROM) {
        0 => PageRest::None,
        MORE => PageRest::AfterLast,
        FROM => PageRest::From(read_key_position(body, &Bytes::new())?),
        _ => return Err(MessageError::Field),
    };
    if flags & !(MORE | INCOMPLETE | LEFT_OUT | FROM) != 0 {
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
                _ => return Err(MessageError::Field),
            },
        });
    }
    Ok(ReplicaResponse::Page {
        rest,
        is_incomplete: flags & INCOMPLETE != 0,
        is_left_out: flags & LEFT_OUT != 0,
        entries,
    })
}

fn decode_leaf_sums(body: &mut Reader<'_>) -> Result<ReplicaResponse, MessageError> {
    let depth = body.u8()?;
    let mut sums = Vec::new();
    while body.end().is_err() {
        let (sum, keys, bits) = (body.u64()?, body.u32()?, body.u8()?);
        if bits & !(ANSWERED | UNANSWERED) != 0 {
            return Err(MessageError::Field);
        }
        sums.push(LeafSum {
            sum,
            keys,
            has_answered: bits & ANSWERED != 0,
            has_unanswered: bits & UNANSWERED != 0,
        });
    }
    match depth <= LeafScope::DEPTH_MAX && sums.len() <= LeafSum::COUNT_MAX.into() {
        true => Ok(ReplicaResponse::LeafSums { depth, sums }),
        false => Err(MessageError::Field),
    }
}

fn decode_leaf_entries(body: &mut Reader<'_>) -> Result<ReplicaResponse, MessageError> {
    let bits = body.u8()?;
    if bits & !(MORE | ANSWERED) != 0 {
        return Err(MessageError::Field);
    }
    let (has_more, is_answered) = (bits & MORE != 0, bits & ANSWERED != 0);
    let mut entries = Vec::new();
    while body.end().is_err() {
        entries.push(LeafEntry {
            key: read_key(body)?,
            version: RecordVersion {
                tag: read_tag(body)?,
                checksum: body.u32()?,
                born: body.u32()?,
            },
        });
    }
    // One who says that there are more, and shows none, is asked the same again for ever.
    match has_more && entries.is_empty() {
        true => Err(MessageError::Field),
        false => Ok(ReplicaResponse::LeafEntries {
            has_more,
            is_answered,
            entries,
        }),
    }
}

fn decode_stats(body: &mut Reader<'_>) -> Result<ReplicaResponse, MessageError> {
    let mut stats = Vec::new();
    while body.end().is_err() {
        stats.push((body.u8()?, body.u64()?));
    }
    Ok(ReplicaResponse::Statistics(stats))
}

fn encode_response(response: &ReplicaResponse, body: &mut Vec<u8>) {
    match response {
        ReplicaResponse::Record { digest, block } => {
            digest.attributes.encode_block(body);
            write_tag(body, digest.tag);
            body.put_u32(digest.value_bytes);
            body.put_u32(digest.checksum);
            write_content_type(body, &digest.content_type);
            body.put(block);
        }
        ReplicaResponse::Block { offset, block } => {
            body.put_u32(*offset);
            body.put(block);
        }
        ReplicaResponse::Tag { tag } | ReplicaResponse::Superseded { tag } => {
            write_tag(body, *tag);
        }
        ReplicaResponse::Absent { tag, attributes } => {
            attributes.encode_block(body);
            write_tag(body, *tag);
        }
        ReplicaResponse::Digest {
            tag,
            attributes,
            value_bytes,
            checksum,
        } => {
            attributes.encode_block(body);
            write_tag(body, *tag);
            body.put_u32(*value_bytes);
            body.put_u32(*checksum);
        }
        ReplicaResponse::Promised {
            grant,
            is_tombstone,
            accepted,
        } => {
            let tombstone = if *is_tombstone { TOMBSTONE } else { 0 };
            let has_accepted = if accepted.is_some() { ACCEPTED } else { 0 };
            body.put_u8(tombstone | has_accepted);
            body.put_u64(*grant);
            if let Some(Accepted { ballot, record }) = accepted {
                write_ballot(body, *ballot);
                write_record(body, record);
            }
        }
        ReplicaResponse::Preempted { promised } => write_ballot(body, *promised),
        ReplicaResponse::Staged { base, bitmap } => {
            body.put_u32(*base);
            body.put(bitmap);
        }
        ReplicaResponse::Page {
            rest,
            is_incomplete,
            is_left_out,
            entries,
        } => {
            let more = match rest {
                PageRest::None => 0,
                PageRest::AfterLast => MORE,
                PageRest::From(_) => FROM,
            };
            let incomplete = if *is_incomplete { INCOMPLETE } else { 0 };
            let left_out = if *is_left_out { LEFT_OUT } else { 0 };
            body.put_u8(more | incomplete | left_out);
            if let PageRest::From(start) = rest {
                write_key_position(body, start, &[]);
            }
            for PageEntry { key, tag, kind } in entries {
                write_key(body, key);
                write_tag(body, *tag);
                body.put_u8(*kind as u8);
            }
        }
        ReplicaResponse::LeafSums { depth, sums } => {
            body.put_u8(*depth);
            for sum in sums {
                body.put_u64(sum.sum);
                body.put_u32(sum.keys);
                let answered = if sum.has_answered { ANSWERED } else { 0 };
                let unanswered = if sum.has_unanswered { UNANSWERED } else { 0 };
                body.put_u8(answered | unanswered);
            }
        }
        ReplicaResponse::LeafEntries {
            has_more,
            is_answered,
            entries,
        } => {
            let more = if *has_more { MORE } else { 0 };
            body.put_u8(more | if *is_answered { ANSWERED } else { 0 });
            for LeafEntry { key, version } in entries {
                write_key(body, key);
                write_tag(body, version.tag);
                body.put_u32(version.checksum);
                body.put_u32(version.born);
            }
        }
        ReplicaResponse::Statistics(stats) => {
            for (name, value) in stats {
                body.put_u8(*name);
                body.put_u64(*value);
            }
        }
        ReplicaResponse::Refused(
            Refusal::TooLarge {
                value_bytes_max: number,
            }
            | Refusal::WrongEpoch { epoch: number },
        ) => body.put_u32(*number),
        ReplicaResponse::Refused(
            Refusal::Stale { served }
            | Refusal::Behind { served }
            | Refusal::OtherConfiguration { served },
        ) => write_epoch(body, *served),
        ReplicaResponse::Done | ReplicaResponse::Untagged { .. } | ReplicaResponse::Refused(_) => {}
    }
}

fn decode_description(body: &mut Reader<'_>) -> Result<Description, MessageError> {
    let (store_id, epoch) = (body.u64()?, read_epoch(body)?);
    let epoch = match epoch {
        Epoch { number: 0, hash: 0 } => None,
        Epoch { number: 0, .. } => return Err(MessageError::Field),
        epoch => Some(epoch),
    };
    Ok(Description { store_id, epoch })
}

fn encode_description(description: Description, body: &mut Vec<u8>) {
    body.put_u64(description.store_id);
    let none = Epoch { number: 0, hash: 0 };
    write_epoch(body, description.epoch.unwrap_or(none));
}

impl Greeting {
    fn decode(body: &mut Reader<'_>) -> Result<Self, MessageError> {
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

//! What a client asks, and how it is written.

use bytes::Bytes;

use super::coding::{
    Put as _, Reader, read_content_type, read_flag, read_key, read_tag, write_content_type,
    write_key, write_tag,
};
use super::message::{MessageError, REQUEST_HEAD_BYTES, RequestId, operation};
use super::reply::GREETING_BODY_BYTES;
use crate::kv::{Key, Value};
use crate::record::{CONTENT_TYPE_BYTES_MAX, Content, ContentType, Record};
use crate::ring::Position;
use crate::tag::Tag;
use crate::trace::{SpanId, Trace, TraceId};

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Who are you, and what do you take? Padded to the length of its answer, so that a server
    /// never says more to a stranger than it was told.
    Greet {
        /// The longest datagram that the client takes.
        datagram_bytes_max: u16,
    },
    /// Are you there?
    Ping,
    /// The record of a key.
    Get {
        /// Which key.
        key: Key,
    },
    /// The tag of a key, without the value.
    Tag {
        /// Which key.
        key: Key,
    },
    /// The tag, size and checksum of a key, without the value.
    Digest {
        /// Which key.
        key: Key,
    },
    /// To store a record whose value is in this message.
    Put {
        /// Which key.
        key: Key,
        /// The record.
        record: Record,
    },
    /// To store a record whose value was sent in blocks.
    PutStaged {
        /// Which key.
        key: Key,
        /// Which version.
        tag: Tag,
        /// The value's media type.
        content_type: ContentType,
        /// The upload that has the value.
        upload: u64,
        /// The value's length in bytes.
        value_bytes: u32,
        /// The record's checksum.
        checksum: u32,
    },
    /// Part of a value to be stored later.
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
    /// Part of the value of a version that is too long for one datagram.
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
    /// A page of the keys that the server holds, in ring order.
    List {
        /// The key before which to begin is the first at or after this position...
        from: Position,
        /// ...but for this key and those before it at the very same position.
        after: Option<Key>,
        /// Only keys that begin with these bytes are told.
        prefix: Bytes,
        /// Most keys to tell, at most [`Self::LIST_LIMIT_MAX`].
        limit: u16,
        /// Whether the client understands that keys were left out. Clients of old do not, and take
        /// a page that says so for no page.
        hears_left_out: bool,
    },
    /// Counts and sizes.
    Stats,
    /// To answer for a key from now on, though the server may have lost what it held: a read that
    /// began after this server had started found that no record that was ever confirmed is newer.
    Vouch {
        /// The server's boot id when the read began.
        boot_id: u64,
        /// Which key.
        key: Key,
        /// What the read found to be newest.
        tag: Tag,
    },
    /// Which trace another request of the same datagram belongs to, for the server's log. It is not
    /// answered.
    Trace {
        /// The request that it is about.
        of: RequestId,
        /// Its trace.
        trace: Trace,
    },
}

const KIND_VALUE: u8 = 0;
const KIND_TOMBSTONE: u8 = 1;

/// The bit beside the limit of a list. To a server that does not know it, the limit is greater than
/// any page.
const HEARS_LEFT_OUT: u16 = 1 << 15;

impl Request {
    /// Its operation's byte.
    pub fn operation(&self) -> u8 {
        match self {
            Self::Greet { .. } => operation::GREET,
            Self::Ping => operation::PING,
            Self::Get { .. } => operation::GET,
            Self::Tag { .. } => operation::TAG,
            Self::Digest { .. } => operation::DIGEST,
            Self::Put { .. } => operation::PUT,
            Self::PutStaged { .. } => operation::PUT_STAGED,
            Self::Stage { .. } => operation::STAGE,
            Self::GetBlock { .. } => operation::GET_BLOCK,
            Self::List { .. } => operation::LIST,
            Self::Stats => operation::STATS,
            Self::Vouch { .. } => operation::VOUCH,
            Self::Trace { .. } => operation::TRACE,
        }
    }

    /// Its operation's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Greet { .. } => "greet",
            Self::Ping => "ping",
            Self::Get { .. } => "get",
            Self::Tag { .. } => "tag",
            Self::Digest { .. } => "digest",
            Self::Put { .. } => "put",
            Self::PutStaged { .. } => "put staged",
            Self::Stage { .. } => "stage",
            Self::GetBlock { .. } => "get block",
            Self::List { .. } => "list",
            Self::Stats => "statistics",
            Self::Vouch { .. } => "vouch",
            Self::Trace { .. } => "trace",
        }
    }

    /// The key that it is about, if it is about one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Get { key }
            | Self::Tag { key }
            | Self::Digest { key }
            | Self::Put { key, .. }
            | Self::PutStaged { key, .. }
            | Self::GetBlock { key, .. }
            | Self::Vouch { key, .. } => Some(key),
            Self::Greet { .. }
            | Self::Ping
            | Self::Stage { .. }
            | Self::List { .. }
            | Self::Stats
            | Self::Trace { .. } => None,
        }
    }

    /// The greatest limit of a list.
    pub const LIST_LIMIT_MAX: u16 = HEARS_LEFT_OUT - 1;

    /// The most that a put says beside key and value, whichever way the value travels, in bytes.
    pub const PUT_HEAD_BYTES_MAX: usize =
        REQUEST_HEAD_BYTES + 2 + 16 + 1 + CONTENT_TYPE_BYTES_MAX + 8 + 4 + 4;

    /// Bytes of a put's message beside the key and what only values have: content type and value.
    pub const PUT_KEY_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + 2 + 16 + 4 + 1;

    /// Bytes of a get's message beside the key.
    pub const GET_KEY_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + 2;

    /// How long the message of a put of this record is, in bytes.
    pub fn put_bytes(key: &Key, record: &Record) -> usize {
        let head = Self::PUT_KEY_OVERHEAD_BYTES + key.as_bytes().len();
        match &record.content {
            Content::Value {
                content_type,
                value,
            } => head + 1 + content_type.as_bytes().len() + value.len(),
            Content::Tombstone => head,
        }
    }

    /// How long the key may be after which a list goes on, in a message of `message_bytes`.
    pub fn list_key_bytes_max(message_bytes: usize) -> usize {
        message_bytes.saturating_sub(REQUEST_HEAD_BYTES + 20 + 2 + 1 + 2)
    }

    /// How long the prefix of a list may be beside a key in a message of `message_bytes`.
    pub fn list_prefix_bytes_max(message_bytes: usize, after: Option<&Key>) -> usize {
        let after = after.map_or(0, |key| 2 + key.as_bytes().len());
        message_bytes.saturating_sub(REQUEST_HEAD_BYTES + 20 + 2 + 1 + after)
    }

    pub(super) fn decode(operation: u8, body: &mut Reader) -> Result<Self, MessageError> {
        Ok(match operation {
            operation::GREET => Self::decode_greet(body)?,
            operation::PING => Self::Ping,
            operation::GET => Self::Get {
                key: read_key(body)?,
            },
            operation::TAG => Self::Tag {
                key: read_key(body)?,
            },
            operation::DIGEST => Self::Digest {
                key: read_key(body)?,
            },
            operation::PUT => Self::Put {
                key: read_key(body)?,
                record: read_record(body)?,
            },
            operation::PUT_STAGED => Self::PutStaged {
                key: read_key(body)?,
                tag: read_tag(body)?,
                content_type: read_content_type(body)?,
                upload: body.u64()?,
                value_bytes: body.u32()?,
                checksum: body.u32()?,
            },
            operation::STAGE => Self::Stage {
                upload: body.u64()?,
                value_bytes: body.u32()?,
                offset: body.u32()?,
                block_bytes: body.u16()?,
                block: body.rest(),
            },
            operation::GET_BLOCK => Self::GetBlock {
                key: read_key(body)?,
                tag: read_tag(body)?,
                offset: body.u32()?,
                block_bytes: body.u16()?,
            },
            operation::LIST => {
                let from = Position(body.array()?);
                let limit = body.u16()?;
                Self::List {
                    from,
                    limit: limit & Self::LIST_LIMIT_MAX,
                    hears_left_out: limit & HEARS_LEFT_OUT != 0,
                    after: match read_flag(body)? {
                        true => Some(read_key(body)?),
                        false => None,
                    },
                    prefix: body.rest(),
                }
            }
            operation::STATS => Self::Stats,
            operation::VOUCH => Self::Vouch {
                boot_id: body.u64()?,
                key: read_key(body)?,
                tag: read_tag(body)?,
            },
            operation::TRACE => Self::Trace {
                of: RequestId(body.u64()?),
                trace: Trace {
                    trace_id: TraceId(body.array()?),
                    span_id: SpanId(body.array()?),
                },
            },
            operation => return Err(MessageError::Operation { operation }),
        })
    }

    fn decode_greet(body: &mut Reader) -> Result<Self, MessageError> {
        let datagram_bytes_max = body.u16()?;
        let padding: [u8; GREETING_BODY_BYTES - 4] = body.array()?;
        match padding.iter().all(|byte| *byte == 0) {
            true => Ok(Self::Greet { datagram_bytes_max }),
            false => Err(MessageError::Field),
        }
    }

    pub(super) fn encode_body(&self, body: &mut Vec<u8>) {
        match self {
            Self::Greet { datagram_bytes_max } => {
                body.put_u16(*datagram_bytes_max);
                // With the two bytes that only a request has, as long as the answer.
                body.put(&[0; GREETING_BODY_BYTES - 4]);
            }
            Self::Ping | Self::Stats => {}
            Self::Get { key } | Self::Tag { key } | Self::Digest { key } => write_key(body, key),
            Self::Put { key, record } => {
                write_key(body, key);
                write_record(body, record);
            }
            Self::PutStaged {
                key,
                tag,
                content_type,
                upload,
                value_bytes,
                checksum,
            } => {
                write_key(body, key);
                write_tag(body, *tag);
                write_content_type(body, content_type);
                body.put_u64(*upload);
                body.put_u32(*value_bytes);
                body.put_u32(*checksum);
            }
            Self::Stage {
                upload,
                value_bytes,
                offset,
                block_bytes,
                block,
            } => {
                body.put_u64(*upload);
                body.put_u32(*value_bytes);
                body.put_u32(*offset);
                body.put_u16(*block_bytes);
                body.put(block);
            }
            Self::GetBlock {
                key,
                tag,
                offset,
                block_bytes,
            } => {
                write_key(body, key);
                write_tag(body, *tag);
                body.put_u32(*offset);
                body.put_u16(*block_bytes);
            }
            Self::List {
                from,
                after,
                prefix,
                limit,
                hears_left_out,
            } => {
                body.put(&from.0);
                let hears_left_out = if *hears_left_out { HEARS_LEFT_OUT } else { 0 };
                body.put_u16((*limit).min(Self::LIST_LIMIT_MAX) | hears_left_out);
                body.put_u8(after.is_some().into());
                if let Some(after) = after {
                    write_key(body, after);
                }
                body.put(prefix);
            }
            Self::Vouch { boot_id, key, tag } => {
                body.put_u64(*boot_id);
                write_key(body, key);
                write_tag(body, *tag);
            }
            Self::Trace { of, trace } => {
                body.put_u64(of.0);
                body.put(&trace.trace_id.0);
                body.put(&trace.span_id.0);
            }
        }
    }
}

fn read_record(body: &mut Reader) -> Result<Record, MessageError> {
    let tag = read_tag(body)?;
    let checksum = body.u32()?;
    let content = match body.u8()? {
        KIND_VALUE => Content::Value {
            content_type: read_content_type(body)?,
            value: Value::new(body.rest()).map_err(|_| MessageError::Field)?,
        },
        KIND_TOMBSTONE => Content::Tombstone,
        _ => return Err(MessageError::Field),
    };
    Ok(Record {
        tag,
        content,
        checksum,
    })
}

fn write_record(body: &mut Vec<u8>, record: &Record) {
    write_tag(body, record.tag);
    body.put_u32(record.checksum);
    match &record.content {
        Content::Value {
            content_type,
            value,
        } => {
            body.put_u8(KIND_VALUE);
            write_content_type(body, content_type);
            body.put(value.as_bytes());
        }
        Content::Tombstone => body.put_u8(KIND_TOMBSTONE),
    }
}

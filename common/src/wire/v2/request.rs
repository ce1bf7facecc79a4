//! What a client asks, and how it is written.

use super::coding::{
    AppendFields as _, KEY_POSITION_HEAD_BYTES, Reader, read_attributes, read_ballot,
    read_content_type, read_key, read_key_position, read_leaf_scope, read_server, read_tag,
    write_ballot, write_content_type, write_key, write_key_position, write_leaf_scope,
    write_server, write_tag,
};
use super::error::MessageError;
use super::head::{REQUEST_HEAD_BYTES, RequestId, operation};
use super::record::{read_record, write_record};
use super::reply::{DESCRIPTION_BODY_BYTES, GREETING_BODY_BYTES};
use crate::kv::Key;
use crate::model::{Direction, HighWater, LeafSum, Nudge, ReplicaCommand};
use crate::record::{Attributes, CONTENT_TYPE_BYTES_MAX, Content, OperationId, Record};
use crate::trace::{SpanId, Trace, TraceId};

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Who are you, and what do you take? Padded to the length of its answer, so that a server
    /// never sends an unknown sender more bytes than it received.
    Greet {
        /// The longest datagram that the client takes.
        datagram_bytes_max: u16,
    },
    /// Of which configuration are you, and what do you keep records on? It goes with a greeting, and is
    /// padded like one. Servers that do not know it answer the greeting alone.
    Describe,
    /// A command, which is answered.
    Command(ReplicaCommand),
    /// Which trace another request of the same datagram belongs to, for the server's log. It is not
    /// answered.
    Trace {
        /// The request that it is about.
        of: RequestId,
        /// Its trace.
        trace: Trace,
    },
}

impl From<ReplicaCommand> for Request {
    fn from(command: ReplicaCommand) -> Self {
        Self::Command(command)
    }
}

/// In a list: the keys descend.
const DESCENDING: u8 = 1;

impl Request {
    /// Its operation's byte.
    pub fn operation(&self) -> u8 {
        let command = match self {
            Self::Greet { .. } => return operation::GREET,
            Self::Describe => return operation::DESCRIBE,
            Self::Trace { .. } => return operation::TRACE,
            Self::Command(command) => command,
        };
        match command {
            ReplicaCommand::Ping => operation::PING,
            ReplicaCommand::Get { .. } => operation::GET,
            ReplicaCommand::GetTag { .. } => operation::TAG,
            ReplicaCommand::GetDigest { .. } => operation::DIGEST,
            ReplicaCommand::Put { .. } => operation::PUT,
            ReplicaCommand::PutStaged { attributes, .. } if attributes.is_none() => {
                operation::PUT_STAGED
            }
            ReplicaCommand::PutStaged { .. } => operation::PUT_STAGED_WITH_ATTRIBUTES,
            ReplicaCommand::Stage { .. } => operation::STAGE,
            ReplicaCommand::GetBlock { .. } => operation::GET_BLOCK,
            ReplicaCommand::List { .. } => operation::LIST,
            ReplicaCommand::GetStatistics => operation::STATS,
            ReplicaCommand::Prepare { .. } => operation::PREPARE,
            ReplicaCommand::Accept { .. } => operation::ACCEPT,
            ReplicaCommand::Commit { .. } => operation::COMMIT,
            ReplicaCommand::GetLeafSums { .. } => operation::LEAF_SUMS,
            ReplicaCommand::GetLeafEntries { .. } => operation::LEAF_ENTRIES,
            ReplicaCommand::NoteHighWater(_) => operation::HIGH_WATER,
            ReplicaCommand::Nudge(_) => operation::NUDGE,
            ReplicaCommand::Attest { .. } => operation::ATTEST,
        }
    }

    /// Its operation's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Greet { .. } => "greet",
            Self::Describe => "describe",
            Self::Command(command) => command.name(),
            Self::Trace { .. } => "trace",
        }
    }

    /// The most that a put says beside key and value, whichever way the value travels, in bytes.
    pub const PUT_HEAD_BYTES_MAX: usize = REQUEST_HEAD_BYTES
        + 2
        + 16
        + Attributes::BLOCK_BYTES_MAX
        + 1
        + CONTENT_TYPE_BYTES_MAX
        + 8
        + 4
        + 4;

    /// Bytes of a put's message beside the key, the attributes, and what only values have: content
    /// type and value.
    pub const PUT_KEY_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + 2 + 16 + 4 + 1;

    /// Bytes of a get's message beside the key.
    pub const GET_KEY_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + 2;

    /// How long the message of a put of this record is, in bytes.
    pub fn put_bytes(key: &Key, record: &Record) -> usize {
        let attributes_bytes = record.attributes.block_bytes();
        let head = Self::PUT_KEY_OVERHEAD_BYTES + key.as_bytes().len() + attributes_bytes;
        match &record.content {
            Content::Value {
                content_type,
                value,
            } => head + 1 + content_type.as_bytes().len() + value.len(),
            Content::Tombstone => head,
        }
    }

    /// Bytes of a list's message beside its prefix, and what the place where it begins has beyond
    /// that.
    pub const LIST_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + 1 + 2 + 2 + KEY_POSITION_HEAD_BYTES;

    pub(super) fn decode(operation: u8, body: &mut Reader<'_>) -> Result<Self, MessageError> {
        Ok(match operation {
            operation::GREET => Self::decode_greet(body)?,
            operation::DESCRIBE => {
                let padding: [u8; DESCRIPTION_BODY_BYTES - 2] = body.array()?;
                match padding.iter().all(|byte| *byte == 0) {
                    true => Self::Describe,
                    false => return Err(MessageError::Field),
                }
            }
            operation::TRACE => Self::Trace {
                of: RequestId(body.u64()?),
                trace: Trace {
                    trace_id: TraceId(body.array()?),
                    span_id: SpanId(body.array()?),
                },
            },
            operation => Self::Command(decode_command(operation, body)?),
        })
    }

    fn decode_greet(body: &mut Reader<'_>) -> Result<Self, MessageError> {
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
            Self::Describe => body.put(&[0; DESCRIPTION_BODY_BYTES - 2]),
            Self::Command(command) => encode_command(command, body),
            Self::Trace { of, trace } => {
                body.put_u64(of.0);
                body.put(&trace.trace_id.0);
                body.put(&trace.span_id.0);
            }
        }
    }
}

fn decode_command(operation: u8, body: &mut Reader<'_>) -> Result<ReplicaCommand, MessageError> {
    Ok(match operation {
        operation::PING => ReplicaCommand::Ping,
        operation::GET => ReplicaCommand::Get {
            key: read_key(body)?,
        },
        operation::TAG => ReplicaCommand::GetTag {
            key: read_key(body)?,
        },
        operation::DIGEST => ReplicaCommand::GetDigest {
            key: read_key(body)?,
        },
        operation::PUT => ReplicaCommand::Put {
            key: read_key(body)?,
            record: read_record(body)?,
        },
        operation::PUT_STAGED | operation::PUT_STAGED_WITH_ATTRIBUTES => {
            ReplicaCommand::PutStaged {
                key: read_key(body)?,
                tag: read_tag(body)?,
                attributes: match operation {
                    operation::PUT_STAGED => Attributes::NONE,
                    _ => read_attributes(body)?,
                },
                content_type: read_content_type(body)?,
                upload: body.u64()?,
                value_bytes: body.u32()?,
                checksum: body.u32()?,
            }
        }
        operation::STAGE => ReplicaCommand::Stage {
            upload: body.u64()?,
            value_bytes: body.u32()?,
            offset: body.u32()?,
            block_bytes: body.u16()?,
            block: body.rest(),
        },
        operation::GET_BLOCK => ReplicaCommand::GetBlock {
            key: read_key(body)?,
            tag: read_tag(body)?,
            offset: body.u32()?,
            block_bytes: body.u16()?,
        },
        operation::LIST => {
            let direction = match body.u8()? {
                0 => Direction::Ascending,
                DESCENDING => Direction::Descending,
                _ => return Err(MessageError::Field),
            };
            let limit = body.u16()?;
            let length = body.u16()?;
            let prefix = body.bytes(length.into())?;
            ReplicaCommand::List {
                start: read_key_position(body, &prefix)?,
                prefix,
                direction,
                limit,
            }
        }
        operation::STATS => ReplicaCommand::GetStatistics,
        operation::PREPARE => ReplicaCommand::Prepare {
            key: read_key(body)?,
            base: read_tag(body)?,
            ballot: read_ballot(body)?,
        },
        operation::ACCEPT => ReplicaCommand::Accept {
            key: read_key(body)?,
            base: read_tag(body)?,
            ballot: read_ballot(body)?,
            grant: body.u64()?,
            record: read_record(body)?,
        },
        operation::COMMIT => ReplicaCommand::Commit {
            key: read_key(body)?,
            tag: read_tag(body)?,
            checksum: body.u32()?,
            operation: match body.u8()? {
                0 => None,
                1 => Some(OperationId(body.array()?)),
                _ => return Err(MessageError::Field),
            },
        },
        operation::LEAF_SUMS => decode_leaf_sums(body)?,
        operation::LEAF_ENTRIES => ReplicaCommand::GetLeafEntries {
            scope: read_leaf_scope(body)?,
            leaf: body.u32()?,
            after: match body.u8()? {
                0 => None,
                1 => Some(read_key(body)?),
                _ => return Err(MessageError::Field),
            },
        },
        operation::HIGH_WATER => ReplicaCommand::NoteHighWater(HighWater {
            server: read_server(body)?,
            lineage: body.u64()?,
            boot_id: body.u64()?,
            start: body.u64()?,
            sequence: body.u64()?,
        }),
        operation::NUDGE => ReplicaCommand::Nudge(Nudge {
            behind: read_server(body)?,
            ahead: read_server(body)?,
        }),
        operation::ATTEST => ReplicaCommand::Attest {
            boot_id: body.u64()?,
            key: read_key(body)?,
            tag: read_tag(body)?,
        },
        operation => return Err(MessageError::Operation { operation }),
    })
}

fn decode_leaf_sums(body: &mut Reader<'_>) -> Result<ReplicaCommand, MessageError> {
    let scope = read_leaf_scope(body)?;
    let (first, leaves_per_sum, sums_max) = (body.u32()?, body.u32()?, body.u8()?);
    match leaves_per_sum > 0 && (1..=LeafSum::COUNT_MAX).contains(&sums_max) {
        true => Ok(ReplicaCommand::GetLeafSums {
            scope,
            first,
            leaves_per_sum,
            sums_max,
        }),
        false => Err(MessageError::Field),
    }
}

fn encode_command(command: &ReplicaCommand, body: &mut Vec<u8>) {
    match command {
        ReplicaCommand::Ping | ReplicaCommand::GetStatistics => {}
        ReplicaCommand::Get { key }
        | ReplicaCommand::GetTag { key }
        | ReplicaCommand::GetDigest { key } => write_key(body, key),
        ReplicaCommand::Put { key, record } => {
            write_key(body, key);
            write_record(body, record);
        }
        ReplicaCommand::PutStaged {
            key,
            tag,
            attributes,
            content_type,
            upload,
            value_bytes,
            checksum,
        } => {
            write_key(body, key);
            write_tag(body, *tag);
            attributes.encode_block(body);
            write_content_type(body, content_type);
            body.put_u64(*upload);
            body.put_u32(*value_bytes);
            body.put_u32(*checksum);
        }
        ReplicaCommand::Stage {
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
        ReplicaCommand::GetBlock {
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
        ReplicaCommand::List {
            prefix,
            start,
            direction,
            limit,
        } => {
            body.put_u8(match direction {
                Direction::Ascending => 0,
                Direction::Descending => DESCENDING,
            });
            body.put_u16(*limit);
            // Whoever lists cuts a prefix that is too long for a message.
            body.put_u16(u16::try_from(prefix.len()).unwrap_or(u16::MAX));
            body.put(prefix);
            write_key_position(body, start, prefix);
        }
        ReplicaCommand::Prepare { key, base, ballot } => {
            write_key(body, key);
            write_tag(body, *base);
            write_ballot(body, *ballot);
        }
        ReplicaCommand::Accept {
            key,
            base,
            ballot,
            grant,
            record,
        } => {
            write_key(body, key);
            write_tag(body, *base);
            write_ballot(body, *ballot);
            body.put_u64(*grant);
            write_record(body, record);
        }
        ReplicaCommand::Commit {
            key,
            tag,
            checksum,
            operation,
        } => {
            write_key(body, key);
            write_tag(body, *tag);
            body.put_u32(*checksum);
            body.put_u8(operation.is_some().into());
            if let Some(OperationId(operation)) = operation {
                body.put(operation);
            }
        }
        ReplicaCommand::GetLeafSums {
            scope,
            first,
            leaves_per_sum,
            sums_max,
        } => {
            write_leaf_scope(body, scope);
            body.put_u32(*first);
            body.put_u32(*leaves_per_sum);
            body.put_u8(*sums_max);
        }
        ReplicaCommand::GetLeafEntries { scope, leaf, after } => {
            write_leaf_scope(body, scope);
            body.put_u32(*leaf);
            body.put_u8(after.is_some().into());
            if let Some(after) = after {
                write_key(body, after);
            }
        }
        ReplicaCommand::NoteHighWater(mark) => {
            write_server(body, mark.server);
            for number in [mark.lineage, mark.boot_id, mark.start, mark.sequence] {
                body.put_u64(number);
            }
        }
        ReplicaCommand::Nudge(Nudge { behind, ahead }) => {
            write_server(body, *behind);
            write_server(body, *ahead);
        }
        ReplicaCommand::Attest { boot_id, key, tag } => {
            body.put_u64(*boot_id);
            write_key(body, key);
            write_tag(body, *tag);
        }
    }
}

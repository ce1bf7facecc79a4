//! What servers are asked for a request, and what they have to say.

use crate::net::NotBegun;
use crate::transport::fetch::Assembly;
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::PageEntry;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::list::{PageWish, Place};
use dkvs_common::quorum::read::ReadReply;
use dkvs_common::quorum::write::WriteReply;
use dkvs_common::record::{Content, Digest, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v1::{
    self, GetReply, IllFormedReply, KEY_OR_VALUE_BYTES_MAX, PutReply, Unrepresentable,
};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

/// A request's number, never used twice by a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub(crate) u64);

/// Which question of which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub(crate) id: RequestId,
    /// A request that falls back to another level begins anew, and words to what was asked before
    /// that are none of its business.
    pub(super) attempt: u8,
    pub(crate) asked: Asked,
}

impl Token {
    /// Which of the request's questions.
    pub fn asked(self) -> Asked {
        self.asked
    }
}

/// Which of a request's questions an answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The record, for a read's round.
    Get {
        /// Which round.
        round: u32,
    },
    /// The tag, for a write's round.
    Tag {
        /// Which round.
        round: u32,
    },
    /// To store the record of a write's round.
    Put {
        /// Which round.
        round: u32,
    },
    /// To store what a read's round found to be newest.
    Repair {
        /// Which round.
        round: u32,
    },
    /// To vouch for what it was given by a read's round.
    Vouch {
        /// Which round.
        round: u32,
    },
    /// A long value.
    Fetch,
    /// Some of the keys that the server holds.
    Page,
    /// How the server does.
    Status,
    /// Nothing, but for the greeting that goes before it.
    Ping,
}

/// What is asked of servers, as it is sent. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Question {
    /// The record of a key.
    Get {
        /// Which key.
        key: Key,
    },
    /// The tag of a key.
    Tag {
        /// Which key.
        key: Key,
    },
    /// To store a record.
    Put {
        /// Under which key.
        key: Key,
        /// Which record.
        record: Record,
    },
    /// To vouch for a key.
    Vouch {
        /// The start of the server that is asked; any other is to refuse.
        boot_id: u64,
        /// Which key.
        key: Key,
        /// What no record that was confirmed is newer than.
        tag: Tag,
    },
    /// Some of the keys that the server holds.
    Page {
        /// Which, and how many.
        wish: PageWish,
        /// What they begin with.
        prefix: Bytes,
    },
    /// How the server does.
    Status,
    /// Nothing, but for the greeting that goes before it.
    Ping,
}

/// The key that is asked for to see whether a DKVS/1 server answers; what it holds does not
/// matter.
const PROBE_KEY: &str = "dkvs probe";

/// What DKVS/1 cannot carry, as the refusal of a server that speaks it.
pub(crate) fn v1_refusal(error: Unrepresentable) -> Refusal {
    let bytes_max = KEY_OR_VALUE_BYTES_MAX as u32;
    match error {
        Unrepresentable::KeyHasNul { .. } | Unrepresentable::ValueHasNul { .. } => Refusal::HasNul,
        Unrepresentable::KeyTooLong { .. } => Refusal::KeyTooLong {
            key_bytes_max: bytes_max,
        },
        Unrepresentable::ValueTooLong { .. } => Refusal::TooLarge {
            value_bytes_max: bytes_max,
        },
    }
}

impl Question {
    /// The datagram that asks it by DKVS/1. Fails with what that comes to if it cannot be asked so.
    pub fn to_v1(&self) -> Result<Bytes, Refusal> {
        let encoded = match self {
            Self::Get { key } => v1::encode_get(key),
            Self::Put { key, record } => match &record.content {
                Content::Value { value, .. } => v1::encode_put(key, value),
                Content::Tombstone => return Err(Refusal::NoDeletion),
            },
            // Nothing that needs tags is asked so; what holds of a put then holds of asking for
            // one.
            Self::Tag { .. } | Self::Vouch { .. } | Self::Page { .. } | Self::Ping => {
                return Err(Refusal::NotV2);
            }
            Self::Status => Ok(Bytes::from_static(PROBE_KEY.as_bytes())),
        };
        encoded.map_err(v1_refusal)
    }

    /// The request, to a server that takes messages of at most `message_bytes_max`.
    pub(super) fn to_request(&self, message_bytes_max: usize) -> Request {
        match self.clone() {
            Self::Get { key } => Request::Command(ReplicaCommand::Get { key }),
            Self::Tag { key } => Request::Command(ReplicaCommand::GetTag { key }),
            Self::Put { key, record } => Request::Command(ReplicaCommand::Put { key, record }),
            Self::Vouch { boot_id, key, tag } => {
                Request::Command(ReplicaCommand::Attest { boot_id, key, tag })
            }
            Self::Page { wish, prefix } => Self::page(wish, prefix, message_bytes_max),
            Self::Status => Request::Command(ReplicaCommand::GetStatistics),
            Self::Ping => Request::Command(ReplicaCommand::Ping),
        }
    }

    /// A key that is too long to be named, though not too long to be told, is passed over by its
    /// position: no two keys are known that have the same. Of a prefix, the server is told what there
    /// is room for: it only saves work by it, and all is looked at again here.
    fn page(wish: PageWish, prefix: Bytes, message_bytes_max: usize) -> Request {
        let Place { mut from, after } = wish.start;
        let is_short =
            |key: &Key| Request::list_key_bytes_max(message_bytes_max) >= key.as_bytes().len();
        let named = after.as_ref().filter(|key| is_short(key)).cloned();
        if after.is_some() && named.is_none() {
            from = from.next().unwrap_or(from);
        }
        let room = Request::list_prefix_bytes_max(message_bytes_max, named.as_ref());
        Request::Command(ReplicaCommand::List {
            from,
            after: named,
            prefix: prefix.slice(..prefix.len().min(room)),
            limit: u16::try_from(wish.keys_max).unwrap_or(ReplicaCommand::LIST_LIMIT_MAX),
            accepts_left_out: true,
        })
    }
}

/// What one server had to say.
#[derive(Debug)]
pub enum Heard {
    /// To a get, by DKVS/1 or without a record.
    Read(ReadReply),
    /// A record by DKVS/2: what it says of its value, and the value or its beginning.
    Record(Digest, Bytes),
    /// To a put, or to the question for a tag.
    Write(WriteReply),
    /// Whether it vouches for the key from now on.
    Vouched(bool),
    /// It is met.
    Met,
    /// Its statistics, by number; DKVS/1 tells none.
    Status(Vec<(u8, u64)>),
    /// Keys in ring order.
    Page {
        /// Whether there are more after them.
        more: bool,
        /// Whether the server may have lost some.
        is_incomplete: bool,
        /// Whether some are too long to be told.
        is_left_out: bool,
        /// The keys.
        entries: Vec<PageEntry>,
    },
    /// No keys.
    PageRefused(Refusal),
    /// A long value.
    Fetched(Value),
    /// No long value, but perhaps a part of it.
    FetchFailed(Option<Assembly>),
    /// Nothing.
    Unreachable {
        /// Whether the question may have reached it.
        sent: bool,
    },
}

impl Heard {
    /// What a datagram of DKVS/1 means as the answer to what was asked.
    pub fn from_v1(asked: Asked, datagram: Bytes) -> Result<Self, IllFormedReply> {
        Ok(match asked {
            Asked::Get { .. } | Asked::Fetch | Asked::Page | Asked::Status | Asked::Ping => {
                Self::Read(match GetReply::decode(datagram)? {
                    GetReply::Value(value) => ReadReply::Value(value),
                    GetReply::Unknown => ReadReply::Absent(None),
                })
            }
            Asked::Put { .. } | Asked::Tag { .. } | Asked::Repair { .. } | Asked::Vouch { .. } => {
                Self::Write(match PutReply::decode(&datagram)? {
                    PutReply::Stored => WriteReply::Stored,
                    PutReply::Failed => WriteReply::Refused(Refusal::Unstated),
                })
            }
        })
    }

    /// A refusal, as the answer to what was asked.
    pub fn refused(asked: Asked, refusal: Refusal) -> Self {
        match asked {
            Asked::Get { .. } => Self::Read(ReadReply::Refused(refusal)),
            Asked::Tag { .. } | Asked::Put { .. } | Asked::Repair { .. } => {
                Self::Write(WriteReply::Refused(refusal))
            }
            Asked::Vouch { .. } => Self::Vouched(false),
            Asked::Fetch => Self::FetchFailed(None),
            Asked::Page => Self::PageRefused(refusal),
            Asked::Status => Self::Unreachable { sent: true },
            Asked::Ping => Self::Met,
        }
    }

    /// What a reply means to the request.
    pub(super) fn from_reply(asked: Asked, reply: Reply) -> Self {
        let is_put = matches!(asked, Asked::Put { .. } | Asked::Repair { .. });
        let is_get = matches!(asked, Asked::Get { .. });
        let refusal = match reply {
            _ if asked == Asked::Ping => return Self::Met,
            Reply::Response(ReplicaResponse::Done) if is_put => {
                return Self::Write(WriteReply::Stored);
            }
            Reply::Response(ReplicaResponse::Done) if matches!(asked, Asked::Vouch { .. }) => {
                return Self::Vouched(true);
            }
            Reply::Response(ReplicaResponse::Superseded { tag }) if is_put => {
                return Self::Write(WriteReply::Superseded(tag));
            }
            Reply::Response(ReplicaResponse::Record { digest, block }) if is_get => {
                return Self::Record(digest, block);
            }
            Reply::Response(ReplicaResponse::Absent { tag }) => match asked {
                Asked::Get { .. } => {
                    let tombstone = (tag != Tag::ZERO).then_some(tag);
                    return Self::Read(ReadReply::Absent(tombstone));
                }
                Asked::Tag { .. } => return Self::Write(WriteReply::Tag(tag)),
                _ => Refusal::Internal,
            },
            Reply::Response(ReplicaResponse::Tag { tag }) if matches!(asked, Asked::Tag { .. }) => {
                return Self::Write(WriteReply::Tag(tag));
            }
            Reply::Response(ReplicaResponse::Page {
                more,
                is_incomplete,
                is_left_out,
                entries,
            }) if asked == Asked::Page => {
                return Self::Page {
                    more,
                    is_incomplete,
                    is_left_out,
                    entries,
                };
            }
            Reply::Response(ReplicaResponse::Statistics(statistics)) if asked == Asked::Status => {
                return Self::Status(statistics);
            }
            Reply::Response(ReplicaResponse::Refused(refusal)) => refusal,
            // No answer to what was asked.
            Reply::Response(_) | Reply::Greeting(_) => Refusal::Internal,
        };
        Self::refused(asked, refusal)
    }
}

/// Whether DKVS/1 can carry a key and, to write it, a content.
pub(super) fn check_v1(key: &Key, content: Option<&Content>) -> Result<(), NotBegun> {
    v1::check_key(key)?;
    match content {
        None => Ok(()),
        Some(Content::Value { value, .. }) => Ok(v1::check_value(value)?),
        Some(Content::Tombstone) => Err(NotBegun::NoDeletion),
    }
}

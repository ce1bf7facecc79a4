//! The outcome of a request as JSON: the same members in success and in problem documents.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::read::{Read, ReadResponse, ReplicaStanding};
use dkvs_common::quorum::tally::{Replica, ReplicaState};
use dkvs_common::quorum::write::{Applied, WriteResponse};
use dkvs_common::quorum::{Level, Refusal};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;
use serde::{Serialize, Serializer};

use dkvs_client::WriteResult;

/// A key: as text, or in base64 where it is no UTF-8.
#[derive(Serialize)]
pub(super) struct KeyText<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl<'a> KeyText<'a> {
    pub(super) fn new(key: &'a Key) -> Self {
        let text = std::str::from_utf8(key.as_bytes()).ok();
        Self {
            key: text,
            key_base64: text.is_none().then(|| STANDARD.encode(key.as_bytes())),
        }
    }
}

/// A value: as text, or in base64 where it is no UTF-8.
#[derive(Serialize)]
pub(super) struct ValueText<'a> {
    value: std::borrow::Cow<'a, str>,
    encoding: &'static str,
}

impl<'a> ValueText<'a> {
    pub(super) const UTF_8: &'static str = "utf-8";
    pub(super) const BASE64: &'static str = "base64";

    pub(super) fn new(value: &'a Value) -> Self {
        match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Self {
                value: text.into(),
                encoding: Self::UTF_8,
            },
            Err(_) => Self {
                value: STANDARD.encode(value.as_bytes()).into(),
                encoding: Self::BASE64,
            },
        }
    }
}

/// One replica of a request.
#[derive(Serialize)]
pub(super) struct ReplicaReport<'a> {
    server: &'a str,
    #[serde(serialize_with = "as_digits")]
    ring_point: Position,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The version that the replica reported.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    tag: Option<Tag>,
    latency_us: Option<u64>,
}

impl<'a> ReplicaReport<'a> {
    fn new<A>(view: &'a ClusterView, replica: &Replica<A>, status: &'static str) -> Self {
        Self {
            server: view.name(replica.server),
            ring_point: replica.ring_point,
            status,
            reason: None,
            tag: None,
            latency_us: replica.latency.map(micros),
        }
    }

    /// An entry of the `Server-Timing` header; `number` is the replica's place, from 0.
    pub(super) fn server_timing(&self, number: usize) -> String {
        let (server, status) = (&self.server, self.status);
        match self.latency_us {
            Some(us) => {
                let (ms, rest) = (us / 1_000, us % 1_000);
                format!("replica{number};dur={ms}.{rest:03};desc=\"{server} {status}\"")
            }
            None => format!("replica{number};desc=\"{server} {status}\""),
        }
    }
}

fn as_digits<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(position.digits().as_str())
}

fn as_text<S: Serializer>(tag: &Option<Tag>, serializer: S) -> Result<S::Ok, S::Error> {
    match tag {
        Some(tag) => serializer.serialize_str(tag.text().as_str()),
        None => serializer.serialize_none(),
    }
}

fn as_name<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.name())
}

fn as_outcome<S: Serializer>(applied: &Applied, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match applied {
        Applied::Committed => "committed",
        Applied::Unknown => "unknown",
        Applied::NotApplied => "not_applied",
    })
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
pub(super) struct WriteQuorum {
    pub(super) n: u8,
    pub(super) w: u8,
    confirmed: usize,
}

/// The report on a write.
#[derive(Serialize)]
pub(super) struct WriteReport<'a> {
    #[serde(serialize_with = "as_outcome")]
    pub(super) outcome: Applied,
    #[serde(serialize_with = "as_name")]
    pub(super) consistency: Level,
    #[serde(serialize_with = "as_text")]
    pub(super) tag: Option<Tag>,
    pub(super) quorum: WriteQuorum,
    pub(super) replicas: Vec<ReplicaReport<'a>>,
}

impl<'a> WriteReport<'a> {
    pub(super) fn new(written: &'a WriteResult) -> Self {
        let (write, view) = (&written.write, &*written.view);
        let replica = |replica: &Replica<WriteResponse>| {
            let (mut reason, mut tag) = (None, None);
            let status = match replica.state {
                ReplicaState::Pending => {
                    reason = write.is_withheld().then_some(NOT_ASKED);
                    "pending"
                }
                ReplicaState::Responded(WriteResponse::Tag(held)) => {
                    reason = Some("the server told its tag, and was not asked to store anything");
                    tag = Some(held).filter(|held| *held != Tag::ZERO);
                    "pending"
                }
                ReplicaState::Responded(WriteResponse::Stored) => "stored",
                ReplicaState::Responded(WriteResponse::Superseded(held)) => {
                    tag = Some(held);
                    "superseded"
                }
                ReplicaState::Responded(WriteResponse::Refused(refusal)) => {
                    reason = Some(reason_of(refusal));
                    "refused"
                }
                ReplicaState::Unreachable => "unreachable",
                ReplicaState::Indeterminate => {
                    reason = Some("the server ended; what it did with this request is not known");
                    "unreachable"
                }
                ReplicaState::TimedOut => "timeout",
            };
            ReplicaReport {
                reason,
                tag,
                ..ReplicaReport::new(view, replica, status)
            }
        };
        Self {
            outcome: write.applied(),
            consistency: write.level(),
            tag: written.tag,
            quorum: WriteQuorum {
                n: write.quorum().n(),
                w: write.quorum().required(),
                confirmed: write.confirmed(),
            },
            replicas: write.replicas().iter().map(replica).collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ReadQuorum {
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) agreeing: usize,
}

/// The report on a read, without the value.
#[derive(Serialize)]
pub(super) struct ReadReport<'a> {
    #[serde(serialize_with = "as_name")]
    pub(super) consistency: Level,
    #[serde(serialize_with = "as_text")]
    pub(super) tag: Option<Tag>,
    pub(super) quorum: ReadQuorum,
    pub(super) replicas: Vec<ReplicaReport<'a>>,
}

impl<'a> ReadReport<'a> {
    /// `tag` is that of the value, or of the tombstone, that won.
    pub(super) fn new(view: &'a ClusterView, key: &Key, read: &Read, tag: Option<Tag>) -> Self {
        let replica = |replica: &Replica<ReadResponse>| {
            let mut reason = None;
            let status = match read.standing_of(key, replica) {
                ReplicaStanding::Match => "match",
                ReplicaStanding::Stale => "stale",
                ReplicaStanding::Repaired => "repaired",
                ReplicaStanding::Differs => "differs",
                ReplicaStanding::Absent => "absent",
                ReplicaStanding::Tombstone => "tombstone",
                ReplicaStanding::Refused(refusal) => {
                    reason = Some(reason_of(refusal));
                    "refused"
                }
                ReplicaStanding::Pending => "pending",
                ReplicaStanding::Unreachable => "unreachable",
                ReplicaStanding::TimedOut => "timeout",
            };
            let tag = match &replica.state {
                ReplicaState::Responded(answer) => answer.tag(),
                _ => None,
            };
            ReplicaReport {
                reason,
                tag,
                ..ReplicaReport::new(view, replica, status)
            }
        };
        Self {
            consistency: read.level(),
            tag,
            quorum: ReadQuorum {
                n: read.quorum().n(),
                r: read.quorum().required(),
                agreeing: read.agreeing_on(key),
            },
            replicas: read.replicas().iter().map(replica).collect(),
        }
    }
}

/// The reason of a replica that a withheld write was not sent to.
const NOT_ASKED: &str = "the server was not asked, since too few of the others can do this";

pub(super) fn reason_of(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Unstated => {
            "the server answered that it failed; it speaks DKVS/1, which gives no reason"
        }
        Refusal::Full => "the server has no room",
        Refusal::ReadOnly => "the server stores nothing any more",
        Refusal::TooLarge { .. } => "the value is longer than the server takes",
        Refusal::KeyTooLong { .. } => "the key is too long for a datagram to the server",
        Refusal::HasNul => "the server speaks DKVS/1, which carries no NUL byte",
        Refusal::NoDeletion => "the server speaks DKVS/1, which cannot delete",
        Refusal::NotV2 => "the server speaks DKVS/1 only, and this takes DKVS/2",
        Refusal::TagTaken => "the server holds another value under the very same tag",
        Refusal::WrongEpoch { .. } => {
            "the server belongs to another ring: its servers file differs"
        }
        Refusal::Unsupported => "the server does not know this operation",
        Refusal::Busy => "too much is under way towards the server or in it",
        Refusal::Corrupt => {
            "the record was damaged, on its way or in the store, or the server has lost records"
        }
        Refusal::Internal => "something went wrong in the server",
    }
}

//! The outcome of a request as JSON: the same members in success and in problem documents.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::inspect::{Holding, Inspect};
use dkvs_common::quorum::read::{Read, ReadResponse, ReplicaStanding};
use dkvs_common::quorum::tally::{Replica, ReplicaState};
use dkvs_common::quorum::write::{Applied, WriteResponse};
use dkvs_common::quorum::{Level, Refusal};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;

use dkvs_client::{InspectResult, WriteResult};

use super::object::Object;

/// Writes a key: as text, or in base64 where it is no UTF-8.
pub(super) fn write_key(object: &mut Object<'_>, key: &Key) {
    match std::str::from_utf8(key.as_bytes()) {
        Ok(text) => object.string("key", text),
        Err(_) => object.plain("key_base64", STANDARD.encode(key.as_bytes())),
    }
}

/// The encoding of a value that is UTF-8.
pub(super) const UTF_8: &str = "utf-8";

/// The encoding of any other.
pub(super) const BASE64: &str = "base64";

/// Writes a value: as text, or in base64 where it is no UTF-8.
pub(super) fn write_value(object: &mut Object<'_>, value: &Value) {
    let encoding = match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => {
            object.string("value", text);
            UTF_8
        }
        Err(_) => {
            object.plain("value", STANDARD.encode(value.as_bytes()));
            BASE64
        }
    };
    object.plain("encoding", encoding);
}

/// Writes the tag of a value, if it has one.
pub(super) fn write_tag(object: &mut Object<'_>, tag: Option<Tag>) {
    match tag {
        Some(tag) => object.plain("tag", tag.text()),
        None => object.null("tag"),
    }
}

/// One replica of a request.
pub(super) struct ReplicaReport<'a> {
    server: &'a str,
    ring_point: Position,
    status: &'static str,
    reason: Option<&'static str>,
    /// The version that the replica reported.
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

    fn write(&self, object: &mut Object<'_>) {
        object.plain("server", self.server);
        object.plain("ring_point", self.ring_point.digits());
        object.plain("status", self.status);
        if let Some(reason) = self.reason {
            object.string("reason", reason);
        }
        if let Some(tag) = self.tag {
            object.plain("tag", tag.text());
        }
        match self.latency_us {
            Some(us) => object.number("latency_us", us),
            None => object.null("latency_us"),
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

fn outcome(applied: Applied) -> &'static str {
    match applied {
        Applied::Committed => "committed",
        Applied::Unknown => "unknown",
        Applied::NotApplied => "not_applied",
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy)]
pub(super) struct WriteQuorum {
    pub(super) n: u8,
    pub(super) w: u8,
    confirmed: usize,
}

/// The report on a write.
pub(super) struct WriteReport<'a> {
    pub(super) outcome: Applied,
    pub(super) consistency: Level,
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

    /// Writes the report's members.
    pub(super) fn write(&self, object: &mut Object<'_>) {
        let WriteQuorum { n, w, confirmed } = self.quorum;
        object.plain("outcome", outcome(self.outcome));
        object.plain("consistency", self.consistency.name());
        write_tag(object, self.tag);
        object.object("quorum", |object| {
            object.number("n", n);
            object.number("w", w);
            object.number("confirmed", confirmed as u64);
        });
        object.objects("replicas", &self.replicas, |object, replica| {
            replica.write(object);
        });
    }
}

#[derive(Clone, Copy)]
pub(super) struct ReadQuorum {
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) agreeing: usize,
}

/// The report on a read, without the value.
pub(super) struct ReadReport<'a> {
    pub(super) consistency: Level,
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

    /// Writes the report's members.
    pub(super) fn write(&self, object: &mut Object<'_>) {
        let ReadQuorum { n, r, agreeing } = self.quorum;
        object.plain("consistency", self.consistency.name());
        write_tag(object, self.tag);
        object.object("quorum", |object| {
            object.number("n", n);
            object.number("r", r);
            object.number("agreeing", agreeing as u64);
        });
        object.objects("replicas", &self.replicas, |object, replica| {
            replica.write(object);
        });
    }
}

/// The report on what the replicas of a key hold.
pub(super) struct HoldingsReport<'a> {
    inspect: &'a Inspect,
    view: &'a ClusterView,
}

impl<'a> HoldingsReport<'a> {
    pub(super) fn new(InspectResult { inspect, view }: &'a InspectResult) -> Self {
        Self { inspect, view }
    }

    /// Writes the report's members.
    pub(super) fn write(&self, object: &mut Object<'_>) {
        match self.inspect.is_in_step() {
            Some(is_in_step) => object.boolean("in_step", is_in_step),
            None => object.null("in_step"),
        }
        write_tag(object, self.inspect.newest());
        object.objects("replicas", self.inspect.replicas(), |object, replica| {
            self.write_replica(object, replica);
        });
    }

    fn write_replica(&self, object: &mut Object<'_>, replica: &Replica<Holding>) {
        let mut reason = None;
        let (mut tag, mut value) = (None, None);
        let status = match replica.state {
            ReplicaState::Responded(holding) => {
                reason = holding.is_by_v1().then_some(CAME_BY_V1);
                tag = holding.tag();
                match holding {
                    Holding::Value {
                        value_bytes,
                        checksum,
                        ..
                    } => {
                        value = Some((value_bytes, checksum));
                        "value"
                    }
                    Holding::Tombstone(_) => "tombstone",
                    Holding::Absent => "absent",
                    Holding::Refused(refusal) => {
                        reason = Some(reason_of(refusal));
                        "refused"
                    }
                }
            }
            ReplicaState::Unreachable | ReplicaState::Indeterminate => "unreachable",
            ReplicaState::TimedOut | ReplicaState::Pending => "timeout",
        };
        let report = ReplicaReport {
            reason,
            tag,
            ..ReplicaReport::new(self.view, replica, status)
        };
        report.write(object);
        if let Some((value_bytes, checksum)) = value {
            object.number("size", value_bytes);
            object.plain("checksum", format!("{checksum:08x}"));
        }
    }
}

/// The reason of a record that no other can be compared with.
const CAME_BY_V1: &str =
    "it came by DKVS/1: the server gave it a tag of its own, which does not tell how old it is";

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
        Refusal::Stale { .. } => "the server is of a later configuration of the cluster",
        Refusal::Behind { .. } => "the server is of an earlier configuration of the cluster",
        Refusal::OtherConfiguration { .. } => {
            "the server is of another configuration: its servers file or its replication differs"
        }
        Refusal::SetBack => "the server has seen more of the sender than that holds",
        Refusal::Unsupported => "the server does not know this operation",
        Refusal::Busy => "too much is under way towards the server or in it",
        Refusal::Corrupt => {
            "the record was damaged, on its way or in the store, or the server has lost records"
        }
        Refusal::Internal => "something went wrong in the server",
    }
}

//! How a client talks to its cluster, how much it takes on, and what one request asks for.

use std::time::{Duration, Instant};

use dkvs_common::model::Unrepresentable;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::trace::Trace;
use thiserror::Error;

use super::caller::CallerId;

/// Which protocol to speak to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// DKVS/2 with servers that do, DKVS/1 with those that answer nothing else.
    Auto,
    /// DKVS/1 only.
    V1,
    /// DKVS/2 only.
    #[default]
    V2,
}

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// As soon as the quorum is decided.
    #[default]
    Quorum,
    /// When every replica has responded or has timed out.
    All,
}

/// What a read or a write asks for beside key and content.
#[derive(Debug, Clone, Copy)]
pub struct RequestOptions {
    /// How many replicas, and how many of them have to confirm or agree.
    pub quorum: Quorum,
    /// What it is to promise; the quorum has to allow it.
    pub level: Level,
    /// Whether it may promise less where a server has no tags.
    pub may_fall_back: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// When it is answered.
    pub wait: Wait,
    /// On whose behalf.
    pub caller: CallerId,
    /// The trace that servers log it under.
    pub trace: Option<Trace>,
}

impl RequestOptions {
    /// Whether it cannot use servers without tags.
    pub fn insists_on_tags(self) -> bool {
        self.level == Level::Linearizable && !self.may_fall_back
    }
}

/// Why a request was not begun. Nothing was sent to any server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// As many requests are in flight as this worker takes, or no socket is to be had.
    #[error("the gateway is overloaded: {what}")]
    Overloaded {
        /// Which limit was reached.
        what: &'static str,
    },
    /// The caller has as many requests in flight as it may while places have to be left for others.
    #[error(
        "the gateway is overloaded: {held} of the {max} requests that it has in flight at most are \
         this caller's, which is its share; what is left is for others"
    )]
    ShareTaken {
        /// How many are the caller's.
        held: usize,
        /// How many there are in all.
        max: usize,
    },
    /// DKVS/1 cannot carry the key or the value.
    #[error(transparent)]
    Unrepresentable(#[from] Unrepresentable),
    /// DKVS/1 cannot delete.
    #[error("the servers speak DKVS/1, which cannot delete a key")]
    NoDeletion,
    /// DKVS/1 cannot list keys in pages.
    #[error("the gateway speaks DKVS/1, which cannot list keys")]
    NoListing,
    /// A linearizable request needs tags, and a replica has none.
    #[error("{server} speaks DKVS/1 only, which has no tags; consistency=agreement needs none")]
    NoTags {
        /// Which one.
        server: String,
    },
}

/// How much a client takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests in flight that are not decided.
    pub requests_max: usize,
    /// DKVS/1 sockets towards the servers, in use, pooled or still owed a reply.
    pub sockets_max: usize,
    /// Bytes of long values on their way in either direction.
    pub value_bytes_in_flight_max: usize,
}

/// How many requests that are decided may wait for each that may be undecided.
pub const DECIDED_PER_PLACE: usize = 2;

impl Limits {
    /// Requests that are decided and wait for the other replicas.
    pub fn decided_max(&self) -> usize {
        self.requests_max.saturating_mul(DECIDED_PER_PLACE)
    }
}

/// How a core talks to the servers, and how much it takes on.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Which protocol.
    pub protocol: Protocol,
    /// How many replicas each key has.
    pub replication: u8,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest that any client of the cluster lets a request take.
    pub timeout_max: Duration,
    /// Most requests in flight that are not decided.
    pub requests_max: usize,
    /// Most that are decided and wait for the other replicas.
    pub decided_max: usize,
}

/// What the clocks show.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The clock by which deadlines are kept.
    pub at: Instant,
    /// The wall clock, in milliseconds since 1970; it may show anything.
    pub unix_ms: u64,
}

/// How a server is reached.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// This end's address, as the server sees it.
    pub local: std::net::SocketAddrV4,
    /// The most that may be on its way here, in bytes.
    pub window_bytes_max: usize,
}

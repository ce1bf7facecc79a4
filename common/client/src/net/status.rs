//! What a client reports of its servers and of itself.

use std::sync::Arc;
use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::histogram::Histogram;

use crate::core::{Limits, LinkStatus, ServerCounts, Statistics, Totals, V1Only};
use crate::transport::peer::PeerVersion;
use dkvs_common::model::Description;
use dkvs_common::model::Durability;

/// What a server is and does, as far as one worker knows.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Which server.
    pub server: ServerId,
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// Which protocol it speaks.
    pub version: ServerVersion,
    /// What it has said of itself, if it is one that does.
    pub description: Option<Description>,
    /// Whether it serves another configuration, and refuses what this client asks.
    pub is_other_configuration: bool,
    /// Whether it answers by DKVS/1 alone, where DKVS/2 is spoken as well.
    pub v1_only: Option<V1Only>,
    /// The smoothed round trip, by DKVS/2.
    pub round_trip: Option<Duration>,
    /// Its statistics by number, by DKVS/2.
    pub statistics: Statistics,
    /// What went to it and came from it, by DKVS/2.
    pub traffic: Option<Traffic>,
}

/// Which protocol a server speaks, and what it said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerVersion {
    /// It has not answered yet.
    Unknown,
    /// DKVS/1, which says nothing more.
    V1,
    /// DKVS/2.
    V2(ServerDescription),
}

/// What a server said of itself when it was greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerDescription {
    /// Random, and another one after every start.
    pub boot_id: u64,
    /// The longest datagram that it takes.
    pub datagram_bytes_max: u16,
    /// The longest value that it takes.
    pub value_bytes_max: u32,
    /// What a confirmed put survives.
    pub durability: Durability,
}

impl From<PeerVersion> for ServerVersion {
    fn from(version: PeerVersion) -> Self {
        match version {
            PeerVersion::Unknown => Self::Unknown,
            PeerVersion::V1 => Self::V1,
            PeerVersion::V2(greeting) => Self::V2(ServerDescription {
                boot_id: greeting.boot_id,
                datagram_bytes_max: greeting.datagram_bytes_max,
                value_bytes_max: greeting.value_bytes_max,
                durability: greeting.durability,
            }),
        }
    }
}

/// What went to a server and came from it since the worker started.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Requests, each counted once.
    pub requests: u64,
    /// Requests that were sent again.
    pub retransmissions: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams that were dropped: damaged, not proved, or answers to nothing that was asked.
    pub dropped: u64,
}

impl From<LinkStatus> for Traffic {
    fn from(link: LinkStatus) -> Self {
        Self {
            requests: link.counters.sent,
            retransmissions: link.counters.retransmitted,
            datagrams_sent: link.counters.datagrams_sent,
            datagrams_received: link.datagrams_received,
            dropped: link.counters.damaged + link.counters.unmatched,
        }
    }
}

/// What a worker has counted since its start, and what it has in hand.
pub struct Snapshot {
    /// How reads and writes ended, and which limits were hit.
    pub totals: Totals,
    /// The servers of the view that is in use, in its order.
    pub servers: Vec<ServerSnapshot>,
    /// Requests in flight that are not decided.
    pub requests_undecided: usize,
    /// Those that are decided and wait for the other replicas.
    pub requests_decided: usize,
    /// The memory that long values on their way have taken, in bytes.
    pub value_bytes_in_flight: usize,
    /// Sockets for DKVS/1.
    pub v1_sockets_open: usize,
    /// The most of each.
    pub limits: Limits,
}

impl Snapshot {
    /// What is known of one server, if it is in the view.
    pub fn of(&self, server: ServerId) -> Option<&ServerSnapshot> {
        self.servers.iter().find(|held| held.server == server)
    }
}

/// The same of one server.
pub struct ServerSnapshot {
    /// Which server.
    pub server: ServerId,
    /// What went to it and came from it by DKVS/2; none before it was first asked.
    pub link: Option<LinkStatus>,
    /// What was counted about it.
    pub counts: ServerCounts,
    /// How long it took to answer, by either protocol; none before it has.
    pub round_trips: Option<Arc<Histogram>>,
}

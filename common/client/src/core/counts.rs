//! What a core has counted since its start. Plain numbers, which the core returns on request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::quorum::Level;
use dkvs_common::server_map::ServerMap;

use dkvs_common::histogram::Histogram;

use super::budget::MemoryRefusals;

/// Whether something was read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Read.
    Read,
    /// Written, a deletion included.
    Write,
    /// Written on a condition.
    ConditionalWrite,
}

/// How a read or a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the outcomes of reads and writes")]
pub enum RequestOutcome {
    Found,
    Absent,
    Disagree,
    Committed,
    /// Something else was there than what a conditional write expected.
    ConditionFailed,
    Superseded,
    Refused,
    Unreachable,
    TimedOut,
    /// The caller of a read went away.
    Cancelled,
}

/// Something that there is only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests in flight.
    RequestsInFlight,
    /// A caller's share of them.
    RequestsOfCaller,
    /// Requests that are decided and wait: the caller's oldest was answered before all replicas were.
    RequestsDecided,
    /// Memory for long values.
    ValueMemory,
    /// One caller's share of it.
    ValueMemoryShare,
    /// Sockets for DKVS/1.
    V1Sockets,
    /// Requests and transfers open towards one server, or the socket towards it.
    RequestsToServer,
}

impl RequestKind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::ConditionalWrite];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ConditionalWrite => "conditional_write",
        }
    }

    /// How it can end.
    pub fn outcomes(self) -> &'static [RequestOutcome] {
        match self {
            Self::Read => &[
                RequestOutcome::Found,
                RequestOutcome::Absent,
                RequestOutcome::Disagree,
                RequestOutcome::Refused,
                RequestOutcome::Unreachable,
                RequestOutcome::TimedOut,
                RequestOutcome::Cancelled,
            ],
            Self::Write => &[
                RequestOutcome::Committed,
                RequestOutcome::Superseded,
                RequestOutcome::Refused,
                RequestOutcome::Unreachable,
                RequestOutcome::TimedOut,
            ],
            Self::ConditionalWrite => &[
                RequestOutcome::Committed,
                RequestOutcome::ConditionFailed,
                RequestOutcome::Refused,
                RequestOutcome::Unreachable,
                RequestOutcome::TimedOut,
            ],
        }
    }
}

impl RequestOutcome {
    const COUNT: usize = Self::Cancelled as usize + 1;

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Disagree => "disagree",
            Self::Committed => "committed",
            Self::ConditionFailed => "condition_failed",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Limit {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::RequestsInFlight,
        Self::RequestsOfCaller,
        Self::RequestsDecided,
        Self::ValueMemory,
        Self::ValueMemoryShare,
        Self::V1Sockets,
        Self::RequestsToServer,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsInFlight => "requests_in_flight",
            Self::RequestsOfCaller => "requests_of_caller",
            Self::RequestsDecided => "requests_decided",
            Self::ValueMemory => "value_memory",
            Self::ValueMemoryShare => "value_memory_share",
            Self::V1Sockets => "v1_sockets",
            Self::RequestsToServer => "requests_to_server",
        }
    }
}

/// How reads and writes ended, and which limits were hit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    ended: [[[u64; RequestOutcome::COUNT]; RequestKind::ALL.len()]; 2],
    limits: [u64; Limit::ALL.len()],
}

impl Totals {
    /// How many of a kind at a level ended so.
    pub fn ended(&self, level: Level, kind: RequestKind, outcome: RequestOutcome) -> u64 {
        self.ended[level as usize][kind as usize][outcome as usize]
    }

    /// How often something was refused for a limit.
    pub fn limit_hit(&self, limit: Limit) -> u64 {
        self.limits[limit as usize]
    }

    /// Adds what was refused for want of memory, which the budget counts.
    pub(super) fn add_memory(&mut self, refusals: MemoryRefusals) {
        self.limits[Limit::ValueMemory as usize] += refusals.exhausted;
        self.limits[Limit::ValueMemoryShare as usize] += refusals.share;
    }

    /// Takes in the counts of another core.
    pub fn add(&mut self, other: &Self) {
        let (ours, theirs) = (self.ended.as_flattened_mut(), other.ended.as_flattened());
        let ours = ours.as_flattened_mut().iter_mut();
        let ended = ours.zip(theirs.as_flattened());
        let limits = self.limits.iter_mut().zip(&other.limits);
        ended.chain(limits).for_each(|(ours, more)| *ours += more);
    }
}

/// What concerns one server.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerCounts {
    /// Records that it was given because it was behind.
    pub repairs_sent: u64,
    /// How many of them it has stored.
    pub repairs_stored: u64,
    /// How often another server was told that this one may lack what was written.
    pub nudges: u64,
}

/// The last round trip to each server that any worker of the process has seen. Clones are handles to
/// the same.
#[derive(Debug, Clone, Default)]
pub struct RoundTrips(Arc<RwLock<ServerMap<Arc<AtomicU64>>>>);

impl RoundTrips {
    /// How long the last answer of a server took, if it ever answered.
    pub fn last(&self, server: ServerId) -> Option<Duration> {
        let servers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let us = servers.get(server)?.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    /// Where the last round trip of a server is kept, in microseconds; 0 if it never answered.
    fn of(&self, server: ServerId) -> Arc<AtomicU64> {
        let mut servers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.get_or_insert_with(server, Arc::default))
    }
}

/// All that a core counts.
pub(super) struct Counts {
    pub(super) totals: Totals,
    servers: ServerMap<OfServer>,
    last_round_trips: RoundTrips,
}

struct OfServer {
    counts: ServerCounts,
    /// How long it took to answer. Shared, so that it can be read without this worker's lock.
    round_trips: Arc<Histogram>,
    last_round_trip_us: Arc<AtomicU64>,
}

impl Counts {
    pub(super) fn new(last_round_trips: RoundTrips) -> Self {
        Self {
            totals: Totals::default(),
            servers: ServerMap::default(),
            last_round_trips,
        }
    }

    pub(super) fn of(&self, server: ServerId) -> ServerCounts {
        let of_server = self.servers.get(server);
        of_server.map_or_else(ServerCounts::default, |of_server| of_server.counts)
    }

    pub(super) fn of_mut(&mut self, server: ServerId) -> &mut ServerCounts {
        &mut self.server(server).counts
    }

    pub(super) fn round_trips(&self, server: ServerId) -> Option<Arc<Histogram>> {
        let of_server = self.servers.get(server)?;
        Some(Arc::clone(&of_server.round_trips))
    }

    pub(super) fn round_trip(&mut self, server: ServerId, round_trip: Duration) {
        let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        let of_server = self.server(server);
        of_server.round_trips.observe(round_trip);
        of_server
            .last_round_trip_us
            .store(us.max(1), Ordering::Relaxed);
    }

    fn server(&mut self, server: ServerId) -> &mut OfServer {
        let last_round_trips = &self.last_round_trips;
        self.servers.get_or_insert_with(server, || OfServer {
            counts: ServerCounts::default(),
            round_trips: Arc::default(),
            last_round_trip_us: last_round_trips.of(server),
        })
    }

    pub(super) fn limit_hit(&mut self, limit: Limit) {
        self.totals.limits[limit as usize] += 1;
    }

    /// A request has ended, or its caller has gone.
    pub(super) fn ended(&mut self, counted: Option<(Level, RequestKind, RequestOutcome)>) {
        if let Some((level, kind, outcome)) = counted {
            self.totals.ended[level as usize][kind as usize][outcome as usize] += 1;
        }
    }
}

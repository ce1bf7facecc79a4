//! What a core has counted since its start. Plain numbers: whoever wants them asks the core.

use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::read::ReadOutcome;
use dkvs_common::quorum::write::WriteOutcome;

use super::request::Machine;
use dkvs_common::histogram::Histogram;

/// Whether something was read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Read.
    Read,
    /// Written, a deletion included.
    Write,
}

/// How a read or a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the outcomes of reads and writes")]
pub enum Outcome {
    Found,
    Absent,
    Disagree,
    Committed,
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
    /// Memory for long values.
    ValueMemory,
    /// Sockets for DKVS/1.
    V1Sockets,
    /// Requests and transfers open towards one server, or the socket towards it.
    RequestsToServer,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// How it can end.
    pub fn outcomes(self) -> &'static [Outcome] {
        match self {
            Self::Read => &[
                Outcome::Found,
                Outcome::Absent,
                Outcome::Disagree,
                Outcome::Refused,
                Outcome::Unreachable,
                Outcome::TimedOut,
                Outcome::Cancelled,
            ],
            Self::Write => &[
                Outcome::Committed,
                Outcome::Superseded,
                Outcome::Refused,
                Outcome::Unreachable,
                Outcome::TimedOut,
            ],
        }
    }
}

impl Outcome {
    const COUNT: usize = Self::Cancelled as usize + 1;

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Disagree => "disagree",
            Self::Committed => "committed",
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
    pub const ALL: [Self; 4] = [
        Self::RequestsInFlight,
        Self::ValueMemory,
        Self::V1Sockets,
        Self::RequestsToServer,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsInFlight => "requests_in_flight",
            Self::ValueMemory => "value_memory",
            Self::V1Sockets => "v1_sockets",
            Self::RequestsToServer => "requests_to_server",
        }
    }
}

/// How reads and writes ended, and which limits were hit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    ended: [[[u64; Outcome::COUNT]; 2]; 2],
    limits: [u64; Limit::ALL.len()],
}

impl Totals {
    /// How many of a kind at a level ended so.
    pub fn ended(&self, level: Level, kind: Kind, outcome: Outcome) -> u64 {
        self.ended[level as usize][kind as usize][outcome as usize]
    }

    /// How often something was refused for a limit.
    pub fn limit_hit(&self, limit: Limit) -> u64 {
        self.limits[limit as usize]
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
}

/// All that a core counts.
pub(super) struct Counts {
    pub(super) totals: Totals,
    pub(super) servers: Vec<ServerCounts>,
    /// By server: how long each took to answer. Shared, so that they can be read at leisure.
    pub(super) round_trips: std::sync::Arc<[Histogram]>,
}

impl Counts {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            totals: Totals::default(),
            servers: vec![ServerCounts::default(); servers],
            round_trips: (0..servers).map(|_| Histogram::default()).collect(),
        }
    }

    pub(super) fn round_trip(&self, server: ServerId, round_trip: Duration) {
        self.round_trips[server.index()].observe(round_trip);
    }

    pub(super) fn limit_hit(&mut self, limit: Limit) {
        self.totals.limits[limit as usize] += 1;
    }

    pub(super) fn ended(&mut self, machine: &Machine) {
        let (level, kind, outcome) = match machine {
            Machine::Read(read) => {
                let outcome = match read.outcome() {
                    _ if read.has_met_v1() => Outcome::Refused,
                    Some(ReadOutcome::Found(..)) => Outcome::Found,
                    Some(ReadOutcome::Absent) => Outcome::Absent,
                    Some(ReadOutcome::Disagree) => Outcome::Disagree,
                    Some(ReadOutcome::CameByV1) => Outcome::Refused,
                    Some(ReadOutcome::Unreachable) => Outcome::Unreachable,
                    Some(ReadOutcome::TimedOut) | None => Outcome::TimedOut,
                };
                (read.level(), Kind::Read, outcome)
            }
            Machine::Write(write) => {
                let outcome = match write.outcome() {
                    Some(WriteOutcome::Committed) => Outcome::Committed,
                    Some(WriteOutcome::Superseded) => Outcome::Superseded,
                    Some(WriteOutcome::Refused) => Outcome::Refused,
                    Some(WriteOutcome::Unreachable) => Outcome::Unreachable,
                    Some(WriteOutcome::TimedOut) | None => Outcome::TimedOut,
                };
                (write.level(), Kind::Write, outcome)
            }
            Machine::List(_) | Machine::Probe(_) => return,
        };
        self.count(level, kind, outcome);
    }

    pub(super) fn cancelled(&mut self, machine: &Machine) {
        if let Machine::Read(read) = machine {
            self.count(read.level(), Kind::Read, Outcome::Cancelled);
        }
    }

    fn count(&mut self, level: Level, kind: Kind, outcome: Outcome) {
        self.totals.ended[level as usize][kind as usize][outcome as usize] += 1;
    }
}

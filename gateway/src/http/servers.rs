//! The status of every server: what it reports of itself, and what this gateway knows of it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use dkvs_client::{
    AdmissionError, CallerId, Client, OTHER_CONFIGURATION, ServerStatus, ServerVersion,
};
use dkvs_common::model::{Durability, Statistic};
use serde::Serialize;

use super::access::Caller;
use super::app::App;
use super::checks::PROBE_TIMEOUT;
use super::json::counted_json;
use super::parameters;
use super::problem::Problem;
use super::report::micros;

#[derive(Serialize)]
struct ServersBody {
    servers: Vec<ServerBody>,
}

/// The status of a server. What only DKVS/2 reports is null for servers that do not speak it.
#[derive(Serialize)]
pub(super) struct ServerBody {
    server: String,
    reachable: bool,
    protocol: Option<&'static str>,
    last_round_trip_us: Option<u64>,
    round_trip_us: Option<u64>,
    boot_id: Option<String>,
    store_id: Option<String>,
    configuration: Option<String>,
    durability: Option<&'static str>,
    datagram_bytes_max: Option<u16>,
    value_bytes_max: Option<u32>,
    keys: Option<u64>,
    bytes: Option<u64>,
    corrupt_answers: Option<u64>,
    storage: Option<StorageBody>,
    repair: Option<RepairBody>,
    traffic: Option<TrafficBody>,
    /// Whether an embedded server runs; null for others.
    running: Option<bool>,
    /// What its operator has to know, and to do.
    advice: Option<&'static str>,
}

/// The state of a server's disk.
#[derive(Serialize)]
struct StorageBody {
    complete: bool,
    read_only: bool,
    disk_full: bool,
    disk_bytes: u64,
    disk_available_bytes: u64,
    log_bytes: u64,
    live_bytes: u64,
    dead_bytes: u64,
    reserved_bytes: u64,
    compacted_bytes: u64,
    cache_bytes: u64,
    commits: u64,
    commit_mean_us: u64,
    last_commit_age_ms: Option<u64>,
    waiting: u64,
    reads_waiting: u64,
    lost_ranges: u64,
    quarantined_keys: u64,
    damaged_records: u64,
    /// Null of servers of versions before.
    mended_records: Option<u64>,
    scrub: Option<ScrubBody>,
}

/// What a server has read again though nobody asked for it.
#[derive(Serialize)]
struct ScrubBody {
    records: u64,
    bytes: u64,
    rounds: u64,
    last_round_age_ms: Option<u64>,
}

impl ScrubBody {
    fn new(statistic: impl Fn(Statistic) -> Option<u64>) -> Option<Self> {
        Some(Self {
            records: statistic(Statistic::ScrubbedRecords)?,
            bytes: statistic(Statistic::ScrubbedBytes)?,
            rounds: statistic(Statistic::ScrubRounds)?,
            last_round_age_ms: statistic(Statistic::LastScrubRoundAgeMs),
        })
    }
}

impl StorageBody {
    /// None unless the server reports all of it; servers in memory do not.
    fn new(statistic: impl Fn(Statistic) -> Option<u64>) -> Option<Self> {
        let commits = statistic(Statistic::Commits)?;
        let commit_us = statistic(Statistic::CommitMicros)?;
        Some(Self {
            complete: statistic(Statistic::IsIncomplete)? == 0,
            read_only: statistic(Statistic::IsReadOnly)? != 0,
            disk_full: statistic(Statistic::IsDiskFull)? != 0,
            disk_bytes: statistic(Statistic::DiskBytes)?,
            disk_available_bytes: statistic(Statistic::DiskAvailableBytes)?,
            log_bytes: statistic(Statistic::LogBytes)?,
            live_bytes: statistic(Statistic::LiveBytes)?,
            dead_bytes: statistic(Statistic::DeadBytes)?,
            reserved_bytes: statistic(Statistic::ReservedBytes)?,
            compacted_bytes: statistic(Statistic::CompactedBytes)?,
            cache_bytes: statistic(Statistic::CacheBytes)?,
            commits,
            commit_mean_us: commit_us.checked_div(commits).unwrap_or(0),
            last_commit_age_ms: statistic(Statistic::LastCommitAgeMs),
            waiting: statistic(Statistic::Waiting)?,
            reads_waiting: statistic(Statistic::ReadsWaiting)?,
            lost_ranges: statistic(Statistic::LostRanges)?,
            quarantined_keys: statistic(Statistic::QuarantinedKeys)?,
            damaged_records: statistic(Statistic::DamagedRecords)?,
            mended_records: statistic(Statistic::MendedRecords),
            scrub: ScrubBody::new(statistic),
        })
    }
}

/// How far a server is in step with the other replicas of its keys.
#[derive(Serialize)]
struct RepairBody {
    peers: u64,
    peers_in_step: u64,
    comparisons: u64,
    leaves_differing: u64,
    records_pulled: u64,
    pulled_bytes: u64,
    pulls_failed: u64,
    leaves: u64,
    leaves_incomplete: u64,
}

impl RepairBody {
    /// None of a server that has no peers, or pulls nothing from them.
    fn new(statistic: impl Fn(Statistic) -> Option<u64>) -> Option<Self> {
        Some(Self {
            peers: statistic(Statistic::Peers)?,
            peers_in_step: statistic(Statistic::PeersInStep)?,
            comparisons: statistic(Statistic::Comparisons)?,
            leaves_differing: statistic(Statistic::LeavesDiffering)?,
            records_pulled: statistic(Statistic::RecordsPulled)?,
            pulled_bytes: statistic(Statistic::PulledBytes)?,
            pulls_failed: statistic(Statistic::PullsFailed)?,
            leaves: statistic(Statistic::Leaves)?,
            leaves_incomplete: statistic(Statistic::LeavesIncomplete)?,
        })
    }
}

/// The traffic between one worker of this gateway and a server.
#[derive(Serialize)]
struct TrafficBody {
    requests: u64,
    retransmissions: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
    dropped: u64,
}

pub(super) async fn servers(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let servers = probe_servers(&app, caller.id()).await?;
    counted_json((&app.client, caller.id()), &ServersBody { servers })
}

/// Probes every server, and waits for all of them. The statuses are in the order of the cluster.
pub(super) async fn probe_servers(
    app: &App,
    caller: CallerId,
) -> Result<Vec<ServerBody>, AdmissionError> {
    let (client, switch) = (&app.client, app.gateway.switch.as_ref());
    let statuses = client.status(PROBE_TIMEOUT, caller).await?;
    let (shared, view) = (client.shared(), client.view());
    let bodies = statuses.into_iter().map(|status| ServerBody {
        last_round_trip_us: shared.last_round_trip(status.server).map(micros),
        running: switch.map(|switch| switch.is_running(status.server)),
        advice: advice_on(client, &status),
        ..server_body(view.name(status.server).to_owned(), &status)
    });
    Ok(bodies.collect())
}

/// The part of the status that the server itself reports.
fn server_body(server: String, status: &ServerStatus) -> ServerBody {
    let description = match &status.version {
        ServerVersion::V2(description) => Some(description),
        ServerVersion::V1 | ServerVersion::Unknown => None,
    };
    let served = status.description.and_then(|description| description.epoch);
    let statistic = |wanted: Statistic| {
        let mut statistics = status.statistics.iter();
        let found = statistics.find(|(name, _)| Statistic::try_from(*name) == Ok(wanted));
        found.map(|(_, number)| *number)
    };
    ServerBody {
        server,
        reachable: status.is_reachable,
        protocol: match status.version {
            ServerVersion::Unknown => None,
            ServerVersion::V1 => Some("DKVS/1"),
            ServerVersion::V2(_) => Some("DKVS/2"),
        },
        last_round_trip_us: None,
        round_trip_us: status.round_trip.map(micros),
        boot_id: description.map(|description| format!("{:016x}", description.boot_id)),
        store_id: status
            .description
            .map(|description| format!("{:016x}", description.store_id)),
        configuration: served.map(|served| served.to_string()),
        durability: description.map(|description| match description.durability {
            Durability::Memory => "memory",
            Durability::Buffered => "buffered",
            Durability::Fsync => "fsync",
        }),
        datagram_bytes_max: description.map(|description| description.datagram_bytes_max),
        value_bytes_max: description.map(|description| description.value_bytes_max),
        keys: statistic(Statistic::Keys),
        bytes: statistic(Statistic::Bytes),
        corrupt_answers: statistic(Statistic::CorruptAnswers),
        storage: StorageBody::new(statistic),
        repair: RepairBody::new(statistic),
        traffic: status.traffic.map(|traffic| TrafficBody {
            requests: traffic.requests,
            retransmissions: traffic.retransmissions,
            datagrams_sent: traffic.datagrams_sent,
            datagrams_received: traffic.datagrams_received,
            dropped: traffic.dropped,
        }),
        running: None,
        advice: None,
    }
}

/// What the operator has to know of a server that is not asked, or refuses.
pub(super) fn advice_on(client: &Client, status: &ServerStatus) -> Option<&'static str> {
    if status.is_other_configuration {
        return Some(OTHER_CONFIGURATION);
    }
    Some(status.v1_only?.advice(client.protocol()))
}

//! The ring, the servers, and the gateway's own health.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use dkvs_client::transport::peer::PeerVersion;
use dkvs_common::cluster::{Server, ServerId};
use dkvs_common::model::{Durability, Statistic};
use dkvs_common::ring::Position;
use serde::Serialize;

use super::error::Problem;
use super::kv::json;
use super::report::{KeyText, micros};
use super::{App, params, path};
use dkvs_client::{AdmissionError, Client, ServerStatus};

/// How long a server may take to show that it can be reached.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct RingBody {
    epoch: u32,
    replication: u8,
    servers: Vec<RingServer>,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct RingServer {
    server: String,
    ring_points: u32,
    share: f64,
}

#[derive(Serialize)]
struct Point {
    position: String,
    server: String,
}

pub(super) async fn ring(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    params::none(&uri)?;
    let view = app.0.client.view();
    let servers = view.cluster();
    let shares = view.ring().shares();
    let ring_server = |(id, server): (ServerId, Server)| RingServer {
        server: server.addr.to_string(),
        ring_points: server.ring_points,
        share: shares.get(id).copied().unwrap_or(0.0),
    };
    let point = |point: &dkvs_common::ring::RingPoint| Point {
        position: point.position.to_string(),
        server: view.name(point.server).to_owned(),
    };
    Ok(json(&RingBody {
        epoch: view.ring().epoch(),
        replication: app.0.replication,
        servers: servers.iter().map(ring_server).collect(),
        points: view.ring().points().iter().map(point).collect(),
    }))
}

#[derive(Serialize)]
struct PreferenceListBody<'a> {
    #[serde(flatten)]
    key: KeyText<'a>,
    position: String,
    replicas: Vec<PreferredServer>,
}

#[derive(Serialize)]
struct PreferredServer {
    server: String,
    ring_point: String,
}

pub(super) async fn preference_list(
    State(app): State<App>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let key = path::key(&uri, "/ring/")?;
    let n = params::replicas(&app, &uri, &["n"])?;
    let view = app.0.client.view();
    let position = Position::of_key(&key);
    let replicas = view.ring().preference_list(position, n);
    let preferred = |point: &dkvs_common::ring::RingPoint| PreferredServer {
        server: view.name(point.server).to_owned(),
        ring_point: point.position.to_string(),
    };
    Ok(json(&PreferenceListBody {
        key: KeyText::new(&key),
        position: position.to_string(),
        replicas: replicas.iter().map(preferred).collect(),
    }))
}

#[derive(Serialize)]
struct ServersBody {
    servers: Vec<ServerBody>,
}

/// What is known of a server; what only DKVS/2 tells is null where the server does not speak it.
#[derive(Serialize)]
pub(super) struct ServerBody {
    server: String,
    reachable: bool,
    protocol: Option<&'static str>,
    last_round_trip_us: Option<u64>,
    round_trip_us: Option<u64>,
    boot_id: Option<String>,
    durability: Option<&'static str>,
    datagram_bytes_max: Option<u16>,
    value_bytes_max: Option<u32>,
    keys: Option<u64>,
    bytes: Option<u64>,
    corrupt_answers: Option<u64>,
    storage: Option<StorageBody>,
    traffic: Option<TrafficBody>,
    /// Of an embedded one: whether it has not been stopped.
    running: Option<bool>,
    /// What whoever looks after it has to know, and to do.
    advice: Option<&'static str>,
}

/// What a server says of its disk.
#[derive(Serialize)]
struct StorageBody {
    complete: bool,
    read_only: bool,
    disk_full: bool,
    disk_bytes: u64,
    disk_available_bytes: u64,
    log_bytes: u64,
    commits: u64,
    commit_mean_us: u64,
    last_commit_age_ms: Option<u64>,
    waiting: u64,
}

impl StorageBody {
    /// None unless all of it was told, as servers that keep everything in memory do not.
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
            commits,
            commit_mean_us: commit_us.checked_div(commits).unwrap_or(0),
            last_commit_age_ms: statistic(Statistic::LastCommitAgeMs),
            waiting: statistic(Statistic::Waiting)?,
        })
    }
}

/// What one worker of this gateway has exchanged with a server.
#[derive(Serialize)]
struct TrafficBody {
    requests: u64,
    retransmissions: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
    dropped: u64,
}

pub(super) async fn servers(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    params::none(&uri)?;
    let servers = ask_servers(&app).await?;
    Ok(json(&ServersBody { servers }))
}

/// Asks every server how it does, and waits for all of them; in the cluster's order.
pub(super) async fn ask_servers(App(app): &App) -> Result<Vec<ServerBody>, AdmissionError> {
    let (client, switch) = (&app.client, app.common.switch.as_ref());
    let statuses = client.status(PROBE_TIMEOUT).await?;
    let (shared, view) = (client.shared(), client.view());
    let bodies = statuses.into_iter().map(|status| ServerBody {
        last_round_trip_us: shared.last_round_trip(status.server).map(micros),
        running: switch.map(|switch| switch.is_running(status.server)),
        advice: advice_on(client, &status),
        ..server_body(view.name(status.server).to_owned(), &status)
    });
    Ok(bodies.collect())
}

/// What the server itself tells.
fn server_body(server: String, status: &ServerStatus) -> ServerBody {
    let greeting = match &status.speaks {
        PeerVersion::V2(greeting) => Some(greeting),
        PeerVersion::V1 | PeerVersion::Unknown => None,
    };
    let statistic = |wanted: Statistic| {
        let mut told = status.statistics.iter();
        let told = told.find(|(name, _)| Statistic::try_from(*name) == Ok(wanted));
        told.map(|(_, number)| *number)
    };
    ServerBody {
        server,
        reachable: status.is_reachable,
        protocol: match status.speaks {
            PeerVersion::Unknown => None,
            PeerVersion::V1 => Some("DKVS/1"),
            PeerVersion::V2(_) => Some("DKVS/2"),
        },
        last_round_trip_us: None,
        round_trip_us: status.round_trip.map(micros),
        boot_id: greeting.map(|greeting| format!("{:016x}", greeting.boot_id)),
        durability: greeting.map(|greeting| match greeting.durability {
            Durability::Memory => "memory",
            Durability::Buffered => "buffered",
            Durability::Fsync => "fsync",
        }),
        datagram_bytes_max: greeting.map(|greeting| greeting.datagram_bytes_max),
        value_bytes_max: greeting.map(|greeting| greeting.value_bytes_max),
        keys: statistic(Statistic::Keys),
        bytes: statistic(Statistic::Bytes),
        corrupt_answers: statistic(Statistic::CorruptAnswers),
        storage: StorageBody::new(statistic),
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

fn advice_on(client: &Client, status: &ServerStatus) -> Option<&'static str> {
    Some(status.v1_only?.advice(client.protocol()))
}

#[derive(Serialize)]
struct ReadyBody {
    status: &'static str,
    servers: usize,
    servers_reachable: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
}

pub(super) async fn live(uri: Uri) -> Result<Response<Body>, Problem> {
    params::none(&uri)?;
    Ok(json(&serde_json::json!({ "status": "alive" })))
}

pub(super) async fn ready(State(app): State<App>, uri: Uri) -> Result<Response<Body>, Problem> {
    params::none(&uri)?;
    if app.0.draining.is_cancelled() {
        return Err(Problem::not_ready(
            "the gateway is ending; it finishes what is in flight".into(),
        ));
    }
    let client = &app.0.client;
    let statuses = client.status(PROBE_TIMEOUT).await?;
    // Anybody may ask: which servers they are, /servers tells those who may know.
    let mut advice = BTreeMap::<_, usize>::new();
    for text in statuses.iter().filter_map(|it| advice_on(client, it)) {
        *advice.entry(text).or_default() += 1;
    }
    let advice: Vec<String> = advice
        .into_iter()
        .map(|(text, servers)| format!("servers: {servers}, which /servers names; {text}"))
        .collect();
    let servers = statuses.len();
    let reachable = statuses.iter().filter(|status| status.is_reachable).count();
    if reachable <= servers / 2 {
        let mut detail =
            format!("{reachable} of {servers} servers can be reached, which is no majority");
        for advice in advice {
            detail += &format!("; {advice}");
        }
        return Err(Problem::not_ready(detail));
    }
    Ok(json(&ReadyBody {
        status: "ready",
        servers,
        servers_reachable: reachable,
        advice,
    }))
}

//! The ring, and the preference lists of keys on it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use dkvs_common::cluster::Server;
use dkvs_common::ring::{Position, RingPoint};
use serde::Serialize;

use super::app::App;
use super::json::json;
use super::problem::Problem;
use super::report::KeyText;
use super::{parameters, path};

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
    parameters::none(&uri)?;
    let shared = app.coordinator.shared();
    let servers = shared.cluster.servers();
    let ring_server = |(server, share): (&Server, f64)| RingServer {
        server: server.addr.to_string(),
        ring_points: server.ring_points,
        share,
    };
    let point = |point: &RingPoint| Point {
        position: point.position.to_string(),
        server: servers[point.server.index()].addr.to_string(),
    };
    Ok(json(&RingBody {
        epoch: shared.ring.epoch(),
        replication: app.defaults.replication,
        servers: servers
            .iter()
            .zip(shared.ring.shares())
            .map(ring_server)
            .collect(),
        points: shared.ring.points().iter().map(point).collect(),
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
    let n = parameters::replica_count(&app.defaults, &uri)?;
    let shared = app.coordinator.shared();
    let position = Position::of_key(&key);
    let replicas = shared.ring.preference_list(position, n);
    let preferred = |point: &RingPoint| PreferredServer {
        server: shared.cluster.servers()[point.server.index()]
            .addr
            .to_string(),
        ring_point: point.position.to_string(),
    };
    Ok(json(&PreferenceListBody {
        key: KeyText::new(&key),
        position: position.to_string(),
        replicas: replicas.iter().map(preferred).collect(),
    }))
}

//! The ring, and the preference lists of keys on it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use dkvs_common::cluster::{Server, ServerId};
use dkvs_common::ring::{Position, RingPoint};
use serde::Serialize;

use super::access::Caller;
use super::app::App;
use super::json::{counted_json, counted_text, object_text};
use super::problem::Problem;
use super::report::write_key;
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

pub(super) async fn ring(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let view = app.client.view();
    let shares = view.ring().shares();
    let ring_server = |(id, server): (ServerId, Server)| RingServer {
        server: server.addr.to_string(),
        ring_points: server.ring_points,
        share: shares.get(id).copied().unwrap_or(0.0),
    };
    let point = |point: &RingPoint| Point {
        position: point.position.to_string(),
        server: view.name(point.server).to_owned(),
    };
    let body = RingBody {
        epoch: view.ring().epoch(),
        replication: app.replication,
        servers: view.cluster().iter().map(ring_server).collect(),
        points: view.ring().points().iter().map(point).collect(),
    };
    counted_json((&app.client, caller.id()), &body)
}

pub(super) async fn preference_list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let key = path::key(&uri, "/ring/")?;
    let n = parameters::replica_count(&app.defaults(), &uri)?;
    let view = app.client.view();
    let position = Position::of_key(&key);
    let replicas = view.ring().preference_list(position, n);
    let text = object_text(|object| {
        write_key(object, &key);
        object.plain("position", position.digits());
        object.objects("replicas", &replicas, |object, point| {
            object.plain("server", view.name(point.server));
            object.plain("ring_point", point.position.digits());
        });
    });
    counted_text((&app.client, caller.id()), text)
}

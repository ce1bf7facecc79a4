//! The ring, the preference lists of keys on it, and what the replicas of a key hold.

use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use dkvs_common::cluster::{Server, ServerId};
use dkvs_common::ring::{Position, RingPoint};
use serde::Serialize;

use super::access::Caller;
use super::app::App;
use super::json::{counted_json, counted_text, object_text};
use super::parameters::{self, PreferenceListParameters};
use super::problem::Problem;
use super::report::{HoldingsReport, micros, write_key};
use super::{path, trace};

#[derive(Serialize)]
struct RingBody {
    epoch: u32,
    configuration: String,
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
        configuration: app.client.epoch().to_string(),
        replication: app.replication,
        servers: view.cluster().iter().map(ring_server).collect(),
        points: view.ring().points().iter().map(point).collect(),
    };
    counted_json((&app.client, caller.id()), &body)
}

pub(super) async fn preference_list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let started = Instant::now();
    let key = path::key(&uri, "/ring/")?;
    let PreferenceListParameters {
        mut options,
        replicas,
    } = PreferenceListParameters::parse(&app.defaults(), &uri)?;
    let position = Position::of_key(&key);
    let text = match replicas {
        false => {
            let view = app.client.view();
            let n = usize::from(options.quorum.n());
            let list = view.ring().preference_list(position, n);
            object_text(|object| {
                write_key(object, &key);
                object.plain("position", position.digits());
                object.objects("replicas", &list, |object, point| {
                    object.plain("server", view.name(point.server));
                    object.plain("ring_point", point.position.digits());
                });
            })
        }
        true => {
            options.caller = caller.id();
            options.trace = trace::sampled(&headers);
            let held = app.client.inspect(&key, options).await?;
            object_text(|object| {
                write_key(object, &key);
                object.plain("position", position.digits());
                HoldingsReport::new(&held).write(object);
                object.number("elapsed_us", micros(started.elapsed()));
            })
        }
    };
    counted_text((&app.client, caller.id()), text)
}

//! HTTP: routes in one place, handlers that extract, coordinate and respond.
//!
//! * [`gate`]: what is asked of every request before it is routed, and said to every browser
//! * [`access`]: what each operation asks of its caller, and who that is
//! * [`hosts`]: the names that the gateway goes by
//! * `console`, `events`: the page that shows the cluster, and what it is told each second
//! * `switch`: embedded servers, stopped and started
//! * [`error`]: every failure as a problem document; the only place that names their status codes
//! * [`metrics`]: what all workers have counted, for Prometheus
//! * [`serve`]: connections, with time-outs and limits
//!
//! Handlers know nothing of sockets or wire formats, and the client knows nothing of HTTP.

mod accept;
pub mod access;
mod batch;
mod body;
mod cluster;
mod conditional;
mod console;
mod counts;
mod docs;
pub mod error;
mod events;
pub mod gate;
pub mod hosts;
mod kv;
mod list;
pub mod metrics;
mod params;
mod path;
mod refusal;
mod report;
mod request_id;
pub mod serve;
mod switch;
mod trace;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::routing::{MethodFilter, MethodRouter, on};
use tokio_util::sync::CancellationToken;

use crate::embedded::Switch;
use access::{Access, GuardLayer, Scope};
use dkvs_client::Client;
use error::Problem;
use events::Feed;
use gate::Gate;
use metrics::Metrics;
use request_id::RequestIds;

/// The contract of this API, as served at `/openapi.yaml`.
pub const OPENAPI_YAML: &str = include_str!("../../../openapi.yaml");

/// What the workers of one gateway share.
pub struct Common {
    started: SystemTime,
    switch: Option<Switch>,
    events: Feed,
}

impl Common {
    /// Of a gateway that starts now, and can stop its servers if it has a switch for them.
    pub fn new(switch: Option<Switch>) -> Self {
        Self {
            started: SystemTime::now(),
            switch,
            events: Feed::default(),
        }
    }
}

/// What the handlers of one worker share.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    client: Client,
    replication: u8,
    timeout: Duration,
    /// Called when the gateway is to end: it then says that it is not ready.
    draining: CancellationToken,
    request_ids: RequestIds,
    gate: Gate,
    metrics: Metrics,
    common: Arc<Common>,
}

impl App {
    /// Handlers over one worker's client. Fails if the system has no random bytes.
    pub fn new(
        client: Client,
        replication: u8,
        timeout: Duration,
        draining: CancellationToken,
        gate: Gate,
        common: Arc<Common>,
    ) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            client,
            replication,
            timeout,
            draining,
            request_ids: RequestIds::new()?,
            gate,
            metrics: Metrics::new(),
            common,
        })))
    }
}

/// One operation of the API, as openapi.yaml has it.
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, with `{key}` for the rest of the path, and other names for a part of it.
    pub path: &'static str,
    /// Its `operationId`.
    pub id: &'static str,
    /// What it asks of its caller.
    pub access: Access,
    /// The query parameters it takes; any other is refused.
    pub parameters: &'static [&'static str],
    /// The status codes it may answer with.
    pub statuses: &'static [u16],
    handler: fn(Route) -> MethodRouter<App>,
}

/// What leads to the handler of an operation.
#[derive(Clone, Copy)]
struct Route {
    method: MethodFilter,
    /// None where there are no tokens.
    guard: Option<GuardLayer>,
}

impl Route {
    fn to<H: Handler<T, App>, T: 'static>(self, handler: H) -> MethodRouter<App> {
        match self.guard {
            // Before the handler itself: one before the route would box each request's future again.
            Some(guard) => on(self.method, handler.layer(guard)),
            None => on(self.method, handler),
        }
    }
}

const WRITE: &[&str] = &["n", "w", "consistency", "timeout_ms", "wait", "tag"];
const READ: &[&str] = &["n", "r", "consistency", "timeout_ms", "wait", "raw"];
const GET_STATUSES: &[u16] = &[
    200, 206, 304, 400, 401, 403, 404, 406, 409, 414, 416, 421, 503, 504,
];
const HEAD_STATUSES: &[u16] = &[200, 304, 400, 401, 403, 404, 406, 409, 414, 421, 503, 504];

/// Every operation. HEAD goes with every GET; it is an operation of its own where a caller would
/// want it for its own sake.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: Method::PUT,
        path: "/kv/{key}",
        id: "putValue",
        access: Access::Key(Scope::Write),
        parameters: WRITE,
        statuses: &[200, 400, 401, 403, 408, 409, 413, 414, 421, 503, 504, 507],
        handler: |route| route.to(kv::put),
    },
    Operation {
        method: Method::DELETE,
        path: "/kv/{key}",
        id: "deleteValue",
        access: Access::Key(Scope::Write),
        parameters: WRITE,
        statuses: &[200, 400, 401, 403, 409, 414, 421, 501, 503, 504, 507],
        handler: |route| route.to(kv::delete),
    },
    Operation {
        method: Method::GET,
        path: "/kv/{key}",
        id: "getValue",
        access: Access::Key(Scope::Read),
        parameters: READ,
        statuses: GET_STATUSES,
        handler: |route| route.to(kv::get),
    },
    Operation {
        method: Method::HEAD,
        path: "/kv/{key}",
        id: "headValue",
        access: Access::Key(Scope::Read),
        parameters: READ,
        statuses: HEAD_STATUSES,
        handler: |_| MethodRouter::new(), // goes with GET
    },
    Operation {
        method: Method::GET,
        path: "/kv",
        id: "listKeys",
        access: Access::Token,
        parameters: list::PARAMETERS,
        statuses: &[200, 400, 401, 403, 406, 421, 501, 503, 504],
        handler: |route| route.to(list::list),
    },
    Operation {
        method: Method::POST,
        path: "/batch",
        id: "runBatch",
        access: Access::Token,
        parameters: &[],
        statuses: &[200, 400, 401, 403, 408, 413, 421, 503],
        handler: |route| route.to(batch::batch),
    },
    Operation {
        method: Method::GET,
        path: "/ring",
        id: "getRing",
        access: Access::Cluster(Scope::Admin),
        parameters: &[],
        statuses: &[200, 400, 401, 403, 421],
        handler: |route| route.to(cluster::ring),
    },
    Operation {
        method: Method::GET,
        path: "/ring/{key}",
        id: "getPreferenceList",
        access: Access::Key(Scope::Read),
        parameters: &["n"],
        statuses: &[200, 400, 401, 403, 414, 421],
        handler: |route| route.to(cluster::preference_list),
    },
    Operation {
        method: Method::GET,
        path: "/servers",
        id: "getServers",
        access: Access::Cluster(Scope::Admin),
        parameters: &[],
        statuses: &[200, 400, 401, 403, 421, 503],
        handler: |route| route.to(cluster::servers),
    },
    Operation {
        method: Method::POST,
        path: "/servers/{server}/stop",
        id: "stopServer",
        access: Access::Cluster(Scope::Admin),
        parameters: &[],
        statuses: &[200, 400, 401, 403, 404, 409, 421],
        handler: |route| route.to(switch::stop),
    },
    Operation {
        method: Method::POST,
        path: "/servers/{server}/start",
        id: "startServer",
        access: Access::Cluster(Scope::Admin),
        parameters: &[],
        statuses: &[200, 400, 401, 403, 404, 409, 421, 503],
        handler: |route| route.to(switch::start),
    },
    Operation {
        method: Method::GET,
        path: "/events",
        id: "getEvents",
        access: Access::Cluster(Scope::Admin),
        parameters: &[],
        statuses: &[200, 400, 401, 403, 421, 503],
        handler: |route| route.to(events::events),
    },
    Operation {
        method: Method::GET,
        path: "/livez",
        id: "getLiveness",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(cluster::live),
    },
    Operation {
        method: Method::GET,
        path: "/healthz",
        id: "getHealth",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(cluster::live),
    },
    Operation {
        method: Method::GET,
        path: "/readyz",
        id: "getReadiness",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421, 503],
        handler: |route| route.to(cluster::ready),
    },
    Operation {
        method: Method::GET,
        path: "/metrics",
        id: "getMetrics",
        access: Access::Cluster(Scope::Admin),
        parameters: &[],
        statuses: &[200, 400, 401, 403, 421],
        handler: |route| route.to(metrics::metrics),
    },
    Operation {
        method: Method::GET,
        path: "/openapi.yaml",
        id: "getOpenapiYaml",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(docs::openapi_yaml),
    },
    Operation {
        method: Method::GET,
        path: "/openapi.json",
        id: "getOpenapiJson",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(docs::openapi_json),
    },
    Operation {
        method: Method::GET,
        path: "/docs",
        id: "getDocs",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(docs::page),
    },
    Operation {
        method: Method::GET,
        path: "/docs/page.js",
        id: "getDocsScript",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(docs::file),
    },
    Operation {
        method: Method::GET,
        path: "/docs/swagger-ui-bundle.js",
        id: "getDocsViewer",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(docs::file),
    },
    Operation {
        method: Method::GET,
        path: "/docs/swagger-ui.css",
        id: "getDocsStyle",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 400, 421],
        handler: |route| route.to(docs::file),
    },
    Operation {
        method: Method::GET,
        path: "/",
        id: "getConsole",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 304, 400, 421],
        handler: |route| route.to(console::page),
    },
    Operation {
        method: Method::GET,
        path: "/console/{file}",
        id: "getConsoleFile",
        access: Access::Open,
        parameters: &[],
        statuses: &[200, 304, 400, 404, 421],
        handler: |route| route.to(console::file),
    },
];

/// The router of one worker.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for operation in OPERATIONS {
        let guard = GuardLayer {
            access: operation.access,
            key_prefix: operation.path.strip_suffix("{key}").unwrap_or_default(),
        };
        let method = MethodFilter::try_from(operation.method.clone());
        let route = Route {
            method: method.expect("a method that can be routed"),
            guard: app.0.gate.has_tokens().then_some(guard),
        };
        let handler = || (operation.handler)(route);
        // A key may be any bytes, slashes among them, so it takes the rest of the path. The
        // pattern needs a byte to match; the path without one is the empty key.
        if let Some(prefix) = operation.path.strip_suffix("{key}") {
            router = router
                .route(prefix, handler())
                .route(&format!("{prefix}{{*key}}"), handler());
        } else {
            router = router.route(operation.path, handler());
        }
    }
    router
        .method_not_allowed_fallback(|method: Method| async move {
            Problem::method_not_allowed(&method)
        })
        .fallback(|uri: Uri| async move { Problem::no_such_path(uri.path()) })
        .with_state(app)
}

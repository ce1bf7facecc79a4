//! HTTP: routes in one place, handlers that extract, coordinate and respond.
//!
//! * [`error`]: every failure as a problem document; the only place that names their status codes
//! * [`metrics`]: what all workers have counted, for Prometheus
//! * [`serve`]: connections, with time-outs and limits
//!
//! Handlers know nothing of sockets or wire formats, and the coordinator knows nothing of HTTP.

mod accept;
mod cluster;
mod counts;
pub mod error;
mod kv;
pub mod metrics;
mod params;
mod path;
mod report;
mod request_id;
pub mod serve;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{MethodRouter, delete, get, put};
use tokio_util::sync::CancellationToken;

use crate::coordinator::Coordinator;
use error::Problem;
use metrics::Metrics;
use request_id::RequestIds;

/// The contract of this API, as served at `/openapi.yaml`.
pub const OPENAPI_YAML: &str = include_str!("../../../openapi.yaml");

/// What the handlers of one worker share.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    coordinator: Coordinator,
    replication: u8,
    timeout: Duration,
    /// Called when the gateway is to end: it then says that it is not ready.
    draining: CancellationToken,
    request_ids: RequestIds,
    metrics: Metrics,
}

impl App {
    /// Handlers over one worker's coordinator. Fails if the system has no random bytes.
    pub fn new(
        coordinator: Coordinator,
        replication: u8,
        timeout: Duration,
        draining: CancellationToken,
    ) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            coordinator,
            replication,
            timeout,
            draining,
            request_ids: RequestIds::new()?,
            metrics: Metrics::new(),
        })))
    }
}

/// One operation of the API, as openapi.yaml has it.
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, with `{key}` for the rest of the path.
    pub path: &'static str,
    /// Its `operationId`.
    pub id: &'static str,
    /// The query parameters it takes; any other is refused.
    pub parameters: &'static [&'static str],
    /// The status codes it may answer with.
    pub statuses: &'static [u16],
    handler: fn() -> MethodRouter<App>,
}

const WRITE: &[&str] = &["n", "w", "consistency", "timeout_ms", "wait", "tag"];
const READ: &[&str] = &["n", "r", "consistency", "timeout_ms", "wait", "raw"];
const READ_STATUSES: &[u16] = &[200, 400, 404, 406, 409, 414, 503, 504];

/// Every operation. HEAD goes with every GET; it is an operation of its own where a caller would
/// want it for its own sake.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: Method::PUT,
        path: "/kv/{key}",
        id: "putValue",
        parameters: WRITE,
        statuses: &[200, 400, 408, 409, 413, 414, 503, 504, 507],
        handler: || put(kv::put),
    },
    Operation {
        method: Method::DELETE,
        path: "/kv/{key}",
        id: "deleteValue",
        parameters: WRITE,
        statuses: &[200, 400, 409, 414, 501, 503, 504, 507],
        handler: || delete(kv::delete),
    },
    Operation {
        method: Method::GET,
        path: "/kv/{key}",
        id: "getValue",
        parameters: READ,
        statuses: READ_STATUSES,
        handler: || get(kv::get),
    },
    Operation {
        method: Method::HEAD,
        path: "/kv/{key}",
        id: "headValue",
        parameters: READ,
        statuses: READ_STATUSES,
        handler: MethodRouter::new, // goes with GET
    },
    Operation {
        method: Method::GET,
        path: "/ring",
        id: "getRing",
        parameters: &[],
        statuses: &[200, 400],
        handler: || get(cluster::ring),
    },
    Operation {
        method: Method::GET,
        path: "/ring/{key}",
        id: "getPreferenceList",
        parameters: &["n"],
        statuses: &[200, 400, 414],
        handler: || get(cluster::preference_list),
    },
    Operation {
        method: Method::GET,
        path: "/servers",
        id: "getServers",
        parameters: &[],
        statuses: &[200, 400, 503],
        handler: || get(cluster::servers),
    },
    Operation {
        method: Method::GET,
        path: "/livez",
        id: "getLiveness",
        parameters: &[],
        statuses: &[200, 400],
        handler: || get(cluster::live),
    },
    Operation {
        method: Method::GET,
        path: "/healthz",
        id: "getHealth",
        parameters: &[],
        statuses: &[200, 400],
        handler: || get(cluster::live),
    },
    Operation {
        method: Method::GET,
        path: "/readyz",
        id: "getReadiness",
        parameters: &[],
        statuses: &[200, 400, 503],
        handler: || get(cluster::ready),
    },
    Operation {
        method: Method::GET,
        path: "/metrics",
        id: "getMetrics",
        parameters: &[],
        statuses: &[200, 400],
        handler: || get(metrics::metrics),
    },
    Operation {
        method: Method::GET,
        path: "/openapi.yaml",
        id: "getOpenapiYaml",
        parameters: &[],
        statuses: &[200, 400],
        handler: || get(cluster::openapi_yaml),
    },
];

/// The router of one worker.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for operation in OPERATIONS {
        // A key may be any bytes, slashes among them, so it takes the rest of the path. The
        // pattern needs a byte to match; the path without one is the empty key.
        if let Some(prefix) = operation.path.strip_suffix("{key}") {
            router = router
                .route(prefix, (operation.handler)())
                .route(&format!("{prefix}{{*key}}"), (operation.handler)());
        } else {
            router = router.route(operation.path, (operation.handler)());
        }
    }
    router
        .method_not_allowed_fallback(|method: Method| async move {
            Problem::method_not_allowed(&method)
        })
        .fallback(|uri: Uri| async move { Problem::no_such_path(uri.path()) })
        .with_state(app)
}

//! The router of a worker: each operation of the table with its handler.

use axum::Router;
use axum::body::Body;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::app::App;
use super::guard::GuardLayer;
use super::no_such_path::no_such_path;
use super::operations::{OPERATIONS, OperationId};
use super::problem::{Problem, ProblemType, excerpt};
use super::{batch, console, docs, events, health, kv, list, metrics, ring, servers, switch};

const METHOD_NOT_ALLOWED: ProblemType = ProblemType {
    status: StatusCode::METHOD_NOT_ALLOWED,
    name: "method-not-allowed",
    title: "The path does not take this method",
};

/// The methods that some path takes.
const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";

/// Which operations a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Every one.
    All,
    /// Those by which the gateway is watched.
    Health,
}

impl Routes {
    fn have(self, operation: OperationId) -> bool {
        match self {
            Self::All => true,
            Self::Health => matches!(
                operation,
                OperationId::GetLiveness
                    | OperationId::GetHealth
                    | OperationId::GetReadiness
                    | OperationId::GetMetrics
            ),
        }
    }
}

/// The router of one worker.
pub(super) fn router(app: App, routes: Routes) -> Router {
    let mut router = Router::new();
    for operation in OPERATIONS.iter().filter(|it| routes.have(it.id)) {
        let guard = GuardLayer {
            access: operation.access,
            key_prefix: operation.path.strip_suffix("{key}").unwrap_or_default(),
        };
        let method = MethodFilter::try_from(operation.method.clone());
        let route = Route {
            method: method.expect("a method that can be routed"),
            guard: app.gate.has_tokens().then_some(guard),
        };
        let handler = || handler(operation.id, route);
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
        .method_not_allowed_fallback(|method: Method| async move { method_not_allowed(&method) })
        .fallback(|method: Method, uri: Uri| async move {
            match (method, uri.path()) {
                (Method::OPTIONS, "*") => Ok(options()),
                (_, path) => Err(no_such_path(path)),
            }
        })
        .with_state(app)
}

/// Where the handler of an operation is put, and the check before it.
#[derive(Clone, Copy)]
struct Route {
    method: MethodFilter,
    /// None where there are no tokens.
    guard: Option<GuardLayer>,
}

impl Route {
    fn to<H: Handler<T, App>, T: 'static>(self, handler: H) -> MethodRouter<App> {
        match self.guard {
            // Around the handler itself: around the route, it would box each request's future again.
            Some(guard) => on(self.method, handler.layer(guard)),
            None => on(self.method, handler),
        }
    }
}

fn handler(operation: OperationId, route: Route) -> MethodRouter<App> {
    match operation {
        OperationId::PutValue => route.to(kv::put),
        OperationId::DeleteValue => route.to(kv::delete),
        OperationId::GetValue => route.to(kv::get),
        OperationId::HeadValue => MethodRouter::new(), // goes with GET
        OperationId::ListKeys => route.to(list::list),
        OperationId::RunBatch => route.to(batch::batch),
        OperationId::GetRing => route.to(ring::ring),
        OperationId::GetPreferenceList => route.to(ring::preference_list),
        OperationId::GetServers => route.to(servers::servers),
        OperationId::StopServer => route.to(switch::stop),
        OperationId::StartServer => route.to(switch::start),
        OperationId::GetEvents => route.to(events::events),
        OperationId::GetLiveness => route.to(health::live),
        OperationId::GetHealth => route.to(health::live),
        OperationId::GetReadiness => route.to(health::ready),
        OperationId::GetMetrics => route.to(metrics::metrics),
        OperationId::GetOpenapiYaml => route.to(docs::openapi_yaml),
        OperationId::GetOpenapiJson => route.to(docs::openapi_json),
        OperationId::GetDocs => route.to(docs::page),
        OperationId::GetDocsScript => route.to(docs::file),
        OperationId::GetDocsViewer => route.to(docs::file),
        OperationId::GetDocsStyle => route.to(docs::file),
        OperationId::GetConsole => route.to(console::page),
        OperationId::GetConsoleFile => route.to(console::file),
    }
}

/// The response to OPTIONS of the gateway as a whole, which is good for a ping (RFC 9110, section
/// 9.3.7).
fn options() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = HeaderValue::from_static(METHODS);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn method_not_allowed(method: &Method) -> Problem {
    let method = excerpt(method.as_str());
    let detail = format!("this path does not take {method}; the Allow header lists what it takes");
    Problem::new(&METHOD_NOT_ALLOWED, detail)
}

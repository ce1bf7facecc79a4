//! Every operation of the API.

use std::fmt;

use axum::http::Method;

use super::parameter::{
    CONSISTENCY, CONSOLE_FILE, CURSOR, DELIMITER, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, KEY, LIMIT, N, PREFIX, Parameter, R, RANGE, RAW, REPLICAS, REVERSE,
    SERVER, START, TAG, TIMEOUT_MS, VALUES, W, WAIT,
};
use crate::tokens::Scope;

/// An operation, as openapi.yaml has it.
#[derive(Debug)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, with `{key}` for the rest of the path, and other names for a part of it.
    pub path: &'static str,
    /// Its `operationId`.
    pub id: OperationId,
    /// What it demands of its caller.
    pub access: Access,
    /// Its parameters. A query parameter that is not among them is refused.
    pub parameters: &'static [Parameter],
    /// The status codes it may answer with.
    pub statuses: &'static [u16],
}

/// What an operation demands of its caller, where there are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing, not even a token.
    Open,
    /// A token with any scopes. The handler checks whatever the body of the request asks for.
    Token,
    /// A token with this scope, for the key in the path.
    Key(Scope),
    /// A token with this scope. No key is involved, so its prefixes do not matter.
    Cluster(Scope),
}

/// Names an operation; [`OperationId::as_str`] is its `operationId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationId {
    PutValue,
    DeleteValue,
    GetValue,
    HeadValue,
    ListKeys,
    RunBatch,
    GetRing,
    GetPreferenceList,
    GetServers,
    StopServer,
    StartServer,
    GetEvents,
    GetLiveness,
    GetHealth,
    GetReadiness,
    GetMetrics,
    GetOpenapiYaml,
    GetOpenapiJson,
    GetDocs,
    GetDocsScript,
    GetDocsViewer,
    GetDocsStyle,
    GetConsole,
    GetConsoleFile,
}

impl OperationId {
    /// The `operationId` in openapi.yaml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PutValue => "putValue",
            Self::DeleteValue => "deleteValue",
            Self::GetValue => "getValue",
            Self::HeadValue => "headValue",
            Self::ListKeys => "listKeys",
            Self::RunBatch => "runBatch",
            Self::GetRing => "getRing",
            Self::GetPreferenceList => "getPreferenceList",
            Self::GetServers => "getServers",
            Self::StopServer => "stopServer",
            Self::StartServer => "startServer",
            Self::GetEvents => "getEvents",
            Self::GetLiveness => "getLiveness",
            Self::GetHealth => "getHealth",
            Self::GetReadiness => "getReadiness",
            Self::GetMetrics => "getMetrics",
            Self::GetOpenapiYaml => "getOpenapiYaml",
            Self::GetOpenapiJson => "getOpenapiJson",
            Self::GetDocs => "getDocs",
            Self::GetDocsScript => "getDocsScript",
            Self::GetDocsViewer => "getDocsViewer",
            Self::GetDocsStyle => "getDocsStyle",
            Self::GetConsole => "getConsole",
            Self::GetConsoleFile => "getConsoleFile",
        }
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The path of one key.
pub(in crate::http) const KEY_PATH: &str = "/kv/{key}";

/// The path of all keys.
pub(in crate::http) const LIST_PATH: &str = "/kv";

/// The path of batches.
pub(in crate::http) const BATCH_PATH: &str = "/batch";

pub(in crate::http) const NO_PARAMETERS: &[Parameter] = &[];

pub(in crate::http) const WRITE_PARAMETERS: &[Parameter] = &[
    KEY,
    N.untyped(),
    W.untyped(),
    CONSISTENCY.untyped(),
    TIMEOUT_MS.untyped(),
    WAIT.untyped(),
    TAG.untyped(),
];

pub(in crate::http) const GET_PARAMETERS: &[Parameter] = &[
    KEY,
    N.untyped(),
    R.untyped(),
    CONSISTENCY.untyped(),
    TIMEOUT_MS.untyped(),
    WAIT.untyped(),
    RAW.untyped(),
    IF_NONE_MATCH,
    IF_MATCH,
    IF_UNMODIFIED_SINCE,
    RANGE,
    IF_RANGE,
];

const HEAD_PARAMETERS: &[Parameter] = &[
    KEY,
    N.untyped(),
    R.untyped(),
    CONSISTENCY.untyped(),
    TIMEOUT_MS.untyped(),
    WAIT.untyped(),
    RAW.untyped(),
    IF_NONE_MATCH,
    IF_MATCH,
    IF_UNMODIFIED_SINCE,
];

pub(in crate::http) const LIST_PARAMETERS: &[Parameter] = &[
    PREFIX.untyped(),
    START.untyped(),
    DELIMITER.untyped(),
    REVERSE.untyped(),
    VALUES.untyped(),
    LIMIT.untyped(),
    CURSOR.untyped(),
    TIMEOUT_MS.untyped(),
];

pub(in crate::http) const PREFERENCE_LIST_PARAMETERS: &[Parameter] =
    &[KEY, N.untyped(), REPLICAS.untyped(), TIMEOUT_MS.untyped()];

const GET_STATUSES: &[u16] = &[
    200, 206, 304, 400, 401, 403, 404, 406, 409, 412, 414, 416, 421, 503, 504,
];
const HEAD_STATUSES: &[u16] = &[
    200, 304, 400, 401, 403, 404, 406, 409, 412, 414, 421, 503, 504,
];

/// Every operation. HEAD goes with every GET; it is an operation of its own where a caller would
/// want it for its own sake.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: Method::PUT,
        path: KEY_PATH,
        id: OperationId::PutValue,
        access: Access::Key(Scope::Write),
        parameters: WRITE_PARAMETERS,
        statuses: &[
            200, 400, 401, 403, 408, 409, 413, 414, 415, 421, 501, 503, 504, 507,
        ],
    },
    Operation {
        method: Method::DELETE,
        path: KEY_PATH,
        id: OperationId::DeleteValue,
        access: Access::Key(Scope::Write),
        parameters: WRITE_PARAMETERS,
        statuses: &[200, 400, 401, 403, 409, 414, 421, 501, 503, 504, 507],
    },
    Operation {
        method: Method::GET,
        path: KEY_PATH,
        id: OperationId::GetValue,
        access: Access::Key(Scope::Read),
        parameters: GET_PARAMETERS,
        statuses: GET_STATUSES,
    },
    Operation {
        method: Method::HEAD,
        path: KEY_PATH,
        id: OperationId::HeadValue,
        access: Access::Key(Scope::Read),
        parameters: HEAD_PARAMETERS,
        statuses: HEAD_STATUSES,
    },
    Operation {
        method: Method::GET,
        path: LIST_PATH,
        id: OperationId::ListKeys,
        access: Access::Token,
        parameters: LIST_PARAMETERS,
        statuses: &[200, 400, 401, 403, 406, 421, 429, 501, 503, 504],
    },
    Operation {
        method: Method::POST,
        path: BATCH_PATH,
        id: OperationId::RunBatch,
        access: Access::Token,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 401, 403, 408, 412, 413, 415, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/ring",
        id: OperationId::GetRing,
        access: Access::Cluster(Scope::Admin),
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 401, 403, 421],
    },
    Operation {
        method: Method::GET,
        path: "/ring/{key}",
        id: OperationId::GetPreferenceList,
        access: Access::Key(Scope::Read),
        parameters: PREFERENCE_LIST_PARAMETERS,
        statuses: &[200, 400, 401, 403, 414, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/servers",
        id: OperationId::GetServers,
        access: Access::Cluster(Scope::Admin),
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 401, 403, 421, 503],
    },
    Operation {
        method: Method::POST,
        path: "/servers/{server}/stop",
        id: OperationId::StopServer,
        access: Access::Cluster(Scope::Admin),
        parameters: &[SERVER],
        statuses: &[200, 400, 401, 403, 404, 409, 412, 421],
    },
    Operation {
        method: Method::POST,
        path: "/servers/{server}/start",
        id: OperationId::StartServer,
        access: Access::Cluster(Scope::Admin),
        parameters: &[SERVER],
        statuses: &[200, 400, 401, 403, 404, 409, 412, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/events",
        id: OperationId::GetEvents,
        access: Access::Cluster(Scope::Admin),
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 401, 403, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/livez",
        id: OperationId::GetLiveness,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/healthz",
        id: OperationId::GetHealth,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/readyz",
        id: OperationId::GetReadiness,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421, 503],
    },
    Operation {
        method: Method::GET,
        path: "/metrics",
        id: OperationId::GetMetrics,
        access: Access::Cluster(Scope::Admin),
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 401, 403, 421],
    },
    Operation {
        method: Method::GET,
        path: "/openapi.yaml",
        id: OperationId::GetOpenapiYaml,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421],
    },
    Operation {
        method: Method::GET,
        path: "/openapi.json",
        id: OperationId::GetOpenapiJson,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421],
    },
    Operation {
        method: Method::GET,
        path: "/docs",
        id: OperationId::GetDocs,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421],
    },
    Operation {
        method: Method::GET,
        path: "/docs/page.js",
        id: OperationId::GetDocsScript,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421],
    },
    Operation {
        method: Method::GET,
        path: "/docs/swagger-ui-bundle.js",
        id: OperationId::GetDocsViewer,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421],
    },
    Operation {
        method: Method::GET,
        path: "/docs/swagger-ui.css",
        id: OperationId::GetDocsStyle,
        access: Access::Open,
        parameters: NO_PARAMETERS,
        statuses: &[200, 400, 421],
    },
    Operation {
        method: Method::GET,
        path: "/",
        id: OperationId::GetConsole,
        access: Access::Open,
        parameters: &[IF_NONE_MATCH, IF_MATCH],
        statuses: &[200, 304, 400, 412, 421],
    },
    Operation {
        method: Method::GET,
        path: "/console/{file}",
        id: OperationId::GetConsoleFile,
        access: Access::Open,
        parameters: &[CONSOLE_FILE, IF_NONE_MATCH, IF_MATCH],
        statuses: &[200, 304, 400, 404, 412, 421],
    },
];

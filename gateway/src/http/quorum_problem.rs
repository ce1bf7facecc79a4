//! Problems of requests for which too few replicas answered, which reads, writes and lists share.

use axum::http::StatusCode;

use super::problem::{Problem, ProblemType};

const QUORUM_UNREACHABLE: ProblemType = ProblemType {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "quorum-unreachable",
    title: "Too few replicas can be reached",
};

const TIMEOUT: ProblemType = ProblemType {
    status: StatusCode::GATEWAY_TIMEOUT,
    name: "timeout",
    title: "Too few replicas answered in time",
};

/// The quorum can no longer be reached, however long the request would wait.
pub(super) fn quorum_unreachable(detail: impl Into<String>) -> Problem {
    Problem::new(&QUORUM_UNREACHABLE, detail).with_retry_after()
}

/// The request's time was over before the quorum was reached.
pub(super) fn timeout(detail: impl Into<String>) -> Problem {
    Problem::new(&TIMEOUT, detail)
}

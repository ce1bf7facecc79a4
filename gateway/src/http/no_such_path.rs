//! The problem of a path that leads nowhere.

use axum::http::StatusCode;

use super::problem::{Problem, ProblemType, excerpt};

const NO_SUCH_PATH: ProblemType = ProblemType {
    status: StatusCode::NOT_FOUND,
    name: "no-such-path",
    title: "There is nothing at this path",
};

pub(super) fn no_such_path(path: &str) -> Problem {
    let detail = format!(
        "there is nothing at {}; keys are at /kv/<key>, and /openapi.yaml lists all paths",
        excerpt(path)
    );
    Problem::new(&NO_SUCH_PATH, detail)
}

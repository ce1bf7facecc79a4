//! Problems of keys and values that cannot be stored, wherever a request has them.

use axum::http::StatusCode;
use dkvs_common::kv::KeyError;
use serde_json::json;

use super::problem::{Problem, ProblemType};

const INVALID_KEY: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "invalid-key",
    title: "The key is not valid",
};

const KEY_TOO_LONG: ProblemType = ProblemType {
    status: StatusCode::URI_TOO_LONG,
    ..INVALID_KEY
};

const INVALID_VALUE: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "invalid-value",
    title: "The value cannot be stored",
};

const VALUE_TOO_LARGE: ProblemType = ProblemType {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    name: "value-too-large",
    title: "The value is too large",
};

pub(super) fn invalid_key(detail: impl Into<String>) -> Problem {
    Problem::new(&INVALID_KEY, detail)
}

pub(super) fn key_too_long(detail: impl Into<String>) -> Problem {
    Problem::new(&KEY_TOO_LONG, detail)
}

pub(super) fn invalid_value(detail: impl Into<String>) -> Problem {
    Problem::new(&INVALID_VALUE, detail)
}

pub(super) fn value_too_large(value_bytes_max: usize) -> Problem {
    let detail =
        format!("the value is longer than {value_bytes_max} bytes, which is the limit here");
    Problem::new(&VALUE_TOO_LARGE, detail).with(json!({ "value_bytes_max": value_bytes_max }))
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => invalid_key(error.to_string()),
            KeyError::TooLong { .. } => key_too_long(error.to_string()),
        }
    }
}

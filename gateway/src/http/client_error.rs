//! Problems of requests that the client refused before it sent anything.

use axum::http::StatusCode;
use dkvs_client::{AdmissionError, MemoryError};
use dkvs_common::model::Unrepresentable;

use super::key_value::{invalid_key, invalid_value, key_too_long, value_too_large};
use super::operations::parameter::CONSISTENCY;
use super::parameters::{InvalidParameter, invalid_parameters};
use super::problem::{Problem, ProblemType};

const OVERLOADED: ProblemType = ProblemType {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "overloaded",
    title: "The gateway is overloaded",
};

const NOT_SUPPORTED: ProblemType = ProblemType {
    status: StatusCode::NOT_IMPLEMENTED,
    name: "not-supported",
    title: "This is not supported",
};

/// The gateway has reached one of its limits.
pub(super) fn overloaded(what: &'static str) -> Problem {
    AdmissionError::Overloaded { what }.into()
}

/// The gateway cannot do this, or the servers cannot by the protocol that they speak.
pub(super) fn not_supported(detail: &'static str) -> Problem {
    Problem::new(&NOT_SUPPORTED, detail)
}

pub(super) fn no_deletion() -> Problem {
    not_supported(
        "the servers speak DKVS/1, which cannot delete a key; they have to speak DKVS/2 for it",
    )
}

/// The request insists on linearizable, and servers have no tags: this one, or too many of them.
pub(super) fn no_tags(server: Option<String>) -> Problem {
    let who = server.map_or("too many of the replicas speak".to_owned(), |server| {
        format!("{server} speaks")
    });
    invalid_parameters(vec![InvalidParameter {
        name: CONSISTENCY.name.to_owned(),
        reason: format!(
            "it cannot be linearizable: {who} DKVS/1 only, which has no tags; \
             consistency=agreement needs none"
        ),
    }])
}

impl From<MemoryError> for Problem {
    fn from(error: MemoryError) -> Self {
        overloaded(error.reason())
    }
}

/// There is no memory for what was read.
pub(super) fn no_memory_for_reply(error: MemoryError) -> Problem {
    let reason = error.reason();
    let detail = format!("the gateway is overloaded: {reason}; it has no memory for this reply");
    Problem::new(&OVERLOADED, detail)
        .with_retry_after()
        .marked_as_overload()
        .marked_as_lack_of_memory()
}

impl From<AdmissionError> for Problem {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Overloaded { .. } | AdmissionError::ShareTaken { .. } => {
                let detail = format!("{error}; nothing was sent to any server");
                Self::new(&OVERLOADED, detail)
                    .with_retry_after()
                    .marked_as_overload()
            }
            AdmissionError::NoDeletion => no_deletion(),
            AdmissionError::NoListing => not_supported(
                "the gateway speaks DKVS/1, which cannot list keys; it takes servers that speak \
                 DKVS/2",
            ),
            AdmissionError::NoTags { server } => no_tags(Some(server)),
            AdmissionError::Unrepresentable(error) => match error {
                Unrepresentable::KeyHasNul { .. } => invalid_key(error.to_string()),
                Unrepresentable::KeyTooLong { .. } => key_too_long(error.to_string()),
                Unrepresentable::ValueHasNul { .. } => invalid_value(error.to_string()),
                Unrepresentable::ValueTooLong { bytes_max, .. } => value_too_large(bytes_max),
            },
        }
    }
}

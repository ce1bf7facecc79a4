//! How reads fail.

use axum::http::StatusCode;
use dkvs_common::quorum::Level;
use serde_json::json;

use crate::http::operations::parameter::CONSISTENCY;
use crate::http::parameters::{InvalidParameter, invalid_parameters};
use crate::http::problem::{Problem, ProblemType};
use crate::http::quorum_problem::{quorum_unreachable, timeout};
use crate::http::report::ReadReport;

const KEY_NOT_FOUND: ProblemType = ProblemType {
    status: StatusCode::NOT_FOUND,
    name: "key-not-found",
    title: "There is no such key",
};

const REPLICAS_DISAGREE: ProblemType = ProblemType {
    status: StatusCode::CONFLICT,
    name: "replicas-disagree",
    title: "The replicas do not agree",
};

pub(super) fn key_not_found(report: ReadReport<'_>) -> Problem {
    let (agreeing, n) = (report.quorum.agreeing, report.quorum.n);
    let detail = format!("{agreeing} of {n} replicas hold no value for this key");
    Problem::new(&KEY_NOT_FOUND, detail)
        .with(json!({ "deleted": report.tag.is_some() }))
        .with_members(|object| report.write(object))
}

pub(super) fn replicas_disagree(report: ReadReport<'_>) -> Problem {
    let (n, r) = (report.quorum.n, report.quorum.r);
    let detail = match report.consistency {
        Level::Linearizable => format!(
            "{n} replicas hold different values under one tag, and no {r} the same: a tag \
             was used for two writes; write the value you want"
        ),
        Level::Agreement => format!(
            "no {r} of {n} replicas agree on this key; a write may be under way or have \
             failed half way: read again, read with a smaller r, or write the value you \
             want"
        ),
    };
    Problem::new(&REPLICAS_DISAGREE, detail).with_members(|object| report.write(object))
}

pub(super) fn unreachable(report: ReadReport<'_>) -> Problem {
    let (n, r) = (report.quorum.n, report.quorum.r);
    quorum_unreachable(format!(
        "so many of the {n} replicas cannot be reached that {r} can no longer answer"
    ))
    .with_members(|object| report.write(object))
}

pub(super) fn timed_out(report: ReadReport<'_>) -> Problem {
    let (n, r) = (report.quorum.n, report.quorum.r);
    let what = match report.consistency {
        Level::Linearizable => "told or confirmed the newest value",
        Level::Agreement => "answered",
    };
    timeout(format!("fewer than {r} of {n} replicas {what} in time"))
        .with_members(|object| report.write(object))
}

/// The request insists on linearizable, and a replica holds what a client wrote by DKVS/1.
pub(super) fn came_by_v1(report: ReadReport<'_>) -> Problem {
    invalid_parameters(vec![InvalidParameter {
        name: CONSISTENCY.name.to_owned(),
        reason: "it cannot be linearizable: a replica holds a record of this key that came by \
                 DKVS/1, which does not tell how old it is; consistency=agreement reads what \
                 the replicas agree on, and a PUT that reaches all of them makes the key \
                 linearizable again"
            .to_owned(),
    }])
    .with_members(|object| report.write(object))
}

//! How writes fail.

use axum::http::StatusCode;
use dkvs_common::kv::Key;
use dkvs_common::quorum::write::Applied;
use dkvs_common::quorum::{Level, Refusal};
use dkvs_common::record::Content;

use super::refusal::not_carried;
use crate::http::client_error::no_deletion;
use crate::http::key_value::value_too_large;
use crate::http::problem::{Problem, ProblemType};
use crate::http::quorum_problem::{quorum_unreachable, timeout};
use crate::http::report::WriteReport;

const SUPERSEDED: ProblemType = ProblemType {
    status: StatusCode::CONFLICT,
    name: "superseded",
    title: "A newer value is there",
};

const TAG_CONFLICT: ProblemType = ProblemType {
    status: StatusCode::CONFLICT,
    name: "tag-conflict",
    title: "The tag belongs to another value",
};

const STORAGE_FULL: ProblemType = ProblemType {
    status: StatusCode::INSUFFICIENT_STORAGE,
    name: "storage-full",
    title: "The servers have no room",
};

pub(super) fn unreachable(report: WriteReport<'_>) -> Problem {
    let (n, w) = (report.quorum.n, report.quorum.w);
    let fate = fate(&report);
    quorum_unreachable(format!(
        "so many of the {n} replicas cannot be reached that {w} can no longer confirm; {fate}"
    ))
    .with_members(|object| report.write(object))
}

pub(super) fn timed_out(report: WriteReport<'_>) -> Problem {
    let (n, w) = (report.quorum.n, report.quorum.w);
    let fate = fate(&report);
    timeout(format!(
        "fewer than {w} of {n} replicas confirmed in time; {fate}"
    ))
    .with_members(|object| report.write(object))
}

/// Too many replicas refused, most of them for this reason.
pub(super) fn refused(
    refusal: Refusal,
    (key, content): (&Key, &Content),
    report: WriteReport<'_>,
) -> Problem {
    let (n, w) = (report.quorum.n, report.quorum.w);
    let fate = fate(&report);
    let problem = match refusal {
        Refusal::Full => Problem::new(
            &STORAGE_FULL,
            format!(
                "so many of the {n} replicas have no room that {w} can no longer confirm; {fate}"
            ),
        ),
        Refusal::TooLarge { value_bytes_max } => value_too_large(value_bytes_max as usize),
        Refusal::KeyTooLong { .. } | Refusal::HasNul => not_carried(refusal, key, Some(content)),
        Refusal::Unstated => quorum_unreachable(format!(
            "so many of the {n} replicas answered that they failed that {w} can no longer \
             confirm; they speak DKVS/1, which gives no reason: they may have no room, or \
             have stored it all the same; {fate}"
        )),
        Refusal::NoDeletion => no_deletion(),
        // Another value was sent under the tag of one that replicas hold.
        Refusal::TagTaken => Problem::new(
            &TAG_CONFLICT,
            "replicas hold another value under this tag; a tag repeats the write that had it, with \
             the same value and content type, and no other: leave the tag out",
        ),
        _ => quorum_unreachable(format!(
            "so many of the {n} replicas refused that {w} can no longer confirm; their \
             reasons stand with each; {fate}"
        )),
    };
    problem.with_members(|object| report.write(object))
}

/// The write met something newer and does not count as done. It was sent again, and no replica holds
/// it, or too few; or the newer record came by DKVS/1.
pub(super) fn superseded(is_resubmission: bool, report: WriteReport<'_>) -> Problem {
    let (n, w) = (report.quorum.n, report.quorum.w);
    let detail = if !is_resubmission {
        format!(
            "so many of the {n} replicas hold a record that came by DKVS/1, which may be newer, \
             that {w} can no longer confirm this one; whether it is on others is not known: to \
             write it now, send it again"
        )
    } else if report.consistency == Level::Linearizable {
        format!(
            "{w} or more of the {n} replicas hold a newer value, and none holds this one under \
             its tag; whether it was there before is not known: to write it now, leave the tag \
             out"
        )
    } else {
        format!(
            "so many of the {n} replicas hold a newer value that {w} can no longer confirm this \
             one under its tag; whether it was there before is not known: to write it now, \
             leave the tag out"
        )
    };
    Problem::new(&SUPERSEDED, detail).with_members(|object| report.write(object))
}

/// What became of the value, as a clause.
fn fate(report: &WriteReport<'_>) -> &'static str {
    match report.outcome {
        Applied::NotApplied => "the value is on none of them",
        Applied::Committed | Applied::Unknown => {
            "the value may be on some of them and may surface later"
        }
    }
}

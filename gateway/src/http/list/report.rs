//! What each server had to say to a list, and how lists fail.

use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::list::{List, ListOutcome, ListServerState};
use dkvs_common::view::ClusterView;
use serde::Serialize;

use crate::http::client_error::not_supported;
use crate::http::problem::Problem;
use crate::http::quorum_problem;
use crate::http::report::reason_of;

/// How each server answered.
#[derive(Serialize)]
pub(super) struct ListReport<'a> {
    servers: Vec<ListedServer<'a>>,
}

#[derive(Serialize)]
struct ListedServer<'a> {
    server: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> ListReport<'a> {
    pub(super) fn new(view: &'a ClusterView, list: &List) -> Self {
        let server = |(server, standing)| {
            let mut reason = None;
            let status = match standing {
                Some(ListServerState::Answered) => "answered",
                Some(ListServerState::Incomplete) => "incomplete",
                Some(ListServerState::Refused(refusal)) => {
                    reason = Some(reason_of(refusal));
                    "refused"
                }
                Some(ListServerState::Unreachable) => "unreachable",
                Some(ListServerState::TimedOut) => "timeout",
                None => "pending",
            };
            ListedServer {
                server: view.name(server),
                status,
                reason,
            }
        };
        Self {
            servers: list.standings().map(server).collect(),
        }
    }
}

/// Fails unless there is a list.
pub(super) fn check(view: &ClusterView, list: &List, silent_max: usize) -> Result<(), Problem> {
    let report = ListReport::new(view, list);
    Err(match list.outcome() {
        Some(ListOutcome::Listed) => return Ok(()),
        Some(ListOutcome::Unreachable) => {
            let speaks_v1 = |standing| standing == Some(ListServerState::Refused(Refusal::NotV2));
            let standings = list.standings().map(|(_, standing)| standing);
            let is_for_good = standings.filter(|it| speaks_v1(*it)).count() > silent_max;
            match is_for_good {
                true => speaks_v1_only(report),
                false => unreachable(report),
            }
        }
        Some(ListOutcome::TimedOut) | None => timed_out(report),
    })
}

fn unreachable(report: ListReport<'_>) -> Problem {
    let detail = "so many servers cannot be asked that keys might be missing from the list";
    quorum_problem::quorum_unreachable(detail).with(report)
}

fn timed_out(report: ListReport<'_>) -> Problem {
    let detail = "too few servers answered in time to tell a single key, or that there is none";
    quorum_problem::timeout(detail).with(report)
}

/// So many servers speak DKVS/1 that there is no list, however well the others do.
fn speaks_v1_only(report: ListReport<'_>) -> Problem {
    not_supported(
        "so many servers speak DKVS/1 only, which cannot list keys, that keys might be missing; \
         they have to speak DKVS/2 for it",
    )
    .with(report)
}

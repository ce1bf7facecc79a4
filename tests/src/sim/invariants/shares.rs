//! Whoever is refused for want of a place has requests in flight, or all places are taken; and what
//! ends before its deadline is decided, and says of no replica that it let the deadline pass.

use dkvs_client::core::AdmissionError;
use dkvs_common::quorum::tally::{Replica, ReplicaState};

use super::Violation;
use crate::sim::moment::Moment;
use crate::sim::request::{Answer, Refused, Response};

/// An answer came now. Gives whether replicas are pending in it.
pub fn check(answer: &Answer, now: Moment) -> Result<bool, Violation> {
    if let Some(refused) = &answer.refused {
        check_refused(refused)?;
    }
    let (is_decided, [is_open, has_timed_out]) = match &answer.response {
        Response::Read(read) => (read.outcome().is_some(), silent(read.replicas())),
        Response::Write(write, _) => (write.outcome().is_some(), silent(write.replicas())),
        Response::WriteIf(_) | Response::NotBegun => return Ok(false),
    };
    if now >= answer.deadline || (is_decided && !has_timed_out) {
        return Ok(is_open);
    }
    let (number, deadline) = (answer.operation, answer.deadline);
    let what = match is_decided {
        true => "with a replica that timed out",
        false => "without an outcome",
    };
    let what = format!("operation {number} ended at {now} {what}, and had until {deadline}");
    Err(Violation::new("shares", what))
}

/// Whether replicas are pending, and whether any has timed out.
fn silent<A>(replicas: &[Replica<A>]) -> [bool; 2] {
    let states = || replicas.iter().map(|replica| &replica.state);
    [
        states().any(|state| matches!(state, ReplicaState::Pending)),
        states().any(|state| matches!(state, ReplicaState::TimedOut)),
    ]
}

/// Whether so many are all that a caller gets. All that are in flight may be undecided, or fewer.
fn is_share(held: usize, refused: &Refused) -> bool {
    let has_first = held >= (refused.places / 64).max(1);
    let free_min = refused.places.saturating_sub(refused.all);
    let beyond_reserve_min = free_min.saturating_sub(refused.places.div_ceil(8));
    has_first && held >= 6 * beyond_reserve_min
}

fn check_refused(refused: &Refused) -> Result<(), Violation> {
    let is_right = match refused.error {
        AdmissionError::ShareTaken { held, max } => {
            held <= refused.own && max == refused.places && is_share(held, refused)
        }
        AdmissionError::Overloaded { .. } => refused.all >= refused.places,
        _ => true,
    };
    match is_right {
        true => Ok(()),
        false => {
            let what = format!("without a reason: {refused:?}");
            Err(Violation::new("shares", what))
        }
    }
}

//! How many lists a worker carries out at a time.
//!
//! A list asks every server, and each for several pages, so it costs far more than a read. Their
//! number is limited, and of it the number of each caller's. When there are as many as may be, whoever has
//! most of them loses the newest to whoever would have fewer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use dkvs_client::CallerId;

use crate::http::client_error::overloaded;
use crate::http::counts::Counts;
use crate::http::fair::{FairSlot, FairSlots, NoSlot};
use crate::http::problem::{Problem, ProblemType};

/// Most lists that a worker carries out at a time.
const LISTS_MAX: usize = 16;

/// Most of them that are one caller's.
const LISTS_PER_CALLER_MAX: usize = 4;

const TOO_MANY_LISTS: ProblemType = ProblemType {
    status: StatusCode::TOO_MANY_REQUESTS,
    name: "too-many-lists",
    title: "The caller lists too much at a time",
};

/// The lists that one worker carries out: none yet.
pub(crate) fn lists_in_flight() -> FairSlots {
    FairSlots::new(LISTS_MAX, LISTS_PER_CALLER_MAX)
}

/// Begins a list of this caller.
///
/// # Errors
///
/// If it is one too many.
pub(super) fn begin(
    lists: &Arc<FairSlots>,
    caller: CallerId,
    counts: &Counts,
) -> Result<FairSlot, Problem> {
    lists.take(caller).map_err(|no_slot| match no_slot {
        NoSlot::OfCaller => {
            counts
                .lists_refused_of_caller
                .fetch_add(1, Ordering::Relaxed);
            let reason = format!("{LISTS_PER_CALLER_MAX} lists of this caller are in flight");
            too_many(&reason)
        }
        NoSlot::Full => {
            counts.lists_refused.fetch_add(1, Ordering::Relaxed);
            overloaded("too many lists are in flight")
        }
    })
}

/// A list that had begun has lost its slot to another caller.
pub(super) fn displaced(counts: &Counts) -> Problem {
    counts.lists_displaced.fetch_add(1, Ordering::Relaxed);
    too_many("too many lists are in flight, and this caller has most of them")
}

fn too_many(reason: &str) -> Problem {
    let detail = format!("{reason}; the next one has to wait for one of them to be answered");
    Problem::new(&TOO_MANY_LISTS, detail)
        .with_retry_after()
        .marked_as_overload()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_lists_at_a_time_and_every_other_has_one() {
        let (lists, counts) = (Arc::new(lists_in_flight()), Counts::new());
        let caller = CallerId::Token;
        let begin = |number| begin(&lists, caller(number), &counts).map_err(|it| it.status());
        let mut held = Vec::new();
        for number in 0..4 {
            for _ in 0..LISTS_PER_CALLER_MAX {
                held.push(begin(number).unwrap());
            }
            assert_eq!(begin(number).err(), Some(429));
        }
        // Those who have none each get one of those of others.
        held.extend((4..LISTS_MAX as u64).map(|number| begin(number).unwrap()));
        assert_eq!(begin(LISTS_MAX as u64).err(), Some(503));
        let refused = [&counts.lists_refused_of_caller, &counts.lists_refused];
        assert_eq!(refused.map(|count| count.load(Ordering::Relaxed)), [4, 1]);
    }
}

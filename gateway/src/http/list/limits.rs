//! How many lists a worker carries out at a time.
//!
//! A list asks every server, and each for several pages, so it costs far more than a read. Their
//! number is limited, and of it the number of each caller's; the last are for callers who have none.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use dkvs_client::CallerId;

use crate::http::client_error::overloaded;
use crate::http::counts::Counts;
use crate::http::problem::{Problem, ProblemType};

/// Most lists that a worker carries out at a time.
const LISTS_MAX: usize = 16;

/// Most of them that are one caller's.
const LISTS_PER_CALLER_MAX: usize = 4;

/// How many of them are kept for callers who have none.
const LISTS_RESERVED: usize = 4;

const TOO_MANY_LISTS: ProblemType = ProblemType {
    status: StatusCode::TOO_MANY_REQUESTS,
    name: "too-many-lists",
    title: "The caller lists too much at a time",
};

/// The lists that one worker carries out.
#[derive(Default)]
pub(crate) struct ListsInFlight(Mutex<HashMap<CallerId, usize>>);

/// A list that is carried out, until the value goes.
pub(super) struct ListPermit {
    of: Arc<ListsInFlight>,
    caller: CallerId,
}

impl ListsInFlight {
    /// Begins a list of this caller.
    ///
    /// # Errors
    ///
    /// If it is one too many.
    pub(super) fn begin(
        self: &Arc<Self>,
        caller: CallerId,
        counts: &Counts,
    ) -> Result<ListPermit, Problem> {
        let mut callers = self.callers();
        // No more callers than lists.
        let held = callers.get(&caller).copied().unwrap_or(0);
        if held >= LISTS_PER_CALLER_MAX {
            counts
                .lists_refused_of_caller
                .fetch_add(1, Ordering::Relaxed);
            return Err(too_many());
        }
        let reserved = if held > 0 { LISTS_RESERVED } else { 0 };
        if callers.values().sum::<usize>() >= LISTS_MAX - reserved {
            counts.lists_refused.fetch_add(1, Ordering::Relaxed);
            return Err(overloaded("too many lists are in flight"));
        }
        *callers.entry(caller).or_insert(0) += 1;
        Ok(ListPermit {
            of: Arc::clone(self),
            caller,
        })
    }

    /// A panic while it was locked leaves no number half changed.
    fn callers(&self) -> MutexGuard<'_, HashMap<CallerId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ListPermit {
    fn drop(&mut self) {
        let mut callers = self.of.callers();
        if let Some(lists) = callers.get_mut(&self.caller) {
            *lists -= 1;
            if *lists == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

fn too_many() -> Problem {
    let detail = format!(
        "{LISTS_PER_CALLER_MAX} lists of this caller are in flight; the next one has to wait for one of \
         them to be answered; nothing was sent to any server"
    );
    Problem::new(&TOO_MANY_LISTS, detail)
        .with_retry_after()
        .marked_as_overload()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_lists_at_a_time_and_all_together_so_many() {
        let (lists, counts) = (Arc::new(ListsInFlight::default()), Counts::new());
        let caller = CallerId::Token;
        let status = |begun: Result<ListPermit, Problem>| begun.map_err(|it| it.status()).err();
        let mut permits = Vec::new();
        for number in 0..3 {
            for _ in 0..LISTS_PER_CALLER_MAX {
                permits.push(lists.begin(caller(number), &counts).unwrap());
            }
            assert_eq!(status(lists.begin(caller(number), &counts)), Some(429));
        }
        // What is left is for the first lists of others.
        for number in 3..3 + LISTS_RESERVED as u64 {
            permits.push(lists.begin(caller(number), &counts).unwrap());
            assert_eq!(status(lists.begin(caller(number), &counts)), Some(503));
        }
        assert_eq!(permits.len(), LISTS_MAX);
        assert_eq!(status(lists.begin(caller(9), &counts)), Some(503));
        let refused = (&counts.lists_refused_of_caller, &counts.lists_refused);
        let refused = [refused.0, refused.1].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(refused, [3, 5]);
        permits.pop();
        permits.push(lists.begin(caller(9), &counts).unwrap());
        assert_eq!(status(lists.begin(caller(9), &counts)), Some(503));
        permits.clear();
        assert!(
            lists.callers().is_empty(),
            "nothing is kept of callers who have gone"
        );
    }
}

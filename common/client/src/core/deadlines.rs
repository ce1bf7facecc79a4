//! When requests end at the latest.
//!
//! Most requests wait equally long, so those that do stand in a queue, and the first of a queue is
//! the next of it to end. A timer of the runtime for each request would cost a system call each.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The deadlines of requests named by `I`.
pub(super) struct Deadlines<I> {
    queues: BTreeMap<Duration, VecDeque<(Instant, I)>>,
}

impl<I> Default for Deadlines<I> {
    fn default() -> Self {
        Self {
            queues: BTreeMap::new(),
        }
    }
}

/// How many entries of requests that have ended are dropped for each that is entered, at most: so
/// a queue is never much longer than what is in flight.
const DROPPED_AT_ONCE: usize = 4;

impl<I: Copy> Deadlines<I> {
    /// Enters a request that began at `now`. `is_in_flight` returns whether another one still is.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        deadline: Instant,
        request: I,
        is_in_flight: impl Fn(I) -> bool,
    ) {
        let timeout = deadline.saturating_duration_since(now);
        // Timeouts are whole milliseconds but for the time since the request began.
        let class = Duration::from_millis(timeout.as_millis() as u64);
        let queue = self.queues.entry(class).or_default();
        for _ in 0..DROPPED_AT_ONCE {
            match queue.front() {
                Some((_, first)) if !is_in_flight(*first) => drop(queue.pop_front()),
                _ => break,
            }
        }
        queue.push_back((deadline, request));
    }

    /// The next request whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<I> {
        let due = |queue: &VecDeque<(Instant, I)>| {
            let first = queue.front();
            first.is_some_and(|(deadline, _)| *deadline <= now)
        };
        let (class, queue) = self.queues.iter_mut().find(|(_, queue)| due(queue))?;
        let first = queue.pop_front().map(|(_, request)| request);
        if queue.is_empty() {
            let class = *class;
            self.queues.remove(&class);
        }
        first
    }

    /// No deadline is before this.
    pub(super) fn next(&self) -> Option<Instant> {
        let fronts = self.queues.values().filter_map(VecDeque::front);
        fronts.map(|(deadline, _)| *deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start_of_time;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn requests_come_due_at_their_deadlines_whatever_their_timeouts() {
        let now = start_of_time();
        let mut deadlines = Deadlines::default();
        for (request, timeout) in [(1, 1_000), (2, 50), (3, 1_000), (4, 7)] {
            deadlines.insert(now, now + timeout * MS, request, |_| true);
        }
        assert_eq!(deadlines.next(), Some(now + 7 * MS));
        assert_eq!(deadlines.pop_due(now + 6 * MS), None);
        assert_eq!(deadlines.pop_due(now + 7 * MS), Some(4));
        assert_eq!(deadlines.next(), Some(now + 50 * MS));
        let mut rest: Vec<i32> =
            std::iter::from_fn(|| deadlines.pop_due(now + 1_000 * MS)).collect();
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 3]);
        assert_eq!(deadlines.next(), None);
        assert!(deadlines.queues.is_empty());
    }

    #[test]
    fn what_has_ended_does_not_pile_up() {
        let now = start_of_time();
        let mut deadlines = Deadlines::default();
        for request in 0..10_000 {
            let start = now + request * Duration::from_micros(10);
            deadlines.insert(start, start + 1_000 * MS, request, |other| {
                other + 10 > request
            });
        }
        let held: usize = deadlines.queues.values().map(VecDeque::len).sum();
        assert!(held <= 20, "{held}");
    }
}

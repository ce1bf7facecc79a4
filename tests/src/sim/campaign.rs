//! Many worlds, one after the other on each of several threads.
//!
//! The outcome of a seed does not depend on the others, nor on the number of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use super::execution::{Outcome, run};
use super::invariants::Violation;
use super::options::Options;
use super::statistics::Statistics;

/// Which worlds to run, and for how long.
#[derive(Debug, Clone)]
pub struct Campaign {
    pub seeds: Range<u64>,
    pub jobs: usize,
    pub options: Options,
    /// No seed is begun after this, once so many are done.
    pub ends: Option<(Instant, u64)>,
    /// No seed is begun after so many violations.
    pub violations_max: usize,
}

/// The outcome of all worlds together.
#[derive(Debug, Default)]
pub struct Totals {
    pub statistics: Statistics,
    /// One number for all that happened, in whatever order the worlds were run.
    pub hash: u64,
    pub violations: Vec<(u64, Violation)>,
}

impl Campaign {
    /// All of these seeds.
    pub fn of(seeds: Range<u64>, jobs: usize) -> Self {
        Self {
            seeds,
            jobs,
            options: Options::default(),
            ends: None,
            violations_max: usize::MAX,
        }
    }

    /// Runs them. Calls `progress` after each world with the totals and the violation, if any.
    pub fn run(&self, mut progress: impl FnMut(&Totals, Option<&(u64, Violation)>)) -> Totals {
        let next = AtomicU64::new(self.seeds.start);
        let (done, results) = channel();
        let mut totals = Totals::default();
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                let (next, done) = (&next, done.clone());
                scope.spawn(move || {
                    while let Some(seed) = self.take(next) {
                        if done.send((seed, run(seed, &self.options))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            self.gather(results, &next, &mut totals, &mut progress);
        });
        totals.violations.sort_by_key(|(seed, _)| *seed);
        totals
    }

    fn take(&self, next: &AtomicU64) -> Option<u64> {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let begun = seed.saturating_sub(self.seeds.start);
        let is_over = |(end, least): (Instant, u64)| begun >= least && Instant::now() >= end;
        let is_next = seed < self.seeds.end && !self.ends.is_some_and(is_over);
        is_next.then_some(seed)
    }

    fn gather(
        &self,
        results: Receiver<(u64, Outcome)>,
        next: &AtomicU64,
        totals: &mut Totals,
        progress: &mut impl FnMut(&Totals, Option<&(u64, Violation)>),
    ) {
        for (seed, outcome) in results {
            totals.statistics.merge(&outcome.statistics);
            totals.hash = totals.hash.wrapping_add(outcome.hash);
            let violated = outcome.violation.map(|violation| (seed, violation));
            progress(totals, violated.as_ref());
            totals.violations.extend(violated);
            if totals.violations.len() >= self.violations_max {
                next.store(self.seeds.end, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_do_not_depend_on_the_number_of_threads() {
        let one = Campaign::of(0..6, 1).run(|_, _| {});
        let two = Campaign::of(0..6, 3).run(|_, _| {});
        assert_eq!(one.hash, two.hash);
        assert_eq!(one.statistics, two.statistics);
        assert_eq!(one.statistics.worlds, 6);
    }
}

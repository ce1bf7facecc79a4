//! How often something took how long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest of each bucket but the last, in microseconds: from what a round trip on one machine
/// takes to the longest that a request may.
const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Counts of durations. One thread adds to it and any may read it.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one more.
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // In nanoseconds, so that what is a little longer than a bound does not count as short.
        let bucket = BOUNDS_US.partition_point(|bound| bound * 1_000 < ns);
        add(&self.counts[bucket], 1);
        add(&self.sum_ns, ns);
    }

    /// Whether anything was counted.
    pub fn is_empty(&self) -> bool {
        let mut counts = self.counts.iter();
        counts.all(|count| count.load(Ordering::Relaxed) == 0)
    }
}

/// How often something was how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The longest of each bucket, ascending, in the family's unit; the last is infinite.
    pub bounds: Vec<f64>,
    /// How often each bucket was met, not counting those below.
    pub counts: Vec<u64>,
    /// All of them together, in the family's unit.
    pub sum: f64,
}

/// Adds to what this thread alone adds to, which takes no locked instruction.
fn add(count: &AtomicU64, more: u64) {
    let count_now = count.load(Ordering::Relaxed);
    count.store(count_now.wrapping_add(more), Ordering::Relaxed);
}

/// All that several have counted, in seconds.
pub fn sum<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Distribution {
    let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6);
    let mut counts = vec![0; BUCKETS];
    let mut sum_ns: u64 = 0;
    for histogram in histograms {
        for (count, more) in counts.iter_mut().zip(&histogram.counts) {
            *count += more.load(Ordering::Relaxed);
        }
        sum_ns = sum_ns.saturating_add(histogram.sum_ns.load(Ordering::Relaxed));
    }
    Distribution {
        bounds: bounds.chain([f64::INFINITY]).collect(),
        counts,
        sum: sum_ns as f64 / 1e9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        assert!(histogram.is_empty());
        for ns in [0, 50_000, 50_001, 30_000_000_000, 30_000_000_001] {
            histogram.observe(Duration::from_nanos(ns));
        }
        assert!(!histogram.is_empty());
        let counted = sum([&histogram]);
        assert_eq!(counted.counts[..3], [2, 1, 0]);
        assert_eq!(counted.counts[17..], [1, 1]);
        assert_eq!(
            (counted.bounds[0], counted.bounds[18]),
            (5e-5, f64::INFINITY)
        );
        assert!(
            (counted.sum - 60.000_100_002).abs() < 1e-9,
            "{}",
            counted.sum
        );
    }

    #[test]
    fn several_are_added_up() {
        let histograms = [Histogram::default(), Histogram::default()];
        histograms[0].observe(Duration::from_millis(1));
        histograms[1].observe(Duration::from_millis(1));
        let counted = sum(&histograms);
        assert_eq!(counted.counts[4], 2);
        assert!((counted.sum - 0.002).abs() < 1e-9);
    }
}

//! Latencies, counted in buckets.
//!
//! The buckets are log-linear: each power of two is divided into [`PARTS`] equal ones, so a value
//! is known to within 1 in 256 whatever its size, and recording is an addition.

use std::time::Duration;

const PARTS_BITS: u32 = 7;
const PARTS: u64 = 1 << PARTS_BITS;
const BUCKETS: usize = ((64 - PARTS_BITS + 1) as usize) << PARTS_BITS;

/// Counts of durations by their nanoseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            count: 0,
        }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
    }

    /// Counts what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
    }

    /// How many durations it has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `share` of the durations do not exceed, in microseconds; 0 of none.
    pub fn percentile_us(&self, share: f64) -> f64 {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(bucket) / 1_000.0;
            }
        }
        0.0
    }
}

fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < PARTS {
        return nanoseconds as usize;
    }
    let shift = nanoseconds.ilog2() - PARTS_BITS;
    let part = (nanoseconds >> shift) - PARTS;
    ((u64::from(shift) + 1) * PARTS + part) as usize
}

/// The middle of a bucket's durations, in nanoseconds.
fn middle(bucket: usize) -> f64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    match power.checked_sub(1) {
        None => part as f64,
        Some(shift) => ((PARTS + part) as f64 + 0.5) * (shift as f64).exp2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_tests::random::Random;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut random = Random::new(5);
        // Spread over ten powers of two, as latencies are.
        let mut durations: Vec<u64> = (0..10_000)
            .map(|_| (random.number() % 1_000_000) >> random.below(10))
            .collect();
        let mut histogram = Histogram::default();
        for nanoseconds in &durations {
            histogram.record(Duration::from_nanos(*nanoseconds));
        }
        durations.sort_unstable();
        for share in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = (durations.len() as f64 * share).ceil() as usize;
            let (estimate, exact) = (
                histogram.percentile_us(share),
                durations[rank - 1] as f64 / 1e3,
            );
            assert!(
                (estimate - exact).abs() <= exact / 256.0 + 0.001,
                "{share}: {estimate}, not {exact}"
            );
        }
    }

    #[test]
    fn every_duration_has_a_bucket() {
        for nanoseconds in [0, 1, 127, 128, 129, 255, 256, u64::MAX - 1, u64::MAX] {
            let bucket = bucket(nanoseconds);
            assert!(bucket < BUCKETS);
            let off = (middle(bucket) - nanoseconds as f64).abs();
            assert!(off <= nanoseconds as f64 / 256.0, "{nanoseconds}");
        }
        for nanoseconds in 1..100_000 {
            let step = bucket(nanoseconds) - bucket(nanoseconds - 1);
            assert!(step <= 1, "a bucket is skipped at {nanoseconds}");
        }
    }

    #[test]
    fn two_added_are_as_one() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        (1..=50).for_each(|us| low.record(Duration::from_micros(us)));
        (51..=100).for_each(|us| high.record(Duration::from_micros(us)));
        low.add(&high);
        assert!((low.percentile_us(0.5) - 50.0).abs() < 0.5);
        assert!((low.percentile_us(1.0) - 100.0).abs() < 0.5);
        assert_eq!(Histogram::default().percentile_us(0.99), 0.0);
    }
}

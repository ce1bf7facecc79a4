//! What several rounds say together.

/// The middle of some values, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of the values are no greater, half are no less.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// None of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted.get(middle.checked_sub(1)?)? + sorted[middle]) / 2.0,
        };
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

/// Each value over the one of the same round on the other side. A round that one side lacks, or
/// in which the other side did nothing, says nothing.
pub fn ratios(ours: &[f64], others: &[f64]) -> Vec<f64> {
    let pairs = ours.iter().zip(others).filter(|(_, other)| **other > 0.0);
    pairs.map(|(ours, other)| ours / other).collect()
}

/// Each value less the one of the same round on the other side.
pub fn differences(ours: &[f64], others: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(others)
        .map(|(ours, other)| ours - other)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        let spread = |values| Spread::of(values).unwrap();
        let odd = spread(&[5.0, 1.0, 3.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 3.0, 5.0));
        let even = spread(&[4.0, 1.0, 2.0, 100.0]);
        assert_eq!((even.min, even.median, even.max), (1.0, 3.0, 100.0));
        assert_eq!(spread(&[7.0]).median, 7.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn sides_are_compared_round_by_round() {
        // The ratio of the medians would be 1: each round says 2.
        let (ours, others) = ([20.0, 2.0, 8.0], [10.0, 1.0, 4.0]);
        assert_eq!(ratios(&ours, &others), [2.0, 2.0, 2.0]);
        assert_eq!(ratios(&[1.0, 1.0], &[0.0, 4.0]), [0.25]);
        assert_eq!(differences(&ours, &others), [10.0, 1.0, 4.0]);
    }
}

//! Parts of metric families.

use dkvs_runtime::metrics::page::{Labels, Number, Samples};

/// Labels with these names and values.
pub(super) fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    let labels = labels.into_iter();
    labels
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// A family of one gauge without labels.
pub(super) fn gauge(level: impl TryInto<u64>) -> Samples {
    let level = level.try_into().unwrap_or(u64::MAX);
    Samples::Gauge(vec![(Labels::new(), Number::Whole(level))])
}

/// A family of one counter without labels.
pub(super) fn counter(count: u64) -> Samples {
    Samples::Counter(vec![(Labels::new(), Number::Whole(count))])
}

//! Counts and sizes: the response to `GetStatistics`.

use std::time::Instant;

use super::replica::Replica;
use crate::statistics::report;

impl Replica {
    /// The numbers that the server reports of itself, by the byte of their
    /// [`Statistic`](dkvs_common::model::Statistic).
    pub(crate) fn statistics(&self, now: Instant) -> Vec<(u8, u64)> {
        let uploads = self.uploads().report();
        report(
            &self.store,
            self.leaf_sums.as_deref(),
            &self.counters,
            uploads,
            now,
        )
    }
}

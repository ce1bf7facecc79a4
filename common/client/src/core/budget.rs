//! The memory that long values on their way may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are taken before they are used, and given back when the permit is dropped. Clones are
/// handles to the same budget. Counted in whole kibibytes.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    available_kibibytes: Arc<AtomicUsize>,
    total_kibibytes: usize,
}

/// Stands for bytes of a budget for as long as it lives.
#[derive(Debug)]
pub struct MemoryPermit {
    available_kibibytes: Arc<AtomicUsize>,
    kibibytes: usize,
}

impl MemoryBudget {
    /// A budget of which nothing is taken.
    pub fn new(bytes: usize) -> Self {
        let total_kibibytes = bytes >> 10;
        Self {
            available_kibibytes: Arc::new(AtomicUsize::new(total_kibibytes)),
            total_kibibytes,
        }
    }

    /// Takes `bytes`, or nothing if there are not as many left.
    pub fn take(&self, bytes: usize) -> Option<MemoryPermit> {
        let kibibytes = bytes.div_ceil(1 << 10);
        let available = &self.available_kibibytes;
        let take = |left: usize| left.checked_sub(kibibytes);
        let taken = available.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.is_ok().then(|| MemoryPermit {
            available_kibibytes: Arc::clone(available),
            kibibytes,
        })
    }

    /// How many bytes are taken.
    pub fn taken_bytes(&self) -> usize {
        let available = self.available_kibibytes.load(Ordering::Relaxed);
        self.total_kibibytes.saturating_sub(available) << 10
    }
}

impl MemoryPermit {
    /// Makes two permits of one budget one.
    pub fn merge(&mut self, mut other: Self) {
        self.kibibytes += std::mem::take(&mut other.kibibytes);
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.available_kibibytes
            .fetch_add(self.kibibytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_once_whatever_was_merged() {
        let budget = MemoryBudget::new(10 << 10);
        let mut permit = budget.take(3_000).unwrap();
        assert_eq!(budget.taken_bytes(), 3 << 10);
        permit.merge(budget.take(7 << 10).unwrap());
        assert_eq!(budget.taken_bytes(), 10 << 10);
        assert!(budget.take(1).is_none());
        assert!(budget.take(0).is_some());
        drop(permit);
        assert_eq!(budget.taken_bytes(), 0);
        assert!(budget.take((10 << 10) + 1).is_none());
        assert!(budget.take(10 << 10).is_some());
    }
}

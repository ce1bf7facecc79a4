//! How far a durable store has come.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::contract::Progress;

/// How far the log of a store has come.
#[derive(Debug, Default)]
pub(super) struct LogPosition {
    lineage: AtomicU64,
    start: AtomicU64,
    sequence: AtomicU64,
}

impl LogPosition {
    /// The store is opened, and the last record has this number.
    pub(super) fn begin(&self, lineage: u64, last: u64) {
        self.lineage.store(lineage, Ordering::Release);
        self.start.store(last, Ordering::Release);
        self.sequence.store(last, Ordering::Release);
    }

    /// All up to this record is on the disk for certain.
    pub(super) fn note_synced(&self, last: u64) {
        self.sequence.fetch_max(last, Ordering::AcqRel);
    }

    /// The disk has it that the store lost something, and is of another lineage.
    pub(super) fn note_lineage(&self, lineage: u64) {
        self.lineage.store(lineage, Ordering::Release);
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            lineage: self.lineage.load(Ordering::Acquire),
            start: self.start.load(Ordering::Acquire),
            sequence: self.sequence.load(Ordering::Acquire),
        }
    }
}

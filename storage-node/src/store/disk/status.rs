//! The state of a durable store and of its disk, as statistics show it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The state of a store and of its disk. Written by the committer, read by anyone.
#[derive(Default)]
pub(super) struct Status {
    pub(super) is_complete: AtomicBool,
    pub(super) is_read_only: AtomicBool,
    pub(super) is_disk_full: AtomicBool,
    pub(super) log_bytes: AtomicU64,
    pub(super) disk_bytes: AtomicU64,
    pub(super) disk_available_bytes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) last_commit: Mutex<Option<Instant>>,
}

/// The state of a durable store and of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStatus {
    /// Whether it holds all that it ever confirmed; see the [module](super).
    pub is_complete: bool,
    /// Whether the disk failed, so that nothing more is stored.
    pub is_read_only: bool,
    /// Whether the disk had no room when something was to be stored last.
    pub is_disk_full: bool,
    /// What the rows of the log take, in bytes.
    pub log_bytes: u64,
    /// What its file takes of the disk, in bytes.
    pub disk_bytes: u64,
    /// What the disk has left, in bytes.
    pub disk_available_bytes: u64,
    /// Commits since the start.
    pub commits: u64,
    /// How long all of them took together.
    pub commit_time: Duration,
    /// Bytes of records appended since the start, those that compaction moved not counted.
    pub written_bytes: u64,
    /// Records that wait to be synced.
    pub waiting: usize,
    /// When the last commit was synced.
    pub last_commit: Option<Instant>,
}

impl Status {
    /// The state now, while so many records wait to be synced.
    pub(super) fn report(&self, waiting: usize) -> DiskStatus {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let last_commit = self.last_commit.lock();
        DiskStatus {
            is_complete: self.is_complete.load(Ordering::Relaxed),
            is_read_only: self.is_read_only.load(Ordering::Relaxed),
            is_disk_full: self.is_disk_full.load(Ordering::Relaxed),
            log_bytes: number(&self.log_bytes),
            disk_bytes: number(&self.disk_bytes),
            disk_available_bytes: number(&self.disk_available_bytes),
            commits: number(&self.commits),
            commit_time: Duration::from_micros(number(&self.commit_micros)),
            written_bytes: number(&self.written_bytes),
            waiting,
            last_commit: *last_commit.unwrap_or_else(PoisonError::into_inner),
        }
    }
}

//! The state of a durable store and of its disk, as statistics show it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dkvs_log::{RecordSpace, Space};

/// The state of a store and of its disk. Written by the committer, read by anyone.
#[derive(Default)]
pub(super) struct Status {
    pub(super) is_complete: AtomicBool,
    pub(super) is_read_only: AtomicBool,
    pub(super) is_disk_full: AtomicBool,
    pub(super) written_bytes: AtomicU64,
    /// Records that could not be read as they were written, since the start and before it.
    pub(super) damaged: AtomicU64,
    /// Those of them that were written again, replaced or removed since, or can be read again.
    pub(super) mended: AtomicU64,
    pub(super) reads: ReadCounts,
    pub(super) scrub: ScrubCounts,
    commits: AtomicU64,
    commit_micros: AtomicU64,
    last_commit: Mutex<Option<Instant>>,
    quarantined: AtomicI64,
    lost_ranges: AtomicU64,
    space: Mutex<Option<Space>>,
}

/// Reads by where their values were.
#[derive(Default)]
pub(super) struct ReadCounts {
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
}

impl ReadCounts {
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was read again though nobody asked for it.
#[derive(Default)]
pub(super) struct ScrubCounts {
    records: AtomicU64,
    bytes: AtomicU64,
    rounds: AtomicU64,
    last_round: Mutex<Option<Instant>>,
}

impl ScrubCounts {
    pub(super) fn read(&self, bytes: u32) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    pub(super) fn end_round(&self, now: Instant) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let mut last = self
            .last_round
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(now);
    }
}

/// The state of a durable store and of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStatus {
    /// Whether it holds all that it ever confirmed; see the [module](super).
    pub is_complete: bool,
    /// Whether the disk failed, so that nothing more is stored.
    pub is_read_only: bool,
    /// Whether the disk had no room when a value was to be stored last.
    pub is_disk_full: bool,
    /// What the records of the log take that are live, in bytes.
    pub live_bytes: u64,
    /// What those take that are not, in bytes.
    pub dead_bytes: u64,
    /// What is set aside for records that make room, and for compaction, in bytes.
    pub reserved_bytes: u64,
    /// What the log takes of the disk in all, in bytes.
    pub disk_bytes: u64,
    /// What the disk has left, in bytes.
    pub disk_available_bytes: u64,
    /// What compaction copied since the start, in bytes.
    pub compacted_bytes: u64,
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
    /// What values take in memory, in bytes.
    pub cache_bytes: u64,
    /// Reads of values that were in memory, since the start.
    pub cache_hits: u64,
    /// Reads of values that were not, since the start: cold reads.
    pub cold_reads: u64,
    /// Reads that were refused because too many waited for the disk, since the start.
    pub cold_reads_refused: u64,
    /// Reads for which nobody waited any more when their turn came, since the start.
    pub cold_reads_expired: u64,
    /// Reads that wait for the disk.
    pub reads_waiting: usize,
    /// Ranges of records that were found lost at the start.
    pub lost_ranges: u64,
    /// Keys whose records are quarantined.
    pub quarantined: u64,
    /// Records that were found damaged, at the start and since.
    pub damaged: u64,
    /// Those of them that were written again, replaced or removed since, or can be read again.
    pub mended: u64,
    /// Records that were read again though nobody asked for them, since the start.
    pub scrubbed_records: u64,
    /// What these take in the log, in bytes.
    pub scrubbed_bytes: u64,
    /// How often all records were.
    pub scrub_rounds: u64,
    /// When they were last.
    pub last_scrub_round: Option<Instant>,
}

impl Status {
    pub(super) fn opened(&self, quarantined: u64, damaged: u64, lost_ranges: usize) {
        self.quarantine(i64::try_from(quarantined).unwrap_or(i64::MAX));
        self.damaged.store(damaged, Ordering::Relaxed);
        self.lost_ranges
            .store(lost_ranges as u64, Ordering::Relaxed);
    }

    /// So many keys more are quarantined.
    pub(super) fn quarantine(&self, more: i64) {
        self.quarantined.fetch_add(more, Ordering::Relaxed);
    }

    /// A record is replaced or removed, which was damaged or not.
    pub(super) fn mend(&self, is_damaged: bool) {
        self.mended.fetch_add(is_damaged.into(), Ordering::Relaxed);
    }

    pub(super) fn committed(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        let mut last = self
            .last_commit
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
    }

    pub(super) fn note_space(&self, space: &Space) {
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = Some(*space);
    }

    /// The same of what is known without asking the disk. What the log takes in all is as it was.
    pub(super) fn note_records(&self, records: &RecordSpace) {
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = space.as_mut() {
            let taken = space.live + space.dead + space.overhead;
            space.live = records.live;
            space.dead = records.dead;
            space.overhead = taken.saturating_sub(records.live + records.dead);
            space.compacted = records.compacted;
        }
    }

    /// The state now, while so many records wait to be synced.
    pub(super) fn report(&self, waiting: usize) -> DiskStatus {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let last_commit = self.last_commit.lock();
        let last_round = self.scrub.last_round.lock();
        let space = *self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let of_space = |part: fn(&Space) -> u64| space.as_ref().map_or(0, part);
        DiskStatus {
            is_complete: self.is_complete.load(Ordering::Relaxed),
            is_read_only: self.is_read_only.load(Ordering::Relaxed),
            is_disk_full: self.is_disk_full.load(Ordering::Relaxed),
            live_bytes: of_space(|space| space.live),
            dead_bytes: of_space(|space| space.dead),
            reserved_bytes: of_space(|space| space.reserve),
            disk_bytes: of_space(|it| it.live + it.dead + it.overhead + it.reserve),
            disk_available_bytes: of_space(|space| space.available),
            compacted_bytes: of_space(|space| space.compacted),
            commits: number(&self.commits),
            commit_time: Duration::from_micros(number(&self.commit_micros)),
            written_bytes: number(&self.written_bytes),
            waiting,
            last_commit: *last_commit.unwrap_or_else(PoisonError::into_inner),
            cache_bytes: 0,
            cache_hits: number(&self.reads.hits),
            cold_reads: number(&self.reads.misses),
            cold_reads_refused: number(&self.reads.refused),
            cold_reads_expired: number(&self.reads.expired),
            reads_waiting: 0,
            lost_ranges: number(&self.lost_ranges),
            quarantined: u64::try_from(self.quarantined.load(Ordering::Relaxed)).unwrap_or(0),
            damaged: number(&self.damaged),
            mended: number(&self.mended),
            scrubbed_records: number(&self.scrub.records),
            scrubbed_bytes: number(&self.scrub.bytes),
            scrub_rounds: number(&self.scrub.rounds),
            last_scrub_round: *last_round.unwrap_or_else(PoisonError::into_inner),
        }
    }
}

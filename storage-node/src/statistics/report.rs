//! The numbers by their names.

use std::time::Instant;

use dkvs_common::model::Statistic;

use super::counters::Counters;
use crate::leaves::LeafSums;
use crate::store::{RecordStore as _, Store};

/// Uploads since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UploadReport {
    /// Uploads of which a first block was taken.
    pub(crate) begun: u64,
    /// Uploads whose whole value a put took.
    pub(crate) completed: u64,
    /// Uploads dropped because their blocks came too slowly, or not at all.
    pub(crate) expired: u64,
    /// Uploads dropped to make room for those of others who held less.
    pub(crate) displaced: u64,
    /// Blocks refused for want of memory or of places.
    pub(crate) refused_busy: u64,
    /// The memory that the uploads under way have reserved, in bytes.
    pub(crate) bytes_reserved: u64,
}

/// Every number that a server with this store has, by the byte of its [`Statistic`].
pub(crate) fn report(
    store: &Store,
    leaf_sums: Option<&LeafSums>,
    counters: &Counters,
    uploads: UploadReport,
    now: Instant,
) -> Vec<(u8, u64)> {
    [
        (Statistic::Keys, store.len() as u64),
        (Statistic::Bytes, store.bytes() as u64),
        (Statistic::Gets, counters.gets.count()),
        (Statistic::Puts, counters.puts.count()),
        (
            Statistic::PutsRefusedFull,
            counters.puts_refused_full.count(),
        ),
        (Statistic::Malformed, counters.malformed.count()),
        (Statistic::Damaged, counters.damaged.count()),
        (Statistic::Datagrams, counters.datagrams.count()),
        (Statistic::Messages, counters.messages.count()),
        (Statistic::UploadsBegun, uploads.begun),
        (Statistic::UploadsCompleted, uploads.completed),
        (Statistic::UploadsExpired, uploads.expired),
        (Statistic::UploadsDisplaced, uploads.displaced),
        (Statistic::UploadsRefusedBusy, uploads.refused_busy),
        (Statistic::UploadBytesReserved, uploads.bytes_reserved),
        (
            Statistic::ListKeysLeftOut,
            counters.list_keys_left_out.count(),
        ),
        (
            Statistic::ListRecordsExamined,
            counters.list_records_examined.count(),
        ),
        (
            Statistic::ListsRefusedBusy,
            counters.lists_refused_busy.count(),
        ),
        (Statistic::Unauthenticated, counters.unauthenticated.count()),
        (
            Statistic::SessionsRefused,
            counters.sessions_refused.count(),
        ),
        (Statistic::NotGreetings, counters.not_greetings.count()),
        (Statistic::Replayed, counters.replayed.count()),
        (Statistic::Expired, counters.expired.count()),
        (Statistic::V1Refused, counters.v1_refused.count()),
        (Statistic::RepliesTooLong, counters.replies_too_long.count()),
        (
            Statistic::PutsRefusedBusy,
            counters.puts_refused_busy.count(),
        ),
        (Statistic::PutsFailed, counters.puts_failed.count()),
        (Statistic::CorruptAnswers, counters.corrupt_answers.count()),
    ]
    .into_iter()
    .chain(repair_report(leaf_sums, counters))
    .chain(disk_report(store, leaf_sums, now))
    .map(|(name, value)| (name as u8, value))
    .collect()
}

/// How far the server is in step with its peers; nothing where it has none, or pulls nothing.
fn repair_report(leaf_sums: Option<&LeafSums>, counters: &Counters) -> Vec<(Statistic, u64)> {
    let peers = counters.peers.number();
    if peers == 0 {
        return Vec::new();
    }
    vec![
        (Statistic::Peers, peers),
        (Statistic::PeersInStep, counters.peers_in_step.number()),
        (Statistic::Comparisons, counters.comparisons.count()),
        (
            Statistic::LeavesDiffering,
            counters.leaves_differing.count(),
        ),
        (Statistic::RecordsPulled, counters.records_pulled.count()),
        (Statistic::PulledBytes, counters.pulled_bytes.count()),
        (Statistic::PullsFailed, counters.pulls_failed.count()),
        (Statistic::Leaves, leaf_sums.map_or(0, |it| it.len() as u64)),
        (
            Statistic::LeavesIncomplete,
            leaf_sums.map_or(0, |it| it.incomplete() as u64),
        ),
    ]
}

/// The state of a disk; nothing for a store in memory.
fn disk_report(store: &Store, leaf_sums: Option<&LeafSums>, now: Instant) -> Vec<(Statistic, u64)> {
    let Store::Disk(store) = store else {
        return Vec::new();
    };
    let status = store.status();
    let is_complete = store.is_complete() || leaf_sums.is_some_and(LeafSums::is_whole);
    let age = |at: Instant| now.saturating_duration_since(at).as_millis();
    let number = |large: u128| u64::try_from(large).unwrap_or(u64::MAX);
    let numbers = [
        (Statistic::IsReadOnly, status.is_read_only.into()),
        (Statistic::IsDiskFull, status.is_disk_full.into()),
        (Statistic::IsIncomplete, (!is_complete).into()),
        (Statistic::LogBytes, status.live_bytes + status.dead_bytes),
        (Statistic::LiveBytes, status.live_bytes),
        (Statistic::DeadBytes, status.dead_bytes),
        (Statistic::ReservedBytes, status.reserved_bytes),
        (Statistic::CompactedBytes, status.compacted_bytes),
        (Statistic::CacheBytes, status.cache_bytes),
        (Statistic::CacheHits, status.cache_hits),
        (Statistic::ColdReads, status.cold_reads),
        (Statistic::ColdReadsRefused, status.cold_reads_refused),
        (Statistic::ColdReadsExpired, status.cold_reads_expired),
        (Statistic::ReadsWaiting, status.reads_waiting as u64),
        (Statistic::LostRanges, status.lost_ranges),
        (Statistic::QuarantinedKeys, status.quarantined),
        (Statistic::DamagedRecords, status.damaged),
        (Statistic::MendedRecords, status.mended),
        (Statistic::ScrubbedRecords, status.scrubbed_records),
        (Statistic::ScrubbedBytes, status.scrubbed_bytes),
        (Statistic::ScrubRounds, status.scrub_rounds),
        (Statistic::DiskBytes, status.disk_bytes),
        (Statistic::DiskAvailableBytes, status.disk_available_bytes),
        (Statistic::Commits, status.commits),
        (
            Statistic::CommitMicros,
            number(status.commit_time.as_micros()),
        ),
        (Statistic::CommittedBytes, status.written_bytes),
        (Statistic::Waiting, status.waiting as u64),
    ];
    let last = [
        (Statistic::LastCommitAgeMs, status.last_commit),
        (Statistic::LastScrubRoundAgeMs, status.last_scrub_round),
    ];
    let last = last.into_iter();
    let last = last.filter_map(|(name, at)| Some((name, number(age(at?)))));
    numbers.into_iter().chain(last).collect()
}

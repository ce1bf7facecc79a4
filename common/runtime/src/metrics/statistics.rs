//! The numbers of servers, as families: on a server's own page, and on that of a gateway.

use dkvs_common::model::Statistic;

use super::page::{Labels, Number, Page, Samples};

/// A server by its address, and its statistics by number.
pub type ServerNumbers<'a> = (String, &'a [(u8, u64)]);

/// A family, and which statistic is which of its series.
struct Meaning {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    /// The unit of the numbers.
    scale: Scale,
    series: &'static [(Statistic, Label)],
}

/// A label beside the server's, where statistics share a family.
type Label = Option<(&'static str, &'static str)>;

#[derive(Clone, Copy)]
enum Scale {
    One,
    Milli,
    Micro,
}

/// Adds every family. A number that a server does not report has no series.
pub fn push(page: &mut Page, servers: &[ServerNumbers<'_>]) {
    for meaning in MEANINGS {
        let mut series = Vec::new();
        for (server, numbers) in servers {
            for (statistic, label) in meaning.series {
                let number = numbers.iter().find(|(byte, _)| *byte == *statistic as u8);
                let Some((_, number)) = number else { continue };
                let mut labels: Labels = vec![("server", server.clone())];
                labels.extend(label.map(|(name, value)| (name, value.to_owned())));
                series.push((labels, meaning.scale.apply(*number)));
            }
        }
        let samples = match meaning.is_counter {
            true => Samples::Counter(series),
            false => Samples::Gauge(series),
        };
        page.push(meaning.name, meaning.help, samples);
    }
}

impl Scale {
    fn apply(self, number: u64) -> Number {
        match self {
            Self::One => Number::Whole(number),
            Self::Milli => Number::Real(number as f64 / 1e3),
            Self::Micro => Number::Real(number as f64 / 1e6),
        }
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    series: &'static [(Statistic, Label)],
) -> Meaning {
    Meaning {
        name,
        help,
        is_counter: false,
        scale: Scale::One,
        series,
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    series: &'static [(Statistic, Label)],
) -> Meaning {
    Meaning {
        is_counter: true,
        ..gauge(name, help, series)
    }
}

const MEANINGS: &[Meaning] = &[
    gauge(
        "dkvs_server_keys",
        "Records held, tombstones included",
        &[(Statistic::Keys, None)],
    ),
    gauge(
        "dkvs_server_memory_bytes",
        "What the records take of the server's limit",
        &[(Statistic::Bytes, None)],
    ),
    counter(
        "dkvs_server_gets",
        "Gets answered, with a value or without",
        &[(Statistic::Gets, None)],
    ),
    counter(
        "dkvs_server_puts",
        "Puts stored",
        &[(Statistic::Puts, None)],
    ),
    counter(
        "dkvs_server_puts_refused",
        "Puts refused: memory or disk full, too much waiting for the disk, or the disk failed",
        &[
            (Statistic::PutsRefusedFull, Some(("reason", "full"))),
            (Statistic::PutsRefusedBusy, Some(("reason", "busy"))),
            (Statistic::PutsFailed, Some(("reason", "disk_failed"))),
        ],
    ),
    counter(
        "dkvs_server_corrupt_answers",
        "Questions not answered because the record is damaged or may be lost",
        &[(Statistic::CorruptAnswers, None)],
    ),
    counter(
        "dkvs_server_datagrams_received",
        "Datagrams of DKVS/2 that proved whole",
        &[(Statistic::Datagrams, None)],
    ),
    counter(
        "dkvs_server_messages_received",
        "Requests in them that were understood",
        &[(Statistic::Messages, None)],
    ),
    counter(
        "dkvs_server_drops",
        "Datagrams and messages that were not acted on, by cause",
        &[
            (Statistic::Malformed, Some(("cause", "malformed"))),
            (Statistic::Damaged, Some(("cause", "damaged"))),
            (
                Statistic::Unauthenticated,
                Some(("cause", "unauthenticated")),
            ),
            (
                Statistic::SessionsRefused,
                Some(("cause", "session_refused")),
            ),
            (Statistic::NotGreetings, Some(("cause", "no_session"))),
            (Statistic::Replayed, Some(("cause", "replayed"))),
            (Statistic::Expired, Some(("cause", "expired"))),
            (Statistic::V1Refused, Some(("cause", "v1_refused"))),
            (Statistic::RepliesTooLong, Some(("cause", "reply_too_long"))),
        ],
    ),
    counter(
        "dkvs_server_uploads",
        "Uploads of long values: begun, completed, expired because blocks came too slowly or not at \
         all, or displaced by those of others who held less",
        &[
            (Statistic::UploadsBegun, Some(("event", "begun"))),
            (Statistic::UploadsCompleted, Some(("event", "completed"))),
            (Statistic::UploadsExpired, Some(("event", "expired"))),
            (Statistic::UploadsDisplaced, Some(("event", "displaced"))),
        ],
    ),
    counter(
        "dkvs_server_upload_blocks_refused",
        "Blocks refused for want of memory or of places for uploads",
        &[(Statistic::UploadsRefusedBusy, None)],
    ),
    gauge(
        "dkvs_server_upload_reserved_bytes",
        "Memory that the uploads under way have reserved",
        &[(Statistic::UploadBytesReserved, None)],
    ),
    counter(
        "dkvs_server_list_keys_left_out",
        "Keys left out of lists because no datagram holds them",
        &[(Statistic::ListKeysLeftOut, None)],
    ),
    counter(
        "dkvs_server_list_records_examined",
        "Records looked at for lists",
        &[(Statistic::ListRecordsExamined, None)],
    ),
    counter(
        "dkvs_server_lists_refused",
        "Lists refused because too many waited for their turn",
        &[(Statistic::ListsRefusedBusy, None)],
    ),
    gauge(
        "dkvs_server_read_only",
        "1 if the disk has failed and nothing more is stored, else 0",
        &[(Statistic::IsReadOnly, None)],
    ),
    gauge(
        "dkvs_server_disk_full",
        "1 if the disk had no room when something was to be stored last, else 0",
        &[(Statistic::IsDiskFull, None)],
    ),
    gauge(
        "dkvs_server_incomplete",
        "1 if the server does not vouch for all it ever confirmed, else 0",
        &[(Statistic::IsIncomplete, None)],
    ),
    gauge(
        "dkvs_server_log_bytes",
        "What the records of the log take, live or not",
        &[(Statistic::LogBytes, None)],
    ),
    gauge(
        "dkvs_server_log_record_bytes",
        "What the records of the log take: live, the newest of their keys; dead, the others, whose \
         room comes back by compaction",
        &[
            (Statistic::LiveBytes, Some(("state", "live"))),
            (Statistic::DeadBytes, Some(("state", "dead"))),
        ],
    ),
    gauge(
        "dkvs_server_log_reserved_bytes",
        "What is set aside on the disk for deletions and compaction",
        &[(Statistic::ReservedBytes, None)],
    ),
    counter(
        "dkvs_server_compacted_bytes",
        "Bytes of records that compaction copied",
        &[(Statistic::CompactedBytes, None)],
    ),
    gauge(
        "dkvs_server_disk_used_bytes",
        "What the log's files take of the disk",
        &[(Statistic::DiskBytes, None)],
    ),
    gauge(
        "dkvs_server_disk_available_bytes",
        "What the disk has left",
        &[(Statistic::DiskAvailableBytes, None)],
    ),
    counter(
        "dkvs_server_commits",
        "Commits to the disk, each of the puts that came together",
        &[(Statistic::Commits, None)],
    ),
    Meaning {
        scale: Scale::Micro,
        ..counter(
            "dkvs_server_commit_seconds",
            "How long all commits took together, syncing included",
            &[(Statistic::CommitMicros, None)],
        )
    },
    counter(
        "dkvs_server_committed_bytes",
        "Bytes of records in the commits",
        &[(Statistic::CommittedBytes, None)],
    ),
    Meaning {
        scale: Scale::Milli,
        ..gauge(
            "dkvs_server_last_commit_age_seconds",
            "How long ago the last commit was done",
            &[(Statistic::LastCommitAgeMs, None)],
        )
    },
    gauge(
        "dkvs_server_waiting_records",
        "Records that wait for the disk",
        &[(Statistic::Waiting, None)],
    ),
    gauge(
        "dkvs_server_cache_bytes",
        "What values that lie on the disk take in memory",
        &[(Statistic::CacheBytes, None)],
    ),
    counter(
        "dkvs_server_value_reads",
        "Reads of values that lie on the disk, by where they were found: in memory, or there",
        &[
            (Statistic::CacheHits, Some(("from", "memory"))),
            (Statistic::ColdReads, Some(("from", "disk"))),
        ],
    ),
    counter(
        "dkvs_server_cold_reads_dropped",
        "Reads of the disk that were not done: refused because too many waited, or expired since \
         their deadline passed while they waited",
        &[
            (Statistic::ColdReadsRefused, Some(("cause", "busy"))),
            (Statistic::ColdReadsExpired, Some(("cause", "expired"))),
        ],
    ),
    gauge(
        "dkvs_server_waiting_reads",
        "Reads that wait for the disk",
        &[(Statistic::ReadsWaiting, None)],
    ),
    gauge(
        "dkvs_server_lost_ranges",
        "Ranges of records that were found lost when the server was started",
        &[(Statistic::LostRanges, None)],
    ),
    gauge(
        "dkvs_server_quarantined_keys",
        "Keys that are not answered for until another replica says what is newest: a newer record \
         of them may be lost",
        &[(Statistic::QuarantinedKeys, None)],
    ),
    gauge(
        "dkvs_server_damaged_records",
        "Records that were found damaged on the disk",
        &[(Statistic::DamagedRecords, None)],
    ),
    counter(
        "dkvs_server_mended_records",
        "Damaged records that were written again, replaced or removed since, or can be read again",
        &[(Statistic::MendedRecords, None)],
    ),
    counter(
        "dkvs_server_scrubbed_records",
        "Records that were read again though nobody asked for them",
        &[(Statistic::ScrubbedRecords, None)],
    ),
    counter(
        "dkvs_server_scrubbed_bytes",
        "What these records take in the log",
        &[(Statistic::ScrubbedBytes, None)],
    ),
    counter(
        "dkvs_server_scrub_rounds",
        "How often all records were read again",
        &[(Statistic::ScrubRounds, None)],
    ),
    Meaning {
        scale: Scale::Milli,
        ..gauge(
            "dkvs_server_last_scrub_round_age_seconds",
            "How long ago all records had been read again last",
            &[(Statistic::LastScrubRoundAgeMs, None)],
        )
    },
    gauge(
        "dkvs_server_peers",
        "Servers that are replicas of some key beside this one",
        &[(Statistic::Peers, None)],
    ),
    gauge(
        "dkvs_server_peers_in_step",
        "Peers that held the same when the server compared itself with them last",
        &[(Statistic::PeersInStep, None)],
    ),
    counter(
        "dkvs_server_comparisons",
        "Comparisons with peers that came to their end",
        &[(Statistic::Comparisons, None)],
    ),
    counter(
        "dkvs_server_leaves_differing",
        "Leaves in which a peer differed, each time that they were compared",
        &[(Statistic::LeavesDiffering, None)],
    ),
    counter(
        "dkvs_server_records_pulled",
        "Records that the server lacked, pulled from peers and stored",
        &[(Statistic::RecordsPulled, None)],
    ),
    counter(
        "dkvs_server_pulled_bytes",
        "Bytes of keys and values in them",
        &[(Statistic::PulledBytes, None)],
    ),
    counter(
        "dkvs_server_pulls_failed",
        "Records that a peer listed as newer, and did not give, or that could not be stored",
        &[(Statistic::PullsFailed, None)],
    ),
    gauge(
        "dkvs_server_leaves",
        "Leaves of the ring of which the server is a replica",
        &[(Statistic::Leaves, None)],
    ),
    gauge(
        "dkvs_server_leaves_incomplete",
        "Those for whose keys it does not answer, since it may have lost records there",
        &[(Statistic::LeavesIncomplete, None)],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::page::Form;

    #[test]
    fn every_statistic_is_in_one_family_and_none_in_two() {
        let mut shown: Vec<u8> = MEANINGS
            .iter()
            .flat_map(|meaning| meaning.series)
            .map(|(statistic, _)| *statistic as u8)
            .collect();
        shown.sort_unstable();
        let mut all = Statistic::ALL.map(|statistic| statistic as u8);
        all.sort_unstable();
        assert_eq!(shown, all);
    }

    #[test]
    fn numbers_are_in_base_units_and_what_is_not_reported_has_no_series() {
        let numbers = [
            (Statistic::CommitMicros as u8, 1_500_000),
            (Statistic::LastCommitAgeMs as u8, 250),
            (Statistic::PutsFailed as u8, 7),
            (255, 1),
        ];
        let mut page = Page::default();
        push(&mut page, &[("10.0.0.1:4000".to_owned(), &numbers)]);
        let text = page.render(Form::OpenMetrics);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "dkvs_server_puts_refused_total{server=\"10.0.0.1:4000\",reason=\"disk_failed\"} 7",
                "dkvs_server_commit_seconds_total{server=\"10.0.0.1:4000\"} 1.5",
                "dkvs_server_last_commit_age_seconds{server=\"10.0.0.1:4000\"} 0.25",
            ]
        );
    }
}

//! The numbers that a server reports of itself.

use thiserror::Error;

/// A number that a server reports of itself, by its byte. Counts are since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Records held, tombstones included.
    Keys = 1,
    /// What they take of the server's limit, in bytes.
    Bytes = 2,
    /// Gets answered.
    Gets = 3,
    /// Puts stored.
    Puts = 4,
    /// Puts refused because the server is full.
    PutsRefusedFull = 5,
    /// Datagrams or messages that were no request.
    Malformed = 6,
    /// Datagrams and records that did not match their checksum.
    Damaged = 7,
    /// Datagrams of DKVS/2 that proved whole.
    Datagrams = 8,
    /// Requests in them that were understood.
    Messages = 9,
    /// Uploads of which a first block was taken.
    UploadsBegun = 10,
    /// Uploads whose whole value a put took.
    UploadsCompleted = 11,
    /// Uploads dropped because their blocks came too slowly, or not at all.
    UploadsExpired = 12,
    /// Blocks refused for want of memory or of places for uploads.
    UploadsRefusedBusy = 13,
    /// The memory that the uploads under way have reserved, in bytes.
    UploadBytesReserved = 14,
    /// Keys left out of lists because no datagram holds them.
    ListKeysLeftOut = 15,
    /// Datagrams that did not prove, where keys are demanded.
    Unauthenticated = 16,
    /// Datagrams of a session that is not, or no longer, known.
    SessionsRefused = 17,
    /// Requests without a session that were no greeting.
    NotGreetings = 18,
    /// Datagrams that arrived again, or too late to know.
    Replayed = 19,
    /// Requests whose deadline passed while they lay in the socket.
    Expired = 20,
    /// Datagrams of DKVS/1 that were dropped because it is off.
    V1Refused = 21,
    /// Replies longer than the path to their client takes.
    RepliesTooLong = 22,
    /// Puts refused because too much waited for the disk.
    PutsRefusedBusy = 23,
    /// Puts refused because the disk had failed, or failed under them.
    PutsFailed = 24,
    /// Questions answered with `corrupt`.
    CorruptAnswers = 25,
    /// 1 if the disk has failed and nothing more is stored, else 0.
    IsReadOnly = 26,
    /// 1 if the disk had no room when something was to be stored last, else 0.
    IsDiskFull = 27,
    /// 1 if the server is incomplete: it may lack records that it once confirmed. Else 0.
    IsIncomplete = 28,
    /// What the records of the log take, in bytes.
    LogBytes = 29,
    /// What its files take of the disk, in bytes.
    DiskBytes = 30,
    /// What the disk has left, in bytes.
    DiskAvailableBytes = 31,
    /// Commits to the disk.
    Commits = 32,
    /// How long all of them took together, in microseconds.
    CommitMicros = 33,
    /// Bytes of records in them.
    CommittedBytes = 34,
    /// How long ago the last of them was done, in milliseconds.
    LastCommitAgeMs = 35,
    /// Records that wait for the disk.
    Waiting = 36,
    /// Uploads dropped to make room for those of others who held less.
    UploadsDisplaced = 37,
    /// Records looked at for lists.
    ListRecordsExamined = 38,
    /// Lists refused because too many waited for their turn.
    ListsRefusedBusy = 39,
    /// What the records of the log take that are the newest of their keys, in bytes.
    LiveBytes = 40,
    /// What the other records of the log take, in bytes.
    DeadBytes = 41,
    /// What is set aside on the disk for deletions and compaction, in bytes.
    ReservedBytes = 42,
    /// What compaction copied, in bytes.
    CompactedBytes = 43,
    /// What values that lie on the disk take in memory, in bytes.
    CacheBytes = 44,
    /// Reads of values that were in memory.
    CacheHits = 45,
    /// Reads of values that were not, and so of the disk.
    ColdReads = 46,
    /// Reads refused because too many waited for the disk.
    ColdReadsRefused = 47,
    /// Reads whose deadline passed while they waited for the disk.
    ColdReadsExpired = 48,
    /// Reads that wait for the disk.
    ReadsWaiting = 49,
    /// Ranges of records that were found lost when the server was started.
    LostRanges = 50,
    /// Keys whose records are quarantined.
    QuarantinedKeys = 51,
    /// Records that were found damaged on the disk.
    DamagedRecords = 52,
    /// Servers that are replicas of some key beside this one.
    Peers = 53,
    /// Those that held the same when this server compared itself with them last.
    PeersInStep = 54,
    /// Comparisons with peers that came to their end.
    Comparisons = 55,
    /// Leaves in which a peer differed, each time.
    LeavesDiffering = 56,
    /// Records that were pulled from peers and stored.
    RecordsPulled = 57,
    /// Their keys and values, in bytes.
    PulledBytes = 58,
    /// Records that a peer listed as newer, and did not give, or that could not be stored.
    PullsFailed = 59,
    /// Records that were read again though nobody asked for them.
    ScrubbedRecords = 60,
    /// What these take in the log, in bytes.
    ScrubbedBytes = 61,
    /// How often all records were.
    ScrubRounds = 62,
    /// How long ago they were last, in milliseconds.
    LastScrubRoundAgeMs = 63,
    /// Damaged records that were written again, replaced or removed since, or can be read again.
    MendedRecords = 64,
    /// The leaves of the ring of which this server is a replica.
    Leaves = 65,
    /// Those for whose keys it does not answer, since it may have lost records there.
    LeavesIncomplete = 66,
}

/// No statistic has this byte, or none that was known when this was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no statistic {byte}")]
pub struct UnknownStatistic {
    /// The byte.
    pub byte: u8,
}

impl Statistic {
    /// Every statistic.
    pub const ALL: [Self; 66] = [
        Self::Keys,
        Self::Bytes,
        Self::Gets,
        Self::Puts,
        Self::PutsRefusedFull,
        Self::Malformed,
        Self::Damaged,
        Self::Datagrams,
        Self::Messages,
        Self::UploadsBegun,
        Self::UploadsCompleted,
        Self::UploadsExpired,
        Self::UploadsRefusedBusy,
        Self::UploadBytesReserved,
        Self::ListKeysLeftOut,
        Self::Unauthenticated,
        Self::SessionsRefused,
        Self::NotGreetings,
        Self::Replayed,
        Self::Expired,
        Self::V1Refused,
        Self::RepliesTooLong,
        Self::PutsRefusedBusy,
        Self::PutsFailed,
        Self::CorruptAnswers,
        Self::IsReadOnly,
        Self::IsDiskFull,
        Self::IsIncomplete,
        Self::LogBytes,
        Self::DiskBytes,
        Self::DiskAvailableBytes,
        Self::Commits,
        Self::CommitMicros,
        Self::CommittedBytes,
        Self::LastCommitAgeMs,
        Self::Waiting,
        Self::UploadsDisplaced,
        Self::ListRecordsExamined,
        Self::ListsRefusedBusy,
        Self::LiveBytes,
        Self::DeadBytes,
        Self::ReservedBytes,
        Self::CompactedBytes,
        Self::CacheBytes,
        Self::CacheHits,
        Self::ColdReads,
        Self::ColdReadsRefused,
        Self::ColdReadsExpired,
        Self::ReadsWaiting,
        Self::LostRanges,
        Self::QuarantinedKeys,
        Self::DamagedRecords,
        Self::Peers,
        Self::PeersInStep,
        Self::Comparisons,
        Self::LeavesDiffering,
        Self::RecordsPulled,
        Self::PulledBytes,
        Self::PullsFailed,
        Self::ScrubbedRecords,
        Self::ScrubbedBytes,
        Self::ScrubRounds,
        Self::LastScrubRoundAgeMs,
        Self::MendedRecords,
        Self::Leaves,
        Self::LeavesIncomplete,
    ];
}

impl TryFrom<u8> for Statistic {
    type Error = UnknownStatistic;

    fn try_from(byte: u8) -> Result<Self, UnknownStatistic> {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == byte);
        known.ok_or(UnknownStatistic { byte })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_known_by_their_bytes_and_no_other_byte_is() {
        for byte in 0..=u8::MAX {
            let known = Statistic::try_from(byte).map(|statistic| statistic as u8);
            let expected = match byte {
                1..=66 => Ok(byte),
                _ => Err(UnknownStatistic { byte }),
            };
            assert_eq!(known, expected);
        }
    }
}

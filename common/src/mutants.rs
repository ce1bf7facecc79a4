//! Defects that can be switched on by name, so that the simulator can show that it would see them.
//!
//! Without the feature `mutants` none is ever on, and the compiler leaves no trace of them. With
//! it nothing can be built without debug assertions, which no release has.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` is for simulations: no release may carry it");

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A linearizable read returns the newest value at once, without a write-back.
    NoWriteBack,
    /// A linearizable read writes the value back to one replica fewer than required.
    WriteBackToFewer,
    /// A quorum of fewer than a majority counts as linearizable.
    ReadBelowMajority,
    /// A linearizable write takes its tag from the clock, without asking for tags.
    ClockOnlyTags,
    /// A linearizable write takes the first tag that a replica returns for the greatest.
    TagOfOne,
    /// A write that is sent again gets a tag of its own.
    RetryWithNewTag,
    /// The operations of a gateway have the same number in their tags, also after a restart.
    OperationPerGateway,
    /// Request ids are the same towards every server, so an answer of one server that arrives from
    /// the address of another counts as the other's.
    StrangersCounted,
    /// An answer that arrives twice counts twice.
    RepeatsCounted,
    /// A server confirms a record, and stores it only when the next datagram arrives.
    AcknowledgedBeforeStored,
    /// A server reports a deleted key as never written.
    TombstoneDropped,
    /// At the level agreement, a server that keeps something newer counts as having stored.
    SupersededAsStored,
    /// An answer to a request that is no longer open counts for one that is.
    OlderRequestAnswered,
    /// A walk over the end of the ring forgets which servers it has met.
    WrongSetAfterWrap,
    /// A response to a command of an earlier round counts for the current one.
    EarlierRoundCounted,
    /// A server takes a record although it holds one with a greater tag.
    OlderTagStored,
    /// A server confirms a record before the disk has it.
    AcknowledgedBeforeSynced,
    /// Reads see a record before the disk has it.
    UnsyncedServed,
    /// A server that lost records reports them as absent.
    LossUnnoticed,
    /// A read that waits for the disk is answered with what an earlier one of the key was to be shown.
    ColdReadShared,
    /// A copy of a quarantined record, which has a greater number, does not say that it is quarantined.
    QuarantineNotCopied,
    /// A record that came by DKVS/1 has a tag like any other.
    V1Unmarked,
    /// A read that met a record by DKVS/1 still takes the greatest tag for the newest.
    V1WrittenBack,
    /// A write that is superseded by a record that came by DKVS/1 counts that as a confirmation.
    SupersededByV1AsStored,
    /// One answer by DKVS/1 to a greeting counts as proof that the server speaks nothing else.
    V1AnswerBelieved,
    /// A server answers a damaged datagram of DKVS/2 by DKVS/1.
    DamagedTakenForV1,
    /// A request that leaves its place to a later one reports replicas as silent that had time left.
    PendingAsTimedOut,
    /// A linearizable read writes the newest record back without its attributes.
    AttributesDropped,
    /// A server that holds a record keeps its age when the same record is put with a greater one.
    LesserAgeKept,
    /// A list goes on past the end of a server's page, as if that server had no more keys.
    MergedPastPage,
    /// A list takes any server's entry of a key for the newest.
    ListedByAnyEntry,
    /// A list goes on behind the keys that begin as a folder does without its end.
    FolderSkippedTooFar,
    /// The sums by which replicas find where they differ say which keys there are, and not of which
    /// version.
    SumsWithoutTags,
    /// Servers pull what came by DKVS/1, too: of two tags the greater one.
    V1Pulled,
    /// A server that lost records answers for keys again although requests may be under way that count what
    /// it said before the loss.
    CompletedWithoutWait,
    /// It does so once it was compared with one replica fewer than it has to be.
    CompletedByFewer,
    /// It counts replicas that do not answer for the keys themselves.
    CompletedByIncomplete,
    /// Servers compare what they hold with servers of other configurations.
    ComparedWithoutEpoch,
    /// A server that is started with an older copy of its disk answers for it.
    SetBackUnnoticed,
    /// A write counts a replica that it cannot reach, since another one was told of that.
    NudgeCounts,
    /// A damaged record is replaced by whatever another replica gives, be it older.
    MendedByOlder,
    /// A conditional write ends when the replicas have agreed on its record, and none has stored it.
    CommitSkipped,
    /// A server takes part in what follows a version in whose place it holds another one.
    SlotNotSuperseded,
    /// A server shows reads what it has merely accepted.
    AcceptVisible,
    /// A conditional write proposes its own record though another one may have been agreed on.
    AcceptedIgnored,
    /// A conditional write that may have taken effect, and was overtaken, says that it has not.
    OvertakenIsFailed,
    /// A conditional write that is sent again is made anew, whatever version is there now.
    RepeatMovesSlot,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: &[Self] = &[
        Self::NoWriteBack,
        Self::WriteBackToFewer,
        Self::ReadBelowMajority,
        Self::ClockOnlyTags,
        Self::TagOfOne,
        Self::RetryWithNewTag,
        Self::OperationPerGateway,
        Self::StrangersCounted,
        Self::RepeatsCounted,
        Self::AcknowledgedBeforeStored,
        Self::TombstoneDropped,
        Self::SupersededAsStored,
        Self::OlderRequestAnswered,
        Self::WrongSetAfterWrap,
        Self::EarlierRoundCounted,
        Self::OlderTagStored,
        Self::AcknowledgedBeforeSynced,
        Self::UnsyncedServed,
        Self::LossUnnoticed,
        Self::ColdReadShared,
        Self::QuarantineNotCopied,
        Self::V1Unmarked,
        Self::V1WrittenBack,
        Self::SupersededByV1AsStored,
        Self::V1AnswerBelieved,
        Self::DamagedTakenForV1,
        Self::PendingAsTimedOut,
        Self::AttributesDropped,
        Self::LesserAgeKept,
        Self::MergedPastPage,
        Self::ListedByAnyEntry,
        Self::FolderSkippedTooFar,
        Self::SumsWithoutTags,
        Self::V1Pulled,
        Self::CompletedWithoutWait,
        Self::CompletedByFewer,
        Self::CompletedByIncomplete,
        Self::ComparedWithoutEpoch,
        Self::SetBackUnnoticed,
        Self::NudgeCounts,
        Self::MendedByOlder,
        Self::CommitSkipped,
        Self::SlotNotSuperseded,
        Self::AcceptVisible,
        Self::AcceptedIgnored,
        Self::OvertakenIsFailed,
        Self::RepeatMovesSlot,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoWriteBack => "no-write-back",
            Self::WriteBackToFewer => "write-back-to-fewer",
            Self::ReadBelowMajority => "read-below-majority",
            Self::ClockOnlyTags => "clock-only-tags",
            Self::TagOfOne => "tag-of-one",
            Self::RetryWithNewTag => "retry-with-new-tag",
            Self::OperationPerGateway => "operation-per-gateway",
            Self::StrangersCounted => "strangers-counted",
            Self::RepeatsCounted => "repeats-counted",
            Self::AcknowledgedBeforeStored => "acknowledged-before-stored",
            Self::TombstoneDropped => "tombstone-dropped",
            Self::SupersededAsStored => "superseded-as-stored",
            Self::OlderRequestAnswered => "older-request-answered",
            Self::WrongSetAfterWrap => "wrong-set-after-wrap",
            Self::EarlierRoundCounted => "earlier-round-counted",
            Self::OlderTagStored => "older-tag-stored",
            Self::AcknowledgedBeforeSynced => "acknowledged-before-synced",
            Self::UnsyncedServed => "unsynced-served",
            Self::LossUnnoticed => "loss-unnoticed",
            Self::ColdReadShared => "cold-read-shared",
            Self::QuarantineNotCopied => "quarantine-not-copied",
            Self::V1Unmarked => "v1-unmarked",
            Self::V1WrittenBack => "v1-written-back",
            Self::SupersededByV1AsStored => "superseded-by-v1-as-stored",
            Self::V1AnswerBelieved => "v1-answer-believed",
            Self::DamagedTakenForV1 => "damaged-taken-for-v1",
            Self::PendingAsTimedOut => "pending-as-timed-out",
            Self::AttributesDropped => "attributes-dropped",
            Self::LesserAgeKept => "lesser-age-kept",
            Self::MergedPastPage => "merged-past-page",
            Self::ListedByAnyEntry => "listed-by-any-entry",
            Self::FolderSkippedTooFar => "folder-skipped-too-far",
            Self::SumsWithoutTags => "sums-without-tags",
            Self::V1Pulled => "v1-pulled",
            Self::CompletedWithoutWait => "completed-without-wait",
            Self::CompletedByFewer => "completed-by-fewer",
            Self::CompletedByIncomplete => "completed-by-incomplete",
            Self::ComparedWithoutEpoch => "compared-without-epoch",
            Self::SetBackUnnoticed => "set-back-unnoticed",
            Self::NudgeCounts => "nudge-counts",
            Self::MendedByOlder => "mended-by-older",
            Self::CommitSkipped => "commit-skipped",
            Self::SlotNotSuperseded => "slot-not-superseded",
            Self::AcceptVisible => "accept-visible",
            Self::AcceptedIgnored => "accepted-ignored",
            Self::OvertakenIsFailed => "overtaken-is-failed",
            Self::RepeatMovesSlot => "repeat-moves-slot",
        }
    }
}

#[cfg(feature = "mutants")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches one mutant on, or all off, for this thread.
#[cfg(feature = "mutants")]
pub fn switch(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// Whether a mutant is on, on this thread.
#[cfg(feature = "mutants")]
#[inline]
pub fn is_on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// Whether a mutant is on: without the feature, none is.
#[cfg(not(feature = "mutants"))]
#[inline]
pub const fn is_on(_: Mutant) -> bool {
    false
}

//! What every store does: [`RecordStore`], and the types of what it returns.
//!
//! A store on a disk cannot answer at once. So whatever changes a store, or reads a value, takes a
//! function that makes a [`Completion`]: the result is returned if it is known already, and is
//! otherwise given to the completion, on the thread that writes, or one that reads.

use std::ops::ControlFlow;
use std::time::Instant;

use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, Durability};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, Record, RecordVersion};
use dkvs_common::ring::Position;
use dkvs_common::tag::{Exhausted, Tag};
use thiserror::Error;

use super::head::{HeldRecord, RecordHead};
use super::ranges::Interval;
use super::table::KeyRange;
use super::view::{Part, RecordView};
use crate::peer::{Account, Peer};

/// Records by key, of which the one with the greatest tag stays.
pub trait RecordStore {
    /// What is known of the record of a key, if there is one that is sound and attested. Reads no
    /// disk; damage of a value that lies there shows when it is read.
    fn head(&self, key: &Key) -> Lookup<RecordHead>;

    /// Returns what `view` makes of the record of a key, if there is one that is sound and attested:
    /// at once if it is in memory. Otherwise the disk is read, and the result is given to the
    /// completion. It is that of the newest record of some moment in between.
    ///
    /// [`Part::Whole`] is verified, and so is any part of a value that is not long. Of a long one,
    /// parts are not verified: who has all of them verifies the whole.
    fn get<R: Send + 'static>(
        &self,
        key: &Key,
        read: ReadRequest,
        view: impl FnOnce(&RecordView<'_>) -> R + Send + 'static,
        completion: impl FnOnce() -> Completion<GetResult<R>>,
    ) -> Option<GetResult<R>>;

    /// What is known of the record that is held for a key, even if it is damaged or quarantined. Not
    /// an answer for a client.
    fn peek(&self, key: &Key) -> Option<RecordHead>;

    /// The outcome of a put of this version, if it would store nothing.
    fn resolve(&self, key: &Key, put: RecordVersion) -> Option<PutOutcome>;

    /// Shows the records that are held, sound and attested or not, in ring order until `visit`
    /// breaks: those at `from` whose keys are greater than `after`, or all of them without it, and
    /// then those at greater positions. It ends at the end of the ring. A change of another key
    /// that runs meanwhile is in it or not.
    ///
    /// A part of the store is locked while `visit` goes on in it, so `visit` may not use the store.
    fn scan(
        &self,
        from: Position,
        after: Option<&Key>,
        visit: impl FnMut(&HeldRecord<'_>) -> ControlFlow<()>,
    );

    /// Shows the records that are held, sound and attested or not, of a range of keys, in the order of
    /// their bytes or its reverse, until `visit` breaks. A change of another key that runs meanwhile is
    /// in it or not.
    ///
    /// A part of the store is locked while `visit` goes on in it, so `visit` may not use the store.
    fn scan_keys(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        visit: impl FnMut(&HeldRecord<'_>) -> ControlFlow<()>,
    );

    /// Stores a record that a client gives: see [`Self::apply_given`].
    fn apply(
        &self,
        key: &Key,
        record: &Record,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        self.apply_given(key, record, GivenBy::Client, completion)
    }

    /// Stores a record, unless one with the same or a greater tag is there. If it is this very record
    /// that is there, the greater age of both is kept.
    ///
    /// One that another replica gives is never stored in the place of one that came by DKVS/1: whose tag
    /// is the greater says nothing about which of the two is newer. The one that is there supersedes it.
    fn apply_given(
        &self,
        key: &Key,
        record: &Record,
        given_by: GivenBy,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult>;

    /// Stores `content` under a tag that `mint` makes greater than that of the record that is
    /// there, or than [`Tag::ZERO`].
    fn apply_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult>;

    /// Forgets the record of a key if it still has exactly this tag. A complete store returns the
    /// key as absent afterwards, also after a crash, and an incomplete one as corrupt, as it does
    /// every key that it does not hold.
    fn remove(
        &self,
        key: &Key,
        tag: Tag,
        completion: impl FnOnce() -> Completion<RemoveResult>,
    ) -> Option<RemoveResult>;

    /// Attests the record of a key if it is sound and its tag is `tag` or greater: from then on
    /// [`Self::get`] returns it. An error says what is held instead.
    fn attest(
        &self,
        key: &Key,
        tag: Tag,
        completion: impl FnOnce() -> Completion<PutResult>,
    ) -> Result<Option<PutResult>, AttestError>;

    /// Answers for every key of a part of the ring from now on: for what is held as it is, and for what is
    /// not held as absent. The caller knows that the store holds at least what its server ever confirmed there.
    fn attest_range(&self, range: Interval);

    /// Has a store on a disk remember what was attested by [`Self::attest_range`], so that it is attested
    /// after a restart, too; if the disk has room for that.
    ///
    /// # Errors
    ///
    /// If too much waits for the disk, or it has failed.
    fn remember_attested(&self) -> Result<(), StoreError>;

    /// How far it has come; none of a store in memory.
    fn progress(&self) -> Option<Progress>;

    /// It lacks records that its server has confirmed: from now on it answers for no key, until it is attested,
    /// and has this lineage. A store on a disk remembers that.
    ///
    /// # Errors
    ///
    /// If that is not remembered, since too much waits for the disk or it has failed. It answers for no key all
    /// the same.
    fn set_back(&self, lineage: u64) -> Result<(), StoreError>;

    /// Whether it answers for all keys of a part of the ring: it is complete, or was told so by
    /// [`Self::attest_range`].
    fn answers_for(&self, range: Interval) -> bool;

    /// Whether a record of so many bytes would be taken now. It may still be refused later.
    fn check_room_for(&self, bytes: usize) -> Result<(), StoreError>;

    /// How many records are held, tombstones included.
    fn len(&self) -> usize;

    /// Whether no record is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the records take of the limit on memory, in bytes, overhead included; never more than the
    /// limit. Of values on a disk nothing is counted.
    fn bytes(&self) -> usize;

    /// Calls `hook` whenever what is held for a key changes, from now on. A store has one hook, for
    /// as long as it lives: returns whether this is it. To know all that is held, set the hook and
    /// scan then.
    fn set_change_hook(&self, hook: ChangeHook) -> bool;

    /// What a confirmed put survives.
    fn durability(&self) -> Durability;

    /// Whether it answers for every record that it ever confirmed; in memory, since it was started.
    fn is_complete(&self) -> bool;
}

/// How far a store on a disk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Random, and another one after whatever was lost or declared.
    pub lineage: u64,
    /// The number of the last record when it was opened.
    pub start: u64,
    /// The number of the last record that is on the disk for certain.
    pub sequence: u64,
}

/// What a read of a key finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<R> {
    /// What was made of the record, which may be a tombstone.
    Found(R),
    /// There is no record of the key, nor was there ever one that was not removed.
    Absent,
    /// There is one that is damaged, or it is not certain that there is none, or none newer.
    Corrupt,
}

/// The outcome of a read. The only errors are [`StoreError::Busy`], if too many reads wait for the disk,
/// and [`StoreError::OutOfFiles`].
pub type GetResult<R> = Result<Lookup<R>, StoreError>;

/// What a read asks for.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// Which part of the value.
    pub part: Part,
    /// When nobody waits for it any more: if that has come before the disk was asked, it is dropped,
    /// and its completion is not called.
    pub deadline: Option<Instant>,
    /// Who waits for it.
    pub asker: Asker,
}

/// Who a read is done for. Askers take turns at the disk: accounts, and within one of these its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker(Option<(Account, Peer)>);

impl Asker {
    /// The process itself.
    pub const OWN: Self = Self(None);

    /// The sender of a command.
    pub(crate) fn of(account: Account, peer: Peer) -> Self {
        Self(Some((account, peer)))
    }

    /// The sender; none of what the process reads for itself.
    pub(super) fn sender(self) -> Option<(Account, Peer)> {
        self.0
    }
}

impl<R> Lookup<R> {
    /// The same with what `make` makes of what was found.
    pub fn map<S>(self, make: impl FnOnce(R) -> S) -> Lookup<S> {
        match self {
            Self::Found(found) => Lookup::Found(make(found)),
            Self::Absent => Lookup::Absent,
            Self::Corrupt => Lookup::Corrupt,
        }
    }
}

/// The outcome of a put that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The store holds the record, or held it before.
    Stored,
    /// The store holds a newer one, with this tag; or another one with the very same.
    Superseded(Tag),
}

/// The outcome of a put.
pub type PutResult = Result<PutOutcome, StoreError>;

/// The outcome of a removal that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// The record is gone.
    Removed,
    /// Nothing has changed: the key has another tag, or no record.
    Kept(Option<Tag>),
}

/// The outcome of a removal.
pub type RemoveResult = Result<RemoveOutcome, StoreError>;

/// Takes a result once it is known. Called once, on the thread that writes to the disk or reads it;
/// never, if that thread ends before.
pub type Completion<T> = Box<dyn FnOnce(T) + Send>;

/// Makes a tag greater than the one it is given.
pub type MintTag = Box<dyn FnOnce(Tag) -> Result<Tag, Exhausted> + Send>;

/// Why a store does not make a change. Nothing has changed, but for [`Self::Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The records may take no more memory.
    #[error("{0}")]
    Full(#[from] Full),
    /// The disk has no room.
    #[error("the disk has no room")]
    DiskFull,
    /// Too much waits for the disk.
    #[error("too much waits for the disk")]
    Busy,
    /// The process may open no more files, for now.
    #[error("no more files may be open")]
    OutOfFiles,
    /// The disk has failed.
    #[error("the disk has failed, and nothing more is stored")]
    ReadOnly,
    /// The disk failed during the change: it may be there after the next start.
    #[error("the disk failed")]
    Failed,
    /// No tag is greater than the one that is held.
    #[error("no greater tag can be made")]
    NoTag,
}

/// The store has no room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the store is full: {record_bytes} bytes more would exceed its limit of {bytes_max} bytes")]
pub struct Full {
    /// What the record would have taken, beyond what it replaces.
    pub record_bytes: usize,
    /// The store's limit.
    pub bytes_max: usize,
}

/// Why a key's record is not attested: what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttestError {
    /// No record.
    Absent,
    /// One that is older than it would have to be.
    Older(Tag),
    /// One that is damaged.
    Corrupt,
}

/// A change of what is held for a key. Both versions are the same where a record is attested, or where
/// a sound one takes the place of a damaged one; only the age differs where the same record was put
/// with a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordChange<'a> {
    /// Which key.
    pub key: &'a [u8],
    /// Where it lies on the ring.
    pub position: Position,
    /// What was held; none if there was no record.
    pub old: Option<RecordVersion>,
    /// What is held now; none if the record was removed.
    pub new: Option<RecordVersion>,
}

/// Is called with every change, in the order of the changes of each key. The key's part of the
/// store is locked meanwhile: it may not use the store, and has to be quick.
pub type ChangeHook = Box<dyn Fn(RecordChange<'_>) + Send + Sync>;

/// Who gives a store a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBy {
    /// A client.
    Client,
    /// This server itself, which pulled it from another replica.
    Replica,
}

/// The outcome of a put that stores nothing, given what is held and whether that is sound; none if the
/// put is to be stored. A damaged record is replaced by a sound one with the same tag, and a sound one
/// by itself if the put has a greater age.
pub(super) fn resolve(
    held: RecordVersion,
    is_sound: impl Fn() -> bool,
    put: RecordVersion,
    given_by: GivenBy,
) -> Option<PutOutcome> {
    let is_kept = given_by == GivenBy::Replica && held.tag.is_by_v1();
    if is_kept && !mutants::is_on(Mutant::V1Pulled) {
        return Some(PutOutcome::Superseded(held.tag));
    }
    let is_mended = || given_by == GivenBy::Replica && !is_sound();
    if held.tag > put.tag && mutants::is_on(Mutant::MendedByOlder) && is_mended() {
        return None;
    }
    if held.tag > put.tag {
        let superseded = PutOutcome::Superseded(held.tag);
        return (!mutants::is_on(Mutant::OlderTagStored)).then_some(superseded);
    }
    if held.tag < put.tag || !is_sound() {
        return None;
    }
    match held.checksum == put.checksum {
        true if held.born < put.born && !mutants::is_on(Mutant::LesserAgeKept) => None,
        true => Some(PutOutcome::Stored),
        false => Some(PutOutcome::Superseded(put.tag)),
    }
}

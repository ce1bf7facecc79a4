//! The durable store: records in memory for whoever reads, and in a log on a disk for
//! whoever comes after a crash.
//!
//! ```text
//!   put --> [ queue ] --begin--> [ batch ] --finish--> log, synced --> records --> told
//!             |  ^                                                       ^
//!             |  '-- the next gather here while a batch is synced        '-- reads look here
//!             '-- full: busy
//! ```
//!
//! A record is seen by reads only once it is synced, so none that was ever told can be taken back
//! by a crash; and a put is told that it is stored only then. One batch is on its way to the disk
//! at a time, and takes all that gathered meanwhile (group commit), so nobody waits for a timer.
//!
//! No threads and no files are in here: a [`Committer`] is driven by whoever owns it, and writes
//! to a [`Medium`].
//!
//! # What a store vouches for
//!
//! No quorum survives a server that confirmed a record, lost it, and goes on as if it had never
//! been. So a store knows whether it is *complete*: whether it holds, for every key, at least the
//! newest record that its server ever confirmed. One that is not (its disk is gone, it was taken
//! from a backup, it was not synced when the machine went down) vouches for nothing: what is asked
//! of it gets `corrupt`, which counts for nothing in a quorum. Key by key it is vouched for again,
//! when a read that asked the other replicas says what their newest record is. The store's
//! generation counts how often it became incomplete, and each row says in which it was vouched for.

mod committer;
pub mod directory;
mod log;
pub mod medium;
pub mod ring_change;
mod row;
mod thread;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::Durability;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::{Exhausted, Tag};
use thiserror::Error;

use super::memory::MemoryStore;
use super::packed::Packed;
use super::{Completion, Lookup, PutOutcome, PutResult, StoreError};
use log::{Facts, Log, LogError};
use medium::Medium;
use row::Row;

pub use committer::{Batch, Committer};
pub use log::{CommitError, Snapshot};
pub use thread::CommitThread;

/// Most bytes of records that wait for the disk. Four of the longest values fit.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Most records that wait for the disk.
const QUEUE_ITEMS_MAX: usize = 16_384;

/// Where a store's bytes lie.
#[derive(Debug, Clone)]
pub struct Media {
    /// The engine's.
    pub records: Arc<dyn Medium>,
    /// What knows the end of the last commit.
    pub witness: Arc<dyn Medium>,
}

/// What a store is told when it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The limit on what the records take in memory, in bytes, as of a [`MemoryStore`].
    pub bytes_max: usize,
    /// What a confirmed put survives.
    pub durability: Durability,
    /// What the operator says of the store, if anything.
    pub declaration: Option<Declaration>,
    /// Whether anything beside the store makes it doubtful: another ring, say, or a disk that
    /// failed. It is opened only with a declaration then, which is anything but [`Declaration::New`].
    pub is_doubtful: bool,
    /// Another number after each start of the machine, never 0.
    pub machine_run: u64,
}

/// What an operator can say of a store that it cannot know of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declaration {
    /// It is a new one, and its server has never confirmed anything.
    New,
    /// Records that its server confirmed may be missing from it.
    Incomplete,
    /// It holds whatever its server confirmed, or what it does not is not wanted.
    Complete,
}

/// A store is not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It cannot be written.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// It is not what was written.
    #[error("the records are damaged: {0}")]
    Damaged(String),
    /// There is nothing in it, and nobody said that this is right.
    #[error("there are no records, and nothing says whether there should be")]
    Empty,
    /// It is a backup.
    #[error("the records are a backup, and its server has gone on since it was made")]
    Backup,
    /// The machine went down under it.
    #[error(
        "the machine went down while the server confirmed records without syncing them, and the \
         last of them may be missing"
    )]
    Unsynced,
    /// Something is declared that is so already, or cannot be.
    #[error("{0}")]
    NothingToDeclare(&'static str),
}

/// Records on a disk, all of them in memory as well.
pub struct DiskStore {
    records: MemoryStore,
    durability: Durability,
    queue: Mutex<Queue>,
    gathered: Condvar,
    status: Status,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// How many records are with the committer.
    under_way: usize,
    /// Backups that are wanted.
    backups: Vec<Backup>,
    is_closed: bool,
}

/// What is to be done with a copy of the log.
pub type Backup = Box<dyn FnOnce(Result<Snapshot, CommitError>) + Send>;

struct Item {
    bytes: usize,
    what: What,
    later: Completion,
}

/// What is to be done on the disk.
enum What {
    /// To store a record.
    Apply(Packed),
    /// To store a value under the next tag.
    ApplyNext {
        key: Key,
        content: Content,
        mint: MintTag,
    },
    /// To vouch for the key's record.
    Attest(Key),
}

/// Makes a tag greater than the one it is given.
pub type MintTag = Box<dyn FnOnce(Tag) -> Result<Tag, Exhausted> + Send>;

/// What a store says of itself. Written by the committer, read by anyone.
#[derive(Default)]
struct Status {
    is_complete: AtomicBool,
    is_read_only: AtomicBool,
    is_disk_full: AtomicBool,
    log_bytes: AtomicU64,
    disk_bytes: AtomicU64,
    disk_available_bytes: AtomicU64,
    commits: AtomicU64,
    commit_micros: AtomicU64,
    written_bytes: AtomicU64,
    last_commit: Mutex<Option<Instant>>,
}

/// What a durable store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStatus {
    /// Whether it vouches for all it was ever told; see the [module](self).
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
    /// Bytes of records appended since the start, those that cleaning moved not counted.
    pub written_bytes: u64,
    /// Records that wait to be synced.
    pub waiting: usize,
    /// When the last commit was synced.
    pub last_commit: Option<Instant>,
}

impl DiskStore {
    /// Opens what lies in `media`, or begins it where that is declared.
    ///
    /// # Errors
    ///
    /// If it cannot be read, if it is not certain that it holds what its server confirmed, or if
    /// something is declared that does not fit it. Nothing has changed then.
    pub fn open(media: Media, options: Options) -> Result<(Arc<Self>, Committer), OpenError> {
        let mut log = Log::open(&media.records, &media.witness)?;
        let facts = declared(&log, options)?;
        let records = MemoryStore::new(options.bytes_max);
        log.load(&mut |row| load(&records, facts, row))?;
        if facts != log.facts() {
            log.state(|known| *known = facts)?;
        }
        let store = Arc::new(Self {
            records,
            durability: options.durability,
            queue: Mutex::default(),
            gathered: Condvar::new(),
            status: Status::default(),
        });
        store
            .status
            .is_complete
            .store(facts.is_complete, Ordering::Relaxed);
        let committer = Committer::new(Arc::clone(&store), log, media);
        Ok((store, committer))
    }

    /// What reads see, unless the store does not vouch for it.
    pub fn records(&self) -> &MemoryStore {
        &self.records
    }

    /// What a confirmed put survives.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Shows the record of a key, if there is one that is sound and vouched for.
    pub fn read<R>(&self, key: &Key, show: impl FnOnce(&Packed) -> R) -> Lookup<R> {
        self.show(key, show, |held| !held.is_quarantined() && held.is_sound())
    }

    /// Shows the record of a key if it may be shown.
    pub(super) fn show<R>(
        &self,
        key: &Key,
        show: impl FnOnce(&Packed) -> R,
        may_be_shown: impl FnOnce(&Packed) -> bool,
    ) -> Lookup<R> {
        let show = |held: &Packed| may_be_shown(held).then(|| show(held));
        match self.records.read(key, show) {
            Some(Some(shown)) => Lookup::Found(shown),
            Some(None) => Lookup::Corrupt,
            None if self.is_complete() => Lookup::Absent,
            None => Lookup::Corrupt,
        }
    }

    /// Whether it answers for every record that it ever confirmed.
    pub fn is_complete(&self) -> bool {
        self.status.is_complete.load(Ordering::Relaxed) || mutants::is_on(Mutant::LossUnnoticed)
    }

    /// Stores a record, unless one with the same or a greater tag is there. What is settled by
    /// what is synced already is told at once; else it is told by `later`, when it is synced.
    pub fn put(
        &self,
        key: &Key,
        record: &Record,
        later: impl FnOnce() -> Completion,
    ) -> Option<PutResult> {
        let settled = |held: &Packed| super::settled(held, record.tag, record.checksum);
        if let Some(put) = self.records.read(key, settled).flatten() {
            return Some(Ok(put));
        }
        let packed = Packed::new(key, record);
        self.enqueue(packed.bytes(), What::Apply(packed), later)
    }

    /// Stores `content` under a tag that `mint` makes greater than that of the record that is
    /// there, or of those that wait, or [`Tag::ZERO`].
    pub fn put_next(
        &self,
        key: &Key,
        content: &Content,
        mint: MintTag,
        later: impl FnOnce() -> Completion,
    ) -> Option<PutResult> {
        let bytes = Packed::bytes_of(key, content);
        let (key, content) = owned(key, content);
        self.enqueue(bytes, What::ApplyNext { key, content, mint }, later)
    }

    /// Vouches for the key's record if it is sound and its tag is `tag` or greater, and else tells
    /// what it holds.
    pub fn vouch(
        &self,
        key: &Key,
        tag: Tag,
        later: impl FnOnce() -> Completion,
    ) -> Result<Option<PutResult>, AttestError> {
        let held = |held: &Packed| (held.tag(), held.is_sound(), held.is_quarantined());
        match self.records.read(key, held) {
            None => Err(AttestError::Absent),
            Some((_, false, _)) => Err(AttestError::Corrupt),
            Some((held, ..)) if held < tag => Err(AttestError::Older(held)),
            Some((.., false)) => Ok(Some(Ok(PutOutcome::Stored))),
            Some((.., true)) => {
                let (key, _) = owned(key, &Content::Tombstone);
                let bytes = key.as_bytes().len();
                Ok(self.enqueue(bytes, What::Attest(key), later))
            }
        }
    }

    /// Whether a record of so many bytes would be taken now.
    pub fn takes(&self, bytes: usize) -> Result<(), StoreError> {
        self.has_place(&self.queue(), bytes)
    }

    fn has_place(&self, queue: &Queue, bytes: usize) -> Result<(), StoreError> {
        if self.status.is_read_only.load(Ordering::Relaxed) {
            return Err(StoreError::ReadOnly);
        }
        let is_full = queue.items.len() + queue.under_way >= QUEUE_ITEMS_MAX
            || queue.bytes.saturating_add(bytes) > QUEUE_BYTES_MAX;
        if queue.is_closed || is_full {
            return Err(StoreError::Busy);
        }
        Ok(())
    }

    fn enqueue(
        &self,
        bytes: usize,
        what: What,
        later: impl FnOnce() -> Completion,
    ) -> Option<PutResult> {
        let mut queue = self.queue();
        if let Err(refused) = self.has_place(&queue, bytes) {
            return Some(Err(refused));
        }
        queue.bytes += bytes;
        let later = later();
        queue.items.push_back(Item { bytes, what, later });
        None
    }

    /// Has `backup` called with the log as it is once what gathered so far is stored. It is called
    /// by whoever drives the committer, and nothing is stored meanwhile.
    pub fn back_up(&self, backup: Backup) {
        self.queue().backups.push(backup);
        self.gathered.notify_one();
    }

    /// Wakes the thread that takes what has gathered to the disk, if it sleeps. To be called after
    /// what came together was put, so that it gets there together.
    pub fn wake(&self) {
        if self.has_gathered() {
            self.gathered.notify_one();
        }
    }

    /// Whether anything waits for the committer.
    pub fn has_gathered(&self) -> bool {
        !self.queue().items.is_empty()
    }

    /// Takes nothing more; what is taken is still stored.
    fn close(&self) {
        self.queue().is_closed = true;
        self.gathered.notify_one();
    }

    /// A panic while the queue was locked leaves no item half in it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says of itself.
    pub fn status(&self) -> DiskStatus {
        let status = &self.status;
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let queue = self.queue();
        let last_commit = status.last_commit.lock();
        DiskStatus {
            is_complete: status.is_complete.load(Ordering::Relaxed),
            is_read_only: status.is_read_only.load(Ordering::Relaxed),
            is_disk_full: status.is_disk_full.load(Ordering::Relaxed),
            log_bytes: number(&status.log_bytes),
            disk_bytes: number(&status.disk_bytes),
            disk_available_bytes: number(&status.disk_available_bytes),
            commits: number(&status.commits),
            commit_time: Duration::from_micros(number(&status.commit_micros)),
            written_bytes: number(&status.written_bytes),
            waiting: queue.items.len() + queue.under_way,
            last_commit: *last_commit.unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Why a key's record is not vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttestError {
    /// There is none.
    Absent,
    /// It is older than it would have to be.
    Older(Tag),
    /// It is damaged.
    Corrupt,
}

/// What the store is to know of itself from now on, if it may be opened.
fn declared(log: &Log, options: Options) -> Result<Facts, OpenError> {
    let known = log.facts();
    let is_unsynced = ![0, options.machine_run].contains(&known.unsynced_run);
    let incomplete = |generation: u32| Facts {
        is_complete: false,
        generation: generation.saturating_add(1),
        ..known
    };
    let complete = Facts {
        is_complete: true,
        ..known
    };
    let facts = match options.declaration {
        None if log.is_new() => return Err(OpenError::Empty),
        None if known.is_snapshot => return Err(OpenError::Backup),
        None if is_unsynced => return Err(OpenError::Unsynced),
        None => known,
        Some(Declaration::New) if log.is_new() => complete,
        Some(Declaration::New) => {
            return Err(OpenError::NothingToDeclare(
                "the store is not new: it holds records",
            ));
        }
        Some(Declaration::Incomplete)
            if log.is_new()
                || known.is_complete
                || known.is_snapshot
                || is_unsynced
                || options.is_doubtful =>
        {
            incomplete(known.generation)
        }
        Some(Declaration::Incomplete) => {
            return Err(OpenError::NothingToDeclare(
                "the store is known to be incomplete",
            ));
        }
        Some(Declaration::Complete) if log.is_new() => {
            return Err(OpenError::NothingToDeclare(
                "the store holds nothing at all",
            ));
        }
        Some(Declaration::Complete)
            if known.is_complete && !known.is_snapshot && !is_unsynced && !options.is_doubtful =>
        {
            return Err(OpenError::NothingToDeclare(
                "the store is known to be complete",
            ));
        }
        Some(Declaration::Complete) => complete,
    };
    Ok(Facts {
        is_snapshot: false,
        unsynced_run: match options.durability {
            Durability::Buffered => options.machine_run,
            Durability::Memory | Durability::Fsync => 0,
        },
        ..facts
    })
}

/// Takes a row into the records, unless a newer one is there.
fn load(records: &MemoryStore, facts: Facts, row: Row) {
    let mut packed = row.packed;
    packed.set_quarantined(!facts.is_complete && row.generation < facts.generation);
    records.load(packed);
}

/// The same in memory of their own, so that no datagram is kept for them.
fn owned(key: &Key, content: &Content) -> (Key, Content) {
    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let key = Key::new(copy(key.as_bytes())).unwrap_or_else(|_| key.clone());
    let content = match content {
        Content::Tombstone => Content::Tombstone,
        Content::Value {
            content_type,
            value,
        } => Content::Value {
            content_type: ContentType::new(copy(content_type.as_bytes())).unwrap_or_default(),
            value: Value::new(copy(value.as_bytes())).unwrap_or_else(|_| value.clone()),
        },
    };
    (key, content)
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io(error) => Self::Io(error),
            LogError::Damaged(reason) => Self::Damaged(reason),
        }
    }
}

//! What changes in a table while a counted scan is under way.
//!
//! The scan has two cursors ([`CountedScan`](super::CountedScan)). What changes ahead of the first
//! is counted when it comes there, and what changes behind the second is past. Between them, a
//! record that the scan begins to select is noted as added, to be passed over, and one that it
//! ceases to select is noted as gone, to be shown in the end as it was.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkvs_common::ring::Position;

use super::shard::{Place, place, shard_number};
use crate::store::head::TableEntry;

/// Most memory for what is noted, in bytes.
pub const NOTED_BYTES_MAX: usize = 16 << 20;

/// What an entry of a table is taken to cost beyond its bytes.
const NOTE_OVERHEAD_BYTES: usize = 64;

/// Whether a scan selects a record.
pub(super) type Filter<E> = Arc<dyn Fn(&E) -> bool + Send + Sync>;

/// Everything up to here was looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    /// All of the shards before this one.
    pub(super) shard: usize,
    /// And of this one up to the key at a position, itself included.
    pub(super) last: Option<(Position, Box<[u8]>)>,
}

impl Cursor {
    fn has_passed(&self, place: Place<'_>) -> bool {
        let shard = shard_number(place.position);
        let last = self.last.as_ref();
        let stands_before = |(position, key): &(Position, Box<[u8]>)| {
            (place.position, place.key) <= (*position, key)
        };
        shard < self.shard || (shard == self.shard && last.is_some_and(stands_before))
    }

    /// After which place its shard is to be gone on with.
    pub(super) fn place(&self) -> Place<'_> {
        let Some((position, key)) = &self.last else {
            return Place::START;
        };
        place(*position, key)
    }
}

/// Notes what changes while a scan is under way.
pub(super) struct ChangeTracker<E> {
    /// Whether there are any notes; to be looked at with a shard locked.
    is_on: AtomicBool,
    notes: Mutex<Option<Notes<E>>>,
}

/// What was noted during one scan.
pub(super) struct Notes<E> {
    pub(super) filter: Filter<E>,
    pub(super) counted: Cursor,
    pub(super) shown: Cursor,
    /// Keys of records that were not counted.
    added: HashSet<Box<[u8]>>,
    /// Records that were counted and are not selected any more, as they were.
    gone: BTreeMap<Box<[u8]>, E>,
    bytes: usize,
    pub(super) is_lost: bool,
}

impl<E> Default for ChangeTracker<E> {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            notes: Mutex::new(None),
        }
    }
}

impl<E: TableEntry> ChangeTracker<E> {
    /// Begins to note changes; false if another scan has them noted.
    pub(super) fn begin(&self, filter: Filter<E>) -> bool {
        let mut notes = self.notes();
        if notes.is_some() {
            return false;
        }
        *notes = Some(Notes {
            filter,
            counted: Cursor::default(),
            shown: Cursor::default(),
            added: HashSet::new(),
            gone: BTreeMap::new(),
            bytes: 0,
            is_lost: false,
        });
        self.is_on.store(true, Ordering::Relaxed);
        true
    }
}

impl<E> ChangeTracker<E> {
    /// Notes nothing any more.
    pub(super) fn end(&self) {
        // Under one guard, so that a scan which begins now finds both as they are then.
        let mut notes = self.notes();
        *notes = None;
        self.is_on.store(false, Ordering::Relaxed);
    }

    /// What is noted, if a scan is under way.
    pub(super) fn notes(&self) -> MutexGuard<'_, Option<Notes<E>>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: TableEntry> ChangeTracker<E> {
    /// Notes that `after` takes the place of `before`. The shard of the place is locked.
    pub(super) fn note(&self, place: Place<'_>, before: Option<&E>, after: Option<&E>) {
        if self.is_on.load(Ordering::Relaxed)
            && let Some(notes) = &mut *self.notes()
        {
            notes.note(place, before, after);
        }
    }
}

impl<E: TableEntry> Notes<E> {
    fn note(&mut self, place: Place<'_>, before: Option<&E>, after: Option<&E>) {
        if self.is_lost || !self.counted.has_passed(place) || self.shown.has_passed(place) {
            return;
        }
        let key = place.key;
        let was = before.filter(|before| (self.filter)(before));
        match (was, after.is_some_and(|after| (self.filter)(after))) {
            (None, true) => match self.gone.remove(key) {
                Some(gone) => self.bytes -= gone_bytes(&gone),
                None => {
                    self.bytes += added_bytes(key);
                    self.added.insert(key.into());
                }
            },
            (Some(before), false) => {
                if self.added.remove(key) {
                    self.bytes -= added_bytes(key);
                } else {
                    self.bytes += gone_bytes(before);
                    self.gone.insert(key.into(), before.duplicate());
                }
            }
            (None, false) | (Some(_), true) => {}
        }
        if self.bytes > NOTED_BYTES_MAX {
            self.added = HashSet::new();
            self.gone = BTreeMap::new();
            self.bytes = 0;
            self.is_lost = true;
        }
    }

    /// Whether a record is to be passed over. It is forgotten then, since the cursor passes it.
    pub(super) fn take_added(&mut self, key: &[u8]) -> bool {
        let is_added = self.added.remove(key);
        if is_added {
            self.bytes -= added_bytes(key);
        }
        is_added
    }

    /// The first of the records that were counted and are gone.
    pub(super) fn first_gone(&self) -> Option<&E> {
        self.gone.first_key_value().map(|(_, gone)| gone)
    }

    /// Forgets that record, which was shown.
    pub(super) fn pop_gone(&mut self) {
        if let Some((_, gone)) = self.gone.pop_first() {
            self.bytes -= gone_bytes(&gone);
        }
    }

    /// The memory that is taken for what was noted, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn added_bytes(key: &[u8]) -> usize {
    key.len() + NOTE_OVERHEAD_BYTES
}

fn gone_bytes<E: TableEntry>(gone: &E) -> usize {
    gone.key().len() + gone.bytes() + 2 * NOTE_OVERHEAD_BYTES
}

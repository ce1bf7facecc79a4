//! Which records are known to be damaged, for who mends them.
//!
//! The list is bounded. What it has no room for is found again by a sweep over the table, as is what was
//! damaged already when the store was opened.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::ring::Position;

use super::entry::IndexEntry;
use crate::store::head::TableEntry as _;
use crate::store::table::RecordTable;

/// Most keys in the list.
const DAMAGED_KEYS_MAX: usize = 1_024;

/// So many records are looked at in one step of a sweep.
const SWEEP_RECORDS_MAX: usize = 4_096;

/// Is called when the list has a key.
pub type DamageHook = Box<dyn Fn() + Send + Sync>;

/// Keys whose records are damaged, or were when they were noted.
#[derive(Default)]
pub(super) struct DamagedKeys {
    list: Mutex<List>,
    hook: OnceLock<DamageHook>,
}

#[derive(Default)]
struct List {
    keys: VecDeque<Key>,
    /// Where a sweep goes on, if one is due: behind this key at this position.
    sweep: Option<(Position, Option<Key>)>,
}

impl DamagedKeys {
    /// A record is damaged.
    pub(super) fn note(&self, key: &[u8]) {
        {
            let mut list = self.lock();
            match key_of(key).filter(|_| list.keys.len() < DAMAGED_KEYS_MAX) {
                Some(key) => list.keys.push_back(key),
                // From the beginning, since it may lie where a sweep has been.
                None => list.sweep = Some(BEGINNING),
            }
        }
        if let Some(hook) = self.hook.get() {
            hook();
        }
    }

    /// Looks for what is damaged, wherever it is.
    pub(super) fn sweep(&self) {
        self.lock().sweep = Some(BEGINNING);
    }

    /// Calls `hook` whenever a record is noted from now on. Returns whether it is the only one.
    pub(super) fn set_hook(&self, hook: DamageHook) -> bool {
        self.hook.set(hook).is_ok()
    }

    /// Whether there may be more to take.
    pub(super) fn may_have(&self) -> bool {
        let list = self.lock();
        !list.keys.is_empty() || list.sweep.is_some()
    }

    /// The next key; none if there is none, or the sweep that is under way has not found any yet.
    pub(super) fn take(&self, table: &RecordTable<IndexEntry>) -> Option<Key> {
        let mut list = self.lock();
        if list.keys.is_empty()
            && let Some(from) = list.sweep.take()
        {
            list.sweep_on(from, table);
        }
        list.keys.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BEGINNING: (Position, Option<Key>) = (Position([0; 20]), None);

impl List {
    /// Takes a step of the sweep.
    fn sweep_on(
        &mut self,
        (position, after): (Position, Option<Key>),
        table: &RecordTable<IndexEntry>,
    ) {
        let (mut seen, mut last) = (0, None);
        table.scan(position, after.as_ref(), |held| {
            seen += 1;
            if held.is_damaged() {
                self.keys.extend(key_of(held.key()));
            }
            match seen < SWEEP_RECORDS_MAX && self.keys.len() < DAMAGED_KEYS_MAX {
                true => ControlFlow::Continue(()),
                false => {
                    last = key_of(held.key());
                    ControlFlow::Break(())
                }
            }
        });
        self.sweep = last.map(|last| (Position::of_key(&last), Some(last)));
    }
}

fn key_of(bytes: &[u8]) -> Option<Key> {
    Key::new(Bytes::copy_from_slice(bytes)).ok()
}

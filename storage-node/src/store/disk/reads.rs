//! Reads that wait for the disk.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dkvs_common::kv::Key;

use super::entry::Located;
use crate::store::contract::{Completion, GetResult, PutResult, ReadRequest};
use crate::store::view::RecordView;

/// Most reads that wait for the disk.
pub(super) const READS_WAITING_MAX: usize = 1_024;

/// Takes what a read finds.
pub(super) type Answer = Box<dyn for<'a> FnOnce(GetResult<RecordView<'a>>) + Send>;

/// A read that waits for the disk.
pub struct ColdRead {
    pub(super) key: Key,
    pub(super) wanted: Wanted,
    /// For [`Mutant::ColdReadShared`](dkvs_common::mutants::Mutant::ColdReadShared): what the first read of the key that waits was to be shown.
    #[cfg(feature = "mutants")]
    pub(super) located: Option<Located>,
}

/// What a read is for.
pub(super) enum Wanted {
    /// What may be shown of a record.
    View {
        read: ReadRequest,
        /// Which record is read; if none, the newest.
        place: Option<Located>,
        answer: Answer,
    },
    /// What is held, though it may not be shown yet: it is to be attested then. That takes so many
    /// bytes of what waits to be written.
    Attest {
        bytes: usize,
        completion: Completion<PutResult>,
    },
}

/// Reads in the order in which they came.
#[derive(Default)]
pub(super) struct ReadQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<ColdRead>,
    is_closed: bool,
}

impl ReadQueue {
    /// Adds a read, if there is room for it. What is wanted is made only then.
    pub(super) fn push(
        &self,
        key: &Key,
        wanted: impl FnOnce() -> Wanted,
        #[cfg(feature = "mutants")] located: Located,
    ) -> bool {
        let mut waiting = self.lock();
        if waiting.is_closed || waiting.reads.len() >= READS_WAITING_MAX {
            return false;
        }
        #[cfg(feature = "mutants")]
        let first = waiting.reads.iter().find(|it| it.key == *key);
        let cold = ColdRead {
            #[cfg(feature = "mutants")]
            located: first.map_or(Some(located), |first| first.located),
            key: key.clone(),
            wanted: wanted(),
        };
        waiting.reads.push_back(cold);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// The next read, if there is one.
    pub(super) fn take(&self) -> Option<ColdRead> {
        self.lock().reads.pop_front()
    }

    /// Waits for the next read; none when the queue is closed.
    pub(super) fn wait(&self) -> Option<ColdRead> {
        let mut waiting = self.lock();
        loop {
            if waiting.is_closed {
                return None;
            }
            if let Some(read) = waiting.reads.pop_front() {
                return Some(read);
            }
            let woken = self.arrived.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing more, and forgets what waits.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.reads.clear();
        drop(waiting);
        self.arrived.notify_all();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().reads.len()
    }

    /// A panic while it was locked leaves no read half in it.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

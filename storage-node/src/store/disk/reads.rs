//! Reads that wait for the disk.
//!
//! A read looks the key up again when its turn has come, so it is answered with the record that is
//! the newest then: never with one that was replaced before the read was asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dkvs_common::kv::Key;
#[cfg(feature = "mutants")]
use dkvs_common::mutants::{self, Mutant};
use dkvs_log::ReadError;

use super::entry::{Located, Place};
use super::store::DiskStore;
use crate::store::contract::{Completion, Lookup, ReadRequest};
use crate::store::view::{Part, RecordView};

/// Most reads that wait for the disk.
pub(super) const READS_WAITING_MAX: usize = 1_024;

/// How often a record may be moved away under a read. Each time compaction has removed a segment.
const TRIES_MAX: usize = 16;

/// Takes what a read finds.
pub(super) type Answer = Box<dyn for<'a> FnOnce(Lookup<RecordView<'a>>) + Send>;

/// A read that waits for the disk.
pub struct ColdRead {
    key: Key,
    read: ReadRequest,
    /// Which record is read; if none, the newest.
    place: Option<Located>,
    answer: Answer,
    /// For [`Mutant::ColdReadShared`]: what the first read of the key that waits was to be shown.
    #[cfg(feature = "mutants")]
    located: Option<Located>,
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
    /// Adds a read, if there is room for it. `answer` is made only then.
    pub(super) fn push(
        &self,
        key: &Key,
        (read, place): (ReadRequest, Option<Located>),
        answer: impl FnOnce() -> Answer,
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
            read,
            place,
            answer: answer(),
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

impl ColdRead {
    /// Reads, and answers, unless nobody waits for it any more at this time.
    pub fn run(self, store: &Arc<DiskStore>, now: Instant) {
        if self.read.deadline.is_some_and(|deadline| deadline <= now) {
            return store.status.reads.expired();
        }
        #[cfg(feature = "mutants")]
        if mutants::is_on(Mutant::ColdReadShared)
            && let Some(located) = self.located
            && let Ok(piece) = store
                .values
                .read(self.key.as_bytes(), &located, self.read.part)
            && let Some(view) = piece.view(&located, self.read.part)
        {
            return (self.answer)(Lookup::Found(view));
        }
        if let Some(located) = self.place
            && let Ok(piece) = store
                .values
                .read(self.key.as_bytes(), &located, self.read.part)
            && let Some(view) = piece.view(&located, self.read.part)
        {
            return (self.answer)(Lookup::Found(view));
        }
        store.read_with(&self.key, self.read.part, self.answer);
    }
}

impl DiskStore {
    /// Has the whole value of the record at a place read, or of a newer one if that is gone. None is
    /// given to the completion if there is none, or it is damaged. Returns whether the read was taken:
    /// not if too many wait.
    pub fn read_place(
        &self,
        key: &Key,
        place: &Place,
        completion: Completion<Option<Vec<u8>>>,
    ) -> bool {
        let read = ReadRequest {
            part: Part::Whole,
            deadline: None,
        };
        let answer = || -> Answer {
            Box::new(move |lookup| {
                completion(match lookup {
                    Lookup::Found(record) => Some(record.value().to_vec()),
                    Lookup::Absent | Lookup::Corrupt => None,
                });
            })
        };
        self.reads.push(
            key,
            (read, Some(place.0)),
            answer,
            #[cfg(feature = "mutants")]
            place.0,
        )
    }

    /// Reads from the disk, if need be, while the caller waits.
    pub fn read_now<R>(
        &self,
        key: &Key,
        part: Part,
        view: impl FnOnce(&RecordView<'_>) -> R,
    ) -> Lookup<R> {
        self.read_with(key, part, |lookup| lookup.map(|record| view(&record)))
    }

    fn read_with<R>(
        &self,
        key: &Key,
        part: Part,
        answer: impl for<'a> FnOnce(Lookup<RecordView<'a>>) -> R,
    ) -> R {
        for _ in 0..TRIES_MAX {
            let located = match self.locate(key) {
                Lookup::Found(located) => located,
                Lookup::Absent => return answer(Lookup::Absent),
                Lookup::Corrupt => return answer(Lookup::Corrupt),
            };
            if located.is_known_whole() {
                return answer(Lookup::Found(RecordView::of_head(located.head)));
            }
            match self.values.read(key.as_bytes(), &located, part) {
                Ok(piece) => {
                    if let Some(view) = piece.view(&located, part) {
                        return answer(Lookup::Found(view));
                    }
                    self.note_damage(key.as_bytes(), located.location);
                }
                // Its record was moved, or replaced, and its segment removed.
                Err(ReadError::Gone) => {}
                Err(ReadError::Damaged | ReadError::Io(_)) => {
                    self.note_damage(key.as_bytes(), located.location);
                }
            }
        }
        answer(Lookup::Corrupt)
    }
}

//! Reading values from the disk, on a thread that may wait for it.
//!
//! A read looks the key up again when its turn has come, so it is answered with the record that is
//! the newest then: never with one that was replaced before the read was asked for.

use std::sync::Arc;
use std::time::Instant;

use dkvs_common::kv::Key;
#[cfg(feature = "mutants")]
use dkvs_common::mutants::{self, Mutant};
use dkvs_log::ReadError;

use super::entry::Place;
use super::reads::{Answer, ColdRead};
use super::store::DiskStore;
use crate::store::contract::{Completion, Lookup, ReadRequest};
use crate::store::view::{Part, RecordView};

/// How often a record may be moved away under a read. Each time compaction has removed a segment.
const TRIES_MAX: usize = 16;

impl ColdRead {
    /// Reads, and answers, unless nobody waits for it any more at this time.
    pub fn run(self, store: &Arc<DiskStore>, now: Instant) {
        if self.read.deadline.is_some_and(|deadline| deadline <= now) {
            return store.status.reads.expired();
        }
        let place = self.place;
        #[cfg(feature = "mutants")]
        let place = match mutants::is_on(Mutant::ColdReadShared) {
            true => self.located.or(place),
            false => place,
        };
        let (key, part) = (self.key.as_bytes(), self.read.part);
        if let Some(located) = place
            && let Ok(piece) = store.values.read(key, &located, part)
            && let Some(view) = piece.view(&located, part)
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

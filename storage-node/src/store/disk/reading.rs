//! Reading values from the disk, on a thread that may wait for it.
//!
//! A read looks the key up again when its turn has come, so it is answered with the record that is
//! the newest then: never with one that was replaced before the read was asked for.
//!
//! A record that could not be read is read again when it is asked for, so an error of the disk that
//! passes takes nothing for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use dkvs_common::kv::Key;
#[cfg(feature = "mutants")]
use dkvs_common::mutants::{self, Mutant};
use dkvs_log::{Location, ReadError};

use super::entry::{Located, Place};
use super::queue::QueuedPut;
use super::reads::{ColdRead, Wanted};
use super::store::DiskStore;
use super::values::Piece;
use crate::store::contract::{Asker, Completion, GetResult, Lookup, ReadRequest, StoreError};
use crate::store::view::{Part, RecordView};

/// How often a record may be moved away under a read. Each time compaction has removed a segment.
const TRIES_MAX: usize = 16;

impl ColdRead {
    /// Reads, and answers, unless nobody waits for it any more at this time.
    pub fn run(self, store: &Arc<DiskStore>, now: Instant) {
        let (read, place, answer) = match self.wanted {
            Wanted::View {
                read,
                place,
                answer,
            } => (read, place, answer),
            Wanted::Attest { bytes, completion } => {
                let value = store.read_held(&self.key);
                let put = QueuedPut::Attested(self.key, value);
                return store.enqueue_or_refuse(bytes, put, completion);
            }
            Wanted::Scrub { completion } => return completion(store.scrub_now(&self.key)),
        };
        if read.deadline.is_some_and(|deadline| deadline <= now) {
            return store.status.reads.expired();
        }
        #[cfg(feature = "mutants")]
        let place = match mutants::is_on(Mutant::ColdReadShared) {
            true => self.located.or(place),
            false => place,
        };
        let (key, part) = (self.key.as_bytes(), read.part);
        if let Some(located) = place
            && let Ok(piece) = store.values.read(key, &located, part)
            && let Some(view) = piece.view(&located, part)
        {
            return answer(Ok(Lookup::Found(view)));
        }
        store.read_with(&self.key, part, answer);
    }

    /// Answers that it was not done since too many wait.
    fn refuse(self, store: &DiskStore) {
        if let Wanted::View { answer, .. } = self.wanted {
            store.status.reads.refused();
            answer(Err(StoreError::Busy));
        }
    }
}

impl DiskStore {
    /// Has a read wait for the disk, and refuses the one that gives way to it, if there is one. Returns
    /// whether the read was taken: not if too many wait.
    pub(super) fn wait_for_disk(
        &self,
        key: &Key,
        asker: Asker,
        wanted: impl FnOnce() -> Wanted,
        #[cfg(feature = "mutants")] located: Located,
    ) -> bool {
        let pushed = self.reads.push(
            key,
            asker,
            wanted,
            #[cfg(feature = "mutants")]
            Some(located),
        );
        let Ok(displaced) = pushed else {
            return false;
        };
        if let Some(displaced) = displaced {
            displaced.refuse(self);
        }
        true
    }

    /// Has the whole value of the record at a place read, or of a newer one if that is gone. None is
    /// given to the completion if there is none, or it is damaged, and an error if it cannot be read
    /// now. Returns whether the read was taken: not if too many wait.
    pub fn read_place(
        &self,
        key: &Key,
        place: &Place,
        completion: Completion<Result<Option<Vec<u8>>, StoreError>>,
    ) -> bool {
        let read = ReadRequest {
            part: Part::Whole,
            deadline: None,
            asker: Asker::OWN,
        };
        let wanted = || Wanted::View {
            read,
            place: Some(place.0),
            answer: Box::new(move |lookup| {
                completion(lookup.map(|lookup| match lookup {
                    Lookup::Found(record) => Some(record.value().to_vec()),
                    Lookup::Absent | Lookup::Corrupt => None,
                }));
            }),
        };
        self.wait_for_disk(
            key,
            Asker::OWN,
            wanted,
            #[cfg(feature = "mutants")]
            place.0,
        )
    }

    /// Reads from the disk, if need be, while the caller waits. What cannot be read now is as good as
    /// corrupt.
    pub fn read_now<R>(
        &self,
        key: &Key,
        part: Part,
        view: impl FnOnce(&RecordView<'_>) -> R,
    ) -> Lookup<R> {
        self.read_with(key, part, |lookup| {
            let lookup = lookup.unwrap_or(Lookup::Corrupt);
            lookup.map(|record| view(&record))
        })
    }

    fn read_with<R>(
        &self,
        key: &Key,
        part: Part,
        answer: impl for<'a> FnOnce(GetResult<RecordView<'a>>) -> R,
    ) -> R {
        for _ in 0..TRIES_MAX {
            let located = match self.locate_to_read(key) {
                Lookup::Found(located) => located,
                Lookup::Absent => return answer(Ok(Lookup::Absent)),
                Lookup::Corrupt => return answer(Ok(Lookup::Corrupt)),
            };
            let read = match located.head.is_damaged {
                true => match self.read_again(key, &located) {
                    Some(read) => read,
                    None => break,
                },
                false if located.is_known_whole() => {
                    return answer(Ok(Lookup::Found(RecordView::of_head(located.head))));
                }
                false => self.values.read(key.as_bytes(), &located, part),
            };
            match read.as_ref().map(|piece| piece.view(&located, part)) {
                Ok(Some(view)) => {
                    let answered = answer(Ok(Lookup::Found(view)));
                    // After the answer, which does not wait for it.
                    if read.is_ok_and(|piece| piece.is_whole_due) {
                        self.verify(key, &located);
                    }
                    return answered;
                }
                // Its record was moved, or replaced, and its segment removed.
                Err(ReadError::Gone) => {}
                Err(ReadError::OutOfFiles(_)) => return answer(Err(StoreError::OutOfFiles)),
                Ok(None) | Err(ReadError::Damaged | ReadError::Io(_)) => {
                    self.note_damage(key.as_bytes(), located.location);
                    let now = self.table().read(key, Located::of);
                    if now.is_none_or(|now| now.location == located.location) {
                        break;
                    }
                }
            }
        }
        answer(Ok(Lookup::Corrupt))
    }

    /// The value of the log of the record that is held, quarantined or not, and where that lies.
    fn read_held(&self, key: &Key) -> Option<(Location, Bytes)> {
        let located = self.table().read(key, Located::of)?;
        let value = self.values.read_past_cache(key.as_bytes(), &located);
        Some((located.location, value.ok()?))
    }

    /// Notes damage of a long value of which a part was read.
    fn verify(&self, key: &Key, located: &Located) {
        match self.values.verify(key.as_bytes(), located) {
            Err(ReadError::Damaged | ReadError::Io(_)) => {
                self.note_damage(key.as_bytes(), located.location);
            }
            Err(ReadError::Gone | ReadError::OutOfFiles(_)) | Ok(()) => {}
        }
    }

    /// Reads a record that could not be read before: an error of the disk may have passed. One such
    /// read is under way at a time, since a disk that fails may take long to say so: none while it is.
    pub(super) fn read_again(
        &self,
        key: &Key,
        located: &Located,
    ) -> Option<Result<Piece, ReadError>> {
        if self.is_reading_again.swap(true, Ordering::Acquire) {
            return None;
        }
        let read = self.values.read_past_cache(key.as_bytes(), located);
        self.is_reading_again.store(false, Ordering::Release);
        Some(read.map(|bytes| {
            self.note_sound(key, located.location);
            Piece::whole(bytes)
        }))
    }
}

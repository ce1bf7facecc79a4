//! Reading records again though nobody asks for them, and writing anew what only memory still has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_log::{Location, ReadError};

use super::damage::DamageHook;
use super::entry::{IndexEntry, Located};
use super::queue::QueuedPut;
use super::reads::{Scrubbed, Wanted};
use super::store::DiskStore;
use crate::store::contract::{Asker, Completion, PutResult};

/// How often a record may be moved away under a read.
const TRIES_MAX: usize = 4;

impl DiskStore {
    /// Has the record of a key read from the disk and verified, sound, damaged or quarantined, as soon as a
    /// reader has time. What cannot be read as it was written is noted as damaged; what can be read again is
    /// so no more. Returns whether the read was taken: not if too many wait.
    pub fn scrub(&self, key: &Key, completion: Completion<Scrubbed>) -> bool {
        let Some(located) = self.table().read(key, Located::of) else {
            completion(Scrubbed::default());
            return true;
        };
        #[cfg(not(feature = "mutants"))]
        let _ = located;
        self.wait_for_disk(
            key,
            Asker::OWN,
            || Wanted::Scrub { completion },
            #[cfg(feature = "mutants")]
            located,
        )
    }

    /// The same at once.
    pub(super) fn scrub_now(&self, key: &Key) -> Scrubbed {
        for _ in 0..TRIES_MAX {
            let Some(located) = self.table().read(key, Located::of) else {
                break;
            };
            let read = match located.head.is_damaged {
                true => match self.read_again(key, &located) {
                    Some(read) => read.map(drop),
                    // Another reader is at such a one.
                    None => break,
                },
                false => self.values.verify(key.as_bytes(), &located),
            };
            match read {
                Ok(()) => {}
                Err(ReadError::Gone) => continue,
                Err(ReadError::OutOfFiles(_)) => break,
                Err(ReadError::Damaged | ReadError::Io(_)) if located.head.is_damaged => {
                    self.damaged.note(key.as_bytes());
                }
                Err(ReadError::Damaged | ReadError::Io(_)) => {
                    self.note_damage(key.as_bytes(), located.location);
                }
            }
            let bytes = located.location.bytes;
            self.status.scrub.read(bytes);
            return Scrubbed { bytes };
        }
        Scrubbed::default()
    }

    /// Where the record of a key lies in the log, if there is one: for who damages it there.
    pub fn location(&self, key: &Key) -> Option<Location> {
        self.table().read(key, IndexEntry::location)
    }

    /// A scrub has come to the end of the ring.
    pub fn end_scrub_round(&self, now: Instant) {
        self.status.scrub.end_round(now);
    }

    /// Writes the record at a place anew if memory has all of it. Returns whether it is about to.
    pub(super) fn write_anew(&self, key: &[u8], location: Location) -> bool {
        let located = self.table().read_bytes(key, Located::of);
        let Some(located) = located.filter(|it| it.location == location && !it.head.is_damaged)
        else {
            return false;
        };
        let Some(log_value) = self.values.in_memory(key, &located) else {
            return false;
        };
        let bytes = key.len() + log_value.len();
        let put = QueuedPut::Anew {
            key: Bytes::copy_from_slice(key),
            location,
            log_value,
        };
        let status = Arc::clone(&self.status);
        let completion = Box::new(move |result: PutResult| {
            if result.is_ok() {
                status.damaged.fetch_add(1, Ordering::Relaxed);
                status.mended.fetch_add(1, Ordering::Relaxed);
            }
        });
        let is_taken = self.enqueue_put(bytes, put, || completion).is_none();
        if is_taken {
            tracing::warn!(
                segment = location.segment,
                offset = location.offset,
                bytes = location.bytes,
                "a record cannot be read as it was written; it is written anew from memory"
            );
            self.wake();
        }
        is_taken
    }

    /// The next key whose record is damaged, or was; none if there is none, or none was found yet.
    pub fn take_damaged(&self) -> Option<Key> {
        self.damaged.take(self.table())
    }

    /// Whether [`Self::take_damaged`] may have more.
    pub fn may_have_damaged(&self) -> bool {
        self.damaged.may_have()
    }

    /// Has [`Self::take_damaged`] return once more whatever is damaged.
    pub fn find_damaged(&self) {
        self.damaged.sweep();
    }

    /// Calls `hook` whenever a record is found damaged from now on. Returns whether it is the only one.
    pub fn set_damage_hook(&self, hook: DamageHook) -> bool {
        self.damaged.set_hook(hook)
    }
}

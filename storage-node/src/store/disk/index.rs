//! The store as the log knows it: which of its records are live, and where they have moved to.

use std::collections::BTreeMap;

use bytes::Bytes;
#[cfg(feature = "mutants")]
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::tag::Tag;
use dkvs_log::{Index, Liveness, Location, Visited};

use super::entry::IndexEntry;
use super::format::{self, Decoded, Kind};
use super::store::DiskStore;

/// By key: which version something accepted is to follow, and where it lies.
pub(super) type SlotLocations = BTreeMap<Bytes, (Tag, Location)>;

/// What the log is told of its records while it is compacted.
pub(super) struct LogIndex<'a> {
    pub(super) store: &'a DiskStore,
    /// Where the manifest of the store lies.
    pub(super) manifest: &'a mut Option<Location>,
    /// Where what is accepted lies.
    pub(super) slots: &'a mut SlotLocations,
    /// What removals take in the log, in bytes.
    pub(super) removal_bytes: &'a mut u64,
}

impl LogIndex<'_> {
    fn decode(record: &Visited<'_>) -> Option<Decoded> {
        let value_bytes = record.value_bytes as usize;
        format::decode(record.head, record.key.len(), value_bytes).ok()
    }

    fn is_slot_at(&self, key: &[u8], location: Location) -> bool {
        self.slots.get(key).is_some_and(|(_, at)| *at == location)
    }

    fn is_at(&self, key: &[u8], location: Location) -> bool {
        let is_it = |held: &IndexEntry| held.location() == location;
        self.store.table().read_bytes(key, is_it) == Some(true)
    }
}

impl Index for LogIndex<'_> {
    fn liveness(&mut self, record: &Visited<'_>, is_oldest: bool) -> Liveness {
        let live_if = |is_live: bool| match is_live {
            true => Liveness::Live,
            false => Liveness::Dead,
        };
        match Self::decode(record) {
            Some(Decoded::Manifest(_)) => live_if(*self.manifest == Some(record.location)),
            Some(Decoded::Record(head)) if head.kind == Kind::Slot => {
                live_if(self.is_slot_at(record.key, record.location))
            }
            Some(Decoded::Record(head)) if head.kind == Kind::Removal => {
                // A newer record of the key says the same of the older ones.
                let is_superseded = || {
                    let table = self.store.table();
                    table.read_bytes(record.key, |_| ()).is_some()
                };
                if !is_oldest && !is_superseded() {
                    return Liveness::Live;
                }
                let bytes = u64::from(record.location.bytes);
                *self.removal_bytes = self.removal_bytes.saturating_sub(bytes);
                Liveness::Expired
            }
            // All heads were understood when the log was opened.
            Some(Decoded::Record(_)) | None => live_if(self.is_at(record.key, record.location)),
        }
    }

    fn head_of_copy(&mut self, record: &Visited<'_>) -> Option<Vec<u8>> {
        #[cfg(feature = "mutants")]
        if mutants::is_on(Mutant::QuarantineNotCopied) {
            return None;
        }
        let stored = |held: &IndexEntry| {
            let is_it = held.location() == record.location;
            is_it.then(|| held.stored_head().encode())
        };
        let head = self.store.table().read_bytes(record.key, stored)??;
        (head != record.head).then(|| head.to_vec())
    }

    fn moved(&mut self, key: &[u8], from: Location, to: Location, _: u64) {
        if key.is_empty() && *self.manifest == Some(from) {
            *self.manifest = Some(to);
            return;
        }
        if let Some((_, at)) = self.slots.get_mut(key)
            && *at == from
        {
            *at = to;
            return;
        }
        self.store.values.moved(from, to);
        self.store.table().adjust(key, |held| {
            if held.location() == from {
                held.set_location(to);
            }
        });
    }

    fn unreadable(&mut self, record: &Visited<'_>) {
        self.store.note_damage(record.key, record.location);
    }
}

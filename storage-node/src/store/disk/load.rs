//! Takes what a log shows into a table, when a store is opened.
//!
//! The newest record of a key is the one with the greatest number, since the store takes only what is
//! newer than what it holds. Records are shown in the order of their numbers, and that is the order
//! of their places, too. So which of them are quarantined because of their number is known by their
//! place, once the number is.

use bytes::Bytes;
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_log::{Location, LostRange, Visited};

use super::entry::IndexEntry;
use super::format::{self, Decoded, Kind, Manifest, StoredHead, UnknownHead, flags};
use super::index::SlotLocations;
use crate::store::head::TableEntry as _;
use crate::store::ranges::{Interval, IntervalSet};
use crate::store::table::TableBuilder;

/// What was shown so far.
pub(super) struct Loading {
    pub(super) table: TableBuilder<IndexEntry>,
    /// The newest manifest, and where it lies.
    pub(super) manifest: Option<(Manifest, Location)>,
    /// Whether that says that parts of the ring are attested.
    pub(super) is_attested: bool,
    /// The last number.
    pub(super) last: u64,
    /// What is accepted, and where it lies.
    slots: SlotLocations,
    /// Where what was accepted lies that is of no use any more.
    dead_slots: Vec<Location>,
    /// What removals take in the log, in bytes.
    pub(super) removal_bytes: u64,
    /// The first record after each gap between numbers, and each manifest: whatever number records
    /// were quarantined up to, the next one that there is is one of these, or there is none.
    boundaries: Vec<(u64, Location)>,
    /// How many entries have the flag.
    quarantined: usize,
    /// The number and the problem of the first record that is not understood.
    pub(super) unknown: Option<(u64, UnknownHead)>,
}

impl Loading {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            table: TableBuilder::new(bytes_max),
            manifest: None,
            is_attested: false,
            last: 0,
            slots: SlotLocations::new(),
            dead_slots: Vec::new(),
            removal_bytes: 0,
            boundaries: Vec::new(),
            quarantined: 0,
            unknown: None,
        }
    }

    /// Takes a record. Returns where the one lies that is dead because of it.
    pub(super) fn visit(&mut self, record: &Visited<'_>) -> Option<Location> {
        let (number, location) = (record.sequence, record.location);
        if number != self.last + 1 {
            self.boundaries.push((number, location));
        }
        self.last = number;
        let value_bytes = record.value_bytes as usize;
        match format::decode(record.head, record.key.len(), value_bytes) {
            Ok(Decoded::Manifest(manifest)) => {
                self.boundaries.push((number, location));
                self.is_attested = value_bytes > 0;
                self.take_manifest(manifest, location)
            }
            Ok(Decoded::Record(head)) => self.take_record(record, &head),
            Err(unknown) => {
                self.unknown = self.unknown.or(Some((number, unknown)));
                Some(location)
            }
        }
    }

    fn take_manifest(&mut self, manifest: Manifest, location: Location) -> Option<Location> {
        if manifest.is_complete {
            // It was declared to be.
            self.end_quarantine();
        }
        let old = self.manifest.replace((manifest, location));
        old.map(|(_, location)| location)
    }

    fn take_record(&mut self, record: &Visited<'_>, head: &StoredHead) -> Option<Location> {
        let tag = match head.kind {
            Kind::Slot => {
                let slot = (head.tag, record.location);
                let key = Bytes::copy_from_slice(record.key);
                return self.slots.insert(key, slot).map(|(_, old)| old);
            }
            Kind::Removal => Tag::ZERO,
            _ => head.tag,
        };
        // A slot ends with the version that it follows.
        if let Some((base, _)) = self.slots.get(record.key)
            && *base != tag
            && let Some((_, dead)) = self.slots.remove(record.key)
        {
            self.dead_slots.push(dead);
        }
        let old = match head.kind {
            Kind::Removal => {
                self.removal_bytes += u64::from(record.location.bytes);
                self.table.remove(record.key)
            }
            _ => {
                let mut entry = IndexEntry::new(record.key, head, record.location);
                if record.is_value_lost {
                    entry.set_damaged(true);
                }
                self.quarantined += usize::from(head.flags & flags::QUARANTINED != 0);
                self.table.insert(entry)
            }
        };
        old.map(|held| {
            self.quarantined -= usize::from(held.is_quarantined());
            held.location()
        })
    }

    /// What is accepted of what there is now, and what lies in the log to no use any more.
    pub(super) fn take_slots(&mut self) -> (SlotLocations, Vec<Location>) {
        let (slots, mut dead) = (
            std::mem::take(&mut self.slots),
            std::mem::take(&mut self.dead_slots),
        );
        let table = &self.table;
        let is_live = |key: &Bytes, base: Tag| table.tag(key).unwrap_or(Tag::ZERO) == base;
        let mut live = SlotLocations::new();
        for (key, (base, location)) in slots {
            match is_live(&key, base) {
                true => drop(live.insert(key, (base, location))),
                false => dead.push(location),
            }
        }
        (live, dead)
    }

    /// Quarantines nothing of what was shown so far.
    pub(super) fn end_quarantine(&mut self) {
        if self.quarantined > 0 {
            self.table.adjust_all(|held| held.set_quarantined(false));
            self.quarantined = 0;
        }
    }

    /// Quarantines the records with this number or a smaller one, or all of them.
    pub(super) fn quarantine_up_to(&self, floor: u64) {
        let above = self.boundaries.iter().find(|(number, _)| *number > floor);
        let place = |at: Location| (at.segment, at.offset);
        let end = above.map(|(_, location)| place(*location));
        self.table.adjust_all(|held| {
            if end.is_none_or(|end| place(held.location()) < end) {
                held.set_quarantined(true);
            }
        });
    }

    /// Quarantines nothing of parts of the ring for which the store answers.
    pub(super) fn attest(&self, attested: &IntervalSet) {
        if attested.is_empty() {
            return;
        }
        self.table.adjust_all(|held| {
            if held.is_quarantined()
                && attested.contains(Interval::at(Position::of_key_bytes(held.key())))
            {
                held.set_quarantined(false);
            }
        });
    }

    /// How many entries are quarantined, and how many damaged.
    pub(super) fn count(&self) -> (u64, u64) {
        let (mut quarantined, mut damaged) = (0, 0);
        self.table.adjust_all(|held| {
            quarantined += u64::from(held.is_quarantined());
            damaged += u64::from(held.is_damaged());
        });
        (quarantined, damaged)
    }
}

/// The floor that lost ranges make.
pub(super) fn floor_of(lost: &[LostRange]) -> u64 {
    lost.iter().map(|range| range.last).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(loading: &mut Loading, number: u64, key: &[u8], head: &[u8]) -> Option<u32> {
        let visited = Visited {
            sequence: number,
            key,
            head,
            location: Location {
                segment: 1,
                offset: number as u32 * 100,
                bytes: 100,
            },
            value_bytes: 5 * u32::from(!key.is_empty()),
            is_value_lost: false,
        };
        loading.visit(&visited).map(|dead| dead.offset / 100)
    }

    fn head(time: u64) -> StoredHead {
        StoredHead {
            kind: Kind::Value,
            flags: 0,
            tag: Tag { time, op: 1 },
            checksum: 0,
            value_bytes: 1,
            born: 0,
        }
    }

    fn quarantined(loading: &Loading) -> Vec<u8> {
        let mut keys = Vec::new();
        loading.table.adjust_all(|held| {
            if held.is_quarantined() {
                keys.push(held.key()[0]);
            }
        });
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_newest_by_number_is_taken_and_the_other_is_dead() {
        let mut loading = Loading::new(usize::MAX);
        assert_eq!(visit(&mut loading, 1, b"a", &head(5).encode()), None);
        assert_eq!(visit(&mut loading, 2, b"b", &head(6).encode()), None);
        assert_eq!(visit(&mut loading, 3, b"a", &head(7).encode()), Some(1));
        let removal = StoredHead::of_removal(Tag { time: 7, op: 1 });
        assert_eq!(visit(&mut loading, 4, b"a", &removal.encode()), Some(3));
        // It came again, with an older tag.
        assert_eq!(visit(&mut loading, 5, b"a", &head(5).encode()), None);
        assert_eq!(loading.removal_bytes, 100);
        assert!(loading.unknown.is_none());
        let table = loading.table.build();
        let tag = table.read_bytes(b"a", IndexEntry::tag);
        assert_eq!(tag, Some(Tag { time: 5, op: 1 }));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn numbers_up_to_the_floor_are_quarantined_and_no_others() {
        let loading = || {
            let mut loading = Loading::new(usize::MAX);
            for (number, key) in [(1, b"a"), (2, b"b"), (5, b"c"), (6, b"d")] {
                visit(&mut loading, number, key, &head(1).encode());
            }
            let manifest = Manifest::default().encode();
            visit(&mut loading, 7, b"", &manifest);
            visit(&mut loading, 8, b"e", &head(1).encode());
            loading
        };
        for (floor, expected) in [
            (4, &b"ab"[..]),
            // Where no gap shows which are above it, rather more.
            (5, b"abcd"),
            (6, b"abcd"),
            (7, b"abcde"),
            (100, b"abcde"),
        ] {
            let loading = loading();
            loading.quarantine_up_to(floor);
            assert_eq!(quarantined(&loading), expected, "{floor}");
        }
    }

    #[test]
    fn a_manifest_that_says_complete_ends_the_quarantine_of_what_was_before() {
        let mut loading = Loading::new(usize::MAX);
        let mut doubtful = head(1);
        doubtful.flags = flags::QUARANTINED;
        visit(&mut loading, 1, b"a", &doubtful.encode());
        let complete = Manifest {
            is_complete: true,
            ..Manifest::default()
        };
        visit(&mut loading, 2, b"", &Manifest::default().encode());
        assert_eq!(quarantined(&loading), b"a");
        assert_eq!(visit(&mut loading, 3, b"", &complete.encode()), Some(2));
        visit(&mut loading, 4, b"b", &doubtful.encode());
        assert_eq!(quarantined(&loading), b"b");
        assert_eq!(loading.count(), (1, 0));
    }

    #[test]
    fn what_is_not_understood_is_reported() {
        let mut loading = Loading::new(usize::MAX);
        let mut newer = head(1).encode();
        newer[0] = 3;
        assert_eq!(visit(&mut loading, 1, b"a", &newer), Some(1));
        assert_eq!(loading.unknown, Some((1, UnknownHead::Newer(3))));
        assert_eq!(loading.table.build().len(), 0);
    }
}

//! A part of the records, in ring order: by position, then by key.
//!
//! Of a record's position it keeps a prefix of four bytes, by which a tree orders the slots. The
//! records of one slot have the prefix in common; their whole positions are computed only to
//! distinguish them, which is rare. So the order costs four bytes for each record, not twenty.

use std::collections::btree_map::{self, BTreeMap};
use std::mem;
use std::ops::Bound;

use dkvs_common::ring::Position;

use crate::store::head::TableEntry;

/// Where a record stands, or would stand.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The bytes of the position by which slots are ordered.
    pub(super) prefix: u32,
    /// The whole position.
    pub(super) position: Position,
    /// The key; no bytes stand before all keys of the position.
    pub(super) key: &'a [u8],
}

impl Place<'_> {
    /// Before all records of a shard, whichever it is.
    pub(super) const START: Self = Self {
        prefix: 0,
        position: Position([0; 20]),
        key: &[],
    };
}

/// How many bits of a position name its shard.
pub(super) const SHARD_BITS: u32 = 8;

/// The number of the shard in which a position is.
pub(super) fn shard_number(position: Position) -> usize {
    (head(position) >> (64 - SHARD_BITS)) as usize
}

/// Where a key of a position stands in its shard.
pub(super) fn place(position: Position, key: &[u8]) -> Place<'_> {
    Place {
        prefix: (head(position) << SHARD_BITS >> 32) as u32,
        position,
        key,
    }
}

/// A position's first 64 bits.
fn head(position: Position) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = position.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Records in ring order.
pub(super) struct Shard<E> {
    slots: BTreeMap<u32, Slot<E>>,
}

impl<E> Default for Shard<E> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
        }
    }
}

/// The place of a key, to be read or filled.
pub(super) enum Entry<'a, E> {
    /// The key's record.
    Occupied(&'a mut E),
    /// There is none.
    Vacant(Vacancy<'a, E>),
}

/// A place without a record.
pub(super) enum Vacancy<'a, E> {
    /// Nor is there any with the same prefix.
    Alone(btree_map::VacantEntry<'a, u32, Slot<E>>),
    /// It is the place with this number among those with the same prefix.
    Beside(&'a mut Slot<E>, usize),
}

impl<E: TableEntry> Shard<E> {
    pub(super) fn find(&self, place: Place<'_>) -> Option<&E> {
        let slot = self.slots.get(&place.prefix)?;
        let number = slot.search(place).ok()?;
        slot.records().get(number)
    }

    pub(super) fn entry(&mut self, place: Place<'_>) -> Entry<'_, E> {
        let slot = match self.slots.entry(place.prefix) {
            btree_map::Entry::Vacant(vacant) => return Entry::Vacant(Vacancy::Alone(vacant)),
            btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        match slot.search(place) {
            Ok(number) => Entry::Occupied(&mut slot.records_mut()[number]),
            Err(number) => Entry::Vacant(Vacancy::Beside(slot, number)),
        }
    }

    /// Takes out the record of a key, if it is there and `is_it` is true of it.
    pub(super) fn remove_if(
        &mut self,
        place: Place<'_>,
        is_it: impl FnOnce(&E) -> bool,
    ) -> Option<E> {
        let btree_map::Entry::Occupied(mut occupied) = self.slots.entry(place.prefix) else {
            return None;
        };
        let number = occupied.get().search(place).ok()?;
        if !occupied.get().records().get(number).is_some_and(is_it) {
            return None;
        }
        match occupied.get_mut() {
            Slot::Several(several) if several.0.len() > 1 => {
                let removed = several.0.remove(number);
                // As when it grew: no memory that is not counted.
                several.0.shrink_to_fit();
                Some(removed)
            }
            _ => occupied.remove().into_first(),
        }
    }

    /// Every record, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.slots.values().flat_map(Slot::records)
    }

    /// Every record, in order, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.slots.values_mut().flat_map(Slot::records_mut)
    }

    /// The records that stand after a place, in order.
    pub(super) fn after(&self, place: Place<'_>) -> impl Iterator<Item = &E> {
        let slot = self.slots.get(&place.prefix);
        let slot = slot.map_or(&[][..], |slot| slot.after(place));
        let rest = (Bound::Excluded(place.prefix), Bound::Unbounded);
        let rest = self.slots.range(rest);
        slot.iter().chain(rest.flat_map(|(_, slot)| slot.records()))
    }
}

impl<E: TableEntry> Vacancy<'_, E> {
    pub(super) fn insert(self, record: E) {
        match self {
            Self::Alone(vacant) => {
                vacant.insert(Slot::One(record));
            }
            Self::Beside(slot, number) => slot.insert(number, record),
        }
    }
}

/// The records of one prefix, at least one, in order.
pub(super) enum Slot<E> {
    One(E),
    Several(Box<Several<E>>),
}

/// Boxed, so that a slot is no larger than the one record that it nearly always has.
pub(super) struct Several<E>(Vec<E>);

impl<E: TableEntry> Slot<E> {
    fn records(&self) -> &[E] {
        match self {
            Self::One(record) => std::slice::from_ref(record),
            Self::Several(several) => &several.0,
        }
    }

    fn records_mut(&mut self) -> &mut [E] {
        match self {
            Self::One(record) => std::slice::from_mut(record),
            Self::Several(several) => &mut several.0,
        }
    }

    /// The number of the record of this key, or the one that it would have.
    fn search(&self, place: Place<'_>) -> Result<usize, usize> {
        let records = self.records();
        // Spares the digest where there is nothing to distinguish.
        if let [held] = records
            && held.key() == place.key
        {
            return Ok(0);
        }
        records.binary_search_by(|held| order(held).cmp(&(place.position, place.key)))
    }

    fn into_first(self) -> Option<E> {
        match self {
            Self::One(record) => Some(record),
            Self::Several(several) => several.0.into_iter().next(),
        }
    }

    fn after(&self, place: Place<'_>) -> &[E] {
        let records = self.records();
        let stands_before = |held: &E| order(held) <= (place.position, place.key);
        &records[records.partition_point(stands_before)..]
    }

    fn insert(&mut self, number: usize, record: E) {
        let mut several = match mem::replace(self, Self::Several(Box::new(Several(Vec::new())))) {
            Self::One(held) => Box::new(Several(vec![held])),
            Self::Several(several) => several,
        };
        // More room than it takes would be memory that is not counted.
        several.0.reserve_exact(1);
        several.0.insert(number, record);
        *self = Self::Several(several);
    }
}

fn order<E: TableEntry>(record: &E) -> (Position, &[u8]) {
    (Position::of_key_bytes(record.key()), record.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::packed::PackedRecord;
    use dkvs_common::kv::Key;
    use dkvs_common::record::{Content, Record};
    use dkvs_common::tag::Tag;

    /// A place with so short a prefix that many keys share it.
    fn place(key: &[u8]) -> Place<'_> {
        let position = Position::of_key_bytes(key);
        Place {
            prefix: u32::from(position.0[0] >> 6),
            position,
            key,
        }
    }

    fn names(count: u32) -> Vec<Vec<u8>> {
        (0..count).map(|number| number.to_string().into()).collect()
    }

    fn shard(names: &[Vec<u8>]) -> Shard<PackedRecord> {
        let mut shard = Shard::default();
        for name in names {
            let key = Key::new(name.clone()).unwrap();
            let record = Record::new(&key, Tag::ZERO, Content::Tombstone);
            let Entry::Vacant(vacancy) = shard.entry(place(name)) else {
                panic!("{key:?} is there already");
            };
            vacancy.insert(PackedRecord::new(&key, &record));
        }
        shard
    }

    fn keys<'a>(records: impl Iterator<Item = &'a PackedRecord>) -> Vec<Vec<u8>> {
        records.map(|held| held.key().to_vec()).collect()
    }

    #[test]
    fn a_slot_is_as_small_as_a_record() {
        assert_eq!(
            (size_of::<Slot<PackedRecord>>(), size_of::<PackedRecord>()),
            (16, 16)
        );
    }

    #[test]
    fn keys_that_share_a_prefix_are_told_apart() {
        let names = names(100);
        let mut shard = shard(&names);
        assert_eq!(shard.slots.len(), 4);
        for name in &names {
            assert_eq!(shard.find(place(name)).unwrap().key(), name);
            assert!(
                matches!(shard.entry(place(name)), Entry::Occupied(held) if held.key() == name)
            );
        }
        for name in [&b"100"[..], b"x", b"0 "] {
            assert!(shard.find(place(name)).is_none());
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_nothing_else() {
        let names = names(40);
        let mut shard = shard(&names);
        let mut left = names.clone();
        left.sort_by_key(|name| Position::of_key_bytes(name));
        for name in &names {
            assert!(shard.remove_if(place(name), |_| false).is_none());
            let removed = shard.remove_if(place(name), |_| true);
            assert_eq!(removed.unwrap().key(), name);
            assert!(shard.remove_if(place(name), |_| true).is_none());
            left.retain(|other| other != name);
            assert_eq!(keys(shard.iter()), left);
        }
        assert!(shard.slots.is_empty(), "a slot has a record");
    }

    #[test]
    fn the_order_is_by_position_whatever_prefixes_are_shared() {
        let mut names = names(100);
        let shard = shard(&names);
        names.sort_by_key(|name| Position::of_key_bytes(name));
        assert_eq!(keys(shard.iter()), names);
        for (number, name) in names.iter().enumerate() {
            assert_eq!(keys(shard.after(place(name))), names[number + 1..]);
            let before_its_keys = Place {
                key: &[],
                ..place(name)
            };
            assert_eq!(keys(shard.after(before_its_keys)), names[number..]);
        }
    }
}

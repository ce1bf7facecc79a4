//! The keys of a table in the order of their bytes: blocks of front-coded keys in a tree, by the first
//! key of each.
//!
//! ```text
//!   tree:  "a/1" -> rest of a block | "a/7" -> ... | "b/3" -> ...
//! ```
//!
//! It holds every key once, whole or what the key before lacks of it, and no records: whoever has a key
//! looks for its record.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use dkvs_common::model::Direction;

use super::key_block::{self, Block, Edit, REST_BYTES_MAX};

/// Where a range of keys begins and ends, whichever the direction.
pub type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The first key of a block, and its rest.
type OwnedBlock = (Box<[u8]>, Box<[u8]>);

/// The same, of which the rest may be changed.
type BlockMut<'a> = (&'a Box<[u8]>, &'a mut Box<[u8]>);

/// The keys of a table in the order of their bytes.
#[derive(Default)]
pub(super) struct KeyOrder {
    blocks: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl KeyOrder {
    /// The order of these keys, which have to ascend.
    pub(super) fn of_ascending<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut blocks = Vec::new();
        let (mut first, mut last) = (None, &[][..]);
        let mut rest = Vec::with_capacity(REST_BYTES_MAX);
        for key in keys {
            if first.is_none() || !key_block::append(&mut rest, last, key) {
                blocks.extend(block(first.replace(key), &rest));
                rest.clear();
            }
            last = key;
        }
        blocks.extend(block(first, &rest));
        let blocks = blocks.into_iter().collect();
        Self { blocks }
    }

    /// Takes in a key, which has to be new.
    pub(super) fn insert(&mut self, key: &[u8]) {
        let Some((first, rest)) = self.block_of_mut(key) else {
            self.blocks.insert(key.into(), Box::default());
            return;
        };
        match (Block { first, rest }).insert(key) {
            Edit::Rest(new) => *rest = new,
            edit => {
                let first = first.clone();
                self.edit(&first, edit);
            }
        }
    }

    /// Takes out a key, which has to be there.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let Some((first, rest)) = self.block_of_mut(key) else {
            return;
        };
        let edit = (Block { first, rest }).remove(key);
        let first = first.clone();
        self.edit(&first, edit);
    }

    /// Adds the keys of a range to a batch, in this direction, for as long as they fit.
    pub(super) fn fill(&self, range: KeyRange<'_>, direction: Direction, batch: &mut KeyBatch) {
        match direction {
            Direction::Ascending => self.fill_ascending(range, batch),
            Direction::Descending => self.fill_descending(range, batch),
        }
    }

    fn fill_ascending(&self, range: KeyRange<'_>, batch: &mut KeyBatch) {
        // A block that begins before the range may have keys in it.
        let from = match range.0 {
            Bound::Included(key) | Bound::Excluded(key) => self.first_up_to(key),
            Bound::Unbounded => None,
        };
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        for (first, rest) in self.blocks.range::<[u8], _>((from, Bound::Unbounded)) {
            let mut walk = Block { first, rest }.walk();
            while walk.step() {
                if is_before(walk.key(), range.0) {
                    continue;
                }
                if is_behind(walk.key(), range.1) || !batch.push(walk.key()) {
                    return;
                }
            }
        }
    }

    fn fill_descending(&self, range: KeyRange<'_>, batch: &mut KeyBatch) {
        let to = match range.1 {
            Bound::Excluded(key) => Bound::Included(key),
            to => to,
        };
        for (first, rest) in self.blocks.range::<[u8], _>((Bound::Unbounded, to)).rev() {
            // A block can be walked forwards alone: once to see which of its keys come into the batch,
            // and once to take them.
            let (mut lengths, mut skipped) = (Vec::new(), 0);
            let mut walk = Block { first, rest }.walk();
            while walk.step() && !is_behind(walk.key(), range.1) {
                match is_before(walk.key(), range.0) {
                    true => skipped += 1,
                    false => lengths.push(walk.key().len()),
                }
            }
            let fitting = batch.fitting(&lengths);
            let (passed, at) = (skipped + lengths.len() - fitting, batch.keys.len());
            let mut walk = Block { first, rest }.walk();
            for number in 0..passed + fitting {
                if walk.step() && number >= passed {
                    batch.push(walk.key());
                }
            }
            batch.keys[at..].reverse();
            batch.is_full |= fitting < lengths.len();
            if batch.is_full || skipped > 0 {
                return;
            }
        }
    }

    /// The first key of the last block that begins with a key or before it.
    fn first_up_to(&self, key: &[u8]) -> Option<&[u8]> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let block = self.blocks.range::<[u8], _>(up_to).next_back();
        block.map(|(first, _)| &**first)
    }

    /// The block that has a key, or would have it: the last one that begins with it or before it, else
    /// the first one.
    fn block_of_mut(&mut self, key: &[u8]) -> Option<BlockMut<'_>> {
        let first = self.blocks.first_key_value();
        if first.is_some_and(|(first, _)| *key < **first) {
            return self.blocks.iter_mut().next();
        }
        let up_to = (Bound::Unbounded, Bound::Included(key));
        self.blocks.range_mut::<[u8], _>(up_to).next_back()
    }

    /// Makes of the block with this first key what it becomes.
    fn edit(&mut self, first: &[u8], edit: Edit) {
        match edit {
            Edit::Unchanged => {}
            Edit::Rest(rest) => {
                self.set_rest(first, rest);
                self.merge_around(first);
            }
            Edit::Whole(new_first, rest) => {
                self.blocks.remove(first);
                self.merge_around_new(new_first, rest);
            }
            Edit::Split(rest, new_first, new_rest) => {
                if let Some(rest) = rest {
                    self.set_rest(first, rest);
                }
                self.merge_around_new(new_first, new_rest);
                self.merge_around(first);
            }
            Edit::Gone => {
                self.blocks.remove(first);
                let before = self.first_up_to(first).map(<[u8]>::to_vec);
                before.inspect(|before| self.merge_around(before));
            }
        }
    }

    fn set_rest(&mut self, first: &[u8], rest: Box<[u8]>) {
        if let Some(held) = self.blocks.get_mut(first) {
            *held = rest;
        }
    }

    /// Adds a block, and merges it with its neighbours where they are short.
    fn merge_around_new(&mut self, first: Box<[u8]>, rest: Box<[u8]>) {
        self.blocks.insert(first.clone(), rest);
        self.merge_around(&first);
    }

    /// Merges the block with this first key with the one behind it, and with the one before it, where
    /// the two are short enough together.
    fn merge_around(&mut self, first: &[u8]) {
        self.merge_with_next(first);
        let before = (Bound::Unbounded, Bound::Excluded(first));
        let before = self.blocks.range::<[u8], _>(before).next_back();
        if let Some((before, _)) = before {
            let before = before.clone();
            self.merge_with_next(&before);
        }
    }

    fn merge_with_next(&mut self, first: &[u8]) {
        let from = (Bound::Included(first), Bound::Unbounded);
        let mut two = self.blocks.range::<[u8], _>(from);
        let (Some((first, rest)), Some((second, second_rest))) = (two.next(), two.next()) else {
            return;
        };
        let next = Block {
            first: second,
            rest: second_rest,
        };
        if let Some(rest) = (Block { first, rest }).merge(next) {
            let (first, second) = (first.clone(), second.clone());
            self.blocks.remove(&second);
            self.set_rest(&first, rest);
        }
    }
}

/// A block with this first key, if there is one.
fn block(first: Option<&[u8]>, rest: &[u8]) -> Option<OwnedBlock> {
    first.map(|first| (first.into(), rest.into()))
}

/// Whether a key comes before a range that begins so.
fn is_before(key: &[u8], start: Bound<&[u8]>) -> bool {
    match start {
        Bound::Included(start) => key < start,
        Bound::Excluded(start) => key <= start,
        Bound::Unbounded => false,
    }
}

/// Whether a key comes after a range that ends so.
fn is_behind(key: &[u8], end: Bound<&[u8]>) -> bool {
    match end {
        Bound::Included(end) => key > end,
        Bound::Excluded(end) => key >= end,
        Bound::Unbounded => false,
    }
}

/// Some keys, one after the other, in bounded memory.
#[derive(Debug)]
pub(super) struct KeyBatch {
    bytes: Vec<u8>,
    /// Where in them the keys are, in their order.
    keys: Vec<Range<usize>>,
    keys_max: usize,
    bytes_max: usize,
    is_full: bool,
}

impl KeyBatch {
    /// An empty batch for so many keys, with so many bytes in all; for one, whatever its length is.
    pub(super) fn new(keys_max: usize, bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            keys: Vec::new(),
            keys_max,
            bytes_max,
            is_full: false,
        }
    }

    /// The keys.
    pub(super) fn keys(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.keys.iter().map(|at| &self.bytes[at.clone()])
    }

    /// Whether there were more keys than fit.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether a key of so many bytes fits beside so many keys of so many bytes.
    fn has_room(&self, keys: usize, bytes: usize, key_bytes: usize) -> bool {
        keys == 0 || (keys < self.keys_max && bytes + key_bytes <= self.bytes_max)
    }

    /// Adds a key if it fits.
    fn push(&mut self, key: &[u8]) -> bool {
        let start = self.bytes.len();
        let has_room = self.has_room(self.keys.len(), start, key.len());
        if has_room {
            self.bytes.extend_from_slice(key);
            self.keys.push(start..self.bytes.len());
        }
        self.is_full |= !has_room;
        has_room
    }

    /// How many keys of these lengths fit, from the last one on.
    fn fitting(&self, lengths: &[usize]) -> usize {
        let (mut keys, mut bytes) = (self.keys.len(), self.bytes.len());
        let fits = |length: &&usize| {
            let has_room = self.has_room(keys, bytes, **length);
            keys += 1;
            bytes += **length;
            has_room
        };
        lengths.iter().rev().take_while(fits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key_block::MERGED_BYTES_MAX;
    use super::*;
    use crate::store::table::cost::key_order_bytes;
    use dkvs_common::kv::KEY_BYTES_MAX;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const ALL: KeyRange<'_> = (Bound::Unbounded, Bound::Unbounded);

    /// What an allocation takes, with a header of 8 bytes.
    fn allocated(bytes: usize) -> usize {
        match bytes {
            0 => 0,
            bytes => (bytes + 8).next_multiple_of(16).max(32),
        }
    }

    impl KeyOrder {
        /// What it takes at most: two allocations and a place in the tree for each block.
        fn memory(&self) -> usize {
            let blocks = self.blocks.iter();
            let block =
                blocks.map(|(first, rest)| 80 + allocated(first.len()) + allocated(rest.len()));
            block.sum()
        }

        fn check(&self, expected: &BTreeSet<Vec<u8>>) {
            let all: Vec<Vec<u8>> = expected.iter().cloned().collect();
            let reversed: Vec<Vec<u8>> = expected.iter().rev().cloned().collect();
            assert!(self.keys(ALL, Direction::Ascending) == all);
            assert!(self.keys(ALL, Direction::Descending) == reversed);
            let bytes: usize = all.iter().map(|key| key_order_bytes(key.len())).sum();
            // One block is not in what keys cost; two of the shortest allocations take 32 bytes each.
            let one_block = 80 + 2 * 32;
            let memory = self.memory();
            assert!(memory <= bytes + one_block, "{memory} of {bytes}");
            let blocks: Vec<_> = self.blocks.iter().collect();
            for two in blocks.windows(2) {
                let [one, next] = [two[0], two[1]].map(|(first, rest)| Block { first, rest });
                assert!(one.merge(next).is_none(), "neighbours are long enough");
            }
        }

        /// The keys of a range, in one batch.
        fn keys(&self, range: KeyRange<'_>, direction: Direction) -> Vec<Vec<u8>> {
            let mut batch = KeyBatch::new(usize::MAX, usize::MAX);
            self.fill(range, direction, &mut batch);
            assert!(!batch.is_full());
            batch.keys().map(<[u8]>::to_vec).collect()
        }

        /// The keys of a range, in batches that have so much room.
        fn keys_by_batches(
            &self,
            (start, end): KeyRange<'_>,
            direction: Direction,
            (keys_max, bytes_max): (usize, usize),
        ) -> Vec<Vec<u8>> {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            loop {
                let last = keys.last().map(|key| Bound::Excluded(key.as_slice()));
                let range = match direction {
                    Direction::Ascending => (last.unwrap_or(start), end),
                    Direction::Descending => (start, last.unwrap_or(end)),
                };
                let mut batch = KeyBatch::new(keys_max, bytes_max);
                self.fill(range, direction, &mut batch);
                let (count, bytes) = (batch.keys().count(), batch.bytes.len());
                assert!(count <= keys_max && (count <= 1 || bytes <= bytes_max));
                assert!(count > 0 || !batch.is_full());
                keys.extend(batch.keys().map(<[u8]>::to_vec).collect::<Vec<_>>());
                if !batch.is_full() {
                    return keys;
                }
            }
        }
    }

    /// Keys of few letters, that are alike for long, or that are long.
    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        let letters =
            |lengths| prop::collection::vec(prop_oneof![Just(0), Just(b'a'), Just(0xff)], lengths);
        let lengths = prop_oneof![
            8 => 0..130usize,
            2 => 120..300usize,
            1 => Just(KEY_BYTES_MAX - 5),
        ];
        (prop_oneof![Just(b'a'), Just(b'b')], lengths, letters(0..6)).prop_map(
            |(letter, alike, rest)| {
                let key = [&vec![letter; alike], &rest[..]].concat();
                if key.is_empty() { vec![letter] } else { key }
            },
        )
    }

    fn any_bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![
            any_key().prop_map(Bound::Included),
            any_key().prop_map(Bound::Excluded),
            Just(Bound::Unbounded),
        ]
    }

    fn is_in((start, end): KeyRange<'_>, key: &[u8]) -> bool {
        !is_before(key, start) && !is_behind(key, end)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn it_is_a_sorted_set(
            steps in prop::collection::vec((any_key(), any::<bool>(), any::<prop::sample::Index>()), 1..600),
            ranges in prop::collection::vec((any_bound(), any_bound(), 1..50usize, 1..1_000usize), 5),
        ) {
            let (mut order, mut expected) = (KeyOrder::default(), BTreeSet::new());
            for (number, (key, is_removal, index)) in steps.into_iter().enumerate() {
                if is_removal && !expected.is_empty() {
                    let key: Vec<u8> = expected.iter().nth(index.index(expected.len())).cloned().unwrap();
                    expected.remove(&key);
                    order.remove(&key);
                } else if expected.insert(key.clone()) {
                    order.insert(&key);
                }
                if number % 50 == 0 {
                    order.check(&expected);
                    // What is made of all keys at once is gone on with like what it became.
                    order = KeyOrder::of_ascending(expected.iter().map(Vec::as_slice));
                    order.check(&expected);
                }
            }
            order.check(&expected);
            for (start, end, keys_max, bytes_max) in ranges {
                let range = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
                let mut keys: Vec<Vec<u8>> =
                    expected.iter().filter(|key| is_in(range, key)).cloned().collect();
                let room = (keys_max, bytes_max);
                prop_assert!(order.keys_by_batches(range, Direction::Ascending, room) == keys);
                keys.reverse();
                prop_assert!(order.keys_by_batches(range, Direction::Descending, room) == keys);
            }
            for key in &expected {
                order.remove(key);
            }
            prop_assert!(order.blocks.is_empty());
        }
    }

    /// Numbers in an order that is neither up nor down.
    fn shuffled(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |number| number * 7_919 % count)
    }

    #[test]
    fn many_keys_are_in_order_whichever_way_they_come_and_go() {
        let count = 30_000;
        let name = |number: u64| format!("orders/{:02}/{number:08}", number % 37).into_bytes();
        let up: Vec<Vec<u8>> = (0..count).map(name).collect();
        let mut sorted = up.clone();
        sorted.sort_unstable();
        let down = sorted.iter().rev().cloned().collect();
        let mixed = shuffled(count).map(name).collect();
        for keys in [up, sorted.clone(), down, mixed] {
            let (mut order, mut expected) = (KeyOrder::default(), BTreeSet::new());
            for key in &keys {
                order.insert(key);
                expected.insert(key.clone());
            }
            order.check(&expected);
            for key in keys.iter().step_by(3).chain(keys.iter().skip(1).step_by(3)) {
                order.remove(key);
                expected.remove(key);
            }
            order.check(&expected);
        }
    }

    /// The figure of `cost`, for ordinary keys.
    #[test]
    fn ordinary_keys_take_far_less_than_their_bytes() {
        let mut order = KeyOrder::default();
        for number in shuffled(50_000) {
            order.insert(format!("user/{number:08}/profile").as_bytes());
        }
        let memory = order.memory();
        assert!(memory < 50_000 * 16, "{} bytes a key", memory / 50_000);
    }

    #[test]
    fn keys_of_no_likeness_take_no_more_than_they_are_charged() {
        let (mut order, mut charged) = (KeyOrder::default(), 0);
        let mut random = 1u64;
        for number in 0..2_000u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(number);
            let length = [8, 40, 200, 1_000, 5_000][number as usize % 5];
            charged += key_order_bytes(length);
            order.insert(&random.to_be_bytes().repeat(length / 8));
        }
        assert!(order.memory() <= charged);
        assert!(
            order
                .blocks
                .values()
                .all(|rest| rest.len() <= MERGED_BYTES_MAX / 7 * 8)
        );
    }
}

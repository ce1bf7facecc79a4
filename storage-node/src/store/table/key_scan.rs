//! Scans of a table in the order of keys.
//!
//! The order is locked for a batch of keys at a time, and no shard is then. Each key is looked up in its
//! shard afterwards: one that is gone by then is passed over. A key comes into the order and leaves it
//! while its shard is locked, so one that a shard has for as long as a scan takes is met by it.

use std::ops::{Bound, ControlFlow};

use dkvs_common::model::Direction;

use super::key_order::{KeyBatch, KeyRange};
use super::records::RecordTable;
use crate::store::head::TableEntry;

/// Keys in the first batch of a scan. Each later one has twice as many, since many scans end early.
const FIRST_BATCH_KEYS: usize = 16;

/// Most keys in a batch.
const BATCH_KEYS_MAX: usize = 256;

/// Most bytes in a batch, if it has more than one key.
const BATCH_BYTES_MAX: usize = 16 << 10;

impl<E: TableEntry> RecordTable<E> {
    /// Shows the records of a range of keys, in this direction, until `visit` breaks. A change of
    /// another key that runs meanwhile is in it or not.
    ///
    /// The shard of a record is locked while it is shown.
    pub(in crate::store) fn scan_keys(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        mut visit: impl FnMut(&E) -> ControlFlow<()>,
    ) {
        let mut last: Option<Vec<u8>> = None;
        let mut keys_max = FIRST_BATCH_KEYS;
        loop {
            let mut batch = KeyBatch::new(keys_max, BATCH_BYTES_MAX);
            let beyond = last.as_deref().map(Bound::Excluded);
            let left = match direction {
                Direction::Ascending => (beyond.unwrap_or(range.0), range.1),
                Direction::Descending => (range.0, beyond.unwrap_or(range.1)),
            };
            self.key_order().fill(left, direction, &mut batch);
            for key in batch.keys() {
                let visited = self.read_bytes(key, &mut visit);
                if visited.is_some_and(|flow| flow.is_break()) {
                    return;
                }
            }
            if !batch.is_full() {
                return;
            }
            last = batch.keys().next_back().map(<[u8]>::to_vec);
            keys_max = BATCH_KEYS_MAX.min(2 * keys_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::packed::PackedRecord;
    use dkvs_common::kv::Key;
    use dkvs_common::record::{Content, Record};
    use dkvs_common::tag::Tag;
    use std::sync::atomic::{AtomicBool, Ordering};

    const ALL: KeyRange<'_> = (Bound::Unbounded, Bound::Unbounded);
    const TAG: Tag = Tag { time: 1, op: 0 };
    const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];

    fn put(table: &RecordTable<PackedRecord>, name: &str) {
        let key = Key::new(name.to_owned()).unwrap();
        table
            .apply(&key, &Record::new(&key, TAG, Content::Tombstone))
            .unwrap();
    }

    fn names(
        table: &RecordTable<PackedRecord>,
        range: KeyRange<'_>,
        direction: Direction,
    ) -> Vec<String> {
        let mut names = Vec::new();
        table.scan_keys(range, direction, |held| {
            names.push(String::from_utf8(held.key().to_vec()).unwrap());
            ControlFlow::Continue(())
        });
        names
    }

    #[test]
    fn a_scan_shows_a_range_in_either_direction_until_it_is_enough() {
        let table = RecordTable::new(usize::MAX);
        let all: Vec<String> = (0..1_000).map(|number| format!("{number:03}")).collect();
        for number in 0..1_000 {
            put(&table, &all[number * 7 % 1_000]);
        }
        let reversed: Vec<String> = all.iter().rev().cloned().collect();
        assert_eq!(names(&table, ALL, Direction::Ascending), all);
        assert_eq!(names(&table, ALL, Direction::Descending), reversed);
        let range: KeyRange<'_> = (Bound::Excluded(b"099"), Bound::Excluded(b"4"));
        assert_eq!(names(&table, range, Direction::Ascending), all[100..400]);
        assert_eq!(
            names(&table, range, Direction::Descending),
            reversed[600..900]
        );
        for direction in DIRECTIONS {
            let mut shown = 0;
            table.scan_keys(range, direction, |_| {
                shown += 1;
                match shown {
                    100 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
            assert_eq!(shown, 100);
        }
    }

    #[test]
    fn what_is_removed_is_not_shown_and_may_come_again() {
        let table = RecordTable::new(usize::MAX);
        for name in ["a", "b", "c"] {
            put(&table, name);
        }
        assert!(table.remove(b"b", TAG).is_ok());
        assert_eq!(names(&table, ALL, Direction::Ascending), ["a", "c"]);
        put(&table, "b");
        assert_eq!(names(&table, ALL, Direction::Descending), ["c", "b", "a"]);
    }

    #[test]
    fn a_scan_misses_and_repeats_nothing_while_other_keys_come_and_go() {
        let table = RecordTable::new(usize::MAX);
        let kept: Vec<String> = (0..500).map(|number| format!("{number:04} kept")).collect();
        kept.iter().for_each(|name| put(&table, name));
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (table, is_done) = (&table, &is_done);
                scope.spawn(move || {
                    for number in 0..10_000 {
                        let name = format!("{:04} of {thread}", number * 7 % 500);
                        match number / 500 % 2 {
                            0 => put(table, &name),
                            _ => drop(table.remove(name.as_bytes(), TAG)),
                        }
                    }
                    is_done.store(true, Ordering::Release);
                });
            }
            let mut scans = 0;
            while !is_done.load(Ordering::Acquire) || scans < 4 {
                let direction = DIRECTIONS[scans % 2];
                let mut shown = names(&table, ALL, direction);
                if direction == Direction::Descending {
                    shown.reverse();
                }
                assert!(
                    shown.is_sorted_by(|one, next| one < next),
                    "in order, each once"
                );
                shown.retain(|name| name.ends_with("kept"));
                assert_eq!(shown, kept);
                scans += 1;
            }
        });
    }
}

//! The table: records in ring order, in shards that each have a lock, beside them the order of their
//! keys, with a limit in bytes.
//!
//! ```text
//!   position of a key:  | 8 bits: the shard | 32: the order in it | 120: looked at where those are equal |
//! ```
//!
//! It knows neither how long records last nor whether they may be shown: that is up to the stores.

use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dkvs_common::kv::Key;
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use super::cost::overhead_bytes;
use super::key_order::KeyOrder;
use super::shard::{Entry, Place, SHARD_BITS, Shard, place, shard_number};
use super::tracked::ChangeTracker;
use crate::store::contract::{ChangeHook, Full, RecordChange};
use crate::store::head::TableEntry;

/// Records in memory, or what is known of them.
pub(in crate::store) struct RecordTable<E> {
    shards: Box<[Mutex<Shard<E>>]>,
    /// The keys of all shards. It is locked after a shard, never before.
    key_order: Mutex<KeyOrder>,
    /// Notes every change for the scan that is under way.
    changes: Arc<ChangeTracker<E>>,
    /// Is called with every change.
    hook: OnceLock<ChangeHook>,
    records: AtomicUsize,
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl<E: TableEntry> RecordTable<E> {
    /// An empty table that holds at most `bytes_max` bytes of packed records and
    /// [`overhead_bytes`] for each.
    pub(in crate::store) fn new(bytes_max: usize) -> Self {
        Self {
            shards: (0..1 << SHARD_BITS).map(|_| Mutex::default()).collect(),
            key_order: Mutex::default(),
            changes: Arc::default(),
            hook: OnceLock::new(),
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// Returns what `view` makes of the record of a key, if there is one. The key's shard is locked
    /// meanwhile.
    pub(in crate::store) fn read<R>(&self, key: &Key, view: impl FnOnce(&E) -> R) -> Option<R> {
        let place = place(Position::of_key(key), key.as_bytes());
        self.shard(place.position).find(place).map(view)
    }

    /// The same, of the record of bytes that are a key.
    pub(in crate::store) fn read_bytes<R>(
        &self,
        key: &[u8],
        view: impl FnOnce(&E) -> R,
    ) -> Option<R> {
        let place = place(Position::of_key_bytes(key), key);
        self.shard(place.position).find(place).map(view)
    }

    /// Shows records in ring order until `visit` breaks: those at `from` whose keys are greater
    /// than `after`, or all of them without it, and then those at greater positions. It ends at
    /// the end of the ring. A put of another key that runs meanwhile is in it or not.
    ///
    /// One shard is locked at a time, for as long as `visit` goes on in it.
    pub(in crate::store) fn scan(
        &self,
        from: Position,
        after: Option<&Key>,
        mut visit: impl FnMut(&E) -> ControlFlow<()>,
    ) {
        let start = place(from, after.map_or(&[], Key::as_bytes));
        let mut flow = self.shard(from).after(start).try_for_each(&mut visit);
        for shard in &self.shards[shard_number(from) + 1..] {
            if flow.is_break() {
                return;
            }
            flow = lock(shard).iter().try_for_each(&mut visit);
        }
    }

    /// How many records it holds, tombstones included.
    pub(in crate::store) fn len(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// What its records take, overhead included; never more than the limit.
    pub(in crate::store) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Puts an entry in the place of the one that is there, whatever the limit is. Returns that.
    pub(in crate::store) fn insert(&self, entry: E) -> Option<E> {
        self.insert_with(entry, |key| self.key_order().insert(key))
    }

    /// The same; `added` is called with a key that was not there.
    pub(super) fn insert_with(&self, entry: E, added: impl FnOnce(&[u8])) -> Option<E> {
        let place = place(Position::of_key_bytes(entry.key()), entry.key());
        let bytes = entry.bytes();
        match self.shard(place.position).entry(place) {
            Entry::Occupied(held) => {
                self.note_change(place, Some(held), Some(&entry));
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.bytes.fetch_sub(held.bytes(), Ordering::Relaxed);
                Some(mem::replace(held, entry))
            }
            Entry::Vacant(vacancy) => {
                let entry_bytes = bytes + overhead_bytes(place.key.len());
                self.bytes.fetch_add(entry_bytes, Ordering::Relaxed);
                self.records.fetch_add(1, Ordering::Relaxed);
                self.note_change(place, None, Some(&entry));
                added(place.key);
                vacancy.insert(entry);
                None
            }
        }
    }

    /// Returns what `view` makes of the entry of a key, which it may change, but for its key, tag and
    /// size. No change is announced.
    pub(in crate::store) fn adjust<R>(
        &self,
        key: &[u8],
        view: impl FnOnce(&mut E) -> R,
    ) -> Option<R> {
        let place = place(Position::of_key_bytes(key), key);
        match self.shard(place.position).entry(place) {
            Entry::Occupied(held) => Some(view(held)),
            Entry::Vacant(_) => None,
        }
    }

    /// The same of all entries, in ring order.
    pub(in crate::store) fn adjust_all(&self, mut view: impl FnMut(&mut E)) {
        for shard in &self.shards {
            lock(shard).iter_mut().for_each(&mut view);
        }
    }

    /// Takes out the entry of a key if it has exactly this tag, and returns it. The error is the tag
    /// that is there.
    pub(in crate::store) fn remove(&self, key: &[u8], tag: Tag) -> Result<E, Option<Tag>> {
        let mut held_tag = None;
        let removed = self.remove_if(key, |held| *held_tag.insert(held.tag()) == tag);
        removed.ok_or(held_tag)
    }

    /// Takes out the entry of a key if there is one and `is_it` is true of it.
    pub(in crate::store) fn remove_if(
        &self,
        key: &[u8],
        is_it: impl FnOnce(&E) -> bool,
    ) -> Option<E> {
        self.remove_with(key, is_it, |key| self.key_order().remove(key))
    }

    /// The same; `removed_key` is called with a key whose entry was taken out.
    pub(super) fn remove_with(
        &self,
        key: &[u8],
        is_it: impl FnOnce(&E) -> bool,
        removed_key: impl FnOnce(&[u8]),
    ) -> Option<E> {
        let place = place(Position::of_key_bytes(key), key);
        let mut shard = self.shard(place.position);
        let removed = shard.remove_if(place, is_it)?;
        removed_key(key);
        let entry_bytes = removed.bytes() + overhead_bytes(key.len());
        self.bytes.fetch_sub(entry_bytes, Ordering::Relaxed);
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.note_change(place, Some(&removed), None);
        Some(removed)
    }

    /// Calls `hook` with every change from now on, if no other was set before.
    pub(in crate::store) fn set_change_hook(&self, hook: ChangeHook) -> bool {
        self.hook.set(hook).is_ok()
    }

    /// Announces a change. The shard of the place is locked.
    pub(super) fn note_change(&self, place: Place<'_>, before: Option<&E>, after: Option<&E>) {
        self.changes.note(place, before, after);
        if let Some(hook) = self.hook.get() {
            hook(RecordChange {
                key: place.key,
                position: place.position,
                old: before.map(E::version),
                new: after.map(E::version),
            });
        }
    }

    /// Whether so many bytes more are within the limit.
    pub(in crate::store) fn check_room(&self, record_bytes: usize) -> Result<(), Full> {
        let bytes_max = self.bytes_max;
        let is_within = self.bytes().saturating_add(record_bytes) <= bytes_max;
        is_within.then_some(()).ok_or(Full {
            record_bytes,
            bytes_max,
        })
    }

    pub(super) fn take_room(&self, record_bytes: usize) -> Result<(), Full> {
        let bytes_max = self.bytes_max;
        let grown = |bytes: usize| {
            bytes
                .checked_add(record_bytes)
                .filter(|sum| *sum <= bytes_max)
        };
        self.bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .map(|_| ())
            .map_err(|_| Full {
                record_bytes,
                bytes_max,
            })
    }

    /// Counts bytes that were freed.
    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a record that was added.
    pub(super) fn count_record(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    /// What changes while a counted scan is under way.
    pub(super) fn changes(&self) -> &Arc<ChangeTracker<E>> {
        &self.changes
    }

    /// Locks the shard of this number, if there are so many.
    pub(super) fn lock_shard(&self, number: usize) -> Option<MutexGuard<'_, Shard<E>>> {
        self.shards.get(number).map(lock)
    }

    pub(super) fn shard(&self, position: Position) -> MutexGuard<'_, Shard<E>> {
        lock(&self.shards[shard_number(position)])
    }

    /// All shards, which nobody else has.
    pub(super) fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard<E>> {
        let shards = self.shards.iter_mut();
        shards.map(|shard| shard.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the order of the keys, which has to be that of all of them.
    pub(super) fn set_key_order(&mut self, order: KeyOrder) {
        self.key_order = Mutex::new(order);
    }

    /// Locks the order of the keys.
    pub(super) fn key_order(&self) -> MutexGuard<'_, KeyOrder> {
        lock(&self.key_order)
    }
}

/// A panic while a shard or the order was locked leaves it not half changed, so its poison says
/// nothing.
fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::PutOutcome;
    use crate::store::packed::PackedRecord;
    use dkvs_common::kv::Value;
    use dkvs_common::record::{Content, ContentType, Record};

    /// What a pair of a one-byte key and an empty value takes.
    const SMALLEST: usize = 24 + 1 + overhead_bytes(1);

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn content(value: &str) -> Content {
        Content::Value {
            content_type: ContentType::default(),
            value: Value::new(value.to_owned()).unwrap(),
        }
    }

    fn put(
        table: &RecordTable<PackedRecord>,
        name: &str,
        time: u64,
        value: &str,
    ) -> Result<PutOutcome, Full> {
        let key = key(name);
        let record = Record::new(&key, Tag { time, op: 0 }, content(value));
        table.apply(&key, &record)
    }

    fn value(table: &RecordTable<PackedRecord>, name: &str) -> Option<String> {
        let text = |held: &PackedRecord| String::from_utf8(held.value().to_vec()).unwrap();
        table.read(&key(name), text)
    }

    /// Every key with its value, in ring order.
    fn pairs(table: &RecordTable<PackedRecord>) -> Vec<(Key, Vec<u8>)> {
        let mut pairs = Vec::new();
        table.scan(Position([0; 20]), None, |held| {
            if !held.is_tombstone() {
                let key = Key::new(held.key().to_vec()).unwrap();
                pairs.push((key, held.value().to_vec()));
            }
            ControlFlow::Continue(())
        });
        pairs
    }

    #[test]
    fn the_greatest_tag_stays_whatever_the_order() {
        let table = RecordTable::new(usize::MAX);
        let superseded = |time| Ok(PutOutcome::Superseded(Tag { time, op: 0 }));
        assert_eq!(put(&table, "k", 5, "five"), Ok(PutOutcome::Stored));
        assert_eq!(put(&table, "k", 4, "four"), superseded(5));
        assert_eq!(put(&table, "k", 5, "five"), Ok(PutOutcome::Stored));
        assert_eq!(value(&table, "k").as_deref(), Some("five"));
        assert_eq!(put(&table, "k", 6, ""), Ok(PutOutcome::Stored));
        assert_eq!(value(&table, "k").as_deref(), Some(""));
        assert_eq!(put(&table, "k", 5, "five"), superseded(6));
    }

    #[test]
    fn of_two_records_under_one_tag_the_first_stays() {
        let table = RecordTable::new(usize::MAX);
        let taken = PutOutcome::Superseded(Tag { time: 5, op: 0 });
        assert_eq!(put(&table, "k", 5, "first"), Ok(PutOutcome::Stored));
        assert_eq!(put(&table, "k", 5, "other"), Ok(taken));
        assert_eq!(put(&table, "k", 5, "first"), Ok(PutOutcome::Stored));
        assert_eq!(value(&table, "k").as_deref(), Some("first"));
    }

    #[test]
    fn a_record_with_the_smallest_tag_is_stored_before_it_is_confirmed() {
        let table = RecordTable::new(usize::MAX);
        assert_eq!(put(&table, "k", 0, "v"), Ok(PutOutcome::Stored));
        assert_eq!(value(&table, "k").as_deref(), Some("v"));
    }

    #[test]
    fn the_next_tag_is_made_from_the_one_that_is_there() {
        let table = RecordTable::new(usize::MAX);
        put(&table, "k", 5, "v").unwrap();
        let mint = |held: Tag| {
            Ok::<_, ()>(Tag {
                time: held.time + 1,
                op: 9,
            })
        };
        assert_eq!(table.apply_next(&key("k"), &content("w"), mint), Ok(Ok(())));
        assert_eq!(
            table.read(&key("k"), PackedRecord::tag),
            Some(Tag { time: 6, op: 9 })
        );
        let refused = table.apply_next(&key("k"), &content("x"), |_| Err("no"));
        assert_eq!(refused, Ok(Err("no")));
        assert_eq!(value(&table, "k").as_deref(), Some("w"));
    }

    #[test]
    fn the_bytes_follow_what_is_stored() {
        let table = RecordTable::new(usize::MAX);
        put(&table, "k", 1, "four").unwrap();
        assert_eq!(table.bytes(), SMALLEST + 4);
        put(&table, "k", 2, "").unwrap();
        assert_eq!(table.bytes(), SMALLEST);
        put(&table, "k", 3, "longer").unwrap();
        assert_eq!(table.bytes(), SMALLEST + 6);
        assert_eq!(pairs(&table), [(key("k"), b"longer".to_vec())]);
        let tombstone = Record::new(&key("k"), Tag { time: 4, op: 0 }, Content::Tombstone);
        table.apply(&key("k"), &tombstone).unwrap();
        assert_eq!((table.bytes(), table.len()), (SMALLEST, 1));
        assert!(pairs(&table).is_empty());
    }

    #[test]
    fn a_removed_record_gives_back_its_bytes_and_one_of_another_tag_stays() {
        let table = RecordTable::new(usize::MAX);
        let tag = |time| Tag { time, op: 0 };
        put(&table, "k", 2, "four").unwrap();
        put(&table, "other", 2, "").unwrap();
        for time in [1, 3] {
            assert_eq!(table.remove(b"k", tag(time)).err(), Some(Some(tag(2))));
        }
        assert!(table.remove(b"k", tag(2)).is_ok());
        assert_eq!(table.remove(b"k", tag(2)).err(), Some(None));
        assert_eq!((value(&table, "k"), table.len()), (None, 1));
        assert_eq!(table.bytes(), 24 + 5 + overhead_bytes(5));
        assert_eq!(put(&table, "k", 1, ""), Ok(PutOutcome::Stored));
    }

    #[test]
    fn a_full_store_refuses_what_does_not_fit_and_serves_the_rest() {
        let table = RecordTable::new(2 * (SMALLEST + 1) + 1);
        put(&table, "a", 1, "1").unwrap();
        put(&table, "b", 1, "2").unwrap();
        assert_eq!(
            put(&table, "c", 1, "3").unwrap_err().record_bytes,
            SMALLEST + 1
        );
        assert_eq!(put(&table, "b", 2, "222").unwrap_err().record_bytes, 2);
        assert_eq!(value(&table, "b").as_deref(), Some("2"));
        assert_eq!(value(&table, "c"), None);

        put(&table, "b", 3, "22").unwrap();
        assert!(put(&table, "a", 2, "11").is_err());
        put(&table, "b", 4, "x").unwrap();
        put(&table, "a", 3, "11").unwrap();
        let tombstone = Record::new(&key("a"), Tag { time: 9, op: 0 }, Content::Tombstone);
        assert_eq!(table.apply(&key("a"), &tombstone), Ok(PutOutcome::Stored));
    }

    /// The page of at most `limit` keys that follow `last`.
    fn page(table: &RecordTable<PackedRecord>, last: Option<&Key>, limit: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        let from = last.map_or(Position([0; 20]), Position::of_key);
        table.scan(from, last, |held| {
            if keys.len() == limit {
                return ControlFlow::Break(());
            }
            keys.push(Key::new(held.key().to_vec()).unwrap());
            ControlFlow::Continue(())
        });
        keys
    }

    fn all_by_pages(table: &RecordTable<PackedRecord>, limit: usize) -> Vec<Key> {
        let mut keys = page(table, None, limit);
        loop {
            let next = page(table, keys.last(), limit);
            if next.is_empty() {
                return keys;
            }
            keys.extend(next);
        }
    }

    #[test]
    fn pages_have_every_key_once_and_in_ring_order() {
        let table = RecordTable::new(usize::MAX);
        let mut keys: Vec<Key> = (0..1_000).map(|number| key(&number.to_string())).collect();
        for key in &keys {
            let record = Record::new(key, Tag { time: 1, op: 0 }, Content::Tombstone);
            table.apply(key, &record).unwrap();
        }
        keys.sort_by_key(Position::of_key);
        for limit in [1, 7, 999, 1_000, 1_001] {
            assert!(all_by_pages(&table, limit) == keys, "pages of {limit}");
        }
    }

    #[test]
    fn a_scan_begins_at_its_position_or_after_a_key_of_it() {
        let table = RecordTable::new(usize::MAX);
        let first = |from, after: Option<&Key>| {
            let mut first = None;
            table.scan(from, after, |held: &PackedRecord| {
                first = Some(Key::new(held.key().to_vec()).unwrap());
                ControlFlow::Break(())
            });
            first
        };
        assert_eq!(first(Position([0; 20]), None), None);
        put(&table, "k", 1, "v").unwrap();
        let here = Position::of_key(&key("k"));
        let (mut before, mut behind) = (here, here);
        before.0[19] -= 1;
        behind.0[19] += 1;
        for (from, after, is_met) in [
            (here, None, true),
            (here, Some(key("j")), true),
            (here, Some(key("k")), false),
            (here, Some(key("l")), false),
            (before, Some(key("l")), true),
            (behind, None, false),
            (Position([0xff; 20]), None, false),
        ] {
            let met = is_met.then(|| key("k"));
            assert_eq!(first(from, after.as_ref()), met, "{from} {after:?}");
        }
    }

    #[test]
    fn pages_miss_and_repeat_nothing_while_other_keys_are_put() {
        let table = RecordTable::new(usize::MAX);
        for number in 0..500 {
            put(&table, &format!("old {number}"), 1, "").unwrap();
        }
        let is_old = |key: &&Key| key.as_bytes().starts_with(b"old");
        let (barrier, done) = (std::sync::Barrier::new(2), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                for number in 0..5_000 {
                    put(&table, &format!("new {number}"), 1, "").unwrap();
                }
                done.store(1, Ordering::Release);
            });
            barrier.wait();
            let mut is_last = false;
            while !is_last {
                is_last = done.load(Ordering::Acquire) == 1;
                let keys = all_by_pages(&table, 10);
                assert_eq!(keys.iter().filter(is_old).count(), 500);
                assert!(keys.is_sorted_by_key(|key| (Position::of_key(key), key.clone())));
                let distinct: std::collections::HashSet<_> = keys.iter().collect();
                assert_eq!(distinct.len(), keys.len());
            }
        });
        assert_eq!(all_by_pages(&table, 10).len(), 5_500);
    }

    #[test]
    fn many_threads_never_exceed_the_limit_nor_lose_count() {
        let table = RecordTable::new(500 * (SMALLEST + 16));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for number in 0..2_000 {
                        let name = format!("{:04}", (number * 7 + thread) % 1_000);
                        let _ = put(table, &name, number, &"v".repeat(number as usize % 8));
                        assert!(table.bytes() <= table.bytes_max);
                    }
                });
            }
        });
        let pairs = pairs(&table);
        let counted = pairs
            .iter()
            .map(|(_, value)| 24 + 4 + overhead_bytes(4) + value.len());
        assert_eq!(table.bytes(), counted.sum::<usize>());
        assert_eq!(table.len(), pairs.len());
        assert!(table.len() >= 500);
    }
}

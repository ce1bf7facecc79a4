//! A count of the records that a filter selects, and then those very records, page by page and in
//! bounded memory, although others are put meanwhile.
//!
//! ```text
//!   ring order:  | shown ........| ........ counted |            not looked at yet |
//!                                ^ shown            ^ counted
//! ```
//!
//! Two cursors go round the ring, first the one that counts, then the one that shows. What changes
//! ahead of the first is counted when it comes there, and what changes behind the second is past.
//! Between them, a record that the filter begins to select is noted as added, to be passed over,
//! and one that it ceases to select is noted as gone, to be shown in the end as it was. So exactly
//! the records are shown that were counted, each once, and in this version or a later one.
//!
//! A cursor moves within a shard while that shard is locked, as it is while a record changes: so
//! every change is on one side of it. Shards are locked before what is noted, never after.

use std::ops::ControlFlow;
use std::sync::Arc;

use dkvs_common::ring::Position;

use super::records::RecordTable;
use super::tracked::{ChangeTracker, Cursor, Filter};
use crate::store::head::TableEntry;

/// How much is looked at before the shard is unlocked, so that others get their turn.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// How many records, at least one.
    pub records: usize,
    /// After how many bytes of them no further one is looked at.
    pub bytes: usize,
}

/// Where a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEnd {
    /// At its limits.
    Full,
    /// The last record that was shown was not taken: it comes first in the next page.
    NotTaken,
    /// There is nothing left.
    Done,
    /// More was put or deleted meanwhile than can be noted: which of the rest was counted is not
    /// known any more.
    Lost,
}

/// A count and what was counted, under way. A store has one at a time.
pub(in crate::store) struct CountedScan<E> {
    changes: Arc<ChangeTracker<E>>,
    cursor: Cursor,
    counted: usize,
}

impl<E: TableEntry> CountedScan<E> {
    /// How many records were counted so far.
    pub(in crate::store) fn counted(&self) -> usize {
        self.counted
    }

    /// The memory that is taken for what changed meanwhile, in bytes.
    pub(in crate::store) fn noted_bytes(&self) -> usize {
        self.changes
            .notes()
            .as_ref()
            .map_or(0, |notes| notes.bytes())
    }
}

impl<E> Drop for CountedScan<E> {
    fn drop(&mut self) {
        self.changes.end();
    }
}

impl<E: TableEntry> RecordTable<E> {
    /// Begins to count the records that `filter` selects; none if another scan is under way.
    pub(in crate::store) fn begin_counted_scan(&self, filter: Filter<E>) -> Option<CountedScan<E>> {
        let changes = self.changes();
        changes.begin(filter).then(|| CountedScan {
            changes: Arc::clone(changes),
            cursor: Cursor::default(),
            counted: 0,
        })
    }

    /// Counts a page; when the last is done, [`Self::show_page`] may begin. Records that
    /// are not selected are shown to `other`.
    pub(in crate::store) fn count_page(
        &self,
        scan: &mut CountedScan<E>,
        limits: PageLimits,
        mut other: impl FnMut(&E),
    ) -> PageEnd {
        let Some(filter) = self
            .changes()
            .notes()
            .as_ref()
            .map(|notes| Arc::clone(&notes.filter))
        else {
            return PageEnd::Lost;
        };
        let counted = &mut scan.counted;
        let end = self.page(
            &mut scan.cursor,
            limits,
            |held| {
                match filter(held) {
                    true => *counted += 1,
                    false => other(held),
                }
                ControlFlow::Continue(())
            },
            |cursor| {
                if let Some(notes) = &mut *self.changes().notes() {
                    notes.counted = cursor.clone();
                }
            },
        );
        if end == PageEnd::Done {
            scan.cursor = Cursor::default();
        }
        end
    }

    /// Shows a page of what was counted, until `take` breaks: it has not taken that record then.
    pub(in crate::store) fn show_page(
        &self,
        scan: &mut CountedScan<E>,
        limits: PageLimits,
        mut take: impl FnMut(&E) -> ControlFlow<()>,
    ) -> PageEnd {
        let filter = match &*self.changes().notes() {
            Some(notes) if !notes.is_lost => Arc::clone(&notes.filter),
            _ => return PageEnd::Lost,
        };
        let is_added = |held: &E| {
            let mut notes = self.changes().notes();
            notes
                .as_mut()
                .is_some_and(|notes| notes.take_added(held.key()))
        };
        let end = self.page(
            &mut scan.cursor,
            limits,
            |held| match filter(held) && !is_added(held) {
                true => take(held),
                false => ControlFlow::Continue(()),
            },
            |cursor| {
                if let Some(notes) = &mut *self.changes().notes() {
                    notes.shown = cursor.clone();
                }
            },
        );
        match end {
            PageEnd::Done => self.show_gone(limits, take),
            end => end,
        }
    }

    /// Shows what was counted and has gone since. Nothing is noted any more.
    fn show_gone(
        &self,
        limits: PageLimits,
        mut take: impl FnMut(&E) -> ControlFlow<()>,
    ) -> PageEnd {
        let mut notes = self.changes().notes();
        let Some(notes) = notes.as_mut().filter(|notes| !notes.is_lost) else {
            return PageEnd::Lost;
        };
        let mut bytes_left = limits.bytes;
        for _ in 0..limits.records {
            let Some(gone) = notes.first_gone() else {
                return PageEnd::Done;
            };
            if bytes_left == 0 {
                break;
            }
            if take(gone).is_break() {
                return PageEnd::NotTaken;
            }
            bytes_left = bytes_left.saturating_sub(gone.bytes());
            notes.pop_gone();
        }
        PageEnd::Full
    }

    /// Shows records from a cursor on. `moved` is called with where it came to while what it passed
    /// is still locked.
    fn page(
        &self,
        cursor: &mut Cursor,
        limits: PageLimits,
        mut visit: impl FnMut(&E) -> ControlFlow<()>,
        mut moved: impl FnMut(&Cursor),
    ) -> PageEnd {
        let (mut records_left, mut bytes_left) = (limits.records.max(1), limits.bytes.max(1));
        while let Some(shard) = self.lock_shard(cursor.shard) {
            let (mut last, mut end) = (None, None);
            for held in shard.after(cursor.place()) {
                if records_left == 0 || bytes_left == 0 {
                    end = Some(PageEnd::Full);
                    break;
                }
                if visit(held).is_break() {
                    end = Some(PageEnd::NotTaken);
                    break;
                }
                records_left -= 1;
                bytes_left = bytes_left.saturating_sub(held.bytes());
                last = Some(held.key());
            }
            if end.is_none() {
                cursor.shard += 1;
                cursor.last = None;
            } else if let Some(key) = last {
                cursor.last = Some((Position::of_key_bytes(key), key.into()));
            }
            moved(cursor);
            if let Some(end) = end {
                return end;
            }
        }
        PageEnd::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::packed::PackedRecord;
    use crate::store::table::tracked::NOTED_BYTES_MAX;
    use dkvs_common::kv::{Key, Value};
    use dkvs_common::record::{Content, ContentType, Record};
    use dkvs_common::tag::Tag;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};
    use std::sync::atomic::{AtomicBool, Ordering};

    const ONE: PageLimits = PageLimits {
        records: 1,
        bytes: 1,
    };

    /// Values, unless they begin with x.
    fn picks(held: &PackedRecord) -> bool {
        !held.is_tombstone() && !held.value().starts_with(b"x")
    }

    fn put(table: &RecordTable<PackedRecord>, key: &str, time: u64, value: Option<&str>) {
        let key = Key::new(key.to_owned()).unwrap();
        let content = match value {
            None => Content::Tombstone,
            Some(value) => Content::Value {
                content_type: ContentType::default(),
                value: Value::new(value.to_owned()).unwrap(),
            },
        };
        let record = Record::new(&key, Tag { time, op: 0 }, content);
        table.apply(&key, &record).unwrap();
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_store_has_one_scan_at_a_time() {
        let table = RecordTable::new(usize::MAX);
        let first = table.begin_counted_scan(Arc::new(picks));
        assert!(first.is_some() && table.begin_counted_scan(Arc::new(picks)).is_none());
        drop(first);
        assert!(table.begin_counted_scan(Arc::new(picks)).is_some());
    }

    /// A scan that begins as another ends has its changes noted like any other.
    #[test]
    fn scans_of_two_threads_each_have_their_own_notes() {
        let table = RecordTable::new(usize::MAX);
        let scans = |key: &str| {
            let (mut done, mut time) = (0, 0);
            while done < 20_000 {
                let Some(mut scan) = table.begin_counted_scan(Arc::new(picks)) else {
                    continue;
                };
                let all = PageLimits {
                    records: usize::MAX,
                    bytes: usize::MAX,
                };
                assert_eq!(table.count_page(&mut scan, all, |_| ()), PageEnd::Done);
                time += 1;
                put(&table, key, time, (time % 2 == 1).then_some("v"));
                assert_ne!(scan.noted_bytes(), 0);
                done += 1;
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(|| scans("a"));
            threads.spawn(|| scans("b"));
        });
    }

    #[test]
    fn more_changes_than_can_be_noted_end_it_and_take_no_memory() {
        let table = RecordTable::new(usize::MAX);
        put(&table, "k", 1, Some("v"));
        let mut scan = table.begin_counted_scan(Arc::new(picks)).unwrap();
        let all = PageLimits {
            records: usize::MAX,
            bytes: usize::MAX,
        };
        assert_eq!(table.count_page(&mut scan, all, |_| ()), PageEnd::Done);
        let (mut number, mut most) = (0, 0);
        loop {
            put(&table, &format!("{number:01000}"), 1, Some(""));
            number += 1;
            match scan.noted_bytes() {
                0 => break,
                bytes => most = most.max(bytes),
            }
        }
        assert!(most <= NOTED_BYTES_MAX && most > NOTED_BYTES_MAX - 2_000);
        put(&table, "more", 1, Some(""));
        assert_eq!(scan.noted_bytes(), 0);
        let shown = table.show_page(&mut scan, all, |_| ControlFlow::Continue(()));
        assert_eq!(shown, PageEnd::Lost);
    }

    /// What is done to a key between two pages.
    #[derive(Debug, Clone, Copy)]
    enum Change {
        Put,
        PutOther,
        Delete,
    }

    proptest! {
        /// Whatever is put and deleted at any moment: as many are shown as were counted, no key
        /// twice, none but with a value that it had when it was counted or later, and all that
        /// were there from beginning to end.
        #[test]
        fn exactly_what_was_counted_is_shown(
            before in prop::collection::vec((0..60u8, 0..3u8), 0..60),
            script in prop::collection::vec(
                (
                    0..3usize,
                    0..60u8,
                    prop_oneof![Just(Change::Put), Just(Change::PutOther), Just(Change::Delete)],
                ),
                0..200,
            ),
            refuse in prop::collection::vec(any::<bool>(), 1..10),
        ) {
            let table = RecordTable::new(usize::MAX);
            let mut time = 0;
            let mut change = |key: u8, change: Change| {
                time += 1;
                let value = match change {
                    Change::Put => Some(format!("v{time}")),
                    Change::PutOther => Some(format!("x{time}")),
                    Change::Delete => None,
                };
                put(&table, &key.to_string(), time, value.as_deref());
                time
            };
            for (key, kind) in before {
                change(key, [Change::Put, Change::PutOther, Change::Delete][usize::from(kind)]);
            }
            let picked = || {
                let mut keys = HashSet::new();
                table.scan(Position([0; 20]), None, |held| {
                    if picks(held) {
                        keys.insert(text(held.key()));
                    }
                    ControlFlow::Continue(())
                });
                keys
            };
            let mut always = picked();
            let mut ever: BTreeMap<String, HashSet<String>> = BTreeMap::new();
            let mut remember = || {
                let now = picked();
                table.scan(Position([0; 20]), None, |held| {
                    if picks(held) {
                        ever.entry(text(held.key())).or_default().insert(text(held.value()));
                    }
                    ControlFlow::Continue(())
                });
                always.retain(|key| now.contains(key));
            };
            remember();
            let mut scan = table.begin_counted_scan(Arc::new(picks)).unwrap();
            let mut shown: Vec<(String, String)> = Vec::new();
            let (mut script, mut refuse) = (script.into_iter(), refuse.into_iter().cycle());
            let mut is_counted = false;
            loop {
                if let Some((pause, key, what)) = script.next() {
                    change(key, what);
                    remember();
                    if pause == 0 {
                        continue;
                    }
                }
                let end = if is_counted {
                    let is_refused = refuse.next() == Some(true);
                    let end = table.show_page(&mut scan, ONE, |held| {
                        if is_refused {
                            return ControlFlow::Break(());
                        }
                        shown.push((text(held.key()), text(held.value())));
                        ControlFlow::Continue(())
                    });
                    // One that always refuses would never end.
                    if is_refused && script.len() == 0 {
                        refuse = vec![false].into_iter().cycle();
                    }
                    end
                } else {
                    table.count_page(&mut scan, ONE, |held| assert!(!picks(held)))
                };
                prop_assert_ne!(end, PageEnd::Lost);
                if end == PageEnd::Done {
                    if is_counted {
                        break;
                    }
                    is_counted = true;
                }
            }
            prop_assert_eq!(shown.len(), scan.counted());
            for (key, value) in &shown {
                prop_assert!(ever[key].contains(value), "{} was never {}", key, value);
            }
            let keys: HashSet<_> = shown.iter().map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(keys.len(), shown.len());
            prop_assert!(always.is_subset(&keys));
            prop_assert_eq!(scan.noted_bytes(), 0);
        }
    }

    struct Done<'a>(&'a AtomicBool);

    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_count_holds_while_threads_put_and_delete() {
        let table = RecordTable::new(usize::MAX);
        for number in 0..2_000 {
            put(&table, &format!("old {number}"), 1, Some("v"));
        }
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Also when what follows fails.
            let _done = Done(&is_done);
            for thread in 0..2 {
                let (table, is_done) = (&table, &is_done);
                scope.spawn(move || {
                    let mut time = 2;
                    while !is_done.load(Ordering::Relaxed) {
                        let name = format!("changing {} {}", thread, time % 100);
                        let value = [Some("v"), None, Some("x")][time as usize % 3];
                        put(table, &name, time, value);
                        time += 1;
                    }
                });
            }
            let limits = PageLimits {
                records: 50,
                bytes: 4_096,
            };
            for _ in 0..50 {
                let mut scan = table.begin_counted_scan(Arc::new(picks)).unwrap();
                while table.count_page(&mut scan, limits, |_| ()) == PageEnd::Full {}
                let mut shown = HashSet::new();
                let mut repeats = 0;
                let mut show = |held: &PackedRecord| {
                    repeats += usize::from(!shown.insert(text(held.key())));
                    ControlFlow::Continue(())
                };
                while table.show_page(&mut scan, limits, &mut show) == PageEnd::Full {}
                assert_eq!((shown.len(), repeats), (scan.counted(), 0));
                let old = shown.iter().filter(|key| key.starts_with("old"));
                assert_eq!(old.count(), 2_000);
            }
        });
    }
}

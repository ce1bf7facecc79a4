//! Pages of keys in the order of their bytes: the response to `List`.
//!
//! A page is made in slices, so that a list never keeps anybody waiting for longer than one slice
//! takes. It looks at records of the prefix alone, and nearly all of those are in it.

use std::ops::ControlFlow;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, EntryKind, KeyPosition, PageEntry, PageRest, ReplicaResponse};

use crate::handlers::caller::ResponseRoom;
use crate::handlers::replica::Replica;
use crate::store::{HeldRecord, RecordStore as _};

/// Most records that one page looks at.
const RECORDS_PER_PAGE_MAX: usize = 4_096;

/// What a page is to hold.
#[derive(Debug, Clone)]
pub(in crate::handlers) struct PageQuery {
    /// Only keys that begin with these bytes are listed.
    pub(in crate::handlers) prefix: Bytes,
    /// It begins with the first of them from here on.
    pub(in crate::handlers) start: KeyPosition,
    /// In which direction.
    pub(in crate::handlers) direction: Direction,
    /// Most keys in it.
    pub(in crate::handlers) keys_max: usize,
    /// Its entries come to no more bytes than there is room for.
    pub(in crate::handlers) room: ResponseRoom,
}

impl PageQuery {
    /// The longest key that a page can have, in bytes. A request has room for it as well, since a
    /// server takes datagrams of the length that it sends.
    fn key_bytes_max(&self) -> usize {
        let room = self.room;
        room.page_bytes.saturating_sub(room.page_entry_bytes)
    }
}

/// A page in the making.
///
/// A key that is too long for a page of its own is left out, since nobody could ask for what follows
/// it, and the page says so. After too many of those without a single key that fits, the page is empty,
/// and says where the next one begins: behind all keys that begin as the last one does, which are as
/// long.
pub(super) struct PageScan {
    query: PageQuery,
    /// Where the next slice begins, and where the keys of the prefix end.
    lower: KeyPosition,
    upper: KeyPosition,
    entries: Vec<PageEntry>,
    /// What is left of the page, in bytes.
    room: usize,
    looked_at: usize,
    left_out: u64,
}

/// How a slice of a page ended.
enum SliceEnd {
    /// There are no more records.
    Exhausted,
    /// The page is full, or has looked at enough, and there are more.
    Full,
    /// The slice has looked at its share.
    Paused,
}

impl PageScan {
    pub(super) fn new(query: PageQuery) -> Self {
        let first = KeyPosition::first_of(&query.prefix, query.direction);
        let last = KeyPosition::last_of(&query.prefix, query.direction);
        let (lower, upper) = match query.direction {
            Direction::Ascending => (first.max(query.start.clone()), last),
            Direction::Descending => (last, first.min(query.start.clone())),
        };
        Self {
            room: query.room.page_bytes,
            query,
            lower,
            upper,
            entries: Vec::new(),
            looked_at: 0,
            left_out: 0,
        }
    }

    /// Looks at a record. Breaks, without taking it, if the page ends before it.
    fn visit(&mut self, held: &HeldRecord<'_>) -> ControlFlow<()> {
        let is_too_long = held.key().len() > self.query.key_bytes_max();
        let entry_bytes = self.query.room.page_entry_bytes + held.key().len();
        let is_full = self.entries.len() == self.query.keys_max || entry_bytes > self.room;
        if self.looked_at == RECORDS_PER_PAGE_MAX || (!is_too_long && is_full) {
            return ControlFlow::Break(());
        }
        self.looked_at += 1;
        if is_too_long {
            self.left_out += 1;
            return ControlFlow::Continue(());
        }
        let kind = match held.is_tombstone() {
            true => EntryKind::Tombstone,
            false => EntryKind::Value,
        };
        // What a store holds is keys; no bytes are none.
        if let Ok(key) = Key::new(Bytes::copy_from_slice(held.key())) {
            self.room -= entry_bytes;
            let tag = held.tag();
            self.entries.push(PageEntry { key, tag, kind });
        }
        ControlFlow::Continue(())
    }

    /// The next slice begins after this key.
    fn pass(&mut self, key: Bytes) {
        let beyond = KeyPosition::beyond(key, self.query.direction);
        match self.query.direction {
            Direction::Ascending => self.lower = beyond,
            Direction::Descending => self.upper = beyond,
        }
    }

    /// Where the page after this one begins, if there are more keys.
    fn rest(&self) -> PageRest {
        if !self.entries.is_empty() {
            return PageRest::AfterLast;
        }
        let direction = self.query.direction;
        let at = match direction {
            Direction::Ascending => &self.lower,
            Direction::Descending => &self.upper,
        };
        PageRest::From(match at {
            // Whatever begins as the last key does is as long, and is left out as well.
            KeyPosition::Before(key) | KeyPosition::After(key) if self.left_out > 0 => {
                let left_out = self.left_out;
                tracing::warn!("a list met {left_out} keys in a row that no datagram holds");
                let beginning = key.slice(..key.len().min(self.query.key_bytes_max()));
                KeyPosition::last_of(&beginning, direction)
            }
            at => at.clone(),
        })
    }
}

impl Replica {
    /// Looks at up to `records_max` more records for a page, which is at least one. Returns the
    /// response once the page has ended.
    pub(super) fn scan_slice(
        &self,
        scan: &mut PageScan,
        records_max: usize,
    ) -> Option<ReplicaResponse> {
        let (lower, upper) = (scan.lower.clone(), scan.upper.clone());
        let before = scan.looked_at;
        let (mut end, mut last) = (SliceEnd::Exhausted, Vec::new());
        if let Some(lower) = lower.lower_bound() {
            let range = (lower, upper.upper_bound());
            self.store.scan_keys(range, scan.query.direction, |held| {
                if scan.looked_at == before + records_max {
                    end = SliceEnd::Paused;
                    return ControlFlow::Break(());
                }
                if scan.visit(held).is_break() {
                    end = SliceEnd::Full;
                    return ControlFlow::Break(());
                }
                last.clear();
                last.extend_from_slice(held.key());
                ControlFlow::Continue(())
            });
        }
        let looked_at = scan.looked_at - before;
        self.counters.list_records_examined.add(looked_at as u64);
        if looked_at > 0 {
            scan.pass(last.into());
        }
        let rest = match end {
            SliceEnd::Paused => return None,
            SliceEnd::Full => scan.rest(),
            SliceEnd::Exhausted => PageRest::None,
        };
        self.counters.list_keys_left_out.add(scan.left_out);
        Some(ReplicaResponse::Page {
            rest,
            is_incomplete: !self.is_complete(),
            is_left_out: scan.left_out > 0,
            entries: std::mem::take(&mut scan.entries),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::store::{MemoryStore, Store};
    use dkvs_common::record::{Content, Record};
    use dkvs_common::tag::Tag;
    use proptest::prelude::*;

    const PAGE_ENTRY_BYTES: usize = 19;
    const TAG: Tag = Tag { time: 1, op: 2 };
    const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];

    fn replica(keys: impl IntoIterator<Item = String>) -> Replica {
        let replica = Replica::new(
            Store::Memory(MemoryStore::new(usize::MAX)),
            ServiceConfig::new(1),
        );
        for key in keys {
            let key = Key::new(key).unwrap();
            let record = Record::new(&key, TAG, Content::Tombstone);
            let put = replica.store.apply(&key, &record, || Box::new(drop));
            put.unwrap().unwrap();
        }
        replica
    }

    fn numbers(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{number:04}")).collect()
    }

    /// Of all keys, from the beginning, with room for so many bytes.
    fn query(direction: Direction, prefix: &str, keys_max: usize, page_bytes: usize) -> PageQuery {
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        PageQuery {
            start: KeyPosition::first_of(&prefix, direction),
            prefix,
            direction,
            keys_max,
            room: ResponseRoom {
                value_bytes: 0,
                accepted_bytes: 0,
                page_bytes,
                page_entry_bytes: PAGE_ENTRY_BYTES,
                leaf: crate::handlers::LeafRoom::default(),
            },
        }
    }

    struct Page {
        keys: Vec<String>,
        rest: PageRest,
        is_left_out: bool,
    }

    impl Replica {
        /// A whole page, made in slices of no even length.
        fn list(&self, query: PageQuery) -> Page {
            let mut scan = PageScan::new(query);
            let mut slices = [1, 2, 5, 300, 1_000].into_iter().cycle();
            loop {
                let (before, slice) = (scan.looked_at, slices.next().unwrap());
                let response = self.scan_slice(&mut scan, slice);
                assert!(scan.looked_at - before <= slice);
                let Some(response) = response else {
                    assert_eq!(scan.looked_at - before, slice);
                    continue;
                };
                let ReplicaResponse::Page {
                    rest,
                    is_left_out,
                    entries,
                    ..
                } = response
                else {
                    panic!("{response:?}");
                };
                let text = |entry: PageEntry| String::from_utf8(entry.key.into_bytes().into());
                let keys = entries.into_iter().map(|entry| text(entry).unwrap());
                return Page {
                    keys: keys.collect(),
                    rest,
                    is_left_out,
                };
            }
        }

        /// The keys of all pages, whether any was left out, and how many pages that took.
        fn list_all(&self, mut query: PageQuery) -> (Vec<String>, bool, usize) {
            let (mut listed, mut is_left_out, mut pages) = (Vec::new(), false, 0);
            loop {
                let page = self.list(query.clone());
                is_left_out |= page.is_left_out;
                pages += 1;
                let last = page.keys.last().cloned();
                listed.extend(page.keys);
                query.start = match page.rest {
                    PageRest::None => return (listed, is_left_out, pages),
                    PageRest::AfterLast => {
                        KeyPosition::beyond(last.unwrap().into(), query.direction)
                    }
                    PageRest::From(start) => {
                        assert_eq!(last, None);
                        start
                    }
                };
            }
        }
    }

    #[test]
    fn a_page_ends_at_its_keys_or_its_bytes_and_says_whether_there_are_more() {
        let replica = replica(numbers(10));
        let entry = PAGE_ENTRY_BYTES + 4;
        for (keys_max, page_bytes, count, rest) in [
            (1, 1_000, 1, PageRest::AfterLast),
            (9, 1_000, 9, PageRest::AfterLast),
            (10, 1_000, 10, PageRest::None),
            (65_535, 1_000, 10, PageRest::None),
            (10, 10 * entry, 10, PageRest::None),
            (10, 10 * entry - 1, 9, PageRest::AfterLast),
            (10, entry, 1, PageRest::AfterLast),
        ] {
            for direction in DIRECTIONS {
                let page = replica.list(query(direction, "", keys_max, page_bytes));
                assert_eq!((page.keys.len(), page.rest), (count, rest.clone()));
            }
        }
        let none = replica.list(query(Direction::Ascending, "", 0, 1_000));
        assert_eq!(none.rest, PageRest::From(KeyPosition::START));
        let none = self::replica([]).list(query(Direction::Ascending, "", 0, 1_000));
        assert_eq!(none.rest, PageRest::None);
    }

    #[test]
    fn a_list_of_a_prefix_looks_at_its_keys_alone() {
        let others = (0..3_000).map(|number| format!("a/{number}"));
        let more = (0..3_000).map(|number| format!("c/{number}"));
        let some = (0..50).map(|number| format!("b/{number:02}"));
        let mut expected: Vec<String> = some.clone().collect();
        let replica = replica(others.chain(some).chain(more));
        let examined = || replica.counters.list_records_examined.count();
        for direction in DIRECTIONS {
            for prefix in ["b0", "b/50", "b/x", "bb", "d", "\0", "\u{10ffff}"] {
                let page = replica.list(query(direction, prefix, 100, 1_000));
                assert_eq!(
                    (page.keys.len(), page.rest),
                    (0, PageRest::None),
                    "{prefix}"
                );
            }
        }
        assert_eq!(examined(), 0);
        for direction in DIRECTIONS {
            let before = examined();
            let (listed, is_left_out, pages) = replica.list_all(query(direction, "b/", 20, 60_000));
            assert_eq!((listed, is_left_out, pages), (expected.clone(), false, 3));
            assert_eq!(examined() - before, 50);
            expected.reverse();
        }
    }

    #[test]
    fn a_page_says_whether_keys_with_the_prefix_were_too_long_for_it() {
        let replica = replica(["a".into(), "a".repeat(80), "b".into(), "b".repeat(90)]);
        for (prefix, longest, expected) in [
            ("", 90, false),
            ("", 89, true),
            ("a", 80, false),
            ("a", 79, true),
            ("b", 89, true),
            ("c", 1, false),
        ] {
            for direction in DIRECTIONS {
                let room = PAGE_ENTRY_BYTES + longest;
                let (_, is_left_out, _) = replica.list_all(query(direction, prefix, 9, room));
                assert_eq!(is_left_out, expected, "{prefix} {longest}");
            }
        }
    }

    #[test]
    fn keys_too_long_for_a_page_are_left_out_and_end_nothing() {
        let short = numbers(100);
        let long = short.iter().map(|number| number.repeat(20));
        let replica = replica(short.iter().cloned().chain(long));
        for direction in DIRECTIONS {
            let (mut listed, is_left_out, _) =
                replica.list_all(query(direction, "", 7, PAGE_ENTRY_BYTES + 79));
            if direction == Direction::Descending {
                listed.reverse();
            }
            assert_eq!((listed, is_left_out), (short.clone(), true));
        }
    }

    #[test]
    fn a_page_of_nothing_but_keys_too_long_ends_after_its_bounded_work_and_the_next_goes_on() {
        let count = RECORDS_PER_PAGE_MAX + 1_000;
        let long = (0..count).map(|number| format!("{number:020}"));
        let replica = replica(long.chain(["5".into(), "/".into()]));
        for direction in DIRECTIONS {
            let before = replica.counters.list_records_examined.count();
            let (mut listed, is_left_out, pages) =
                replica.list_all(query(direction, "", 7, PAGE_ENTRY_BYTES + 18));
            listed.sort_unstable();
            assert_eq!((listed.len(), is_left_out), (2, true));
            assert!(pages > 1);
            let examined = replica.counters.list_records_examined.count() - before;
            assert!(examined <= 2 * count as u64);
        }
    }

    proptest! {
        #[test]
        fn pages_have_every_key_of_the_prefix_once_in_order(
            names in prop::collection::btree_set("[ab]{1,6}", 0..60),
            prefix in "[ab]{0,3}",
            start in prop::option::of("[ab]{0,4}"),
            is_after: bool,
            is_descending: bool,
            keys_max in 1..9usize,
            page_bytes in 25..200usize,
        ) {
            let replica = replica(names.iter().cloned());
            let direction = DIRECTIONS[usize::from(is_descending)];
            let mut query = query(direction, &prefix, keys_max, page_bytes);
            let start = start.map(Bytes::from);
            if let Some(start) = start {
                query.start = match is_after {
                    true => KeyPosition::After(start),
                    false => KeyPosition::Before(start),
                };
            }
            let at = query.start.clone();
            let is_listed = |name: &&String| {
                let place = KeyPosition::Before(name.as_bytes().to_vec().into());
                let is_behind = place >= at;
                name.starts_with(&prefix) && is_behind != is_descending
            };
            let mut expected: Vec<String> = names.iter().filter(is_listed).cloned().collect();
            if is_descending {
                expected.reverse();
            }
            prop_assert_eq!(replica.list_all(query).0, expected);
        }
    }
}

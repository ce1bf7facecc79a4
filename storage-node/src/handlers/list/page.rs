//! Pages of keys in ring order: the response to `List`.
//!
//! A page is made in slices, so that a list never keeps anybody waiting for longer than one slice
//! takes.

use std::ops::ControlFlow;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::{EntryKind, PageEntry, Refusal, ReplicaResponse};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use crate::handlers::caller::ResponseRoom;
use crate::handlers::replica::Replica;
use crate::store::{HeldRecord, RecordStore as _};

/// Most records that one page looks at.
const RECORDS_PER_PAGE_MAX: usize = 4_096;

/// What a page is to hold.
#[derive(Debug, Clone)]
pub(in crate::handlers) struct PageQuery {
    /// It begins with the first key that stands here or later...
    pub(in crate::handlers) from: Position,
    /// ...but for this one and those before it at the very same position.
    pub(in crate::handlers) after: Option<Key>,
    /// Only keys that begin with these bytes are listed.
    pub(in crate::handlers) prefix: Bytes,
    /// Most keys in it.
    pub(in crate::handlers) keys_max: usize,
    /// Its entries come to no more bytes than there is room for.
    pub(in crate::handlers) room: ResponseRoom,
    /// Whether the page may say that keys were left out.
    pub(in crate::handlers) accepts_left_out: bool,
}

/// A page in the making.
///
/// A page that has looked at enough records ends with the last of them that fits, whether it has
/// the prefix or not, for the next page to begin there. A key that is too long for a page of its
/// own is left out, since nobody could ask for what follows it, and the page says so. After too
/// many of those without a single key that fits, the page has no end, and the response is
/// `internal`.
pub(super) struct PageScan {
    query: PageQuery,
    page: PageBuilder,
    looked_at: usize,
    left_out: u64,
}

/// How a slice of a page ended.
enum SliceEnd {
    /// There are no more records.
    Exhausted,
    /// The page is full, or has looked at enough, and there are more.
    Full,
    /// The slice has looked at its share; the last record of it had this key.
    Paused(Option<Key>),
}

impl PageScan {
    pub(super) fn new(query: PageQuery) -> Self {
        Self {
            page: PageBuilder {
                entries: Vec::new(),
                room: query.room.page_bytes,
                passed_over: Vec::new(),
                passed_over_tag: Tag::ZERO,
            },
            query,
            looked_at: 0,
            left_out: 0,
        }
    }

    /// Looks at a record. Breaks, without taking it, if the page ends before it.
    fn visit(&mut self, held: &HeldRecord<'_>) -> ControlFlow<()> {
        let ResponseRoom {
            page_bytes,
            page_entry_bytes,
            ..
        } = self.query.room;
        let entry_bytes = page_entry_bytes + held.key().len();
        let has_prefix = held.key().starts_with(&self.query.prefix);
        let is_too_long = has_prefix && entry_bytes > page_bytes;
        let is_listed = has_prefix && !is_too_long;
        let page = &mut self.page;
        let is_past_the_end = page.entries.len() == self.query.keys_max || entry_bytes > page.room;
        if self.looked_at == RECORDS_PER_PAGE_MAX || (is_listed && is_past_the_end) {
            return ControlFlow::Break(());
        }
        self.looked_at += 1;
        self.left_out += u64::from(is_too_long);
        match is_listed {
            true => page.add(held, entry_bytes),
            false => page.pass_over(held, entry_bytes),
        }
        ControlFlow::Continue(())
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
        let (from, after) = (scan.query.from, scan.query.after.clone());
        let slice_end = scan.looked_at + records_max;
        let before = scan.looked_at;
        let mut end = SliceEnd::Exhausted;
        self.store.scan(from, after.as_ref(), |held| {
            if scan.visit(held).is_break() {
                end = SliceEnd::Full;
                return ControlFlow::Break(());
            }
            if scan.looked_at == slice_end {
                // What a store holds is keys; no bytes are none.
                end = SliceEnd::Paused(Key::new(held.key().to_vec()).ok());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let looked_at = scan.looked_at - before;
        self.counters.list_records_examined.add(looked_at as u64);
        let more = match end {
            SliceEnd::Paused(last) => {
                scan.query.from = last.as_ref().map_or(from, Position::of_key);
                scan.query.after = last.or(after);
                return None;
            }
            SliceEnd::Full => true,
            SliceEnd::Exhausted => false,
        };
        Some(self.page_response(scan, more))
    }

    fn page_response(&self, scan: &mut PageScan, more: bool) -> ReplicaResponse {
        let (looked_at, left_out, page) = (scan.looked_at, scan.left_out, &mut scan.page);
        self.counters.list_keys_left_out.add(left_out);
        let has_given_up = more && looked_at == RECORDS_PER_PAGE_MAX;
        if has_given_up {
            page.end_there();
        }
        let entries = std::mem::take(&mut page.entries);
        if has_given_up && entries.is_empty() {
            tracing::warn!("a list met {looked_at} keys in a row that no datagram holds");
            return ReplicaResponse::Refused(Refusal::Internal);
        }
        ReplicaResponse::Page {
            more,
            is_incomplete: !self.store.is_complete(),
            is_left_out: left_out > 0 && scan.query.accepts_left_out,
            entries,
        }
    }
}

/// The entries of a page.
struct PageBuilder {
    entries: Vec<PageEntry>,
    /// What is left of the page, in bytes.
    room: usize,
    /// The last key after the last entry that fits; no bytes if there is none.
    passed_over: Vec<u8>,
    passed_over_tag: Tag,
}

impl PageBuilder {
    fn add(&mut self, held: &HeldRecord<'_>, entry_bytes: usize) {
        let kind = match held.is_tombstone() {
            true => EntryKind::Tombstone,
            false => EntryKind::Value,
        };
        self.room -= entry_bytes;
        self.passed_over.clear();
        self.push(Bytes::copy_from_slice(held.key()), held.tag(), kind);
    }

    fn pass_over(&mut self, held: &HeldRecord<'_>, entry_bytes: usize) {
        if entry_bytes <= self.room {
            self.passed_over.clear();
            self.passed_over.extend_from_slice(held.key());
            self.passed_over_tag = held.tag();
        }
    }

    /// Ends the page with what was passed over last.
    fn end_there(&mut self) {
        let key = std::mem::take(&mut self.passed_over);
        self.push(key.into(), self.passed_over_tag, EntryKind::PassedOver);
    }

    fn push(&mut self, key: Bytes, tag: Tag, kind: EntryKind) {
        // What a store holds is keys; no bytes are none.
        if let Ok(key) = Key::new(key) {
            self.entries.push(PageEntry { key, tag, kind });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::store::{MemoryStore, Store};
    use dkvs_common::record::{Content, Record};

    const PAGE_ENTRY_BYTES: usize = 19;
    const TAG: Tag = Tag { time: 1, op: 2 };
    const START: Position = Position([0; 20]);

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

    fn room(page_bytes: usize) -> ResponseRoom {
        ResponseRoom {
            value_bytes: 0,
            page_bytes,
            page_entry_bytes: PAGE_ENTRY_BYTES,
        }
    }

    impl Replica {
        /// A whole page, made in slices of no even length.
        fn list(
            &self,
            (from, after): (Position, Option<&Key>),
            prefix: &[u8],
            keys_max: usize,
            room: ResponseRoom,
        ) -> ReplicaResponse {
            let mut scan = PageScan::new(PageQuery {
                from,
                after: after.cloned(),
                prefix: Bytes::copy_from_slice(prefix),
                keys_max,
                room,
                accepts_left_out: true,
            });
            let mut slices = [1, 2, 5, 300, 1_000].into_iter().cycle();
            loop {
                let (before, slice) = (scan.looked_at, slices.next().unwrap());
                let response = self.scan_slice(&mut scan, slice);
                assert!(scan.looked_at - before <= slice);
                if let Some(response) = response {
                    return response;
                }
                assert_eq!(scan.looked_at - before, slice);
            }
        }
    }

    /// How many keys a page has, and whether there are more.
    fn page(replica: &Replica, keys_max: usize, page_bytes_max: usize) -> (usize, bool) {
        match replica.list((START, None), b"", keys_max, room(page_bytes_max)) {
            ReplicaResponse::Page { more, entries, .. } => (entries.len(), more),
            reply => panic!("{reply:?}"),
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
            let page_bytes_max = 4 * (PAGE_ENTRY_BYTES + longest);
            let page_bytes_max = match expected {
                true => PAGE_ENTRY_BYTES + longest,
                false => page_bytes_max,
            };
            let mut after: Option<Key> = None;
            let mut is_any_left_out = false;
            loop {
                let from = after.as_ref().map_or(START, Position::of_key);
                let start = (from, after.as_ref());
                let page = replica.list(start, prefix.as_bytes(), 9, room(page_bytes_max));
                let ReplicaResponse::Page {
                    more,
                    is_left_out,
                    entries,
                    ..
                } = page
                else {
                    panic!("{page:?}");
                };
                is_any_left_out |= is_left_out;
                after = entries.last().map(|entry| entry.key.clone()).or(after);
                if !more {
                    break;
                }
            }
            assert_eq!(is_any_left_out, expected, "{prefix} {longest}");
        }
    }

    #[test]
    fn a_page_ends_at_its_keys_or_its_bytes_and_says_whether_there_are_more() {
        let replica = replica(numbers(10));
        let entry = PAGE_ENTRY_BYTES + 4;
        for (keys_max, page_bytes_max, expected) in [
            (0, 1_000, (0, true)),
            (1, 1_000, (1, true)),
            (9, 1_000, (9, true)),
            (10, 1_000, (10, false)),
            (65_535, 1_000, (10, false)),
            (10, 10 * entry, (10, false)),
            (10, 10 * entry - 1, (9, true)),
            (10, entry, (1, true)),
        ] {
            assert_eq!(page(&replica, keys_max, page_bytes_max), expected);
        }
        assert_eq!(page(&self::replica([]), 0, 1_000), (0, false));
    }

    #[test]
    fn a_key_too_long_for_a_page_is_left_out_and_ends_nothing() {
        let short = numbers(100);
        let long = short.iter().map(|number| number.repeat(20));
        let replica = replica(short.iter().cloned().chain(long));
        let (mut after, mut listed): (Option<Key>, usize) = (None, 0);
        loop {
            let from = after.as_ref().map_or(START, Position::of_key);
            let start = (from, after.as_ref());
            let reply = replica.list(start, b"", 7, room(PAGE_ENTRY_BYTES + 79));
            let ReplicaResponse::Page { more, entries, .. } = reply else {
                panic!("{reply:?}");
            };
            assert!(entries.iter().all(|entry| entry.key.as_bytes().len() == 4));
            listed += entries.len();
            after = entries.last().map(|entry| entry.key.clone()).or(after);
            if !more {
                break;
            }
            assert!(!entries.is_empty());
        }
        assert_eq!(listed, 100);
        // Those between two pages are met twice.
        assert!(replica.counters.list_keys_left_out.count() >= 100);
        let replica = self::replica(["k".repeat(80)]);
        assert_eq!(page(&replica, 9, PAGE_ENTRY_BYTES + 80), (1, false));
        assert_eq!(page(&replica, 9, PAGE_ENTRY_BYTES + 79), (0, false));
    }

    #[test]
    fn a_page_of_nothing_but_keys_too_long_ends_after_its_bounded_work() {
        let all = replica(numbers(RECORDS_PER_PAGE_MAX));
        assert_eq!(page(&all, 10, PAGE_ENTRY_BYTES + 3), (0, false));
        let one_more = replica(numbers(RECORDS_PER_PAGE_MAX + 1));
        let reply = one_more.list((START, None), b"", 10, room(PAGE_ENTRY_BYTES + 3));
        assert_eq!(reply, ReplicaResponse::Refused(Refusal::Internal));
        let left_out = one_more.counters.list_keys_left_out.count();
        assert_eq!(left_out, RECORDS_PER_PAGE_MAX as u64);
    }

    #[test]
    fn keys_with_a_prefix_are_all_listed_and_a_page_looks_at_so_many_records_at_most() {
        let rare = (0..50).map(|number| format!("rare/{number}"));
        let common = (0..3 * RECORDS_PER_PAGE_MAX).map(|number| format!("common/{number}"));
        let replica = replica(rare.chain(common));
        let (mut after, mut listed, mut pages): (Option<Key>, Vec<Key>, _) = (None, Vec::new(), 0);
        loop {
            let from = after.as_ref().map_or(START, Position::of_key);
            let reply = replica.list((from, after.as_ref()), b"rare/", 40, room(1_000));
            let ReplicaResponse::Page { more, entries, .. } = reply else {
                panic!("{reply:?}");
            };
            pages += 1;
            after = entries.last().map(|entry| entry.key.clone());
            let is_listed = |entry: &PageEntry| entry.kind != EntryKind::PassedOver;
            let last = entries.len().saturating_sub(1);
            assert!(entries.iter().take(last).all(is_listed));
            listed.extend(entries.into_iter().filter(is_listed).map(|entry| entry.key));
            if !more {
                break;
            }
        }
        assert!(listed.is_sorted_by_key(Position::of_key));
        let names = listed
            .iter()
            .map(|key| key.as_bytes().starts_with(b"rare/"));
        assert_eq!(names.filter(|is_rare| *is_rare).count(), 50);
        assert_eq!(listed.len(), 50);
        // Four for the records that are looked at, and one more where a page was full.
        assert!((4..=6).contains(&pages), "{pages}");
    }
}

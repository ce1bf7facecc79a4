//! Pages of keys in ring order: the response to `List`.

use std::ops::ControlFlow;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::{EntryKind, PageEntry, Refusal, ReplicaResponse};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use super::caller::ResponseRoom;
use super::replica::Replica;
use crate::store::{PackedRecord, RecordStore as _};

/// Most records that one page looks at.
const RECORDS_PER_PAGE_MAX: usize = 4_096;

impl Replica {
    /// A page of at most `keys_max` keys that begin with `prefix`, from the first that stands at
    /// `start` or later; their entries come to no more bytes than there is room for.
    ///
    /// A page that has looked at enough records ends with the last of them that fits, whether it
    /// has the prefix or not, for the next page to begin there. A key that is too long for a page
    /// of its own is left out, since nobody could ask for what follows it, and the page says so.
    /// After too many of those without a single key that fits, the page has no end, and the
    /// response is `internal`.
    pub(super) fn list(
        &self,
        (from, after): (Position, Option<&Key>),
        prefix: &[u8],
        keys_max: usize,
        room: ResponseRoom,
    ) -> ReplicaResponse {
        let ResponseRoom {
            page_bytes,
            page_entry_bytes,
            ..
        } = room;
        let entry_bytes = |held: &PackedRecord| page_entry_bytes + held.key().len();
        let mut page = PageBuilder {
            entries: Vec::new(),
            room: page_bytes,
            passed_over: Vec::new(),
            passed_over_tag: Tag::ZERO,
        };
        let (mut more, mut looked_at, mut left_out) = (false, 0, 0);
        self.store.scan(from, after, |held| {
            let has_prefix = held.key().starts_with(prefix);
            let is_too_long = has_prefix && entry_bytes(held) > page_bytes;
            let is_listed = has_prefix && !is_too_long;
            let is_past_the_end = page.entries.len() == keys_max || entry_bytes(held) > page.room;
            if looked_at == RECORDS_PER_PAGE_MAX || (is_listed && is_past_the_end) {
                more = true;
                return ControlFlow::Break(());
            }
            looked_at += 1;
            left_out += u64::from(is_too_long);
            match is_listed {
                true => page.add(held, entry_bytes(held)),
                false => page.pass_over(held, entry_bytes(held)),
            }
            ControlFlow::Continue(())
        });
        self.counters.list_keys_left_out.add(left_out);
        let has_given_up = more && looked_at == RECORDS_PER_PAGE_MAX;
        if has_given_up {
            page.end_there();
        }
        let entries = page.entries;
        if has_given_up && entries.is_empty() {
            tracing::warn!(%from, "a list met {looked_at} keys in a row that no datagram holds");
            return ReplicaResponse::Refused(Refusal::Internal);
        }
        ReplicaResponse::Page {
            more,
            is_incomplete: !self.store.is_complete(),
            is_left_out: left_out > 0,
            entries,
        }
    }
}

/// A page under way.
struct PageBuilder {
    entries: Vec<PageEntry>,
    /// What is left of the page, in bytes.
    room: usize,
    /// The last key after the last entry that fits; no bytes if there is none.
    passed_over: Vec<u8>,
    passed_over_tag: Tag,
}

impl PageBuilder {
    fn add(&mut self, held: &PackedRecord, entry_bytes: usize) {
        let kind = match held.is_tombstone() {
            true => EntryKind::Tombstone,
            false => EntryKind::Value,
        };
        self.room -= entry_bytes;
        self.passed_over.clear();
        self.push(Bytes::copy_from_slice(held.key()), held.tag(), kind);
    }

    fn pass_over(&mut self, held: &PackedRecord, entry_bytes: usize) {
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

//! Pages of keys in ring order: the answer to `list`.

use std::ops::ControlFlow;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::ring::Position;
use dkvs_common::wire::v2::reply::{PAGE_ENTRY_BYTES, Reply};

use super::Service;

/// Most records that one page looks at. It is more than any page holds, and is met only by a run
/// of keys that are all too long to be told.
const RECORDS_PER_PAGE_MAX: usize = 4_096;

impl Service {
    /// A page of at most `keys_max` keys whose entries come to at most `page_bytes_max` bytes.
    ///
    /// A key that is too long for a page of its own is left out, since nobody could ask for what
    /// follows it. After too many of those without a single key to tell, the page has no end that
    /// could be told, and the answer is `internal`.
    pub(super) fn list(
        &self,
        from: Position,
        after: Option<&Key>,
        keys_max: usize,
        page_bytes_max: usize,
    ) -> Reply {
        let (mut entries, mut more, mut has_given_up) = (Vec::new(), false, false);
        let (mut room, mut looked_at, mut left_out) = (page_bytes_max, 0, 0);
        self.store.records().walk(from, after, |held| {
            let entry_bytes = PAGE_ENTRY_BYTES + held.key().len();
            let is_too_long = entry_bytes > page_bytes_max;
            let is_past_the_end = entries.len() == keys_max || entry_bytes > room;
            has_given_up = looked_at == RECORDS_PER_PAGE_MAX;
            if has_given_up || (!is_too_long && is_past_the_end) {
                more = true;
                return ControlFlow::Break(());
            }
            looked_at += 1;
            match Key::new(Bytes::copy_from_slice(held.key())) {
                Ok(key) if !is_too_long => {
                    room -= entry_bytes;
                    entries.push((key, held.tag(), held.is_tombstone()));
                }
                _ => left_out += 1,
            }
            ControlFlow::Continue(())
        });
        self.counters.list_keys_left_out.add(left_out);
        if has_given_up && entries.is_empty() {
            tracing::warn!(%from, "a list met {looked_at} keys in a row that no datagram holds");
            return Reply::Internal;
        }
        Reply::Page { more, entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Config;
    use crate::store::{MemoryStore, Store};
    use dkvs_common::record::{Content, Record};
    use dkvs_common::tag::Tag;

    const TAG: Tag = Tag { time: 1, op: 2 };
    const START: Position = Position([0; 20]);

    fn service(keys: impl IntoIterator<Item = String>) -> Service {
        let service = Service::new(Store::Memory(MemoryStore::new(usize::MAX)), Config::new(1));
        for key in keys {
            let key = Key::new(key).unwrap();
            let record = Record::new(&key, TAG, Content::Tombstone);
            service.store().records().put(&key, &record).unwrap();
        }
        service
    }

    fn numbers(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{number:04}")).collect()
    }

    /// How many keys a page has, and whether there are more.
    fn page(service: &Service, keys_max: usize, page_bytes_max: usize) -> (usize, bool) {
        match service.list(START, None, keys_max, page_bytes_max) {
            Reply::Page { more, entries } => (entries.len(), more),
            reply => panic!("{reply:?}"),
        }
    }

    #[test]
    fn a_page_ends_at_its_keys_or_its_bytes_and_tells_whether_there_are_more() {
        let service = service(numbers(10));
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
            assert_eq!(page(&service, keys_max, page_bytes_max), expected);
        }
        assert_eq!(page(&self::service([]), 0, 1_000), (0, false));
    }

    #[test]
    fn a_key_too_long_for_a_page_is_left_out_and_ends_nothing() {
        let short = numbers(100);
        let long = short.iter().map(|number| number.repeat(20));
        let service = service(short.iter().cloned().chain(long));
        let (mut after, mut listed): (Option<Key>, usize) = (None, 0);
        loop {
            let from = after.as_ref().map_or(START, Position::of_key);
            let reply = service.list(from, after.as_ref(), 7, PAGE_ENTRY_BYTES + 79);
            let Reply::Page { more, entries } = reply else {
                panic!("{reply:?}");
            };
            assert!(entries.iter().all(|(key, ..)| key.as_bytes().len() == 4));
            listed += entries.len();
            after = entries.last().map(|(key, ..)| key.clone()).or(after);
            if !more {
                break;
            }
            assert!(!entries.is_empty());
        }
        assert_eq!(listed, 100);
        // Those between two pages are met twice.
        assert!(service.counters.list_keys_left_out.count() >= 100);
        let service = self::service(["k".repeat(80)]);
        assert_eq!(page(&service, 9, PAGE_ENTRY_BYTES + 80), (1, false));
        assert_eq!(page(&service, 9, PAGE_ENTRY_BYTES + 79), (0, false));
    }

    #[test]
    fn a_page_of_nothing_but_keys_too_long_ends_after_its_bounded_work() {
        let all = service(numbers(RECORDS_PER_PAGE_MAX));
        assert_eq!(page(&all, 10, PAGE_ENTRY_BYTES + 3), (0, false));
        let one_more = service(numbers(RECORDS_PER_PAGE_MAX + 1));
        let reply = one_more.list(START, None, 10, PAGE_ENTRY_BYTES + 3);
        assert_eq!(reply, Reply::Internal);
        let left_out = one_more.counters.list_keys_left_out.count();
        assert_eq!(left_out, RECORDS_PER_PAGE_MAX as u64);
    }
}

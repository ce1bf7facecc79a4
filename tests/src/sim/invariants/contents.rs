//! Of one tag there is one content: two records of a key under one tag never differ, on whatever
//! server and at whatever time they were seen.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use dkvs_common::kv::Key;
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::{Lookup, Part, RecordStore as _, RecordView, Store};

use super::Violation;
use crate::sim::datagram::tag_words;

/// Every record that was seen in a store.
#[derive(Debug, Default)]
pub struct Contents {
    seen: BTreeMap<(Box<[u8]>, Tag), Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    is_tombstone: bool,
    content_type: Box<[u8]>,
    value: Box<[u8]>,
}

impl Contents {
    /// Looks at every record of a server.
    pub fn look_at(&mut self, server: usize, store: &Store) -> Result<(), Violation> {
        let mut keys = Vec::new();
        store.scan(Position([0; 20]), None, |held| {
            keys.extend(Key::new(held.key().to_vec()));
            ControlFlow::Continue(())
        });
        for key in keys {
            let look = |held: &RecordView<'_>| self.look_at_record(server, key.as_bytes(), held);
            // What is damaged, or quarantined, it tells nobody of.
            if let Lookup::Found(found) = store.read_now(&key, Part::Whole, look) {
                found?;
            }
        }
        Ok(())
    }

    fn look_at_record(
        &mut self,
        server: usize,
        key: &[u8],
        held: &RecordView<'_>,
    ) -> Result<(), Violation> {
        let tag = held.head().tag;
        let violation = |what: &str| {
            let key = String::from_utf8_lossy(key);
            let what = format!("s{server} holds {key} at {} {what}", tag_words(tag));
            Err(Violation::new("contents", what))
        };
        let seen = Seen {
            is_tombstone: held.head().is_tombstone,
            content_type: held.content_type().into(),
            value: held.value().into(),
        };
        let first = self.seen.entry((key.into(), tag));
        match *first.or_insert_with(|| seen.clone()) == seen {
            true => Ok(()),
            false => violation("and something else was seen under that tag before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::values;
    use dkvs_common::record::{Content, Record};
    use dkvs_storage_node::store::MemoryStore;

    fn store(number: Option<u64>) -> Store {
        let store = MemoryStore::new(usize::MAX);
        let key = Key::new("k").unwrap();
        let content = number.map_or(Content::Tombstone, |number| values::content(number, 20));
        let record = Record::new(&key, Tag { time: 1, op: 1 }, content);
        let put = store.apply(&key, &record, || Box::new(drop));
        put.unwrap().unwrap();
        Store::Memory(store)
    }

    #[test]
    fn the_same_record_on_two_servers_is_well_and_another_under_its_tag_is_not() {
        let mut contents = Contents::default();
        assert_eq!(contents.look_at(0, &store(Some(1))), Ok(()));
        assert_eq!(contents.look_at(1, &store(Some(1))), Ok(()));
        assert!(contents.look_at(2, &store(Some(2))).is_err());
        assert!(contents.look_at(2, &store(None)).is_err());
    }
}

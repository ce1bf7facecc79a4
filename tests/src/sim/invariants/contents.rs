//! Of one tag there is one content, with the same attributes: two records of a key under one tag never
//! differ but in their ages, on whatever server and at whatever time they were seen.
//!
//! What came by DKVS/1 has a tag of the server that it came to, and is on no other.
//!
//! And the attributes are what the record's operation wrote, with the age of one of its attempts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use dkvs_common::kv::Key;
use dkvs_common::record::Attributes;
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::{Lookup, Part, RecordStore as _, RecordView, Store};

use super::Violation;
use super::v1_records::is_by_v1;
use crate::sim::datagram::tag_words;
use crate::sim::ledger::Ledger;
use crate::sim::values;

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
    attributes: Attributes,
    /// Where it is, if it came by DKVS/1.
    by_v1_at: Option<usize>,
}

impl Contents {
    /// Looks at every record of a server.
    pub fn look_at(
        &mut self,
        server: usize,
        store: &Store,
        ledger: &Ledger,
    ) -> Result<(), Violation> {
        let mut keys = Vec::new();
        store.scan(Position([0; 20]), None, |held| {
            keys.extend(Key::new(held.key().to_vec()));
            ControlFlow::Continue(())
        });
        for key in keys {
            let look =
                |held: &RecordView<'_>| self.look_at_record(server, key.as_bytes(), held, ledger);
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
        ledger: &Ledger,
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
            attributes: held.attributes().of_record(),
            by_v1_at: is_by_v1(tag).then_some(server),
        };
        if !is_written(held, ledger) {
            return violation("with attributes that nobody wrote");
        }
        let first = self.seen.entry((key.into(), tag));
        match *first.or_insert_with(|| seen.clone()) == seen {
            true => Ok(()),
            false => violation("and something else was seen under that tag before"),
        }
    }
}

/// Whether an attempt of the record's operation wrote its attributes, as far as it shows its operation.
/// What came by DKVS/1 has none.
fn is_written(held: &RecordView<'_>, ledger: &Ledger) -> bool {
    let attributes = held.attributes();
    if is_by_v1(held.head().tag) {
        return attributes.is_none();
    }
    let is_conditional = held.head().tag.is_by_agreement();
    let without_operation = |attributes: Attributes| match is_conditional {
        // It has the operation of the gateway.
        true => Attributes {
            operation: None,
            ..attributes
        },
        false => attributes,
    };
    if is_conditional && attributes.operation.is_none() {
        return false;
    }
    let attributes = without_operation(attributes);
    let number = values::number_at_start(held.value());
    let Some(number) = number.or_else(|| values::number_in(&attributes)) else {
        return true;
    };
    let entry = ledger.entries().get(number as usize);
    entry.is_some_and(|entry| {
        let mut attempts = 1..=entry.attempts;
        attempts.any(|attempt| without_operation(values::attributes(number, attempt)) == attributes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Action;
    use crate::sim::moment::Moment;
    use dkvs_common::quorum::level::Level;
    use dkvs_common::record::{Content, Record};
    use dkvs_storage_node::store::MemoryStore;

    fn store(number: Option<u64>) -> Store {
        let attributes = number.map_or(Attributes::NONE, |number| values::attributes(number, 1));
        store_with(number, attributes)
    }

    fn store_with(number: Option<u64>, attributes: Attributes) -> Store {
        let store = MemoryStore::new(usize::MAX);
        let key = Key::new("k").unwrap();
        let content = number.map_or(Content::Tombstone, |number| values::content(number, 20));
        let tag = Tag {
            time: 1,
            op: 1 << 32,
        };
        let record = Record::with_attributes(&key, tag, attributes, content);
        let put = store.apply(&key, &record, || Box::new(drop));
        put.unwrap().unwrap();
        Store::Memory(store)
    }

    #[test]
    fn the_same_record_on_two_servers_is_well_and_another_under_its_tag_is_not() {
        let (mut contents, ledger) = (Contents::default(), ledger());
        assert_eq!(contents.look_at(0, &store(Some(1)), &ledger), Ok(()));
        assert_eq!(contents.look_at(1, &store(Some(1)), &ledger), Ok(()));
        assert!(contents.look_at(2, &store(Some(2)), &ledger).is_err());
        assert!(contents.look_at(2, &store(None), &ledger).is_err());
    }

    /// Of sixteen writes, the last of which was sent twice.
    fn ledger() -> Ledger {
        let (mut ledger, level, now) = (Ledger::default(), Level::Linearizable, Moment::START);
        for number in 0..16 {
            ledger.enter(0, 0, Action::Write(number), level, 20, now);
        }
        ledger.entry_mut(15).retry();
        ledger
    }

    #[test]
    fn attributes_are_those_of_an_attempt_and_differ_in_the_age_alone() {
        let (mut contents, ledger) = (Contents::default(), ledger());
        for attempt in [1, 2] {
            let store = store_with(Some(15), values::attributes(15, attempt));
            assert_eq!(contents.look_at(0, &store, &ledger), Ok(()));
        }
        let written = values::attributes(15, 1);
        let without_operation = Attributes {
            operation: None,
            ..written
        };
        for other in [
            values::attributes(15, 3),
            without_operation,
            Attributes::NONE,
        ] {
            let store = store_with(Some(15), other);
            assert!(contents.look_at(0, &store, &ledger).is_err(), "{other:?}");
        }
        let tombstone = store_with(None, values::attributes(99, 1));
        let looked_at = Contents::default().look_at(0, &tombstone, &ledger);
        assert!(looked_at.is_err(), "there is no such operation");
    }
}

//! What a store has to do, whichever it is: the contract of `dkvs_storage_node::store`.

mod slots;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, mpsc};

use dkvs_common::model::Direction;
use dkvs_common::record::{Attributes, OperationId, Record, RecordVersion};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_log::simulated::SimulatedDisk;
use dkvs_storage_node::store::disk::Declaration;
use dkvs_storage_node::store::{
    AttestError, Lookup, Part, PutOutcome, PutResult, RecordChange, RecordStore as _, RecordView,
    RemoveOutcome, Store, StoreError,
};
use dkvs_tests::stores::{
    Kept, STORED, content, key, later, of_each_kind, open, options, record, shown,
};

fn superseded(time: u64) -> PutResult {
    Ok(PutOutcome::Superseded(Tag { time, op: 1 }))
}

#[test]
fn the_greatest_tag_stays_whatever_the_order() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.read("k"), Lookup::Absent, "{kind}");
        assert_eq!(kept.put_at("k", 5, "five"), STORED);
        assert_eq!(kept.put_at("k", 4, "four"), superseded(5), "{kind}");
        assert_eq!(kept.read("k"), shown(5, "five"));
        assert_eq!(kept.put_at("k", 6, "six"), STORED);
        assert_eq!(kept.read("k"), shown(6, "six"), "{kind}");
        assert_eq!(kept.delete_at("k", 7), STORED);
        assert_eq!(kept.read("k"), Lookup::Found((7, None)), "{kind}");
        assert_eq!(kept.put_at("k", 6, "six"), superseded(7));
        assert_eq!(kept.store.len(), 1);
    }
}

#[test]
fn of_several_records_under_one_tag_the_first_stays_and_its_repeat_is_stored() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.put_at("k", 5, "first"), STORED);
        assert_eq!(kept.put_at("k", 5, "second"), superseded(5), "{kind}");
        assert_eq!(kept.delete_at("k", 5), superseded(5), "{kind}");
        assert_eq!(kept.put_at("k", 5, "first"), STORED, "{kind}");
        assert_eq!(kept.read("k"), shown(5, "first"));
    }
}

#[test]
fn the_next_tag_is_made_from_the_one_that_is_there() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.put_next("k", "one", 3), STORED);
        assert_eq!(kept.read("k"), shown(3, "one"), "{kind}");
        assert_eq!(kept.put_at("k", 10, "ten"), STORED);
        assert_eq!(kept.put_next("k", "next", 3), STORED);
        assert_eq!(kept.read("k"), shown(13, "next"), "{kind}");
    }
}

/// Stores that have room for two keys of one byte, with values of four.
fn with_room_for_two() -> [(&'static str, Kept); 2] {
    let [(memory, in_memory), (disk, on_disk)] = of_each_kind(usize::MAX);
    let room = |kept: Kept| 2 * kept.entry_bytes("a", "four");
    let [(_, in_memory), _] = of_each_kind(room(in_memory));
    let [_, (_, on_disk)] = of_each_kind(room(on_disk));
    [(memory, in_memory), (disk, on_disk)]
}

#[test]
fn a_full_store_refuses_what_does_not_fit_and_serves_the_rest() {
    for (kind, mut kept) in with_room_for_two() {
        let pair_bytes = kept.entry_bytes("a", "four");
        assert_eq!(kept.put_at("a", 1, "four"), STORED);
        assert_eq!(kept.put_at("b", 1, "four"), STORED);
        assert!(
            matches!(kept.put_at("c", 1, "four"), Err(StoreError::Full(_))),
            "{kind}"
        );
        // Where values are not in memory, their lengths are all the same to it.
        match kept.store {
            Store::Memory(_) => {
                let longer = kept.put_at("a", 2, "fiver");
                assert!(matches!(longer, Err(StoreError::Full(_))), "{kind}");
                assert_eq!(kept.read("a"), shown(1, "four"), "{kind}");
            }
            Store::Disk(_) => {
                assert_eq!(kept.put_at("a", 1, "four"), STORED);
            }
        }
        assert_eq!(kept.read("c"), Lookup::Absent);
        assert_eq!(kept.put_at("a", 2, "for"), STORED, "{kind}");
        assert_eq!(kept.delete_at("b", 2), STORED);
        assert!(kept.store.bytes() <= 2 * pair_bytes, "{kind}");
    }
}

#[test]
fn a_scan_shows_every_record_once_in_ring_order() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let mut names: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
        for (number, name) in names.iter().enumerate() {
            assert_eq!(kept.put_at(name, 1 + number as u64, name), STORED);
        }
        names.sort_by_key(|name| Position::of_key(&key(name)));
        let mut walked = Vec::new();
        kept.store.scan(Position([0; 20]), None, |held| {
            walked.push(String::from_utf8_lossy(held.key()).into_owned());
            ControlFlow::Continue(())
        });
        assert!(walked == names, "{kind}");
    }
}

#[test]
fn a_scan_of_keys_shows_every_record_of_a_range_once_by_their_bytes() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let mut names: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
        for (number, name) in names.iter().enumerate() {
            assert_eq!(kept.put_at(name, 1 + number as u64, name), STORED);
        }
        assert_eq!(kept.delete_at("key 7", 1_000), STORED);
        let removed = kept.remove("key 8", 9);
        assert_eq!(removed, Ok(RemoveOutcome::Removed), "{kind}");
        names.sort_unstable();
        names.retain(|name| name != "key 8");
        let scan = |range, direction, records_max| {
            let mut scanned = Vec::new();
            kept.store.scan_keys(range, direction, |held| {
                if scanned.len() == records_max {
                    return ControlFlow::Break(());
                }
                scanned.push(String::from_utf8_lossy(held.key()).into_owned());
                ControlFlow::Continue(())
            });
            scanned
        };
        let (all, up) = ((Unbounded, Unbounded), Direction::Ascending);
        assert!(scan(all, up, 500) == names, "{kind}");
        assert!(scan(all, up, 20) == names[..20], "{kind}");
        let from = (Excluded(&b"key 10"[..]), Excluded(&b"key 20"[..]));
        let between = names
            .iter()
            .filter(|name| name.as_str() > "key 10" && name.as_str() < "key 20");
        let mut between: Vec<String> = between.cloned().collect();
        assert!(scan(from, up, 500) == between, "{kind}");
        between.reverse();
        assert!(scan(from, Direction::Descending, 500) == between, "{kind}");
        names.reverse();
        assert!(scan(all, Direction::Descending, 500) == names, "{kind}");
        let at = (Included(&b"key 7"[..]), Included(&b"key 7"[..]));
        assert_eq!(
            scan(at, up, 500),
            ["key 7"],
            "{kind}: a tombstone is a record"
        );
    }
}

#[test]
fn a_complete_store_attests_what_it_has_and_nothing_newer() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let tag = Tag { time: 5, op: 1 };
        let attest = |kept: &Kept, tag| kept.store.attest(&key("k"), tag, || Box::new(drop));
        assert_eq!(attest(&kept, tag), Err(AttestError::Absent), "{kind}");
        assert_eq!(kept.put("k", &record("k", 5, "five")), STORED);
        assert_eq!(attest(&kept, tag), Ok(Some(STORED)), "{kind}");
        let newer = Tag { time: 6, op: 1 };
        assert_eq!(attest(&kept, newer), Err(AttestError::Older(tag)), "{kind}");
    }
}

fn tag(time: u64) -> Tag {
    Tag { time, op: 1 }
}

#[test]
fn a_record_is_removed_by_its_own_tag_and_by_no_other() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let kept_at = |time| Ok(RemoveOutcome::Kept(Some(tag(time))));
        assert_eq!(kept.remove("k", 5), Ok(RemoveOutcome::Kept(None)), "{kind}");
        assert_eq!(kept.put_at("k", 5, "five"), STORED);
        assert_eq!(kept.put_at("other", 5, "five"), STORED);
        assert_eq!(kept.remove("k", 4), kept_at(5), "{kind}");
        assert_eq!(kept.remove("k", 6), kept_at(5), "{kind}");
        assert_eq!(kept.read("k"), shown(5, "five"));
        assert_eq!(kept.put_at("k", 6, "six"), STORED);
        assert_eq!(kept.remove("k", 5), kept_at(6), "{kind}");
        assert_eq!(kept.delete_at("k", 7), STORED);
        assert_eq!(kept.remove("k", 7), Ok(RemoveOutcome::Removed), "{kind}");
        assert_eq!(kept.read("k"), Lookup::Absent, "{kind}");
        assert_eq!(kept.store.len(), 1);
        assert_eq!(kept.read("other"), shown(5, "five"));
        // What was removed may come again.
        assert_eq!(kept.put_at("k", 5, "five"), STORED, "{kind}");
        assert_eq!(kept.read("k"), shown(5, "five"), "{kind}");
    }
}

#[test]
fn a_removed_record_gives_back_its_memory() {
    for (kind, mut kept) in with_room_for_two() {
        let pair_bytes = kept.entry_bytes("a", "four");
        assert_eq!(kept.put_at("a", 1, "four"), STORED);
        assert_eq!(kept.put_at("b", 1, "four"), STORED);
        assert!(kept.put_at("c", 1, "four").is_err(), "{kind}");
        assert_eq!(kept.remove("a", 1), Ok(RemoveOutcome::Removed));
        assert_eq!(kept.store.bytes(), pair_bytes, "{kind}");
        assert_eq!(kept.put_at("c", 1, "four"), STORED, "{kind}");
        assert_eq!(kept.store.bytes(), 2 * pair_bytes, "{kind}");
    }
}

/// A change as a hook gets it.
type Change = (String, Option<u64>, Option<u64>);

#[test]
fn the_hook_is_called_with_every_change_and_with_nothing_else() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.put_at("before", 1, "v"), STORED);
        let changes = Arc::new(Mutex::new(Vec::<Change>::new()));
        let seen = Arc::clone(&changes);
        let hook = move |change: RecordChange<'_>| {
            let key = String::from_utf8_lossy(change.key).into_owned();
            let time = |held: RecordVersion| held.tag.time;
            let mut seen = seen.lock().unwrap();
            seen.push((key, change.old.map(time), change.new.map(time)));
        };
        assert!(kept.store.set_change_hook(Box::new(hook)), "{kind}");
        assert!(!kept.store.set_change_hook(Box::new(|_| ())), "{kind}");
        let expect = |changed: &[(&str, Option<u64>, Option<u64>)]| {
            let changed = changed
                .iter()
                .map(|(key, old, new)| ((*key).into(), *old, *new));
            let changed: Vec<Change> = changed.collect();
            assert_eq!(
                std::mem::take(&mut *changes.lock().unwrap()),
                changed,
                "{kind}"
            );
        };
        assert_eq!(kept.put_at("k", 5, "five"), STORED);
        expect(&[("k", None, Some(5))]);
        assert_eq!(kept.put_at("k", 4, "four"), superseded(5));
        assert_eq!(kept.put_at("k", 5, "five"), STORED);
        assert_eq!(kept.remove("k", 4), Ok(RemoveOutcome::Kept(Some(tag(5)))));
        expect(&[]);
        assert_eq!(kept.delete_at("k", 6), STORED);
        expect(&[("k", Some(5), Some(6))]);
        assert_eq!(kept.put_next("k", "next", 3), STORED);
        expect(&[("k", Some(6), Some(9))]);
        let next = Tag { time: 9, op: 9 };
        assert_eq!(kept.store.peek(&key("k")).map(|held| held.tag), Some(next));
        assert_eq!(kept.put_at("k", 10, "ten"), STORED);
        assert_eq!(kept.remove("k", 10), Ok(RemoveOutcome::Removed));
        expect(&[("k", Some(9), Some(10)), ("k", Some(10), None)]);
        assert_eq!(kept.remove("before", 1), Ok(RemoveOutcome::Removed));
        expect(&[("before", Some(1), None)]);
    }
}

/// The record of this time, written by an operation, of this age.
fn of_age(name: &str, time: u64, value: &str, born: u32) -> Record {
    let attributes = Attributes {
        born,
        expires_ms: Some(1_000),
        operation: Some(OperationId([7; 16])),
    };
    Record::with_attributes(&key(name), tag(time), attributes, content(value))
}

#[test]
fn a_record_is_held_with_the_attributes_that_it_was_put_with() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let put = of_age("k", 5, "five", 3);
        assert_eq!(kept.put("k", &put), STORED);
        let held = |kept: &Kept| {
            let attributes = |held: &RecordView<'_>| held.attributes();
            kept.store.read_now(&key("k"), Part::Whole, attributes)
        };
        assert_eq!(held(&kept), Lookup::Found(put.attributes), "{kind}");
        let attested = kept.store.attest(&key("k"), tag(5), || Box::new(drop));
        assert_eq!(attested, Ok(Some(STORED)));
        assert_eq!(held(&kept), Lookup::Found(put.attributes), "{kind}");
        // Another record under that tag, and a newer one.
        assert_eq!(kept.put_at("k", 5, "five"), superseded(5), "{kind}");
        assert_eq!(held(&kept), Lookup::Found(put.attributes), "{kind}");
        assert_eq!(kept.put_at("k", 6, "six"), STORED);
        assert_eq!(held(&kept), Lookup::Found(Attributes::NONE), "{kind}");
    }
}

#[test]
fn of_one_record_the_greatest_age_is_kept_and_the_hook_is_called_with_it() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.put("k", &of_age("k", 5, "five", 0)), STORED);
        let ages = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ages);
        let hook = move |change: RecordChange<'_>| {
            let (old, new) = (change.old.unwrap(), change.new.unwrap());
            assert_eq!((old.tag, old.checksum), (new.tag, new.checksum));
            seen.lock().unwrap().push((old.born, new.born));
        };
        assert!(kept.store.set_change_hook(Box::new(hook)));
        for born in [3, 2, 0, 3, 9, 4] {
            assert_eq!(
                kept.put("k", &of_age("k", 5, "five", born)),
                STORED,
                "{kind}"
            );
        }
        assert_eq!(*ages.lock().unwrap(), [(0, 3), (3, 9)], "{kind}");
        assert_eq!(kept.born("k"), Some(9));
        assert_eq!(kept.read("k"), shown(5, "five"));
    }
}

#[test]
fn the_memory_of_attributes_is_counted_where_they_are_in_memory() {
    for (kind, kept) in of_each_kind(usize::MAX) {
        let pair_bytes = kept.entry_bytes("k", "four");
        let more = match kept.store {
            Store::Memory(_) => 24,
            Store::Disk(_) => 0,
        };
        let stores = of_each_kind(pair_bytes + more);
        let mut kept = stores.into_iter().find(|it| it.0 == kind).unwrap().1;
        assert_eq!(kept.put("k", &of_age("k", 5, "five", 0)), STORED);
        assert_eq!(kept.store.bytes(), pair_bytes + more, "{kind}");
        let older = kept.put("k", &of_age("k", 5, "five", 1));
        match kept.store {
            // The age does not fit, so the put is not confirmed, and what is held stays.
            Store::Memory(_) => {
                assert!(matches!(older, Err(StoreError::Full(_))), "{older:?}");
                assert_eq!(kept.born("k"), Some(0));
            }
            Store::Disk(_) => assert_eq!((older, kept.born("k")), (STORED, Some(1))),
        }
        assert_eq!(kept.put_at("k", 6, "six"), STORED);
        assert_eq!(kept.store.bytes(), kept.entry_bytes("k", "six"), "{kind}");
    }
}

/// What a hook adds up is what a scan finds, whatever the changes.
#[test]
fn the_changes_of_a_hook_add_up_to_what_is_held() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let held = Arc::new(Mutex::new(BTreeMap::<Vec<u8>, RecordVersion>::new()));
        let ours = Arc::clone(&held);
        let hook = move |change: RecordChange<'_>| {
            let mut held = ours.lock().unwrap();
            let old = match change.new {
                Some(version) => held.insert(change.key.to_vec(), version),
                None => held.remove(change.key),
            };
            assert_eq!(old, change.old);
        };
        assert!(kept.store.set_change_hook(Box::new(hook)));
        let mut random = dkvs_tests::random::Random::new(7);
        for step in 1..2_000 {
            let name = format!("key {}", random.below(40));
            let time = step - random.below(5).min(step - 1);
            match random.below(4) {
                0 => drop(kept.delete_at(&name, time as u64)),
                1 => {
                    let held = kept.store.peek(&key(&name)).map(|held| held.tag.time);
                    let _ = kept.remove(&name, held.unwrap_or(1));
                }
                _ => drop(kept.put_at(&name, time as u64, "v")),
            }
        }
        let mut scanned = BTreeMap::new();
        kept.store.scan(Position([0; 20]), None, |held| {
            scanned.insert(held.key().to_vec(), held.version());
            ControlFlow::Continue(())
        });
        assert!(!scanned.is_empty() && scanned.len() < 40, "{kind}");
        assert_eq!(*held.lock().unwrap(), scanned, "{kind}");
    }
}

/// Else every put would wait while the disk is read.
#[test]
fn what_is_attested_is_read_by_a_reader_and_not_by_the_thread_that_writes() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, options(Some(Declaration::New))).unwrap();
    let long = "v".repeat(100_000);
    for (name, value) in [("short", "v"), ("long", long.as_str()), ("moved", "v")] {
        assert_eq!(kept.put_at(name, 5, value), STORED);
    }
    assert_eq!(kept.delete_at("deleted", 5), STORED);
    kept.close();
    let mut kept = open(&disk, options(Some(Declaration::Incomplete))).unwrap();
    let (sender, receiver) = mpsc::channel();
    for name in ["short", "long", "deleted"] {
        let tag = Tag { time: 5, op: 1 };
        let attested = kept.store.attest(&key(name), tag, || later(sender.clone()));
        assert_eq!(attested, Ok(None));
        assert!(!kept.disk().has_gathered(), "{name} is to be read first");
    }
    kept.read_all();
    let before = disk.read_bytes();
    kept.store_all();
    assert_eq!(disk.read_bytes(), before, "nothing is read by who writes");
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [STORED; 3]);
    assert_eq!(kept.read("short"), shown(5, "v"));
    assert_eq!(kept.read("long"), shown(5, &long));
    assert_eq!(kept.read("deleted"), Lookup::Found((5, None)));
    // What is replaced between is attested as it is then.
    let tag = Tag { time: 5, op: 1 };
    let attested = kept.store.attest(&key("moved"), tag, || later(sender));
    assert_eq!(attested, Ok(None));
    kept.read_all();
    let moved = kept
        .store
        .apply(&key("moved"), &record("moved", 6, "w"), || Box::new(drop));
    assert_eq!(moved, None);
    kept.store_all();
    assert_eq!(receiver.try_recv(), Ok(STORED));
}

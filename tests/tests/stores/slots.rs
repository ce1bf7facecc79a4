//! What a store promises and accepts of what follows its versions.

use std::sync::mpsc;

use dkvs_common::record::Record;
use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;
use dkvs_log::simulated::SimulatedDisk;
use dkvs_storage_node::store::disk::Declaration;
use dkvs_storage_node::store::{AcceptResult, Lookup, PROMISES_MAX, Promise, SlotRefusal};
use dkvs_tests::stores::{Kept, STORED, content, key, later, of_each_kind, open, options, shown};

const FIRST: Ballot = Ballot {
    number: 1,
    proposer: 7,
};
const SECOND: Ballot = Ballot {
    number: 2,
    proposer: 3,
};

/// What is proposed under a ballot as what follows the version of this time.
fn proposed(name: &str, time: u64, ballot: Ballot, value: &str) -> Accepted {
    let tag = Tag { time, op: 2 };
    let record = Record::new(&key(name), tag, content(value));
    Accepted { ballot, record }
}

fn base(time: u64) -> Tag {
    Tag { time, op: 1 }
}

fn promise(kept: &Kept, name: &str, base: Tag, ballot: Ballot) -> Result<Promise, SlotRefusal> {
    match kept.store.prepare(&key(name), base, ballot) {
        Lookup::Found(promise) => promise,
        other => panic!("{other:?}"),
    }
}

/// Has a store accept something, and its disk.
fn accept(
    kept: &mut Kept,
    name: &str,
    base: Tag,
    number: u64,
    accepted: &Accepted,
) -> AcceptResult {
    let (sender, receiver) = mpsc::channel();
    let later = || later(sender);
    let at_once = kept
        .store
        .accept(&key(name), base, number, accepted.clone(), later);
    // While it is on its way to the disk, nobody is promised anything.
    if at_once.is_none() {
        let beside = promise(kept, name, base, SECOND);
        assert!(
            matches!(beside, Err(SlotRefusal::Preempted(_))),
            "{beside:?}"
        );
    }
    kept.store_all();
    match at_once {
        Some(Lookup::Found(result)) => result,
        Some(other) => panic!("{other:?}"),
        None => receiver.try_recv().expect("it is stored by now"),
    }
}

#[test]
fn what_is_accepted_is_told_to_later_ballots_until_another_version_comes() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.put_at("k", 5, "five"), STORED);
        let first = promise(&kept, "k", base(5), FIRST).unwrap();
        assert!(!first.is_tombstone && first.accepted.is_none(), "{kind}");
        // Asked again, it is the same promise.
        assert_eq!(promise(&kept, "k", base(5), FIRST), Ok(first.clone()));
        let one = proposed("k", 5, FIRST, "one");
        assert_eq!(
            accept(&mut kept, "k", base(5), first.number, &one),
            Ok(Ok(()))
        );
        assert_eq!(
            accept(&mut kept, "k", base(5), first.number, &one),
            Ok(Ok(()))
        );
        assert_eq!(
            kept.read("k"),
            shown(5, "five"),
            "{kind}: it is not agreed on"
        );
        assert_eq!(
            kept.store.open_slots(&[], 9),
            [(key("k").into_bytes(), base(5), FIRST)]
        );
        let second = promise(&kept, "k", base(5), SECOND).unwrap();
        assert_eq!(second.accepted.as_deref(), Some(&one), "{kind}");
        let late = promise(&kept, "k", base(5), FIRST);
        assert_eq!(late, Err(SlotRefusal::Preempted(SECOND)), "{kind}");
        // Another version ends it.
        assert_eq!(kept.put_at("k", 6, "six"), STORED);
        let two = proposed("k", 5, SECOND, "two");
        let superseded = Err(SlotRefusal::Superseded(base(6)));
        assert_eq!(
            accept(&mut kept, "k", base(5), second.number, &two),
            Ok(superseded)
        );
        assert_eq!(
            promise(&kept, "k", base(7), FIRST),
            Err(SlotRefusal::Behind(base(6)))
        );
        assert_eq!(kept.store.slot_size(), (0, 0), "{kind}");
        assert!(
            promise(&kept, "k", base(6), FIRST)
                .unwrap()
                .accepted
                .is_none()
        );
    }
}

#[test]
fn nothing_is_accepted_but_under_the_very_promise_that_still_stands() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        assert_eq!(kept.put_at("k", 5, "five"), STORED);
        let second = promise(&kept, "k", base(5), SECOND).unwrap();
        let one = proposed("k", 5, FIRST, "one");
        let two = proposed("k", 5, SECOND, "two");
        for (number, accepted) in [(second.number, &one), (second.number + 1, &two)] {
            let refused = accept(&mut kept, "k", base(5), number, accepted);
            assert_eq!(refused, Ok(Err(SlotRefusal::Preempted(SECOND))), "{kind}");
        }
        assert_eq!(
            accept(&mut kept, "k", base(5), second.number, &two),
            Ok(Ok(()))
        );
        // Of a key that is not there, too; and of one that is deleted.
        let absent = promise(&kept, "new", Tag::ZERO, FIRST).unwrap();
        let created = proposed("new", 0, FIRST, "created");
        assert_eq!(
            accept(&mut kept, "new", Tag::ZERO, absent.number, &created),
            Ok(Ok(()))
        );
        assert_eq!(kept.read("new"), Lookup::Absent, "{kind}");
        assert_eq!(kept.delete_at("gone", 3), STORED);
        assert!(promise(&kept, "gone", base(3), FIRST).unwrap().is_tombstone);
        // So many promises that the first ones are forgotten: they do not stand any more.
        let forgotten = promise(&kept, "other", Tag::ZERO, FIRST).unwrap();
        for number in 0..PROMISES_MAX {
            promise(&kept, &format!("k{number}"), Tag::ZERO, FIRST).unwrap();
        }
        let refused = accept(&mut kept, "other", Tag::ZERO, forgotten.number, &created);
        assert_eq!(
            refused,
            Ok(Err(SlotRefusal::Preempted(Ballot::ZERO))),
            "{kind}"
        );
        let again = promise(&kept, "other", Tag::ZERO, FIRST).unwrap();
        assert_ne!(again.number, forgotten.number, "{kind}");
    }
}

#[test]
fn what_was_accepted_is_there_after_a_restart_and_promises_are_not() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, options(Some(Declaration::New))).unwrap();
    assert_eq!(kept.put_at("a", 5, "five"), STORED);
    assert_eq!(kept.put_at("b", 5, "five"), STORED);
    let mut accepted = Vec::new();
    for (name, base) in [("a", base(5)), ("b", base(5)), ("new", Tag::ZERO)] {
        let number = promise(&kept, name, base, FIRST).unwrap().number;
        let one = proposed(name, base.time, FIRST, "one");
        assert_eq!(accept(&mut kept, name, base, number, &one), Ok(Ok(())));
        accepted.push((name, base, one));
    }
    let second = promise(&kept, "a", base(5), SECOND).unwrap();
    // This one is agreed on.
    assert_eq!(kept.put("b", &accepted[1].2.record), STORED);
    // Until they have been moved, too.
    for number in 0..3_000 {
        assert_eq!(kept.put_at("filler", number + 1, &"x".repeat(500)), STORED);
    }
    for _ in 0..2 {
        drop(kept);
        kept = open(&disk, options(None)).unwrap();
        for (name, base, one) in [&accepted[0], &accepted[2]] {
            let told = promise(&kept, name, *base, SECOND).unwrap();
            assert_eq!(told.accepted.as_deref(), Some(one), "{name}");
        }
        assert_eq!(kept.store.accepted(&key("b")), None);
        let two = proposed("a", 5, SECOND, "two");
        let number = second.number + 1_000;
        let refused = accept(&mut kept, "a", base(5), number, &two);
        assert_eq!(refused, Ok(Err(SlotRefusal::Preempted(SECOND))));
    }
}

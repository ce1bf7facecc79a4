//! What a store has to do, whichever it is.

use std::ops::ControlFlow;

use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::disk::AttestError;
use dkvs_storage_node::store::{ENTRY_OVERHEAD_BYTES, Lookup, PutOutcome, StoreError};
use dkvs_tests::stores::{key, of_each_kind, record, shown};

const STORED: Result<PutOutcome, StoreError> = Ok(PutOutcome::Stored);

fn superseded(time: u64) -> Result<PutOutcome, StoreError> {
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
        assert_eq!(kept.store.records().len(), 1);
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

#[test]
fn a_full_store_refuses_what_does_not_fit_and_serves_the_rest() {
    let pair_bytes = ENTRY_OVERHEAD_BYTES + 24 + 1 + 4;
    for (kind, mut kept) in of_each_kind(2 * pair_bytes) {
        assert_eq!(kept.put_at("a", 1, "four"), STORED);
        assert_eq!(kept.put_at("b", 1, "four"), STORED);
        assert!(
            matches!(kept.put_at("c", 1, "four"), Err(StoreError::Full(_))),
            "{kind}"
        );
        assert!(
            matches!(kept.put_at("a", 2, "fiver"), Err(StoreError::Full(_))),
            "{kind}"
        );
        assert_eq!(kept.read("c"), Lookup::Absent);
        assert_eq!(kept.read("a"), shown(1, "four"), "{kind}");
        assert_eq!(kept.put_at("a", 2, "for"), STORED, "{kind}");
        assert_eq!(kept.delete_at("b", 2), STORED);
        assert!(kept.store.records().bytes() <= 2 * pair_bytes, "{kind}");
    }
}

#[test]
fn a_walk_shows_every_record_once_in_ring_order() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let mut names: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
        for (number, name) in names.iter().enumerate() {
            assert_eq!(kept.put_at(name, 1 + number as u64, name), STORED);
        }
        names.sort_by_key(|name| Position::of_key(&key(name)));
        let mut walked = Vec::new();
        kept.store.records().walk(Position([0; 20]), None, |held| {
            walked.push(String::from_utf8_lossy(held.key()).into_owned());
            ControlFlow::Continue(())
        });
        assert!(walked == names, "{kind}");
    }
}

#[test]
fn a_complete_store_vouches_for_what_it_has_and_for_nothing_newer() {
    for (kind, mut kept) in of_each_kind(usize::MAX) {
        let tag = Tag { time: 5, op: 1 };
        let vouch = |kept: &dkvs_tests::stores::Kept, tag| {
            kept.store.vouch(&key("k"), tag, || Box::new(drop))
        };
        assert_eq!(vouch(&kept, tag), Err(AttestError::Absent), "{kind}");
        assert_eq!(kept.put("k", &record("k", 5, "five")), STORED);
        assert_eq!(vouch(&kept, tag), Ok(Some(STORED)), "{kind}");
        let newer = Tag { time: 6, op: 1 };
        assert_eq!(vouch(&kept, newer), Err(AttestError::Older(tag)), "{kind}");
    }
}

//! Disks that fail, fill, forget and flip bits, and what a durable store makes of that.

use std::sync::{Arc, Mutex, mpsc};

use dkvs_common::model::Durability;
use dkvs_log::simulated::{Fault, Kept as Remains, SimulatedDisk};
use dkvs_storage_node::store::disk::{Declaration, OpenError, OpenOptions};
use dkvs_storage_node::store::{Lookup, RecordStore as _, RemoveOutcome, StoreError};
use dkvs_tests::stores::{
    Kept, STORED, key, later, new_store, open, options, record, reopen, shown, stored, uncached,
};

/// Why a store is not opened.
fn refusal(disk: &SimulatedDisk, options: OpenOptions) -> OpenError {
    match open(disk, options) {
        Ok(_) => panic!("it is opened"),
        Err(error) => error,
    }
}

#[test]
fn nothing_is_confirmed_or_seen_before_it_is_synced() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    let (sender, receiver) = mpsc::channel();
    let at_once = kept
        .store
        .apply(&key("k"), &record("k", 1, "v"), || later(sender));
    assert_eq!((at_once, receiver.try_recv().ok()), (None, None));
    let committer = kept.committer.as_mut().unwrap();
    let batch = committer.begin().unwrap();
    assert_eq!(kept.store.len(), 0);
    assert!(receiver.try_recv().is_err());
    let syncs = disk.syncs();
    kept.committer.as_mut().unwrap().finish(batch);
    assert!(disk.syncs() > syncs);
    assert_eq!(receiver.try_recv(), Ok(STORED));
    assert_eq!(kept.read("k"), shown(1, "v"));
}

#[test]
fn what_gathers_while_the_disk_is_busy_is_synced_together() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    stored(kept.put_at("first", 1, "v"));
    let before = disk.syncs();
    stored(kept.put_at("first", 2, "v"));
    let syncs_of_one = disk.syncs() - before;
    let (sender, receiver) = mpsc::channel();
    for number in 0..1_000 {
        let name = format!("key {number}");
        let sender = sender.clone();
        kept.store
            .apply(&key(&name), &record(&name, 1, "v"), || later(sender));
    }
    let before = disk.syncs();
    kept.store_all();
    // A segment more is a sync or two more.
    assert!(disk.syncs() - before <= syncs_of_one + 10);
    assert_eq!(
        receiver
            .try_iter()
            .filter(|result| *result == STORED)
            .count(),
        1_000
    );
}

#[test]
fn a_failed_write_or_sync_is_reported_and_not_tried_again_and_reads_go_on() {
    let script = |disk: &SimulatedDisk| {
        let mut kept = new_store(disk);
        assert_eq!(kept.put_at("k", 1, "old"), STORED);
        (kept, disk.operations())
    };
    let (mut kept, begun) = script(&SimulatedDisk::default());
    assert_eq!(kept.put_at("k", 2, "new"), STORED);
    let disk = SimulatedDisk::default();
    let (mut kept_2, _) = script(&disk);
    assert_eq!(kept_2.put_at("k", 2, "new"), STORED);
    let ended = disk.operations();
    assert!(ended > begun + 2);
    drop((kept, kept_2));
    for operation in begun..ended - 1 {
        let disk = SimulatedDisk::default();
        let (mut kept, _) = script(&disk);
        let failures = Arc::new(Mutex::new(0));
        let failed = Arc::clone(&failures);
        kept.committer
            .as_mut()
            .unwrap()
            .on_failure(move |_| *failed.lock().unwrap() += 1);
        disk.fail_at(operation, Fault::Error);
        assert_eq!(
            kept.put_at("k", 2, "new"),
            Err(StoreError::Failed),
            "{operation}"
        );
        let operations = disk.operations();
        assert_eq!(kept.put_at("k", 3, "newer"), Err(StoreError::ReadOnly));
        assert_eq!(kept.put_at("other", 3, "newer"), Err(StoreError::ReadOnly));
        assert_eq!(disk.operations(), operations, "nothing is tried again");
        assert_eq!(kept.read("k"), shown(1, "old"), "{operation}");
        assert_eq!(kept.read("other"), Lookup::Absent);
        assert!(kept.disk().status().is_read_only);
        assert_eq!(*failures.lock().unwrap(), 1);
        assert!(kept.committer.unwrap().close().is_err());
    }
}

/// A disk of so many bytes with as many values of a length as it takes.
fn filled(disk_bytes: u64, value: &str) -> (SimulatedDisk, Kept, usize) {
    let disk = SimulatedDisk::default();
    disk.resize(disk_bytes);
    let options = OpenOptions {
        segment_bytes: 64 << 20,
        ..uncached()
    };
    let mut kept = open(&disk, options).unwrap();
    let mut stored = 0;
    loop {
        match kept.put_at(&format!("key {stored}"), 1, value) {
            STORED => stored += 1,
            Err(StoreError::DiskFull) => return (disk, kept, stored),
            other => panic!("{other:?} after {stored}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_values_takes_deletions_and_recovers_by_itself() {
    for (mib, length) in [
        (8, 1),
        (8, 10_000),
        (24, 100_000),
        (24, 1 << 20),
        (64, 1 << 20),
    ] {
        let value = "v".repeat(length);
        let (disk, mut kept, stored) = filled(mib << 20, &value);
        let what = format!("values of {length} on {mib} MiB");
        assert!(kept.disk().status().is_disk_full, "{what}");
        let record = length as u64 + 80;
        let share = stored as u64 * record * 100 / (mib << 20);
        assert!(share >= 40, "{what}: {stored} are {share} %");
        let name = |number: usize| format!("key {number}");
        let is_whole = |kept: &Kept, number: usize| kept.read(&name(number)) == shown(1, &value);
        for number in (0..stored).step_by(1 + stored / 50) {
            assert!(is_whole(&kept, number), "{what}");
        }
        // It is opened again as it is.
        drop(kept);
        disk.crash(Remains::Nothing);
        kept = reopen(&disk);
        // Values that are no longer than those they replace still fit, and so do deletions.
        for number in (0..stored).step_by(1 + stored / 20) {
            assert_eq!(kept.put_at(&name(number), 2, &value), STORED, "{what}");
        }
        // Of keys that are not there they make no room, and leave what there is to the others.
        for number in 0..20_000 {
            let deleted = kept.delete_at(&format!("none {number}"), 3);
            let is_full = deleted == Err(StoreError::DiskFull);
            assert!(is_full || deleted == STORED, "{what}: {deleted:?}");
        }
        for number in 0..stored {
            assert_eq!(kept.delete_at(&name(number), 3), STORED, "{what}: {number}");
        }
        while kept.committer.as_mut().unwrap().idle() {}
        // What was deleted makes room on the same disk. Tombstones of short values are as long as
        // these were, and have to be removed.
        if length >= 10_000 {
            let mut more = 0;
            while more < stored && kept.put_at(&format!("more {more}"), 4, &value) == STORED {
                more += 1;
            }
            assert!(more * 10 >= stored * 8, "{what}: {more} of {stored} again");
        }
        disk.resize(256 << 20);
        assert_eq!(kept.put_at("at last", 5, &value), STORED);
        assert!(!kept.disk().status().is_disk_full);
        drop(kept);
        disk.crash(Remains::Nothing);
        let kept = reopen(&disk);
        assert_eq!(kept.read("at last"), shown(5, &value));
        assert_eq!(kept.read("key 0"), Lookup::Found((3, None)));
    }
}

#[test]
fn a_disk_that_others_fill_refuses_a_put_and_takes_it_when_there_is_room() {
    let disk = SimulatedDisk::default();
    disk.resize(32 << 20);
    let mut kept = new_store(&disk);
    assert_eq!(kept.put_at("k", 1, "old"), STORED);
    let value = "v".repeat(1_000_000);
    disk.set_others(32 << 20);
    assert_eq!(kept.put_at("long", 1, &value), Err(StoreError::DiskFull));
    assert_eq!(kept.read("long"), Lookup::Absent);
    assert_eq!(kept.read("k"), shown(1, "old"));
    assert_eq!(kept.delete_at("k", 2), STORED, "it makes room");
    disk.set_others(0);
    assert_eq!(kept.put_at("long", 2, &value), STORED);
    kept.close();
    let kept = reopen(&disk);
    assert_eq!(kept.read("k"), Lookup::Found((2, None)));
    assert_eq!(kept.read("long"), shown(2, &value));
}

/// Its limit on open files is low, or others have taken what the system has.
#[test]
fn a_process_that_may_open_no_file_refuses_puts_meanwhile_and_its_disk_has_not_failed() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    let value = "v".repeat(20_000);
    let name = |number: u64| format!("key {number}");
    for number in 0..40 {
        stored(kept.put_at(&name(number), 1, &value));
    }
    disk.limit_open_files(Some(0));
    let mut number = 40;
    while kept.put_at(&name(number), 1, &value) == STORED {
        number += 1;
        assert!(number < 60);
    }
    let refused = Err(StoreError::OutOfFiles);
    assert_eq!(kept.put_at(&name(number), 1, &value), refused);
    let long = "v".repeat(70_000);
    assert_eq!(kept.put_at("key 1", 2, &long), refused, "it has no segment");
    while kept.committer.as_mut().unwrap().idle() {}
    if let Some(job) = kept.committer.as_mut().unwrap().hint_job() {
        kept.committer.as_mut().unwrap().finish_hint(job.run());
    }
    // Reads are answered or refused, and nothing counts as damaged.
    let (mut read, mut not_read) = (0, 0);
    for at in 0..number {
        match kept.try_read(&name(at)) {
            Ok(seen) => {
                assert_eq!(seen, shown(1, &value));
                read += 1;
            }
            Err(error) => {
                assert_eq!(error, StoreError::OutOfFiles);
                not_read += 1;
            }
        }
    }
    assert!(read > 0 && not_read > 10, "{read} and {not_read}");
    let status = kept.disk().status();
    assert!(!status.is_read_only && !status.is_disk_full);
    assert_eq!(status.damaged, 0);

    disk.limit_open_files(None);
    assert_eq!(kept.put_at("key 1", 2, &long), STORED);
    assert_eq!(kept.read("key 1"), shown(2, &long));
    for at in (0..number).filter(|at| *at != 1) {
        assert_eq!(kept.read(&name(at)), shown(1, &value), "key {at}");
    }
    kept.close();
    assert_eq!(reopen(&disk).read("key 1"), shown(2, &long));
}

#[test]
fn of_a_batch_that_does_not_fit_as_a_whole_what_fits_and_what_makes_room_is_stored() {
    let value = "v".repeat(100_000);
    let (_disk, mut kept, stored) = filled(24 << 20, &value);
    let (sender, receiver) = mpsc::channel();
    let put = |name: &str, time, value: Option<&str>| {
        let record = match value {
            Some(value) => record(name, time, value),
            None => {
                let tag = dkvs_common::tag::Tag { time, op: 1 };
                let tombstone = dkvs_common::record::Content::Tombstone;
                dkvs_common::record::Record::new(&key(name), tag, tombstone)
            }
        };
        let sender = sender.clone();
        let at_once = kept.store.apply(&key(name), &record, || later(sender));
        assert_eq!(at_once, None);
    };
    put("new", 1, Some(&value));
    put("key 0", 2, None);
    put("key 1", 2, Some("shorter"));
    put("more", 2, Some(&value));
    put("never", 1, Some(&value));
    put("never", 3, None);
    kept.store_all();
    let results: Vec<_> = receiver.try_iter().collect();
    let full = Err(StoreError::DiskFull);
    assert_eq!(results, [full, STORED, STORED, full, full, STORED]);
    assert_eq!(kept.read("new"), Lookup::Absent);
    assert_eq!(kept.read("never"), Lookup::Found((3, None)));
    assert_eq!(kept.read("key 0"), Lookup::Found((2, None)));
    assert_eq!(kept.read("key 1"), shown(2, "shorter"));
    assert_eq!(kept.store.len(), stored + 1);
}

#[test]
fn a_store_that_waits_for_its_disk_refuses_as_busy_rather_than_grow() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    let value = "v".repeat(1 << 20);
    let mut taken = 0;
    let refused = loop {
        let name = format!("key {taken}");
        match kept
            .store
            .apply(&key(&name), &record(&name, 1, &value), || Box::new(drop))
        {
            None => taken += 1,
            Some(result) => break result,
        }
        assert!(taken < 1_000);
    };
    assert_eq!(refused, Err(StoreError::Busy));
    assert!((16..=64).contains(&taken), "{taken} MiB wait");
    assert_eq!(kept.store.check_room_for(1 << 20), Err(StoreError::Busy));
    kept.store_all();
    assert_eq!(kept.store.check_room_for(1 << 20), Ok(()));
    assert_eq!(kept.disk().status().waiting, 0);
    assert_eq!(kept.store.len(), taken);
}

#[test]
fn a_removed_key_stays_away_with_all_its_rows_and_the_others_stay() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    for time in 1..=3 {
        for number in 0..20 {
            stored(kept.put_at(&format!("key {number}"), time, &format!("{number} {time}")));
        }
    }
    for number in [0, 7, 8, 19] {
        let removed = kept.remove(&format!("key {number}"), 3);
        assert_eq!(removed, Ok(RemoveOutcome::Removed));
    }
    for _ in 0..2 {
        kept.committer.as_mut().unwrap().compact_oldest();
        while kept.committer.as_mut().unwrap().idle() {}
        drop(kept);
        disk.crash(Remains::Nothing);
        kept = reopen(&disk);
        assert_eq!(kept.store.len(), 16);
        for number in 0..20 {
            let expected = match number {
                0 | 7 | 8 | 19 => Lookup::Absent,
                _ => shown(3, &format!("{number} 3")),
            };
            assert_eq!(kept.read(&format!("key {number}")), expected);
        }
        stored(kept.put_at("more", 1, "v"));
        assert_eq!(kept.remove("more", 1), Ok(RemoveOutcome::Removed));
    }
}

#[test]
fn a_removal_that_the_disk_does_not_take_is_not_confirmed_and_changes_nothing_here() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    stored(kept.put_at("k", 1, "v"));
    disk.fail_at(disk.operations(), Fault::Error);
    assert_eq!(kept.remove("k", 1), Err(StoreError::Failed));
    assert_eq!(kept.read("k"), shown(1, "v"));
    assert_eq!(kept.remove("k", 1), Err(StoreError::ReadOnly));
}

#[test]
fn an_incomplete_store_answers_for_no_key_until_that_is_attested() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    stored(kept.put_at("held", 5, "v"));
    stored(kept.put_at("stale", 5, "v"));
    kept.close();
    let mut kept = open(&disk, options(Some(Declaration::Incomplete))).unwrap();
    for name in ["held", "stale", "never"] {
        assert_eq!(kept.read(name), Lookup::Corrupt, "{name}");
    }
    // It stores and confirms, but that says nothing of what it has lost.
    assert_eq!(kept.put_at("new", 1, "v"), STORED);
    assert_eq!(kept.put_at("stale", 9, "newer"), STORED);
    assert_eq!(kept.read("new"), Lookup::Corrupt);
    assert_eq!(kept.read("stale"), Lookup::Corrupt);
    assert!(!kept.attest("held", 6), "what it holds is older");
    assert!(!kept.attest("never", 6));
    assert!(kept.attest("held", 5));
    assert!(kept.attest("stale", 7));
    assert_eq!(kept.read("held"), shown(5, "v"));
    assert_eq!(kept.read("stale"), shown(9, "newer"));
    assert_eq!(kept.put_at("held", 6, "w"), STORED);
    for is_clean in [false, true] {
        if is_clean {
            kept.close();
        } else {
            drop(kept);
            disk.crash(Remains::Nothing);
        }
        kept = reopen(&disk);
        assert_eq!(
            kept.read("held"),
            shown(6, "w"),
            "attested once and for all"
        );
        assert_eq!(kept.read("stale"), shown(9, "newer"));
        assert_eq!(kept.read("new"), Lookup::Corrupt);
        assert_eq!(kept.read("never"), Lookup::Corrupt);
    }
    kept.close();
    let mut kept = open(&disk, options(Some(Declaration::Complete))).unwrap();
    assert_eq!(kept.read("new"), shown(1, "v"));
    assert_eq!(kept.read("never"), Lookup::Absent);
    stored(kept.put_at("later", 1, "v"));
    kept.close();
    // And anew.
    let kept = open(&disk, options(Some(Declaration::Incomplete))).unwrap();
    for name in ["held", "stale", "new", "later", "never"] {
        assert_eq!(kept.read(name), Lookup::Corrupt, "{name}");
    }
}

#[test]
fn only_what_is_so_and_not_known_can_be_declared() {
    use Declaration::{Complete, Incomplete, New};
    let empty = || SimulatedDisk::default();
    let complete = || {
        let disk = SimulatedDisk::default();
        let mut kept = new_store(&disk);
        stored(kept.put_at("k", 1, "v"));
        kept.close();
        disk
    };
    let incomplete = || {
        let disk = complete();
        open(&disk, options(Some(Incomplete))).unwrap().close();
        disk
    };
    let is_refused = |disk: SimulatedDisk, declaration| match open(&disk, options(declaration)) {
        Ok(_) => None,
        Err(OpenError::NothingToDeclare(_)) => Some("nothing to declare"),
        Err(OpenError::Empty) => Some("empty"),
        Err(error) => panic!("{error}"),
    };
    let nothing = Some("nothing to declare");
    for (declaration, of_empty, of_complete, of_incomplete) in [
        (None, Some("empty"), None, None),
        (Some(New), None, nothing, nothing),
        (Some(Incomplete), None, None, nothing),
        (Some(Complete), nothing, nothing, None),
    ] {
        assert_eq!(
            is_refused(empty(), declaration),
            of_empty,
            "{declaration:?}"
        );
        assert_eq!(
            is_refused(complete(), declaration),
            of_complete,
            "{declaration:?}"
        );
        assert_eq!(
            is_refused(incomplete(), declaration),
            of_incomplete,
            "{declaration:?}"
        );
    }
}

#[test]
fn a_store_that_does_not_sync_is_refused_after_the_machine_went_down_and_not_otherwise() {
    let in_run = |machine_run| OpenOptions {
        durability: Durability::Buffered,
        machine_run,
        ..options(None)
    };
    let disk = SimulatedDisk::default();
    let begin = OpenOptions {
        declaration: Some(Declaration::New),
        ..in_run(7)
    };
    let mut kept = open(&disk, begin).unwrap();
    stored(kept.put_at("k", 1, "v"));
    // The process dies; what it wrote is with the system.
    drop(kept);
    disk.restart();
    let kept = open(&disk, in_run(7)).unwrap();
    assert_eq!(kept.read("k"), shown(1, "v"));
    drop(kept);
    disk.restart();
    assert!(matches!(refusal(&disk, in_run(8)), OpenError::Unsynced));
    let declared = OpenOptions {
        declaration: Some(Declaration::Incomplete),
        ..in_run(8)
    };
    let kept = open(&disk, declared).unwrap();
    assert_eq!(kept.read("k"), Lookup::Corrupt);
    kept.close();
    // It ended in good order, and that was synced.
    assert!(open(&disk, in_run(9)).is_ok());
}

#[test]
fn what_the_records_take_is_known_after_each_commit_without_asking_the_disk() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    stored(kept.put_at("k", 1, "v"));
    let before = kept.disk().status();
    let asked = disk.room_questions();
    let record = 63 + 7;
    for number in 1..=100 {
        stored(kept.put_at(&format!("key{number:03}"), 1, "v"));
        let now = kept.disk().status();
        assert_eq!(now.live_bytes, before.live_bytes + number * record);
        assert_eq!(now.dead_bytes, before.dead_bytes);
        assert_eq!(now.disk_bytes, before.disk_bytes);
    }
    for number in 1..=10 {
        stored(kept.put_at(&format!("key{number:03}"), 2, "v"));
        let now = kept.disk().status();
        assert_eq!(now.live_bytes, before.live_bytes + 100 * record);
        assert_eq!(now.dead_bytes, before.dead_bytes + number * record);
    }
    assert_eq!(disk.room_questions(), asked);
    // Of a segment more it takes note as well.
    for number in 0..10 {
        stored(kept.put_at(&format!("key {number}"), 1, &"v".repeat(20_000)));
    }
    let now = kept.disk().status();
    assert!(now.disk_bytes > before.disk_bytes, "{now:?}");
    assert!(now.live_bytes > 200_000, "{now:?}");
}

#[test]
fn the_log_stays_bounded_while_the_same_keys_are_written_again_and_again() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    let value = "v".repeat(1_000);
    for round in 0..200u64 {
        for number in 0..100 {
            let name = format!("key {number}");
            kept.store
                .apply(&key(&name), &record(&name, round, &value), || {
                    Box::new(drop)
                });
        }
        kept.store_all();
    }
    while kept.committer.as_mut().unwrap().idle() {}
    let status = kept.disk().status();
    assert!(status.live_bytes < 120_000, "{status:?}");
    assert!(status.dead_bytes < 2 * status.live_bytes, "{status:?}");
    assert!(status.disk_bytes < 1 << 20, "{status:?}");
    kept.close();
    let kept = reopen(&disk);
    for number in 0..100 {
        assert_eq!(kept.read(&format!("key {number}")), shown(199, &value));
    }
}

//! Disks that fail, fill, forget and flip bits, and what a durable store makes of that.

use std::sync::{Arc, Mutex, mpsc};

use dkvs_common::model::Durability;
use dkvs_storage_node::store::disk::medium::Medium;
use dkvs_storage_node::store::disk::{Declaration, OpenError, OpenOptions};
use dkvs_storage_node::store::{Lookup, PutOutcome, RecordStore as _, RemoveOutcome, StoreError};
use dkvs_tests::disk::{Disk, Fault, Kept as Remains};
use dkvs_tests::random::Random;
use dkvs_tests::stores::{Kept, key, later, open, options, record, shown};

const STORED: Result<PutOutcome, StoreError> = Ok(PutOutcome::Stored);

fn stored(result: Result<PutOutcome, StoreError>) {
    assert_eq!(result, STORED);
}

fn new_store(disk: &Disk) -> Kept {
    open(disk, options(Some(Declaration::New))).unwrap()
}

fn reopen(disk: &Disk) -> Kept {
    open(disk, options(None)).unwrap()
}

/// Why a store is not opened.
fn refusal(disk: &Disk, options: OpenOptions) -> OpenError {
    match open(disk, options) {
        Ok(_) => panic!("it is opened"),
        Err(error) => error,
    }
}

#[test]
fn nothing_is_confirmed_or_seen_before_it_is_synced() {
    let disk = Disk::default();
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
    let disk = Disk::default();
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
    // The file may have to grow, which is a sync or two more each time it doubles.
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
    let script = |disk: &Disk| {
        let mut kept = new_store(disk);
        assert_eq!(kept.put_at("k", 1, "old"), STORED);
        (kept, disk.operations())
    };
    let (mut kept, begun) = script(&Disk::default());
    assert_eq!(kept.put_at("k", 2, "new"), STORED);
    let disk = Disk::default();
    let (mut kept_2, _) = script(&disk);
    assert_eq!(kept_2.put_at("k", 2, "new"), STORED);
    let ended = disk.operations();
    assert!(ended > begun + 3);
    drop((kept, kept_2));
    for operation in begun..ended - 1 {
        let disk = Disk::default();
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

#[test]
fn a_full_disk_refuses_values_takes_deletions_and_recovers_by_itself() {
    let disk = Disk::of_bytes(8 << 20);
    let mut kept = new_store(&disk);
    let value = "v".repeat(10_000);
    let mut stored = 0;
    let refused = loop {
        match kept.put_at(&format!("key {stored}"), 1, &value) {
            STORED => stored += 1,
            refused => break refused,
        }
    };
    assert_eq!(refused, Err(StoreError::DiskFull));
    assert!(stored > 250, "{stored} values of 10 KB on 8 MiB");
    assert!(kept.disk().status().is_disk_full);
    let is_whole =
        |kept: &Kept, number: usize| kept.read(&format!("key {number}")) == shown(1, &value);
    assert!((0..stored).all(|number| is_whole(&kept, number)));
    for number in 0..stored / 2 {
        assert_eq!(
            kept.delete_at(&format!("key {number}"), 2),
            STORED,
            "{number} of {stored}"
        );
    }
    while kept.committer.as_mut().unwrap().idle() {}
    // What was deleted makes room on the same disk.
    let mut more = 0;
    while more < stored && kept.put_at(&format!("more {more}"), 3, &value) == STORED {
        more += 1;
    }
    assert!(more > stored / 8, "{more} of {stored}");
    disk.resize(64 << 20);
    assert_eq!(kept.put_at("at last", 4, &value), STORED);
    assert!(!kept.disk().status().is_disk_full);
    disk.crash();
    drop(kept);
    disk.recover(Remains::Nothing);
    let kept = reopen(&disk);
    assert!((stored / 2..stored).all(|number| is_whole(&kept, number)));
    assert_eq!(kept.read("at last"), shown(4, &value));
    assert_eq!(kept.read("key 0"), Lookup::Found((2, None)));
}

#[test]
fn a_disk_that_others_fill_fails_a_put_and_serves_again_when_there_is_room() {
    let disk = Disk::of_bytes(8 << 20);
    let mut kept = new_store(&disk);
    assert_eq!(kept.put_at("k", 1, "old"), STORED);
    let value = "v".repeat(1_000_000);
    let (sender, receiver) = mpsc::channel();
    kept.store
        .apply(&key("long"), &record("long", 1, &value), || later(sender));
    let batch = kept.committer.as_mut().unwrap().begin().unwrap();
    disk.resize(200 << 10);
    kept.committer.as_mut().unwrap().finish(batch);
    assert_eq!(
        receiver.try_recv(),
        Ok(Err(StoreError::Failed)),
        "nobody knows"
    );
    assert_eq!(kept.put_at("k", 2, "new"), Err(StoreError::DiskFull));
    assert_eq!(kept.read("k"), shown(1, "old"));
    disk.resize(64 << 20);
    assert_eq!(kept.put_at("k", 2, "new"), STORED);
    assert_eq!(kept.put_at("long", 2, &value), STORED);
    kept.close();
    let kept = reopen(&disk);
    assert_eq!(kept.read("k"), shown(2, "new"));
    assert_eq!(kept.read("long"), shown(2, &value));
}

#[test]
fn a_store_that_waits_for_its_disk_refuses_as_busy_rather_than_grow() {
    let disk = Disk::default();
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
    let disk = Disk::default();
    let mut kept = new_store(&disk);
    for time in 1..=3 {
        for number in 0..20 {
            stored(kept.put_at(&format!("key {number}"), time, &format!("{number} {time}")));
        }
    }
    let log_bytes = kept.disk().status().log_bytes;
    for number in [0, 7, 8, 19] {
        let removed = kept.remove(&format!("key {number}"), 3);
        assert_eq!(removed, Ok(RemoveOutcome::Removed));
    }
    assert!(kept.disk().status().log_bytes < log_bytes);
    for _ in 0..2 {
        disk.crash();
        drop(kept);
        disk.recover(Remains::Nothing);
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
    let disk = Disk::default();
    let mut kept = new_store(&disk);
    stored(kept.put_at("k", 1, "v"));
    disk.fail_at(disk.operations(), Fault::Error);
    assert_eq!(kept.remove("k", 1), Err(StoreError::Failed));
    assert_eq!(kept.read("k"), shown(1, "v"));
    assert_eq!(kept.remove("k", 1), Err(StoreError::ReadOnly));
}

/// Where these bytes lie in the engine's file.
fn find(disk: &Disk, bytes: &[u8]) -> Vec<usize> {
    disk.with_records(|file| {
        let starts = 0..file.len() - bytes.len();
        starts.filter(|at| file[*at..].starts_with(bytes)).collect()
    })
}

fn flip(disk: &Disk, at: usize, bit: usize) {
    disk.with_records(|file| file[at] ^= 1 << bit);
}

#[test]
fn a_damaged_record_is_neither_shown_nor_absent_until_it_is_put_again() {
    let disk = Disk::default();
    let mut kept = new_store(&disk);
    let value = "a value of its own";
    stored(kept.put_at("damaged", 5, value));
    stored(kept.put_at("sound", 5, "v"));
    kept.close();
    for at in find(&disk, value.as_bytes()) {
        flip(&disk, at + 3, 0);
    }
    let mut kept = reopen(&disk);
    assert_eq!(kept.read("damaged"), Lookup::Corrupt);
    assert_eq!(kept.read("sound"), shown(5, "v"));
    assert_eq!(kept.read("never"), Lookup::Absent);
    // Its tag is known, so nothing older takes its place.
    let older = kept.put_at("damaged", 4, "older");
    assert!(matches!(older, Ok(PutOutcome::Superseded(tag)) if tag.time == 5));
    assert!(!kept.attest("damaged", 5));
    assert_eq!(kept.read("damaged"), Lookup::Corrupt);
    kept.close();
    let mut kept = reopen(&disk);
    assert_eq!(kept.read("damaged"), Lookup::Corrupt);
    assert_eq!(kept.put_at("damaged", 5, value), STORED);
    assert_eq!(kept.read("damaged"), shown(5, value));
    kept.close();
    assert_eq!(reopen(&disk).read("damaged"), shown(5, value));
}

#[test]
fn whichever_bit_of_the_file_flips_nothing_wrong_is_shown_and_nothing_is_taken_for_absent() {
    let original = Disk::default();
    let mut kept = new_store(&original);
    for number in 0..40u64 {
        stored(kept.put_at(&format!("key {number}"), 1, "an old value"));
    }
    for number in 0..20u64 {
        stored(kept.put_at(
            &format!("key {number}"),
            2,
            &format!("value {number}").repeat(30),
        ));
    }
    kept.close();
    let length = original.with_records(|file| file.len());
    let mut random = Random::of(0, "flipped bits");
    let (mut refused, mut corrupt) = (0, 0);
    for _ in 0..3_000 {
        let disk = original.duplicate();
        let at = random.below(length);
        flip(&disk, at, random.below(8));
        let Ok(kept) = open(&disk, options(None)) else {
            refused += 1;
            continue;
        };
        for number in 0..40u64 {
            let expected = match number < 20 {
                true => shown(2, &format!("value {number}").repeat(30)),
                false => shown(1, "an old value"),
            };
            match kept.read(&format!("key {number}")) {
                Lookup::Corrupt => corrupt += 1,
                seen => assert_eq!(seen, expected, "key {number}, byte {at}"),
            }
        }
    }
    println!(
        "3000 bits flipped: {refused} stores not opened, {corrupt} records reported as corrupt"
    );
    assert!(refused > 0 && corrupt > 0);
}

#[test]
fn a_log_whose_last_commit_is_gone_is_refused() {
    let disk = Disk::default();
    let mut kept = new_store(&disk);
    stored(kept.put_at("k", 1, "old"));
    let before = disk.with_records(|file| file.clone());
    stored(kept.put_at("k", 2, "confirmed"));
    disk.crash();
    drop(kept);
    disk.recover(Remains::All);
    disk.with_records(|file| *file = before);
    let OpenError::Damaged(reason) = refusal(&disk, options(None)) else {
        panic!("not damaged");
    };
    assert_eq!(reason, "the last 1 rows are missing");
}

#[test]
fn an_incomplete_store_answers_for_no_key_until_that_is_attested() {
    let disk = Disk::default();
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
            disk.crash();
            drop(kept);
            disk.recover(Remains::Nothing);
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
    let empty = || Disk::default();
    let complete = || {
        let disk = Disk::default();
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
    let is_refused = |disk: Disk, declaration| match open(&disk, options(declaration)) {
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
    let disk = Disk::default();
    let begin = OpenOptions {
        declaration: Some(Declaration::New),
        ..in_run(7)
    };
    let mut kept = open(&disk, begin).unwrap();
    stored(kept.put_at("k", 1, "v"));
    // The process dies; what it wrote is with the system.
    disk.crash();
    drop(kept);
    disk.restart();
    let kept = open(&disk, in_run(7)).unwrap();
    assert_eq!(kept.read("k"), shown(1, "v"));
    disk.crash();
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
fn the_log_stays_bounded_while_the_same_keys_are_written_again_and_again() {
    let disk = Disk::default();
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
    let live = 100 * 1_100;
    let status = kept.disk().status();
    assert!(
        status.log_bytes < (2 << 20),
        "{} bytes for {live}",
        status.log_bytes
    );
    assert!(
        status.disk_bytes < (8 << 20),
        "{} bytes for {live}",
        status.disk_bytes
    );
    kept.close();
    let kept = reopen(&disk);
    for number in 0..100 {
        assert_eq!(kept.read(&format!("key {number}")), shown(199, &value));
    }
}

#[test]
fn a_backup_is_the_store_of_one_moment_and_knows_that_it_is_one() {
    let disk = Disk::default();
    let mut kept = new_store(&disk);
    for number in 0..100 {
        stored(kept.put_at(&format!("key {number}"), 1, "before"));
    }
    let copy = Disk::default();
    let records: Arc<dyn Medium> = copy.media().records;
    let (sender, receiver) = mpsc::channel();
    kept.disk()
        .back_up(Box::new(move |snapshot| sender.send(snapshot).unwrap()));
    kept.committer.as_ref().unwrap().give_backups();
    let snapshot = receiver.recv().unwrap().unwrap();
    for number in 0..100 {
        stored(kept.put_at(&format!("key {number}"), 2, "after"));
    }
    assert_eq!(snapshot.copy_to(records).unwrap(), 100);
    assert!(matches!(refusal(&copy, options(None)), OpenError::Backup));
    let restored = open(&copy, options(Some(Declaration::Complete))).unwrap();
    for number in 0..100 {
        assert_eq!(restored.read(&format!("key {number}")), shown(1, "before"));
    }
    assert_eq!(kept.read("key 0"), shown(2, "after"));
}

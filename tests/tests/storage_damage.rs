//! Disks that flip bits, lose pages and cut files, and what a durable store makes of that.

use std::sync::Arc;

use dkvs_common::kv::Key;
use dkvs_common::ring::Position;
use dkvs_log::simulated::{Kept as Remains, SimulatedDisk};
use dkvs_storage_node::store::disk::{Declaration, DiskStore, OpenError, OpenOptions};
use dkvs_storage_node::store::{Interval, Lookup, Part, PutOutcome, RecordStore as _};
use dkvs_tests::random::Random;
use dkvs_tests::stores::{Kept, STORED, new_store, open, options, reopen, shown, stored, uncached};

/// Where these bytes lie: in which file, and from where on.
fn find(disk: &SimulatedDisk, bytes: &[u8]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for name in disk.names() {
        let file = disk.contents(&name).unwrap();
        let starts = (0..file.len()).filter(|at| file[*at..].starts_with(bytes));
        found.extend(starts.map(|at| (name.clone(), at)));
    }
    found
}

fn flip(disk: &SimulatedDisk, (name, at): (&str, usize), bit: usize) {
    let mut file = disk.contents(name).unwrap();
    file[at] ^= 1 << bit;
    disk.put(name, file);
}

#[test]
fn a_damaged_record_is_neither_shown_nor_absent_until_it_is_put_again() {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    let value = "a value of its own";
    stored(kept.put_at("damaged", 5, value));
    stored(kept.put_at("sound", 5, "v"));
    kept.close();
    for (name, at) in find(&disk, value.as_bytes()) {
        flip(&disk, (&name, at + 3), 0);
    }
    let mut kept = reopen(&disk);
    assert!(kept.store.is_complete(), "its key and tag are known");
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
fn a_value_that_is_damaged_while_the_store_is_open_is_found_when_it_is_read() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    let long = "a long value ".repeat(20_000);
    stored(kept.put_at("short", 5, "a value of its own"));
    stored(kept.put_at("long", 5, &long));
    for text in ["a value of its own", "a long value a long value"] {
        let (name, at) = find(&disk, text.as_bytes()).remove(0);
        disk.break_block(&name, at as u64);
    }
    assert_eq!(kept.read("short"), Lookup::Corrupt);
    let first = kept.read_part("long", Part::First(100));
    assert_eq!(first, Lookup::Corrupt, "the disk refuses");
    assert_eq!(kept.disk().status().damaged, 2);
    for (name, value) in [("short", "a value of its own"), ("long", &long)] {
        assert_eq!(kept.put_at(name, 5, value), STORED, "the same again");
        assert_eq!(kept.read(name), shown(5, value));
    }
}

/// Whoever reads it by blocks verifies the whole; the server that has it must know of the damage all the
/// same, or it counts as one that has the value.
#[test]
fn damage_in_the_middle_of_a_long_value_is_noted_when_parts_of_it_are_read() {
    let long = format!("{}needle{}", "a".repeat(300_000), "b".repeat(300_000));
    let new = |cache_bytes_max| {
        let disk = SimulatedDisk::default();
        let options = OpenOptions {
            cache_bytes_max,
            ..options(Some(Declaration::New))
        };
        let mut kept = open(&disk, options).unwrap();
        stored(kept.put_at("long", 5, &long));
        (disk, kept)
    };
    let read = |kept: &Kept, at: usize| {
        let block = Part::Block {
            offset: at as u32,
            bytes: 1_000,
        };
        kept.read_part("long", block)
    };
    let read_all = |kept: &Kept| {
        for at in (0..600_000).step_by(1_000) {
            assert_eq!(read(kept, at), shown(5, &long[at..at + 1_000]));
        }
    };
    // It costs reading it once more.
    let (disk, kept) = new(64 << 20);
    let before = disk.read_bytes();
    read_all(&kept);
    let bytes = disk.read_bytes() - before;
    assert!(bytes < 2 * 700_000, "{bytes} bytes are read");

    let (disk, mut kept) = new(0);
    read_all(&kept);
    assert_eq!(kept.disk().status().damaged, 0);
    let (name, at) = find(&disk, b"needle").remove(0);
    disk.flip(&name, at, 0);
    // At the latest when as much of it was read again, whichever part that is.
    let mut reads = 0;
    while read(&kept, 500_000) == shown(5, &long[500_000..501_000]) {
        reads += 1;
        assert!(reads < 20);
    }
    assert_eq!(read(&kept, 500_000), Lookup::Corrupt);
    assert_eq!(kept.read_part("long", Part::First(100)), Lookup::Corrupt);
    assert_eq!(kept.disk().status().damaged, 1);
    assert_eq!(kept.put_at("long", 5, &long), STORED, "the same again");
    assert_eq!(kept.read("long"), shown(5, &long));
    read_all(&kept);
}

/// The disk says no, and later it does not: a cable, a controller, a path to a disk elsewhere.
#[test]
fn an_error_of_a_read_that_passes_takes_nothing_for_good() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    let long = "a long value ".repeat(20_000);
    let values = [("short", "a value of its own"), ("long", &long)];
    for (name, value) in values {
        stored(kept.put_at(name, 5, value));
    }
    for (name, at) in ["a value of its own", "a long value a long value"]
        .map(|text| find(&disk, text.as_bytes()).remove(0))
    {
        disk.break_block(&name, at as u64);
    }
    let block = Part::Block {
        offset: 100_000,
        bytes: 1_000,
    };
    for _ in 0..2 {
        for (name, _) in values {
            assert_eq!(kept.read(name), Lookup::Corrupt);
        }
        // Not even of the part that can be read, since the whole is not what was written.
        assert_eq!(kept.read_part("long", block), Lookup::Corrupt);
    }
    assert_eq!(kept.disk().status().damaged, 2, "each counts once");
    disk.mend_blocks();
    assert_eq!(
        kept.read_part("long", block),
        shown(5, &long[100_000..101_000])
    );
    for (name, value) in values {
        assert_eq!(kept.read(name), shown(5, value));
        assert_eq!(kept.put_at(name, 5, value), STORED, "it is there");
        assert_eq!(kept.read(name), shown(5, value));
    }
    // What is not what was written stays corrupt, however often it is asked for.
    let (name, at) = find(&disk, b"a value of its own").remove(0);
    let mut bytes = disk.contents(&name).unwrap();
    bytes[at] ^= 1;
    drop(kept);
    disk.put(&name, bytes);
    let kept = reopen(&disk);
    for _ in 0..3 {
        assert_eq!(kept.read("short"), Lookup::Corrupt);
    }
}

/// Forty keys, half of them written twice, over two segments.
fn store_of_forty() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let mut kept = new_store(&disk);
    for number in 0..40u64 {
        stored(kept.put_at(&format!("key {number}"), 1, "an old value"));
    }
    stored(kept.put_at("long", 1, &"long".repeat(20_000)));
    for number in 0..20u64 {
        let value = format!("value {number}").repeat(30);
        stored(kept.put_at(&format!("key {number}"), 2, &value));
    }
    kept.close();
    disk
}

fn expected(number: u64) -> Lookup<(u64, Option<String>)> {
    match number < 20 {
        true => shown(2, &format!("value {number}").repeat(30)),
        false => shown(1, "an old value"),
    }
}

/// How many keys are answered as corrupt; all others are as they were.
fn corrupt(kept: &Kept, what: &str) -> usize {
    let mut corrupt = 0;
    for number in 0..40 {
        match kept.read(&format!("key {number}")) {
            Lookup::Corrupt => corrupt += 1,
            seen => assert_eq!(seen, expected(number), "key {number}, {what}"),
        }
    }
    // An absent key is absent in a complete store alone.
    let absent = kept.read("never");
    assert_eq!(absent == Lookup::Absent, kept.store.is_complete(), "{what}");
    corrupt
}

#[test]
fn whatever_is_damaged_nothing_wrong_is_shown_and_nothing_is_taken_for_absent() {
    let original = store_of_forty();
    let mut random = Random::of(0, "damage");
    let (mut harmless, mut records, mut ranges) = (0, 0, 0);
    for _ in 0..3_000 {
        let disk = original.duplicate();
        let names = disk.names();
        let name = &names[random.below(names.len())];
        let mut file = disk.contents(name).unwrap();
        if file.is_empty() {
            continue;
        }
        let written = file.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let at = random.below(written + 1);
        let how = random.below(4);
        match how {
            0 | 1 => file[at] ^= 1 << random.below(8),
            2 => file[at / 4_096 * 4_096..]
                .iter_mut()
                .take(4_096)
                .for_each(|it| *it = 0),
            _ => file.truncate(at),
        }
        disk.put(name, file);
        let what = format!("damage {how} of {name} at {at}");
        let kept = match open(&disk, options(None)) {
            Ok(kept) => kept,
            Err(error) => panic!("{what}: it is opened by itself: {error}"),
        };
        let is_lossy = !kept.recovery.lost.is_empty();
        assert_eq!(kept.store.is_complete(), !is_lossy, "{what}");
        match corrupt(&kept, &what) {
            0 if !is_lossy => harmless += 1,
            _ if !is_lossy => records += 1,
            _ => ranges += 1,
        }
        // And once more, with what the store made of it.
        drop(kept);
        disk.crash(Remains::Nothing);
        let again = reopen(&disk);
        assert!(again.recovery.lost.is_empty(), "{what}: it is known by now");
        assert_eq!(again.store.is_complete(), !is_lossy, "{what}");
        corrupt(&again, &what);
    }
    println!("of 3000: {harmless} harmless, {records} cost records, {ranges} cost ranges");
    assert!(harmless > 100 && records > 100 && ranges > 100);
}

#[test]
fn what_was_written_after_a_lost_range_is_served_and_what_was_written_before_is_not() {
    let disk = store_of_forty();
    // The head of one of the records that were written last.
    let (name, at) = find(&disk, b"key 7\x01").pop().unwrap();
    flip(&disk, (&name, at), 0);
    let mut kept = reopen(&disk);
    assert!(!kept.store.is_complete());
    assert_eq!(kept.recovery.lost.len(), 1);
    for number in 0..40 {
        let read = kept.read(&format!("key {number}"));
        match (8..20).contains(&number) {
            true => assert_eq!(read, expected(number), "key {number}"),
            false => assert_eq!(read, Lookup::Corrupt, "key {number}"),
        }
    }
    assert_eq!(kept.read("never"), Lookup::Corrupt);
    assert_eq!(kept.disk().status().quarantined, 29);
    assert!(kept.attest("key 0", 2));
    assert_eq!(kept.read("key 0"), expected(0));
    assert_eq!(kept.disk().status().quarantined, 28);
    // Compaction gives copies greater numbers, and they stay what they are.
    for _ in 0..2 {
        let committer = kept.committer.as_mut().unwrap();
        for _ in 0..4 {
            committer.compact_oldest();
            while committer.idle() {}
        }
        drop(kept);
        disk.crash(Remains::Nothing);
        kept = reopen(&disk);
        assert!(kept.recovery.lost.is_empty());
        for number in 1..40 {
            let read = kept.read(&format!("key {number}"));
            match (8..20).contains(&number) {
                true => assert_eq!(read, expected(number), "key {number}"),
                false => assert_eq!(read, Lookup::Corrupt, "key {number}"),
            }
        }
        assert_eq!(kept.read("key 0"), expected(0));
    }
    kept.close();
    let kept = open(&disk, options(Some(Declaration::Complete))).unwrap();
    assert_eq!(kept.read("key 39"), expected(39));
    assert_eq!(kept.read("never"), Lookup::Absent);
}

/// The part of the ring in which a key lies, and no other of these.
fn range_of(name: &str) -> Interval {
    Interval::at(Position::of_key(&Key::new(name.to_owned()).unwrap()))
}

/// A store without its disk, which was given a few records again: `a`, `b`, and `c`, of which it answers
/// for none.
fn incomplete_store(disk: &SimulatedDisk) -> Kept {
    let mut kept = open(disk, options(Some(Declaration::Incomplete))).unwrap();
    for name in ["a", "b", "c"] {
        stored(kept.put_at(name, 5, name));
        assert_eq!(kept.read(name), Lookup::Corrupt);
    }
    kept
}

#[test]
fn where_a_range_is_attested_keys_are_answered_for_and_absent_ones_are_absent() {
    let disk = SimulatedDisk::default();
    let mut kept = incomplete_store(&disk);
    for name in ["a", "never"] {
        kept.store.attest_range(range_of(name));
    }
    let check = |kept: &mut Kept, what: &str| {
        assert_eq!(kept.read("a"), shown(5, "a"), "{what}");
        assert_eq!(kept.read("never"), Lookup::Absent, "{what}");
        assert_eq!(kept.read("b"), Lookup::Corrupt, "{what}");
        assert_eq!(kept.read("never either"), Lookup::Corrupt, "{what}");
        assert!(!kept.store.is_complete(), "{what}");
    };
    check(&mut kept, "at once");
    stored(kept.put_at("a", 5, "a"));
    // It is forgotten, unless it is to be remembered.
    kept.close();
    let mut kept = reopen(&disk);
    assert_eq!(kept.read("a"), Lookup::Corrupt);
    assert_eq!(kept.read("never"), Lookup::Corrupt);
    for name in ["a", "never"] {
        kept.store.attest_range(range_of(name));
    }
    kept.store.remember_attested().unwrap();
    kept.store_all();
    while kept.committer.as_mut().unwrap().idle() {}
    assert_eq!(kept.disk().status().quarantined, 2, "of the others");
    check(&mut kept, "remembered");
    for round in 0..3 {
        // A crash, an end in good order, and after compaction.
        match round {
            0 => drop(kept),
            1 => kept.close(),
            _ => {
                let committer = kept.committer.as_mut().unwrap();
                committer.compact_oldest();
                while committer.idle() {}
                drop(kept);
            }
        }
        disk.crash(Remains::Nothing);
        kept = reopen(&disk);
        check(&mut kept, &format!("after start {round}"));
        assert_eq!(kept.disk().status().quarantined, 2);
    }
    // What is put there afterwards is answered for by itself.
    stored(kept.put_at("never", 7, "after all"));
    assert_eq!(kept.read("never"), shown(7, "after all"));
}

#[test]
fn what_was_attested_is_forgotten_when_more_is_lost_or_declared() {
    let attested = || {
        let disk = SimulatedDisk::default();
        let mut kept = incomplete_store(&disk);
        kept.store.attest_range(range_of("never"));
        kept.store.attest_range(range_of("a"));
        kept.store.remember_attested().unwrap();
        kept.store_all();
        kept.close();
        assert_eq!(reopen(&disk).read("never"), Lookup::Absent);
        disk
    };
    let disk = attested();
    let kept = open(&disk, options(Some(Declaration::Incomplete))).unwrap();
    for name in ["a", "never"] {
        assert_eq!(kept.read(name), Lookup::Corrupt);
    }
    kept.close();
    assert_eq!(reopen(&disk).read("never"), Lookup::Corrupt, "for good");
    // The head of a record that is older than all that was attested.
    let disk = attested();
    let (name, at) = find(&disk, b"b\x01").pop().unwrap();
    flip(&disk, (&name, at), 0);
    for _ in 0..2 {
        let kept = reopen(&disk);
        assert_eq!(kept.read("never"), Lookup::Corrupt);
        assert_eq!(kept.read("a"), Lookup::Corrupt);
        kept.close();
    }
}

#[test]
fn the_log_of_another_history_is_refused() {
    let disk = SimulatedDisk::default();
    new_store(&disk).close();
    let other = dkvs_log::History([9; 16]);
    let opened = DiskStore::open(
        Arc::new(disk.clone()),
        other,
        options(Some(Declaration::Incomplete)),
    );
    let Err(OpenError::Log(dkvs_log::OpenError::Foreign { .. })) = opened else {
        panic!("it is opened");
    };
    assert!(open(&disk, options(None)).is_ok(), "nothing has changed");
}

//! Damage by the thousand: whatever is shown is right, whatever is lost is reported, and no more is
//! lost than what was damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use dkvs_log::simulated::SimulatedDisk;
use dkvs_log::{History, Location, Log, LostRange, OpenError, Options, Recovery, Room};
use support::{Change, HISTORY, Owner, Random, key, options, value};

/// A record that the undamaged log has.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    key: Vec<u8>,
    head: Vec<u8>,
    location: Location,
    value: Vec<u8>,
}

/// A log and all that it holds, live or dead.
struct Original {
    disk: SimulatedDisk,
    records: BTreeMap<u64, Expected>,
}

/// One of several segments, a part of which have hints and a part of which were compacted away.
fn original(seed: u64) -> Original {
    let disk = SimulatedDisk::default();
    disk.resize(4 << 20);
    let mut owner = Owner::create(&disk);
    let mut random = Random(seed);
    for number in 0..160 {
        if number == 110 {
            owner.write_hints().unwrap();
        }
        let length = random.one_of(&[0, 10, 100, 1_000, 5_000, 20_000]);
        let changes: Vec<_> = (0..1 + random.below(5))
            .map(|place| {
                let number = number * 10 + place as u64;
                (random.below(60) as u32, number, Change::Put(length))
            })
            .collect();
        owner.append(&changes, Room::Ordinary).unwrap();
        if number < 90 {
            owner.compact(1, 30_000).unwrap();
        }
    }
    assert!(owner.log.space().segments >= 8);
    drop(owner);
    let disk = disk.duplicate();
    Original {
        records: records(&disk).0,
        disk,
    }
}

fn records(disk: &SimulatedDisk) -> (BTreeMap<u64, Expected>, Recovery) {
    let mut records = BTreeMap::new();
    let (log, recovery) = Log::open(Arc::new(disk.clone()), options(), &mut |visited| {
        let expected = Expected {
            key: visited.key.to_vec(),
            head: visited.head.to_vec(),
            location: visited.location,
            value: Vec::new(),
        };
        records.insert(visited.sequence, expected);
        None
    })
    .unwrap();
    for expected in records.values_mut() {
        let record = log.reader().read(expected.location).unwrap();
        expected.value = record.value().to_vec();
    }
    (records, recovery)
}

fn is_in(lost: &[LostRange], sequence: u64) -> bool {
    lost.iter()
        .any(|it| (it.first..=it.last).contains(&sequence))
}

impl Original {
    /// Opens a damaged copy: what is shown is right, and what is not is reported. Returns the numbers of
    /// the records that are lost or cannot be read.
    fn check(&self, disk: &SimulatedDisk, what: &str) -> (Vec<u64>, Recovery) {
        let mut shown = BTreeMap::new();
        let opened = Log::open(Arc::new(disk.clone()), options(), &mut |visited| {
            let expected = self.records.get(&visited.sequence);
            let expected = expected.unwrap_or_else(|| panic!("{what}: {visited:?}"));
            assert_eq!(visited.key, expected.key, "{what}");
            assert_eq!(visited.head, expected.head, "{what}");
            assert_eq!(visited.location, expected.location, "{what}");
            let again = shown.insert(visited.sequence, visited.is_value_lost);
            assert_eq!(again, None, "{what}");
            None
        });
        let (mut log, recovery) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut harmed = Vec::new();
        for (sequence, expected) in &self.records {
            let Some(is_value_lost) = shown.get(sequence) else {
                let is_reported = is_in(&recovery.lost, *sequence);
                assert!(
                    is_reported,
                    "{what}: {sequence} is taken for absent: {recovery:?}"
                );
                harmed.push(*sequence);
                continue;
            };
            match log.reader().read(expected.location) {
                Ok(record) => {
                    assert!(!is_value_lost, "{what}");
                    assert!(record.value() == expected.value, "{what}: a wrong value");
                }
                Err(_) => harmed.push(*sequence),
            }
        }
        // What is appended now is read again.
        let next = log.next_sequence();
        let newest = self.records.keys().next_back().unwrap();
        assert!(next > *newest, "{what}: number {next} is given twice");
        let entry = dkvs_log::Entry {
            key: b"new",
            head: b"head",
            value: b"value",
        };
        let mut appended = Vec::new();
        log.append(&[entry], Room::Ordinary, &mut appended).unwrap();
        drop(log);
        let mut reported = None;
        let opened = Log::open(Arc::new(disk.clone()), options(), &mut |visited| {
            if visited.sequence >= next {
                assert_eq!(
                    (visited.key, visited.head),
                    (&b"new"[..], &b"head"[..]),
                    "{what}"
                );
                reported = Some(visited.location);
            }
            None
        });
        let (mut log, again) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reported, Some(appended[0].location), "{what}");
        assert_eq!(
            again.lost, recovery.lost,
            "{what}: reported until it is acknowledged"
        );
        log.acknowledge_lost().unwrap();
        drop(log);
        let (_, again) = Log::open(Arc::new(disk.clone()), options(), &mut |_| None).unwrap();
        assert_eq!(again.lost, [], "{what}: and not afterwards");
        (harmed, recovery)
    }

    /// The records that have a byte in a part of a file.
    fn at(&self, file: &str, bytes: Range<usize>) -> Vec<u64> {
        let is_there = |it: &Location| {
            file == format!("{:010}.log", it.segment)
                && (it.offset as usize) < bytes.end
                && bytes.start < (it.offset + it.bytes) as usize
        };
        let records = self.records.iter().filter(|(_, it)| is_there(&it.location));
        records.map(|(sequence, _)| *sequence).collect()
    }

    /// A name of a file, the larger ones more often.
    fn file(&self, random: &mut Random) -> (String, usize) {
        let names = self.disk.names();
        let names: Vec<_> = names.iter().filter(|it| !it.starts_with("spare")).collect();
        let segments: Vec<_> = names.iter().filter(|it| it.ends_with(".log")).collect();
        let name = match random.below(3) {
            0 => names[random.below(names.len())].clone(),
            _ => segments[random.below(segments.len())].to_string(),
        };
        let length = self.disk.contents(&name).unwrap().len();
        (name, length)
    }
}

fn change(disk: &SimulatedDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.contents(name).unwrap();
    change(&mut bytes);
    disk.put(name, bytes);
}

#[test]
fn a_flipped_bit_costs_at_most_the_record_that_has_it() {
    let original = original(1);
    let mut random = Random(2);
    let (mut harmless, mut keys_known) = (0, 0);
    for trial in 0..3_000 {
        let disk = original.disk.duplicate();
        let (name, length) = original.file(&mut random);
        let (at, bit) = (random.below(length), random.below(8));
        change(&disk, &name, |bytes| bytes[at] ^= 1 << bit);
        let what = format!("trial {trial}: bit {bit} of byte {at} of {name}");
        let (harmed, recovery) = original.check(&disk, &what);
        assert_eq!(
            harmed,
            original.at(&name, at..at + 1),
            "{what}: {recovery:?}"
        );
        assert!(
            !recovery.is_manifest_lost && !recovery.is_high_water_lost,
            "{what}"
        );
        harmless += u64::from(harmed.is_empty());
        keys_known += u64::from(recovery.lost.is_empty() && !harmed.is_empty());
    }
    println!(
        "3000 bits flipped: {harmless} harmed nothing, in {keys_known} the key was still known"
    );
    assert!(harmless > 200 && keys_known > 1_000);
}

#[test]
fn zeros_and_noise_and_unreadable_blocks_cost_what_lay_there() {
    let original = original(3);
    let mut random = Random(4);
    let mut lost = 0;
    for trial in 0..2_000 {
        let disk = original.disk.duplicate();
        let (name, length) = original.file(&mut random);
        let size = random.one_of(&[512, 4_096, 4_096, 16_384, 65_536]);
        let begin = random.below(length) / size * size;
        let range = begin..(begin + size).min(length);
        let how = random.below(3);
        match how {
            0 => change(&disk, &name, |bytes| bytes[range.clone()].fill(0)),
            1 => change(&disk, &name, |bytes| {
                bytes[range.clone()].fill_with(|| random.number() as u8);
            }),
            _ => {
                for block in range.clone().step_by(4_096) {
                    disk.break_block(&name, block as u64);
                }
            }
        }
        let blocks = begin / 4_096 * 4_096..range.end.next_multiple_of(4_096);
        let range = if how == 2 { blocks } else { range };
        let what = format!("trial {trial}: {range:?} of {name}, way {how}");
        let (harmed, recovery) = original.check(&disk, &what);
        let there = original.at(&name, range.clone());
        assert!(
            harmed.iter().all(|it| there.contains(it)),
            "{what}: {harmed:?}, not {there:?}"
        );
        let is_high_water = name == "high-water" && range.len() > 4_096;
        assert_eq!(recovery.is_high_water_lost, is_high_water, "{what}");
        lost += harmed.len();
    }
    println!("2000 regions damaged: {lost} records lost");
    assert!(lost > 2_000);
}

#[test]
fn files_that_are_cut_gone_swapped_or_old_cost_what_they_held() {
    let original = original(5);
    let mut random = Random(6);
    let mut ways = [0; 4];
    for trial in 0..1_000 {
        let disk = original.disk.duplicate();
        let (name, length) = original.file(&mut random);
        let (other, _) = original.file(&mut random);
        let is_hint = |name: &str| name.ends_with(".hint");
        let way = random.below(4);
        let mut there = original.at(&name, 0..length);
        match way {
            0 => {
                let left = random.below(length);
                change(&disk, &name, |bytes| bytes.truncate(left));
                there = original.at(&name, left..length);
            }
            1 => disk.take(&name),
            2 => {
                let (one, two) = (
                    disk.contents(&name).unwrap(),
                    disk.contents(&other).unwrap(),
                );
                disk.put(&name, two);
                disk.put(&other, one);
                there.extend(original.at(&other, 0..usize::MAX));
            }
            _ => {
                // The first part of what it is now: what it was before the last syncs.
                let kept = random.below(length) / 512 * 512;
                change(&disk, &name, |bytes| bytes[kept..].fill(0));
                there = original.at(&name, kept..length);
            }
        }
        if way == 2 && name != other && [&name, &other].iter().all(|it| it.starts_with("manifest"))
        {
            continue;
        }
        ways[way] += 1;
        let what = format!("trial {trial}: {name}, way {way}, {other}");
        let (harmed, recovery) = original.check(&disk, &what);
        assert!(
            harmed.iter().all(|it| there.contains(it)),
            "{what}: {harmed:?}, not {there:?}"
        );
        if is_hint(&name) && (way != 2 || is_hint(&other)) {
            assert_eq!(recovery.lost, [], "{what}");
        }
    }
    println!("files cut, gone, swapped, old: {ways:?}");
    assert!(ways.iter().all(|trials| *trials > 100));
}

/// The state of a log before its last changes.
fn before_and_after() -> (SimulatedDisk, Original) {
    let disk = SimulatedDisk::default();
    disk.resize(4 << 20);
    let mut owner = Owner::create(&disk);
    let put = |owner: &mut Owner, number: u64| {
        let change = (number as u32, number, Change::Put(9_000));
        owner.append(&[change], Room::Ordinary).unwrap();
    };
    (0..20).for_each(|number| put(&mut owner, number));
    let before = disk.duplicate();
    (20..40).for_each(|number| put(&mut owner, number));
    drop(owner);
    let disk = disk.duplicate();
    let records = records(&disk).0;
    (before, Original { disk, records })
}

#[test]
fn whichever_files_are_put_back_from_an_earlier_day_the_rest_says_so() {
    let (before, after) = before_and_after();
    let names = after.disk.names();
    let names: Vec<_> = names.iter().filter(|it| !it.starts_with("spare")).collect();
    assert!(names.len() >= 9, "{names:?}");
    let (mut told, mut untold) = (0, Vec::new());
    for subset in 1..1u32 << names.len() {
        let disk = after.disk.duplicate();
        for (_, name) in (0..).zip(&names).filter(|(bit, _)| subset >> bit & 1 == 1) {
            match before.contents(name) {
                Some(bytes) => disk.put(name, bytes),
                None => disk.take(name),
            }
        }
        let subset: Vec<_> = (0..)
            .zip(&names)
            .filter(|(bit, _)| subset >> bit & 1 == 1)
            .collect();
        let mut shown = Vec::new();
        let opened = Log::open(Arc::new(disk.clone()), options(), &mut |visited| {
            let expected = &after.records[&visited.sequence];
            assert_eq!(
                (visited.key, visited.head),
                (&expected.key[..], &expected.head[..])
            );
            shown.push(visited.sequence);
            None
        });
        let (_, recovery) = opened.unwrap();
        let is_missing = |it: &&u64| !shown.contains(it) && !is_in(&recovery.lost, **it);
        if after.records.keys().any(|it| is_missing(&it)) {
            untold.push(subset);
        } else {
            told += 1;
        }
    }
    // If nothing is left that was made since, but records at most, nothing can tell.
    println!(
        "{told} mixtures of old and new files told, {} did not",
        untold.len()
    );
    let since = names.iter().filter(|name| before.contents(name).is_none());
    let marks = ["manifest-a", "manifest-b", "high-water"].map(String::from);
    let since: Vec<&String> = since.copied().chain(&marks).collect();
    assert!(since.len() > 4);
    let is_backup = |subset: &[(i32, &&String)]| {
        let has = |name: &String| subset.iter().any(|(_, it)| **it == name);
        since.iter().all(|name| has(name))
    };
    assert!(untold.iter().all(|subset| is_backup(subset)), "{untold:?}");
}

#[test]
fn without_manifests_everything_that_is_there_is_found_and_every_gap_is_reported() {
    let original = original(7);
    let disk = original.disk.duplicate();
    for name in ["manifest-a", "manifest-b"] {
        change(&disk, name, |bytes| bytes[40] ^= 1);
    }
    let (harmed, recovery) = original.check(&disk, "no manifest");
    assert_eq!(harmed, []);
    assert!(recovery.is_manifest_lost);
    let first = *original.records.keys().next().unwrap();
    assert!(first > 1, "something was compacted");
    assert_eq!(recovery.lost.first().map(|it| it.first), Some(1));
    let is_lost = |it: &u64| is_in(&recovery.lost, *it);
    assert!(!original.records.keys().any(is_lost));
}

#[test]
fn files_of_another_log_or_a_newer_version_are_refused() {
    let ours = original(8);
    let theirs = SimulatedDisk::default();
    let other = Options {
        history: History([8; 16]),
        ..options()
    };
    let mut log = Log::create(Arc::new(theirs.clone()), other).unwrap();
    let value = vec![1; 30_000];
    for _ in 0..200 {
        let entry = dkvs_log::Entry {
            key: b"key",
            head: b"",
            value: &value,
        };
        log.append(&[entry], Room::Ordinary, &mut Vec::new())
            .unwrap();
        while let Some(job) = log.hint_job() {
            log.finish_hint(&job.run().unwrap()).unwrap();
        }
    }
    let mut refused = 0;
    for name in ours.disk.names() {
        if name.starts_with("spare") {
            continue;
        }
        let disk = ours.disk.duplicate();
        let kind = name.rsplit(['.', '-']).next().unwrap();
        let foreign = theirs
            .names()
            .into_iter()
            .find(|it| it.ends_with(kind))
            .unwrap();
        disk.put(&name, theirs.contents(&foreign).unwrap());
        let before: Vec<_> = disk.names().iter().map(|it| disk.contents(it)).collect();
        let newer = ours.disk.duplicate();
        change(&newer, &name, |bytes| {
            bytes[12] = 2;
            let sum = crc32c::crc32c(&bytes[..76]).to_le_bytes();
            bytes[76..80].copy_from_slice(&sum);
        });
        if name.ends_with(".hint") {
            assert_eq!(
                ours.check(&disk, &name).0,
                [],
                "the segment is read instead"
            );
            assert_eq!(ours.check(&newer, &name).0, []);
            continue;
        }
        let error = Log::open(Arc::new(disk.clone()), options(), &mut |_| None).unwrap_err();
        let OpenError::Foreign {
            file, theirs, ours, ..
        } = &error
        else {
            panic!("{name}: {error}");
        };
        assert_eq!((file, *theirs, *ours), (&name, other.history, HISTORY));
        let after: Vec<_> = disk.names().iter().map(|it| disk.contents(it)).collect();
        assert!(before == after, "{name}: something was changed");
        let error = Log::open(Arc::new(newer), options(), &mut |_| None).unwrap_err();
        assert!(
            matches!(error, OpenError::Newer { format: 2, .. }),
            "{name}: {error}"
        );
        refused += 1;
    }
    assert!(refused > 10, "{refused}");
    let empty = Arc::new(SimulatedDisk::default());
    let error = Log::open(empty, options(), &mut |_| None).unwrap_err();
    assert!(matches!(error, OpenError::Empty));
    let error = Log::create(Arc::new(ours.disk), options()).unwrap_err();
    assert!(matches!(error, OpenError::NotEmpty));
}

#[test]
fn a_live_record_that_cannot_be_read_outlives_compaction_until_it_is_replaced() {
    let (_, original) = before_and_after();
    for with_hint in [false, true] {
        let disk = original.disk.duplicate();
        let (mut owner, _) = Owner::open(&disk).unwrap();
        if with_hint {
            owner.write_hints().unwrap();
        }
        let held = owner.keys.0[&key(3)];
        let file = format!("{:010}.log", held.location.segment);
        drop(owner);
        // In its head: without a hint the record is lost, with one it is known.
        change(&disk, &file, |bytes| {
            bytes[held.location.offset as usize + 9] ^= 1;
        });
        let (mut owner, recovery) = Owner::open(&disk).unwrap();
        assert_eq!(recovery.lost.is_empty(), with_hint);
        assert_eq!(owner.keys.0.contains_key(&key(3)), with_hint);
        for round in 0..4 {
            owner.log.compact_oldest();
            owner.compact(100, 1 << 20).unwrap();
            if with_hint {
                assert!(owner.read(&key(3)).unwrap().is_err(), "round {round}");
            }
        }
        assert_eq!(owner.log.space().damaged_segments, usize::from(with_hint));
        assert_eq!(disk.names().contains(&file), with_hint);
        let lost: Vec<_> = owner.log.lost().collect();
        assert_eq!(
            lost, recovery.lost,
            "compaction does not make up for a loss"
        );
        owner
            .append(&[(3, 99, Change::Put(10))], Room::Ordinary)
            .unwrap();
        owner.compact(100, 1 << 20).unwrap();
        assert_eq!(owner.log.space().damaged_segments, 0);
        assert!(!disk.names().contains(&file));
        drop(owner);
        let (owner, again) = Owner::open(&disk).unwrap();
        assert_eq!(again.lost, recovery.lost);
        for number in 0..40 {
            let number_now = if number == 3 { 99 } else { u64::from(number) };
            let length = if number == 3 { 10 } else { 9_000 };
            let read = owner.read(&key(number)).unwrap().unwrap();
            assert!(read == value(number_now, Change::Put(length)));
        }
    }
}

//! A crash at every write, every sync and every change of names of short scripts, with any part of what
//! was not synced kept, and of long ones at random.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use dkvs_log::simulated::{Fault, Kept, SimulatedDisk};
use dkvs_log::{AppendError, Room};
use support::{Change, Owner, Random, key, value};

/// One step of a script.
#[derive(Debug, Clone)]
enum Step {
    /// These changes of keys, with one sync.
    Append(Room, Vec<(u32, Change)>),
    /// So many steps of compaction, of so many bytes each.
    Compact(usize, u64),
    /// The oldest segment is compacted.
    CompactOldest,
    Hints,
    Maintain,
    /// Others take so many bytes of the disk, but leave this.
    Squeeze(u64),
    Relax,
}

use Change::{Delete, Put, Remove};
use Step::{Append, Compact, CompactOldest, Hints, Maintain, Relax, Squeeze};

fn puts(changes: &[(u32, usize)]) -> Step {
    let puts = changes.iter().map(|(key, length)| (*key, Put(*length)));
    Append(Room::Ordinary, puts.collect())
}

#[derive(Default)]
struct Script {
    /// Each key's changes: number, change, and whether it was confirmed.
    changes: BTreeMap<u32, Vec<(u64, Change, bool)>>,
    next: u64,
    /// Appends that were refused for want of room.
    refused: usize,
}

impl Script {
    fn play(&mut self, owner: &mut Owner, disk: &SimulatedDisk, step: &Step) {
        let failed = match step {
            Append(room, changes) => self.append(owner, *room, changes),
            Compact(steps, budget) => owner.compact(*steps, *budget).map(|_| ()),
            CompactOldest => {
                owner.log.compact_oldest();
                owner.compact(3, 1 << 20).map(|_| ())
            }
            Hints => owner.write_hints(),
            Maintain => owner.log.maintain().map(|_| ()),
            Squeeze(left) => {
                disk.set_others((4 << 20) - disk.bytes_taken() - left);
                Ok(())
            }
            Relax => {
                disk.set_others(0);
                Ok(())
            }
        };
        match failed {
            Ok(()) => {}
            Err(AppendError::Full) => self.refused += 1,
            Err(AppendError::Failed(error)) => assert!(disk.is_down(), "{step:?}: {error}"),
            Err(error) => panic!("{step:?}: {error}"),
        }
    }

    fn append(
        &mut self,
        owner: &mut Owner,
        room: Room,
        changes: &[(u32, Change)],
    ) -> Result<(), AppendError> {
        let mut numbered = Vec::new();
        for (key, change) in changes {
            numbered.push((*key, self.next, *change));
            self.next += 1;
        }
        let appended = owner.append(&numbered, room);
        if !matches!(appended, Err(AppendError::Full)) {
            for (key, number, change) in numbered {
                let changes = self.changes.entry(key).or_default();
                changes.push((number, change, appended.is_ok()));
            }
        }
        appended
    }

    /// What was confirmed is there, or something newer that was asked for; it is whole.
    fn check(&self, owner: &Owner, what: &str) {
        for (number, changes) in &self.changes {
            let confirmed = changes
                .iter()
                .rposition(|(_, _, is_confirmed)| *is_confirmed);
            let held = owner.keys.0.get(&key(*number));
            let found = held.map(|held| {
                let found = changes.iter().position(|it| it.0 == held.number);
                found.unwrap_or_else(|| panic!("{what}: key {number}: {held:?} was never put"))
            });
            let possible = &changes[confirmed.unwrap_or(0)..];
            match found {
                Some(found) => {
                    assert!(
                        confirmed.is_none_or(|confirmed| found >= confirmed),
                        "{what}: key {number}: {:?} in place of {:?}",
                        changes[found],
                        changes[confirmed.unwrap()],
                    );
                    let read = owner.read(&key(*number)).unwrap();
                    let read = read.unwrap_or_else(|error| panic!("{what}: key {number}: {error}"));
                    assert!(read == value(changes[found].0, changes[found].1), "{what}");
                }
                // It was removed, or never there.
                None => assert!(
                    confirmed.is_none() || possible.iter().any(|it| it.1 == Remove),
                    "{what}: key {number} is lost"
                ),
            }
        }
        assert!(owner.keys.0.len() <= self.changes.len(), "{what}");
    }
}

impl Script {
    /// After a start: what is there now is there for good, and what is not never comes.
    fn settle(&mut self, owner: &Owner) {
        for (number, changes) in &mut self.changes {
            let held = owner.keys.0.get(&key(*number));
            let found = match held {
                Some(held) => changes.iter().position(|it| it.0 == held.number),
                None => changes.iter().rposition(|it| it.1 == Remove),
            };
            changes.truncate(found.map_or(0, |found| found + 1));
            if let Some(last) = changes.last_mut() {
                last.2 = true;
            }
        }
    }
}

/// What becomes of the machine.
enum End<'a> {
    /// It goes down.
    Crash(Kept<'a>),
    /// It goes on, and the process does not. Soon after the next start it goes down.
    Kill,
}

/// Plays a script with a crash at an operation, or none; how many operations it has if it came to its
/// end. Tears that no disk makes may be taken for damage, and are never taken for anything worse.
fn crash_at(script: &[Step], operation: Option<u64>, end: End<'_>) -> Option<u64> {
    let is_usual = !matches!(&end, End::Crash(Kept::Pieces(bytes, _)) if *bytes < 512);
    let disk = SimulatedDisk::default();
    disk.resize(4 << 20);
    let mut played = Script::default();
    let mut owner = Owner::create(&disk);
    let begun = disk.operations();
    if let Some(operation) = operation {
        disk.fail_at(begun + operation, Fault::Crash);
    }
    for step in script {
        played.play(&mut owner, &disk, step);
        if disk.is_down() {
            break;
        }
    }
    let what = format!("crash at {operation:?}");
    played.check(&owner, &what);
    let operations = disk.operations() - begun;
    let has_crashed = disk.is_down();
    drop(owner);
    let is_killed = matches!(end, End::Kill);
    match end {
        End::Crash(kept) => disk.crash(kept),
        End::Kill => disk.restart(),
    }

    let open = |what: &str| {
        let (owner, recovery) =
            Owner::open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        if is_usual {
            assert_eq!(recovery.lost, [], "{what}: {recovery:?}");
            assert_eq!(recovery.values_lost, 0, "{what}: {recovery:?}");
        }
        assert!(
            !recovery.is_manifest_lost && (!recovery.is_high_water_lost || !is_usual),
            "{what}"
        );
        owner
    };
    let mut owner = open(&what);
    if is_usual {
        played.check(&owner, &what);
    }
    if is_killed {
        // What was shown once is there from then on.
        let shown = owner.keys.0.clone();
        drop(owner);
        disk.crash(Kept::Nothing);
        owner = open(&format!("{what}, a process'"));
        let is_there = |(key, held): (&Vec<u8>, &support::Held)| {
            owner
                .keys
                .0
                .get(key)
                .is_some_and(|it| it.number == held.number)
        };
        assert!(shown.iter().all(is_there), "{what}: {shown:?}");
        played.check(&owner, &what);
    }
    // It goes on, and what it stores then is as durable.
    disk.set_others(0);
    for step in [
        puts(&[(1, 99), (5, 30_000), (2, 3)]),
        Compact(50, 100_000),
        Hints,
        puts(&[(5, 40_000), (2, 30_000)]),
        Maintain,
    ] {
        played.play(&mut owner, &disk, &step);
    }
    drop(owner);
    disk.crash(Kept::Nothing);
    let what = format!("{what}, and again");
    let owner = open(&what);
    if is_usual {
        played.check(&owner, &what);
    }
    (!has_crashed).then_some(operations)
}

/// A crash at every operation of a script, with nothing, all and some of what was unsynced kept.
fn crash_everywhere(script: &[Step], variants: u64) -> u64 {
    let operations = crash_at(script, None, End::Crash(Kept::Nothing)).unwrap();
    let mut points = 0;
    for operation in 0..operations {
        crash_at(script, Some(operation), End::Crash(Kept::Nothing));
        crash_at(script, Some(operation), End::Crash(Kept::All));
        crash_at(script, Some(operation), End::Kill);
        for variant in 0..variants {
            let mut random = Random(operation * 1_000 + variant);
            let piece = random.one_of(&[512, 512, 4_096, 4_096, usize::MAX, 64, 7]);
            let mut keeps = || random.below(2) == 0;
            let kept = Kept::Pieces(piece, &mut keeps);
            crash_at(script, Some(operation), End::Crash(kept));
        }
        points += 3 + variants;
    }
    points
}

fn appending_script() -> Vec<Step> {
    vec![
        puts(&[(1, 10)]),
        puts(&[(1, 20), (2, 5_000), (3, 1)]),
        Append(Room::Ordinary, vec![(2, Delete), (4, Put(30_000))]),
        puts(&[(1, 7), (1, 8)]),
        // Into the next segment, and a record that needs one of its own.
        puts(&[(6, 40_000), (7, 20_000), (1, 9)]),
        puts(&[(8, 200_000), (3, 2)]),
        Hints,
        puts(&[(3, 3)]),
    ]
}

fn compacting_script() -> Vec<Step> {
    let mut steps = vec![
        puts(&[(9, 300), (8, 1)]),
        Append(Room::Ordinary, vec![(8, Remove)]),
    ];
    for round in 0..9 {
        steps.push(puts(&[(round % 3, 25_000), (20 + round, 10)]));
    }
    steps.extend([
        Hints,
        Append(Room::Ordinary, vec![(9, Remove), (0, Delete)]),
        Compact(100, 20_000),
        puts(&[(7, 10)]),
        CompactOldest,
        CompactOldest,
        Maintain,
        puts(&[(7, 11), (1, 60_000)]),
        Compact(2, 10),
        puts(&[(7, 12)]),
    ]);
    steps
}

/// Others fill the disk: puts are refused, deletions and shorter values use the reserve, and it comes
/// back.
fn full_script() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..8).map(|round| puts(&[(round, 20_000)])).collect();
    steps.push(Squeeze(10_000));
    steps.extend((10..14).map(|round| puts(&[(round, 30_000)])));
    steps.extend((0..6).map(|round| {
        let change = if round % 2 == 0 { Delete } else { Put(19_000) };
        Append(Room::Reserve, vec![(round, change), (30, Put(500))])
    }));
    steps.extend([
        Compact(40, 30_000),
        puts(&[(14, 30_000)]),
        Relax,
        Maintain,
        puts(&[(14, 30_000), (15, 50_000)]),
        Compact(10, 100_000),
    ]);
    steps
}

#[test]
fn a_crash_at_any_write_sync_or_rename_takes_nothing_back_that_was_confirmed() {
    let points = crash_everywhere(&appending_script(), 12);
    println!("{points} crashes of a script that appends");
    assert!(points > 700, "{points}");
}

#[test]
fn a_crash_during_compaction_takes_nothing_back_and_brings_nothing_back() {
    let points = crash_everywhere(&compacting_script(), 10);
    println!("{points} crashes of a script that compacts");
    assert!(points > 1_000, "{points}");
}

#[test]
fn a_crash_on_a_full_disk_takes_nothing_back() {
    let points = crash_everywhere(&full_script(), 8);
    println!("{points} crashes of a script on a full disk");
    assert!(points > 700, "{points}");
}

#[test]
fn the_script_on_a_full_disk_is_refused_and_taken_as_it_should_be() {
    let disk = SimulatedDisk::default();
    disk.resize(4 << 20);
    let mut owner = Owner::create(&disk);
    let mut played = Script::default();
    for step in full_script() {
        let before = played.refused;
        played.play(&mut owner, &disk, &step);
        let is_reserve = matches!(step, Append(Room::Reserve, _));
        assert!(!is_reserve || played.refused == before, "{step:?}");
    }
    assert!(played.refused > 0);
    played.check(&owner, "after all");
    assert!(owner.keys.0.contains_key(&key(15)), "there is room again");
}

#[test]
fn crashes_of_long_scripts_at_random_take_nothing_back() {
    let mut crashes = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let script: Vec<Step> = (0..60).map(|_| random_step(&mut random)).collect();
        let operations = crash_at(&script, None, End::Crash(Kept::All)).unwrap();
        for _ in 0..8 {
            let operation = random.number() % operations;
            let mut kept = Random(random.number());
            let piece = random.one_of(&[512, 4_096]);
            let mut keeps = || kept.below(2) == 0;
            let kept = Kept::Pieces(piece, &mut keeps);
            crash_at(&script, Some(operation), End::Crash(kept));
            crashes += 1;
        }
    }
    println!("{crashes} crashes of long scripts");
}

#[test]
fn one_crash_after_the_other_takes_nothing_back_and_brings_nothing_back() {
    let mut crashes = 0;
    for seed in 0..40 {
        let mut random = Random(1_000 + seed);
        let disk = SimulatedDisk::default();
        disk.resize(4 << 20);
        let mut owner = Owner::create(&disk);
        let mut played = Script::default();
        for generation in 0..12 {
            let what = format!("seed {seed}, start {generation}");
            disk.fail_at(disk.operations() + random.number() % 60, Fault::Crash);
            while !disk.is_down() {
                let step = random_step(&mut random);
                played.play(&mut owner, &disk, &step);
                played.check(&owner, &what);
            }
            drop(owner);
            let piece = random.one_of(&[512, 4_096, usize::MAX]);
            match random.below(4) {
                0 => disk.crash(Kept::Nothing),
                1 => disk.restart(),
                _ => disk.crash(Kept::Pieces(piece, &mut || random.below(2) == 0)),
            }
            let recovery;
            (owner, recovery) = Owner::open(&disk).unwrap();
            assert_eq!(
                (recovery.lost.len(), recovery.values_lost),
                (0, 0),
                "{what}"
            );
            played.check(&owner, &what);
            played.settle(&owner);
            crashes += 1;
        }
    }
    println!("{crashes} crashes, one after the other");
}

/// A flipped bit on top of a crash: what was confirmed is there, or known to be damaged, or in a lost
/// range.
#[test]
fn a_flipped_bit_after_a_crash_is_told_from_what_the_crash_took() {
    let mut lost = 0;
    for seed in 0..400 {
        let mut random = Random(77_000 + seed);
        let disk = SimulatedDisk::default();
        disk.resize(4 << 20);
        let mut owner = Owner::create(&disk);
        let mut played = Script::default();
        disk.fail_at(disk.operations() + 40 + random.number() % 150, Fault::Crash);
        while !disk.is_down() {
            let step = random_step(&mut random);
            played.play(&mut owner, &disk, &step);
        }
        let before = owner.keys.0.clone();
        drop(owner);
        match random.below(3) {
            0 => disk.restart(),
            _ => disk.crash(Kept::Pieces(512, &mut || random.below(2) == 0)),
        }
        let names: Vec<_> = disk
            .names()
            .into_iter()
            .filter(|it| !it.starts_with("spare"))
            .collect();
        let name = &names[random.below(names.len())];
        let mut bytes = disk.contents(name).unwrap();
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |end| end + 1);
        if end == 0 {
            continue;
        }
        // Bits of the end more often, where the last batch is.
        let at = match random.below(2) {
            0 => random.below(end),
            _ => end - 1 - random.below(end.min(700)),
        };
        bytes[at] ^= 1 << random.below(8);
        disk.put(name, bytes);
        let what = format!("seed {seed}: byte {at} of {end} of {name}");
        let (owner, recovery) =
            Owner::open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        for (number, changes) in &played.changes {
            let confirmed = changes.iter().rposition(|it| it.2);
            let Some(held) = owner.keys.0.get(&key(*number)) else {
                let is_lost = |it: &support::Held| {
                    let in_range = |lost: &dkvs_log::LostRange| {
                        (lost.first..=lost.last).contains(&it.sequence)
                    };
                    recovery.lost.iter().any(in_range)
                };
                let confirmed = &changes[confirmed.unwrap_or(0)..];
                let is_removed = confirmed.iter().any(|it| it.1 == Remove) || !confirmed[0].2;
                let known = before.get(&key(*number));
                assert!(
                    is_removed || known.is_some_and(is_lost),
                    "{what}: key {number}: {recovery:?}"
                );
                lost += 1;
                continue;
            };
            let found = changes.iter().position(|it| it.0 == held.number).unwrap();
            match owner.read(&key(*number)).unwrap() {
                Ok(read) => assert!(read == value(changes[found].0, changes[found].1), "{what}"),
                Err(_) => lost += 1,
            }
            // Of an older one, the log tells that it may have been followed by what is lost.
            let is_doubtful = recovery.lost.iter().any(|it| it.last > held.sequence);
            assert!(
                confirmed.is_none_or(|it| found >= it) || is_doubtful,
                "{what}: key {number}"
            );
        }
    }
    println!("400 bits flipped after crashes: {lost} records lost or gone");
}

#[test]
fn every_subset_of_the_sectors_of_a_batch_leaves_whole_records_in_their_order() {
    let begin = || {
        let disk = SimulatedDisk::default();
        let mut owner = Owner::create(&disk);
        owner
            .append(&[(1, 1, Put(100)), (2, 2, Put(700))], Room::Ordinary)
            .unwrap();
        (disk, owner)
    };
    let batch: Vec<_> = (3..10).map(|k| (k, u64::from(k), Put(520))).collect();
    let mut cut = 0;
    // Nine sectors, and one of the mark.
    for subset in 0..1u32 << 10 {
        let (disk, mut owner) = begin();
        disk.fail_at(disk.operations() + 1, Fault::Crash);
        owner.append(&batch, Room::Ordinary).unwrap_err();
        drop(owner);
        let mut pieces = 0;
        disk.crash(Kept::Pieces(512, &mut || {
            pieces += 1;
            subset >> (pieces - 1) & 1 == 1
        }));
        assert_eq!(pieces, 10);
        let (mut owner, recovery) = Owner::open(&disk).unwrap();
        assert_eq!(
            (recovery.lost.len(), recovery.values_lost),
            (0, 0),
            "{subset:b}"
        );
        let held = owner.keys.0.len();
        assert!((2..10).contains(&held), "{subset:b}");
        cut += u32::from(recovery.torn_bytes > 0);
        for (k, number, change) in batch.iter().take(held - 2) {
            assert!(owner.read(&key(*k)).unwrap().unwrap() == value(*number, *change));
        }
        // A shorter record comes where a longer one was cut off, and behind it is nothing.
        owner.append(&[(20, 20, Put(9))], Room::Ordinary).unwrap();
        drop(owner);
        disk.crash(Kept::Nothing);
        let (owner, recovery) = Owner::open(&disk).unwrap();
        assert_eq!(
            (recovery.lost.len(), owner.keys.0.len()),
            (0, held + 1),
            "{subset:b}"
        );
    }
    println!("1024 subsets of a batch's sectors, {cut} of them torn");
    assert!(cut > 900);
}

fn random_step(random: &mut Random) -> Step {
    match random.below(20) {
        0 => Hints,
        1 => Maintain,
        2 => CompactOldest,
        3..6 => Compact(1 + random.below(8), random.one_of(&[1, 10_000, 100_000])),
        _ => {
            let room = random.one_of(&[Room::Ordinary, Room::Ordinary, Room::Reserve]);
            let changes = (0..1 + random.below(6)).map(|_| {
                let length = random.one_of(&[0, 1, 30, 600, 4_060, 30_000, 70_000]);
                let change =
                    random.one_of(&[Put(length), Put(length), Put(length), Delete, Remove]);
                (random.below(14) as u32, change)
            });
            Append(room, changes.collect())
        }
    }
}

//! Full disks: what makes room is taken, and room comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dkvs_log::simulated::{Kept, SimulatedDisk};
use dkvs_log::{AppendError, Options, Room};
use support::{Change, Owner, Random, key, options, value};

/// As in use.
fn usual() -> Options {
    Options {
        segment_bytes: 64 << 20,
        ..options()
    }
}

/// Does what the owner's thread does: what makes room is tried again while compaction goes on.
fn append_and_compact(owner: &mut Owner, changes: &[(u32, u64, Change)], what: &str) {
    for _ in 0..1_000 {
        match owner.append(changes, Room::Reserve) {
            Ok(()) => {
                let due = owner.log.compaction_due(100);
                if due > 0 {
                    owner.compact(1, due).unwrap();
                }
                return;
            }
            Err(AppendError::Full) => {
                let steps = owner.compact(1, 64 << 10).unwrap();
                assert!(
                    steps > 0,
                    "{what}: no room, and none to be made: {:?}",
                    owner.log.space()
                );
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    panic!("{what}: never taken");
}

struct Filled {
    disk: SimulatedDisk,
    owner: Owner,
    keys: u32,
    number: u64,
}

/// Puts values of a length until the disk is full.
fn fill(owner: &mut Owner, keys: &mut u32, number: &mut u64, length: usize, batch: usize) {
    loop {
        let changes: Vec<_> = (0..batch as u32)
            .map(|it| (*keys + it, *number + u64::from(it), Change::Put(length)))
            .collect();
        match owner.append(&changes, Room::Ordinary) {
            Ok(()) => *keys += batch as u32,
            Err(AppendError::Full) => return,
            Err(error) => panic!("{error}"),
        }
        *number += batch as u64;
    }
}

fn filled(disk_bytes: u64, length: usize, batch: usize) -> Filled {
    let disk = SimulatedDisk::default();
    disk.resize(disk_bytes);
    let mut owner = Owner::create_with(&disk, usual());
    let (mut keys, mut number) = (0, 1);
    fill(&mut owner, &mut keys, &mut number, length, batch);
    Filled {
        disk,
        owner,
        keys,
        number,
    }
}

/// Of a full disk: what it holds, deletions of all keys at random, shorter values, and room again.
fn full_disk(disk_bytes: u64, length: usize, batch: usize) {
    let what = format!("values of {length} bytes on {} MiB", disk_bytes >> 20);
    let mut filled = filled(disk_bytes, length, batch);
    let Filled {
        owner,
        keys,
        number,
        disk,
    } = &mut filled;
    let space = owner.log.space();
    let record = 32 + 9 + 8 + length as u64;
    // The reserve is as long as a segment or some, or as the longest record and some.
    let reserve = (disk_bytes / 8).max(record + disk_bytes / 16) + disk_bytes / 16;
    assert!(
        space.live + reserve + 2 * record + (256 << 10) > disk_bytes,
        "{what}: full at {space:?}"
    );
    // What is wanted grows a little with the last segments.
    assert!(
        space.reserve * 20 >= space.reserve_wanted * 19,
        "{what}: {space:?}"
    );
    assert!(space.available > 0, "{what}: others need some, too");
    let first = *keys;

    // It is opened as it is, also after a crash.
    disk.crash(Kept::Nothing);
    owner.reopen(disk);
    assert_eq!(owner.keys.0.len(), first as usize, "{what}");

    // Every value in place of another that is as long, or shorter, one after the other.
    let mut random = Random(9);
    for _ in 0..40 {
        let change = Change::Put(length - random.below(length.min(10)));
        let k = random.below(first as usize) as u32;
        append_and_compact(owner, &[(k, *number, change)], &what);
        *number += 1;
    }
    // All deletions, in an order of their own, some of them twice.
    let mut order: Vec<u32> = (0..first).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    let (half, rest) = order.split_at(order.len() / 2);
    let mut delete = |owner: &mut Owner, keys: &[u32]| {
        for keys in keys.chunks(batch) {
            let changes: Vec<_> = (0..)
                .zip(keys)
                .map(|(at, key)| (*key, *number + at, Change::Delete))
                .collect();
            append_and_compact(owner, &changes, &what);
            *number += keys.len() as u64;
        }
    };
    delete(owner, half);
    for k in &rest[..rest.len().min(20)] {
        let held = owner.keys.0[&key(*k)];
        let read = owner.read(&key(*k)).unwrap().unwrap();
        assert!(
            read == value(held.number, Change::Put(read.len())),
            "{what}"
        );
    }
    delete(owner, rest);
    // Room comes back: what was deleted is room for as much, but for what the deletions take.
    let mut again = 1 << 20;
    for _ in 0..20 {
        let mut number = *number + 1_000_000;
        fill(owner, &mut again, &mut number, length, batch);
        owner.compact(100_000, 256 << 10).unwrap();
        owner.log.maintain().unwrap();
    }
    let again = u64::from(again - (1 << 20));
    let deletion = record - length as u64;
    let expected = u64::from(first) * length as u64 / record;
    println!("{what}: {first} fit, and after all were deleted {again} more");
    let taken_by_deletions = u64::from(first) * deletion / record;
    assert!(
        again * 10 + 40 >= (expected.max(1) * 8).saturating_sub(taken_by_deletions * 2),
        "{what}: {again} of {first}: {:?}",
        owner.log.space()
    );
    disk.crash(Kept::Nothing);
    let held = owner.keys.0.len();
    owner.reopen(disk);
    assert_eq!(owner.keys.0.len(), held, "{what}");
}

#[test]
fn on_a_full_disk_of_8_mib_deletions_and_shorter_values_are_taken_and_room_comes_back() {
    for (length, batch) in [(1, 64), (30, 64), (1_000, 8), (10_000, 1), (100_000, 1)] {
        full_disk(8 << 20, length, batch);
    }
}

#[test]
fn on_a_full_disk_of_24_to_64_mib_deletions_and_shorter_values_are_taken_and_room_comes_back() {
    for (mib, length, batch) in [
        (24, 10_000, 4),
        (24, 1 << 20, 1),
        (64, 4_000, 16),
        (64, 100_000, 1),
        (64, 1 << 20, 1),
    ] {
        full_disk(mib << 20, length, batch);
    }
}

#[test]
fn on_a_full_disk_of_300_mib_deletions_and_shorter_values_are_taken_and_room_comes_back() {
    // Up to the longest value that a server takes.
    for (length, batch) in [(10_000, 16), (1 << 20, 1), (16 << 20, 1)] {
        full_disk(300 << 20, length, batch);
    }
}

#[test]
fn values_of_a_mib_fit_a_disk_of_8() {
    full_disk(8 << 20, 1 << 20, 1);
}

#[test]
fn while_others_fill_the_disk_deletions_go_on_and_puts_wait_for_room() {
    let disk = SimulatedDisk::default();
    disk.resize(16 << 20);
    let mut owner = Owner::create_with(&disk, usual());
    for k in 0..300 {
        owner
            .append(&[(k, k.into(), Change::Put(9_000))], Room::Ordinary)
            .unwrap();
    }
    disk.set_others((16 << 20) - disk.bytes_taken());
    // What is left of the segment, and of one that was made ready.
    let mut more = 0;
    while owner
        .append(&[(1_000 + more, 7, Change::Put(9_000))], Room::Ordinary)
        .is_ok()
    {
        more += 1;
        assert!(more < 250);
    }
    for k in 0..300 {
        append_and_compact(
            &mut owner,
            &[(k, 1_000, Change::Delete)],
            "others fill the disk",
        );
    }
    disk.set_others(0);
    owner
        .append(&[(1, 2_000, Change::Put(9_000))], Room::Ordinary)
        .unwrap();
    owner.log.maintain().unwrap();
    let space = owner.log.space();
    assert!(space.reserve >= space.reserve_wanted, "{space:?}");
}

#[test]
fn space_stays_below_twice_the_live_bytes_while_keys_are_overwritten_deleted_and_removed() {
    // Beside the live bytes: the reserve, a segment that is filled, and one that is emptied.
    for (segment_bytes, slack) in [(64 << 10, 1 << 20), (64 << 20, 8 << 20)] {
        let options = Options {
            segment_bytes,
            ..options()
        };
        let disk = SimulatedDisk::default();
        disk.resize(1 << 30);
        let mut owner = Owner::create_with(&disk, options);
        let mut random = Random(5);
        let mut most = 0;
        for number in 0..30_000_u64 {
            let k = random.below(2_000) as u32;
            let change = match random.below(10) {
                0 => Change::Delete,
                1 => Change::Remove,
                _ => Change::Put(200 + random.below(3_000)),
            };
            owner
                .append(&[(k, number, change)], Room::Ordinary)
                .unwrap();
            let due = owner.log.compaction_due(3_000);
            if due > 0 {
                owner.compact(1, due).unwrap();
            }
            if number % 50 == 0 {
                owner.write_hints().unwrap();
                let space = owner.log.space();
                let (taken, bound) = (disk.bytes_taken(), 2 * space.live + slack);
                assert!(taken <= bound, "{number}: {taken} bytes: {space:?}");
                most = most.max(taken.saturating_sub(slack) * 100 / space.live.max(1));
            }
        }
        println!("at most {slack} bytes, and 0.{most:02} for a live one");
        let recovery = owner.reopen(&disk);
        assert_eq!(recovery.lost, []);
        for (key, held) in &owner.keys.0 {
            let read = owner.read(key).unwrap().unwrap();
            assert!(read == value(held.number, Change::Put(read.len())));
        }
    }
}

//! Disks that fail, and the last batch, of which nothing later tells.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dkvs_log::simulated::{Fault, Kept, SimulatedDisk};
use dkvs_log::{AppendError, LostRange, Room};
use support::{Change, Owner, key, value};

/// The last batch has no successor that proves it, and the mark may be old after a power loss. What does
/// not look torn is damage all the same.
#[test]
fn damage_of_the_last_batch_is_told_from_a_torn_one_even_without_the_mark() {
    let mut told = 0;
    for bit in 0..8 * 232 {
        let disk = SimulatedDisk::default();
        let mut owner = Owner::create(&disk);
        owner
            .append(&[(1, 1, Change::Put(1_000))], Room::Ordinary)
            .unwrap();
        let mark = disk.contents("high-water").unwrap();
        owner
            .append(&[(2, 2, Change::Put(180))], Room::Ordinary)
            .unwrap();
        let location = owner.keys.0[&key(2)].location;
        drop(owner);
        disk.crash(Kept::All);
        disk.put("high-water", mark);
        let at = location.offset as usize + bit / 8;
        if bit / 8 >= location.bytes as usize {
            continue;
        }
        let mut segment = disk.contents("0000000001.log").unwrap();
        segment[at] ^= 1 << (bit % 8);
        disk.put("0000000001.log", segment);
        let (owner, recovery) = Owner::open(&disk).unwrap();
        assert_eq!(recovery.torn_bytes, 0, "bit {bit}");
        match owner.read(&key(2)) {
            Some(read) => assert!(read.is_err(), "bit {bit}"),
            None => assert!(
                recovery.lost.iter().any(|it| it.first <= 2),
                "bit {bit}: {recovery:?}"
            ),
        }
        assert_eq!(
            owner.read(&key(1)).unwrap().unwrap(),
            value(1, Change::Put(1_000))
        );
        told += 1;
    }
    assert!(told > 1_700, "{told}");
}

#[test]
fn an_error_of_the_disk_is_final_and_reads_go_on() {
    let script = |owner: &mut Owner| -> Result<(), AppendError> {
        for number in 0..14 {
            owner.append(
                &[(number, number.into(), Change::Put(15_000))],
                Room::Ordinary,
            )?;
            owner.compact(2, 100_000)?;
            owner.log.maintain()?;
        }
        Ok(())
    };
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    let begun = disk.operations();
    script(&mut owner).unwrap();
    for operation in begun..disk.operations() {
        let disk = SimulatedDisk::default();
        let mut owner = Owner::create(&disk);
        disk.fail_at(operation, Fault::Error);
        let error = script(&mut owner).unwrap_err();
        assert!(
            matches!(error, AppendError::Failed(_)),
            "{operation}: {error}"
        );
        assert!(owner.log.is_failed());
        let operations = disk.operations();
        let refused = owner.append(&[(1, 1, Change::Delete)], Room::Reserve);
        assert!(matches!(refused, Err(AppendError::Failed(_))));
        assert!(owner.log.maintain().is_err() && owner.compact(1, 1).is_err());
        assert_eq!(disk.operations(), operations, "nothing is tried again");
        for (key, held) in &owner.keys.0 {
            let read = owner.read(key).unwrap().unwrap();
            assert!(read == value(held.number, Change::Put(15_000)));
        }
    }
}

/// A later batch proves that the earlier ones were synced, whatever became of the mark. Nothing proves it
/// of the last one: the gap that is left, which takes an old mark and a whole sector of zeros.
#[test]
fn zeros_in_a_batch_are_a_loss_if_a_later_one_is_there_and_a_torn_write_if_not() {
    for damaged in 2..=5 {
        let disk = SimulatedDisk::default();
        let mut owner = Owner::create(&disk);
        let mut mark = None;
        for k in 1..=5 {
            let put = (k, u64::from(k), Change::Put(1_200));
            owner.append(&[put], Room::Ordinary).unwrap();
            mark = mark.or_else(|| disk.contents("high-water"));
        }
        let offset = owner.keys.0[&key(damaged)].location.offset as usize;
        drop(owner);
        disk.crash(Kept::All);
        let current = disk.contents("high-water").unwrap();
        let zeros = offset.next_multiple_of(512);
        let mut segment = disk.contents("0000000001.log").unwrap();
        segment[zeros..zeros + 512].fill(0);
        disk.put("0000000001.log", segment);
        let with_mark = disk.duplicate();
        with_mark.put("high-water", current);
        disk.put("high-water", mark.unwrap());
        for (disk, is_known) in [(with_mark, true), (disk, damaged < 5)] {
            let (owner, recovery) = Owner::open(&disk).unwrap();
            let is_told = match owner.read(&key(damaged)) {
                Some(read) => read.is_err() && recovery.values_lost == 1,
                None => recovery.lost.iter().any(|it| it.first == damaged.into()),
            };
            assert_eq!(is_told, is_known, "batch {damaged}: {recovery:?}");
            assert_eq!(recovery.torn_bytes > 0, !is_known, "batch {damaged}");
            for k in (1..=5).filter(|k| *k != damaged) {
                assert!(
                    owner.read(&key(k)).unwrap().is_ok(),
                    "batch {damaged}: key {k}"
                );
            }
        }
    }
}

/// Records that end where others did leave no trace in the segment.
#[test]
fn what_is_missing_at_the_end_is_told_by_the_mark_and_counts_as_lost_without_it() {
    let original = SimulatedDisk::default();
    let mut owner = Owner::create(&original);
    for k in 1..=9 {
        let put = (k, u64::from(k), Change::Put(600));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    let end = owner.keys.0[&key(6)].location.offset as usize;
    drop(owner);
    original.crash(Kept::All);
    let segment = original.contents("0000000001.log").unwrap();
    let mut zeros = segment.clone();
    zeros[end..].fill(0);
    let cut = segment[..end].to_vec();
    for (way, segment, has_mark) in [
        ("zeros", &zeros, true),
        ("zeros", &zeros, false),
        ("cut", &cut, true),
        ("cut", &cut, false),
    ] {
        let disk = original.duplicate();
        disk.put("0000000001.log", segment.clone());
        if !has_mark {
            disk.take("high-water");
        }
        let (mut owner, recovery) = Owner::open(&disk).unwrap();
        let what = format!("{way}, {has_mark}: {recovery:?}");
        assert_eq!(owner.keys.0.len(), 5, "{what}");
        let [lost] = recovery.lost[..] else {
            panic!("{what}");
        };
        assert_eq!(lost.first, 6, "{what}");
        assert!(lost.last >= 9, "{what}");
        assert_eq!(lost.last == 9, has_mark && way == "zeros", "{what}");
        assert_eq!(owner.log.next_sequence(), lost.last + 1, "{what}");
        owner
            .append(&[(20, 20, Change::Put(1))], Room::Ordinary)
            .unwrap();
        let again = owner.reopen(&disk);
        assert_eq!(again.lost, recovery.lost, "{what}");
        assert!(!again.is_high_water_lost, "it is there again");
        assert!(owner.read(&key(20)).unwrap().is_ok());
    }
    // A segment that is shorter than it was, though by nothing but zeros, may have had more.
    let disk = original.duplicate();
    let mark = disk.contents("high-water").unwrap();
    disk.put("0000000001.log", segment[..60_000].to_vec());
    disk.put("high-water", mark);
    let (_, recovery) = Owner::open(&disk).unwrap();
    assert_eq!(
        recovery.lost.first().map(|it| it.first),
        Some(10),
        "{recovery:?}"
    );
}

/// Without syncs, a disk may forget the name of a segment and keep what was written under it.
#[test]
fn a_spare_file_that_has_had_records_is_not_used_again() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    for k in 1..=2 {
        let put = (k, u64::from(k), Change::Put(600));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    drop(owner);
    assert!(disk.names().contains(&"spare-0".into()));
    let segment = disk.contents("0000000001.log").unwrap();
    disk.put("spare-0", segment);
    let (mut owner, _) = Owner::open(&disk).unwrap();
    assert!(!disk.names().contains(&"spare-0".into()));
    owner.log.maintain().unwrap();
    let space = owner.log.space();
    assert!(space.reserve >= space.reserve_wanted, "{space:?}");
}

#[test]
fn a_segment_with_a_gap_is_emptied_once_that_is_acknowledged_so_that_new_losses_are_not_taken_for_old()
 {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    for k in 0..20 {
        let put = (k, u64::from(k), Change::Put(9_000));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    let offset = owner.keys.0[&key(2)].location.offset as usize;
    drop(owner);
    let mut segment = disk.contents("0000000001.log").unwrap();
    segment[offset + 9] ^= 1;
    disk.put("0000000001.log", segment);
    let (mut owner, recovery) = Owner::open(&disk).unwrap();
    assert_eq!(recovery.lost, [LostRange { first: 3, last: 3 }]);
    assert_eq!(owner.log.compaction_due(1), 0);
    owner.log.acknowledge_lost().unwrap();
    assert!(owner.log.compaction_due(1) > 0);
    assert!(owner.compact(10, 1 << 20).unwrap() < 10);
    assert_eq!(owner.log.compaction_due(1), 0);
    assert!(!disk.names().contains(&"0000000001.log".into()));
    assert_eq!(owner.reopen(&disk).lost, []);
    for k in (0..20).filter(|k| *k != 2) {
        let read = owner.read(&key(k)).unwrap().unwrap();
        assert!(read == value(k.into(), Change::Put(9_000)));
    }
}

/// Segments that cannot go would make the log too long for ever.
#[test]
fn segments_that_cannot_go_do_not_make_compaction_copy_the_others_for_little() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    // In each segment one record that lives, and several that do not.
    for number in 0..84 {
        let k = if number % 7 == 0 { number } else { 99 };
        let put = (k, number.into(), Change::Put(9_000));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    owner
        .append(&[(99, 99, Change::Put(60_000))], Room::Ordinary)
        .unwrap();
    owner.write_hints().unwrap();
    for number in (0..84).step_by(7) {
        let location = owner.keys.0[&key(number)].location;
        let name = format!("{:010}.log", location.segment);
        let mut segment = disk.contents(&name).unwrap();
        segment[location.offset as usize + 9] ^= 1;
        disk.put(&name, segment);
    }
    owner.reopen(&disk);
    owner.compact(100, 1 << 20).unwrap();
    assert_eq!(owner.log.space().damaged_segments, 12);
    for k in 100..500 {
        let put = (k, 1_000, Change::Put(300));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    assert!(owner.log.compaction_due(1) > 0, "{:?}", owner.log.space());
    let before = owner.log.space().compacted;
    for number in 2_000..2_060 {
        let put = (100 + number as u32 % 400, number, Change::Put(300));
        owner.append(&[put], Room::Ordinary).unwrap();
        owner.compact(3, 1 << 20).unwrap();
    }
    let copied = owner.log.space().compacted - before;
    println!("{copied} bytes copied");
    assert!(copied < 500_000, "{copied}");
}

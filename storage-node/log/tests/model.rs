//! The log beside a map that holds the same: appends, compaction, hints, restarts, reads by threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dkvs_log::simulated::SimulatedDisk;
use dkvs_log::{AppendError, Entry, KEY_BYTES_MAX, Options, ReadError, Room, VALUE_BYTES_MAX};
use support::{Change, Owner, Random, key, options, value};

#[test]
fn it_holds_what_a_map_holds() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::default();
        let mut owner = Owner::create(&disk);
        let mut model: BTreeMap<u32, (u64, Change)> = BTreeMap::new();
        let mut hinted = 0;
        for number in 0..1_500_u64 {
            match random.below(30) {
                0 => {
                    let recovery = owner.reopen(&disk);
                    assert_eq!((recovery.lost.len(), recovery.torn_bytes), (0, 0));
                    assert!(!recovery.is_manifest_lost && !recovery.is_high_water_lost);
                    hinted += recovery.hinted;
                }
                1 => owner.write_hints().unwrap(),
                2 => owner.log.compact_oldest(),
                3..8 => _ = owner.compact(1, 20_000).unwrap(),
                8 => _ = owner.log.maintain().unwrap(),
                _ => {
                    let length = random.one_of(&[0, 1, 100, 1_000, 10_000, 100_000]);
                    let put = Change::Put(length);
                    let change = random.one_of(&[put, put, put, Change::Delete, Change::Remove]);
                    let k = random.below(50) as u32;
                    owner
                        .append(&[(k, number, change)], Room::Ordinary)
                        .unwrap();
                    model.insert(k, (number, change));
                }
            }
        }
        owner.compact(10_000, 1 << 20).unwrap();
        for (k, (number, change)) in &model {
            let Some(held) = owner.keys.0.get(&key(*k)) else {
                assert_eq!(*change, Change::Remove, "seed {seed}: key {k} is lost");
                continue;
            };
            assert_eq!(held.number, *number, "seed {seed}");
            assert!(owner.read(&key(*k)).unwrap().unwrap() == value(*number, *change));
        }
        assert!(hinted > 0, "seed {seed}");
    }
}

#[test]
fn the_log_may_go_to_another_thread_and_its_readers_to_several() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<dkvs_log::Log>();
    is_send::<dkvs_log::HintJob>();
    is_shared::<dkvs_log::Reader>();
}

#[test]
fn removals_are_forgotten_once_nothing_older_is_left() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    for number in 0..400 {
        let put = (number as u32 % 40, number, Change::Put(5_000));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    for k in 0..40 {
        owner
            .append(&[(k, 1_000, Change::Remove)], Room::Ordinary)
            .unwrap();
    }
    // Records that live on are before and behind.
    owner
        .append(
            &[
                (90, 1_001, Change::Put(60_000)),
                (91, 1_002, Change::Put(60_000)),
            ],
            Room::Ordinary,
        )
        .unwrap();
    for _ in 0..10 {
        owner.log.compact_oldest();
        owner.compact(100, 1 << 20).unwrap();
    }
    assert_eq!(owner.keys.0.len(), 2, "and what was to be forgotten is");
    owner.reopen(&disk);
    assert_eq!(owner.keys.0.len(), 2);
    assert!(disk.bytes_taken() < 1 << 20, "{}", disk.bytes_taken());
}

#[test]
fn readers_see_whole_records_while_the_log_is_compacted() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    for k in 0..40 {
        owner
            .append(&[(k, k.into(), Change::Put(6_000))], Room::Ordinary)
            .unwrap();
    }
    let places: Vec<_> = owner.keys.0.values().copied().collect();
    let reader = owner.reader();
    let (is_done, have_read) = (AtomicBool::new(false), Barrier::new(4));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut whole, mut gone) = (0, 0);
                    loop {
                        let is_last = is_done.load(Ordering::Relaxed);
                        for held in &places {
                            match reader.read(held.location) {
                                Ok(record) => {
                                    let expected = value(held.number, Change::Put(6_000));
                                    assert!(record.value() == expected);
                                    let mut part = [0; 100];
                                    let read =
                                        reader.read_part(held.location, 6_000, 2_000, &mut part);
                                    // It may go in between.
                                    assert!(read.is_err() || part == expected[2_000..2_100]);
                                    whole += 1;
                                }
                                Err(ReadError::Gone) => gone += 1,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        if gone == 0 && whole == places.len() {
                            have_read.wait();
                        }
                        if is_last {
                            break;
                        }
                    }
                    (whole, gone)
                })
            })
            .collect();
        have_read.wait();
        for number in 100..400 {
            let put = (number as u32 % 40, number, Change::Put(6_000));
            owner.append(&[put], Room::Ordinary).unwrap();
            owner.compact(2, 30_000).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        for thread in threads {
            let (whole, gone) = thread.join().unwrap();
            assert!(whole >= 40 && gone > 0, "{whole} {gone}");
        }
    });
    assert!(matches!(
        reader.read(places[0].location),
        Err(ReadError::Gone)
    ));
}

#[test]
fn a_lone_put_is_one_sync_and_few_bytes_and_so_is_a_batch() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    owner
        .append(&[(1, 1, Change::Put(64))], Room::Ordinary)
        .unwrap();
    let (syncs, written) = (disk.syncs(), disk.written_bytes());
    owner
        .append(&[(2, 2, Change::Put(64))], Room::Ordinary)
        .unwrap();
    assert_eq!(disk.syncs() - syncs, 1);
    let bytes = disk.written_bytes() - written;
    println!("{bytes} bytes for a lone put of 64");
    assert!(bytes < 256);
    let batch: Vec<_> = (0..200)
        .map(|k| (k, 100 + u64::from(k), Change::Put(20)))
        .collect();
    let syncs = disk.syncs();
    owner.append(&batch, Room::Ordinary).unwrap();
    assert_eq!(disk.syncs() - syncs, 1);
}

#[test]
fn of_very_many_records_some_are_synced_in_between() {
    let disk = SimulatedDisk::default();
    let large = Options {
        segment_bytes: 64 << 20,
        ..options()
    };
    let mut owner = Owner::create_with(&disk, large);
    // Segments have room for four of the longest.
    owner
        .append(&[(0, 0, Change::Put(3 << 19))], Room::Ordinary)
        .unwrap();
    owner
        .append(&[(0, 1, Change::Put(3 << 19))], Room::Ordinary)
        .unwrap();
    let batch = |from: u32| -> Vec<_> {
        let keys = from..from + 33_000;
        keys.map(|k| (k, u64::from(k), Change::Put(0))).collect()
    };
    let segments = owner.log.space().segments;
    let syncs = disk.syncs();
    owner
        .append(&[batch(10), batch(40_000)].concat(), Room::Ordinary)
        .unwrap();
    assert_eq!(owner.log.space().segments, segments);
    assert_eq!(disk.syncs() - syncs, 2);
    let recovery = owner.reopen(&disk);
    assert_eq!((recovery.lost.len(), owner.keys.0.len()), (0, 66_001));
}

#[test]
fn no_records_are_appended_at_any_time_and_what_was_copied_is_synced() {
    let disk = SimulatedDisk::default();
    disk.resize(4 << 20);
    let mut owner = Owner::create(&disk);
    owner.append(&[], Room::Ordinary).unwrap();
    for number in 0..20 {
        let put = (number as u32 % 10, number, Change::Put(9_000));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    owner.log.compact_oldest();
    owner.compact(1, 30_000).unwrap();
    disk.set_others(4 << 20);
    let syncs = disk.syncs();
    owner.append(&[], Room::Ordinary).unwrap();
    assert!(disk.syncs() <= syncs + 1);
    let syncs = disk.syncs();
    owner.append(&[], Room::Reserve).unwrap();
    assert_eq!(disk.syncs(), syncs);
}

#[test]
fn a_sealed_segment_takes_what_its_records_do() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    for k in 0..3 {
        owner
            .append(&[(k, 1, Change::Put(40_000))], Room::Ordinary)
            .unwrap();
    }
    for segment in ["0000000001.log", "0000000002.log"] {
        let length = disk.contents(segment).unwrap().len();
        assert!((40_000..41_000).contains(&length), "{length}");
    }
    assert_eq!(disk.contents("0000000003.log").unwrap().len(), 64 << 10);
}

#[test]
fn the_longest_record_fits_and_no_longer_one() {
    let disk = SimulatedDisk::default();
    let mut owner = Owner::create(&disk);
    let (key, value) = (vec![1; KEY_BYTES_MAX], vec![2; VALUE_BYTES_MAX]);
    let longest = Entry {
        key: &key,
        head: &key,
        value: &value,
    };
    let mut appended = Vec::new();
    owner
        .log
        .append(&[longest], Room::Ordinary, &mut appended)
        .unwrap();
    let record = owner.reader().read(appended[0].location).unwrap();
    assert!(record.key() == key && record.head() == key && record.value() == value);
    let longer = vec![0; VALUE_BYTES_MAX + 1];
    for entry in [
        Entry {
            value: &longer,
            ..longest
        },
        Entry {
            key: &longer[..KEY_BYTES_MAX + 1],
            ..longest
        },
        Entry {
            head: &longer[..KEY_BYTES_MAX + 1],
            ..longest
        },
    ] {
        let refused = owner.log.append(&[entry], Room::Ordinary, &mut appended);
        assert!(matches!(refused, Err(AppendError::TooLong)));
    }
    assert_eq!(owner.log.next_sequence(), 2);
}

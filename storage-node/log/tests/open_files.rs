//! Logs of more segments than files may be open, and processes that may open no more.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use dkvs_log::simulated::SimulatedDisk;
use dkvs_log::{
    AppendError, Index, Liveness, Location, OPEN_SEGMENTS_MAX, OpenError, ReadError, Room, Visited,
    is_out_of_files,
};
use support::{Change, Owner, key, value};

const LENGTH: usize = 15_000;

/// What a log has open beside its segments, and one more for each thing that is under way.
const OTHERS_MAX: usize = 16;

/// A log of so many values, about four of them in each segment.
fn log_of(disk: &SimulatedDisk, keys: u32) -> Owner {
    let mut owner = Owner::create(disk);
    for k in 0..keys {
        let put = (k, u64::from(k), Change::Put(LENGTH));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    owner
}

fn assert_whole(owner: &Owner, keys: u32) {
    for k in 0..keys {
        let read = owner.read(&key(k)).unwrap().unwrap();
        assert!(read == value(k.into(), Change::Put(LENGTH)), "key {k}");
    }
}

#[test]
fn a_log_of_any_number_of_segments_has_a_bounded_number_of_files_open() {
    let disk = SimulatedDisk::default();
    let keys = 8 * OPEN_SEGMENTS_MAX as u32;
    let mut owner = log_of(&disk, keys);
    let check = |owner: &Owner, what: &str| {
        let segments = owner.log.space().segments;
        assert!(segments > OPEN_SEGMENTS_MAX + OTHERS_MAX, "{segments}");
        let open = disk.open_files();
        assert!(
            open <= OPEN_SEGMENTS_MAX + OTHERS_MAX,
            "{what}: {open} files"
        );
    };
    check(&owner, "written");
    assert_whole(&owner, keys);
    check(&owner, "read");
    owner.reopen(&disk);
    check(&owner, "opened by reading");
    assert!(disk.open_files() < OTHERS_MAX, "none are kept open by that");
    owner.write_hints().unwrap();
    let recovery = owner.reopen(&disk);
    assert!(recovery.hinted > OPEN_SEGMENTS_MAX);
    check(&owner, "opened by hints");
    assert_whole(&owner, keys);
    // A reserve of any length is closed.
    owner.log.maintain().unwrap();
    check(&owner, "maintained");
    let readers: Vec<_> = (0..4).map(|_| owner.reader()).collect();
    let places: Vec<_> = owner.keys.0.values().map(|held| held.location).collect();
    std::thread::scope(|scope| {
        for reader in &readers {
            scope.spawn(|| places.iter().for_each(|at| drop(reader.read(*at).unwrap())));
        }
        for number in 0..200 {
            let k = number % 40;
            let put = (k, u64::from(keys + number), Change::Delete);
            owner.append(&[put], Room::Ordinary).unwrap();
        }
    });
    check(&owner, "read by several");
}

#[test]
fn a_process_that_may_open_few_files_closes_some_for_others() {
    let disk = SimulatedDisk::default();
    disk.limit_open_files(Some(14));
    let mut owner = log_of(&disk, 200);
    owner.write_hints().unwrap();
    assert_whole(&owner, 200);
    drop(owner);
    let (mut owner, _) = Owner::open(&disk).unwrap();
    assert_whole(&owner, 200);
    for k in 0..150 {
        let put = (k, 1_000, Change::Delete);
        owner.append(&[put], Room::Ordinary).unwrap();
        owner.compact(4, 1 << 20).unwrap();
    }
    let space = owner.log.space();
    assert!(
        space.damaged_segments == 0 && space.dead < space.live,
        "{space:?}"
    );
}

#[test]
fn a_log_that_may_open_no_file_refuses_and_goes_on_when_it_may_again() {
    let disk = SimulatedDisk::default();
    let mut owner = log_of(&disk, 200);
    let begun = owner.log.space().segments;
    disk.limit_open_files(Some(0));
    let mut k = 200;
    let error = loop {
        let put = (k, u64::from(k), Change::Put(LENGTH));
        match owner.append(&[put], Room::Ordinary) {
            Ok(()) => k += 1,
            Err(error) => break error,
        }
        assert!(k < 300);
    };
    assert!(matches!(error, AppendError::OutOfFiles(_)), "{error}");
    let refused = owner.append(&[(0, 999, Change::Put(60_000))], Room::Reserve);
    assert!(matches!(refused, Err(AppendError::OutOfFiles(_))));
    assert!(owner.log.space().segments <= begun + 3);
    // Nothing else fails for it, and nothing counts as damaged.
    owner.log.maintain().unwrap();
    owner.log.compact_oldest();
    owner.compact(10, 1 << 20).unwrap();
    let job = owner.log.hint_job().unwrap();
    owner.log.finish_hint(&job.run().unwrap()).unwrap();
    assert!(!owner.log.is_failed());
    assert_eq!(owner.log.space().damaged_segments, 0);
    let mut out_of_files = 0;
    for number in 0..k {
        match owner.read(&key(number)).unwrap() {
            Ok(read) => assert!(read == value(number.into(), Change::Put(LENGTH))),
            Err(ReadError::OutOfFiles(_)) => out_of_files += 1,
            Err(error) => panic!("key {number}: {error}"),
        }
    }
    assert!(out_of_files > 100, "{out_of_files}");

    disk.limit_open_files(None);
    let keys = k + 100;
    for k in k..keys {
        let put = (k, u64::from(k), Change::Put(LENGTH));
        owner.append(&[put], Room::Ordinary).unwrap();
    }
    assert_whole(&owner, keys);
    owner.write_hints().unwrap();
    let recovery = owner.reopen(&disk);
    assert_eq!(
        (recovery.lost.len(), recovery.scanned),
        (0, 1),
        "{recovery:?}"
    );
    assert_whole(&owner, keys);
}

#[test]
fn a_log_is_opened_as_it_is_or_not_at_all_however_few_files_may_be_open() {
    let original = SimulatedDisk::default();
    let mut owner = log_of(&original, 40);
    owner.write_hints().unwrap();
    let put = (40, 40, Change::Put(LENGTH));
    owner.append(&[put], Room::Ordinary).unwrap();
    drop(owner);
    let mut refused = 0;
    for files in 0..20 {
        let disk = original.duplicate();
        disk.limit_open_files(Some(files));
        match Owner::open(&disk) {
            Ok((owner, recovery)) => {
                assert_eq!(recovery.lost, [], "{files} files");
                assert!(!recovery.is_manifest_lost && !recovery.is_high_water_lost);
                assert_whole(&owner, 41);
            }
            Err(OpenError::Io(error)) => {
                assert!(is_out_of_files(&error), "{files} files: {error}");
                refused += 1;
                disk.limit_open_files(None);
                let (owner, recovery) = Owner::open(&disk).unwrap();
                assert_eq!((recovery.lost.len(), recovery.values_lost), (0, 0));
                assert_whole(&owner, 41);
            }
            Err(error) => panic!("{files} files: {error}"),
        }
    }
    assert!((2..14).contains(&refused), "{refused}");
}

/// Takes every record for live wherever it lies, as an owner does that keeps no places of some.
#[derive(Default)]
struct WithoutPlaces {
    moved: BTreeMap<(u32, u32), usize>,
}

impl Index for WithoutPlaces {
    fn liveness(&mut self, _: &Visited<'_>, _: bool) -> Liveness {
        Liveness::Live
    }

    fn head_of_copy(&mut self, _: &Visited<'_>) -> Option<Vec<u8>> {
        None
    }

    fn moved(&mut self, _: &[u8], from: Location, _: Location, _: u64) {
        *self.moved.entry((from.segment, from.offset)).or_default() += 1;
    }

    fn unreadable(&mut self, _: &Visited<'_>) {}
}

#[test]
fn compaction_that_is_interrupted_moves_no_record_twice() {
    let disk = SimulatedDisk::default();
    let mut owner = log_of(&disk, 12);
    let oldest = owner.keys.0.values().map(|it| it.location.segment).min();
    let records = |owner: &Owner| {
        let places = owner.keys.0.values().map(|it| it.location.segment);
        places.filter(|segment| Some(*segment) == oldest).count()
    };
    assert!(records(&owner) > 2, "there is something to interrupt");
    let mut index = WithoutPlaces::default();
    owner.log.compact_oldest();
    for step in 0..records(&owner) {
        if step == 1 {
            // No copy can be made now.
            disk.limit_open_files(Some(0));
            assert!(owner.log.compact_step(1 << 20, &mut index).is_ok());
            disk.limit_open_files(None);
        }
        // From its beginning again.
        owner.log.compact_oldest();
        assert!(owner.log.compact_step(1, &mut index).unwrap());
    }
    let moved = |(segment, _): &(u32, u32)| Some(*segment) == oldest;
    let counts: Vec<_> = index.moved.iter().filter(|(at, _)| moved(at)).collect();
    assert_eq!(counts.len(), records(&owner));
    assert!(counts.iter().all(|(_, count)| **count == 1), "{counts:?}");
}

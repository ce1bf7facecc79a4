//! A durable store on a disk that forgets: a crash at every write and every sync of short scripts,
//! with any part of what was not synced kept, and of longer ones at random.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_log::Recovery;
use dkvs_log::simulated::{Fault, Kept, SimulatedDisk};
use dkvs_storage_node::store::disk::{
    Committer, Declaration, DiskStore, OpenError, OpenOptions, Opened,
};
use dkvs_storage_node::store::{
    Lookup, Part, PutOutcome, PutResult, RecordStore as _, RemoveOutcome,
};
use dkvs_tests::random::Random;
use dkvs_tests::stores::{HISTORY, options};

fn open(disk: &SimulatedDisk, declaration: Option<Declaration>) -> Result<Run, OpenError> {
    // Reads see what is on the disk, and not what memory still has.
    let options = OpenOptions {
        cache_bytes_max: 0,
        ..options(declaration)
    };
    let opened = DiskStore::open(Arc::new(disk.clone()), HISTORY, options)?;
    let Opened {
        store,
        committer,
        recovery,
    } = opened;
    assert_eq!(
        (recovery.lost, recovery.values_lost),
        (Recovery::default().lost, 0),
        "a crash is no damage"
    );
    Ok(Run { store, committer })
}

/// A store while its server runs.
struct Run {
    store: Arc<DiskStore>,
    committer: Committer,
}

/// One step of a script.
#[derive(Debug, Clone)]
enum Step {
    /// These keys are put, with values of these lengths, and made durable together.
    Commit(Vec<(u8, usize)>),
    /// These keys are forgotten, whatever they hold.
    Remove(Vec<u8>),
    /// What waits until nobody asks is done: the oldest records are compacted, hints written.
    Idle,
}

/// The result of each change, by the number that is its record's tag.
type Results = Arc<Mutex<Vec<(u64, PutResult)>>>;

#[derive(Default)]
struct Script {
    /// Keys that were removed, with the number of the last put before: none older comes back.
    removed: Arc<Mutex<BTreeMap<u8, u64>>>,
    /// Keys whose removal was asked for, and the last put before: it may be gone.
    removing: BTreeMap<u8, u64>,
    /// Each key's records: the number of the put, and the length of its value; none is deleted.
    put: BTreeMap<u8, Vec<(u64, usize)>>,
    next: u64,
    results: Results,
}

fn key(number: u8) -> Key {
    Key::new(format!("key {number}")).unwrap()
}

/// The record of a put: a value that holds its number, or a tombstone.
fn record(number: u64, key_number: u8, length: usize) -> Record {
    let content = match length {
        0 => Content::Tombstone,
        _ => Content::Value {
            content_type: ContentType::default(),
            value: Value::new(vec![number as u8; length]).unwrap(),
        },
    };
    let time = number + 1;
    Record::new(&key(key_number), Tag { time, op: 1 }, content)
}

impl Script {
    fn play(&mut self, run: &mut Run, step: &Step) {
        let puts = match step {
            Step::Commit(puts) => puts,
            Step::Remove(keys) => return self.remove(run, keys),
            Step::Idle => {
                run.committer.compact_oldest();
                while run.committer.idle() {}
                while let Some(job) = run.committer.hint_job() {
                    run.committer.finish_hint(job.run());
                }
                return;
            }
        };
        for (key_number, length) in puts {
            let number = self.next;
            self.next += 1;
            self.put
                .entry(*key_number)
                .or_default()
                .push((number, *length));
            let results = Arc::clone(&self.results);
            let record_result = move |result| results.lock().unwrap().push((number, result));
            let at_once = record_result.clone();
            let record = record(number, *key_number, *length);
            let result = run
                .store
                .apply(&key(*key_number), &record, || Box::new(record_result));
            if let Some(result) = result {
                at_once(result);
            }
        }
        while let Some(batch) = run.committer.begin() {
            run.committer.finish(batch);
            run.committer.compact();
        }
    }

    fn remove(&mut self, run: &mut Run, keys: &[u8]) {
        for key_number in keys {
            let held = run.store.peek(&key(*key_number)).map(|held| held.tag);
            let Some(tag) = held else { continue };
            let number = tag.time - 1;
            self.removing.insert(*key_number, number);
            let (removed, key_number) = (Arc::clone(&self.removed), *key_number);
            let at_once = run.store.remove(&key(key_number), tag, || {
                Box::new(move |result| {
                    if result == Ok(RemoveOutcome::Removed) {
                        removed.lock().unwrap().insert(key_number, number);
                    }
                })
            });
            assert!(at_once.is_none_or(|result| result.is_err()));
        }
        while let Some(batch) = run.committer.begin() {
            run.committer.finish(batch);
            run.committer.compact();
        }
    }

    /// What was confirmed is there, or something newer that was put, unless it was removed; it is
    /// whole; and what was removed does not come back.
    fn check(&self, run: &Run, what: &str) {
        let results = self.results.lock().unwrap();
        for (key_number, puts) in &self.put {
            let is_confirmed = |number: u64| results.contains(&(number, Ok(PutOutcome::Stored)));
            let confirmed = puts.iter().rfind(|(number, _)| is_confirmed(*number));
            let removing = self.removing.get(key_number);
            let is_removing = |number: u64| removing.is_some_and(|removing| number <= *removing);
            let confirmed = confirmed.filter(|(number, _)| !is_removing(*number));
            let removed = self.removed.lock().unwrap().get(key_number).copied();
            let shown = run.store.read_now(&key(*key_number), Part::Whole, |held| {
                let number = held.head().tag.time - 1;
                let length = held.value().len();
                assert!(
                    held.value().iter().all(|byte| *byte == number as u8),
                    "{what}"
                );
                assert!(puts.contains(&(number, length)), "{what}: key {key_number}");
                number
            });
            if let (Lookup::Found(number), Some(removed)) = (shown, removed) {
                assert!(number > removed, "{what}: key {key_number} is back");
            }
            match (shown, confirmed) {
                (Lookup::Found(number), Some((confirmed, _))) => {
                    assert!(
                        number >= *confirmed,
                        "{what}: {number} in place of {confirmed}"
                    );
                }
                (Lookup::Absent, Some((confirmed, _))) => {
                    panic!("{what}: put {confirmed} of key {key_number} is lost");
                }
                (Lookup::Found(_) | Lookup::Absent, None) => {}
                (Lookup::Corrupt, _) => panic!("{what}: key {key_number} is corrupt"),
            }
        }
    }
}

fn short_script() -> Vec<Step> {
    vec![
        Step::Commit(vec![(1, 10)]),
        Step::Commit(vec![(1, 20), (2, 5_000), (3, 1)]),
        Step::Commit(vec![(2, 0), (4, 30_000)]),
        Step::Commit(vec![(1, 7), (1, 8)]),
    ]
}

/// One that removes keys with several rows, the first and the last of the log among them, and all
/// that is held.
fn removing_script() -> Vec<Step> {
    vec![
        Step::Commit(vec![(1, 10), (2, 3_000)]),
        Step::Commit(vec![(1, 20), (3, 100)]),
        Step::Commit(vec![(4, 30_000), (1, 5)]),
        Step::Remove(vec![1]),
        Step::Commit(vec![(2, 40)]),
        Step::Remove(vec![2, 4]),
        Step::Commit(vec![(1, 7)]),
        Step::Remove(vec![1, 3]),
        Step::Commit(vec![(4, 9)]),
    ]
}

/// One whose records have to be compacted: the same keys again and again, over several segments.
fn compacting_script() -> Vec<Step> {
    let again = |round: u64| Step::Commit(vec![((round % 3) as u8, 30_000)]);
    let mut steps = vec![
        Step::Commit(vec![(9, 300), (8, 0), (6, 20)]),
        Step::Remove(vec![6]),
    ];
    steps.extend((0..8).map(again));
    steps.push(Step::Idle);
    steps.extend((0..3).map(again));
    steps.push(Step::Idle);
    steps.push(Step::Commit(vec![(7, 10)]));
    steps
}

/// Any part of what was not synced is there, as a disk writes it: in sectors, pages, or as a whole.
fn crash_in_pieces(disk: &SimulatedDisk, random: &mut Random) {
    let bytes = random.one_of(&[512, 4_096, usize::MAX]);
    disk.crash(Kept::Pieces(bytes, &mut || random.below(2) == 0));
}

/// Plays a script with a crash at an operation, or none; whether it came to the crash.
fn crash_at(
    script: &[Step],
    operation: Option<u64>,
    kept: &mut dyn FnMut(&SimulatedDisk),
) -> Option<u64> {
    let disk = SimulatedDisk::default();
    let mut played = Script::default();
    let mut run = open(&disk, Some(Declaration::New)).unwrap();
    let begun = disk.operations();
    if let Some(operation) = operation {
        disk.fail_at(begun + operation, Fault::Crash);
    }
    for step in script {
        played.play(&mut run, step);
        if disk.is_down() {
            break;
        }
    }
    let what = format!("crash at {operation:?}");
    played.check(&run, &what);
    let operations = disk.operations() - begun;
    let has_crashed = disk.is_down();
    drop(run);
    kept(&disk);

    let mut run = open(&disk, None).unwrap_or_else(|error| panic!("{what}: {error}"));
    played.check(&run, &what);
    // It goes on, and what it stores then is as durable.
    for step in [
        Step::Commit(vec![(1, 99), (5, 5)]),
        Step::Idle,
        Step::Commit(vec![(2, 3)]),
    ] {
        played.play(&mut run, &step);
    }
    drop(run);
    disk.crash(Kept::Nothing);
    let run = open(&disk, None).unwrap_or_else(|error| panic!("{what}, and again: {error}"));
    played.check(&run, &format!("{what}, and again"));
    (!has_crashed).then_some(operations)
}

/// A crash at every operation of a script, with nothing, all and some of what was unsynced kept.
fn crash_everywhere(script: &[Step], variants: u64) -> u64 {
    let operations = crash_at(script, None, &mut |disk| disk.crash(Kept::Nothing)).unwrap();
    let mut points = 0;
    for operation in 0..operations {
        crash_at(script, Some(operation), &mut |disk| {
            disk.crash(Kept::Nothing)
        });
        crash_at(script, Some(operation), &mut |disk| disk.crash(Kept::All));
        for variant in 0..variants {
            let mut random = Random::new(operation * 1_000 + variant);
            crash_at(script, Some(operation), &mut |disk| {
                crash_in_pieces(disk, &mut random);
            });
        }
        points += 2 + variants;
    }
    points
}

#[test]
fn a_crash_at_any_write_or_sync_takes_nothing_back_that_was_confirmed() {
    let points = crash_everywhere(&short_script(), 40);
    println!("{points} crashes of a short script");
    assert!(points > 400, "{points}");
}

#[test]
fn a_crash_while_keys_are_removed_brings_none_back_and_takes_nothing_else() {
    let points = crash_everywhere(&removing_script(), 20);
    println!("{points} crashes of a script that removes");
    assert!(points > 200, "{points}");
}

#[test]
fn a_crash_while_the_log_is_compacted_takes_nothing_back() {
    let points = crash_everywhere(&compacting_script(), 2);
    println!("{points} crashes of a script that is compacted");
    assert!(points > 400, "{points}");
}

#[test]
fn crashes_of_long_scripts_at_random_take_nothing_back() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let script: Vec<Step> = (0..40)
            .map(|_| {
                let puts = 1 + random.below(8);
                let mut put = || {
                    let length = random.one_of(&[0, 1, 30, 1_000, 4_060, 70_000]);
                    (random.below(12) as u8, length)
                };
                match puts {
                    8 => Step::Idle,
                    7 => Step::Remove(vec![put().0, put().0]),
                    _ => Step::Commit((0..puts).map(|_| put()).collect()),
                }
            })
            .collect();
        let operations = crash_at(&script, None, &mut |disk| disk.crash(Kept::All)).unwrap();
        for _ in 0..5 {
            let operation = random.number() % operations;
            let mut kept = Random::new(random.number());
            crash_at(&script, Some(operation), &mut |disk| {
                crash_in_pieces(disk, &mut kept);
            });
        }
    }
}

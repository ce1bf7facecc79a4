//! Prints the figures of the log on this machine's disk, beside a loop that only writes and syncs:
//! `cargo run --release -p dkvs-log --example figures -- DIRECTORY`. It takes about a minute and some
//! gigabytes, and removes what it made.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an example ends by panicking")]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dkvs_log::{
    Directory, Entry, History, Index, Liveness, Location, Log, Options, Recovery, Room, Visited,
};

const ROUND: Duration = Duration::from_millis(700);
const HEAD: [u8; 24] = [3; 24];

#[derive(Default)]
struct Keys(HashMap<Vec<u8>, Location>);

impl Index for Keys {
    fn liveness(&mut self, record: &Visited<'_>, _is_oldest: bool) -> Liveness {
        match self.0.get(record.key) == Some(&record.location) {
            true => Liveness::Live,
            false => Liveness::Dead,
        }
    }

    fn moved(&mut self, key: &[u8], _from: Location, to: Location, _sequence: u64) {
        self.0.insert(key.to_vec(), to);
    }
}

struct Owner {
    path: PathBuf,
    log: Log,
    keys: Keys,
}

fn options() -> Options {
    Options {
        history: History([1; 16]),
        segment_bytes: 64 << 20,
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:012}").into_bytes()
}

impl Owner {
    fn create(path: &Path) -> Self {
        _ = fs::remove_dir_all(path);
        let directory = Arc::new(Directory::open(path, true).unwrap());
        let log = Log::create(directory, options()).unwrap();
        let (path, keys) = (path.to_owned(), Keys::default());
        Self { path, log, keys }
    }

    fn reopen(self) -> (Self, Recovery) {
        let Self { path, log, .. } = self;
        drop(log);
        let directory = Arc::new(Directory::open(&path, true).unwrap());
        let mut keys = Keys::default();
        let visit = &mut |it: Visited<'_>| keys.0.insert(it.key.to_vec(), it.location);
        let (log, recovery) = Log::open(directory, options(), visit).unwrap();
        (Self { path, log, keys }, recovery)
    }

    fn put(&mut self, numbers: impl Iterator<Item = u64>, value: &[u8]) {
        let keys: Vec<_> = numbers.map(key).collect();
        let entries = keys.iter().map(|key| Entry {
            key,
            head: &HEAD,
            value,
        });
        let entries: Vec<_> = entries.collect();
        let mut appended = Vec::new();
        self.log
            .append(&entries, Room::Ordinary, &mut appended)
            .unwrap();
        for (key, appended) in keys.into_iter().zip(&appended) {
            if let Some(old) = self.keys.0.insert(key, appended.location) {
                self.log.release(old);
            }
        }
        let bytes = appended.iter().map(|it| u64::from(it.location.bytes)).sum();
        let due = self.log.compaction_due(bytes);
        if due > 0 {
            self.log.compact_step(due, &mut self.keys).unwrap();
        }
    }

    fn idle(&mut self) {
        while self.log.compact_step(1 << 20, &mut self.keys).unwrap() {}
        while self.log.maintain().unwrap() {}
        while let Some(job) = self.log.hint_job() {
            self.log.finish_hint(&job.run().unwrap()).unwrap();
        }
    }

    fn disk_bytes(&self) -> u64 {
        let files = fs::read_dir(&self.path).unwrap();
        let blocks = files.map(|it| it.unwrap().metadata().map_or(0, |it| it.blocks()));
        blocks.sum::<u64>() * 512
    }
}

/// Rounds a second, and what they passed to the system and to the device, each in bytes a round.
fn measure(mut round: impl FnMut(u64)) -> (f64, f64, f64) {
    let (written, device) = written_bytes();
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < ROUND {
        round(rounds);
        rounds += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (written_now, device_now) = written_bytes();
    let each = |bytes: u64| bytes as f64 / rounds as f64;
    let rate = rounds as f64 / seconds;
    (rate, each(written_now - written), each(device_now - device))
}

/// What this process passed to write, and what of it went to the device.
fn written_bytes() -> (u64, u64) {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let of = |name: &str| {
        let line = io.lines().find_map(|it| it.strip_prefix(name));
        line.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
    };
    (of("wchar:"), of("write_bytes:"))
}

fn print(what: &str, (rate, written, device): (f64, f64, f64)) {
    println!("{what:44} {rate:9.0}/s {written:9.0} B written {device:9.0} B on the device");
}

/// A loop that only writes and syncs: into a file that grows, or one of zeros, that were set aside or
/// written.
fn plain(path: &Path, bytes: usize, how: &str) -> (f64, f64, f64) {
    let file = match how {
        "set aside" | "and a mark" => {
            use dkvs_log::Medium;
            let directory = Directory::open(path, true).unwrap();
            directory.create("plain", 256 << 20).unwrap();
            OpenOptions::new()
                .write(true)
                .open(path.join("plain"))
                .unwrap()
        }
        _ => {
            fs::create_dir_all(path).unwrap();
            File::create(path.join("plain")).unwrap()
        }
    };
    if how == "zeros" {
        for piece in 0..256 {
            file.write_all_at(&[0; 1 << 20], piece << 20).unwrap();
        }
    }
    file.sync_all().unwrap();
    let record = vec![7; bytes];
    let mark = File::create(path.join("mark")).unwrap();
    let measured = measure(|round| {
        if how == "and a mark" {
            mark.write_all_at(&[1; 80], round % 2 * 4_096).unwrap();
        }
        file.write_all_at(&record, round * bytes as u64).unwrap();
        file.sync_data().unwrap();
    });
    fs::remove_dir_all(path).unwrap();
    measured
}

fn main() {
    let path = std::env::args().nth(1).expect("a directory");
    let path = PathBuf::from(path).join("dkvs-log-figures");
    for turn in 1..=5 {
        println!("turn {turn}");
        for how in ["growing", "set aside", "and a mark", "zeros"] {
            print(
                &format!("write and sync 136 B, {how}"),
                plain(&path, 136, how),
            );
        }
        let mut owner = Owner::create(&path);
        owner.put(0..1, &[1; 64]);
        let lone = measure(|round| owner.put(round..round + 1, &[1; 64]));
        print("log: 64 B one by one", lone);
        let mut owner = Owner::create(&path);
        owner.put(0..1, &[1; 64]);
        let batch = measure(|round| owner.put(round * 256..round * 256 + 256, &[1; 1_024]));
        print("log: 1 KiB in batches of 256 (batches)", batch);
        println!(
            "{:44} {:9.0}/s",
            "log: 1 KiB in batches of 256 (puts)",
            batch.0 * 256.0
        );
        let mut owner = Owner::create(&path);
        let long = measure(|round| owner.put(round..round + 1, &[1; 16 << 10]));
        print("log: 16 KiB one by one", long);
        drop(owner);
        print(
            "write and sync 16 KiB, set aside",
            plain(&path, 16 << 10, "set aside"),
        );
    }
    start(&path);
    overwrite(&path);
    reads(&path);
    fs::remove_dir_all(&path).unwrap();
}

fn start(path: &Path) {
    let mut owner = Owner::create(path);
    for batch in 0..1_000 {
        owner.put(batch * 1_000..batch * 1_000 + 1_000, &[1; 100]);
    }
    owner.idle();
    for way in ["with hints", "with hints", "without hints", "without hints"] {
        if way == "without hints" {
            for file in fs::read_dir(path).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|it| it == "hint") {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        let begun = Instant::now();
        let recovery;
        (owner, recovery) = owner.reopen();
        let (segments, hinted) = (recovery.hinted + recovery.scanned, recovery.hinted);
        println!(
            "start {way}, {} records of 100 B: {:.2?} with a hash map of the keys, {hinted} of {segments} segments by hints",
            recovery.records,
            begun.elapsed(),
        );
        let Owner { path, log, keys } = owner;
        drop(log);
        let directory = Arc::new(Directory::open(&path, true).unwrap());
        let begun = Instant::now();
        let (log, _) = Log::open(directory, options(), &mut |_| None).unwrap();
        println!("  the log alone {:.2?}", begun.elapsed());
        owner = Owner { path, log, keys };
    }
}

fn overwrite(path: &Path) {
    let mut owner = Owner::create(path);
    let value = [1; 1_024];
    for batch in 0..200 {
        owner.put(batch * 256..batch * 256 + 256, &value);
    }
    owner.idle();
    let live = |owner: &Owner| owner.log.space().live as f64;
    println!(
        "{:.0} MB live on {:.0} MB of disk",
        live(&owner) / 1e6,
        owner.disk_bytes() as f64 / 1e6
    );
    let (mut most, mut number) = (0.0_f64, 7_u64);
    let (written, _) = written_bytes();
    for batch in 0..2_000 {
        let numbers = (0..256).map(|_| {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) % 51_200
        });
        let numbers: Vec<_> = numbers.collect();
        owner.put(numbers.into_iter(), &value);
        if batch % 20 == 0 {
            while let Some(job) = owner.log.hint_job() {
                owner.log.finish_hint(&job.run().unwrap()).unwrap();
            }
            most = most.max(owner.disk_bytes() as f64 / live(&owner));
        }
    }
    let put = 2_000.0 * 256.0 * (1_024.0 + 32.0 + 24.0 + 16.0);
    let written = (written_bytes().0 - written) as f64 / put;
    println!(
        "overwrite loop: at most {most:.2} bytes of disk for a live one, {written:.2} written for one put"
    );
    let before = owner.disk_bytes() as f64 / 1e6;
    for number in 0..25_600 {
        // As a store that removes keys for good: the records die.
        if let Some(old) = owner.keys.0.remove(&key(number)) {
            owner.log.release(old);
        }
    }
    owner.idle();
    let after = owner.disk_bytes() as f64 / 1e6;
    println!(
        "half of it deleted: {:.0} MB live, {before:.0} to {after:.0} MB of disk",
        live(&owner) / 1e6
    );
}

fn reads(path: &Path) {
    let mut owner = Owner::create(path);
    for batch in 0..200 {
        owner.put(batch * 256..batch * 256 + 256, &[1; 1_024]);
    }
    let places: Vec<_> = owner.keys.0.values().copied().collect();
    let reader = owner.log.reader();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut times = Vec::with_capacity(4 << 20);
            let mut at = 0;
            while !is_done.load(Ordering::Relaxed) {
                at = (at + 7_919) % places.len();
                let begun = Instant::now();
                // Some are gone by then.
                _ = reader.read(places[at]);
                times.push(begun.elapsed());
            }
            times
        });
        let begun = Instant::now();
        let mut number = 1_000_000;
        while begun.elapsed() < ROUND {
            owner.put(number..number + 16, &[1; 1_024]);
            number += 16;
        }
        is_done.store(true, Ordering::Relaxed);
        let mut times = reads.join().unwrap();
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        println!("reads of 1 KiB from the page cache beside a writer: {rate:.0}/s, p99 {p99:.1?}");
    });
}

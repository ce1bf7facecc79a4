//! Prints the figures of the log on this machine's disk, beside a loop that only writes and syncs:
//! `cargo run --release -p dkvs-log --example figures -- DIRECTORY [THOUSANDS]`, with so many thousand
//! records at the starts. It takes about a minute and two gigabytes, and removes what it made.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an example ends by panicking")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dkvs_log::{
    Directory, Entry, History, Index, Liveness, Location, Log, Medium, Options, Recovery, Room,
    Visited,
};

const ROUND: Duration = Duration::from_secs(5);
const PLAIN_BYTES: u64 = 256 << 20;
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

/// What is measured in turns with others: a name, and what is done each time.
type Contender<'a> = (&'a str, Box<dyn FnMut(u64) + 'a>);

/// Does one of each after the other, for what the disk has to do for others changes by the second, and
/// prints the median time of each, and what it passed to the system and to the device.
fn in_turns(what: &str, mut contenders: Vec<Contender<'_>>) {
    let mut times = vec![Vec::new(); contenders.len()];
    let mut bytes = vec![(0, 0); contenders.len()];
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < ROUND {
        for (number, (_, contender)) in contenders.iter_mut().enumerate() {
            let (written, device) = written_bytes();
            let begun = Instant::now();
            contender(round);
            times[number].push(begun.elapsed());
            let (written_now, device_now) = written_bytes();
            bytes[number].0 += written_now - written;
            bytes[number].1 += device_now - device;
        }
        round += 1;
    }
    println!("{what}, {round} times in turns");
    for (number, (name, _)) in contenders.iter().enumerate() {
        times[number].sort_unstable();
        let at = |part: f64| times[number][(round as f64 * part) as usize];
        let (median, p99) = (at(0.5), at(0.99));
        let rate = 1.0 / median.as_secs_f64();
        let (written, device) = (bytes[number].0 / round, bytes[number].1 / round);
        println!(
            "  {name:34} {median:8.0?} (p99 {p99:8.1?}) {rate:7.0}/s {written:8} B written {device:8} B on the device"
        );
    }
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

/// What this process took of the processor so far.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat
        .split(' ')
        .skip(13)
        .take(2)
        .filter_map(|it| it.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Writes and syncs, and no more: into a file that grows, or one of zeros, that were set aside or
/// written.
fn plain<'a>(path: &Path, bytes: usize, name: &'a str) -> Contender<'a> {
    let path = path.join(name.replace(' ', "-"));
    _ = fs::remove_dir_all(&path);
    let directory = Directory::open(&path, true).unwrap();
    let room = if name.ends_with("set aside") {
        PLAIN_BYTES
    } else {
        0
    };
    let file = directory.create("plain", room).unwrap();
    if name.ends_with("zeros") {
        for piece in 0..PLAIN_BYTES >> 20 {
            file.write_at(piece << 20, &[0; 1 << 20]).unwrap();
        }
    }
    file.sync().unwrap();
    let record = vec![7; bytes];
    let write = move |round| {
        file.write_at(round * bytes as u64 % PLAIN_BYTES, &record)
            .unwrap();
        file.sync().unwrap();
    };
    (name, Box::new(write))
}

fn main() {
    let path = std::env::args().nth(1).expect("a directory");
    let path = PathBuf::from(path).join("dkvs-log-figures");
    for (what, batch, value_bytes) in [
        ("64 B one by one", 1_u64, 64),
        ("1 KiB in batches of 256", 256, 1_024),
        ("16 KiB one by one", 1, 16 << 10),
    ] {
        let mut owner = Owner::create(&path.join("log"));
        let value = vec![1; value_bytes];
        owner.put(0..1, &value);
        let bytes = batch as usize * (value_bytes + 72);
        let contenders = vec![
            plain(&path, bytes, "write and sync, growing"),
            plain(&path, bytes, "write and sync, set aside"),
            plain(&path, bytes, "write and sync, over zeros"),
            (
                "the log",
                Box::new(|round: u64| owner.put(round * batch..(round + 1) * batch, &value))
                    as Box<_>,
            ),
        ];
        in_turns(what, contenders);
    }
    unsynced(&path.join("log"));
    let thousands = std::env::args().nth(2).and_then(|it| it.parse().ok());
    let path = path.join("log");
    start(&path, thousands.unwrap_or(1_000));
    overwrite(&path);
    reads(&path);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// What an append takes of the processor: without syncs, and without the owner's map.
fn unsynced(path: &Path) {
    _ = fs::remove_dir_all(path);
    let directory = Arc::new(Directory::open(path, false).unwrap());
    let mut log = Log::create(directory, options()).unwrap();
    let keys: Vec<_> = (0..256).map(key).collect();
    let value = [1; 1_024];
    let entry = |key| Entry {
        key,
        head: &HEAD,
        value: &value,
    };
    let entries: Vec<_> = keys.iter().map(|key| entry(key)).collect();
    let mut appended = Vec::new();
    for (what, entries) in [("lone puts", &entries[..1]), ("batches of 256", &entries)] {
        let (begun, before, mut rounds) = (Instant::now(), processor_time(), 0);
        while begun.elapsed() < Duration::from_secs(2) {
            appended.clear();
            log.append(entries, Room::Ordinary, &mut appended).unwrap();
            rounds += 1;
        }
        let each = (processor_time() - before) / rounds;
        println!("unsynced, {what} of 1 KiB: {each:.1?} of the processor each");
    }
}

fn start(path: &Path, thousands: u64) {
    let mut owner = Owner::create(path);
    for batch in 0..thousands {
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
        let (begun, before) = (Instant::now(), processor_time());
        let recovery;
        (owner, recovery) = owner.reopen();
        let (segments, hinted) = (recovery.hinted + recovery.scanned, recovery.hinted);
        println!(
            "start {way}, {} records of 100 B: {:.2?}, {:.2?} of the processor, with a hash map of the keys, {hinted} of {segments} segments by hints",
            recovery.records,
            begun.elapsed(),
            processor_time() - before,
        );
        let Owner { path, log, keys } = owner;
        drop(log);
        let directory = Arc::new(Directory::open(&path, true).unwrap());
        let (begun, before) = (Instant::now(), processor_time());
        let (log, _) = Log::open(directory, options(), &mut |_| None).unwrap();
        let took = processor_time() - before;
        println!(
            "  the log alone {:.2?}, {took:.2?} of the processor",
            begun.elapsed()
        );
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

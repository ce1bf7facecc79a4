//! The durable store: more data than memory, what a put writes, and what the log takes of the disk.
//!
//! Each is a table of its own, since none of it compares with anything else. Sizes are for a machine
//! with a few gigabytes to spare; `--quick` takes a twentieth.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dkvs_tests::memory_limit::MemoryLimit;
use dkvs_tests::process::Node;
use dkvs_tests::random::Random;
use rustix::process::Signal;

use crate::cluster;
use crate::directory::Directory;
use crate::histogram::Histogram;
use crate::machine;
use crate::options::Options;
use crate::report::{Curve, Report, amount};
use crate::wire::{Client, Values};

/// The memory of the server that holds ten times as much, in bytes.
const MEMORY_BYTES: u64 = 128 << 20;
const TIMES_MEMORY: u64 = 10;

/// What its values take, and how many of them are asked for again and again.
const VALUE_BYTES: usize = 4_096;
const HOT_KEYS: usize = 1_000;

/// Clients that read at a time, each one value after the other.
const READERS: usize = 2;

/// The keys of the server whose disk is looked at while they are overwritten, and their values.
const SPACE_KEYS: usize = 50_000;
const SPACE_VALUE_BYTES: usize = 1_000;

/// Puts of an hour, at a thousand a second.
const SPACE_PUTS: usize = 3_600_000;

/// After so long without a put the log has done what it had to.
const SETTLING: Duration = Duration::from_secs(5);

/// Puts that are measured one by one.
const LONE_PUTS: usize = 2_000;

type Draw = fn(&Options) -> anyhow::Result<Curve>;

/// Measures what is wanted.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let tables: [(&str, Draw); 3] = [
        ("beyond-memory", beyond_memory),
        ("lone-put", lone_put),
        ("space", space),
    ];
    for (name, draw) in tables {
        if options.wants(name) {
            report.curve(draw(options).with_context(|| format!("the table {name}"))?);
        }
    }
    Ok(())
}

/// A server with a data directory that can be started again.
struct Server<'a> {
    options: &'a Options,
    addr: SocketAddr,
    data: PathBuf,
    arguments: Vec<&'a str>,
    limit: Option<&'a MemoryLimit>,
    node: Node,
}

impl<'a> Server<'a> {
    fn start(
        options: &'a Options,
        directory: &Directory,
        arguments: &[&'a str],
        limit: Option<&'a MemoryLimit>,
    ) -> anyhow::Result<Self> {
        let (addr, data) = (cluster::node_addr()?, directory.0.join("data"));
        let first = [arguments, &["--declare", "new"]].concat();
        let node = cluster::node_on_disk(addr, options, &data, &first, limit)?;
        Ok(Self {
            options,
            addr,
            data,
            arguments: arguments.to_vec(),
            limit,
            node,
        })
    }

    /// Ends it, and starts it again; returns how long the start took.
    fn restart(&mut self, signal: Signal) -> anyhow::Result<Duration> {
        self.node.process.end_with(signal);
        let begun = Instant::now();
        let arguments = &self.arguments;
        self.node =
            cluster::node_on_disk(self.addr, self.options, &self.data, arguments, self.limit)?;
        Ok(begun.elapsed())
    }

    fn bytes_on_disk(&self) -> anyhow::Result<u64> {
        machine::bytes_on_disk(&self.data)
    }
}

/// Part of a size: all of it, unless it is only to be seen that everything works.
fn sized(options: &Options, count: usize) -> usize {
    match options.quick {
        true => count / 20,
        false => count,
    }
}

fn beyond_memory(options: &Options) -> anyhow::Result<Curve> {
    let directory = Directory::new("beyond")?;
    let limit = MemoryLimit::new(MEMORY_BYTES).context("this system limits no memory")?;
    let count = sized(
        options,
        (TIMES_MEMORY * MEMORY_BYTES) as usize / VALUE_BYTES,
    );
    let arguments = [
        "--max-datagram",
        "32768",
        "--durability",
        "buffered",
        "--cache",
        "16M",
    ];
    let mut server = Server::start(options, &directory, &arguments, Some(&limit))?;
    let values = Values {
        bytes: VALUE_BYTES,
        datagram_bytes: 32_768,
    };
    Client::with(server.addr, values)?.fill_with(0..count, 1)?;
    let started = server.restart(Signal::TERM)?;
    let hot: Vec<usize> = (0..HOT_KEYS.min(count)).collect();
    let all: Vec<usize> = (0..count).collect();
    let duration = options.duration();
    let warm_up = read(server.addr, values, &hot, duration)?;
    ensure!(warm_up.count() > 0, "nothing was read");
    let hot_alone = read(server.addr, values, &hot, duration)?;
    let cold_alone = read(server.addr, values, &all, duration)?;
    let (hot_beside, cold_beside) = thread::scope(|scope| -> anyhow::Result<_> {
        let cold = scope.spawn(|| read(server.addr, values, &all, duration));
        let hot = read(server.addr, values, &hot, duration)?;
        let cold = cold
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        Ok((hot, cold))
    })?;
    let seconds = duration.as_secs_f64();
    let mut rows: Vec<(String, Vec<String>)> = [
        ("hot values alone", hot_alone),
        ("any value alone", cold_alone),
        ("hot values beside any", hot_beside),
        ("any value beside hot ones", cold_beside),
    ]
    .into_iter()
    .map(|(name, read)| {
        let cells = [
            amount(read.percentile_us(0.5), "us"),
            amount(read.percentile_us(0.99), "us"),
            amount(read.count() as f64 / seconds, "/s"),
        ];
        (name.to_owned(), cells.to_vec())
    })
    .collect();
    let resident = server.node.process.resident_bytes().unwrap_or(0);
    rows.push((
        format!("start with {count} keys"),
        vec![
            amount(started.as_secs_f64() * 1e3, "ms"),
            String::new(),
            String::new(),
        ],
    ));
    rows.push((
        "memory of the process, less what it maps".to_owned(),
        vec![
            amount(resident as f64 / 1e6, "MB"),
            String::new(),
            String::new(),
        ],
    ));
    Ok(Curve {
        name: "beyond-memory",
        what: "Values of 4 KiB, ten times the memory that the system gives the server",
        columns: vec!["reads of", "median", "p99", "a second"],
        rows,
    })
}

/// Reads values by several clients, one after the other each.
fn read(
    server: SocketAddr,
    values: Values,
    keys: &[usize],
    duration: Duration,
) -> anyhow::Result<Histogram> {
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                scope.spawn(move || -> anyhow::Result<Histogram> {
                    let client = Client::with(server, values)?;
                    let mut random = Random::new(number as u64 + 1);
                    let (mut latency, begun) = (Histogram::default(), Instant::now());
                    while begun.elapsed() < duration {
                        let key = keys[random.below(keys.len())];
                        let asked = Instant::now();
                        client.read(key)?;
                        latency.record(asked.elapsed());
                    }
                    Ok(latency)
                })
            })
            .collect();
        let mut all = Histogram::default();
        for reader in readers {
            let one = reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))?;
            all.add(&one?);
        }
        Ok(all)
    })
}

/// What a put writes that is alone in its commit.
fn lone_put(options: &Options) -> anyhow::Result<Curve> {
    let mut rows = Vec::new();
    for bytes in [64, 1_000] {
        let directory = Directory::new("lone")?;
        let server = Server::start(options, &directory, &[], None)?;
        let values = Values {
            bytes,
            ..Values::SMALL
        };
        let client = Client::with(server.addr, values)?;
        client.fill_with(0..100, 1)?;
        let process = server.node.process.id();
        let count = sized(options, LONE_PUTS);
        let (passed, written) = (
            machine::bytes_passed(process)?,
            machine::bytes_written(process)?,
        );
        let begun = Instant::now();
        for number in 0..count {
            client.fill_with(number..number + 1, 2)?;
        }
        let each = |before: u64, after: u64| amount((after - before) as f64 / count as f64, "B");
        let cells = [
            each(passed, machine::bytes_passed(process)?),
            each(written, machine::bytes_written(process)?),
            amount(begun.elapsed().as_secs_f64() / count as f64 * 1e6, "us"),
        ];
        rows.push((bytes.to_string(), cells.to_vec()));
    }
    Ok(Curve {
        name: "lone-put",
        what: "A synced put that is alone in its commit, over the length of the value",
        columns: vec![
            "bytes",
            "passed to the system",
            "written to the disk",
            "time",
        ],
        rows,
    })
}

/// What the log takes of the disk for a byte that is live, while all of it is overwritten again and
/// again in random order, and after half of it was deleted.
fn space(options: &Options) -> anyhow::Result<Curve> {
    let directory = Directory::new("space")?;
    let arguments = ["--durability", "buffered", "--max-datagram", "32768"];
    let server = Server::start(options, &directory, &arguments, None)?;
    let values = Values {
        bytes: SPACE_VALUE_BYTES,
        datagram_bytes: 32_768,
    };
    let client = Client::with(server.addr, values)?;
    client.fill_with(0..SPACE_KEYS, 1)?;
    let record = SPACE_VALUE_BYTES + cluster::key(0).len();
    let live = (SPACE_KEYS * record) as f64;
    let process = server.node.process.id();
    let (puts, written) = (sized(options, SPACE_PUTS), machine::bytes_passed(process)?);
    let (mut random, mut most) = (Random::new(7), 0.0_f64);
    let batch = 1_000;
    for round in 0..puts / batch {
        let keys = (0..batch).map(|_| random.below(SPACE_KEYS));
        client.fill_with(keys, 2 + round as u64)?;
        if round % 20 == 0 {
            most = most.max(server.bytes_on_disk()? as f64 / live);
        }
    }
    let passed = (machine::bytes_passed(process)? - written) as f64 / (puts * record) as f64;
    thread::sleep(SETTLING);
    let settled = server.bytes_on_disk()? as f64 / live;
    client.delete(0..SPACE_KEYS / 2, 1 << 40)?;
    thread::sleep(SETTLING);
    let deleted = server.bytes_on_disk()? as f64 / (live / 2.0);
    let row = |name: &str, value: f64| (name.to_owned(), vec![amount(value, "")]);
    Ok(Curve {
        name: "space",
        what: "Disk over live records, 50,000 values of 1,000 bytes, an hour's writes at 1,000 a second",
        columns: vec!["when", "times"],
        rows: vec![
            row("at the most, while they are overwritten at random", most),
            row("five seconds afterwards", settled),
            row("after half was deleted, over the other half", deleted),
            row("bytes passed to the system, over those of the puts", passed),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_takes_a_twentieth() {
        use clap::Parser as _;
        let parse = |arguments: &[&str]| Options::try_parse_from([&["bench"], arguments].concat());
        assert_eq!(sized(&parse(&["--quick"]).unwrap(), 2_000), 100);
        assert_eq!(sized(&parse(&[]).unwrap(), 2_000), 2_000);
    }

    #[test]
    fn the_files_below_a_directory_count() {
        let directory = Directory::new("storage-test").unwrap();
        let below = directory.0.join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("file"), vec![1; 100_000]).unwrap();
        assert!(machine::bytes_on_disk(&directory.0).unwrap() >= 100_000);
    }
}

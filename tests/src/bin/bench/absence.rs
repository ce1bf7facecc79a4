//! How long a server takes to hold what its peers do, though nobody reads: after it was away, and after
//! its disk was replaced.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dkvs_common::model::Statistic;
use dkvs_tests::replicas::Replicas;

use crate::cluster::{self, Cluster};
use crate::directory::Directory;
use crate::figures::PUT_LINEARIZABLE;
use crate::http;
use crate::options::Options;
use crate::report::{Curve, Report, amount};
use crate::wire::{Client, Values};

const SERVERS: usize = 5;

/// The server that is away, or loses its disk.
const AWAY: usize = 2;

/// How many keys are written how often while it is away.
const KEYS: usize = 1_000;
const ROUNDS: usize = 2;

/// Keys and the bytes of a value where the disk is replaced.
const COPIED_KEYS: usize = 100_000;
const COPIED: Values = Values {
    bytes: 1_000,
    datagram_bytes: 32_768,
};

/// What the server may pull a second, as an argument and in bytes.
const RATE: &str = "8M";
const BYTES_PER_SECOND: f64 = (8 << 20) as f64;

/// How long the server may take, and how long it is waited for until it answers for what it holds.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_FOR_ANSWERS: Duration = Duration::from_secs(120);

/// How often it is looked whether it is done.
const GLANCE: Duration = Duration::from_millis(20);

/// Measures what is wanted.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for (name, table) in [
        ("repair-after-absence", after_absence as Table),
        ("repair-empty-disk", empty_disk),
    ] {
        if options.storage && options.wants(name) {
            report.curve(table(options).with_context(|| format!("the table {name}"))?);
        }
    }
    Ok(())
}

type Table = fn(&Options) -> anyhow::Result<Curve>;

/// One of five servers is away while keys are written.
fn after_absence(options: &Options) -> anyhow::Result<Curve> {
    let directory = Directory::new("absence")?;
    let mut members = Cluster::start_members_on_disk(SERVERS, options, &directory.0)?;
    let mut client = http::Client::new(members.addr())?;
    let puts: Vec<Vec<u8>> = cluster::puts(PUT_LINEARIZABLE)
        .into_iter()
        .take(KEYS)
        .collect();
    let mut write = || puts.iter().try_for_each(|put| client.demand(put).map(drop));
    write()?;
    members.nodes[AWAY].process.kill();
    for _ in 0..ROUNDS {
        write()?;
    }
    let replicas = members.replicas();
    let begun = Instant::now();
    members.start_member_on_disk(AWAY, options, &directory.0, &[])?;
    until_equal(&replicas)?;
    let equal = begun.elapsed();
    let peers = SERVERS as u64 - 1;
    until(PATIENCE, || {
        replicas.statistic(AWAY, Statistic::PeersInStep) == peers
    })
    .context("the server does not come into step")?;
    let in_step = begun.elapsed();
    let row = |what: &str, cell: String| (what.to_owned(), vec![cell]);
    Ok(Curve {
        name: "repair-after-absence",
        what: "A server of five that was away for 2,000 writes over 1,000 keys, n=3",
        columns: vec!["what", "figure"],
        rows: vec![
            row(
                "records pulled",
                replicas
                    .statistic(AWAY, Statistic::RecordsPulled)
                    .to_string(),
            ),
            row(
                "from its start until all replicas of all keys hold the same",
                amount(equal.as_secs_f64(), "s"),
            ),
            row(
                "until it has seen that itself, at all peers",
                amount(in_step.as_secs_f64(), "s"),
            ),
        ],
    })
}

/// Waits until all replicas of all keys hold the same.
fn until_equal(replicas: &Replicas) -> anyhow::Result<()> {
    let names: Vec<String> = (0..KEYS).map(cluster::key).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let all: BTreeSet<usize> = (0..SERVERS).collect();
    let equal = replicas.until_equal(names.iter().map(String::as_str), &all);
    runtime.block_on(equal).map_err(anyhow::Error::msg)
}

/// One of five servers comes back with an empty disk.
fn empty_disk(options: &Options) -> anyhow::Result<Curve> {
    let keys = match options.quick {
        true => COPIED_KEYS / 20,
        false => COPIED_KEYS,
    };
    let directory = Directory::new("empty-disk")?;
    let mut members = Cluster::start_members_on_disk(SERVERS, options, &directory.0)?;
    let replicas = members.replicas();
    let mut numbers: Vec<Vec<usize>> = vec![Vec::new(); SERVERS];
    for number in 0..keys {
        for server in replicas.of_key(&cluster::key(number)) {
            numbers[server].push(number);
        }
    }
    for (node, numbers) in members.nodes.iter().zip(&numbers) {
        let client = Client::with(node.addr, COPIED)?.of_epoch(replicas.epoch());
        client.fill_with(numbers.iter().copied(), 1)?;
    }
    members.nodes[AWAY].process.kill();
    fs::remove_dir_all(directory.0.join(AWAY.to_string()))?;
    let begun = Instant::now();
    let more = ["--declare", "incomplete", "--repair-rate", RATE];
    members.start_member_on_disk(AWAY, options, &directory.0, &more)?;
    let held = numbers[AWAY].len();
    until(PATIENCE, || {
        replicas.statistic(AWAY, Statistic::Keys) >= held as u64
    })
    .context("the server does not pull all keys")?;
    let took = begun.elapsed();
    let answers = until(PATIENCE_FOR_ANSWERS, || {
        replicas.statistic(AWAY, Statistic::IsIncomplete) == 0
    });
    let answers = match answers {
        Ok(()) => amount(begun.elapsed().as_secs_f64(), "s"),
        Err(_) => format!("not within {} s", begun.elapsed().as_secs()),
    };
    let bytes = held * (COPIED.bytes + cluster::key(0).len());
    let copy = bytes as f64 / BYTES_PER_SECOND;
    let row = |what: &str, cell: String| (what.to_owned(), vec![cell]);
    Ok(Curve {
        name: "repair-empty-disk",
        what: "A server of five that comes back with an empty disk",
        columns: vec!["what", "figure"],
        rows: vec![
            row("keys of the cluster", keys.to_string()),
            row("keys of the server", held.to_string()),
            row(
                "a copy of their keys and values at its rate",
                amount(copy, "s"),
            ),
            row(
                "until it holds all of them",
                amount(took.as_secs_f64(), "s"),
            ),
            row("that over the copy", amount(took.as_secs_f64() / copy, "")),
            row("until it answers for all of them by itself", answers),
        ],
    })
}

/// Waits until something holds.
fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < patience, "not within {patience:?}");
        thread::sleep(GLANCE);
    }
    Ok(())
}

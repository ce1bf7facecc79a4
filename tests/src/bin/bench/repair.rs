//! What it costs requests that servers compare themselves, and that one pulls all that it has lost.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dkvs_common::model::Statistic;

use crate::cluster::{self, Cluster};
use crate::contest::{Side, Spec, take_turns};
use crate::figures::{self, LINEARIZABLE, PUT_LINEARIZABLE, goal, ratio};
use crate::load::Measured;
use crate::options::Options;
use crate::report::{Curve, Report, amount};
use crate::wire::{Client, Values};

const GET_OF_MEMBERS: Spec = ratio(
    "members-get",
    "GET n=3 r=2, linearizable, of servers that compare themselves and are in step, over others",
    goal(0.99, 0.99),
);
const PUT_OF_MEMBERS: Spec = ratio(
    "members-put",
    "PUT n=3 w=2, linearizable, of servers that compare themselves and are in step, over others",
    goal(0.99, 0.99),
);

/// The table of requests beside a repair, and the server that comes back with nothing.
const BESIDE: &str = "repair-beside-requests";
const EMPTIED: usize = 2;

/// Keys of the servers of which one comes back with nothing, and the bytes of a value.
const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 100;

/// What a server pulls a second unless it is told otherwise, in bytes.
const BYTES_PER_SECOND: f64 = (8 << 20) as f64;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures what is wanted.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if options.wants(GET_OF_MEMBERS.name) || options.wants(PUT_OF_MEMBERS.name) {
        in_step(options, report)?;
    }
    if options.storage && options.wants(BESIDE) {
        let table = beside(options).with_context(|| format!("the table {BESIDE}"))?;
        report.curve(table);
    }
    Ok(())
}

fn in_step(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (alone, members) = (
        Cluster::start(3, options)?,
        Cluster::start_members(3, options)?,
    );
    members.fill("")?;
    for (spec, requests) in [
        (GET_OF_MEMBERS, cluster::gets(LINEARIZABLE)),
        (PUT_OF_MEMBERS, cluster::puts(PUT_LINEARIZABLE)),
    ] {
        if !options.wants(spec.name) {
            continue;
        }
        let side = |name, addr| {
            let load = figures::load(options, addr, &requests);
            Side::new(name, move || load.measure())
        };
        let sides = vec![side("alone", alone.addr()), side("members", members.addr())];
        let rounds = take_turns(options.rounds(), sides)?;
        report.compare(&spec, &rounds[1], &rounds[0])?;
    }
    Ok(())
}

/// One of three servers comes back with nothing. Requests go on meanwhile.
fn beside(options: &Options) -> anyhow::Result<Curve> {
    let keys = match options.quick {
        true => KEYS / 20,
        false => KEYS,
    };
    let mut members = Cluster::start_members(3, options)?;
    let values = Values {
        bytes: VALUE_BYTES,
        ..Values::SMALL
    };
    let epoch = members.epoch()?;
    for node in &members.nodes {
        let client = Client::with(node.addr, values)?.of_epoch(epoch);
        client.fill_with(0..keys, 1)?;
    }
    // Alone, to see how long it takes.
    let alone = Instant::now();
    members.empty_member(EMPTIED, options)?;
    while held(&members)? < keys as u64 {
        is_patient(alone)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let alone = alone.elapsed().as_secs_f64();
    let bytes = VALUE_BYTES + cluster::key(0).len();
    let copied = |more: usize| (keys * (bytes + more)) as f64 / BYTES_PER_SECOND;
    let row = |what: &str, cell: String| (what.to_owned(), vec![cell]);
    let mut rows = vec![
        row("keys", keys.to_string()),
        row("until it holds all of them", amount(alone, "s")),
        row(
            "a copy of keys and values at its rate",
            amount(copied(0), "s"),
        ),
    ];
    for (what, requests) in [
        ("GET", cluster::gets(LINEARIZABLE)),
        ("PUT", cluster::puts(PUT_LINEARIZABLE)),
    ] {
        let beside = Beside::measure(&mut members, keys, options, &requests)?;
        rows.extend([
            row(
                &format!("{what} a second beside it, over those without"),
                amount(rate(&beside.beside) / rate(&beside.without), ""),
            ),
            row(
                "their p99, over that without",
                amount(p99(&beside.beside) / p99(&beside.without), ""),
            ),
        ]);
    }
    Ok(Curve {
        name: BESIDE,
        what: "A server of three that comes back with nothing",
        columns: vec!["what", "figure"],
        rows,
    })
}

/// Rounds of a load: before and after a repair, and while it runs.
struct Beside {
    without: Vec<Measured>,
    beside: Vec<Measured>,
}

impl Beside {
    fn measure(
        members: &mut Cluster,
        keys: usize,
        options: &Options,
        requests: &[Vec<u8>],
    ) -> anyhow::Result<Self> {
        let load = |members: &Cluster| figures::load(options, members.addr(), requests).measure();
        let rounds = options.rounds().div_ceil(2);
        let mut without = Vec::new();
        for _ in 0..rounds {
            without.push(load(members)?);
        }
        members.empty_member(EMPTIED, options)?;
        let begun = Instant::now();
        let mut beside = Vec::new();
        while held(members)? < keys as u64 {
            is_patient(begun)?;
            beside.push(load(members)?);
        }
        // Of the last, a part may have been without.
        if beside.len() > 1 {
            beside.pop();
        }
        for _ in 0..rounds {
            without.push(load(members)?);
        }
        let failures = without.iter().chain(&beside).map(|one| one.failures);
        let failures: u64 = failures.sum();
        ensure!(failures == 0, "{failures} requests failed");
        Ok(Self { without, beside })
    }
}

/// How many keys the server holds that has lost all.
fn held(members: &Cluster) -> anyhow::Result<u64> {
    let client = Client::new(members.nodes[EMPTIED].addr)?;
    client.of_epoch(members.epoch()?).statistic(Statistic::Keys)
}

fn is_patient(begun: Instant) -> anyhow::Result<()> {
    ensure!(
        begun.elapsed() < PATIENCE,
        "the server did not pull all keys"
    );
    Ok(())
}

fn rate(rounds: &[Measured]) -> f64 {
    let requests: u64 = rounds.iter().map(|one| one.requests).sum();
    requests as f64 / rounds.iter().map(|one| one.seconds).sum::<f64>()
}

fn p99(rounds: &[Measured]) -> f64 {
    let each = rounds.iter().map(|one| one.latency.percentile_us(0.99));
    each.sum::<f64>() / rounds.len() as f64
}

//! What it costs that servers compare themselves, and how long one takes that has lost everything.

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
    if options.storage && options.wants("repair") {
        report.curve(repair(options).context("the table repair")?);
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
fn repair(options: &Options) -> anyhow::Result<Curve> {
    let keys = match options.quick {
        true => KEYS / 20,
        false => KEYS,
    };
    let mut members = Cluster::start_members(3, options)?;
    let (epoch, values) = (
        members.epoch()?,
        Values {
            bytes: VALUE_BYTES,
            ..Values::SMALL
        },
    );
    for node in &members.nodes {
        let client = Client::with(node.addr, values)?.of_ring(epoch);
        client.fill_with(0..keys, 1)?;
    }
    let gets = cluster::gets(LINEARIZABLE);
    let load = |members: &Cluster| figures::load(options, members.addr(), &gets).measure();
    let quiet = load(&members)?;
    // Alone, to see how long it takes.
    let alone = Instant::now();
    members.empty_member(2, options)?;
    let client = |members: &Cluster| -> anyhow::Result<Client> {
        Ok(Client::new(members.nodes[2].addr)?.of_ring(epoch))
    };
    let held = |members: &Cluster| client(members)?.statistic(Statistic::Keys);
    while held(&members)? < keys as u64 {
        ensure!(
            alone.elapsed() < PATIENCE,
            "the server did not pull all keys"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let alone = alone.elapsed();
    // And beside reads.
    members.empty_member(2, options)?;
    let mut beside = Vec::new();
    let begun = Instant::now();
    while held(&members)? < keys as u64 {
        ensure!(
            begun.elapsed() < PATIENCE,
            "the server did not pull all keys"
        );
        beside.push(load(&members)?);
    }
    // Of the last, a part may have been quiet.
    if beside.len() > 1 {
        beside.pop();
    }
    let rate = |all: &[Measured]| {
        let requests: u64 = all.iter().map(|one| one.requests).sum();
        requests as f64 / all.iter().map(|one| one.seconds).sum::<f64>()
    };
    let p99 = |all: &[Measured]| {
        let each = all.iter().map(|one| one.latency.percentile_us(0.99));
        each.sum::<f64>() / all.len() as f64
    };
    let failures: u64 = beside.iter().map(|one| one.failures).sum();
    ensure!(
        failures == 0,
        "{failures} requests failed beside the repair"
    );
    let quiet = [quiet];
    let copied = (keys * (VALUE_BYTES + cluster::key(0).len())) as f64;
    let row = |what: &str, cell: String| (what.to_owned(), vec![cell]);
    Ok(Curve {
        name: "repair",
        what: "A server of three that comes back with nothing",
        columns: vec!["what", "figure"],
        rows: vec![
            row("keys", keys.to_string()),
            row(
                "until it holds all of them",
                amount(alone.as_secs_f64(), "s"),
            ),
            row(
                "a copy of keys and values at its rate",
                amount(copied / BYTES_PER_SECOND, "s"),
            ),
            row(
                "GET a second beside it, over those before",
                amount(rate(&beside) / rate(&quiet), ""),
            ),
            row(
                "their p99, over that before",
                amount(p99(&beside) / p99(&quiet), ""),
            ),
        ],
    })
}

//! How the cost grows with the work: curves, not points.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use dkvs_common::cluster::{Cluster as Listing, Server};
use dkvs_common::kv::Key;
use dkvs_common::ring::{Position, Ring};

use crate::cluster::{self, Cluster, SMALL};
use crate::contest::{Side, take_turns};
use crate::directory::Directory;
use crate::figures::{load, probe, rate};
use crate::http;
use crate::load::Load;
use crate::machine;
use crate::options::Options;
use crate::report::{Curve, Report, amount};
use crate::wire;

const CONNECTIONS: [usize; 6] = [1, 4, 16, 64, 256, 1_024];
const REPLICAS_MAX: usize = 7;
const VALUE_BYTES: [usize; 8] = [
    0,
    32,
    1 << 10,
    8 << 10,
    32 << 10,
    128 << 10,
    512 << 10,
    1 << 20,
];
const SERVERS: [u32; 6] = [3, 10, 30, 100, 300, 1_000];
const KEYS_HELD: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Each point has fewer rounds than a figure: there are many points.
const ROUNDS_MAX: u32 = 3;

/// Connections that ask for values of different lengths.
const VALUE_CONNECTIONS: usize = 16;

/// Ring points of each server, and preference lists that are made at each point of the curve.
const RING_POINTS: u32 = 128;
const LISTS: usize = 200_000;

/// How long a cluster is left alone, and how long before that it may still be settling.
const IDLE: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_secs(2);

type Draw = fn(&Options) -> anyhow::Result<Curve>;

/// Draws every curve that is wanted.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let curves: [(&str, Draw); 7] = [
        ("connections", over_connections),
        ("replicas", over_replicas),
        ("value-size", over_value_size),
        ("preference-list", over_servers),
        ("memory", over_keys),
        ("disk", on_disk),
        ("idle", idle),
    ];
    for (name, curve) in curves {
        if options.wants(name) {
            eprintln!("curve: {name}");
            report.curve(curve(options)?);
        }
    }
    Ok(())
}

fn rounds(options: &Options) -> u32 {
    options.rounds().min(ROUNDS_MAX)
}

/// Lets loads take turns; the median rate of each.
fn rates(options: &Options, loads: &[(&'static str, Load<'_>)]) -> anyhow::Result<Vec<f64>> {
    let sides = loads
        .iter()
        .map(|(name, load)| Side::new(name, || load.measure()));
    let rounds = take_turns(rounds(options), sides.collect())?;
    let failed = rounds
        .iter()
        .flat_map(|side| &side.measured)
        .find_map(|m| m.first_failure.as_ref());
    match failed {
        Some(failure) => anyhow::bail!("a request of a curve failed: {failure}"),
        None => Ok(rounds.iter().map(rate).collect()),
    }
}

fn over_connections(options: &Options) -> anyhow::Result<Curve> {
    let (cluster, bare) = (Cluster::start(3, options)?, cluster::bare_handler()?);
    let requests = cluster::gets("?n=3&r=2");
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let load = |addr| Load {
            connections,
            ..load(options, addr, &requests)
        };
        let loads = [
            ("bare handler", load(bare.addr)),
            ("gateway", load(cluster.addr())),
        ];
        let rates = rates(options, &loads)?;
        let ratio = rates[1] / rates[0];
        let values = [
            amount(rates[0], ""),
            amount(rates[1], ""),
            amount(ratio, ""),
        ];
        rows.push((connections.to_string(), values.to_vec()));
    }
    Ok(Curve {
        name: "connections",
        what: "GET n=3 r=2 a second, over connections",
        columns: vec!["connections", "bare handler", "gateway", "ratio"],
        rows,
    })
}

fn over_replicas(options: &Options) -> anyhow::Result<Curve> {
    let cluster = Cluster::start(REPLICAS_MAX, options)?;
    cluster.fill(&format!("?n={REPLICAS_MAX}&w={REPLICAS_MAX}"))?;
    let mut rows = Vec::new();
    for n in 1..=REPLICAS_MAX {
        let majority = n / 2 + 1;
        let gets = cluster::gets(&format!("?n={n}&r={majority}"));
        let puts = cluster::puts(&format!("?n={n}&w={majority}"));
        let load = |requests| load(options, cluster.addr(), requests);
        let rates = rates(options, &[("GET", load(&gets)), ("PUT", load(&puts))])?;
        rows.push((
            n.to_string(),
            rates.iter().map(|rate| amount(*rate, "")).collect(),
        ));
    }
    Ok(Curve {
        name: "replicas",
        what: "Requests a second with majorities, over n, seven servers",
        columns: vec!["n", "GET", "PUT"],
        rows,
    })
}

fn over_value_size(options: &Options) -> anyhow::Result<Curve> {
    let cluster = Cluster::start(3, options)?;
    let mut rows = Vec::new();
    for value_bytes in VALUE_BYTES {
        let path = format!("/kv/value-of-{value_bytes}");
        let puts = vec![http::with_body("PUT", &path, &vec![b'v'; value_bytes])];
        let gets = vec![http::get(&format!("{path}?raw=true"))];
        if let Err(why) = probe(cluster.addr(), &puts[0])? {
            rows.push((
                value_bytes.to_string(),
                vec![format!("not yet: {why}"), String::new()],
            ));
            continue;
        }
        let load = |requests, body_bytes_min| Load {
            connections: VALUE_CONNECTIONS,
            body_bytes_min,
            ..load(options, cluster.addr(), requests)
        };
        let loads = [
            ("GET", load(&gets, value_bytes as u64)),
            ("PUT", load(&puts, 0)),
        ];
        let rates = rates(options, &loads)?;
        let cells = rates.iter().map(|rate| {
            let megabytes = rate * value_bytes as f64 / 1e6;
            format!("{}, {}", amount(*rate, ""), amount(megabytes, "MB/s"))
        });
        rows.push((value_bytes.to_string(), cells.collect()));
    }
    Ok(Curve {
        name: "value-size",
        what: "Requests a second over the length of the value, 16 connections",
        columns: vec!["bytes", "GET", "PUT"],
        rows,
    })
}

/// In this process: nothing but the walk over the ring.
fn over_servers(_: &Options) -> anyhow::Result<Curve> {
    let keys = (0..4_096).map(|number| Ok(Position::of_key(&Key::new(cluster::key(number))?)));
    let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for servers in SERVERS {
        let server = |number: u32| Server {
            addr: SocketAddrV4::new(Ipv4Addr::from(0x0a00_0001 + number), 4_000),
            ring_points: RING_POINTS,
        };
        let listed: Vec<Server> = (0..servers).map(server).collect();
        let ring = Ring::new(&Listing::from_servers(&listed)?);
        let begun = Instant::now();
        for key in keys.iter().cycle().take(LISTS) {
            black_box(ring.preference_list(*key, 3));
        }
        let nanoseconds = begun.elapsed().as_nanos() as f64 / LISTS as f64;
        rows.push((servers.to_string(), vec![amount(nanoseconds, "ns")]));
    }
    Ok(Curve {
        name: "preference-list",
        what: "A preference list of three, over servers with 128 ring points each",
        columns: vec!["servers", "a list"],
        rows,
    })
}

fn over_keys(options: &Options) -> anyhow::Result<Curve> {
    let mut rows = Vec::new();
    for keys in KEYS_HELD {
        let node = cluster::node(options)?;
        let resident = || {
            node.process
                .resident_bytes()
                .context("the system tells no memory")
        };
        let before = resident()?;
        let client = wire::Client::new(node.addr)?;
        client.fill(keys).context("filling a server")?;
        let grown = resident()?.saturating_sub(before) as f64 / keys as f64;
        let own = (cluster::key(0).len() + SMALL.len()) as f64;
        rows.push((
            keys.to_string(),
            vec![amount(grown, "B"), amount(grown - own, "B")],
        ));
    }
    Ok(Curve {
        name: "memory",
        what: "Memory of a server for each key, over keys (few keys show the buffers, too)",
        columns: vec!["keys", "a key", "beyond key and value"],
        rows,
    })
}

/// What a server with a disk takes for its keys, and how long it takes to start with them.
fn on_disk(options: &Options) -> anyhow::Result<Curve> {
    let mut rows = Vec::new();
    for keys in KEYS_HELD
        .into_iter()
        .chain(options.storage.then_some(10_000_000))
    {
        let directory = Directory::new("disk")?;
        let (addr, data) = (cluster::node_addr()?, directory.0.join("data"));
        let start = |more: &[&str]| {
            // The keys of the longest row take more than a server has by default.
            let arguments = [&["--durability", "buffered", "--max-memory", "4G"], more].concat();
            cluster::node_on_disk(addr, options, &data, &arguments, None)
        };
        let mut node = start(&["--declare", "new"])?;
        wire::Client::new(node.addr)?
            .fill(keys)
            .context("filling a server")?;
        let written = machine::bytes_written(node.process.id())?;
        node.process.end_with(rustix::process::Signal::TERM);
        let disk_bytes = machine::bytes_on_disk(&data)?;
        let mut started = Vec::new();
        for is_clean in [true, false] {
            let begun = Instant::now();
            let mut node = start(&[])?;
            started.push(begun.elapsed().as_secs_f64() * 1e3);
            if !is_clean {
                let resident = node.process.resident_bytes();
                started.push(resident.context("the system tells no memory")? as f64 / 1e6);
            }
            node.process.kill();
        }
        // A row has 40 bytes beside key, type and value.
        let live = (keys * (cluster::key(0).len() + SMALL.len() + 32)) as f64;
        let cells = [
            amount(started[0], "ms"),
            amount(started[1], "ms"),
            amount(started[2], "MB"),
            amount(disk_bytes as f64 / live, ""),
            amount(written as f64 / live, ""),
        ];
        rows.push((keys.to_string(), cells.to_vec()));
    }
    Ok(Curve {
        name: "disk",
        what: "A server with a disk, over the keys it holds: each written once",
        columns: vec![
            "keys",
            "start",
            "start after kill -9",
            "memory",
            "disk over records",
            "written over records",
        ],
        rows,
    })
}

fn idle(options: &Options) -> anyhow::Result<Curve> {
    let cluster = Cluster::start(3, options)?;
    let mut processes = vec![("gateway", cluster.gateway.process.id())];
    processes.extend(
        cluster
            .nodes
            .iter()
            .map(|node| ("server", node.process.id())),
    );
    let used = || -> anyhow::Result<Vec<f64>> {
        processes
            .iter()
            .map(|(_, process)| machine::cpu_seconds(*process))
            .collect()
    };
    thread::sleep(SETTLING);
    let before = used()?;
    thread::sleep(IDLE);
    let shares = used()?.into_iter().zip(before);
    let shares = shares.map(|(after, before)| (after - before) / IDLE.as_secs_f64() * 100.0);
    let rows = processes.iter().zip(shares);
    Ok(Curve {
        name: "idle",
        what: "Processor time of an idle cluster, in percent of a core",
        columns: vec!["process", "percent"],
        rows: rows
            .map(|((name, _), share)| ((*name).to_owned(), vec![amount(share, "")]))
            .collect(),
    })
}

//! The figures: which sides are measured, and what is made of them.

use std::net::SocketAddr;
use std::thread;

use crate::cluster::{self, Cluster, LARGE_BYTES, LARGE_KEY, SMALL};
use crate::contest::{Comparison, Goal, Metric, Rounds, Side, Spec, take_turns};
use crate::directory::Directory;
use crate::http::{self, Client};
use crate::load::{Load, Measured};
use crate::machine;
use crate::options::Options;
use crate::report::{Report, amount};
use crate::spread::Spread;
use crate::udp::Talk;
use crate::wire;

const AGREEMENT: &str = "?n=3&r=2&consistency=agreement";
pub const LINEARIZABLE: &str = "?n=3&r=2&consistency=linearizable";
const PUT_AGREEMENT: &str = "?n=3&w=2&consistency=agreement";
pub const PUT_LINEARIZABLE: &str = "?n=3&w=2&consistency=linearizable";

/// Connections that carry long values at a time.
const LARGE_CONNECTIONS: usize = 4;

pub const fn goal(reach: f64, then: f64) -> Option<Goal> {
    Some(Goal { reach, then })
}

pub const fn ratio(name: &'static str, what: &'static str, goal: Option<Goal>) -> Spec {
    Spec {
        name,
        what,
        metric: Metric::PerSecond,
        comparison: Comparison::RatioUp,
        goal,
    }
}

const GET_LINEARIZABLE: Spec = ratio(
    "get-linearizable",
    "GET n=3 r=2, linearizable, over the bare handler",
    goal(0.55, 0.75),
);
const GET_AGREEMENT: Spec = ratio(
    "get-agreement",
    "GET n=3 r=2, agreement, over the bare handler",
    None,
);
const GET_P99: Spec = Spec {
    metric: Metric::P99Us,
    comparison: Comparison::RatioDown,
    ..ratio(
        "get-p99",
        "p99 of GET over the bare handler's",
        goal(2.5, 1.5),
    )
};
const BATCH: Spec = ratio("batch", "gets in batches of 100 over gets alone", None);
const PUT_ONE_ROUND: Spec = ratio(
    "put-agreement",
    "PUT n=3 w=2, agreement, in memory, over the bare handler",
    goal(0.45, 0.65),
);
const PUT_TWO_ROUNDS: Spec = ratio(
    "put-linearizable",
    "PUT n=3 w=2, linearizable, in memory, over the bare handler",
    goal(0.28, 0.45),
);
const PUT_SYNCED: Spec = ratio(
    "put-synced",
    "PUT n=3 w=2, linearizable, synced to disk, over the same in memory",
    None,
);
const GET_STORED: Spec = ratio(
    "get-stored",
    "GET n=3 r=2, linearizable, of values on disk that are read again and again, over the same in memory",
    goal(0.97, 0.97),
);
const ONE_CONNECTION: Spec = Spec {
    metric: Metric::MedianUs,
    comparison: Comparison::Difference,
    ..ratio(
        "one-connection",
        "one connection: median of GET, less the bare handler's",
        goal(40.0, 25.0),
    )
};
const SERVER_V2: Spec = ratio(
    "server-v2",
    "one server, gets by DKVS/2 over raw echoes",
    goal(2.5, 4.0),
);
const SERVER_V1: Spec = ratio(
    "server-v1",
    "one server, gets by DKVS/1 over raw echoes",
    goal(0.8, 0.95),
);
const DEAD_SERVER: Spec = Spec {
    metric: Metric::P99Us,
    comparison: Comparison::RatioDown,
    ..ratio(
        "dead-server",
        "a server of five killed: p99 of GET over that with all alive",
        goal(1.5, 1.1),
    )
};
const LARGE_GET: Spec = Spec {
    metric: Metric::MegabytesPerSecond,
    ..ratio(
        "large-get",
        "GET of 1 MiB over plain HTTP/1.1",
        goal(0.4, 0.7),
    )
};
const LARGE_PUT: Spec = Spec {
    metric: Metric::MegabytesPerSecond,
    ..ratio(
        "large-put",
        "PUT of 1 MiB over plain HTTP/1.1",
        goal(0.4, 0.7),
    )
};

/// Measures every figure that is wanted.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let wants = |specs: &[Spec]| specs.iter().any(|spec| options.wants(spec.name));
    if wants(&[GET_LINEARIZABLE, GET_AGREEMENT, GET_P99]) {
        gets(options, report)?;
    }
    if wants(&[BATCH]) {
        batches(options, report)?;
    }
    if wants(&[PUT_ONE_ROUND, PUT_TWO_ROUNDS]) {
        puts(options, report)?;
    }
    if wants(&[PUT_SYNCED]) {
        synced_puts(options, report)?;
    }
    if wants(&[GET_STORED]) {
        stored_gets(options, report)?;
    }
    if wants(&[ONE_CONNECTION]) {
        one_connection(options, report)?;
    }
    if wants(&[SERVER_V2, SERVER_V1]) {
        server(options, report)?;
    }
    if wants(&[DEAD_SERVER]) {
        dead_server(options, report)?;
    }
    if wants(&[LARGE_GET, LARGE_PUT]) {
        large(options, report)?;
    }
    Ok(())
}

/// The load that the options ask for.
pub fn load<'a>(options: &Options, addr: SocketAddr, requests: &'a [Vec<u8>]) -> Load<'a> {
    Load {
        addr,
        requests,
        body_bytes_min: 1,
        connections: options.connections.into(),
        takes_refusals: false,
        warm_up: options.warm_up(),
        duration: options.duration(),
    }
}

/// Whether the gateway takes such a request; if it does not, why.
pub fn probe(addr: SocketAddr, request: &[u8]) -> anyhow::Result<Result<(), String>> {
    let status = Client::new(addr)?.ask(request)?.status;
    Ok(match status {
        200..300 => Ok(()),
        status => Err(format!("the gateway answers {status}")),
    })
}

fn gets(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (cluster, bare) = (Cluster::start(3, options)?, cluster::bare_handler()?);
    let requests = [
        cluster::gets(""),
        cluster::gets(AGREEMENT),
        cluster::gets(LINEARIZABLE),
    ];
    let [plain, agreement, linearizable] = &requests;
    let is_linearizable = probe(cluster.addr(), &linearizable[0])?;
    let side = |name, addr, requests| {
        let load = Load {
            body_bytes_min: SMALL.len() as u64,
            ..load(options, addr, requests)
        };
        Side::new(name, move || load.measure())
    };
    let mut sides = vec![
        side("bare handler", bare.addr, plain),
        side("gateway", cluster.addr(), agreement),
    ];
    if is_linearizable.is_ok() {
        sides.push(side("gateway", cluster.addr(), linearizable));
    }
    let before = Traffic::so_far(&cluster)?;
    let rounds = take_turns(options.rounds(), sides)?;
    let after = Traffic::so_far(&cluster)?;
    let [bare, gateway, ..] = &rounds[..] else {
        return Ok(());
    };
    match (rounds.get(2), is_linearizable) {
        (Some(gateway), _) => report.compare(&GET_LINEARIZABLE, gateway, bare)?,
        (None, is_linearizable) => {
            report.not_yet(&GET_LINEARIZABLE, is_linearizable.err().unwrap_or_default());
        }
    }
    report.compare(&GET_AGREEMENT, gateway, bare)?;
    report.compare(&GET_P99, rounds.get(2).unwrap_or(gateway), bare)?;
    report.note(after.since(&before));
    Ok(())
}

/// How many gets a batch has.
const BATCHED: usize = 100;

fn batches(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(3, options)?;
    let (alone, batch) = (cluster::gets(""), [cluster::batch_of_gets(BATCHED)]);
    let load = |requests, body_bytes_min| Load {
        body_bytes_min,
        ..load(options, cluster.addr(), requests)
    };
    let rounds = take_turns(
        options.rounds(),
        vec![
            Side::new("alone", || load(&alone, SMALL.len() as u64).measure()),
            Side::new("in batches", || {
                let mut measured = load(&batch, (BATCHED * SMALL.len()) as u64).measure()?;
                measured.requests *= BATCHED as u64;
                Ok(measured)
            }),
        ],
    )?;
    report.compare(&BATCH, &rounds[1], &rounds[0])
}

/// Messages and datagrams between gateway and servers.
struct Traffic {
    gets: u64,
    datagrams: u64,
}

impl Traffic {
    fn so_far(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut gets = 0;
        for node in &cluster.nodes {
            gets += wire::Client::new(node.addr)?.gets_answered()?;
        }
        let datagrams = machine::datagrams_arrived().unwrap_or(0);
        Ok(Self { gets, datagrams })
    }

    /// How many messages there were to a datagram. The system counts datagrams for the whole
    /// machine, so whatever else talks over UDP makes it less.
    fn since(&self, before: &Self) -> String {
        let datagrams = self.datagrams.saturating_sub(before.datagrams);
        if datagrams == 0 {
            return "messages a datagram: the system does not count datagrams".to_owned();
        }
        // A request and its reply are a message each.
        let messages = 2 * self.gets.saturating_sub(before.gets);
        let each = messages as f64 / datagrams as f64;
        format!(
            "GET: {} messages a datagram, both ways together",
            amount(each, "")
        )
    }
}

/// The keys are few beside the puts, so old rows are being cleaned nearly all the time.
fn synced_puts(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let rounds = memory_and_disk(options, &cluster::puts(PUT_LINEARIZABLE))?;
    report.compare(&PUT_SYNCED, &rounds[1], &rounds[0])?;
    let p99 = |rounds: &Rounds| {
        let measured = rounds.measured.iter();
        let values: Vec<f64> = measured
            .map(|one| one.latency.percentile_us(0.99))
            .collect();
        Spread::of(&values).map_or(f64::NAN, |spread| spread.median)
    };
    report.note(format!(
        "PUT: p99 {} in memory, {} synced, while old records are cleaned",
        amount(p99(&rounds[0]), "us"),
        amount(p99(&rounds[1]), "us")
    ));
    Ok(())
}

/// The values are few, so all of them are in the memory of whoever keeps what was read.
fn stored_gets(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let rounds = memory_and_disk(options, &cluster::gets(LINEARIZABLE))?;
    report.compare(&GET_STORED, &rounds[1], &rounds[0])
}

/// The same requests to servers that have everything in memory, and to servers with disks.
fn memory_and_disk(options: &Options, requests: &[Vec<u8>]) -> anyhow::Result<Vec<Rounds>> {
    let directory = Directory::new("disk")?;
    let memory = Cluster::start(3, options)?;
    let disk = Cluster::start_on_disk(3, options, &directory.0)?;
    disk.fill("")?;
    let side = |name, addr| {
        let load = load(options, addr, requests);
        Side::new(name, move || load.measure())
    };
    let sides = vec![
        side("in memory", memory.addr()),
        side("on disk", disk.addr()),
    ];
    take_turns(options.rounds(), sides)
}

fn puts(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (cluster, bare) = (Cluster::start(3, options)?, cluster::bare_handler()?);
    let requests = [
        cluster::puts(""),
        cluster::puts(PUT_AGREEMENT),
        cluster::puts(PUT_LINEARIZABLE),
    ];
    let [plain, agreement, linearizable] = &requests;
    let is_linearizable = probe(cluster.addr(), &linearizable[0])?;
    let side = |name, addr, requests| {
        let load = load(options, addr, requests);
        Side::new(name, move || load.measure())
    };
    let mut sides = vec![
        side("bare handler", bare.addr, plain),
        side("gateway", cluster.addr(), agreement),
    ];
    if is_linearizable.is_ok() {
        sides.push(side("gateway", cluster.addr(), linearizable));
    }
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(&PUT_ONE_ROUND, &rounds[1], &rounds[0])?;
    match (rounds.get(2), is_linearizable) {
        (Some(gateway), _) => report.compare(&PUT_TWO_ROUNDS, gateway, &rounds[0])?,
        (None, is_linearizable) => {
            report.not_yet(&PUT_TWO_ROUNDS, is_linearizable.err().unwrap_or_default());
        }
    }
    Ok(())
}

fn one_connection(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (cluster, bare) = (Cluster::start(3, options)?, cluster::bare_handler()?);
    let requests = cluster::gets("?n=3&r=2");
    let side = |name, addr| {
        let load = Load {
            connections: 1,
            ..load(options, addr, &requests)
        };
        Side::new(name, move || load.measure())
    };
    let sides = vec![
        side("bare handler", bare.addr),
        side("gateway", cluster.addr()),
    ];
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(&ONE_CONNECTION, &rounds[1], &rounds[0])
}

/// A server that holds every key, which was asked for each of them.
pub fn filled_node(options: &Options) -> anyhow::Result<dkvs_tests::process::Node> {
    let node = cluster::node(options)?;
    let client = wire::Client::new(node.addr)?;
    client.fill(cluster::KEYS)?;
    client.check()?;
    Ok(node)
}

/// A side that is talked to.
pub fn talking<'a>(name: &'static str, talk: Talk<'a>, options: &Options) -> Side<'a> {
    let (warm_up, duration) = (options.warm_up(), options.duration());
    Side::new(name, move || talk.measure(warm_up, duration))
}

fn server(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (node, echo) = (filled_node(options)?, cluster::udp_echo()?);
    let echoes = [SMALL.as_bytes().to_vec()];
    let gets_v1 = wire::gets_v1();
    let (gets_v2, each) = wire::gets_v2()?;
    let echoed = |datagram: &[u8]| (datagram == SMALL.as_bytes()).then_some(1);
    let raw = Talk {
        server: echo.addr,
        datagrams: &echoes,
        answers_per_datagram: 1,
        answers: &echoed,
    };
    let v1 = Talk {
        server: node.addr,
        datagrams: &gets_v1,
        answers_per_datagram: 1,
        answers: &wire::answers_v1,
    };
    let v2 = Talk {
        server: node.addr,
        datagrams: &gets_v2,
        answers_per_datagram: each,
        answers: &wire::answers_v2,
    };
    let sides = vec![
        talking("raw echo", raw, options),
        talking("server", v1, options),
        talking("server", v2, options),
    ];
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(&SERVER_V2, &rounds[2], &rounds[0])?;
    report.compare(&SERVER_V1, &rounds[1], &rounds[0])
}

/// Each side has a cluster of its own in every round: the dead stay dead.
fn dead_server(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let requests = cluster::gets("?n=3&r=2");
    let alive = || {
        let cluster = Cluster::start(5, options)?;
        load(options, cluster.addr(), &requests).measure()
    };
    let killed = || {
        let mut cluster = Cluster::start(5, options)?;
        let load = load(options, cluster.addr(), &requests);
        measure_while_one_dies(&load, &mut cluster, options)
    };
    let sides = vec![
        Side::new("all alive", alive),
        Side::new("one killed", killed),
    ];
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(&DEAD_SERVER, &rounds[1], &rounds[0])
}

/// Kills one server when a quarter of the time that counts is over.
fn measure_while_one_dies(
    load: &Load<'_>,
    cluster: &mut Cluster,
    options: &Options,
) -> anyhow::Result<Measured> {
    thread::scope(|scope| {
        let measured = scope.spawn(|| load.measure());
        thread::sleep(options.warm_up() + options.duration() / 4);
        cluster.nodes[0].process.kill();
        measured
            .join()
            .unwrap_or_else(|_| anyhow::bail!("the load panicked"))
    })
}

fn large(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (cluster, bare) = (Cluster::start(3, options)?, cluster::bare_handler()?);
    let value = vec![b'v'; LARGE_BYTES];
    let put = |path: &str| vec![http::with_body("PUT", path, &value)];
    let (our_put, bare_put) = (put(&format!("/kv/{LARGE_KEY}")), put("/large"));
    if let Err(why) = probe(cluster.addr(), &our_put[0])? {
        report.not_yet(&LARGE_GET, why.clone());
        report.not_yet(&LARGE_PUT, why);
        return Ok(());
    }
    let our_get = vec![http::get(&format!("/kv/{LARGE_KEY}?raw=true"))];
    let bare_get = vec![http::get("/large")];
    let side = |name, addr, requests, body_bytes_min| {
        let load = Load {
            connections: LARGE_CONNECTIONS,
            body_bytes_min,
            ..load(options, addr, requests)
        };
        Side::new(name, move || load.measure())
    };
    let sides = vec![
        side("plain GET", bare.addr, &bare_get, LARGE_BYTES as u64),
        side("gateway GET", cluster.addr(), &our_get, LARGE_BYTES as u64),
        side("plain PUT", bare.addr, &bare_put, 1),
        side("gateway PUT", cluster.addr(), &our_put, 1),
    ];
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(&LARGE_GET, &rounds[1], &rounds[0])?;
    report.compare(&LARGE_PUT, &rounds[3], &rounds[2])
}

/// The middle of some rounds' requests in a second.
pub fn rate(rounds: &Rounds) -> f64 {
    let rates: Vec<f64> = rounds.measured.iter().map(Measured::per_second).collect();
    Spread::of(&rates).map_or(0.0, |spread| spread.median)
}

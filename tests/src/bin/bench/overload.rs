//! More than the gateway can serve: how much it serves nevertheless, how soon it refuses the rest,
//! and how soon all is as before. And connections that hold it up.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::cluster::{self, Cluster};
use crate::contest::{Comparison, Metric, Rounds, Spec};
use crate::figures::{self, goal, ratio};
use crate::load::{Load, Measured};
use crate::options::Options;
use crate::report::{Report, amount};
use crate::spread::Spread;

/// Requests that the gateway takes at a time.
const IN_FLIGHT: usize = 64;

/// How many times as many callers there are as it takes, each of which asks again as soon as it is
/// answered.
const TIMES: usize = 5;

/// How long after the overload all has to be as before.
const REST: Duration = Duration::from_secs(5);

const SLOW_CONNECTIONS: usize = 10_000;

const GOODPUT: Spec = ratio(
    "overload",
    "requests served with five times as many callers as the gateway takes, over the most it serves",
    goal(0.8, 0.95),
);
const AFTERWARDS: Spec = Spec {
    metric: Metric::P99Us,
    comparison: Comparison::RatioDown,
    ..ratio(
        "overload-afterwards",
        "p99 five seconds after that over p99 before it",
        goal(1.25, 1.1),
    )
};
const SLOW: Spec = Spec {
    metric: Metric::P99Us,
    comparison: Comparison::RatioDown,
    ..ratio(
        "slow-connections",
        "p99 beside 10,000 connections that send a byte a second, over p99 without them",
        goal(2.0, 1.2),
    )
};

/// Measures what is wanted of it.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if options.wants(GOODPUT.name) || options.wants(AFTERWARDS.name) {
        overload(options, report)?;
    }
    if options.wants(SLOW.name) {
        slow_connections(options, report)?;
    }
    Ok(())
}

fn overload(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get());
    let per_worker = (IN_FLIGHT / workers).to_string();
    let cluster = Cluster::start_with(3, options, &["--max-in-flight", &per_worker])?;
    let requests = cluster::gets("");
    let load = |connections, takes_refusals| Load {
        connections,
        takes_refusals,
        ..figures::load(options, cluster.addr(), &requests)
    };
    let side = |name| Rounds {
        name,
        measured: Vec::new(),
    };
    // Half of the limit, since connections are not spread evenly over the workers.
    let fitting = IN_FLIGHT / 2;
    let mut best = side("at its best");
    let mut over = side("overloaded");
    let mut after = side("afterwards");
    for round in 0..options.rounds() {
        best.measured.push(load(fitting, false).measure()?);
        over.measured.push(load(TIMES * IN_FLIGHT, true).measure()?);
        thread::sleep(REST);
        after.measured.push(load(fitting, false).measure()?);
        let rate = |side: &Rounds| side.measured.last().map_or(0.0, Measured::per_second);
        eprintln!(
            "round {}: {:.0} /s, overloaded {:.0} /s, afterwards {:.0} /s",
            round + 1,
            rate(&best),
            rate(&over),
            rate(&after)
        );
    }
    report.compare(&GOODPUT, &over, &best)?;
    report.compare(&AFTERWARDS, &after, &best)?;
    let of_refusals = |value: fn(&Measured) -> f64| {
        let values: Vec<f64> = over.measured.iter().map(value).collect();
        Spread::of(&values).map_or(f64::NAN, |spread| spread.median)
    };
    report.note(format!(
        "overload: {} refusals, their median {}",
        amount(
            of_refusals(|one| one.refused.count() as f64 / one.seconds),
            "/s"
        ),
        amount(of_refusals(|one| one.refused.percentile_us(0.5)), "us")
    ));
    Ok(())
}

fn slow_connections(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    raise_the_limit_on_open_files(SLOW_CONNECTIONS as u64 + 1_024)?;
    let cluster = Cluster::start_with(3, options, &["--max-connections", "16384"])?;
    let requests = cluster::gets("");
    let load = || figures::load(options, cluster.addr(), &requests).measure();
    let mut without = Rounds {
        name: "without",
        measured: Vec::new(),
    };
    let mut beside = Rounds {
        name: "beside them",
        measured: Vec::new(),
    };
    for _ in 0..options.rounds() {
        without.measured.push(load()?);
        let slow = Slow::open(cluster.addr())?;
        beside.measured.push(thread::scope(|scope| {
            let trickle = scope.spawn(|| slow.trickle(options.warm_up() + options.duration()));
            let measured = load();
            let _ = trickle.join();
            measured
        })?);
    }
    report.compare(&SLOW, &beside, &without)
}

/// Connections on which a request arrives a byte at a time, and never whole.
struct Slow(Vec<TcpStream>);

impl Slow {
    fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let open = |number| {
            let mut stream = TcpStream::connect(addr)
                .with_context(|| format!("opening slow connection {number}"))?;
            stream.write_all(b"GET /kv/k HTTP/1.1\r\nhost: localhost\r\nx: ")?;
            anyhow::Ok(stream)
        };
        let streams = (0..SLOW_CONNECTIONS).map(open);
        Ok(Self(streams.collect::<Result<_, _>>()?))
    }

    /// A byte on each every second. The gateway may close any of them.
    fn trickle(&self, duration: Duration) {
        let end = Instant::now() + duration;
        let pause = Duration::from_secs(1) / 10;
        while Instant::now() < end {
            for tenth in self.0.chunks(self.0.len().div_ceil(10)) {
                for mut stream in tenth {
                    let _ = stream.write_all(b"y");
                }
                thread::sleep(pause);
            }
        }
    }
}

fn raise_the_limit_on_open_files(wanted: u64) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit on open files")?;
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    anyhow::ensure!(
        allowed >= wanted,
        "this process may open {allowed} files, and needs {wanted}: raise the limit (ulimit -Hn)"
    );
    Ok(())
}

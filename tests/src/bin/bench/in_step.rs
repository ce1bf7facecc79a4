//! What it costs servers that hold the same to see that they do, while nobody asks them for anything.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dkvs_common::epoch::Epoch;
use dkvs_common::model::Statistic;
use dkvs_tests::process::Node;
use dkvs_tests::proxy::Proxy;
use dkvs_tests::replicas::Replicas;

use crate::cluster;
use crate::machine;
use crate::options::Options;
use crate::report::{Curve, Report, amount};
use crate::wire::Client;

const NAME: &str = "repair-idle";

const SERVERS: usize = 3;
const KEYS: usize = 1_000_000;

/// How many keys each server gets before the next gets them: so few that none pulls from another for long.
const KEYS_AT_A_TIME: usize = 10_000;

/// How long they are watched: twice as long as from one comparison to the next.
const WATCHED: Duration = Duration::from_secs(120);

/// How long they may take until they have seen that they hold the same.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often it is looked whether they have.
const GLANCE: Duration = Duration::from_millis(100);

/// What the network adds to a datagram: the heads of IPv4 and UDP.
const HEAD_BYTES: u64 = 28;

/// Measures it if it is wanted.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if options.storage && options.wants(NAME) {
        report.curve(idle(options).with_context(|| format!("the table {NAME}"))?);
    }
    Ok(())
}

fn idle(options: &Options) -> anyhow::Result<Curve> {
    let (keys, watched) = match options.quick {
        true => (KEYS / 20, WATCHED / 20),
        false => (KEYS, WATCHED),
    };
    // They reach each other through a proxy that counts, and are filled and asked past it.
    let addrs = (0..SERVERS).map(|_| cluster::node_addr());
    let addrs = addrs.collect::<anyhow::Result<Vec<SocketAddr>>>()?;
    let proxy = Proxy::before(&addrs, 1);
    let file = cluster::servers_file(proxy.addrs());
    let node = |(addr, known): (&SocketAddr, &SocketAddr)| {
        let bind = addr.to_string();
        cluster::node_with(
            *known,
            options,
            &["--bind", &bind, "--servers", file.path()],
            None,
        )
    };
    let nodes = addrs.iter().zip(proxy.addrs()).map(node);
    let nodes = nodes.collect::<anyhow::Result<Vec<Node>>>()?;
    let replicas = Replicas::new(&file, addrs.clone());
    fill(&addrs, replicas.epoch(), keys)?;
    until_in_step(&replicas)?;

    let cpu = || -> anyhow::Result<Vec<f64>> {
        let processes = nodes.iter().map(|node| node.process.id());
        processes.map(machine::cpu_seconds).collect()
    };
    let sent = || proxy.bytes() + proxy.counts().passed * HEAD_BYTES;
    let (cpu_before, sent_before, begun) = (cpu()?, sent(), Instant::now());
    thread::sleep(watched);
    let seconds = begun.elapsed().as_secs_f64();
    let kilobytes = (sent() - sent_before) as f64 / 1_000.0 / seconds;
    let shares = cpu()?.into_iter().zip(cpu_before);
    let shares = shares.map(|(after, before)| (after - before) / seconds * 100.0);
    let most = shares.fold(0.0, f64::max);
    let row = |what: &str, cell: String| (what.to_owned(), vec![cell]);
    Ok(Curve {
        name: NAME,
        what: "Three servers that hold the same, with nothing to do",
        columns: vec!["what", "figure"],
        rows: vec![
            row("keys", keys.to_string()),
            row("watched for", amount(seconds, "s")),
            row(
                "the server that takes most of a core, in percent of it",
                amount(most, "%"),
            ),
            row(
                "what all servers send each other a second, heads of IPv4 and UDP included",
                amount(kilobytes, "kB"),
            ),
        ],
    })
}

/// Stores the keys at all servers.
fn fill(addrs: &[SocketAddr], epoch: Epoch, keys: usize) -> anyhow::Result<()> {
    let client = |addr: &SocketAddr| anyhow::Ok(Client::new(*addr)?.of_epoch(epoch));
    let clients = addrs
        .iter()
        .map(client)
        .collect::<anyhow::Result<Vec<_>>>()?;
    for first in (0..keys).step_by(KEYS_AT_A_TIME) {
        for client in &clients {
            client.fill_with(first..keys.min(first + KEYS_AT_A_TIME), 1)?;
        }
    }
    Ok(())
}

/// Waits until each server has compared itself with all others since this began, and nothing differed.
fn until_in_step(replicas: &Replicas) -> anyhow::Result<()> {
    let peers = SERVERS as u64 - 1;
    let begun = Instant::now();
    let compared = |server| replicas.statistic(server, Statistic::Comparisons);
    let before: Vec<u64> = (0..SERVERS).map(compared).collect();
    for (server, before) in before.into_iter().enumerate() {
        while compared(server) < before + peers
            || replicas.statistic(server, Statistic::PeersInStep) < peers
        {
            ensure!(
                begun.elapsed() < PATIENCE,
                "the servers do not come into step"
            );
            thread::sleep(GLANCE);
        }
    }
    Ok(())
}

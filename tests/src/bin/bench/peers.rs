//! What else is installed on this machine, measured beside ours.
//!
//! Nothing is needed of it: what is not in the search path is said to be missing. A peer runs on
//! free ports of the loopback, in a directory that goes with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dkvs_tests::process::Process;
use serde_json::json;

use crate::cluster::{self, Cluster, KEYS, SMALL, key};
use crate::contest::{Comparison, Goal, Metric, Side, Spec, take_turns};
use crate::directory::Directory;
use crate::figures::{filled_node, load, talking};
use crate::http::{self, Client};
use crate::options::Options;
use crate::report::Report;
use crate::role::Role;
use crate::udp::Talk;
use crate::wire;

/// How long a peer may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// What memcached wants before each request over UDP: its number, which of how many datagrams it
/// is, and two bytes for later.
const FRAME: [u8; 8] = [0, 1, 0, 0, 0, 1, 0, 0];

const fn over(name: &'static str, what: &'static str, goal: Option<Goal>) -> Spec {
    Spec {
        name,
        what,
        metric: Metric::PerSecond,
        comparison: Comparison::RatioUp,
        goal,
    }
}

const MEMCACHED: Spec = over(
    "peer-memcached",
    "one server, gets by DKVS/1 over memcached's by UDP",
    None,
);
const WEBDIS: Spec = over(
    "peer-webdis",
    "GET n=3 r=2 over webdis and one redis",
    Some(Goal {
        reach: 1.1,
        then: 1.5,
    }),
);
const ETCD: Spec = over(
    "peer-etcd",
    "PUT n=3 w=2, linearizable, synced to disk, over a put of three etcd members, synced as well",
    Some(Goal {
        reach: 4.0,
        then: 8.0,
    }),
);
const NGINX: Spec = over(
    "peer-nginx",
    "GET n=3 r=2 over a fixed reply of nginx",
    None,
);

type Measure = fn(&[PathBuf], &Options, &mut Report) -> anyhow::Result<()>;

/// Measures every peer that is wanted and found.
pub fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let peers: [(Spec, &[&str], Measure); 4] = [
        (MEMCACHED, &["memcached"], memcached),
        (WEBDIS, &["redis-server", "webdis"], webdis),
        (ETCD, &["etcd"], etcd),
        (NGINX, &["nginx"], nginx),
    ];
    for (spec, programs, measure) in peers {
        if !options.wants(spec.name) {
            continue;
        }
        let found: Vec<_> = programs
            .iter()
            .filter_map(|program| find(program))
            .collect();
        if found.len() < programs.len() {
            report.not_yet(&spec, format!("{} not found", programs.join(" and ")));
            continue;
        }
        // A peer that does not start is no fault of ours, and stops nothing.
        if let Err(error) = measure(&found, options, report) {
            report.not_yet(
                &spec,
                format!("{} failed: {error:#}", programs.join(" and ")),
            );
        }
    }
    Ok(())
}

/// A program in the search path.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(program));
    candidates.find(|candidate| candidate.is_file())
}

/// A port that was free a moment ago; for a program that does not take port 0.
fn free_addr() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Starts a peer and waits until it takes connections.
fn start(program: &Path, arguments: &[&str], addr: SocketAddr) -> anyhow::Result<Process> {
    let mut process = spawn(program, arguments)?;
    wait_for(&mut process, addr)?;
    Ok(process)
}

fn spawn(program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Role::Other.command()?;
    command.arg(program).args(arguments);
    Ok(Process::spawn(command))
}

fn wait_for(process: &mut Process, addr: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(addr).is_err() {
        ensure!(
            process.is_running(),
            "it ended: {:?}",
            process.rest_of_stderr()
        );
        ensure!(begun.elapsed() < PATIENCE, "it takes no connection");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// GET by the gateway beside requests to a peer.
fn beside_get(
    spec: &Spec,
    name: &'static str,
    (addr, requests): (SocketAddr, &[Vec<u8>]),
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let cluster = Cluster::start(3, options)?;
    let gets = cluster::gets("?n=3&r=2");
    beside(
        spec,
        (name, addr, requests),
        (cluster.addr(), &gets),
        options,
        report,
    )
}

fn beside(
    spec: &Spec,
    (name, addr, requests): (&'static str, SocketAddr, &[Vec<u8>]),
    (our_addr, our_requests): (SocketAddr, &[Vec<u8>]),
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let side = |name, addr, requests| {
        let load = load(options, addr, requests);
        Side::new(name, move || load.measure())
    };
    let sides = vec![
        side(name, addr, requests),
        side("gateway", our_addr, our_requests),
    ];
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(spec, &rounds[1], &rounds[0])
}

fn memcached(found: &[PathBuf], options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let addr = free_addr()?;
    let port = addr.port().to_string();
    let mut arguments = vec!["-l", "127.0.0.1", "-p", &port, "-U", &port, "-t", "1"];
    if rustix::process::geteuid().is_root() {
        arguments.extend(["-u", "root"]);
    }
    let _peer = start(&found[0], &arguments, addr)?;
    let framed = |text: String| [&FRAME[..], text.as_bytes()].concat();
    let value_bytes = SMALL.len();
    let sets: Vec<_> = (0..KEYS)
        .map(|n| framed(format!("set {} 0 0 {value_bytes}\r\n{SMALL}\r\n", key(n))))
        .collect();
    let gets: Vec<_> = (0..KEYS)
        .map(|n| framed(format!("get {}\r\n", key(n))))
        .collect();
    let talk = |datagrams, answers| Talk {
        server: addr,
        datagrams,
        answers_per_datagram: 1,
        answers,
    };
    let stored = |datagram: &[u8]| datagram.ends_with(b"STORED\r\n").then_some(1);
    let value = |datagram: &[u8]| (datagram.len() > value_bytes + FRAME.len()).then_some(1);
    // Long enough for each key to be set many times over.
    talk(&sets, &stored).measure(Duration::ZERO, Duration::from_secs(2))?;
    let node = filled_node(options)?;
    let our_gets = wire::gets_v1();
    let ours = Talk {
        server: node.addr,
        ..talk(&our_gets, &wire::answers_v1)
    };
    let theirs = talk(&gets, &value);
    let sides = vec![
        talking("memcached", theirs, options),
        talking("server", ours, options),
    ];
    let rounds = take_turns(options.rounds(), sides)?;
    report.compare(&MEMCACHED, &rounds[1], &rounds[0])
}

fn webdis(found: &[PathBuf], options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (redis, addr) = (free_addr()?, free_addr()?);
    let directory = Directory::new("webdis")?;
    let port = redis.port().to_string();
    let arguments = [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let _redis = start(&found[0], &arguments, redis)?;
    let settings = json!({
        "redis_host": "127.0.0.1",
        "redis_port": redis.port(),
        "http_host": "127.0.0.1",
        "http_port": addr.port(),
        "threads": 2,
        "daemonize": false,
        "verbosity": 0,
        "logfile": "/dev/null",
        "acl": [{"enabled": ["*"]}],
    });
    let settings = directory.file("webdis.json", &settings.to_string())?;
    let _webdis = start(&found[1], &[&settings.to_string_lossy()], addr)?;
    let mut client = Client::new(addr)?;
    for number in 0..KEYS {
        let path = format!("/SET/{}", key(number));
        client.demand(&http::with_body("PUT", &path, SMALL.as_bytes()))?;
    }
    let gets: Vec<_> = (0..KEYS)
        .map(|n| http::get(&format!("/GET/{}", key(n))))
        .collect();
    beside_get(&WEBDIS, "webdis", (addr, &gets), options, report)
}

fn etcd(found: &[PathBuf], options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let directory = Directory::new("etcd")?;
    let addrs = (0..6)
        .map(|_| free_addr())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (clients, peers) = addrs.split_at(3);
    let url = |addr: &SocketAddr| format!("http://{addr}");
    let members = peers
        .iter()
        .enumerate()
        .map(|(at, addr)| format!("m{at}={}", url(addr)));
    let members = members.collect::<Vec<_>>().join(",");
    let mut processes = Vec::new();
    for at in 0..3 {
        let (client, peer) = (url(&clients[at]), url(&peers[at]));
        let data = directory.0.join(at.to_string());
        let arguments = [
            ("--name", &*format!("m{at}")),
            ("--data-dir", &*data.to_string_lossy()),
            ("--listen-client-urls", &*client),
            ("--advertise-client-urls", &*client),
            ("--listen-peer-urls", &*peer),
            ("--initial-advertise-peer-urls", &*peer),
            ("--initial-cluster", &*members),
            ("--log-level", "error"),
        ];
        let arguments: Vec<&str> = arguments.iter().flat_map(|(a, b)| [*a, *b]).collect();
        processes.push(spawn(&found[0], &arguments)?);
    }
    for (process, addr) in processes.iter_mut().zip(clients) {
        wait_for(process, *addr)?;
    }
    let put = |number| {
        let (key, value) = (STANDARD.encode(key(number)), STANDARD.encode(SMALL));
        let body = json!({"key": key, "value": value}).to_string();
        http::with_body("POST", "/v3/kv/put", body.as_bytes())
    };
    let puts: Vec<_> = (0..KEYS).map(put).collect();
    let begun = Instant::now();
    while let Err(error) = Client::new(clients[0])?.demand(&puts[0]) {
        ensure!(begun.elapsed() < PATIENCE, "it stores nothing: {error:#}");
        thread::sleep(Duration::from_millis(100));
    }
    let cluster = Cluster::start_on_disk(3, options, &directory.0.join("ours"))?;
    let our_puts = cluster::puts("?n=3&w=2&consistency=linearizable");
    let (theirs, ours) = (
        ("etcd", clients[0], &puts[..]),
        (cluster.addr(), &our_puts[..]),
    );
    beside(&ETCD, theirs, ours, options, report)
}

fn nginx(found: &[PathBuf], options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let directory = Directory::new("nginx")?;
    let addr = free_addr()?;
    let settings = format!(
        "daemon off; worker_processes auto; pid nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000;\n\
         server {{ listen {addr} reuseport; location / {{ return 200 \"{SMALL}\"; }} }} }}\n"
    );
    let settings = directory.file("nginx.conf", &settings)?;
    let prefix = directory.0.to_string_lossy();
    let arguments = ["-p", &*prefix, "-c", &*settings.to_string_lossy()];
    let _nginx = start(&found[0], &arguments, addr)?;
    beside_get(&NGINX, "nginx", (addr, &[http::get("/")]), options, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_the_search_path_or_not() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(find("no-program-has-this-name"), None);
    }
}

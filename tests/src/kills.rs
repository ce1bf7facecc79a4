//! Servers with disks, killed at random moments under load, again and again; and what was
//! confirmed, read back.
//!
//! Each writer has keys of its own and writes growing numbers, so what a read may see follows
//! from the replies to that one writer: no less than the last number that was confirmed, no more
//! than the last that was tried.

use std::fmt;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use crate::process::{Node, Programs, ServersFile, own_loopback};
use crate::random::Random;

const SERVERS: usize = 5;
const WRITERS: u64 = 8;
const KEYS_PER_WRITER: u64 = 4;

/// How long a write may take; a replica may be down for longer.
const TIMEOUT_MS: u64 = 2_000;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub seed: u64,
    /// How many times a server is killed and started again.
    pub kills: usize,
}

/// Its result.
#[derive(Debug, Clone)]
pub struct Finished {
    pub seed: u64,
    pub kills: usize,
    pub confirmed: u64,
    pub unknown: u64,
    pub reads: u64,
    pub elapsed: Duration,
    /// What was read and should not have been, if anything was.
    pub wrong: Vec<String>,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            kills,
            confirmed,
            unknown,
            reads,
            elapsed,
            wrong,
        } = self;
        write!(
            f,
            "seed {seed}: {kills} kills in {:.1} s, {confirmed} writes confirmed, {unknown} of \
             unknown outcome, {reads} reads, {} wrong",
            elapsed.as_secs_f64(),
            wrong.len()
        )
    }
}

/// A key, as its writer knows it.
#[derive(Debug, Clone)]
struct Written {
    name: String,
    confirmed: u64,
    tried: u64,
}

#[derive(Default)]
struct Counts {
    confirmed: u64,
    unknown: u64,
    reads: u64,
    wrong: Vec<String>,
}

impl Scenario {
    /// Runs it to its end.
    pub fn run(self, programs: Programs) -> Finished {
        let begun = Instant::now();
        let mut random = Random::of(self.seed, "kills");
        let directory = Directory::new(self.seed);
        let mut servers: Vec<Server> = (0..SERVERS)
            .map(|number| Server::start(programs, directory.0.join(number.to_string())))
            .collect();
        let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr).collect();
        let file = ServersFile::new(&addrs);
        let processes = [0, 1].map(|_| programs.gateway_over(&file, &["--workers", "1"]));
        let gateways = [0, 1].map(|number: usize| processes[number].addr);

        let is_over = AtomicBool::new(false);
        let (written, mut counts) = thread::scope(|scope| {
            let writing = scope.spawn(|| write_until(&is_over, &gateways, self.seed));
            let ending = Ending(&is_over);
            for _ in 0..self.kills {
                thread::sleep(Duration::from_micros(random.number() % 60_000));
                // Two at a time now and then: then some writes cannot be confirmed for a while.
                let first = random.below(SERVERS);
                let also = (random.below(8) == 0).then(|| random.below(SERVERS));
                servers[first].kill();
                if let Some(also) = also {
                    servers[also].kill();
                }
                thread::sleep(Duration::from_micros(random.number() % 30_000));
                servers[first].start_again();
                if let Some(also) = also {
                    servers[also].start_again();
                }
            }
            drop(ending);
            writing.join().expect("the writers have panicked")
        });
        let read_back = runtime().block_on(read_all(&gateways, &written));
        counts.reads += read_back.reads;
        counts.wrong.extend(read_back.wrong);
        Finished {
            seed: self.seed,
            kills: servers.iter().map(|server| server.kills).sum(),
            confirmed: counts.confirmed,
            unknown: counts.unknown,
            reads: counts.reads,
            elapsed: begun.elapsed(),
            wrong: counts.wrong,
        }
    }
}

/// Says that it is over when it goes, which also a panic makes it do.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory that goes with its value.
struct Directory(PathBuf);

impl Directory {
    fn new(seed: u64) -> Self {
        let name = format!("dkvs-kills-{}-{seed}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary directory takes a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that comes back where it was, with what it had.
struct Server {
    programs: Programs,
    addr: SocketAddr,
    directory: PathBuf,
    node: Node,
    kills: usize,
}

impl Server {
    fn start(programs: Programs, directory: PathBuf) -> Self {
        // The address is ours alone, so the port stays free.
        let socket = UdpSocket::bind((own_loopback(), 0)).expect("a port of our own address");
        let addr = socket.local_addr().expect("a bound socket has one");
        drop(socket);
        let node = start(programs, addr, &directory, &["--declare", "new"]);
        Self {
            programs,
            addr,
            directory,
            node,
            kills: 0,
        }
    }

    fn kill(&mut self) {
        if self.node.process.is_running() {
            self.node.process.kill();
            self.kills += 1;
        }
    }

    fn start_again(&mut self) {
        if !self.node.process.is_running() {
            self.node = start(self.programs, self.addr, &self.directory, &[]);
        }
    }
}

fn start(programs: Programs, addr: SocketAddr, directory: &Path, more: &[&str]) -> Node {
    let directory = directory.to_str().expect("a path with a plain name");
    let arguments = ["--workers", "1", "--data-dir", directory];
    programs.node_at(addr, &[&arguments, more].concat())
}

fn write_until(is_over: &AtomicBool, gateways: &[SocketAddr], seed: u64) -> (Vec<Written>, Counts) {
    // One thread each, so that one writer's requests never wait for another's replies.
    let results: Vec<(Vec<Written>, Counts)> = thread::scope(|scope| {
        let writer = |number| move || runtime().block_on(write(is_over, gateways, seed, number));
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(writer(number)))
            .collect();
        let written = writers.into_iter().map(|writer| writer.join());
        written
            .map(|written| written.expect("a writer has panicked"))
            .collect()
    });
    {
        let (mut all, mut sum) = (Vec::new(), Counts::default());
        for (written, counts) in results {
            all.extend(written);
            sum.confirmed += counts.confirmed;
            sum.unknown += counts.unknown;
            sum.reads += counts.reads;
            sum.wrong.extend(counts.wrong);
        }
        (all, sum)
    }
}

async fn write(
    is_over: &AtomicBool,
    gateways: &[SocketAddr],
    seed: u64,
    number: u64,
) -> (Vec<Written>, Counts) {
    let mut random = Random::of(seed, &format!("writer {number}"));
    let key = |key| Written {
        name: format!("w{number}k{key}"),
        confirmed: 0,
        tried: 0,
    };
    let mut keys: Vec<Written> = (0..KEYS_PER_WRITER).map(key).collect();
    let mut counts = Counts::default();
    let client = client();
    while !is_over.load(Ordering::Relaxed) {
        let key = &mut keys[random.below(KEYS_PER_WRITER as usize)];
        let gateway = &gateways[random.below(gateways.len())];
        let url = format!("http://{gateway}/kv/{}?timeout_ms={TIMEOUT_MS}", key.name);
        if random.below(4) == 0 {
            match read(&client, &url).await {
                Some(seen) => counts.look_at(key, seen),
                // Too few replicas for the moment.
                None => continue,
            }
        } else {
            key.tried += 1;
            // Some of several blocks, so that uploads are cut short too.
            let padding = random.one_of(&[0, 0, 0, 100, 5_000]);
            let value = format!("{}:{}", key.tried, "x".repeat(padding));
            let sent = client.put(&url).body(value).send().await;
            match sent.map(|reply| reply.status().is_success()) {
                Ok(true) => {
                    key.confirmed = key.tried;
                    counts.confirmed += 1;
                }
                _ => counts.unknown += 1,
            }
        }
    }
    (keys, counts)
}

impl Counts {
    fn look_at(&mut self, key: &Written, seen: u64) {
        self.reads += 1;
        if !(key.confirmed..=key.tried).contains(&seen) {
            let Written {
                name,
                confirmed,
                tried,
            } = key;
            self.wrong.push(format!(
                "{name}: {confirmed} was confirmed and {tried} tried, and {seen} was read"
            ));
        }
    }
}

/// The number that a key has; 0 if it has none. None if that is not known now.
async fn read(client: &Client, url: &str) -> Option<u64> {
    let reply = client.get(url).send().await.ok()?;
    match reply.status().as_u16() {
        404 => Some(0),
        200 => {
            let body: Value = reply.json().await.ok()?;
            assert_eq!(body["consistency"], "linearizable", "{body}");
            let number = body["value"].as_str()?.split(':').next()?;
            Some(number.parse().expect("the number that was written"))
        }
        503 | 504 => None,
        status => panic!("a read is answered with {status}: {:?}", reply.text().await),
    }
}

/// Reads every key at every gateway.
async fn read_all(gateways: &[SocketAddr], written: &[Written]) -> Counts {
    let mut counts = Counts::default();
    let client = client();
    for key in written {
        let mut seen = Vec::new();
        for gateway in gateways {
            let url = format!("http://{gateway}/kv/{}?timeout_ms=30000", key.name);
            match read(&client, &url).await {
                Some(number) => {
                    counts.look_at(key, number);
                    seen.push(number);
                }
                None => counts.wrong.push(format!("{} cannot be read", key.name)),
            }
        }
        if seen.windows(2).any(|two| two[0] != two[1]) {
            counts
                .wrong
                .push(format!("{}: {seen:?} at the gateways", key.name));
        }
    }
    counts
}

fn client() -> Client {
    // A library that sends a write again makes another write of it.
    let client = Client::builder().no_proxy().retry(reqwest::retry::never());
    client.build().expect("a client without TLS")
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

//! Five servers and two gateways on hosts of their own, joined by a switch, under load all the
//! time: cables are pulled and put back, and the whole network becomes narrow.
//!
//! ```text
//!   clients - gateway --cable--+          +--cable-- server
//!                           [ switch ]----+--cable-- server
//!   clients - gateway --cable--+          +--cable-- ...
//! ```
//!
//! Clients are on the host of their gateway, so a gateway that is cut off still has to answer.
//! Requests and replies make a history, in which each key has to be one register.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use dkvs_tests::chaos::{Level, reply};
use dkvs_tests::history::{Action, Operation, Reply, linearizable};
use dkvs_tests::http::{self, client, get, put};
use dkvs_tests::keys::key_file;
use dkvs_tests::process::{DataDir, Gateway, Node, ServersFile};
use dkvs_tests::random::Random;
use dkvs_tests::{PATIENCE, until};
use reqwest::Client;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{PROGRAMS, SKIPPED, fragments, ip, runtime, within};

const SERVERS: usize = 5;
const GATEWAYS: usize = 2;
const PORT: u16 = 4_000;

/// Clients of each gateway.
const CLIENTS: u32 = 3;

/// How long a request may take while cables are pulled; with both its servers gone it fails.
const TIMEOUT_MS: u32 = 200;

/// Keys in use at a time, and writes of each until another takes its place.
const HOT_KEYS: u64 = 6;
const WRITES_OF_KEY: u64 = 24;

/// Bytes of the values of a key, over and over.
const LENGTHS: [usize; 8] = [1, 40, 1_000, 1_150, 1_200, 1_300, 10_000, 100_000];

/// Requests that have to be answered at each gateway before the next thing happens.
const REQUESTS: u64 = 30;

/// A host with a cable to the switch.
struct Host {
    namespace: String,
    /// Its place at the switch.
    port: String,
    addr: Ipv4Addr,
}

impl Host {
    fn new(name: &str, number: u8) -> Self {
        Self {
            namespace: format!("{name}-{number}"),
            port: format!("port{number}"),
            addr: Ipv4Addr::new(10, 214, 0, number),
        }
    }

    /// The system of the host knows at once.
    fn set_link(&self, state: &str) {
        assert!(ip(&["-n", &self.namespace, "link", "set", "cable", state]));
    }
}

/// Hosts, and the switch that joins them. All of it goes with the value.
struct Network {
    switch: String,
    servers: Vec<Host>,
    gateways: Vec<Host>,
}

impl Network {
    /// None where the machine does not allow it; says so.
    fn lay() -> Option<Self> {
        let name = format!("dkvs-{}-host", std::process::id());
        let hosts = |numbers: std::ops::Range<usize>| {
            let host = |number| Host::new(&name, u8::try_from(number).unwrap());
            numbers.map(host).collect()
        };
        let network = Self {
            switch: format!("{name}-switch"),
            servers: hosts(1..SERVERS + 1),
            gateways: hosts(SERVERS + 1..SERVERS + GATEWAYS + 1),
        };
        let switch = &network.switch[..];
        let is_laid = ip(&["netns", "add", switch])
            && ip(&["-n", switch, "link", "add", "switch", "type", "bridge"])
            && ip(&["-n", switch, "link", "set", "switch", "up"])
            && network.hosts().all(|host| network.connect(host));
        if !is_laid {
            println!("{SKIPPED}");
            return None;
        }
        Some(network)
    }

    fn connect(&self, host: &Host) -> bool {
        let (switch, namespace, port) = (&self.switch[..], &host.namespace[..], &host.port[..]);
        let addr = format!("{}/24", host.addr);
        let cable = [
            "-n", switch, "link", "add", port, "type", "veth", "peer", "cable", "netns", namespace,
        ];
        ip(&["netns", "add", namespace])
            && ip(&cable)
            && ip(&["-n", switch, "link", "set", port, "master", "switch", "up"])
            && ip(&["-n", namespace, "addr", "add", &addr, "dev", "cable"])
            && ip(&["-n", namespace, "link", "set", "lo", "up"])
            && ip(&["-n", namespace, "link", "set", "cable", "up"])
    }

    /// The cable of a host is as good as pulled: what the host sends is lost on the way.
    fn set_port(&self, host: &Host, state: &str) {
        assert!(ip(&["-n", &self.switch, "link", "set", &host.port, state]));
    }

    /// Sets the longest packet, on every cable and in the switch.
    fn set_mtu(&self, mtu: &str) {
        let set = |namespace, link| ip(&["-n", namespace, "link", "set", link, "mtu", mtu]);
        for host in self.hosts() {
            assert!(set(&host.namespace, "cable") && set(&self.switch, &host.port));
        }
        assert!(set(&self.switch, "switch"));
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.servers.iter().chain(&self.gateways)
    }

    /// What was sent in fragments, or was too long to be sent, anywhere.
    fn fragments(&self) -> u64 {
        let of_hosts = self.hosts().map(|host| within(&host.namespace, fragments));
        of_hosts.sum::<u64>() + within(&self.switch, fragments)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts() {
            ip(&["netns", "del", &host.namespace]);
        }
        ip(&["netns", "del", &self.switch]);
    }
}

/// What the clients share with the thread that pulls the cables.
struct Stage {
    begun: Instant,
    is_over: AtomicBool,
    writes: AtomicU64,
    /// By gateway.
    served: [AtomicU64; GATEWAYS],
    failed: [AtomicU64; GATEWAYS],
}

impl Stage {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            served: Default::default(),
            failed: Default::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }

    fn count(&self, gateway: usize, reply: Reply) {
        let counts = match reply {
            Reply::Done | Reply::Holds(_) => &self.served,
            Reply::NotDone | Reply::Failed(_) | Reply::Unknown => &self.failed,
        };
        counts[gateway].fetch_add(1, Ordering::Relaxed);
    }

    /// A value that was not written before, of one of the keys in use.
    fn next_value(&self) -> Value {
        Value::of_write(self.writes.fetch_add(1, Ordering::Relaxed))
    }

    /// A key that is in use, or has just been.
    fn draw_key(&self, random: &mut Random) -> u32 {
        let writes = self.writes.load(Ordering::Relaxed);
        let back = random.below(2 * HOT_KEYS as usize) as u64;
        Value::of_write(writes.saturating_sub(back)).key()
    }

    /// Waits until so many more requests are counted.
    fn await_more(&self, counts: &[AtomicU64]) {
        let wanted = |count: &AtomicU64| count.load(Ordering::Relaxed) + REQUESTS;
        let wanted: Vec<u64> = counts.iter().map(wanted).collect();
        let have_come = || {
            let mut both = counts.iter().zip(&wanted);
            both.all(|(count, wanted)| count.load(Ordering::Relaxed) >= *wanted)
        };
        runtime().block_on(until("requests are answered", async || {
            assert!(!self.is_over.load(Ordering::Relaxed), "a client has failed");
            have_come()
        }));
    }
}

/// Ends the run when it is dropped, also by a panic: the other threads would wait for ever.
struct Ending<'a>(&'a Stage);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// A value by its number; no other write of the history has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value(u64);

impl Value {
    /// That of a write, by the number of the write.
    fn of_write(number: u64) -> Self {
        let (turn, place) = (number / HOT_KEYS, number % HOT_KEYS);
        let key = turn / WRITES_OF_KEY * HOT_KEYS + place;
        Self(key * WRITES_OF_KEY + turn % WRITES_OF_KEY)
    }

    fn key(self) -> u32 {
        u32::try_from(self.0 / WRITES_OF_KEY).unwrap()
    }

    fn length(self) -> usize {
        LENGTHS[(self.0 % WRITES_OF_KEY) as usize % LENGTHS.len()]
    }

    /// Its first byte distinguishes it from the others of its key, and the rest is its own, too.
    fn text(self) -> String {
        let letter = |number: u64| char::from(b'a' + (number % WRITES_OF_KEY) as u8);
        let mut random = Random::new(self.0);
        let rest = std::iter::repeat_with(|| letter(random.number()));
        let first = std::iter::once(letter(self.0));
        first.chain(rest).take(self.length()).collect()
    }

    /// The value of a key that has this text, if any has.
    fn in_text(key: u32, text: &str) -> Option<Self> {
        let first = u64::from(text.bytes().next()?.checked_sub(b'a')?);
        let value = Self(u64::from(key) * WRITES_OF_KEY + first);
        (first < WRITES_OF_KEY && value.text() == text).then_some(value)
    }
}

/// A client of one gateway.
struct Asking {
    number: u32,
    gateway: usize,
    addr: SocketAddr,
    stage: Arc<Stage>,
    http: Client,
    timeout_ms: u32,
    history: Vec<Operation>,
}

impl Asking {
    fn new(number: u32, gateway: usize, addr: SocketAddr, stage: &Arc<Stage>) -> Self {
        let client = Client::builder().no_proxy().timeout(PATIENCE);
        // A library that sends a write again makes another write of it.
        let client = client.retry(reqwest::retry::never()).build();
        Self {
            number,
            gateway,
            addr,
            stage: Arc::clone(stage),
            http: client.unwrap(),
            timeout_ms: TIMEOUT_MS,
            history: Vec::new(),
        }
    }

    /// Asks until it is over; the history.
    async fn run(mut self) -> Vec<Operation> {
        let mut random = Random::new(u64::from(self.number));
        while !self.stage.is_over.load(Ordering::Relaxed) {
            let reply = match random.below(2) {
                0 => self.read(self.stage.draw_key(&mut random)).await,
                _ => self.write(self.stage.next_value()).await,
            };
            self.stage.count(self.gateway, reply);
        }
        self.history
    }

    async fn read(&mut self, key: u32) -> Reply {
        let invoked = self.stage.now();
        let reply = get(&self.http, self.url(key)).await;
        let reply = match reply.status.as_u16() {
            200 => {
                assert_eq!(reply.json["consistency"], "linearizable");
                let text = reply.json["value"].as_str().expect("plain text");
                let value = Value::in_text(key, text);
                Reply::Holds(Some(value.expect("a value that was written, whole").0))
            }
            404 => {
                assert_eq!(reply.problem(), "key-not-found", "{reply:?}");
                assert_eq!(reply.json["consistency"], "linearizable");
                Reply::Holds(None)
            }
            503 => unanswered(&reply, "quorum-unreachable"),
            504 => unanswered(&reply, "timeout"),
            _ => panic!("no reply to a read: {reply:?}"),
        };
        self.record(key, Action::Read, invoked, reply)
    }

    async fn write(&mut self, value: Value) -> Reply {
        let invoked = self.stage.now();
        let reply = put(&self.http, self.url(value.key()), value.text()).await;
        let status = reply.status.as_u16();
        let written = reply::to_write(Level::Linearizable, (false, false), status, &reply.json);
        let reply = written.unwrap_or_else(|surprise| panic!("{surprise:?}"));
        self.record(value.key(), Action::Write(value.0), invoked, reply.reply)
    }

    fn url(&self, key: u32) -> String {
        let (addr, timeout_ms) = (self.addr, self.timeout_ms);
        format!("http://{addr}/kv/{key}?consistency=linearizable&timeout_ms={timeout_ms}")
    }

    fn record(&mut self, key: u32, action: Action, invoked: u64, reply: Reply) -> Reply {
        self.history.push(Operation {
            client: self.number,
            key,
            action,
            invoked,
            returned: Some(self.stage.now()),
            reply,
        });
        reply
    }
}

fn unanswered(reply: &http::Reply, problem: &str) -> Reply {
    assert_eq!(reply.problem(), problem, "{reply:?}");
    Reply::Unknown
}

/// Where the gateways are.
struct Gateways<'a> {
    network: &'a Network,
    addrs: Vec<SocketAddr>,
}

impl Gateways<'_> {
    /// All clients of a gateway, until it is over.
    fn ask(&self, gateway: usize, stage: &Arc<Stage>) -> Vec<Operation> {
        let addr = self.addrs[gateway];
        within(&self.network.gateways[gateway].namespace, || {
            let _ending = Ending(stage);
            runtime().block_on(async {
                let client = |number| {
                    let number = number + CLIENTS * u32::try_from(gateway).unwrap();
                    Asking::new(number, gateway, addr, stage).run()
                };
                let clients: JoinSet<_> = (0..CLIENTS).map(client).collect();
                clients.join_all().await.concat()
            })
        })
    }

    /// Reads keys once more, now that nothing is in the way.
    fn read_back(&self, gateway: usize, keys: u32, stage: &Arc<Stage>) -> Vec<Operation> {
        let addr = self.addrs[gateway];
        within(&self.network.gateways[gateway].namespace, || {
            runtime().block_on(async {
                let mut asking = Asking::new(u32::MAX, gateway, addr, stage);
                asking.timeout_ms = 30_000;
                for key in 0..keys {
                    let reply = asking.read(key).await;
                    assert!(matches!(reply, Reply::Holds(_)), "key {key}: {reply:?}");
                }
                asking.history
            })
        })
    }

    /// Waits until every gateway finds a server reachable, or not.
    fn await_reachable(&self, server: &Host, is_reachable: bool) {
        let server = SocketAddr::from((server.addr, PORT)).to_string();
        for gateway in 0..GATEWAYS {
            self.await_at(gateway, "/servers", |reply| {
                let mut servers = reply.json["servers"].as_array().unwrap().iter();
                let reported = servers.find(|reported| reported["server"] == server);
                reported.expect("a server of the file")["reachable"] == is_reachable
            });
        }
    }

    fn await_ready(&self, gateway: usize, status: u16) {
        self.await_at(gateway, "/readyz", |reply| reply.status == status);
    }

    fn await_at(&self, gateway: usize, path: &str, holds: impl Fn(&http::Reply) -> bool + Sync) {
        let url = format!("http://{}{path}", self.addrs[gateway]);
        within(&self.network.gateways[gateway].namespace, || {
            let client = client();
            runtime().block_on(until(path, async || {
                holds(&get(&client, url.clone()).await)
            }));
        });
    }
}

#[test]
fn nothing_is_lost_while_hosts_are_cut_off_and_the_network_becomes_narrow() {
    let Some(network) = Network::lay() else {
        return;
    };
    let keys = key_file(&[1]);
    let directories = [(); SERVERS].map(|()| DataDir::new());
    let arguments = ["--key-file", keys.path(), "--workers", "1"];
    let nodes = network.servers.iter().zip(&directories);
    let nodes: Vec<Node> = nodes
        .map(|(host, directory)| {
            let kept = ["--data-dir", directory.path(), "--declare", "new"];
            let arguments = [&arguments[..], &kept].concat();
            let addr = SocketAddr::from((host.addr, PORT));
            within(&host.namespace, || PROGRAMS.node_at(addr, &arguments))
        })
        .collect();
    let servers = ServersFile::new(&nodes.iter().map(|node| node.addr).collect::<Vec<_>>());
    let start = |host: &Host| {
        within(&host.namespace, || {
            PROGRAMS.gateway_over(&servers, &arguments)
        })
    };
    let mut processes: Vec<Gateway> = network.gateways.iter().map(start).collect();
    let gateways = Gateways {
        network: &network,
        addrs: processes.iter().map(|gateway| gateway.addr).collect(),
    };
    let stage = Arc::new(Stage::new());
    let (mut history, narrow_since) = thread::scope(|scope| {
        let (gateways, stage) = (&gateways, &stage);
        let asking = [0, 1].map(|gateway| scope.spawn(move || gateways.ask(gateway, stage)));
        let ending = Ending(stage);
        let narrow_since = pull_cables(&network, gateways, stage);
        drop(ending);
        let histories = asking.map(|asking| asking.join().expect("a client has failed"));
        (histories.concat(), narrow_since)
    });
    let during = history.len();
    let keys = history.iter().map(|operation| operation.key).max().unwrap() + 1;
    for gateway in 0..GATEWAYS {
        history.extend(gateways.read_back(gateway, keys, &stage));
    }
    let checked = linearizable::check(&history).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{during} requests under load; {checked:?}");
    assert_eq!(network.fragments(), 0);
    // A history without long values in the narrow network would show nothing of it.
    let long = history.iter().filter(|operation| {
        let value = match (operation.action, operation.reply) {
            (Action::Write(value), Reply::Done) | (Action::Read, Reply::Holds(Some(value))) => {
                Value(value)
            }
            _ => return false,
        };
        operation.invoked > narrow_since && value.length() == 100_000
    });
    assert!(long.count() >= 10);
    for gateway in &mut processes {
        assert!(gateway.process.end_with(Signal::TERM).0.success());
        let log = gateway.process.rest_of_stderr();
        let too_long = log
            .iter()
            .find(|line| line.contains("longer than the path"));
        assert_eq!(too_long, None);
    }
}

/// What happens to the network while clients ask; since when it has been narrow.
fn pull_cables(network: &Network, gateways: &Gateways<'_>, stage: &Stage) -> u64 {
    let [first, second, ..] = &network.servers[..] else {
        unreachable!("five servers")
    };
    stage.await_more(&stage.served);

    first.set_link("down");
    gateways.await_reachable(first, false);
    stage.await_more(&stage.served);

    // Two of five are away now: some keys are left with one server, and fail.
    network.set_port(second, "down");
    gateways.await_reachable(second, false);
    stage.await_more(&stage.served);

    // One comes back with what it held, while the other is still away.
    first.set_link("up");
    gateways.await_reachable(first, true);
    stage.await_more(&stage.served);
    network.set_port(second, "up");
    gateways.await_reachable(second, true);
    stage.await_more(&stage.served);

    // Without its cable a gateway says so, and the other serves.
    let [cut_off, whole] = [0, 1];
    network.gateways[cut_off].set_link("down");
    gateways.await_ready(cut_off, 503);
    gateways.await_ready(whole, 200);
    stage.await_more(&stage.failed[cut_off..=cut_off]);
    stage.await_more(&stage.served[whole..=whole]);
    network.gateways[cut_off].set_link("up");
    gateways.await_ready(cut_off, 200);
    for server in &network.servers {
        gateways.await_reachable(server, true);
    }
    stage.await_more(&stage.served);

    network.set_mtu("1280");
    let narrow_since = stage.now();
    for _ in 0..3 {
        stage.await_more(&stage.served);
    }
    narrow_since
}

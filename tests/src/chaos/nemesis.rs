//! The cluster, and the one who breaks it: storage servers and gateways as processes, the proxy
//! between them, and a schedule that is carried out on them.
//!
//! Runs on the thread that started it, since processes are waited for, while the clients run on
//! another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dkvs_common::model::Statistic;
use tokio::runtime::Runtime;

use super::runtime::runtime;
use super::schedule::{Cast, Fault, Phase};
use super::stage::Stage;
use crate::http::{exchange, request};
use crate::members::own_addr;
use crate::process::{DataDir, Gateway, Node, Programs, ServersFile, own_loopback};
use crate::proxy::{Conditions, Proxy, Way};
use crate::replicas::Replicas;
use crate::waiting::{PATIENCE, until};

/// How many operations have to end while a fault lasts, so that it meets some even where the
/// machine is busy.
const OPERATIONS_MIN: u64 = 20;

/// How often it is seen whether a phase may end.
const GLANCE: Duration = Duration::from_millis(2);

/// See the module. Whatever it started ends with it.
pub(super) struct Nemesis {
    programs: Programs,
    cast: Cast,
    nodes: Vec<Node>,
    /// Where they take datagrams, behind the proxy.
    addrs: Vec<SocketAddr>,
    disks: Vec<DataDir>,
    /// Those that were killed for good.
    dead: BTreeSet<usize>,
    gateways: Vec<Gateway>,
    proxy: Proxy,
    servers: ServersFile,
    /// The servers, asked past the proxy.
    replicas: Replicas,
    /// How many records servers had pulled that were started again since.
    pulled: u64,
    /// For asking a gateway on this thread.
    runtime: Runtime,
    /// How often something broke, by its name.
    faults: BTreeMap<&'static str, u64>,
}

impl Nemesis {
    /// Starts a cluster in which nothing is broken yet.
    pub(super) fn start(programs: Programs, cast: Cast, seed: u64) -> Self {
        let addrs: Vec<SocketAddr> = (0..cast.servers).map(|_| own_addr()).collect();
        let proxy = Proxy::before(&addrs, seed);
        let servers = ServersFile::new(proxy.addrs());
        let mut nemesis = Self {
            programs,
            cast,
            nodes: Vec::new(),
            replicas: Replicas::new(&servers, addrs.clone()),
            addrs,
            disks: (0..cast.servers).map(|_| DataDir::new()).collect(),
            dead: BTreeSet::new(),
            gateways: Vec::new(),
            servers,
            proxy,
            pulled: 0,
            runtime: runtime(),
            faults: BTreeMap::new(),
        };
        for number in 0..cast.servers {
            let node = nemesis.start_server(number, &["--declare", "new"]);
            nemesis.nodes.push(node);
        }
        for number in 0..cast.gateways {
            let gateway = nemesis.start_gateway(number);
            nemesis.gateways.push(gateway);
        }
        nemesis
    }

    /// Where the gateways listen.
    pub(super) fn gateways(&self) -> impl Iterator<Item = SocketAddr> {
        self.gateways.iter().map(|gateway| gateway.addr)
    }

    /// Carries out a schedule, until its end or until it is over.
    pub(super) fn play(&mut self, schedule: &[Phase], stage: &Stage, is_stopped: &AtomicBool) {
        for phase in schedule {
            if stage.is_over() || is_stopped.load(Ordering::Relaxed) {
                return;
            }
            self.begin(&phase.faults);
            wait(phase.lasts, stage);
            self.heal(&phase.faults, stage);
            wait(phase.calm, stage);
        }
    }

    /// How often something broke, by its name.
    pub(super) fn faults(&self) -> &BTreeMap<&'static str, u64> {
        &self.faults
    }

    pub(super) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The servers, to be asked one by one.
    pub(super) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// The numbers of those that were not killed for good.
    pub(super) fn living(&self) -> BTreeSet<usize> {
        let all = 0..self.nodes.len();
        all.filter(|server| !self.dead.contains(server)).collect()
    }

    /// How many records servers have pulled from each other, but for those that are dead.
    pub(super) fn pulled(&self) -> u64 {
        let living = self.living().into_iter();
        self.pulled + living.map(|server| self.pulled_by(server)).sum::<u64>()
    }

    /// How many records a server has pulled since it was started last.
    fn pulled_by(&self, server: usize) -> u64 {
        self.replicas.statistic(server, Statistic::RecordsPulled)
    }

    fn begin(&mut self, faults: &[Fault]) {
        let mut conditions: BTreeMap<Way, Conditions> = BTreeMap::new();
        for fault in faults {
            *self.faults.entry(fault.name()).or_default() += 1;
            for (way, more) in fault.conditions(self.cast) {
                let so_far = conditions.entry(way).or_default();
                *so_far = so_far.with(more);
            }
            match fault {
                Fault::Pause { server } => self.nodes[*server].process.stop(),
                Fault::ReplaceGateway { gateway } => self.gateways[*gateway].process.kill(),
                Fault::RestartServer { server } => {
                    self.pulled += self.pulled_by(*server);
                    self.nodes[*server].process.kill();
                }
                Fault::KillServer { server } => {
                    self.nodes[*server].process.kill();
                    self.dead.insert(*server);
                }
                _ => {}
            }
        }
        self.proxy.set(conditions);
    }

    fn heal(&mut self, faults: &[Fault], stage: &Stage) {
        self.proxy.clear();
        for fault in faults {
            match fault {
                Fault::Pause { server } => self.nodes[*server].process.go_on(),
                Fault::RestartServer { server } => {
                    self.nodes[*server] = self.start_server(*server, &[]);
                }
                Fault::ReplaceGateway { gateway } => {
                    self.gateways[*gateway] = self.start_gateway(*gateway);
                    stage.move_gateway(*gateway, self.gateways[*gateway].addr);
                }
                _ => {}
            }
        }
    }

    /// Starts a server at the address where the proxy finds it, known by that of the proxy, and has it
    /// speak to every other, so that the proxy knows it.
    fn start_server(&self, number: usize, declare: &[&str]) -> Node {
        self.proxy.expect(self.cast.sender(number));
        let bind = self.addrs[number].to_string();
        let known = ["--workers", "1", "--bind", &bind, "--servers"];
        let known = [&known, &[self.servers.path()][..]].concat();
        let disk = ["--data-dir", self.disks[number].path()];
        let disk = [&disk, &["--durability", "buffered"], declare].concat();
        let disk = if Cast::has_disk(number) {
            &disk[..]
        } else {
            &[]
        };
        let addr = self.proxy.addrs()[number];
        let node = self.programs.node_at(addr, &[&known, disk].concat());
        let others: Vec<usize> = (0..self.cast.servers)
            .filter(|other| *other != number)
            .collect();
        self.runtime
            .block_on(until("the server speaks to every other", async || {
                self.proxy.has_met_the_expected(&others)
            }));
        node
    }

    /// Starts a gateway, at an address where no other program's gateway is ever taken for it, and
    /// has it speak to every server, so that the proxy knows it.
    fn start_gateway(&self, number: usize) -> Gateway {
        self.proxy.expect(number);
        let mut command = self.programs.gateway_command();
        command.args(["--servers", self.servers.path()]);
        command.args(["--listen", &format!("{}:0", own_loopback())]);
        // One worker has one socket towards each server, for life.
        command.args(["--workers", "1", "--protocol", "v2"]);
        let gateway = Gateway::of(command);
        let servers: Vec<usize> = (0..self.cast.servers).collect();
        self.runtime
            .block_on(until("the gateway speaks to every server", async || {
                exchange(gateway.addr, request("GET", "/servers", None)).await;
                self.proxy.has_met_the_expected(&servers)
            }));
        gateway
    }
}

/// Waits for so long, and until some operations have ended meanwhile; not when it is over.
fn wait(duration: Duration, stage: &Stage) {
    let (begun, answered) = (Instant::now(), stage.answered());
    let has_met_traffic = || stage.answered() >= answered + OPERATIONS_MIN;
    while !stage.is_over() && (begun.elapsed() < duration || !has_met_traffic()) {
        assert!(begun.elapsed() < PATIENCE, "the clients get no replies");
        thread::sleep(GLANCE);
    }
}

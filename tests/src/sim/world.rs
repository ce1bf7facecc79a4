//! The world: gateways, servers and clients, the network between them, and the time.
//!
//! ```text
//!   queue --> what happens next --> gateway, server, client ---> what follows ---> queue
//!                                            |
//!                                            +--> log, statistics, invariants
//! ```
//!
//! A world is one thread's, and everything in it follows from its seed: what happens next is the
//! earliest in the queue, and nothing looks at any other clock or draws any other numbers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use dkvs_client::Protocol;
use dkvs_common::cluster::{Cluster, Server as Listed, ServerId};
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::keys::Keys;

use dkvs_storage_node::leaves::Membership;
use dkvs_storage_node::service::Served;

use super::c_client::CClient;
use super::chance::Chance;
use super::client::Client;
use super::faults::Faults;
use super::gateway::{Gateway, Setting, Stimulus};
use super::invariants::Violation;
use super::invariants::completion::Completion;
use super::invariants::confirmations::Confirmations;
use super::invariants::contents::Contents;
use super::invariants::v1_records::V1Records;
use super::ledger::Ledger;
use super::lister::Lister;
use super::log::{Line, Log};
use super::moment::Moment;
use super::network::Network;
use super::options::{Options, Sabotage};
use super::plan::Plan;
use super::queue::Queue;
use super::server::{Inbound, Ring, Server};
use super::statistics::{Count, Statistics};
use super::v1_plan::Dialect;
use crate::random::Random;

/// Everything there is.
pub(super) struct World {
    pub(super) now: Moment,
    pub(super) queue: Queue<Event>,
    pub(super) plan: Plan,
    pub(super) view: Arc<ClusterView>,
    pub(super) network: Network,
    pub(super) servers: Vec<Server>,
    /// The gateways, and behind them a client for each server.
    pub(super) gateways: Vec<Gateway>,
    /// By gateway: when it is woken next, and when it sends next.
    pub(super) wakes: Vec<Option<Moment>>,
    /// When each server's background work is to go on.
    pub(super) server_wakes: Vec<Option<Moment>>,
    turns: Vec<bool>,
    pub(super) clients: Vec<Client>,
    pub(super) c_clients: Vec<CClient>,
    pub(super) lister: Option<Lister>,
    pub(super) names: u32,
    pub(super) ledger: Ledger,
    /// By key and tag: the values of versions, as far as clients were told.
    pub(super) versions: BTreeMap<(usize, Tag), Option<u64>>,
    pub(super) faults: Faults,
    /// Whether servers that crash forget.
    pub(super) forgets: bool,
    /// Whether allowance is made for that.
    pub(super) promises_less: bool,
    pub(super) phase: Phase,
    /// The keys that a gateway would not read the first time, or not from all replicas.
    pub(super) unread: Vec<usize>,
    pub(super) invariants: Invariants,
    pub(super) violation: Option<Violation>,
    pub(super) log: Log,
    pub(super) statistics: Statistics,
    /// How many were sent.
    pub(super) datagrams: u64,
}

/// What is kept for the invariants from one event to the next.
#[derive(Default)]
pub(super) struct Invariants {
    pub(super) contents: Contents,
    pub(super) completion: Completion,
    pub(super) confirmations: Confirmations,
    pub(super) v1_records: V1Records,
}

/// How far a world has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Clients ask, and things go wrong.
    Chaos,
    /// Everybody has asked what they wanted to; nothing goes wrong any more.
    Healed,
    /// A client that speaks DKVS/1 writes this key once more.
    FinalWrite { key: usize },
    /// What is left is read at this gateway, so many keys; once more, if it is to be the last time.
    Reading {
        gateway: usize,
        keys: usize,
        is_last: bool,
    },
}

/// What can happen.
#[derive(Debug)]
pub(super) enum Event {
    ArrivesAtServer {
        server: usize,
        inbound: Inbound,
        is_damaged: bool,
    },
    ArrivesAtGateway {
        gateway: usize,
        server: usize,
        to: SocketAddrV4,
        number: u64,
        datagram: Bytes,
    },
    Notice {
        gateway: usize,
        server: usize,
        to: SocketAddrV4,
    },
    ServerTurn {
        server: usize,
    },
    GatewayTurn {
        gateway: usize,
    },
    GatewayWakes {
        gateway: usize,
    },
    ServerWakes {
        server: usize,
    },
    ClientTurn {
        client: usize,
    },
    ClientLeaves {
        client: usize,
        operation: usize,
        attempt: u32,
    },
    CClientTurn {
        client: usize,
    },
    CClientEnds {
        client: usize,
        operation: usize,
    },
    ListerTurn {
        page: usize,
    },
    FaultBegins {
        plan: usize,
    },
    FaultEnds {
        number: u64,
    },
    CommitEnds {
        server: usize,
        /// Which start of the server began it.
        start: u64,
    },
    ReadEnds {
        server: usize,
        start: u64,
    },
    /// By now, servers have pulled what they lacked.
    PullingEnds,
}

/// Most events of a world; one that has more is going in circles.
const EVENTS_MAX: u64 = 5_000_000;

impl World {
    /// The world of a seed, before anything happens.
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let plan = Plan::of(seed);
        let listed = |(number, server): (usize, &super::plan::ServerPlan)| Listed {
            addr: SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, number as u8 + 1), 4_000),
            ring_points: server.ring_points,
        };
        let listed: Vec<Listed> = plan.servers.iter().enumerate().map(listed).collect();
        let cluster = Cluster::from_servers(&listed).expect("the plan's servers are distinct");
        let view = Arc::new(ClusterView::first(cluster));
        let ring = Ring {
            served: Served::of(view.cluster(), plan.replication, false),
            datagram_bytes_max: plan.datagram_bytes_max,
        };
        let keys = plan.is_keyed.then(|| keys(seed));
        let protocol = match &plan.v1 {
            Some(v1) if v1.is_auto => Protocol::Auto,
            _ => Protocol::V2,
        };
        let bytes_max = plan.datagram_bytes_max;
        let setting = Setting::new(
            Arc::clone(&view),
            bytes_max,
            keys.clone(),
            (protocol, plan.replication),
            plan.places,
        );
        let server = |(number, server): (usize, &super::plan::ServerPlan)| {
            let random = Random::of(seed, &format!("server {number}"));
            let random = [random, Random::of(seed, &format!("disk {number}"))];
            let ahead_ms = plan.v1.as_ref().map_or(0, |v1| v1.ahead_ms[number]);
            let v1 = (plan.dialect(number), ahead_ms);
            let id = ServerId(number as u16);
            let membership = server.knows_ring.then(|| Membership {
                view: Arc::clone(&view),
                own: id,
                replication: plan.replication,
            });
            let membership = membership.filter(|_| plan.dialect(number) == Dialect::Both);
            let mut server = Server::new(
                *server,
                plan.disks.map(|disks| disks.of(number, plan.servers.len())),
                ring,
                keys.clone(),
                random,
                v1,
                membership,
            );
            if options.sabotage == Some(Sabotage::Lying) {
                server.lie();
            }
            server
        };
        let gateway = |(number, gateway): (usize, &super::plan::GatewayPlan)| {
            Gateway::new(seed, number, *gateway, setting.clone())
        };
        // A server asks its peers by a client of its own, which has a gateway's plan.
        let servers = plan.servers.len();
        let plans = plan.gateways.iter().cycle();
        let plans = plans.take(plan.gateways.len() + servers);
        let gateways = plan.gateways.len() + servers;
        let falls_back = plan.v1.as_ref().map_or(Chance::NEVER, |v1| v1.falls_back);
        let chances = (falls_back, plan.workload.conditional);
        let callers = plan.places.callers;
        let client = |number| Client::new(seed, number, plan.workload, chances, callers);
        let c_clients = plan.v1.as_ref().map_or(0, |v1| v1.clients);
        let c_client = |number| CClient::new(seed, number, plan.gateways.len());
        let mut world = Self {
            now: Moment::START,
            queue: Queue::default(),
            network: Network::new(seed, gateways, servers, plan.link_conditions),
            servers: plan.servers.iter().enumerate().map(server).collect(),
            gateways: plans.enumerate().map(gateway).collect(),
            wakes: vec![None; gateways],
            server_wakes: vec![None; servers],
            turns: vec![false; gateways],
            clients: (0..plan.workload.clients).map(client).collect(),
            c_clients: (0..c_clients).map(c_client).collect(),
            lister: Lister::of(seed),
            names: plan.workload.clients as u32,
            ledger: Ledger::default(),
            versions: BTreeMap::new(),
            faults: Faults::new(seed, plan.faults.clone()),
            forgets: plan.is_forgetful || options.sabotage == Some(Sabotage::Forgetting),
            promises_less: plan.is_forgetful,
            phase: Phase::Chaos,
            unread: Vec::new(),
            invariants: Invariants::default(),
            violation: None,
            log: Log::new(options.keeps_log),
            statistics: Statistics::default(),
            datagrams: 0,
            view,
            plan,
        };
        world.begin(seed);
        world
    }

    fn begin(&mut self, seed: u64) {
        self.log.enter(self.now, Line::World, &[seed], || {
            format!("the world of seed {seed}: {:#?}", self.plan)
        });
        for client in 0..self.clients.len() {
            self.let_think(client);
        }
        for client in 0..self.c_clients.len() {
            self.let_c_client_think(client);
        }
        self.take_lister_turn(0);
        for plan in 0..self.faults.kinds() {
            self.expect_fault(plan);
        }
        for server in 0..self.servers.len() {
            self.begin_to_pull(server);
        }
    }

    /// Lets everything happen, until there is nothing more to happen or something is not as it
    /// has to be.
    pub(super) fn run(&mut self) {
        while self.violation.is_none() {
            match self.queue.pop() {
                Some((at, event)) => {
                    self.now = at;
                    self.statistics.count(Count::Events);
                    if self.statistics.of(Count::Events) > EVENTS_MAX {
                        self.report(Err(Violation::new("progress", "the world goes in circles")));
                    }
                    self.handle(event);
                }
                None => {
                    if !self.come_to_rest() {
                        break;
                    }
                }
            }
        }
        self.count_outcomes();
        self.statistics.worlds = 1;
        self.statistics.time = self.now.since(Moment::START);
    }

    /// Takes what a check found.
    pub(super) fn report(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked {
            self.log
                .enter(self.now, Line::Checked, &[], || violation.to_string());
            self.violation.get_or_insert(violation);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ArrivesAtServer {
                server,
                inbound,
                is_damaged,
            } => self.arrive_at_server(server, inbound, is_damaged),
            Event::ArrivesAtGateway {
                gateway,
                server,
                to,
                number,
                datagram,
            } => {
                let is_taken = if let Some(client) = CClient::owner(to) {
                    self.answer_c_client(client, to, server, datagram)
                } else if Gateway::is_v1_socket(to) {
                    let (socket, datagram) = (to, Some(datagram));
                    self.stimulate_gateway(gateway, Stimulus::ByV1 { socket, datagram })
                } else {
                    self.gateways[gateway].address(server) == to
                        && self.stimulate_gateway(gateway, Stimulus::Datagram { server, datagram })
                };
                self.note_arrival(number, is_taken, || format!("gw{gateway}"));
            }
            Event::Notice {
                gateway,
                server,
                to,
            } => {
                if Gateway::is_v1_socket(to) {
                    let (socket, datagram) = (to, None);
                    self.stimulate_gateway(gateway, Stimulus::ByV1 { socket, datagram });
                } else if self.gateways[gateway].address(server) == to {
                    self.statistics.count(Count::Notices);
                    self.log.enter(
                        self.now,
                        Line::Noticed,
                        &[gateway as u64, server as u64],
                        || format!("gw{gateway} learns that nobody listens at s{server}"),
                    );
                    self.stimulate_gateway(gateway, Stimulus::Unreachable { server });
                }
            }
            Event::ServerTurn { server } => self.serve(server),
            Event::GatewayTurn { gateway } => {
                self.turns[gateway] = false;
                self.transmit(gateway);
                self.settle(gateway);
            }
            Event::GatewayWakes { gateway } => {
                if self.wakes[gateway] == Some(self.now) {
                    self.wakes[gateway] = None;
                    self.gateways[gateway].handle_timeout(self.now);
                    self.settle(gateway);
                }
            }
            Event::ServerWakes { server } => {
                if self.server_wakes[server] == Some(self.now) {
                    self.server_wakes[server] = None;
                    self.use_disk(server);
                }
            }
            Event::ClientTurn { client } => self.take_client_turn(client),
            Event::ClientLeaves {
                client,
                operation,
                attempt,
            } => self.take_client_leave(client, operation, attempt),
            Event::ListerTurn { page } => self.take_lister_turn(page),
            Event::CClientTurn { client } => self.take_c_client_turn(client),
            Event::CClientEnds { client, operation } => {
                self.time_out_c_client(client, operation);
            }
            Event::FaultBegins { plan } => {
                if self.phase == Phase::Chaos {
                    self.begin_fault(plan);
                }
            }
            Event::FaultEnds { number } => self.end_fault(number),
            Event::CommitEnds { server, start } => {
                self.end_commit(server, start);
                // What it pulled may be stored now.
                self.settle(self.client_of(server));
            }
            Event::ReadEnds { server, start } => {
                self.end_read(server, start);
                // It may have found damage, which is to be mended.
                self.settle(self.client_of(server));
            }
            Event::PullingEnds => self.end_pulling(),
        }
    }

    /// Something happens to a gateway. Returns whether the gateway takes it.
    pub(super) fn stimulate_gateway(&mut self, gateway: usize, stimulus: Stimulus) -> bool {
        let is_taken = self.gateways[gateway].handle(stimulus, self.now);
        self.settle(gateway);
        is_taken
    }

    /// Takes the answers of a gateway, sends its datagrams, and sets when it is woken.
    pub(super) fn settle(&mut self, gateway: usize) {
        if let Some(server) = gateway.checked_sub(self.plan.gateways.len()) {
            let before = self.servers[server].incomplete_leaves();
            self.gateways[gateway].pull(self.now);
            if self.servers[server].incomplete_leaves() < before {
                self.look_at_completion(server);
            }
            self.use_disk(server);
        }
        self.take_answers(gateway);
        if self.gateways[gateway].wants_to_send() && !self.turns[gateway] {
            let turn = self.gateways[gateway].turn();
            if turn.is_zero() {
                self.transmit(gateway);
                // What was sent may have turned out to be too long, and a request to end by that.
                self.take_answers(gateway);
            } else {
                self.turns[gateway] = true;
                let at = self.now + turn;
                self.queue.enter(at, Event::GatewayTurn { gateway });
            }
        }
        let due = self.gateways[gateway].next_timeout();
        let due = due.map(|due| due.max(self.now));
        if let Some(due) = due
            && self.wakes[gateway].is_none_or(|wake| due < wake)
        {
            self.wakes[gateway] = Some(due);
            self.queue.enter(due, Event::GatewayWakes { gateway });
        }
    }

    fn take_answers(&mut self, gateway: usize) {
        while let Some(answer) = self.gateways[gateway].poll_answer() {
            self.handle_answer(gateway, answer);
        }
        while let Some(page) = self.gateways[gateway].poll_page() {
            self.handle_page(page);
        }
    }

    /// The client by which a server asks its peers.
    pub(super) fn client_of(&self, server: usize) -> usize {
        self.plan.gateways.len() + server
    }

    /// A server that was started begins to pull from its peers, if servers do.
    pub(super) fn begin_to_pull(&mut self, server: usize) {
        let Some(timing) = self.plan.pulls else {
            return;
        };
        let client = self.client_of(server);
        if let Some(service) = self.servers[server].service()
            && matches!(self.phase, Phase::Chaos | Phase::Healed)
        {
            self.gateways[client].begin_to_pull(service, timing, self.now);
            self.settle(client);
        }
    }

    /// A server answers for keys again that it may have lost.
    fn look_at_completion(&mut self, number: usize) {
        let server = &self.servers[number];
        self.statistics.count(Count::Completions);
        self.invariants.confirmations.note_completed(number, server);
        if !self.promises_less {
            let checked = self.invariants.completion.check(number, server);
            self.report(checked);
        }
    }

    /// Looks at what a server holds.
    pub(super) fn look_at_store(&mut self, server: usize) {
        let store = self.servers[server].store();
        let checked = self
            .invariants
            .contents
            .look_at(server, store, &self.ledger);
        self.report(checked);
    }
}

/// The key of a world's cluster.
fn keys(seed: u64) -> Keys {
    let key = Random::of(seed, "keys").bytes(32);
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    Keys::parse("keys", format!("1 {digits}").as_bytes()).expect("a key is 64 digits")
}

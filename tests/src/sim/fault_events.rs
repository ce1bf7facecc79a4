//! What goes wrong with processes, links and clocks, from its beginning to its end.
//!
//! Invariant: what a fault has done is undone once, by its end or by the healing of the world,
//! whichever comes first; and no fault takes more servers out of service than the plan allows.

use super::chance::{Chance, Span};
use super::disk_plan::DiskPlan;
use super::faults::Fault;
use super::log::Line;
use super::network::{Direction, Route};
use super::on_disk::Harm;
use super::plan::{FaultKind, FaultPlan};
use super::server::Server;
use super::v1_plan::Dialect;
use super::world::{Event, World};

impl World {
    /// When the next fault of a kind begins is decided.
    pub(super) fn expect_fault(&mut self, plan: usize) {
        let every = self.faults.plans[plan].every;
        let after = every.draw(&mut self.faults.random);
        self.queue
            .enter(self.now + after, Event::FaultBegins { plan });
    }

    /// It is time for a fault of this kind.
    pub(super) fn begin_fault(&mut self, plan: usize) {
        let FaultPlan { kind, lasts, .. } = self.faults.plans[plan];
        let (gateways, servers) = (self.plan.gateways.len(), self.servers.len());
        let gateway = self.faults.random.below(gateways);
        let server = self.faults.random.below(servers);
        let begun = match kind {
            FaultKind::LinkCut => {
                let client = self.faults.random.below(self.gateways.len());
                Some(self.cut(&[client], &[server]))
            }
            FaultKind::ServerCut => {
                let all: Vec<usize> = (0..self.gateways.len()).collect();
                let servers: Vec<usize> = (0..servers).collect();
                let cuts = [
                    self.cut(&all, &[server]),
                    self.cut(&[self.client_of(server)], &servers),
                ];
                Some(joined(cuts))
            }
            FaultKind::GatewayCut => {
                let all: Vec<usize> = (0..servers).collect();
                Some(self.cut(&[gateway], &all))
            }
            FaultKind::Split => Some(self.split()),
            FaultKind::ServerCrash
            | FaultKind::ForeignServer
            | FaultKind::DiskLoss
            | FaultKind::DiskDamage
            | FaultKind::SetBack => self.crash_server(server, kind),
            FaultKind::ServerPause => self.pause_server(server),
            FaultKind::GatewayCrash => self.crash_gateway(gateway),
            FaultKind::GatewayPause => self.pause_gateway(gateway),
            FaultKind::ClockJump => {
                self.set_clock(gateway);
                None
            }
        };
        if let Some(fault) = begun {
            self.statistics.count_fault(kind);
            let number = self.faults.begin(fault.clone());
            self.note_fault(number, &fault, true);
            let after = lasts.draw(&mut self.faults.random);
            self.queue
                .enter(self.now + after, Event::FaultEnds { number });
        }
        self.expect_fault(plan);
    }

    /// A fault is over, unless it was ended before.
    pub(super) fn end_fault(&mut self, number: u64) {
        let Some(fault) = self.faults.active.remove(&number) else {
            return;
        };
        self.note_fault(number, &fault, false);
        match fault {
            Fault::Cut(routes) => {
                for route in routes {
                    self.network.mend(route);
                }
            }
            Fault::ServerDown(server) => {
                self.servers[server].start(self.now);
                let confirmations = &mut self.invariants.confirmations;
                if self.servers[server].has_lost() {
                    confirmations.forget(server);
                }
                let checked = confirmations.look_at_start(server, &self.servers[server]);
                self.report(checked);
                let client = self.client_of(server);
                self.gateways[client].start(self.now);
                self.wakes[client] = None;
                self.begin_to_pull(server);
            }
            Fault::ServerPaused(server) => {
                self.servers[server].set_paused(false);
                self.serve(server);
                let client = self.client_of(server);
                self.gateways[client].resume(self.now);
                self.settle(client);
            }
            Fault::GatewayDown(gateway) => {
                self.gateways[gateway].start(self.now);
                self.wakes[gateway] = None;
            }
            Fault::GatewayPaused(gateway) => {
                self.gateways[gateway].resume(self.now);
                self.settle(gateway);
            }
        }
    }

    /// Every fault ends, and none begins any more. Clocks stay as wrong as they are.
    pub(super) fn heal(&mut self) {
        self.log
            .enter(self.now, Line::Recovered, &[], || "the world heals".into());
        self.faults.plans.clear();
        while let Some(number) = self.faults.active.keys().next().copied() {
            self.end_fault(number);
        }
        self.network.heal();
        self.servers.iter_mut().for_each(Server::heal);
    }

    fn note_fault(&mut self, number: u64, fault: &Fault, begins: bool) {
        let line = if begins { Line::Fault } else { Line::Recovered };
        let numbers = match fault {
            Fault::Cut(routes) => [0, routes.len() as u64],
            Fault::ServerDown(server) => [1, *server as u64],
            Fault::ServerPaused(server) => [2, *server as u64],
            Fault::GatewayDown(gateway) => [3, *gateway as u64],
            Fault::GatewayPaused(gateway) => [4, *gateway as u64],
        };
        self.log
            .enter(self.now, line, &[number, numbers[0], numbers[1]], || {
                fault.words(begins)
            });
    }

    /// Cuts every link between these, both ways or one.
    fn cut(&mut self, gateways: &[usize], servers: &[usize]) -> Fault {
        let directions = match self.faults.random.below(4) {
            0 => &[Direction::ToServer][..],
            1 => &[Direction::ToGateway],
            _ => &[Direction::ToServer, Direction::ToGateway],
        };
        let mut routes = Vec::new();
        for &gateway in gateways {
            for &server in servers {
                routes.extend(directions.iter().map(|&direction| Route {
                    gateway,
                    server,
                    direction,
                }));
            }
        }
        for route in &routes {
            self.network.cut(*route);
        }
        Fault::Cut(routes)
    }

    /// Cuts every link between two sides, to which servers and gateways belong at random.
    fn split(&mut self) -> Fault {
        let random = &mut self.faults.random;
        let mut side = |count| -> (Vec<usize>, Vec<usize>) {
            (0..count).partition(|_| Chance::percent(50).happens(random))
        };
        let (mut gateways, mut other_gateways) = side(self.plan.gateways.len());
        let (servers, other_servers) = side(self.servers.len());
        gateways.extend(servers.iter().map(|server| self.client_of(*server)));
        other_gateways.extend(other_servers.iter().map(|server| self.client_of(*server)));
        joined([
            self.cut(&gateways, &other_servers),
            self.cut(&other_gateways, &servers),
        ])
    }

    /// Whether one more server may be out of service.
    fn may_take(&self, server: usize) -> bool {
        let is_serving = |server: &Server| server.is_up() && !server.is_paused();
        let out = self.servers.iter().filter(|server| !is_serving(server));
        is_serving(&self.servers[server]) && out.count() < self.plan.down_max
    }

    fn crash_server(&mut self, server: usize, kind: FaultKind) -> Option<Fault> {
        // A gateway that met a server of DKVS/2 there would not ask it by DKVS/1 afterwards.
        let is_v1 = self.plan.dialect(server) == Dialect::V1;
        if !self.may_take(server) || (is_v1 && kind == FaultKind::ForeignServer) {
            return None;
        }
        let servers = self.servers.len();
        let may_hit = |disks: DiskPlan| disks.may_hit(server, servers);
        let harm = match kind {
            FaultKind::DiskLoss | FaultKind::DiskDamage
                if !self.plan.disks.is_some_and(may_hit) =>
            {
                return None;
            }
            FaultKind::SetBack => match self.may_set_back(server) {
                Some(true) => Harm::SetBack,
                Some(false) => Harm::Copied,
                None => return None,
            },
            FaultKind::DiskLoss => Harm::Loss,
            FaultKind::DiskDamage => Harm::Damage,
            _ if self.forgets => Harm::Amnesia,
            _ => Harm::None,
        };
        self.look_at_store(server);
        self.count_mended(server);
        let client = self.client_of(server);
        self.gateways[client].crash();
        self.wakes[client] = None;
        self.servers[server].crash(harm);
        if harm == Harm::Amnesia {
            self.invariants.confirmations.forget_all(server);
            self.invariants.completion.forget(server);
        }
        if kind == FaultKind::ForeignServer {
            self.servers[server].replace_by_foreign_server();
        }
        Some(Fault::ServerDown(server))
    }

    /// Whether a server's disk may be set back to the copy that there is; none if it may not even be copied.
    /// It may if a peer has noted that the server was further, whose disk is neither lost nor set back.
    fn may_set_back(&self, server: usize) -> Option<bool> {
        let servers = self.servers.len();
        let disks = self.plan.disks.filter(|_| !self.forgets)?;
        if !disks.may_hit(server, servers) || !self.servers[server].compares_itself() {
            return None;
        }
        let Some(copy) = self.servers[server].copied_at() else {
            return Some(false);
        };
        let addr = self.servers[server].addr()?;
        let is_known = |number: usize| {
            let peer = &self.servers[number];
            let is_steady = number != server && !disks.may_hit(number, servers);
            is_steady && peer.is_behind(addr, copy)
        };
        Some((0..servers).any(is_known))
    }

    fn pause_server(&mut self, server: usize) -> Option<Fault> {
        if !self.may_take(server) {
            return None;
        }
        self.servers[server].set_paused(true);
        let client = self.client_of(server);
        self.gateways[client].pause();
        Some(Fault::ServerPaused(server))
    }

    fn crash_gateway(&mut self, gateway: usize) -> Option<Fault> {
        if !self.gateways[gateway].is_up() || self.gateways[gateway].is_paused() {
            return None;
        }
        self.gateways[gateway].crash();
        self.wakes[gateway] = None;
        self.abandon_clients(gateway);
        Some(Fault::GatewayDown(gateway))
    }

    fn pause_gateway(&mut self, gateway: usize) -> Option<Fault> {
        if !self.gateways[gateway].is_up() || self.gateways[gateway].is_paused() {
            return None;
        }
        self.gateways[gateway].pause();
        Some(Fault::GatewayPaused(gateway))
    }

    fn set_clock(&mut self, gateway: usize) {
        let random = &mut self.faults.random;
        let by = Span::ms(1, 3_600_000).draw(random);
        let is_ahead = random.below(2) == 0;
        self.gateways[gateway].clock.jump(by, is_ahead);
        self.statistics.count_fault(FaultKind::ClockJump);
        let by_ms = by.as_millis() as u64;
        let numbers = [gateway as u64, by_ms, is_ahead.into()];
        self.log.enter(self.now, Line::Fault, &numbers, || {
            let way = if is_ahead { "ahead" } else { "back" };
            format!("gw{gateway}: its wall clock is set {way} by {by_ms} ms")
        });
    }
}

/// Cuts that begin and end together.
fn joined(cuts: [Fault; 2]) -> Fault {
    let routes = cuts.into_iter().flat_map(|cut| match cut {
        Fault::Cut(routes) => routes,
        _ => Vec::new(),
    });
    Fault::Cut(routes.collect())
}

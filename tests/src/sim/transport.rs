//! How datagrams leave, travel and arrive.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;

use super::c_client::CClient;
use super::datagram::words;
use super::gateway::Gateway;
use super::invariants::downgrade;
use super::log::{Line, digest};
use super::moment::Moment;
use super::network::{Arrival, Direction, Fate, Route};
use super::server::{DiskEvent, Inbound, Reception};
use super::statistics::Count;
use super::world::{Event, World};

/// After so long it is looked again whether a server that stands still goes on.
const PAUSED_DISK: Duration = Duration::from_millis(5);

/// Whether this is an address from which servers are asked by DKVS/1.
fn is_by_v1(peer: SocketAddrV4) -> bool {
    Gateway::is_v1_socket(peer) || CClient::owner(peer).is_some()
}

impl World {
    /// Sends what a gateway has to send.
    pub(super) fn transmit(&mut self, gateway: usize) {
        while let Some((peer, server, datagram)) = self.gateways[gateway].poll_transmit(self.now) {
            let route = Route {
                gateway,
                server,
                direction: Direction::ToServer,
            };
            if Gateway::is_v1_socket(peer) {
                self.statistics.count(Count::AsksByV1);
                let dialect = self.plan.dialect(server);
                self.report(downgrade::check_asked(gateway, server, dialect));
            }
            self.send(route, peer, datagram, self.now);
        }
    }

    /// Sends a datagram that leaves at `leaves`. `peer` is the gateway's address.
    pub(super) fn send(
        &mut self,
        route: Route,
        peer: SocketAddrV4,
        datagram: Bytes,
        leaves: Moment,
    ) {
        self.datagrams += 1;
        let number = self.datagrams;
        self.statistics.count(Count::Datagrams);
        self.statistics.add(Count::Bytes, datagram.len() as u64);
        let fate = self.network.send(route, &datagram);
        self.note_sending(number, route, &datagram, &fate);
        match fate {
            Fate::Cut => self.statistics.count(Count::Cut),
            Fate::Lost => self.statistics.count(Count::Lost),
            Fate::Arrives(first, again) => {
                if again.is_some() {
                    self.statistics.count(Count::Repeated);
                }
                for arrival in [Some(first), again].into_iter().flatten() {
                    self.enter_arrival(route, peer, arrival, leaves, number);
                }
            }
        }
        // By DKVS/1 a socket asks one server, once, and the system keeps out all others.
        if is_by_v1(peer) {
            return;
        }
        if let Some((server, after)) = self.network.misdeliver(route) {
            self.statistics.count(Count::Misdelivered);
            let to = self.gateways[route.gateway].address(server);
            let event = Event::ArrivesAtGateway {
                gateway: route.gateway,
                server,
                to,
                number,
                datagram,
            };
            self.queue.enter(leaves + after, event);
        }
    }

    fn enter_arrival(
        &mut self,
        Route {
            gateway,
            server,
            direction,
        }: Route,
        peer: SocketAddrV4,
        arrival: Arrival,
        leaves: Moment,
        number: u64,
    ) {
        let Arrival {
            after,
            datagram,
            is_damaged,
        } = arrival;
        let at = leaves + after;
        if is_damaged {
            self.statistics.count(Count::Damaged);
            // A reply by DKVS/1 has the checksum of UDP alone: damage would reach the client unseen.
            if is_by_v1(peer) && direction == Direction::ToGateway {
                return;
            }
        }
        let event = match direction {
            Direction::ToServer => Event::ArrivesAtServer {
                server,
                inbound: Inbound {
                    number,
                    gateway,
                    peer,
                    datagram,
                    arrived: at,
                },
                is_damaged,
            },
            Direction::ToGateway => Event::ArrivesAtGateway {
                gateway,
                server,
                to: peer,
                number,
                datagram,
            },
        };
        self.queue.enter(at, event);
    }

    /// A datagram comes to a server's port.
    pub(super) fn arrive_at_server(&mut self, server: usize, inbound: Inbound, is_damaged: bool) {
        let Inbound {
            number,
            gateway,
            peer,
            ..
        } = inbound;
        let reception = self.servers[server].receive(inbound);
        self.note_arrival(number, reception == Reception::Taken, || {
            let damaged = if is_damaged { ", damaged" } else { "" };
            format!("s{server}{damaged}")
        });
        match reception {
            Reception::Taken => self.serve(server),
            Reception::Full => self.statistics.count(Count::Overflowed),
            Reception::Nobody => {
                self.statistics.count(Count::Undelivered);
                let route = Route {
                    gateway,
                    server,
                    direction: Direction::ToGateway,
                };
                if let Some(after) = self.network.notice(route, self.plan.notices) {
                    let to = peer;
                    let event = Event::Notice {
                        gateway,
                        server,
                        to,
                    };
                    self.queue.enter(self.now + after, event);
                }
            }
        }
    }

    /// Lets a server take what it can take now.
    pub(super) fn serve(&mut self, server: usize) {
        while let Some((inbound, replies, takes)) = self.servers[server].serve(self.now) {
            if self.servers[server].is_up() {
                let dialect = self.plan.dialect(server);
                let checked = downgrade::check_answered(server, dialect, inbound.peer, &replies);
                self.report(checked);
                let store = self.servers[server].store();
                let confirmations = &mut self.invariants.confirmations;
                let checked =
                    confirmations.look_at(server, inbound.peer, &inbound.datagram, &replies, store);
                self.report(checked);
            }
            let route = Route {
                gateway: inbound.gateway,
                server,
                direction: Direction::ToGateway,
            };
            for reply in replies {
                self.send(route, inbound.peer, reply, self.now + takes);
            }
        }
        if let Some(at) = self.servers[server].next_turn(self.now) {
            self.queue.enter(at, Event::ServerTurn { server });
        }
        self.use_disk(server);
    }

    /// Lets a server read from its disk what is asked for, and take to it what has gathered, if it is
    /// not at that already.
    pub(super) fn use_disk(&mut self, server: usize) {
        self.servers[server].scrub(self.now);
        while let Some((start, takes)) = self.servers[server].begin_read() {
            let at = self.now + takes;
            self.queue.enter(at, Event::ReadEnds { server, start });
        }
        if let Some((start, takes)) = self.servers[server].begin_commit() {
            let at = self.now + takes;
            self.queue.enter(at, Event::CommitEnds { server, start });
        }
        self.maintain(server);
    }

    /// A server's disk has what it was given.
    pub(super) fn end_commit(&mut self, server: usize, start: u64) {
        match self.servers[server].finish_commit(start) {
            DiskEvent::Done => {
                self.statistics.count(Count::Commits);
                let confirmations = &self.invariants.confirmations;
                let checked = confirmations.look_at_commit(server, &self.servers[server]);
                self.report(checked);
                self.log
                    .enter(self.now, Line::Synced, &[server as u64], || {
                        format!("s{server}: what it took to its disk is synced")
                    });
                self.use_disk(server);
            }
            DiskEvent::Paused => {
                let at = self.now + PAUSED_DISK;
                self.queue.enter(at, Event::CommitEnds { server, start });
            }
            DiskEvent::Gone => {}
        }
    }

    /// A server's disk has read what it was asked for.
    pub(super) fn end_read(&mut self, server: usize, start: u64) {
        match self.servers[server].finish_read(start, self.now) {
            DiskEvent::Done => {
                self.statistics.count(Count::ColdReads);
                self.log.enter(self.now, Line::Read, &[server as u64], || {
                    format!("s{server}: its disk has read a value")
                });
                self.use_disk(server);
            }
            DiskEvent::Paused => {
                let at = self.now + PAUSED_DISK;
                self.queue.enter(at, Event::ReadEnds { server, start });
            }
            DiskEvent::Gone => {}
        }
    }

    /// Lets a server's background work go on, sends what that has to send, and sees to when it is
    /// woken for more.
    pub(super) fn maintain(&mut self, server: usize) {
        for (gateway, peer, reply) in self.servers[server].maintain(self.now) {
            let store = self.servers[server].store();
            let confirmations = &mut self.invariants.confirmations;
            let checked = confirmations.look_at_late(server, peer, &reply, store);
            self.report(checked);
            let route = Route {
                gateway,
                server,
                direction: Direction::ToGateway,
            };
            self.send(route, peer, reply, self.now);
        }
        let due = self.servers[server].next_timeout();
        if let Some(due) = due.map(|due| due.max(self.now))
            && self.server_wakes[server].is_none_or(|wake| due < wake)
        {
            self.server_wakes[server] = Some(due);
            self.queue.enter(due, Event::ServerWakes { server });
        }
    }

    fn note_sending(&mut self, number: u64, route: Route, datagram: &Bytes, fate: &Fate) {
        let what = match fate {
            Fate::Cut => [0, 0],
            Fate::Lost => [1, 0],
            Fate::Arrives(first, again) => {
                let after = |arrival: &Arrival| arrival.after.as_nanos() as u64;
                [after(first), again.as_ref().map_or(0, after)]
            }
        };
        let link = (route.gateway * 64 + route.server) * 2 + route.direction as usize;
        let numbers = [number, link as u64, digest(datagram), what[0], what[1]];
        let leaves = self.now;
        self.log.enter(self.now, Line::Sent, &numbers, || {
            let (gateway, server) = (route.gateway, route.server);
            let ends = match route.direction {
                Direction::ToServer => format!("gw{gateway} -> s{server}"),
                Direction::ToGateway => format!("s{server} -> gw{gateway}"),
            };
            let arrives = |arrival: &Arrival| {
                let damaged = if arrival.is_damaged { " damaged" } else { "" };
                format!("{}{damaged}", leaves + arrival.after)
            };
            let fate = match fate {
                Fate::Cut => "cut off".into(),
                Fate::Lost => "lost".into(),
                Fate::Arrives(first, None) => format!("due {}", arrives(first)),
                Fate::Arrives(first, Some(again)) => {
                    format!("due {} and {}", arrives(first), arrives(again))
                }
            };
            format!("{ends} [{number}] {}; {fate}", words(datagram))
        });
    }

    /// A datagram has come to where it was due.
    pub(super) fn note_arrival(
        &mut self,
        number: u64,
        is_taken: bool,
        at: impl FnOnce() -> String,
    ) {
        let line = if is_taken {
            Line::Arrived
        } else {
            Line::Dropped
        };
        self.log.enter(self.now, line, &[number], || {
            let verb = if is_taken { "arrives" } else { "is dropped" };
            format!("[{number}] {verb} at {}", at())
        });
    }
}

//! What the clients of the original system do in a world: when they ask, what, and what they make of
//! the replies.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::record::Content;
use dkvs_common::ring::Position;
use dkvs_common::wire::v1::{encode_get, encode_put};

use super::c_client::{State, Waiting};
use super::chance::Chance;
use super::log::Line;
use super::network::{Direction, Route};
use super::statistics::Count;
use super::values;
use super::world::{Event, Phase, World};
use crate::history::agreement::Replica;
use crate::history::{Action, Reply};

/// How long it waits.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Most bytes of a value, and of one that fits no datagram of DKVS/2.
const SHORT_BYTES_MAX: usize = 64;
const LONG_BYTES_MAX: usize = 4_000;
const LONG: Chance = Chance::percent(10);

/// How often a put asks for the confirmation of a single server, whatever its key has.
const CARELESS: Chance = Chance::percent(15);

impl World {
    /// A client thinks for a while.
    pub(super) fn let_c_client_think(&mut self, client: usize) {
        let thinks = self.plan.workload.thinks;
        let after = thinks.draw(&mut self.c_clients[client].random);
        let at = self.now + after + Duration::from_nanos(1);
        self.queue.enter(at, Event::CClientTurn { client });
    }

    /// A client has thought: it asks for something, as long as the world's other clients do.
    pub(super) fn take_c_client_turn(&mut self, client: usize) {
        let Some(v1) = &self.plan.v1 else { return };
        if self.phase != Phase::Chaos {
            return;
        }
        let shared: Vec<usize> = (0..self.plan.keys.len())
            .filter(|key| v1.is_shared[*key])
            .collect();
        let requester = &mut self.c_clients[client];
        let key = requester.random.one_of(&shared);
        let is_read = v1.reads.happens(&mut requester.random);
        let plan = &self.plan.keys[key];
        let quorum = match is_read {
            true => plan.read,
            false if CARELESS.happens(&mut requester.random) => {
                Quorum::new(plan.write.n(), 1).expect("one of n is a quorum")
            }
            false => plan.write,
        };
        self.ask_by_c_client(client, key, is_read, quorum);
    }

    /// A client writes a key to all of its servers.
    pub(super) fn begin_final_write(&mut self, key: usize) {
        let n = self.plan.keys[key].write.n();
        let all = Quorum::new(n, n).expect("all of n is a quorum");
        self.ask_by_c_client(0, key, false, all);
    }

    fn ask_by_c_client(&mut self, client: usize, key: usize, is_read: bool, quorum: Quorum) {
        let requester = &mut self.c_clients[client];
        let name = &self.plan.keys[key].key;
        let action = match is_read {
            true => Action::Read,
            false => Action::Write(self.ledger.next_number() as u64),
        };
        let is_long = LONG.happens(&mut requester.random);
        let bytes_max = if is_long {
            LONG_BYTES_MAX
        } else {
            SHORT_BYTES_MAX
        };
        let value_bytes = requester.random.below(bytes_max);
        let datagram = match action {
            Action::Write(number) => {
                let Content::Value { value, .. } = values::content(number, value_bytes) else {
                    return;
                };
                encode_put(name, &value)
            }
            _ => encode_get(name),
        };
        let datagram = datagram.expect("keys and values here are short and have no NUL");
        let list = self
            .view
            .ring()
            .preference_list(Position::of_key(name), usize::from(quorum.n()));
        let caller = self.names;
        self.names += 1;
        let level = Level::Agreement;
        let operation = self
            .ledger
            .enter(caller, key, action, level, value_bytes, self.now);
        let ends = self.now + TIMEOUT;
        let entry = self.ledger.entry_mut(operation);
        entry.deadline = ends;
        entry.c_quorum = Some(quorum);
        self.statistics.count(Count::COperations);
        let (gateway, socket) = (requester.gateway, requester.open_socket());
        let numbers = [client as u64, operation as u64];
        self.log.enter(self.now, Line::Requested, &numbers, || {
            let (needed, n) = (quorum.required(), quorum.n());
            format!(
                "C client {client} asks for {action:?} of k{}: {needed} of {n}",
                key + 1
            )
        });
        requester.state = State::Waits(Waiting {
            operation,
            socket,
            list: list.clone(),
            quorum,
            replies: BTreeMap::new(),
        });
        for point in list {
            let route = Route {
                gateway,
                server: usize::from(point.server.0),
                direction: Direction::ToServer,
            };
            self.send(route, socket, datagram.clone(), self.now);
        }
        self.queue
            .enter(ends, Event::CClientEnds { client, operation });
    }

    /// A datagram arrives at a client's socket.
    pub(super) fn answer_c_client(
        &mut self,
        client: usize,
        socket: SocketAddrV4,
        server: usize,
        datagram: Bytes,
    ) -> bool {
        let State::Waits(waiting) = &mut self.c_clients[client].state else {
            return false;
        };
        let is_asked = waiting
            .list
            .iter()
            .any(|point| usize::from(point.server.0) == server);
        if waiting.socket != socket || !is_asked {
            return false;
        }
        waiting.replies.entry(server).or_insert(datagram);
        let operation = waiting.operation;
        let (action, all) = (
            self.ledger.entry(operation).operation.action,
            waiting.list.len(),
        );
        let (reply, replicas) = waiting.outcome(action);
        if reply != Reply::Unknown || waiting.replies.len() == all {
            self.end_c_client(client, reply, replicas);
        }
        true
    }

    /// A client's time is up, if it still waits for this.
    pub(super) fn time_out_c_client(&mut self, client: usize, operation: usize) {
        let State::Waits(waiting) = &self.c_clients[client].state else {
            return;
        };
        if waiting.operation == operation {
            self.end_c_client(client, Reply::Unknown, Vec::new());
        }
    }

    fn end_c_client(&mut self, client: usize, reply: Reply, replicas: Vec<Replica>) {
        let state = std::mem::replace(&mut self.c_clients[client].state, State::Idle);
        let State::Waits(waiting) = state else { return };
        let entry = self.ledger.entry_mut(waiting.operation);
        entry.replicas = replicas;
        entry.end(reply, self.now);
        let numbers = [client as u64, waiting.operation as u64];
        self.log.enter(self.now, Line::Answered, &numbers, || {
            format!("C client {client} makes {reply:?} of the replies")
        });
        if self.phase == Phase::Chaos {
            self.let_c_client_think(client);
        }
    }
}

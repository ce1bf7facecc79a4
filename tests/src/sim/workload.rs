//! How clients send operations, and what they do with an answer and without one.

use dkvs_client::core::AdmissionError;
use dkvs_common::quorum::conditional::ConditionalOutcome;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::read::{Read, ReplicaStanding};
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::write::{Write, WriteResponse};
use dkvs_common::ring::{Position, RingPoint};

use super::client::State;
use super::gateway::Stimulus;
use super::invariants::{convergence, deadlines, provenance, registers, shares};
use super::ledger::Entry;
use super::log::Line;
use super::request::{Answer, Refused, Request, Response};
use super::statistics::Count;
use super::v1_plan::Dialect;
use super::world::{Event, Phase, World};
use crate::history::{Action, Reply};

impl World {
    /// A client thinks for a while.
    pub(super) fn let_think(&mut self, client: usize) {
        let thinks = self.clients[client].thinks();
        let at = self.now + thinks;
        self.queue.enter(at, Event::ClientTurn { client });
    }

    /// A client has thought.
    pub(super) fn take_client_turn(&mut self, client: usize) {
        let requester = &mut self.clients[client];
        let operation = match requester.state {
            State::Waits { .. } | State::Rests => return,
            State::Thinks => None,
            State::Retries { operation } => Some(operation),
        };
        let is_enough = self.ledger.next_number() >= self.plan.workload.operations;
        if operation.is_none() && is_enough {
            requester.state = State::Rests;
            let rest = |client: &super::client::Client| client.state == State::Rests;
            if self.clients.iter().all(rest) {
                self.heal();
                self.phase = Phase::Healed;
                self.expect_convergence();
            }
            return;
        }
        let up = |gateway: &usize| self.gateways[*gateway].is_up();
        let up: Vec<usize> = (0..self.plan.gateways.len()).filter(up).collect();
        let Some(gateway) = requester.choose(&up) else {
            return self.let_think(client);
        };
        let (keys, ledger) = (&self.plan.keys, &mut self.ledger);
        let request = match operation {
            None => requester.begin(keys, ledger, self.now),
            Some(operation) => requester.repeat(operation, keys, ledger, self.now),
        };
        let operation = request.operation;
        requester.state = State::Waits { operation, gateway };
        if let Some(after) = requester.leaves_after(request.timeout) {
            let event = Event::ClientLeaves {
                client,
                operation,
                attempt: request.attempt,
            };
            self.queue.enter(self.now + after, event);
        }
        self.ask(gateway, request);
    }

    /// A client goes away, if it still waits for this.
    pub(super) fn take_client_leave(&mut self, client: usize, operation: usize, attempt: u32) {
        let State::Waits {
            operation: waits_for,
            gateway,
        } = self.clients[client].state
        else {
            return;
        };
        if waits_for == operation && self.ledger.entry(operation).attempts == attempt {
            let is_write = self.ledger.entry(operation).operation.action != Action::Read;
            self.stimulate_gateway(
                gateway,
                Stimulus::Gone {
                    operation,
                    is_write,
                },
            );
            self.abandon(client, operation, "it goes away");
        }
    }

    /// A request goes to a gateway.
    pub(super) fn ask(&mut self, gateway: usize, request: Request) {
        let Request {
            operation, attempt, ..
        } = request;
        let entry = self.ledger.entry(operation);
        let is_again = attempt > 1;
        self.statistics.count(match entry.operation.action {
            _ if is_again => Count::Resubmissions,
            Action::Read => Count::Reads,
            Action::Write(_) => Count::Writes,
            Action::Delete => Count::Deletes,
            Action::Conditional { .. } => Count::ConditionalWrites,
        });
        let numbers = [operation as u64, gateway as u64, entry.deadline.0];
        self.log.enter(self.now, Line::Requested, &numbers, || {
            let Request { quorum, level, .. } = request;
            let (needed, n) = (quorum.required(), quorum.n());
            let again = if is_again { " again" } else { "" };
            let what = entry.words();
            let deadline = entry.deadline;
            format!("{what} asks gw{gateway}{again}: {needed} of {n}, {level}, by {deadline}")
        });
        if !self.stimulate_gateway(gateway, Stimulus::Request(request)) {
            let answer = Answer {
                operation,
                attempt,
                deadline: self.now,
                response: Response::NotBegun,
                refused: None,
            };
            self.handle_answer(gateway, answer);
        }
    }

    /// A gateway answers.
    pub(super) fn handle_answer(&mut self, gateway: usize, answer: Answer) {
        let resumed = self.gateways[gateway].resumed;
        let mut checked = deadlines::check(&answer, resumed, self.now);
        let is_open = shares::check(&answer, self.now).unwrap_or_else(|violation| {
            checked = checked.clone().and(Err(violation));
            false
        });
        match &answer.refused {
            Some(Refused {
                error: AdmissionError::ShareTaken { .. },
                ..
            }) => self.statistics.count(Count::RefusedByShare),
            Some(Refused {
                error: AdmissionError::Overloaded { .. },
                ..
            }) => self.statistics.count(Count::RefusedAsFull),
            _ => {}
        }
        let Answer {
            operation,
            attempt,
            response,
            ..
        } = answer;
        let entry = self.ledger.entry(operation);
        if !entry.waits_for(attempt) {
            // The client went away before the gateway noticed.
            return self.report(checked);
        }
        let key = entry.operation.key as usize;
        let may_fall_back = entry.may_fall_back && self.may_be_less(key, &response);
        checked = checked.and(registers::check_level(entry, &response, may_fall_back));
        let reply = match &response {
            Response::Read(read) => {
                let is_by_v1 = self.is_touched_by_v1(key);
                let reply = provenance::reply(read, key as u32, &self.ledger, is_by_v1);
                reply.unwrap_or_else(|violation| {
                    checked = Err(violation);
                    Reply::Unknown
                })
            }
            Response::Write(write, tag) => {
                let confirmations = &self.invariants.confirmations;
                let is_v1 = |server| self.plan.dialect(server) == Dialect::V1;
                let key = &self.plan.keys[key].key;
                let claims = confirmations.check(key, write, *tag, is_v1);
                checked = checked.and(claims);
                if !self.promises_less {
                    let completion = &mut self.invariants.completion;
                    let counted = completion.look_at_write(key, write, *tag, &self.servers);
                    checked = checked.and(counted);
                }
                entry.reply_of_write(write)
            }
            Response::WriteIf(result) => {
                if !self.promises_less {
                    let completion = &mut self.invariants.completion;
                    let key = &self.plan.keys[key].key;
                    let counted = completion.look_at_conditional(key, result, &self.servers);
                    checked = checked.and(counted);
                }
                let value = |tag| self.versions.get(&(key, tag)).copied();
                entry.reply_of_conditional(result.outcome, value)
            }
            Response::NotBegun => entry.reply_of_none(),
        };
        let version = match (&response, reply) {
            (Response::Read(read), Reply::Holds(value)) => {
                read.current().map(|(tag, ..)| (tag, value))
            }
            (Response::Write(_, Some(tag)), _) => Some((*tag, entry.operation.written())),
            (Response::WriteIf(result), Reply::Done) => match result.outcome {
                ConditionalOutcome::Committed(tag) => Some((tag, entry.operation.written())),
                _ => None,
            },
            _ => None,
        };
        if matches!(reply, Reply::Failed(_)) {
            self.statistics.count(Count::ConditionsFailed);
        }
        if let Some((tag, value)) = version {
            self.versions.insert((key, tag), value);
        }
        if is_open && entry.waits_for_all {
            self.statistics.count(Count::EndedEarly);
        }
        if let Phase::Reading { is_last, .. } = self.phase {
            let is_partial = is_open || matches!(response, Response::NotBegun);
            if is_partial && !is_last {
                self.unread.push(key);
            } else {
                let is_by_v1 = self.is_touched_by_v1(key);
                let plan = &self.plan.keys[key];
                if self.can_be_read(plan) {
                    let level = if is_by_v1 {
                        Level::Agreement
                    } else {
                        plan.level
                    };
                    checked = checked.and(convergence::check_read(&plan.key, level, &response));
                    let r = usize::from(plan.read.required());
                    let is_of_records = is_by_v1 && !self.has_v1_servers(key);
                    if is_of_records && 2 * r > usize::from(plan.read.n()) {
                        let records = &mut self.invariants.v1_records;
                        checked = checked.and(records.check_read(key, plan.key.as_bytes(), reply));
                    }
                }
            }
        }
        self.report(checked);
        self.measure(&response, reply);
        let now = self.now;
        let entry = self.ledger.entry_mut(operation);
        match (&response, version) {
            (Response::Write(_, Some(tag)), _) => entry.tag = Some(*tag),
            (Response::WriteIf(_), Some((tag, _))) => entry.tag = Some(tag),
            _ => {}
        }
        if let Response::WriteIf(result) = &response {
            entry.attempt = result.attempt.or(entry.attempt);
        }
        entry.replicas = registers::replica_answers(&response);
        if let Some(level) = registers::level(&response)
            && level != entry.level
        {
            entry.level = level;
            self.statistics.count(Count::FallenBack);
        }
        entry.end(reply, now);
        let entry = self.ledger.entry(operation);
        let numbers = [operation as u64, reply_number(reply)];
        self.log.enter(now, Line::Answered, &numbers, || {
            let standings = standings(&response);
            format!(
                "gw{gateway} answers {reply:?} to {}{standings}",
                entry.words()
            )
        });
        if let Some(client) = entry.requester {
            let may_retry = entry.may_be_retried();
            let attempts = entry.attempts;
            let requester = &mut self.clients[client];
            if let (Some((tag, Some(value))), Reply::Holds(_) | Reply::Done) = (version, reply) {
                requester.seen.insert(key, (tag, value));
            }
            requester.state = match may_retry && requester.retries(attempts) {
                true => State::Retries { operation },
                false => State::Thinks,
            };
            self.let_think(client);
        }
    }

    /// A gateway has died. Its clients never learn the outcome of their requests.
    pub(super) fn abandon_clients(&mut self, gateway: usize) {
        for client in 0..self.clients.len() {
            let State::Waits {
                operation,
                gateway: asked,
            } = self.clients[client].state
            else {
                continue;
            };
            if asked != gateway {
                continue;
            }
            self.abandon(client, operation, "the gateway dies");
        }
    }

    /// A client never learns the outcome of an attempt.
    fn abandon(&mut self, client: usize, operation: usize, why: &str) {
        self.statistics.count(Count::Abandoned);
        let entry = self.ledger.entry_mut(operation);
        entry.abandon();
        let numbers = [operation as u64, u64::MAX];
        self.log.enter(self.now, Line::Answered, &numbers, || {
            format!("{} has no answer: {why}", entry.words())
        });
        let may_retry = entry.may_be_retried();
        let attempts = entry.attempts;
        let requester = &mut self.clients[client];
        if may_retry && requester.retries(attempts) {
            requester.state = State::Retries { operation };
        } else {
            requester.state = State::Thinks;
            requester.name = self.names;
            self.names += 1;
        }
        self.let_think(client);
    }

    /// Whether records or servers of DKVS/1 can have to do with a key.
    pub(super) fn is_touched_by_v1(&self, key: usize) -> bool {
        self.plan.is_shared(key) || self.has_v1_servers(key)
    }

    /// Whether a server of a key speaks DKVS/1 only.
    pub(super) fn has_v1_servers(&self, key: usize) -> bool {
        let plan = &self.plan.keys[key];
        let n = usize::from(plan.read.n().max(plan.write.n()));
        let list = self
            .view
            .ring()
            .preference_list(Position::of_key(&plan.key), n);
        let dialect = |point: &RingPoint| self.plan.dialect(usize::from(point.server.0));
        list.iter().any(|point| dialect(point) == Dialect::V1)
    }

    /// Whether the answer to a request for a key may have a lower level than the request.
    fn may_be_less(&self, key: usize, response: &Response) -> bool {
        let is_read = matches!(response, Response::Read(_));
        self.has_v1_servers(key) || (is_read && self.plan.is_shared(key))
    }

    fn measure(&mut self, response: &Response, reply: Reply) {
        match response {
            Response::Read(read) => {
                if is_split(read) {
                    self.statistics.count(Count::SplitReads);
                }
                let mut standings = read.replicas().iter().map(|replica| read.standing(replica));
                if standings.any(|standing| standing == ReplicaStanding::Repaired) {
                    self.statistics.count(Count::RepairingReads);
                }
            }
            Response::Write(write, _) if reply == Reply::Done && is_overtaken(write) => {
                self.statistics.count(Count::OvertakenWrites);
            }
            _ => {}
        }
    }
}

impl Entry {
    /// The client and its operation.
    fn words(&self) -> String {
        let operation = &self.operation;
        let (client, key) = (operation.client, operation.key + 1);
        match operation.action {
            Action::Read => format!("c{client}: read of k{key}"),
            Action::Write(number) => format!("c{client}: write of k{key} = v{number}"),
            Action::Delete => format!("c{client}: delete of k{key}"),
            Action::Conditional { expects, then } => {
                let then = then.map_or("nothing".into(), |number| format!("v{number}"));
                format!("c{client}: write of k{key} = {then} in the place of {expects}")
            }
        }
    }
}

/// A number for a reply, for the log.
fn reply_number(reply: Reply) -> u64 {
    match reply {
        Reply::Holds(Some(number)) => number + 4,
        Reply::Holds(None) => 0,
        Reply::Done => 1,
        Reply::NotDone => 2,
        Reply::Unknown => 3,
        Reply::Failed(value) => u64::MAX / 2 + value.map_or(0, |number| number + 1),
    }
}

/// Whether the replicas that answered a read hold different versions.
fn is_split(read: &Read) -> bool {
    let mut tags = read
        .replicas()
        .iter()
        .filter_map(|replica| match &replica.state {
            ReplicaState::Responded(answer) => Some(answer.tag()),
            _ => None,
        });
    let first = tags.next();
    tags.any(|tag| Some(tag) != first)
}

/// Whether a replica held something newer than what was written.
fn is_overtaken(write: &Write) -> bool {
    let mut replicas = write.replicas().iter();
    replicas.any(|replica| {
        matches!(
            replica.state,
            ReplicaState::Responded(WriteResponse::Superseded(_))
        )
    })
}

/// Where every replica stands, in words.
fn standings(response: &Response) -> String {
    let words: Vec<String> = match response {
        Response::Read(read) => {
            let words = read.replicas().iter().map(|replica| {
                let standing = read.standing(replica);
                format!("s{} {standing:?}", replica.server.0)
            });
            words.collect()
        }
        Response::Write(write, _) => {
            let words = write.replicas().iter().map(|replica| match replica.state {
                ReplicaState::Responded(WriteResponse::Superseded(_)) => {
                    format!("s{} Superseded", replica.server.0)
                }
                word => format!("s{} {word:?}", replica.server.0),
            });
            words.collect()
        }
        Response::WriteIf(result) => {
            let words = result.states.iter();
            let words = words.map(|(server, state)| format!("s{} {state:?}", server.0));
            let states: Vec<String> = words.collect();
            return format!(": {:?} ({})", result.outcome, states.join(", "));
        }
        Response::NotBegun => return ": not begun".into(),
    };
    format!(" ({})", words.join(", "))
}

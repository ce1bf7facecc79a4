//! When which peer is compared with, and what is pulled from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{LeafEntry, LeafScope, Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::ring::Position;

use super::comparison::{Comparison, Next};
use super::completing::Completing;
use super::finishing::{Finish, Finishing};
use super::mending::Mending;
use super::pulling::{is_held, is_newer};
use super::session::{LeafLook, Session, Waits};
use super::state::{AntiEntropy, Ask, Asked, Marking, Timing};
use crate::allowance::Allowance;
use crate::service::Service;
use crate::store::RecordStore as _;

/// Most peers that are compared with at a time.
const SESSIONS_MAX: usize = 4;

/// Most records that are pulled at a time.
const PULLS_MAX: usize = 64;

/// With so many under way from a peer, no more of what it holds is read.
const PULLS_AHEAD_MAX: usize = 32;

impl AntiEntropy {
    /// The anti-entropy of a server that knows its cluster; none of another. It pulls at most so many
    /// bytes a second, which are not 0. `wake` is called when [`Self::handle_wake`] is to be.
    pub fn new(
        service: Arc<Service>,
        timing: Timing,
        bytes_per_second: u64,
        now: Instant,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let leaf_sums = Arc::clone(service.leaf_sums()?);
        let membership = leaf_sums.membership();
        let addr = membership.view.cluster().addr(membership.own)?;
        let peers = leaf_sums.peers();
        let completing = Completing::new(&leaf_sums, now + timing.settling);
        service.counters.peers.set(peers.len() as u64);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(wake);
        service.nudges().wake_by(Arc::clone(&wake));
        let mending = Mending::new(Arc::clone(&service), timing.interval, &wake);
        let finishing = Finishing::new(Arc::clone(&service), timing.finish, timing.answer, now);
        let mut machine = Self {
            service,
            leaf_sums,
            addr,
            timing,
            allowance: Allowance::new(bytes_per_second),
            peers: peers.into_iter().map(|peer| (peer, now)).collect(),
            patience: BTreeMap::new(),
            resume: BTreeMap::new(),
            in_step: BTreeSet::new(),
            sessions: BTreeMap::new(),
            behind: BTreeMap::new(),
            nudged: BTreeSet::new(),
            completing,
            asks: VecDeque::new(),
            asked: BTreeMap::new(),
            numbers: 0,
            pulling: BTreeSet::new(),
            mending,
            finishing,
            stored: Arc::default(),
            wake,
            marking: Marking::default(),
        };
        machine.begin_start(now);
        Some(machine)
    }

    /// The next thing to ask a peer.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// The next conditional write to be made once more. What comes of it shows in the store.
    pub fn poll_finish(&mut self) -> Option<Finish> {
        self.finishing.poll()
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_starting() {
            return self.next_mark();
        }
        let has_place = self.sessions.len() < SESSIONS_MAX;
        let idle = self.peers.iter().filter(|_| has_place);
        let idle = idle.filter(|(peer, _)| !self.sessions.contains_key(peer));
        let sessions = self.sessions.values();
        let waiting = sessions.filter_map(|session| match session.waits {
            Waits::Until(at) => Some(at),
            Waits::Not | Waits::Mark | Waits::Answer | Waits::Pulls => None,
        });
        let mending = self.mending.poll_timeout();
        let nudges = self.behind.values().copied();
        let idle = idle.map(|(_, at)| *at);
        let others = mending.into_iter().chain(nudges);
        let others = others.chain([self.finishing.due()]);
        waiting.chain(idle).chain(others).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.go_on_with_start(now);
        if self.is_starting() {
            return;
        }
        let due = self.peers.iter().filter(|(_, at)| **at <= now);
        let due = due.map(|(peer, _)| *peer);
        let idle: Vec<ServerId> = due.filter(|it| !self.sessions.contains_key(it)).collect();
        for peer in idle {
            if self.sessions.len() < SESSIONS_MAX {
                self.begin(peer, self.leaf_sums.depth(), now);
                let is_told = self.tell_mark(peer);
                if let Some(session) = self.sessions.get_mut(&peer).filter(|_| is_told) {
                    session.waits = Waits::Mark;
                }
            }
        }
        self.pass_nudges_on(now);
        self.finishing.handle_timeout(now);
        self.advance_all(now);
    }

    /// A peer has answered, or has not in time.
    pub fn handle_answer(&mut self, id: u64, answer: Option<ReplicaResponse>, now: Instant) {
        let Some((peer, asked)) = self.asked.remove(&id) else {
            return;
        };
        match asked {
            Asked::Sums => self.handle_sums(peer, answer, now),
            Asked::Entries { leaf } => self.handle_entries(peer, leaf, answer, now),
            Asked::Record(pull) => self.handle_record(pull, answer),
            Asked::Mend(mend) => self
                .mending
                .handle_answer(mend, answer, &mut self.allowance),
            Asked::HighWater => self.handle_mark_answer(peer, answer.as_ref(), now),
            Asked::Nudge { again } => self.handle_nudge_answer(peer, again, answer.as_ref()),
        }
        self.advance_all(now);
    }

    /// Takes note of what has been stored of what was pulled, and of what other servers have said.
    pub fn handle_wake(&mut self, now: Instant) {
        self.handle_nudges(now);
        let stored =
            std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner));
        for (pull, result) in stored {
            self.end_pull(&pull, Some(result));
        }
        self.advance_all(now);
    }

    fn begin(&mut self, peer: ServerId, depth: u8, now: Instant) {
        let shared = self.leaf_sums.shared_with(peer, depth);
        let from = self.resume.get(&peer).copied().unwrap_or(0);
        let number = self.numbers;
        self.numbers += 1;
        let session = Session {
            number,
            comparison: Comparison::new(shared.count(), from, self.completing.is_some()),
            shared,
            waits: Waits::Not,
            leaves: None,
            after: None,
            newer: VecDeque::new(),
            looks: BTreeMap::new(),
            begun: now,
            pulls: 0,
            has_pulled: false,
            has_failed: false,
            differs: false,
            behind: 0,
        };
        self.sessions.insert(peer, session);
    }

    fn advance_all(&mut self, now: Instant) {
        let peers: Vec<ServerId> = self.sessions.keys().copied().collect();
        for peer in peers {
            self.advance(peer, now);
        }
        while let Some((peer, mend)) = self.mending.poll(&mut self.allowance, now) {
            let key = mend.key.clone();
            self.ask(peer, ReplicaCommand::Get { key }, Asked::Mend(mend));
        }
    }

    /// Goes on with a peer, until there is something to wait for.
    fn advance(&mut self, peer: ServerId, now: Instant) {
        loop {
            let allowed_at = self.allowance.ready_at(now);
            let has_place = self.asked.len() < PULLS_MAX + SESSIONS_MAX;
            let Some(session) = self.sessions.get_mut(&peer) else {
                return;
            };
            match session.waits {
                Waits::Mark | Waits::Answer => return,
                Waits::Not | Waits::Until(_) | Waits::Pulls => {}
            }
            let scope_depth = session.shared.depth();
            let Some(leaves) = &session.leaves else {
                match session.comparison.next(now, self.timing.pause) {
                    Next::Ask(question) => {
                        session.waits = Waits::Answer;
                        let command = ReplicaCommand::GetLeafSums {
                            scope: self.scope(scope_depth),
                            first: question.first,
                            leaves_per_sum: question.leaves_per_sum,
                            sums_max: question.sums_max,
                        };
                        self.ask(peer, command, Asked::Sums);
                    }
                    Next::Wait(at) => {
                        session.waits = Waits::Until(at);
                        return;
                    }
                    Next::Differ(mut leaves) => {
                        let counters = &self.service.counters;
                        counters.leaves_differing.add(leaves.len() as u64);
                        session.differs = !leaves.is_empty() || session.comparison.is_ahead();
                        session.behind = session.comparison.behind();
                        leaves.reverse();
                        session.leaves = Some(leaves);
                    }
                }
                continue;
            };
            let leaf = leaves.last().copied();
            if allowed_at > now {
                session.waits = Waits::Until(allowed_at);
                return;
            }
            if !session.newer.is_empty() && !has_place {
                session.waits = Waits::Pulls;
                return;
            }
            if let Some((leaf, entry)) = session.newer.pop_front() {
                self.pull(peer, leaf, entry);
                continue;
            }
            let pulls_max = leaf.map_or(1, |_| PULLS_AHEAD_MAX);
            if session.pulls >= pulls_max {
                session.waits = Waits::Pulls;
                return;
            }
            let Some(leaf) = leaf else {
                return self.end(peer, now);
            };
            session.waits = Waits::Answer;
            let after = session.after.clone();
            let command = ReplicaCommand::GetLeafEntries {
                scope: self.scope(scope_depth),
                leaf,
                after,
            };
            self.ask(peer, command, Asked::Entries { leaf });
        }
    }

    fn scope(&self, depth: u8) -> LeafScope {
        LeafScope {
            asker: self.addr,
            replication: self.leaf_sums.membership().replication,
            depth,
        }
    }

    fn handle_sums(&mut self, peer: ServerId, answer: Option<ReplicaResponse>, now: Instant) {
        let Some(mut session) = self.sessions.remove(&peer) else {
            return;
        };
        session.waits = Waits::Not;
        let Some(ReplicaResponse::LeafSums { depth, sums }) = answer else {
            let is_other = matches!(answer, Some(ReplicaResponse::Refused(Refusal::Unsupported)));
            return self.put_off(peer, is_other, now);
        };
        if depth < session.shared.depth() {
            // Its leaves are coarser: once more, by those.
            return self.begin(peer, depth, now);
        }
        let own = |first, count| self.leaf_sums.sum(&session.shared, first, count);
        if !session.comparison.handle_sums(&sums, own) {
            return self.put_off(peer, false, now);
        }
        for (first, count) in session.comparison.take_answered() {
            self.note_compared(peer, &session, first, count);
        }
        self.sessions.insert(peer, session);
    }

    fn handle_entries(
        &mut self,
        peer: ServerId,
        leaf: u32,
        answer: Option<ReplicaResponse>,
        now: Instant,
    ) {
        let Some(ReplicaResponse::LeafEntries {
            has_more,
            is_answered,
            entries,
        }) = answer
        else {
            self.sessions.remove(&peer);
            return self.put_off(peer, false, now);
        };
        let Some(session) = self.sessions.get_mut(&peer) else {
            return;
        };
        let positions = session.shared.positions(leaf);
        let is_of_leaf = |entry: &LeafEntry| {
            let position = Position::of_key(&entry.key);
            positions.is_some_and(|positions| positions.contains(position))
        };
        let after = entries.last().map(|entry| entry.key.clone());
        let store = self.service.store();
        let mut look = session.looks.remove(&leaf).unwrap_or(LeafLook {
            is_covered: true,
            pulls: 0,
            is_read: false,
        });
        look.is_covered &= is_answered || mutants::is_on(Mutant::CompletedByIncomplete);
        look.is_read = !has_more;
        let listed = entries.into_iter().filter(is_of_leaf);
        for entry in listed {
            let held = store.peek(&entry.key);
            if is_newer(held, &entry) {
                look.pulls += 1;
                session.newer.push_back((leaf, entry));
            } else {
                look.is_covered &= is_held(held, entry.version.tag);
            }
        }
        session.looks.insert(leaf, look);
        session.waits = Waits::Not;
        match has_more {
            true => session.after = after,
            false => {
                session.after = None;
                if let Some(leaves) = &mut session.leaves {
                    leaves.pop();
                }
            }
        }
        self.end_look(peer, leaf);
    }

    /// A session has ended.
    fn end(&mut self, peer: ServerId, now: Instant) {
        let Some(session) = self.sessions.remove(&peer) else {
            return;
        };
        self.service.counters.comparisons.add(1);
        self.note_in_step(peer, !session.differs);
        let timing = self.timing;
        let is_cut = session.comparison.is_cut();
        match is_cut {
            true => self.resume.insert(peer, session.behind),
            false => self.resume.remove(&peer),
        };
        if !session.differs || session.has_pulled {
            self.patience.remove(&peer);
        }
        let after = match session {
            _ if session.has_pulled && !session.has_failed => {
                // Perhaps there is more, and what was pulled is looked at once more.
                Duration::ZERO
            }
            // What could not be pulled, or is for the peer to pull.
            _ if session.has_failed || session.differs => {
                let patience = self.patience.entry(peer).or_insert(timing.retry);
                let after = *patience;
                *patience = (after * 2).min(timing.interval);
                after
            }
            _ => timing.interval,
        };
        let mut due = now + after;
        if self.nudged.remove(&peer) {
            due = due.min(now + self.timing.nudge);
        }
        if let Some(completing) = &mut self.completing {
            completing.remember(self.service.store());
            due = due.min(completing.from().max(now + timing.retry));
            if completing.is_done() {
                self.completing = None;
                tracing::info!(
                    "the server holds all that it ever confirmed, and answers for all its keys"
                );
            }
        }
        self.peers.insert(peer, due);
        self.service.wake_disk();
    }

    /// A peer did not answer; or it is one that does not compare itself, by its version or its settings.
    pub(super) fn put_off(&mut self, peer: ServerId, is_other: bool, now: Instant) {
        self.sessions.remove(&peer);
        self.note_in_step(peer, false);
        let after = match is_other {
            true => self.timing.interval,
            false => self.timing.retry,
        };
        self.peers.insert(peer, now + after);
    }

    fn note_in_step(&mut self, peer: ServerId, is_in_step: bool) {
        match is_in_step {
            true => self.in_step.insert(peer),
            false => self.in_step.remove(&peer),
        };
        let count = self.in_step.len() as u64;
        self.service.counters.peers_in_step.set(count);
    }
}

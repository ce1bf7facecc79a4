//! One attempt to have a record take the place of a version: single-decree Paxos among its replicas.
//!
//! ```text
//!   prepare to all --> a majority has promised --> accept to those --> a majority has accepted
//!         |                                             |                       |
//!         +-- another ballot, another version ----------+-- the same            v
//!                              |                                commit, or put where it was not accepted
//!                              v                                                |
//!                       the attempt ends                             w have stored it: done
//! ```
//!
//! What is proposed is the record that was accepted under the greatest ballot which a promise names, else the
//! attempt's own: so once a majority has accepted a record, no other one is ever agreed on. Only then is it
//! stored, so that the register of the key never has two records under one tag.
//!
//! Promises are not durable. So an accept goes only to replicas whose promises were taken into account in the
//! choice of the record, and names them; one whose promise comes later is included if it would have changed
//! nothing.

use std::collections::VecDeque;

use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{Refusal, ReplicaCommand, ReplicaResponse};
use crate::mutants::{self, Mutant};
use crate::quorum::params::Quorum;
use crate::quorum::threshold::Threshold;
use crate::quorum::transmit::{CommandId, Purpose, Transmit};
use crate::record::Record;
use crate::ring::PreferenceList;
use crate::slot::{Accepted, Ballot};
use crate::tag::Tag;

/// One attempt.
#[derive(Debug)]
pub struct Proposal {
    key: Key,
    base: Tag,
    ballot: Ballot,
    own: Record,
    /// Whether the version may be a tombstone.
    may_follow_tombstone: bool,
    members: Vec<Member>,
    /// Who has to promise, and to accept.
    majority: Threshold,
    /// Who has to store the record.
    threshold: Threshold,
    round: u32,
    phase: Phase,
    to_send: VecDeque<(usize, Purpose)>,
    outcome: Option<ProposalOutcome>,
}

/// One replica.
#[derive(Debug)]
struct Member {
    server: ServerId,
    state: MemberState,
    /// Its promise.
    grant: Option<u64>,
    /// What it had accepted when it promised.
    accepted: Option<Accepted>,
}

/// Where a replica stands in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It was asked for a promise.
    Preparing,
    /// It has promised.
    Promised,
    /// It was asked to accept.
    Accepting,
    /// It has accepted.
    Accepted,
    /// It was told to store the record.
    Committing,
    /// It has stored the record, or holds a newer one.
    Stored,
    /// It holds a newer version.
    Superseded(Tag),
    /// It holds an older version, or none.
    Behind(Tag),
    /// It has promised to another ballot.
    Preempted(Ballot),
    /// It refused.
    Refused(Refusal),
    /// It cannot be reached.
    Unreachable,
}

#[derive(Debug)]
enum Phase {
    Preparing,
    /// This is proposed; what was accepted under the ballot before, if it was.
    Accepting(Record, Option<Ballot>),
    Committing(Record),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// The replicas agreed on a record, and w have stored it; whether it is the attempt's own.
    Committed {
        /// It is.
        is_own: bool,
    },
    /// A replica has promised to another ballot, which is the greatest of these.
    Preempted(Ballot),
    /// Replicas hold another version, so that it has to be found out which is the newest.
    OtherVersion,
    /// The version is a tombstone, and nothing was accepted that is to follow it.
    Tombstone,
    /// Too few replicas can be reached, or do what they are asked.
    Failed,
}

impl Proposal {
    /// An attempt to have `own` follow `base`, which may be a tombstone or not, at the replicas of `list`.
    /// Commands have this `round`.
    pub fn new(
        key: Key,
        base: Tag,
        ballot: Ballot,
        (own, may_follow_tombstone): (Record, bool),
        (list, quorum): (&PreferenceList, Quorum),
        round: u32,
    ) -> Self {
        let member = |server| Member {
            server,
            state: MemberState::Preparing,
            grant: None,
            accepted: None,
        };
        let threshold = Threshold::of_quorum(list, quorum);
        Self {
            key,
            base,
            ballot,
            own,
            may_follow_tombstone,
            members: list.iter().map(|point| member(point.server)).collect(),
            majority: threshold.clone().at_least_majorities(),
            threshold,
            round,
            phase: Phase::Preparing,
            to_send: (0..list.len())
                .map(|place| (place, Purpose::Prepare))
                .collect(),
            outcome: None,
        }
    }

    /// The next command to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let (place, purpose) = self.to_send.pop_front()?;
            let Some(command) = self.command(place, purpose) else {
                continue;
            };
            return Some(Transmit {
                to: self.members[place].server,
                id: CommandId {
                    round: self.round,
                    purpose,
                },
                command,
            });
        }
    }

    fn command(&self, place: usize, purpose: Purpose) -> Option<ReplicaCommand> {
        let key = self.key.clone();
        let record = match &self.phase {
            Phase::Preparing => None,
            Phase::Accepting(record, _) | Phase::Committing(record) => Some(record),
        };
        Some(match purpose {
            Purpose::Prepare => ReplicaCommand::Prepare {
                key,
                base: self.base,
                ballot: self.ballot,
            },
            Purpose::Accept => ReplicaCommand::Accept {
                key,
                base: self.base,
                ballot: self.ballot,
                grant: self.members.get(place)?.grant?,
                record: record?.clone(),
            },
            Purpose::Commit => {
                let record = record?;
                ReplicaCommand::Commit {
                    key,
                    tag: record.tag,
                    checksum: record.checksum,
                    operation: record.attributes.operation,
                }
            }
            _ => ReplicaCommand::Put {
                key,
                record: record?.clone(),
            },
        })
    }

    /// `from` responded to a command of this attempt.
    pub fn handle_response(&mut self, from: ServerId, purpose: Purpose, response: ReplicaResponse) {
        let Some(place) = self.waiting(from, purpose) else {
            return;
        };
        match (purpose, response) {
            (
                Purpose::Prepare,
                ReplicaResponse::Promised {
                    grant,
                    is_tombstone,
                    accepted,
                },
            ) => return self.handle_promise(place, grant, is_tombstone, accepted),
            (Purpose::Accept, ReplicaResponse::Done) => {
                self.members[place].state = MemberState::Accepted;
            }
            (Purpose::Commit | Purpose::Put, ReplicaResponse::Done) => {
                self.members[place].state = MemberState::Stored;
            }
            // It has not accepted this record, and is given it.
            (Purpose::Commit, ReplicaResponse::Absent { .. }) => {
                self.to_send.push_back((place, Purpose::Put));
                return;
            }
            (Purpose::Commit | Purpose::Put, ReplicaResponse::Superseded { tag })
                if self.is_newer(tag) =>
            {
                self.members[place].state = MemberState::Stored;
            }
            (_, response) => {
                self.members[place].state = match response {
                    ReplicaResponse::Superseded { tag } => MemberState::Superseded(tag),
                    ReplicaResponse::Absent { tag, .. } => MemberState::Behind(tag),
                    ReplicaResponse::Preempted { promised } => MemberState::Preempted(promised),
                    ReplicaResponse::Refused(refusal) => MemberState::Refused(refusal),
                    // It does not fit.
                    _ => MemberState::Refused(Refusal::Internal),
                }
            }
        }
        self.decide();
    }

    /// A command cannot reach `to`.
    pub fn handle_unreachable(&mut self, to: ServerId, purpose: Purpose) {
        if let Some(place) = self.waiting(to, purpose) {
            self.members[place].state = MemberState::Unreachable;
            self.decide();
        }
    }

    /// The replica, if it waits for a response to such a command.
    fn waiting(&self, server: ServerId, purpose: Purpose) -> Option<usize> {
        let mut members = self.members.iter();
        let place = members.position(|member| member.server == server)?;
        let is_waiting = match self.members[place].state {
            MemberState::Preparing => purpose == Purpose::Prepare,
            MemberState::Accepting => purpose == Purpose::Accept,
            MemberState::Committing => matches!(purpose, Purpose::Commit | Purpose::Put),
            _ => false,
        };
        is_waiting.then_some(place)
    }

    /// Whether a record that a replica keeps is one that came after what was agreed on.
    fn is_newer(&self, held: Tag) -> bool {
        match &self.phase {
            Phase::Committing(record) => held > record.tag && !held.is_by_v1(),
            Phase::Preparing | Phase::Accepting(..) => false,
        }
    }

    fn handle_promise(
        &mut self,
        place: usize,
        grant: u64,
        is_tombstone: bool,
        accepted: Option<Accepted>,
    ) {
        let accepted = accepted
            .filter(|it| it.record.is_sound(&self.key) && it.record.tag.succeeds(self.base));
        let member = &mut self.members[place];
        member.state = MemberState::Promised;
        member.grant = Some(grant);
        member.accepted = accepted;
        match &self.phase {
            Phase::Preparing => self.choose(is_tombstone),
            Phase::Accepting(_, of) => {
                let of = *of;
                self.include(place, of);
            }
            Phase::Committing(_) => {}
        }
        self.decide();
    }

    /// Proposes a record, once enough replicas have promised.
    fn choose(&mut self, is_tombstone: bool) {
        let has_promised = |server| self.is_in(server, &[MemberState::Promised]);
        if self.outcome.is_some() || !self.majority.is_met(has_promised) {
            return;
        }
        let accepted = self
            .members
            .iter()
            .filter_map(|member| member.accepted.as_ref());
        let newest = accepted.max_by_key(|accepted| accepted.ballot);
        let newest = newest.filter(|_| !mutants::is_on(Mutant::AcceptedIgnored));
        let (record, of) = match newest {
            Some(Accepted { ballot, record }) => (record.clone(), Some(*ballot)),
            None if is_tombstone && !self.may_follow_tombstone => {
                self.outcome = Some(ProposalOutcome::Tombstone);
                return;
            }
            None => (self.own.clone(), None),
        };
        self.phase = Phase::Accepting(record, of);
        for place in 0..self.members.len() {
            self.include(place, of);
        }
    }

    /// Asks a replica that has promised to accept, if its promise was taken into account, or would have
    /// changed nothing.
    fn include(&mut self, place: usize, of: Option<Ballot>) {
        let member = &mut self.members[place];
        let accepted = member.accepted.as_ref().map(|accepted| accepted.ballot);
        let is_ignored = mutants::is_on(Mutant::AcceptedIgnored);
        if member.state == MemberState::Promised && (accepted <= of || is_ignored) {
            member.state = MemberState::Accepting;
            self.to_send.push_back((place, Purpose::Accept));
        }
    }

    fn decide(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        match &self.phase {
            Phase::Preparing => {
                let states = [MemberState::Promised];
                self.outcome = self.failure(&states, &[MemberState::Preparing]);
            }
            Phase::Accepting(record, _) => {
                if self
                    .majority
                    .is_met(|server| self.is_in(server, &[MemberState::Accepted]))
                {
                    let record = record.clone();
                    return self.commit(record);
                }
                // One that has promised and is not asked had accepted something that was not considered.
                let waiting = [MemberState::Preparing, MemberState::Accepting];
                self.outcome = self.failure(&[MemberState::Accepted], &waiting);
            }
            Phase::Committing(record) => {
                let is_stored = |server| self.is_in(server, &[MemberState::Stored]);
                if self.threshold.is_met(is_stored) {
                    let is_own = *record == self.own;
                    self.outcome = Some(ProposalOutcome::Committed { is_own });
                } else if !self.threshold.can_still_be_met(is_stored, |server| {
                    self.is_in(server, &[MemberState::Committing])
                }) {
                    self.outcome = Some(ProposalOutcome::Failed);
                }
            }
        }
    }

    /// The replicas have agreed: all of them are to store the record.
    fn commit(&mut self, record: Record) {
        let is_own = record == self.own;
        if is_own && mutants::is_on(Mutant::CommitSkipped) {
            self.outcome = Some(ProposalOutcome::Committed { is_own });
            return;
        }
        for (place, member) in self.members.iter_mut().enumerate() {
            let purpose = match member.state {
                MemberState::Accepted | MemberState::Accepting => Purpose::Commit,
                MemberState::Unreachable => continue,
                _ => Purpose::Put,
            };
            member.state = MemberState::Committing;
            self.to_send.push_back((place, purpose));
        }
        self.phase = Phase::Committing(record);
    }

    /// Why the attempt ends, if it does: a replica holds another version or has promised to another ballot,
    /// or too few are left.
    fn failure(&self, done: &[MemberState], waiting: &[MemberState]) -> Option<ProposalOutcome> {
        let states = || self.members.iter().map(|member| member.state);
        if states().any(|state| matches!(state, MemberState::Superseded(_))) {
            return Some(ProposalOutcome::OtherVersion);
        }
        let preempting = states().filter_map(|state| match state {
            MemberState::Preempted(ballot) => Some(ballot),
            _ => None,
        });
        if self.majority.is_met(|server| self.is_in(server, done)) {
            return None;
        }
        if let Some(ballot) = preempting.max() {
            return Some(ProposalOutcome::Preempted(ballot));
        }
        let is_possible = self.majority.can_still_be_met(
            |server| self.is_in(server, done),
            |server| self.is_in(server, waiting),
        );
        let is_behind = states().any(|state| matches!(state, MemberState::Behind(_)));
        match is_possible {
            true => None,
            false if is_behind => Some(ProposalOutcome::OtherVersion),
            false => Some(ProposalOutcome::Failed),
        }
    }

    fn is_in(&self, server: ServerId, states: &[MemberState]) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.server == server && states.contains(&member.state))
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<ProposalOutcome> {
        self.outcome
    }

    /// Whether any replica was asked to accept the attempt's own record.
    pub fn has_sent_own(&self) -> bool {
        match &self.phase {
            Phase::Preparing => false,
            Phase::Accepting(record, _) | Phase::Committing(record) => *record == self.own,
        }
    }

    /// What it proposes.
    pub fn own(&self) -> &Record {
        &self.own
    }

    /// Where each replica stands, in preference order.
    pub fn states(&self) -> impl Iterator<Item = (ServerId, MemberState)> {
        self.members
            .iter()
            .map(|member| (member.server, member.state))
    }
}

#[cfg(test)]
mod tests;

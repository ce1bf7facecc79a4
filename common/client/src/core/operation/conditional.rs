//! Writing a key if what is there meets a condition: what [`ConditionalWrite`] decides, by linearizable
//! reads and proposals, one after the other.
//!
//! Each of these is a stage, with rounds of its own: what comes back of an earlier stage changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::ReplicaResponse;
use dkvs_common::quorum::conditional::proposal::{MemberState, Proposal, ProposalOutcome};
use dkvs_common::quorum::conditional::{
    Attempt, ConditionalOutcome, ConditionalWrite, Current, Next,
};
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::linearizable::ROUNDS_MAX;
use dkvs_common::quorum::read::{Read, ReadOutcome};
use dkvs_common::quorum::{FetchFailure, Level};
use dkvs_common::record::{Attributes, Content};
use dkvs_common::ring::PreferenceList;
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;

use super::contract::{CommandId, Missed, Operation, Purpose, Step};
use super::read::{ReadOperation, ReadResult};
use crate::core::budget::MemoryAccount;
use crate::core::counts::{RequestKind, RequestOutcome};
use crate::core::random::Random;
use crate::transport::assembly::Assembly;

/// The shortest wait after another attempt came first, doubled with each, and the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(1);
const BACK_OFF_MAX: Duration = Duration::from_millis(50);

/// A conditional write, and who waits for it.
pub struct ConditionalOperation<F> {
    view: Arc<ClusterView>,
    write: ConditionalWrite,
    subject: Subject,
    random: Random,
    memory: MemoryAccount,
    deadline: Instant,
    stage: Stage,
    /// When something was heard last.
    now: Instant,
    /// The round of the first command of this stage.
    round: u32,
    /// Servers from which an earlier stage fetches a value that is of no use any more.
    stale_fetches: Vec<ServerId>,
    /// Where the replicas stood at the end of the last proposal.
    states: Vec<(ServerId, MemberState)>,
    on_end: F,
}

/// What is written where.
pub struct Subject {
    /// The key.
    pub key: Key,
    /// What is stored; a tombstone deletes the key.
    pub content: Content,
    /// What the record says beside its content and its operation.
    pub attributes: Attributes,
    /// The replicas.
    pub list: PreferenceList,
    /// How many have to confirm.
    pub quorum: Quorum,
    /// The tag of what it creates where there never was anything.
    pub first: Tag,
}

type Look = ReadOperation<fn(ReadResult)>;

enum Stage {
    /// The write says what comes next.
    Next,
    Looking(Box<Look>),
    Proposing(Box<Proposal>),
    Waiting {
        until: Instant,
        is_asked_for: bool,
    },
    Ended(ConditionalOutcome),
}

/// A conditional write that has ended.
pub struct ConditionalResult {
    /// What became of it.
    pub outcome: ConditionalOutcome,
    /// Which write it was, once it was known which version it was to follow.
    pub attempt: Option<Attempt>,
    /// Where the replicas stood at the end of the last proposal, in preference order; empty if there was
    /// none.
    pub states: Vec<(ServerId, MemberState)>,
    /// The cluster as it was when the write began.
    pub view: Arc<ClusterView>,
}

impl<F> ConditionalOperation<F> {
    /// One of which nothing was sent yet. Long values that are read on the way take of `memory`.
    pub(in crate::core) fn new(
        view: Arc<ClusterView>,
        write: ConditionalWrite,
        subject: Subject,
        (random, memory): (Random, MemoryAccount),
        now: Instant,
        deadline: Instant,
        on_end: F,
    ) -> Self {
        let mut operation = Self {
            view,
            write,
            subject,
            random,
            memory,
            deadline,
            stage: Stage::Next,
            now,
            round: 0,
            stale_fetches: Vec::new(),
            states: Vec::new(),
            on_end,
        };
        operation.go_on();
        operation
    }

    /// Begins what the write wants next, until it waits for something.
    fn go_on(&mut self) {
        while matches!(self.stage, Stage::Next) {
            self.round += ROUNDS_MAX + 1;
            self.stage = match self.write.next() {
                Next::Look => Stage::Looking(Box::new(self.look())),
                Next::Propose {
                    base,
                    ballot,
                    may_follow_tombstone,
                } => {
                    let Subject {
                        key,
                        content,
                        attributes,
                        list,
                        quorum,
                        first,
                    } = &self.subject;
                    let tags = (base, *first);
                    match self.write.record(key, tags, *attributes, content) {
                        Some(own) => Stage::Proposing(Box::new(Proposal::new(
                            key.clone(),
                            base,
                            ballot,
                            (own, may_follow_tombstone),
                            (list, *quorum),
                            self.round,
                        ))),
                        // It is not proposed for such versions.
                        None => {
                            self.write.give_up();
                            Stage::Next
                        }
                    }
                }
                Next::BackOff(failures) => Stage::Waiting {
                    until: self.now + self.back_off(failures),
                    is_asked_for: false,
                },
                Next::End(outcome) => Stage::Ended(outcome),
            };
        }
    }

    fn look(&self) -> Look {
        let Subject {
            key, list, quorum, ..
        } = &self.subject;
        let (view, memory) = (Arc::clone(&self.view), self.memory.clone());
        let (key, list) = (key.clone(), list.clone());
        let read = Read::new(
            key,
            list,
            quorum.of_majority(),
            Level::Linearizable,
            self.now,
            self.deadline,
        );
        ReadOperation::new(view, read, self.deadline, false, memory, |_| {})
    }

    /// Random, so that of two that met once one comes first the next time.
    fn back_off(&mut self, failures: u32) -> Duration {
        let longest = BACK_OFF_MIN * (1 << failures.min(6));
        let longest = longest.min(BACK_OFF_MAX).as_micros() as u64;
        Duration::from_micros(1 + self.random.number() % longest)
    }

    /// Takes what came of the stage, if it has ended.
    fn end_stage(&mut self) {
        match &self.stage {
            Stage::Looking(look) if look.is_decided() => {
                let current = look.read().current();
                let has_met_v1 = look.read().has_met_v1();
                self.stale_fetches.extend(look.fetching_from());
                match current {
                    Some((tag, is_value, attributes)) => {
                        let current = Current {
                            tag,
                            is_value,
                            operation: attributes.operation,
                        };
                        match has_met_v1 || tag.is_by_v1() {
                            true => self.write.handle_look_by_v1(current),
                            false => self.write.handle_look(current),
                        }
                    }
                    None if look.read().outcome() == Some(&ReadOutcome::CameByV1) => {
                        self.write.handle_look_by_v1(Current {
                            tag: Tag::ZERO,
                            is_value: true,
                            operation: None,
                        });
                    }
                    None => self.write.give_up(),
                }
            }
            Stage::Proposing(proposal) => {
                let Some(outcome) = proposal.outcome() else {
                    return;
                };
                self.states = proposal.states().collect();
                let (has_sent, tag) = (proposal.has_sent_own(), proposal.own().tag);
                self.write.handle_proposed(outcome, has_sent, tag);
            }
            _ => return,
        }
        self.stage = Stage::Next;
        self.go_on();
    }

    /// Whether a command is of this stage, and its number there.
    fn of_stage(&self, id: CommandId) -> Option<CommandId> {
        let round = id.round.checked_sub(self.round)?;
        Some(CommandId { round, ..id })
    }
}

impl<F: FnOnce(ConditionalResult) + Send> Operation for ConditionalOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        match &mut self.stage {
            Stage::Looking(look) => {
                let mut step = look.poll_step()?;
                match &mut step {
                    Step::Send { id, .. } => id.round += self.round,
                    Step::Attest { round, .. } => *round += self.round,
                    Step::Fetch { .. } | Step::MintTag { .. } | Step::Wake { .. } => {}
                }
                Some(step)
            }
            Stage::Proposing(proposal) => proposal.poll_transmit().map(Step::from),
            Stage::Waiting {
                until,
                is_asked_for,
            } if !*is_asked_for => {
                *is_asked_for = true;
                Some(Step::Wake { at: *until })
            }
            Stage::Waiting { .. } | Stage::Next | Stage::Ended(_) => None,
        }
    }

    fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) {
        let Some(id) = self.of_stage(id) else { return };
        self.now = now;
        match &mut self.stage {
            Stage::Looking(look) => look.handle_response(from, id, response, now),
            Stage::Proposing(proposal) => proposal.handle_response(from, id.purpose, response),
            _ => return,
        }
        self.end_stage();
    }

    fn handle_unreachable(&mut self, to: ServerId, id: CommandId, was_sent: bool, now: Instant) {
        let Some(id) = self.of_stage(id) else { return };
        self.now = now;
        match &mut self.stage {
            Stage::Looking(look) => look.handle_unreachable(to, id, was_sent, now),
            Stage::Proposing(proposal) => proposal.handle_unreachable(to, id.purpose),
            _ => return,
        }
        self.end_stage();
    }

    fn is_decided(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    fn handle_deadline(&mut self, _now: Instant) {
        if let Stage::Proposing(proposal) = &self.stage {
            let (has_sent, tag) = (proposal.has_sent_own(), proposal.own().tag);
            self.states = proposal.states().collect();
            self.write
                .handle_proposed(ProposalOutcome::Failed, has_sent, tag);
        }
        if !self.is_decided() {
            self.write.give_up();
            if let Next::End(outcome) = self.write.next() {
                self.stage = Stage::Ended(outcome);
            }
        }
    }

    fn requires_tags(&self) -> bool {
        true
    }

    fn is_abandoned_at_end(&self, _server: ServerId, id: CommandId) -> bool {
        !matches!(
            id.purpose,
            Purpose::Commit | Purpose::Put | Purpose::WriteBack | Purpose::Attest
        )
    }

    fn outlives_caller(&self) -> bool {
        true
    }

    fn handle_soft_deadline(&mut self) {
        // The only one that is asked for.
        if let Stage::Waiting { until, .. } = self.stage {
            self.write.handle_waited();
            self.now = self.now.max(until);
            self.stage = Stage::Next;
            self.go_on();
        }
    }

    fn handle_fetched(&mut self, from: ServerId, value: Value) {
        if self.end_stale_fetch(from) {
            return;
        }
        if let Stage::Looking(look) = &mut self.stage {
            look.handle_fetched(from, value);
        }
        self.end_stage();
    }

    fn handle_fetch_failed(
        &mut self,
        from: ServerId,
        failure: FetchFailure,
        assembly: Option<Assembly>,
    ) {
        if self.end_stale_fetch(from) {
            return;
        }
        if let Stage::Looking(look) = &mut self.stage {
            look.handle_fetch_failed(from, failure, assembly);
        }
        self.end_stage();
    }

    fn missed(&self) -> Option<Missed> {
        let mut states = self.states.iter();
        let (ahead, _) = states.find(|(_, state)| *state == MemberState::Stored)?;
        let behind = self
            .states
            .iter()
            .filter_map(|(server, state)| match state {
                MemberState::Committing => Some((*server, true)),
                MemberState::Unreachable => Some((*server, false)),
                _ => None,
            });
        Some(Missed {
            ahead: *ahead,
            behind: behind.collect(),
        })
    }

    fn counted(&self) -> Option<(Level, RequestKind, RequestOutcome)> {
        let outcome = match &self.stage {
            Stage::Ended(ConditionalOutcome::Committed(_)) => RequestOutcome::Committed,
            Stage::Ended(ConditionalOutcome::Failed(_)) => RequestOutcome::ConditionFailed,
            Stage::Ended(ConditionalOutcome::Unsuitable(_)) => RequestOutcome::Refused,
            Stage::Ended(ConditionalOutcome::NotApplied) => RequestOutcome::Unreachable,
            _ => RequestOutcome::TimedOut,
        };
        Some((Level::Linearizable, RequestKind::ConditionalWrite, outcome))
    }

    fn complete(self: Box<Self>, _puts_by_v2: bool) {
        let outcome = match self.stage {
            Stage::Ended(outcome) => outcome,
            _ => ConditionalOutcome::Unknown,
        };
        (self.on_end)(ConditionalResult {
            outcome,
            attempt: self.write.attempt(),
            states: self.states,
            view: self.view,
        });
    }
}

impl<F> ConditionalOperation<F> {
    /// Whether what a server was asked for by an earlier stage has ended.
    fn end_stale_fetch(&mut self, from: ServerId) -> bool {
        let mut stale = self.stale_fetches.iter();
        let place = stale.position(|server| *server == from);
        place
            .map(|place| self.stale_fetches.swap_remove(place))
            .is_some()
    }
}

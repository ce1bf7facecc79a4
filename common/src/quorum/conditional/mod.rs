//! The conditional write: stores a record only where the version that is there meets a condition.
//!
//! ```text
//!            +---------------------------- another version ---------------------------+
//!            v                                                                        |
//!   look (a linearizable read) --> the condition holds --> proposal for that version -+--> committed
//!            |                                               ^                        |
//!            |                                               +--- wait --- preempted -+
//!            +--> it does not: failed, with what is there
//! ```
//!
//! Each version of a key has one slot among its replicas, in which they agree on the one record that follows
//! it ([`proposal`]). Its tag is the [successor](Tag::successor) of the version's: no other write comes
//! between. So of all conditional writes that expect one version at most one takes effect, and none does if
//! a plain write has come before.
//!
//! This follows Gryff (Burke, Cheng, Lloyd, NSDI 2020), where registers serve reads and writes and consensus
//! serves read-modify-writes, ordered together; with single-decree Paxos for each version in place of EPaxos.
//!
//! Once a replica was asked to accept the record, it may take effect by whoever finishes what was accepted.
//! From then on the write stays with that version: it ends as committed or failed only if a read shows what
//! followed the version, and as unknown otherwise.

pub mod proposal;

use crate::kv::Key;
use crate::mutants::{self, Mutant};
use crate::record::{Attributes, Content, OperationId, Record};
use crate::slot::Ballot;
use crate::tag::Tag;
use proposal::ProposalOutcome;

/// What has to be there for a conditional write to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A value with one of these tags.
    Matches(Vec<Tag>),
    /// A value.
    Exists,
    /// No value.
    Absent,
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    /// Its tag; [`Tag::ZERO`] where there never was anything.
    pub tag: Tag,
    /// Whether it is a value.
    pub is_value: bool,
    /// The operation that wrote it.
    pub operation: Option<OperationId>,
}

/// Which write it was, and for which version: what a caller needs to find out what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The version that it was to follow.
    pub base: Tag,
    /// Which operation.
    pub operation: OperationId,
}

/// How a conditional write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionalOutcome {
    /// It has taken effect, under this tag.
    Committed(Tag),
    /// It has not, and will not: the condition does not hold of what is there.
    Failed(Current),
    /// What is there came by DKVS/1, or has no room for a successor: it has to be written plainly first.
    Unsuitable(Current),
    /// It may have taken effect, or may do so later, or not.
    Unknown,
    /// It has not, and will not: too few replicas could be reached, or did what they were asked.
    NotApplied,
}

/// What a conditional write does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read what is there.
    Look,
    /// Propose the record for this version.
    Propose {
        /// The version.
        base: Tag,
        /// Under this ballot.
        ballot: Ballot,
        /// Whether the version may be a tombstone.
        may_follow_tombstone: bool,
    },
    /// Wait for a while, the longer the more often others came first: so often.
    BackOff(u32),
    /// Nothing: it has ended.
    End(ConditionalOutcome),
}

/// One conditional write. The caller reads and proposes, and says what came of that.
#[derive(Debug)]
pub struct ConditionalWrite {
    condition: Condition,
    operation: OperationId,
    proposer: u64,
    /// The version that it is to follow, once it is known.
    base: Option<Tag>,
    /// Whether it was begun before, and may follow no other version.
    is_repeat: bool,
    /// Of the ballot of the last proposal.
    number: u64,
    /// How often in a row nothing came of a proposal.
    failures: u32,
    /// Whether a replica may have been asked to accept the record as what follows that version.
    is_sent: bool,
    next: Next,
}

impl ConditionalWrite {
    /// A new one. `proposer` is random.
    pub fn new(condition: Condition, operation: OperationId, proposer: u64) -> Self {
        let base = match &condition {
            // Whether it is there shows soon enough.
            Condition::Matches(tags) => match tags[..] {
                [tag] if tag.successor().is_some() => Some(tag),
                _ => None,
            },
            Condition::Exists | Condition::Absent => None,
        };
        let mut write = Self {
            condition,
            operation,
            proposer,
            base,
            is_repeat: false,
            number: 0,
            failures: 0,
            is_sent: false,
            next: Next::Look,
        };
        if let Some(base) = base {
            write.propose(base);
        }
        write
    }

    /// One that was begun before, perhaps elsewhere, and of which it is not known how it ended. It never
    /// follows another version than it was to.
    pub fn repeat(condition: Condition, attempt: Attempt, proposer: u64) -> Self {
        let mut write = Self::new(condition, attempt.operation, proposer);
        write.next = Next::Look;
        let moves = mutants::is_on(Mutant::RepeatMovesSlot);
        write.base = (!moves).then_some(attempt.base);
        write.is_repeat = !moves;
        write.is_sent = !moves;
        write
    }

    /// What it does next.
    pub fn next(&self) -> Next {
        self.next
    }

    /// Which write it is, once it is known which version it is to follow.
    pub fn attempt(&self) -> Option<Attempt> {
        let operation = self.operation;
        self.base.map(|base| Attempt { base, operation })
    }

    /// The record of this write that follows `base`. `first` is the tag of what it creates where there never
    /// was anything; none if the version has no successor.
    pub fn record(
        &self,
        key: &Key,
        (base, first): (Tag, Tag),
        attributes: Attributes,
        content: &Content,
    ) -> Option<Record> {
        let tag = match base {
            Tag::ZERO => first,
            base => base.successor()?,
        };
        let attributes = Attributes {
            operation: Some(self.operation),
            ..attributes
        };
        Some(Record::with_attributes(
            key,
            tag,
            attributes,
            content.clone(),
        ))
    }

    /// A read has found what is there.
    pub fn handle_look(&mut self, current: Current) {
        let Some(base) = self.base else {
            return self.begin_after(current);
        };
        if current.tag == base {
            return match self.failures {
                0 => self.propose(base),
                failures => self.next = Next::BackOff(failures),
            };
        }
        let is_own = current.operation == Some(self.operation);
        if current.tag.succeeds(base) && is_own {
            return self.end(ConditionalOutcome::Committed(current.tag));
        }
        // Another record has followed that version, or none was ever proposed: so none of its own will.
        let is_certain = current.tag.succeeds(base) || !self.is_sent;
        if is_certain && self.is_repeat {
            return self.end(ConditionalOutcome::Failed(current));
        }
        if is_certain {
            self.is_sent = false;
            return self.begin_after(current);
        }
        self.end(match mutants::is_on(Mutant::OvertakenIsFailed) {
            true => ConditionalOutcome::Failed(current),
            false => ConditionalOutcome::Unknown,
        });
    }

    /// What is there came by DKVS/1, so that nothing says what is newest.
    pub fn handle_look_by_v1(&mut self, current: Current) {
        self.end(match self.is_sent {
            true => ConditionalOutcome::Unknown,
            false => ConditionalOutcome::Unsuitable(current),
        });
    }

    /// Neither a read nor a proposal shows what is there, and there is no time left, or no hope.
    pub fn give_up(&mut self) {
        self.end(match self.is_sent {
            true => ConditionalOutcome::Unknown,
            false => ConditionalOutcome::NotApplied,
        });
    }

    /// Begins with what is there, if the condition holds of it.
    fn begin_after(&mut self, current: Current) {
        let holds = match &self.condition {
            Condition::Matches(tags) => current.is_value && tags.contains(&current.tag),
            Condition::Exists => current.is_value,
            Condition::Absent => !current.is_value,
        };
        if !holds {
            return self.end(ConditionalOutcome::Failed(current));
        }
        if current.tag != Tag::ZERO && current.tag.successor().is_none() {
            return self.end(ConditionalOutcome::Unsuitable(current));
        }
        if self.base != Some(current.tag) {
            (self.number, self.failures) = (0, 0);
        }
        self.base = Some(current.tag);
        self.propose(current.tag);
    }

    fn propose(&mut self, base: Tag) {
        self.number += 1;
        self.next = Next::Propose {
            base,
            ballot: Ballot {
                number: self.number,
                proposer: self.proposer,
            },
            may_follow_tombstone: self.condition == Condition::Absent,
        };
    }

    /// A proposal has ended. `has_sent` says whether a replica was asked to accept the write's own record,
    /// which has this tag.
    pub fn handle_proposed(&mut self, outcome: ProposalOutcome, has_sent: bool, tag: Tag) {
        self.is_sent |= has_sent;
        self.next = match outcome {
            ProposalOutcome::Committed { is_own: true } => {
                Next::End(ConditionalOutcome::Committed(tag))
            }
            ProposalOutcome::Committed { is_own: false } => Next::Look,
            ProposalOutcome::Preempted(ballot) => {
                self.number = self.number.max(ballot.number);
                self.failures += 1;
                Next::BackOff(self.failures)
            }
            ProposalOutcome::OtherVersion => {
                self.failures += 1;
                Next::Look
            }
            ProposalOutcome::Tombstone => {
                self.base = self.base.filter(|_| self.is_sent);
                Next::Look
            }
            ProposalOutcome::Failed if self.is_sent => Next::Look,
            ProposalOutcome::Failed => Next::End(ConditionalOutcome::NotApplied),
        };
    }

    /// It has waited.
    pub fn handle_waited(&mut self) {
        match self.base {
            Some(base) => self.propose(base),
            None => self.next = Next::Look,
        }
    }

    fn end(&mut self, outcome: ConditionalOutcome) {
        self.next = Next::End(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATION: OperationId = OperationId([1; 16]);
    const OTHER: OperationId = OperationId([2; 16]);
    const BASE: Tag = Tag {
        time: 5,
        op: 7 << 32,
    };
    const NEWER: Tag = Tag {
        time: 6,
        op: 7 << 32,
    };

    fn value(tag: Tag, operation: Option<OperationId>) -> Current {
        Current {
            tag,
            is_value: true,
            operation,
        }
    }

    const NOTHING: Current = Current {
        tag: Tag::ZERO,
        is_value: false,
        operation: None,
    };

    fn matching() -> ConditionalWrite {
        ConditionalWrite::new(Condition::Matches(vec![BASE]), OPERATION, 9)
    }

    fn proposed_for(write: &ConditionalWrite) -> Option<Tag> {
        match write.next() {
            Next::Propose { base, .. } => Some(base),
            _ => None,
        }
    }

    #[test]
    fn a_named_version_is_proposed_for_at_once_and_others_are_looked_for() {
        assert_eq!(proposed_for(&matching()), Some(BASE));
        let several = Condition::Matches(vec![BASE, NEWER]);
        let by_v1 = Condition::Matches(vec![Tag {
            time: 5,
            op: u64::MAX << 48,
        }]);
        for condition in [several, by_v1, Condition::Exists, Condition::Absent] {
            let write = ConditionalWrite::new(condition, OPERATION, 9);
            assert_eq!(write.next(), Next::Look);
            assert_eq!(write.attempt(), None);
        }
    }

    #[test]
    fn the_condition_is_judged_by_what_is_there() {
        let deleted = Current {
            is_value: false,
            ..value(BASE, None)
        };
        let matches = || Condition::Matches(vec![NEWER, BASE]);
        for (condition, current, base) in [
            (matches(), value(BASE, None), Some(BASE)),
            (matches(), deleted, None),
            (matches(), NOTHING, None),
            (Condition::Exists, value(BASE, None), Some(BASE)),
            (Condition::Exists, deleted, None),
            (Condition::Exists, NOTHING, None),
            (Condition::Absent, value(BASE, None), None),
            (Condition::Absent, deleted, Some(BASE)),
            (Condition::Absent, NOTHING, Some(Tag::ZERO)),
        ] {
            let mut write = ConditionalWrite::new(condition.clone(), OPERATION, 9);
            write.handle_look(current);
            assert_eq!(proposed_for(&write), base, "{condition:?} {current:?}");
            if base.is_none() {
                let failed = ConditionalOutcome::Failed(current);
                assert_eq!(write.next(), Next::End(failed), "{condition:?}");
            }
        }
    }

    #[test]
    fn what_a_look_shows_after_the_record_was_sent_decides_or_nothing_does() {
        use ConditionalOutcome::{Committed, Failed, Unknown};
        let next = BASE.successor().unwrap();
        for (current, has_sent, outcome) in [
            (value(next, Some(OPERATION)), true, Committed(next)),
            (
                value(next, Some(OTHER)),
                true,
                Failed(value(next, Some(OTHER))),
            ),
            (value(NEWER, None), true, Unknown),
            (value(NEWER, None), false, Failed(value(NEWER, None))),
            // It is not even there.
            (NOTHING, false, Failed(NOTHING)),
        ] {
            let mut write = matching();
            write.handle_proposed(ProposalOutcome::OtherVersion, has_sent, next);
            assert_eq!(write.next(), Next::Look);
            write.handle_look(current);
            assert_eq!(write.next(), Next::End(outcome), "{current:?} {has_sent}");
        }
        let mut write = matching();
        write.handle_proposed(ProposalOutcome::Failed, true, next);
        write.give_up();
        assert_eq!(write.next(), Next::End(Unknown));
        let mut write = matching();
        write.handle_proposed(ProposalOutcome::Failed, false, next);
        assert_eq!(write.next(), Next::End(ConditionalOutcome::NotApplied));
    }

    #[test]
    fn ballots_grow_past_those_that_came_first() {
        let mut write = matching();
        let ballot = Ballot {
            number: 41,
            proposer: 1,
        };
        write.handle_proposed(ProposalOutcome::Preempted(ballot), false, NEWER);
        assert_eq!(write.next(), Next::BackOff(1));
        write.handle_waited();
        let Next::Propose { ballot: next, .. } = write.next() else {
            panic!("{:?}", write.next());
        };
        assert!(next > ballot && next.proposer == 9);
    }

    #[test]
    fn one_that_is_sent_again_follows_no_other_version() {
        let attempt = Attempt {
            base: BASE,
            operation: OPERATION,
        };
        let next = BASE.successor().unwrap();
        for (current, outcome) in [
            (
                value(next, Some(OPERATION)),
                ConditionalOutcome::Committed(next),
            ),
            (
                value(next, Some(OTHER)),
                ConditionalOutcome::Failed(value(next, Some(OTHER))),
            ),
            (value(NEWER, Some(OPERATION)), ConditionalOutcome::Unknown),
            (NOTHING, ConditionalOutcome::Unknown),
        ] {
            let mut write = ConditionalWrite::repeat(Condition::Exists, attempt, 9);
            assert_eq!((write.next(), write.attempt()), (Next::Look, Some(attempt)));
            write.handle_look(current);
            assert_eq!(write.next(), Next::End(outcome), "{current:?}");
        }
        let mut write = ConditionalWrite::repeat(Condition::Exists, attempt, 9);
        write.handle_look(value(BASE, None));
        assert_eq!(proposed_for(&write), Some(BASE));
    }
}

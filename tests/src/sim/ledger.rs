//! The requests of the clients and their answers: the histories that are checked, and what else is
//! known of each operation.
//!
//! Invariant: an operation is entered when it is first asked, has one end at most, and an end that
//! states its outcome only if a gateway answered so.

use dkvs_common::quorum::conditional::{Attempt, ConditionalOutcome};
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::write::{Applied, Write};
use dkvs_common::tag::Tag;

use super::moment::Moment;
use crate::history::agreement::Replica;
use crate::history::{Action, Operation, Reply};

/// Every operation of a world, in the order in which they were asked.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Entry {
    pub operation: Operation,
    pub level: Level,
    /// Of a write: about how long the value is.
    pub value_bytes: usize,
    /// Of a write: its tag, once one is known.
    pub tag: Option<Tag>,
    /// Of a conditional write that expects a value: the tag of that.
    pub expected: Option<Tag>,
    /// Of a conditional write: the attempt of which it is not known what became of it.
    pub attempt: Option<Attempt>,
    /// How often it was asked.
    pub attempts: u32,
    /// When the attempt under way has to end at the latest.
    pub deadline: Moment,
    /// Which client asks; none of those that only look what is left in the end.
    pub requester: Option<usize>,
    /// Of an operation of a client that speaks DKVS/1: its n, and its w or r.
    pub c_quorum: Option<Quorum>,
    /// Whether it may have a lower level than its own, where servers or records of DKVS/1 are met.
    pub may_fall_back: bool,
    /// Whether the attempt under way waits for every replica.
    pub waits_for_all: bool,
    /// The answers of the replicas, as the reply gives them.
    pub replicas: Vec<Replica>,
    /// Whether no answer comes any more.
    is_abandoned: bool,
}

impl Ledger {
    /// Enters an operation that is asked now; its number.
    pub fn enter(
        &mut self,
        client: u32,
        key: usize,
        action: Action,
        level: Level,
        value_bytes: usize,
        now: Moment,
    ) -> usize {
        let operation = Operation {
            client,
            key: key as u32,
            action,
            invoked: now.0,
            returned: None,
            reply: Reply::Unknown,
        };
        self.entries.push(Entry {
            operation,
            level,
            value_bytes,
            tag: None,
            expected: None,
            attempt: None,
            attempts: 1,
            deadline: now,
            requester: None,
            c_quorum: None,
            may_fall_back: false,
            waits_for_all: false,
            replicas: Vec::new(),
            is_abandoned: false,
        });
        self.entries.len() - 1
    }

    /// An operation.
    pub fn entry(&self, number: usize) -> &Entry {
        &self.entries[number]
    }

    /// The same, to be changed.
    pub fn entry_mut(&mut self, number: usize) -> &mut Entry {
        &mut self.entries[number]
    }

    /// All of them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the next operation's number is.
    pub fn next_number(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// A gateway answered.
    pub fn end(&mut self, reply: Reply, now: Moment) {
        self.operation.returned = Some(now.0);
        self.operation.reply = reply;
        self.is_abandoned = false;
    }

    /// It is sent once more: an earlier answer does not count any longer.
    pub fn retry(&mut self) {
        self.attempts += 1;
        self.operation.returned = None;
        self.operation.reply = Reply::Unknown;
        self.replicas.clear();
        self.is_abandoned = false;
    }

    /// The gateway that was asked last is gone, and no answer comes.
    pub fn abandon(&mut self) {
        self.operation.returned = None;
        self.operation.reply = Reply::Unknown;
        self.replicas.clear();
        self.is_abandoned = true;
    }

    /// Whether the answer to this attempt is still waited for.
    pub fn waits_for(&self, attempt: u32) -> bool {
        self.is_open() && self.attempts == attempt
    }

    /// Whether an answer is still to come.
    pub fn is_open(&self) -> bool {
        self.operation.returned.is_none() && !self.is_abandoned
    }

    /// Whether the outcome may still be learned by asking again under the same tag.
    pub fn may_be_retried(&self) -> bool {
        let is_read = self.operation.action == Action::Read;
        let is_known = self.tag.is_some() || self.attempt.is_some();
        !is_read && self.operation.reply == Reply::Unknown && is_known
    }

    /// What a write's outcome says, after so many attempts: of an earlier one only its own
    /// confirmation can tell that it was not in vain.
    pub fn reply_of_write(&self, write: &Write) -> Reply {
        match write.applied() {
            Applied::Committed => Reply::Done,
            Applied::NotApplied if self.attempts == 1 => Reply::NotDone,
            Applied::NotApplied | Applied::Unknown => Reply::Unknown,
        }
    }

    /// What a conditional write's outcome says. `value` returns what a version of its key holds, if that is
    /// known.
    pub fn reply_of_conditional(
        &self,
        outcome: ConditionalOutcome,
        value: impl Fn(Tag) -> Option<Option<u64>>,
    ) -> Reply {
        match outcome {
            ConditionalOutcome::Committed(_) => Reply::Done,
            ConditionalOutcome::Failed(current) => {
                let found = match current.is_value {
                    false => Some(None),
                    true => value(current.tag),
                };
                let is_met = |found| match self.operation.action {
                    Action::Conditional { expects, .. } => expects.is_met_by(found),
                    _ => true,
                };
                match found {
                    // One that is sent again follows no other version, though that may meet the condition.
                    Some(found) if self.attempts > 1 && is_met(found) => Reply::NotDone,
                    found => found.map_or(Reply::NotDone, Reply::Failed),
                }
            }
            ConditionalOutcome::Unsuitable(_) => Reply::NotDone,
            ConditionalOutcome::NotApplied if self.attempts == 1 => Reply::NotDone,
            ConditionalOutcome::NotApplied | ConditionalOutcome::Unknown => Reply::Unknown,
        }
    }

    /// It was not even begun.
    pub fn reply_of_none(&self) -> Reply {
        match self.operation.action {
            Action::Write(_) | Action::Delete | Action::Conditional { .. }
                if self.attempts == 1 =>
            {
                Reply::NotDone
            }
            _ => Reply::Unknown,
        }
    }
}

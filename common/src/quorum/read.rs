//! The read at the agreement level: ask all n replicas at once, done when r of them agree.
//!
//! Values are compared as bytes, and the first that r replicas hold wins. Replicas without the
//! key agree with each other; "absent" wins once r said so and no value can reach r any more.

use std::time::Instant;

use super::params::Quorum;
use super::tally::{Recorded, Replica, Tally, Word};
use super::{Ask, Transmit};
use crate::cluster::ServerId;
use crate::kv::Value;
use crate::ring::PreferenceList;

/// What a replica says to a get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadReply {
    /// It holds this value.
    Value(Value),
    /// It holds none.
    Absent,
}

/// How a read ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// At least r replicas hold this value.
    Found(Value),
    /// At least r replicas hold none, and no value could have reached r.
    Absent,
    /// At least r replicas can answer or did, and no r of them agree.
    Disagree,
    /// So many replicas are unreachable that r can no longer answer.
    Unreachable,
    /// The deadline passed with fewer than r answers.
    TimedOut,
}

/// Where one replica stands, seen from the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It holds the value that won.
    Match,
    /// It holds another value, or a value where none won.
    Differs,
    /// It holds none.
    Absent,
    /// It has not been heard of yet.
    Pending,
    /// The request certainly did not reach it.
    Unreachable,
    /// It was silent until the deadline.
    TimedOut,
}

/// One read.
#[derive(Debug)]
pub struct Read {
    tally: Tally<Answer>,
    /// The distinct values seen, in the order of their arrival, each with its replicas counted.
    values: Vec<(Value, usize)>,
    absent: usize,
    quorum: Quorum,
    deadline: Instant,
    transmitted: usize,
    outcome: Option<ReadOutcome>,
}

/// A [`ReadReply`] with the value replaced by its place in `values`, so that a value is
/// compared once, when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It holds the value at this place among the distinct values seen.
    Holds(usize),
    /// It holds none.
    Absent,
}

impl Read {
    /// A read from the replicas of `list`, one for each of the quorum's n.
    pub fn new(list: PreferenceList, quorum: Quorum, now: Instant, deadline: Instant) -> Self {
        assert_eq!(
            list.len(),
            usize::from(quorum.n()),
            "a read asks n replicas"
        );
        Self {
            tally: Tally::new(list, now),
            values: Vec::new(),
            absent: 0,
            quorum,
            deadline,
            transmitted: 0,
            outcome: None,
        }
    }

    /// The next thing to send; all n are to be asked at once.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let replica = self.tally.replicas().get(self.transmitted)?;
        self.transmitted += 1;
        let (to, ask) = (replica.server, Ask::Get);
        Some(Transmit { to, ask })
    }

    /// When to call [`Self::handle_timeout`], as long as any replica is pending.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.tally.pending() > 0).then_some(self.deadline)
    }

    /// `from` answered.
    pub fn handle_reply(&mut self, from: ServerId, reply: ReadReply, now: Instant) -> Recorded {
        let (answer, value) = match reply {
            ReadReply::Absent => (Answer::Absent, None),
            ReadReply::Value(value) => {
                let seen = self.values.iter().position(|(other, _)| *other == value);
                let place = seen.unwrap_or(self.values.len());
                (Answer::Holds(place), Some(value))
            }
        };
        let recorded = self.tally.record(from, Word::Answer(answer), now);
        if recorded == Recorded::Counted {
            match (answer, value) {
                (Answer::Holds(place), Some(value)) => match self.values.get_mut(place) {
                    Some((_, holders)) => *holders += 1,
                    None => self.values.push((value, 1)),
                },
                _ => self.absent += 1,
            }
            self.decide_once();
        }
        recorded
    }

    /// The request to `to` certainly did not arrive.
    pub fn handle_unreachable(&mut self, to: ServerId, now: Instant) -> Recorded {
        let recorded = self.tally.record(to, Word::Unreachable, now);
        self.decide_once();
        recorded
    }

    /// Time has passed; at the deadline, whoever is pending has timed out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        self.tally.expire();
        if self.outcome.is_none() {
            self.outcome = match self.decide() {
                Some(ReadOutcome::Unreachable) | None => Some(ReadOutcome::TimedOut),
                decided => decided,
            };
        }
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<&ReadOutcome> {
        self.outcome.as_ref()
    }

    /// Whether every replica was heard out or has timed out.
    pub fn is_complete(&self) -> bool {
        self.tally.pending() == 0
    }

    /// How many replicas agree with the outcome so far; with no winner, how many stand behind
    /// the answer with the most replicas.
    pub fn agreeing(&self) -> usize {
        match &self.outcome {
            Some(ReadOutcome::Found(winner)) => self.holders(winner),
            Some(ReadOutcome::Absent) => self.absent,
            _ => self.most_holders().max(self.absent),
        }
    }

    /// The n and r of the request.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<Answer>] {
        self.tally.replicas()
    }

    /// Where a replica of this read stands.
    pub fn standing(&self, replica: &Replica<Answer>) -> Standing {
        match replica.word {
            Word::Pending => Standing::Pending,
            Word::Unreachable => Standing::Unreachable,
            Word::TimedOut => Standing::TimedOut,
            Word::Answer(Answer::Absent) => Standing::Absent,
            Word::Answer(Answer::Holds(place)) => match &self.outcome {
                Some(ReadOutcome::Found(winner)) if self.values[place].0 == *winner => {
                    Standing::Match
                }
                _ => Standing::Differs,
            },
        }
    }

    fn decide_once(&mut self) {
        if self.outcome.is_none() {
            self.outcome = self.decide();
        }
    }

    fn decide(&self) -> Option<ReadOutcome> {
        let needed = usize::from(self.quorum.needed());
        let pending = self.tally.pending();
        let holders = self.most_holders();

        if let Some((value, _)) = self.most_held().filter(|_| holders >= needed) {
            return Some(ReadOutcome::Found(value.clone()));
        }
        if holders + pending >= needed {
            return None;
        }
        if self.absent >= needed {
            return Some(ReadOutcome::Absent);
        }
        if self.absent + pending >= needed {
            return None;
        }
        let can_answer = self.tally.answers().count() + pending;
        Some(if can_answer >= needed {
            ReadOutcome::Disagree
        } else {
            ReadOutcome::Unreachable
        })
    }

    /// The value that most replicas hold, and how many those are.
    fn most_held(&self) -> Option<&(Value, usize)> {
        self.values.iter().max_by_key(|(_, holders)| *holders)
    }

    fn most_holders(&self) -> usize {
        self.most_held().map_or(0, |(_, holders)| *holders)
    }

    fn holders(&self, value: &Value) -> usize {
        let seen = self.values.iter().find(|(seen, _)| seen == value);
        seen.map_or(0, |(_, holders)| *holders)
    }
}

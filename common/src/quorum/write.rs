//! The write at the agreement level: store to all n replicas at once, done when w confirmed.

use std::time::Instant;

use super::params::Quorum;
use super::tally::{Recorded, Replica, Tally, Word};
use super::{Ask, Transmit};
use crate::cluster::ServerId;
use crate::ring::PreferenceList;

/// What a replica says to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteReply {
    /// It holds the value.
    Stored,
    /// It did not store the value.
    Refused(Refusal),
}

/// Why a replica did not store a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It gave no reason: DKVS/1 has none. What a gateway sends is well-formed, so the server
    /// has no room.
    Unstated,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// At least w replicas confirmed.
    Committed,
    /// So many replicas refused that w can no longer confirm.
    Refused,
    /// So many replicas are unreachable (or refused) that w can no longer confirm.
    Unreachable,
    /// The deadline passed while w could still have confirmed.
    TimedOut,
}

/// What became of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is on at least w replicas.
    Committed,
    /// It is on some replicas, or may be, and may surface later.
    Unknown,
    /// It is certainly on none.
    NotApplied,
}

/// One write.
#[derive(Debug)]
pub struct Write {
    tally: Tally<WriteReply>,
    quorum: Quorum,
    deadline: Instant,
    transmitted: usize,
    outcome: Option<WriteOutcome>,
}

impl Write {
    /// A write to the replicas of `list`, one for each of the quorum's n.
    pub fn new(list: PreferenceList, quorum: Quorum, now: Instant, deadline: Instant) -> Self {
        assert_eq!(
            list.len(),
            usize::from(quorum.n()),
            "a write asks n replicas"
        );
        Self {
            tally: Tally::new(list, now),
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
        let (to, ask) = (replica.server, Ask::Put);
        Some(Transmit { to, ask })
    }

    /// When to call [`Self::handle_timeout`], as long as any replica is pending.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.tally.pending() > 0).then_some(self.deadline)
    }

    /// `from` answered.
    pub fn handle_reply(&mut self, from: ServerId, reply: WriteReply, now: Instant) -> Recorded {
        self.record(from, Word::Answer(reply), now)
    }

    /// The request to `to` certainly did not arrive.
    pub fn handle_unreachable(&mut self, to: ServerId, now: Instant) -> Recorded {
        self.record(to, Word::Unreachable, now)
    }

    /// Time has passed; at the deadline, whoever is pending has timed out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        self.tally.expire();
        self.outcome.get_or_insert(WriteOutcome::TimedOut);
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<WriteOutcome> {
        self.outcome
    }

    /// Whether every replica was heard out or has timed out.
    pub fn is_complete(&self) -> bool {
        self.tally.pending() == 0
    }

    /// What became of the value, as far as is known now. A replica that has not been heard of,
    /// or timed out, may have stored it.
    pub fn applied(&self) -> Applied {
        let certainly_not = |replica: &Replica<WriteReply>| {
            let word = replica.word;
            matches!(
                word,
                Word::Unreachable | Word::Answer(WriteReply::Refused(_))
            )
        };
        if self.outcome == Some(WriteOutcome::Committed) {
            Applied::Committed
        } else if self.tally.replicas().iter().all(certainly_not) {
            Applied::NotApplied
        } else {
            Applied::Unknown
        }
    }

    /// How many replicas have confirmed so far.
    pub fn confirmed(&self) -> usize {
        self.tally
            .answers()
            .filter(|answer| **answer == WriteReply::Stored)
            .count()
    }

    /// The n and w of the request.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<WriteReply>] {
        self.tally.replicas()
    }

    fn record(&mut self, from: ServerId, word: Word<WriteReply>, now: Instant) -> Recorded {
        let recorded = self.tally.record(from, word, now);
        if self.outcome.is_none() {
            self.outcome = self.decide();
        }
        recorded
    }

    fn decide(&self) -> Option<WriteOutcome> {
        let confirmed = self.confirmed();
        let needed = usize::from(self.quorum.needed());
        if confirmed >= needed {
            return Some(WriteOutcome::Committed);
        }
        if confirmed + self.tally.pending() >= needed {
            return None;
        }
        let refused = self.tally.answers().count() - confirmed;
        let spare = usize::from(self.quorum.n()) - needed;
        Some(if refused > spare {
            WriteOutcome::Refused
        } else {
            WriteOutcome::Unreachable
        })
    }
}

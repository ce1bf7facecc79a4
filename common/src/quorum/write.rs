//! The write at the agreement level: store to all n replicas at once, done when w confirmed.
//!
//! A replica that holds a greater tag keeps that and says so. The write then begins anew, in a
//! further round under a tag that is greater still, so that a lagging clock never makes a
//! confirmed write vanish. Words of an earlier round change nothing.

use std::time::Instant;

use super::params::Quorum;
use super::tally::{Recorded, Replica, Tally, Word};
use super::{Ask, Refusal, Transmit};
use crate::cluster::ServerId;
use crate::ring::{PreferenceList, RingPoint};
use crate::tag::Tag;

/// What a replica says to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteReply {
    /// It holds the record.
    Stored,
    /// It holds a newer one, with this tag, and keeps that.
    Superseded(Tag),
    /// It did not store the record.
    Refused(Refusal),
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
    /// It certainly never was on any.
    NotApplied,
}

/// One write.
#[derive(Debug)]
pub struct Write {
    tally: Tally<WriteReply>,
    quorum: Quorum,
    started: Instant,
    deadline: Instant,
    transmitted: usize,
    round: u32,
    /// Whether a replica may have stored the record in an earlier round.
    may_be_stored: bool,
    /// The greatest tag that a replica of this round held instead.
    overtaken_by: Option<Tag>,
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
            started: now,
            deadline,
            transmitted: 0,
            round: 0,
            may_be_stored: false,
            overtaken_by: None,
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

    /// Which round it is, from 0.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The tag that the record's has to exceed for the write to go on; none if it need not.
    pub fn overtaken_by(&self) -> Option<Tag> {
        self.overtaken_by.filter(|_| self.outcome.is_none())
    }

    /// Begins the next round, with a record under a greater tag: all n are to be asked again.
    pub fn restart(&mut self) {
        self.may_be_stored |= !self.is_certainly_nowhere();
        let point = |replica: &Replica<WriteReply>| RingPoint {
            position: replica.ring_point,
            server: replica.server,
        };
        let list = self.tally.replicas().iter().map(point).collect();
        self.tally = Tally::new(list, self.started);
        self.transmitted = 0;
        self.round += 1;
        self.overtaken_by = None;
    }

    /// No greater tag is to be had: whoever said so has refused.
    pub fn give_up(&mut self) {
        self.outcome.get_or_insert(WriteOutcome::Refused);
    }

    /// `from` answered what it was asked in `round`.
    pub fn handle_reply(
        &mut self,
        from: ServerId,
        round: u32,
        reply: WriteReply,
        now: Instant,
    ) -> Recorded {
        self.record(from, round, Word::Answer(reply), now)
    }

    /// What `to` was asked in `round` did not arrive; or, if it was sent, that is not certain.
    pub fn handle_unreachable(
        &mut self,
        to: ServerId,
        round: u32,
        sent: bool,
        now: Instant,
    ) -> Recorded {
        let word = if sent {
            Word::CutOff
        } else {
            Word::Unreachable
        };
        self.record(to, round, word, now)
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
        if self.outcome == Some(WriteOutcome::Committed) {
            Applied::Committed
        } else if !self.may_be_stored && self.is_certainly_nowhere() {
            Applied::NotApplied
        } else {
            Applied::Unknown
        }
    }

    /// Whether no replica ever held the record. One that was superseded may have: a put that was
    /// sent again is superseded by whatever was stored after its first copy, whose answer was lost.
    fn is_certainly_nowhere(&self) -> bool {
        let certainly_not = |replica: &Replica<WriteReply>| {
            let word = replica.word;
            matches!(
                word,
                Word::Unreachable | Word::Answer(WriteReply::Refused(_))
            )
        };
        self.tally.replicas().iter().all(certainly_not)
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

    /// Why replicas refused, in preference order.
    pub fn refusals(&self) -> impl Iterator<Item = Refusal> + '_ {
        self.tally.answers().filter_map(|answer| match answer {
            WriteReply::Refused(refusal) => Some(*refusal),
            _ => None,
        })
    }

    fn record(
        &mut self,
        from: ServerId,
        round: u32,
        word: Word<WriteReply>,
        now: Instant,
    ) -> Recorded {
        if round != self.round {
            return Recorded::Repeated;
        }
        let recorded = self.tally.record(from, word, now);
        if let (Recorded::Counted, Word::Answer(WriteReply::Superseded(tag))) = (recorded, word) {
            self.overtaken_by = self.overtaken_by.max(Some(tag));
        }
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
        if self.overtaken_by.is_some() || confirmed + self.tally.pending() >= needed {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::ring::Position;
    use crate::testing::start_of_time;

    const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

    fn write(w: u8) -> (Write, Instant) {
        let now = start_of_time();
        let point = |server| RingPoint {
            position: Position([0; 20]),
            server,
        };
        let quorum = Quorum::new(3, w).unwrap();
        let list = SERVERS.map(point).to_vec();
        let mut write = Write::new(list, quorum, now, now + Duration::from_secs(1));
        assert_eq!(std::iter::from_fn(|| write.poll_transmit()).count(), 3);
        (write, now)
    }

    fn superseded(time: u64) -> WriteReply {
        WriteReply::Superseded(Tag { time, op: 0 })
    }

    #[test]
    fn a_write_that_was_overtaken_begins_anew_and_counts_only_its_own_round() {
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 0, WriteReply::Stored, now);
        write.handle_reply(SERVERS[1], 0, superseded(7), now);
        assert_eq!(write.overtaken_by(), Some(Tag { time: 7, op: 0 }));
        write.handle_reply(SERVERS[2], 0, superseded(9), now);
        assert_eq!(write.outcome(), None);
        assert_eq!(write.overtaken_by(), Some(Tag { time: 9, op: 0 }));
        write.restart();
        assert_eq!(std::iter::from_fn(|| write.poll_transmit()).count(), 3);
        assert_eq!((write.round(), write.overtaken_by()), (1, None));
        let late = write.handle_reply(SERVERS[1], 0, WriteReply::Stored, now);
        assert_eq!((late, write.confirmed()), (Recorded::Repeated, 0));
        write.handle_reply(SERVERS[1], 1, WriteReply::Stored, now);
        assert_eq!(write.outcome(), None);
        write.handle_reply(SERVERS[2], 1, WriteReply::Stored, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    }

    #[test]
    fn being_overtaken_after_the_decision_changes_nothing() {
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 0, WriteReply::Stored, now);
        write.handle_reply(SERVERS[1], 0, WriteReply::Stored, now);
        write.handle_reply(SERVERS[2], 0, superseded(9), now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
        assert_eq!(write.overtaken_by(), None);
    }

    #[test]
    fn what_an_earlier_round_may_have_stored_is_not_forgotten() {
        let (mut write, now) = write(3);
        write.handle_reply(SERVERS[0], 0, superseded(9), now);
        write.restart();
        for server in SERVERS {
            write.handle_unreachable(server, 1, false, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
    }

    #[test]
    fn a_replica_that_was_overtaken_may_have_held_it_before() {
        let (mut write, now) = write(3);
        for server in SERVERS {
            write.handle_reply(server, 0, superseded(9), now);
        }
        write.restart();
        for server in SERVERS {
            write.handle_unreachable(server, 1, false, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn a_replica_that_was_cut_off_may_have_stored_it() {
        let (mut write, now) = write(2);
        for (server, sent) in SERVERS.into_iter().zip([false, true, false]) {
            write.handle_unreachable(server, 0, sent, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn with_no_greater_tag_to_be_had_the_write_is_refused() {
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 0, superseded(u64::MAX), now);
        write.give_up();
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    }
}

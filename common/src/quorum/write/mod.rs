//! The write: store to all n replicas at once, done when w confirmed.
//!
//! ```text
//!   linearizable:  ask for tags ---- w have told ---> [ waits for a tag ] --> store --> outcome
//!
//!   agreement:     [ waits for a tag ] --> store --> outcome
//!                          ^                 |
//!                          +-- superseded ---+
//!
//!   sent again:    store under the tag it had --> outcome
//! ```
//!
//! Linearizable is the write of the multi-writer register of Attiya, Bar-Noy and Dolev (1995) as
//! Lynch and Shvartsman (1997) give it: the new tag is greater than that of every write that was
//! confirmed before, so a replica that holds a greater one confirms as well: whoever wrote that
//! came later. Not so if that came by DKVS/1: its tag is from the clock of the replica, and it may
//! have been written before. Such a replica confirms nothing. (The write does not begin anew under a
//! greater tag, as it does at the agreement level: it would take effect a second time.)
//!
//! At the agreement level the tag is minted without asking. A replica that holds a greater one
//! keeps that and says so; the write then begins anew, in a further round under a tag that is
//! greater still, so that a lagging clock never makes a confirmed write vanish.
//!
//! A write that is sent again at the linearizable level is confirmed by something newer only if a
//! replica holds that very record: else nobody can tell whether it was ever there.
//!
//! Responses to an earlier round change nothing.
//!
//! * [`linearizable`], [`agreement`], [`resubmission`]: the rules of each

mod agreement;
mod linearizable;
mod outcome;
mod phase;
mod response;
mod resubmission;

use std::time::Instant;

use super::level::Level;
use super::params::Quorum;
use super::tally::{Recorded, Replica, Tally, Word};
use super::threshold::Threshold;
use super::transmit::{Ask, Transmit};
use crate::cluster::ServerId;
use crate::model::Refusal;
use crate::mutants::{self, Mutant};
use crate::ring::PreferenceList;
use crate::tag::Tag;
use linearizable::TagQuery;
use phase::Phase;

pub use outcome::{Applied, WriteOutcome};
pub use response::WriteReply;

/// One write.
#[derive(Debug)]
pub struct Write {
    tally: Tally<WriteReply>,
    /// Who has to confirm.
    threshold: Threshold,
    /// Who has to report a tag, at the linearizable level.
    tag_threshold: Threshold,
    quorum: Quorum,
    level: Level,
    /// It was sent before under the tag that it has, and is not to be under any other.
    is_resubmission: bool,
    started: Instant,
    deadline: Instant,
    transmitted: usize,
    round: u32,
    phase: Phase,
    /// Whether this round asks the replicas to store the record, or has.
    is_storing: bool,
    /// Whether a replica may have stored the record in an earlier round.
    may_be_stored: bool,
    /// Whether nobody is asked, as too few can do it.
    is_withheld: bool,
    outcome: Option<WriteOutcome>,
}

impl Write {
    /// A write to the replicas of `list`, one for each of the quorum's n. At the linearizable
    /// level the quorum has to be one that [`Level::check_linearizable`] lets pass.
    pub fn new(
        list: PreferenceList,
        quorum: Quorum,
        level: Level,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        assert_eq!(
            list.len(),
            usize::from(quorum.n()),
            "a write asks n replicas"
        );
        let phase = match level {
            Level::Linearizable if !mutants::is_on(Mutant::ClockOnlyTags) => Phase::AskingTags,
            _ => Phase::Minting(Tag::ZERO),
        };
        let threshold = Threshold::of_quorum(&list, quorum);
        // As many as have to store the record: so those take it, whatever the others hold.
        let tag_threshold = match mutants::is_on(Mutant::TagOfOne) {
            false => threshold.clone().at_least_majorities(),
            true => Threshold::new(list.iter().map(|point| point.server), 1),
        };
        Self {
            threshold,
            tag_threshold,
            tally: Tally::new(list, now),
            quorum,
            level,
            is_resubmission: false,
            started: now,
            deadline,
            transmitted: 0,
            round: 0,
            phase,
            is_storing: false,
            may_be_stored: false,
            is_withheld: false,
            outcome: None,
        }
    }

    /// The same write once more, under the `tag` that it had: it is stored without asking, and
    /// never under another.
    pub fn again(
        list: PreferenceList,
        quorum: Quorum,
        level: Level,
        tag: Tag,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            phase: Phase::Storing(tag),
            is_resubmission: true,
            is_storing: true,
            may_be_stored: true,
            ..Self::new(list, quorum, level, now, deadline)
        }
    }

    /// The next thing to send; all n are to be asked at once.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let ask = match self.phase {
            Phase::AskingTags => Ask::Tag,
            Phase::Storing(_) => Ask::Put,
            Phase::Minting(_) => return None,
        };
        let replica = self.tally.replicas().get(self.transmitted)?;
        self.transmitted += 1;
        let to = replica.server;
        Some(Transmit { to, ask })
    }

    /// When to call [`Self::handle_timeout`], as long as any replica is pending.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.tally.pending() > 0).then_some(self.deadline)
    }

    /// Whether it is sent again, by [`Self::again`].
    pub fn is_resubmission(&self) -> bool {
        self.is_resubmission
    }

    /// What it promises.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether nobody is asked anything in this round as yet, or its tag is still to be minted.
    pub fn is_before_asking(&self) -> bool {
        let is_minting = matches!(self.phase, Phase::Minting(_));
        self.outcome.is_none() && (is_minting || self.transmitted == 0)
    }

    /// Whether the replicas that have told what they hold, if any have, hold nothing for the key.
    pub fn is_of_new_key(&self) -> bool {
        let mut answers = self.tally.answers().peekable();
        answers.peek().is_some() && answers.all(|told| *told == WriteReply::Tag(Tag::ZERO))
    }

    /// Ends the write before anybody is asked anything more: of each of these replicas it is known
    /// what keeps it from it, and too few others are left.
    pub fn withhold(
        &mut self,
        words: impl IntoIterator<Item = (ServerId, Word<WriteReply>)>,
        now: Instant,
    ) {
        self.may_be_stored |= !self.is_certainly_nowhere();
        self.is_storing = false;
        self.is_withheld = true;
        self.tally = Tally::new(self.tally.list(), self.started);
        self.transmitted = self.tally.replicas().len();
        self.round += 1;
        for (server, word) in words {
            self.tally.record(server, word, now);
        }
        let failure = self.failure(&self.threshold);
        self.outcome.get_or_insert(failure);
    }

    /// Whether it ended by [`Self::withhold`]: who is pending then was not asked.
    pub fn is_withheld(&self) -> bool {
        self.is_withheld
    }

    /// Whether no replica was asked anything in the last round that it had.
    pub fn has_asked_nobody(&self) -> bool {
        self.is_withheld || self.transmitted == 0
    }

    /// Which round it is, from 0.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Whether it only asks for tags as yet, so that no replica was sent the record.
    pub fn is_asking(&self) -> bool {
        self.phase == Phase::AskingTags && self.outcome.is_none()
    }

    /// Goes on at the agreement level from here, since a replica turned out to have no tags; false
    /// if it has ended, or asks for tags still. Who holds something newer has confirmed nothing
    /// at that level.
    pub fn fall_back(&mut self) -> bool {
        if self.outcome.is_some() || self.phase == Phase::AskingTags {
            return false;
        }
        self.level = Level::Agreement;
        if let Phase::Storing(_) = self.phase
            && !self.is_resubmission
            && let Some(held) = agreement::greatest_superseding(&self.tally)
        {
            self.phase = agreement::after_superseded(self.phase, held);
        }
        true
    }

    /// The tag that has to be exceeded for the write to go on with [`Self::begin_round`]; none if
    /// it has one, or has ended.
    pub fn wants_tag_above(&self) -> Option<Tag> {
        match self.phase {
            Phase::Minting(seen) if self.outcome.is_none() => Some(seen),
            _ => None,
        }
    }

    /// Begins the next round, with the record under `tag`: all n are to be asked to store it.
    pub fn begin_round(&mut self, tag: Tag) {
        self.may_be_stored |= !self.is_certainly_nowhere();
        self.is_storing = true;
        self.tally = Tally::new(self.tally.list(), self.started);
        self.transmitted = 0;
        self.round += 1;
        self.phase = Phase::Storing(tag);
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
        let reply = match (reply, self.phase) {
            (WriteReply::Superseded(held), Phase::Storing(tag)) if held <= tag => {
                WriteReply::Refused(Refusal::TagTaken)
            }
            _ => reply,
        };
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
        let outcome = match self.lacks_its_record() {
            true => WriteOutcome::Superseded,
            false => WriteOutcome::TimedOut,
        };
        self.outcome.get_or_insert(outcome);
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<WriteOutcome> {
        self.outcome
    }

    /// Whether every replica was heard out or has timed out, as far as they were asked.
    pub fn is_complete(&self) -> bool {
        self.is_withheld || self.tally.pending() == 0
    }

    /// A replica refused the put of this round when it had been sent there more than once. The
    /// refusal is of one copy; another may have been stored, before the server was started anew
    /// with less room, say.
    pub fn handle_refused_again(&mut self) {
        self.may_be_stored = true;
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

    /// Whether no replica can have taken the record in this round. One that was superseded may
    /// have: a put that was sent again is superseded by whatever was stored after its first copy,
    /// whose answer was lost.
    fn is_certainly_nowhere(&self) -> bool {
        let certainly_not = |replica: &Replica<WriteReply>| match replica.word {
            Word::Unreachable => true,
            Word::Answer(WriteReply::Refused(refusal)) => refusal.is_certain(),
            _ => false,
        };
        !self.is_storing || self.tally.replicas().iter().all(certainly_not)
    }

    /// How many replicas have confirmed so far.
    pub fn confirmed(&self) -> usize {
        let servers = self.tally.replicas().iter().map(|replica| replica.server);
        servers.filter(|server| self.is_confirmed(*server)).count()
    }

    fn is_confirmed(&self, server: ServerId) -> bool {
        match self.tally.answer_of(server) {
            Some(WriteReply::Stored) => true,
            Some(WriteReply::Superseded(held)) => match self.level {
                Level::Linearizable => linearizable::is_confirmed_by(*held),
                Level::Agreement => agreement::is_confirmed_by_newer(),
            },
            Some(WriteReply::Tag(_) | WriteReply::Refused(_)) | None => false,
        }
    }

    /// The n and w of the request.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// The preference list that it asks.
    pub fn list(&self) -> PreferenceList {
        self.tally.list()
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<WriteReply>] {
        self.tally.replicas()
    }

    /// Why replicas refused, in preference order.
    pub fn refusals(&self) -> impl Iterator<Item = Refusal> + '_ {
        self.tally.answers().filter_map(|answer| answer.refusal())
    }

    fn record(
        &mut self,
        from: ServerId,
        round: u32,
        word: Word<WriteReply>,
        now: Instant,
    ) -> Recorded {
        if round != self.round && !mutants::is_on(Mutant::EarlierRoundCounted) {
            return Recorded::Repeated;
        }
        let recorded = self.tally.record(from, word, now);
        if recorded == Recorded::Counted && self.outcome.is_none() {
            self.advance(word);
        }
        recorded
    }

    /// Proceeds as far as the newest response allows.
    fn advance(&mut self, word: Word<WriteReply>) {
        if self.phase == Phase::AskingTags {
            match linearizable::greatest_tag(&self.tally, &self.tag_threshold) {
                TagQuery::Open => {}
                TagQuery::Greatest(tag) => self.phase = Phase::Minting(tag),
                TagQuery::Failed => self.outcome = Some(self.failure(&self.tag_threshold)),
            }
            return;
        }
        let may_begin_anew = self.level == Level::Agreement && !self.is_resubmission;
        if let Word::Answer(WriteReply::Superseded(held)) = word
            && (may_begin_anew || matches!(self.phase, Phase::Minting(_)))
        {
            self.phase = agreement::after_superseded(self.phase, held);
        }
        self.decide();
    }

    /// Ends the write if enough replicas have confirmed, or if they no longer can.
    fn decide(&mut self) {
        let is_confirmed = |server| self.is_confirmed(server);
        if self.lacks_its_record() {
            let have_all_responded = self.tally.pending() == 0;
            self.outcome = have_all_responded.then_some(WriteOutcome::Superseded);
        } else if self.threshold.is_met(is_confirmed) {
            self.outcome = Some(WriteOutcome::Committed);
        } else if matches!(self.phase, Phase::Storing(_))
            && !self
                .threshold
                .can_still_be_met(is_confirmed, |server| self.tally.is_pending(server))
        {
            self.outcome = Some(self.failure(&self.threshold));
        }
    }

    /// Whether enough replicas confirm a write that is sent again, all of them by something newer.
    fn lacks_its_record(&self) -> bool {
        self.is_resubmission
            && self.level == Level::Linearizable
            && self.threshold.is_met(|server| self.is_confirmed(server))
            && resubmission::is_nowhere_seen(&self.tally)
    }

    /// Why `threshold` can no longer be met.
    fn failure(&self, threshold: &Threshold) -> WriteOutcome {
        let prevents = |held| match self.level {
            Level::Linearizable => !linearizable::is_confirmed_by(held),
            Level::Agreement => true,
        };
        WriteOutcome::of_failure(threshold, &self.tally, prevents)
    }
}

#[cfg(test)]
mod tests;

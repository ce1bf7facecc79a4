//! The write: store to all n replicas at once, done when w confirmed.
//!
//! ```text
//!   linearizable:  query tags ---- w have reported ---> [ waits for a tag ] --> store --> outcome
//!
//!   agreement:     [ waits for a tag ] --> store --> outcome
//!                          ^                 |
//!                          +-- superseded ---+
//!
//!   resubmission:  store under the tag it had --> outcome
//! ```
//!
//! Linearizable is the write of the multi-writer register of Attiya, Bar-Noy and Dolev (1995) as
//! Lynch and Shvartsman (1997) give it: the new tag is greater than that of every write that was
//! confirmed before. So a replica that holds a greater one confirms as well: that was written later.
//! Not so if it came by DKVS/1: its tag is from the clock of the replica, and it may have been
//! written before. Such a replica confirms nothing. (The write does not begin anew under a greater
//! tag, as it does at the agreement level: it would take effect a second time.)
//!
//! At the agreement level the tag is minted without a query. A replica that holds a greater one
//! keeps that and says so; the write then begins anew, in a further round under a tag that is
//! greater still, so that a lagging clock never makes a confirmed write vanish.
//!
//! A write that is sent again at the linearizable level is confirmed by something newer only if a
//! replica holds that very record: else nothing shows that it was ever there.
//!
//! Responses to an earlier round change nothing. The rules of each level are in `linearizable`,
//! `agreement` and `resubmission`.

mod agreement;
mod linearizable;
mod outcome;
mod phase;
mod response;
mod resubmission;

use std::time::Instant;

use super::level::Level;
use super::params::Quorum;
use super::tally::{Recorded, Replica, ReplicaState, Tally};
use super::threshold::Threshold;
use super::transmit::{CommandId, Purpose, Transmit};
use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{Refusal, ReplicaCommand, ReplicaResponse};
use crate::mutants::{self, Mutant};
use crate::record::{Attributes, Content, Record};
use crate::ring::PreferenceList;
use crate::tag::Tag;
use linearizable::TagQuery;
use phase::Phase;

pub use outcome::{Applied, WriteOutcome};
pub use response::WriteResponse;

/// One write.
#[derive(Debug)]
pub struct Write {
    key: Key,
    attributes: Attributes,
    content: Content,
    /// The content under the tag of this round, once it has one.
    record: Option<Record>,
    tally: Tally<WriteResponse>,
    /// Who has to confirm.
    threshold: Threshold,
    /// Who has to report a tag, at the linearizable level.
    tag_threshold: Threshold,
    quorum: Quorum,
    level: Level,
    /// It was sent before under the tag that it has, and is not to be under any other.
    is_resubmission: bool,
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
    /// A write of `content` to the replicas of `list`, one for each of the quorum's n. At the
    /// linearizable level the quorum has to pass [`Level::check_linearizable`].
    pub fn new(
        key: Key,
        content: Content,
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
            key,
            attributes: Attributes::NONE,
            content,
            record: None,
            threshold,
            tag_threshold,
            tally: Tally::new(list, now),
            quorum,
            level,
            is_resubmission: false,
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

    /// The write that had this `tag`, once more: it is stored without a query for tags, and never
    /// under another tag.
    #[expect(clippy::too_many_arguments, reason = "a write is all of this")]
    pub fn resubmit(
        key: Key,
        content: Content,
        tag: Tag,
        list: PreferenceList,
        quorum: Quorum,
        level: Level,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            record: Some(Record::new(&key, tag, content.clone())),
            phase: Phase::Storing(tag),
            is_resubmission: true,
            is_storing: true,
            may_be_stored: true,
            ..Self::new(key, content, list, quorum, level, now, deadline)
        }
    }

    /// The same write, of a record that says this beside its content.
    pub fn with_attributes(self, attributes: Attributes) -> Self {
        let of_tag = |record: Record| self.record_under(record.tag, attributes);
        Self {
            record: self.record.clone().map(of_tag),
            attributes,
            ..self
        }
    }

    fn record_under(&self, tag: Tag, attributes: Attributes) -> Record {
        Record::with_attributes(&self.key, tag, attributes, self.content.clone())
    }

    /// The key that it writes.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What it writes.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// What its record says beside its content.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The record of this round, once it has a tag.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The next command to send; all n are to be sent at once.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let replica = self.tally.replicas().get(self.transmitted)?;
        let key = self.key.clone();
        let (purpose, command) = match (self.phase, &self.record) {
            (Phase::AskingTags, _) => (Purpose::GetTag, ReplicaCommand::GetTag { key }),
            (Phase::Storing(_), Some(record)) => {
                let record = record.clone();
                (Purpose::Put, ReplicaCommand::Put { key, record })
            }
            (Phase::Storing(_), None) | (Phase::Minting(_), _) => return None,
        };
        self.transmitted += 1;
        let (to, round) = (replica.server, self.round);
        let id = CommandId { round, purpose };
        Some(Transmit { to, id, command })
    }

    /// When to call [`Self::handle_timeout`], as long as any replica is pending.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.tally.pending() > 0).then_some(self.deadline)
    }

    /// Whether it is one that was sent before, by [`Self::resubmit`].
    pub fn is_resubmission(&self) -> bool {
        self.is_resubmission
    }

    /// What it promises.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether no command of this round has been sent yet, or its tag is still to be minted.
    pub fn is_round_unsent(&self) -> bool {
        let is_minting = matches!(self.phase, Phase::Minting(_));
        self.outcome.is_none() && (is_minting || self.transmitted == 0)
    }

    /// Whether replicas have reported their tags, and all of these hold nothing for the key.
    pub fn has_seen_no_record(&self) -> bool {
        let mut responses = self.tally.responses().peekable();
        let nothing = WriteResponse::Tag(Tag::ZERO);
        responses.peek().is_some() && responses.all(|response| *response == nothing)
    }

    /// Ends the write before anything more is sent: these replicas are known to be unable to store
    /// it, each as its state says, and too few others are left.
    pub fn withhold(
        &mut self,
        states: impl IntoIterator<Item = (ServerId, ReplicaState<WriteResponse>)>,
        now: Instant,
    ) {
        self.may_be_stored |= !self.is_certainly_nowhere();
        self.is_storing = false;
        self.is_withheld = true;
        self.tally = self.tally.anew();
        self.transmitted = self.tally.replicas().len();
        self.round += 1;
        for (server, state) in states {
            self.tally.record(server, state, now);
        }
        let failure = self.failure(&self.threshold);
        self.outcome.get_or_insert(failure);
    }

    /// Whether it ended by [`Self::withhold`]: replicas that are pending then were sent nothing.
    pub fn is_withheld(&self) -> bool {
        self.is_withheld
    }

    /// Whether no command of the last round was sent.
    pub fn has_sent_nothing(&self) -> bool {
        self.is_withheld || self.transmitted == 0
    }

    /// Which round it is, from 0.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Whether it still queries tags, so that no replica was sent the record.
    pub fn is_querying_tags(&self) -> bool {
        self.phase == Phase::AskingTags && self.outcome.is_none()
    }

    /// Continues at the agreement level from here, since a replica turned out to have no tags; false
    /// if it has ended, or still queries tags. A replica that holds something newer confirms
    /// nothing at that level.
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

    /// The tag that the next round's has to exceed, in [`Self::begin_round`]; none if the write waits
    /// for no tag, or has ended.
    pub fn requires_tag_above(&self) -> Option<Tag> {
        match self.phase {
            Phase::Minting(seen) if self.outcome.is_none() => Some(seen),
            _ => None,
        }
    }

    /// Begins the next round, with the record under `tag`: all n replicas are to store it.
    pub fn begin_round(&mut self, tag: Tag) {
        self.record = Some(self.record_under(tag, self.attributes));
        self.may_be_stored |= !self.is_certainly_nowhere();
        self.is_storing = true;
        self.tally = self.tally.anew();
        self.transmitted = 0;
        self.round += 1;
        self.phase = Phase::Storing(tag);
    }

    /// There is no greater tag: the write counts as refused.
    pub fn give_up(&mut self) {
        self.outcome.get_or_insert(WriteOutcome::Refused);
    }

    /// `from` responded to the command `id`.
    pub fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) -> Recorded {
        let response = match id.purpose {
            Purpose::GetTag => WriteResponse::to_get_tag(response),
            Purpose::Put => WriteResponse::to_put(response),
            _ => return Recorded::Repeated,
        };
        let response = match (response, self.phase) {
            (WriteResponse::Superseded(held), Phase::Storing(tag)) if held <= tag => {
                WriteResponse::Refused(Refusal::TagTaken)
            }
            _ => response,
        };
        self.record_state(from, id, ReplicaState::Responded(response), now)
    }

    /// The command `id` cannot reach `from`; `was_sent` says whether it may have before.
    pub fn handle_unreachable(
        &mut self,
        from: ServerId,
        id: CommandId,
        was_sent: bool,
        now: Instant,
    ) -> Recorded {
        self.record_state(from, id, ReplicaState::unreachable(was_sent), now)
    }

    /// Time has passed; at the deadline, all pending replicas time out.
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

    /// Whether every replica that was sent a command responded or timed out.
    pub fn is_complete(&self) -> bool {
        self.is_withheld || self.tally.pending() == 0
    }

    /// A replica refused the put of this round when it had been sent there more than once. The
    /// refusal is of one copy; another may have been stored, such as before the server was restarted
    /// with less room.
    pub fn handle_repeated_refusal(&mut self) {
        self.may_be_stored = true;
    }

    /// What became of the value, as far as is known now. A replica that is pending, or timed out,
    /// may have stored it.
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
        let certainly_not = |replica: &Replica<WriteResponse>| match replica.state {
            ReplicaState::Unreachable => true,
            ReplicaState::Responded(WriteResponse::Refused(refusal)) => refusal.is_certain(),
            _ => false,
        };
        !self.is_storing || self.tally.replicas().iter().all(certainly_not)
    }

    /// How many replicas have confirmed so far.
    pub fn confirmed(&self) -> usize {
        self.tally
            .servers()
            .filter(|server| self.is_confirmed(*server))
            .count()
    }

    /// A replica that has confirmed, and those that may lack the record: they were silent, could not be
    /// reached, or were busy. Nothing, if none has confirmed.
    pub fn missed(&self) -> Option<(ServerId, impl Iterator<Item = &Replica<WriteResponse>>)> {
        let mut servers = self.tally.servers();
        let confirmed = servers.find(|server| self.is_confirmed(*server))?;
        let is_missed = |replica: &&Replica<WriteResponse>| match replica.state {
            ReplicaState::Responded(response) => response == WriteResponse::Refused(Refusal::Busy),
            ReplicaState::Pending
            | ReplicaState::Unreachable
            | ReplicaState::Indeterminate
            | ReplicaState::TimedOut => true,
        };
        Some((confirmed, self.tally.replicas().iter().filter(is_missed)))
    }

    fn is_confirmed(&self, server: ServerId) -> bool {
        match self.tally.response_of(server) {
            Some(WriteResponse::Stored) => true,
            Some(WriteResponse::Superseded(held)) => match self.level {
                Level::Linearizable => linearizable::is_confirmed_by(*held),
                Level::Agreement => agreement::is_confirmed_by_newer(),
            },
            Some(WriteResponse::Tag(_) | WriteResponse::Refused(_)) | None => false,
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
    pub fn replicas(&self) -> &[Replica<WriteResponse>] {
        self.tally.replicas()
    }

    /// Why replicas refused, in preference order.
    pub fn refusals(&self) -> impl Iterator<Item = Refusal> + '_ {
        self.tally
            .responses()
            .filter_map(|response| response.refusal())
    }

    fn record_state(
        &mut self,
        from: ServerId,
        id: CommandId,
        state: ReplicaState<WriteResponse>,
        now: Instant,
    ) -> Recorded {
        if id.round != self.round && !mutants::is_on(Mutant::EarlierRoundCounted) {
            return Recorded::Repeated;
        }
        let recorded = self.tally.record(from, state, now);
        if recorded == Recorded::Counted && self.outcome.is_none() {
            self.advance(state);
        }
        recorded
    }

    /// Proceeds as far as the newest response allows.
    fn advance(&mut self, newest: ReplicaState<WriteResponse>) {
        if self.phase == Phase::AskingTags {
            match linearizable::greatest_tag(&self.tally, &self.tag_threshold) {
                TagQuery::Open => {}
                TagQuery::Greatest(tag) => self.phase = Phase::Minting(tag),
                TagQuery::Failed => self.outcome = Some(self.failure(&self.tag_threshold)),
            }
            return;
        }
        let may_begin_anew = self.level == Level::Agreement && !self.is_resubmission;
        if let ReplicaState::Responded(WriteResponse::Superseded(held)) = newest
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

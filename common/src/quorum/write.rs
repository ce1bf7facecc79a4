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
//! Words of an earlier round change nothing.

use std::time::Instant;

use super::level::Level;
use super::params::{Quorum, majority};
use super::tally::{Recorded, Replica, Tally, Word};
use super::{Ask, Refusal, Transmit};
use crate::cluster::ServerId;
use crate::mutants::{self, Mutant};
use crate::ring::PreferenceList;
use crate::tag::Tag;

/// What a replica says to a put, or when it is asked for its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteReply {
    /// The tag that it holds; [`Tag::ZERO`] if it holds nothing.
    Tag(Tag),
    /// It holds the record.
    Stored,
    /// It holds another one, with this tag, and keeps that.
    Superseded(Tag),
    /// It did not do what it was asked.
    Refused(Refusal),
}

impl WriteReply {
    /// Whether who answers so to a put under `tag` holds that record, or something that came
    /// after it. A record that came by DKVS/1 may be older, whatever its tag.
    pub fn confirms(self, tag: Tag) -> bool {
        match self {
            Self::Stored => true,
            Self::Superseded(held) => held > tag && !is_by_v1(held),
            Self::Tag(_) | Self::Refused(_) => false,
        }
    }
}

fn is_by_v1(held: Tag) -> bool {
    held.is_by_v1() && !mutants::is_on(Mutant::SupersededByV1AsStored)
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// At least w replicas confirmed.
    Committed,
    /// So many replicas refused that w can no longer confirm.
    Refused,
    /// So many replicas hold something newer that w can no longer confirm, and the write was to
    /// keep its tag; or something that came by DKVS/1 and may be newer. Or, at the linearizable
    /// level, w confirmed a write that is sent again, and none of them holds the record.
    Superseded,
    /// So many replicas are unreachable (or refused) that w can no longer confirm.
    Unreachable,
    /// The deadline passed while w could still have confirmed.
    TimedOut,
}

/// What became of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is on at least w replicas, or was until something newer took its place.
    Committed,
    /// It is on some replicas, or may be, and may surface later.
    Unknown,
    /// It certainly never was on any.
    NotApplied,
}

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The tags of w replicas, which are a majority.
    Asking,
    /// [`Write::begin_round`], with a tag greater than this.
    Minting(Tag),
    /// Confirmations of the record under this tag.
    Storing(Tag),
}

/// One write.
#[derive(Debug)]
pub struct Write {
    tally: Tally<WriteReply>,
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
            Level::Linearizable if !mutants::is_on(Mutant::ClockOnlyTags) => Phase::Asking,
            _ => Phase::Minting(Tag::ZERO),
        };
        Self {
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
            Phase::Asking => Ask::Tag,
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
        let failure = self.failure(usize::from(self.quorum.needed()));
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
        self.phase == Phase::Asking && self.outcome.is_none()
    }

    /// Goes on at the agreement level from here, since a replica turned out to have no tags; false
    /// if it has ended, or asks for tags still. Who holds something newer has confirmed nothing
    /// at that level.
    pub fn fall_back(&mut self) -> bool {
        if self.outcome.is_some() || self.phase == Phase::Asking {
            return false;
        }
        self.level = Level::Agreement;
        let overtaken = self.tally.answers().filter_map(|answer| match answer {
            WriteReply::Superseded(held) => Some(*held),
            _ => None,
        });
        if let (Some(held), Phase::Storing(_), false) =
            (overtaken.max(), self.phase, self.is_resubmission)
        {
            self.phase = Phase::Minting(held);
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
        let outcome = match self.awaits_its_record() {
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
        let confirms = |answer: &&WriteReply| match answer {
            WriteReply::Stored => true,
            WriteReply::Superseded(held) => {
                (self.level == Level::Linearizable && !is_by_v1(*held))
                    || mutants::is_on(Mutant::SupersededAsStored)
            }
            WriteReply::Tag(_) | WriteReply::Refused(_) => false,
        };
        self.tally.answers().filter(confirms).count()
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
        if round != self.round && !mutants::is_on(Mutant::EarlierRoundCounted) {
            return Recorded::Repeated;
        }
        let recorded = self.tally.record(from, word, now);
        if recorded == Recorded::Counted && self.outcome.is_none() {
            self.advance(word);
        }
        recorded
    }

    /// Goes on as far as the newest word allows.
    fn advance(&mut self, word: Word<WriteReply>) {
        if self.phase == Phase::Asking {
            let told = |answer: &WriteReply| match answer {
                WriteReply::Tag(tag) => Some(*tag),
                _ => None,
            };
            let told = self.tally.answers().filter_map(told);
            // As many as have to store the record: so those take it, whatever the others hold.
            let enough = match mutants::is_on(Mutant::TagOfOne) {
                false => usize::from(majority(self.quorum.n()).max(self.quorum.needed())),
                true => 1,
            };
            let count = told.clone().count();
            if count >= enough {
                self.phase = Phase::Minting(told.max().unwrap_or(Tag::ZERO));
            } else if count + self.tally.pending() < enough {
                self.outcome = Some(self.failure(enough));
            }
            return;
        }
        let may_restart = self.level == Level::Agreement && !self.is_resubmission;
        match (word, self.phase) {
            (Word::Answer(WriteReply::Superseded(held)), Phase::Storing(_)) if may_restart => {
                self.phase = Phase::Minting(held);
            }
            (Word::Answer(WriteReply::Superseded(held)), Phase::Minting(seen)) => {
                self.phase = Phase::Minting(seen.max(held));
            }
            _ => {}
        }
        let needed = usize::from(self.quorum.needed());
        let confirmed = self.confirmed();
        if self.awaits_its_record() {
            let is_nowhere = self.tally.pending() == 0;
            self.outcome = is_nowhere.then_some(WriteOutcome::Superseded);
        } else if confirmed >= needed {
            self.outcome = Some(WriteOutcome::Committed);
        } else if matches!(self.phase, Phase::Storing(_))
            && confirmed + self.tally.pending() < needed
        {
            self.outcome = Some(self.failure(needed));
        }
    }

    /// Whether enough replicas confirm a write that is sent again, all of them by something newer.
    fn awaits_its_record(&self) -> bool {
        let is_held = |answer: &WriteReply| *answer == WriteReply::Stored;
        self.is_resubmission
            && self.level == Level::Linearizable
            && self.confirmed() >= usize::from(self.quorum.needed())
            && !self.tally.answers().any(is_held)
    }

    /// Why `needed` replicas can no longer do what is asked of them.
    fn failure(&self, needed: usize) -> WriteOutcome {
        let is_superseded = |answer: &&WriteReply| match answer {
            WriteReply::Superseded(held) => self.level == Level::Agreement || is_by_v1(*held),
            _ => false,
        };
        let superseded = self.tally.answers().filter(is_superseded).count();
        let refused = self.refusals().count();
        let spare = usize::from(self.quorum.n()) - needed;
        if superseded > spare {
            WriteOutcome::Superseded
        } else if refused + superseded > spare {
            WriteOutcome::Refused
        } else {
            WriteOutcome::Unreachable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::ring::{Position, RingPoint};
    use crate::tag::TagClock;
    use crate::testing::start_of_time;

    const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

    fn list() -> PreferenceList {
        let point = |server| RingPoint {
            position: Position([0; 20]),
            server,
        };
        SERVERS.map(point).to_vec()
    }

    /// A write at the agreement level, in the round after the first tag.
    fn write(w: u8) -> (Write, Instant) {
        let now = start_of_time();
        let quorum = Quorum::new(3, w).unwrap();
        let deadline = now + Duration::from_secs(1);
        let mut write = Write::new(list(), quorum, Level::Agreement, now, deadline);
        assert_eq!(write.wants_tag_above(), Some(Tag::ZERO));
        store(&mut write, 1);
        (write, now)
    }

    fn tag(time: u64) -> Tag {
        Tag { time, op: 0 }
    }

    fn superseded(time: u64) -> WriteReply {
        WriteReply::Superseded(tag(time))
    }

    /// Begins a round under the tag of this time.
    fn store(write: &mut Write, time: u64) {
        write.begin_round(tag(time));
        let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
        let to_store = SERVERS.map(|to| Transmit { to, ask: Ask::Put });
        assert_eq!(asked, to_store);
    }

    /// A linearizable write of which all replicas were asked for their tags.
    fn linearizable(w: u8) -> (Write, Instant) {
        let now = start_of_time();
        let deadline = now + Duration::from_secs(1);
        let quorum = Quorum::new(3, w).unwrap();
        let mut write = Write::new(list(), quorum, Level::Linearizable, now, deadline);
        let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
        assert_eq!(asked, SERVERS.map(|to| Transmit { to, ask: Ask::Tag }));
        (write, now)
    }

    #[test]
    fn a_linearizable_write_exceeds_what_a_majority_told_and_stores_once() {
        let (mut write, now) = linearizable(2);
        write.handle_reply(SERVERS[2], 0, WriteReply::Tag(tag(7)), now);
        assert_eq!(write.wants_tag_above(), None, "one is no majority");
        write.handle_reply(SERVERS[0], 0, WriteReply::Tag(Tag::ZERO), now);
        assert_eq!(write.wants_tag_above(), Some(tag(7)));
        store(&mut write, 8);
        assert_eq!(write.wants_tag_above(), None);
        let late = write.handle_reply(SERVERS[1], 0, WriteReply::Tag(tag(9)), now);
        assert_eq!(late, Recorded::Repeated);
        write.handle_reply(SERVERS[1], 1, superseded(9), now);
        assert_eq!((write.outcome(), write.wants_tag_above()), (None, None));
        write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
        assert_eq!((write.confirmed(), write.round()), (2, 1));
    }

    #[test]
    fn a_majority_that_tells_no_tag_ends_a_write_that_is_nowhere() {
        let (mut write, now) = linearizable(2);
        write.handle_unreachable(SERVERS[0], 0, true, now);
        assert_eq!(write.outcome(), None);
        write.handle_unreachable(SERVERS[1], 0, true, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::NotApplied);

        let (mut write, now) = linearizable(3);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Refused(Refusal::NotV2), now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));

        let (mut write, now) = linearizable(3);
        write.handle_reply(SERVERS[0], 0, WriteReply::Tag(tag(1)), now);
        write.handle_timeout(write.poll_timeout().unwrap());
        assert_eq!(write.outcome(), Some(WriteOutcome::TimedOut));
        assert_eq!(write.applied(), Applied::NotApplied);
    }

    #[test]
    fn what_was_sent_to_be_stored_may_be_stored() {
        let (mut write, now) = linearizable(2);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
        }
        store(&mut write, 1);
        write.handle_timeout(write.poll_timeout().unwrap());
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn a_replica_that_confirms_by_something_newer_has_not_refused() {
        let (mut write, now) = linearizable(2);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
        }
        store(&mut write, 1);
        write.handle_reply(SERVERS[0], 1, superseded(9), now);
        write.handle_reply(SERVERS[1], 1, WriteReply::Refused(Refusal::Full), now);
        write.handle_unreachable(SERVERS[2], 1, false, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown, "it may have held it");
    }

    #[test]
    fn a_record_that_came_by_dkvs_1_confirms_nothing_whatever_its_tag() {
        let by_v1 = |time| {
            let mut clock = TagClock::for_v1(7);
            let seen = Tag { time, op: 0 };
            WriteReply::Superseded(clock.mint(0, seen).unwrap())
        };
        assert!(superseded(9).confirms(tag(8)) && !by_v1(9).confirms(tag(8)));
        let hour_ahead = by_v1(3_600_000 << 16);
        for (answers, outcome, confirmed) in [
            // A minority's clock is ahead: the others are enough.
            (
                [WriteReply::Stored, WriteReply::Stored, hour_ahead],
                Some(WriteOutcome::Committed),
                2,
            ),
            (
                [hour_ahead, WriteReply::Stored, superseded(9)],
                Some(WriteOutcome::Committed),
                2,
            ),
            (
                [hour_ahead, WriteReply::Stored, hour_ahead],
                Some(WriteOutcome::Superseded),
                1,
            ),
            (
                [
                    hour_ahead,
                    WriteReply::Stored,
                    WriteReply::Refused(Refusal::Full),
                ],
                Some(WriteOutcome::Refused),
                1,
            ),
        ] {
            let (mut write, now) = linearizable(2);
            for server in &SERVERS[..2] {
                write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
            }
            store(&mut write, 1);
            for (server, answer) in SERVERS.into_iter().zip(answers) {
                write.handle_reply(server, 1, answer, now);
            }
            assert_eq!((write.outcome(), write.confirmed()), (outcome, confirmed));
            assert_eq!(write.wants_tag_above(), None, "it would take effect twice");
            if outcome != Some(WriteOutcome::Committed) {
                assert_eq!(write.applied(), Applied::Unknown);
            }
        }
    }

    #[test]
    fn a_write_that_falls_back_while_it_stores_counts_by_the_rules_of_its_new_level() {
        let storing = |w| {
            let (mut write, now) = linearizable(w);
            assert!(
                !write.fall_back(),
                "it stores nothing yet, and begins anew instead"
            );
            for server in &SERVERS[..2] {
                write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
            }
            store(&mut write, 1);
            (write, now)
        };
        let (mut write, now) = storing(3);
        write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
        assert!(write.fall_back());
        assert_eq!((write.level(), write.confirmed()), (Level::Agreement, 1));
        for server in &SERVERS[1..] {
            write.handle_reply(*server, 1, WriteReply::Stored, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
        assert!(!write.fall_back(), "it has ended");

        let (mut write, now) = storing(2);
        write.handle_reply(SERVERS[0], 1, superseded(9), now);
        assert!(write.fall_back());
        assert_eq!(
            (write.confirmed(), write.wants_tag_above()),
            (0, Some(tag(9)))
        );
        store(&mut write, 10);
        write.handle_reply(SERVERS[0], 2, WriteReply::Stored, now);
        write.handle_reply(SERVERS[2], 2, WriteReply::Stored, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    }

    #[test]
    fn another_record_under_the_same_tag_confirms_nothing() {
        let (mut write, now) = linearizable(2);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
        }
        store(&mut write, 5);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 1, superseded(5), now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
        let refusals: Vec<_> = write.refusals().collect();
        assert_eq!(refusals, [Refusal::TagTaken; 2]);
    }

    fn again(level: Level) -> (Write, Instant) {
        let now = start_of_time();
        let deadline = now + Duration::from_secs(1);
        let quorum = Quorum::new(3, 2).unwrap();
        let mut write = Write::again(list(), quorum, level, tag(5), now, deadline);
        assert_eq!(write.wants_tag_above(), None);
        assert_eq!(std::iter::from_fn(|| write.poll_transmit()).count(), 3);
        (write, now)
    }

    #[test]
    fn a_write_that_is_sent_again_keeps_its_tag_whatever_it_meets() {
        let (mut write, now) = again(Level::Linearizable);
        write.handle_reply(SERVERS[0], 0, superseded(9), now);
        write.handle_reply(SERVERS[1], 0, WriteReply::Stored, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));

        let (mut write, now) = again(Level::Agreement);
        write.handle_reply(SERVERS[0], 0, superseded(9), now);
        assert_eq!((write.outcome(), write.wants_tag_above()), (None, None));
        write.handle_reply(SERVERS[1], 0, superseded(9), now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Superseded));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    /// What one replica says, of a write that is sent again under the tag 5.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Says {
        Stored,
        Newer,
        Refuses,
        IsGone,
        Nothing,
    }

    fn say(write: &mut Write, server: ServerId, says: Says, now: Instant) {
        let reply = match says {
            Says::Stored => WriteReply::Stored,
            Says::Newer => superseded(9),
            Says::Refuses => WriteReply::Refused(Refusal::Full),
            Says::IsGone => {
                write.handle_unreachable(server, 0, false, now);
                return;
            }
            Says::Nothing => return,
        };
        write.handle_reply(server, 0, reply, now);
    }

    #[test]
    fn a_linearizable_write_that_is_sent_again_is_confirmed_only_where_a_replica_holds_it() {
        use Says::{IsGone, Newer, Nothing, Refuses, Stored};
        use WriteOutcome::{Committed, Refused, Superseded, TimedOut, Unreachable};
        // What three replicas say, of which two have to confirm, in this order; how it stands
        // then, and at the deadline.
        for (says, now_is, at_last) in [
            ([Stored, Stored, Nothing], Some(Committed), Committed),
            ([Stored, Newer, Nothing], Some(Committed), Committed),
            ([Newer, Stored, Nothing], Some(Committed), Committed),
            ([Newer, Newer, Stored], Some(Committed), Committed),
            ([Newer, Newer, Newer], Some(Superseded), Superseded),
            ([Newer, Newer, Refuses], Some(Superseded), Superseded),
            ([Newer, Newer, IsGone], Some(Superseded), Superseded),
            ([Refuses, Newer, Newer], Some(Superseded), Superseded),
            ([IsGone, Newer, Newer], Some(Superseded), Superseded),
            ([Newer, Newer, Nothing], None, Superseded),
            ([Newer, Nothing, Nothing], None, TimedOut),
            ([Newer, IsGone, Nothing], None, TimedOut),
            ([Newer, Refuses, IsGone], Some(Unreachable), Unreachable),
            ([Newer, Refuses, Refuses], Some(Refused), Refused),
            ([Stored, Refuses, Refuses], Some(Refused), Refused),
            ([Stored, Nothing, Nothing], None, TimedOut),
        ] {
            let (mut write, now) = again(Level::Linearizable);
            for (server, says) in SERVERS.into_iter().zip(says) {
                say(&mut write, server, says, now);
            }
            assert_eq!(write.outcome(), now_is, "{says:?}");
            write.handle_timeout(now + Duration::from_secs(1));
            assert_eq!(write.outcome(), Some(at_last), "{says:?} at the deadline");
            let applied = match at_last {
                Committed => Applied::Committed,
                _ => Applied::Unknown,
            };
            assert_eq!(write.applied(), applied, "{says:?}");
        }
    }

    #[test]
    fn a_linearizable_write_that_is_not_sent_again_is_confirmed_by_what_is_newer() {
        let (mut write, now) = linearizable(2);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 0, WriteReply::Tag(Tag::ZERO), now);
        }
        store(&mut write, 5);
        for server in &SERVERS[..2] {
            write.handle_reply(*server, 1, superseded(9), now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    }

    #[test]
    fn a_write_that_was_sent_before_is_never_certainly_nowhere() {
        let (mut write, now) = again(Level::Linearizable);
        for server in SERVERS {
            write.handle_unreachable(server, 0, false, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn a_write_that_was_overtaken_begins_anew_and_counts_only_its_own_round() {
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
        write.handle_reply(SERVERS[1], 1, superseded(7), now);
        assert_eq!(write.wants_tag_above(), Some(tag(7)));
        write.handle_reply(SERVERS[2], 1, superseded(9), now);
        assert_eq!(write.outcome(), None);
        assert_eq!(write.wants_tag_above(), Some(tag(9)));
        store(&mut write, 10);
        assert_eq!((write.round(), write.wants_tag_above()), (2, None));
        let late = write.handle_reply(SERVERS[1], 1, WriteReply::Stored, now);
        assert_eq!((late, write.confirmed()), (Recorded::Repeated, 0));
        write.handle_reply(SERVERS[1], 2, WriteReply::Stored, now);
        assert_eq!(write.outcome(), None);
        write.handle_reply(SERVERS[2], 2, WriteReply::Stored, now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
    }

    #[test]
    fn being_overtaken_after_the_decision_changes_nothing() {
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 1, WriteReply::Stored, now);
        write.handle_reply(SERVERS[1], 1, WriteReply::Stored, now);
        write.handle_reply(SERVERS[2], 1, superseded(9), now);
        assert_eq!(write.outcome(), Some(WriteOutcome::Committed));
        assert_eq!(write.wants_tag_above(), None);
    }

    #[test]
    fn what_an_earlier_round_may_have_stored_is_not_forgotten() {
        let (mut write, now) = write(3);
        write.handle_reply(SERVERS[0], 1, superseded(9), now);
        store(&mut write, 10);
        for server in SERVERS {
            write.handle_unreachable(server, 2, false, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
    }

    #[test]
    fn a_replica_that_was_overtaken_may_have_held_it_before() {
        let (mut write, now) = write(3);
        for server in SERVERS {
            write.handle_reply(server, 1, superseded(9), now);
        }
        store(&mut write, 10);
        for server in SERVERS {
            write.handle_unreachable(server, 2, false, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn a_replica_that_was_cut_off_may_have_stored_it() {
        let (mut write, now) = write(2);
        for (server, sent) in SERVERS.into_iter().zip([false, true, false]) {
            write.handle_unreachable(server, 1, sent, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Unreachable));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn a_refusal_by_a_server_of_another_ring_tells_nothing_of_the_one_before_it() {
        for (refusal, applied) in [
            (Refusal::WrongEpoch { epoch: 7 }, Applied::Unknown),
            (Refusal::Full, Applied::NotApplied),
        ] {
            let (mut write, now) = write(2);
            for server in SERVERS {
                write.handle_reply(server, 1, WriteReply::Refused(refusal), now);
            }
            assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
            assert_eq!(write.applied(), applied);
        }
    }

    #[test]
    fn a_refusal_of_a_put_that_was_sent_again_tells_nothing_of_the_first_copy() {
        let (mut write, now) = write(2);
        for server in SERVERS {
            write.handle_reply(server, 1, WriteReply::Refused(Refusal::Full), now);
        }
        assert_eq!(write.applied(), Applied::NotApplied);
        write.handle_refused_again();
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn a_refusal_of_a_damaged_copy_or_for_trouble_within_tells_nothing_of_other_copies() {
        for refusal in [Refusal::Corrupt, Refusal::Internal] {
            let (mut write, now) = write(2);
            for server in &SERVERS[..2] {
                write.handle_unreachable(*server, 1, false, now);
            }
            write.handle_reply(SERVERS[2], 1, WriteReply::Refused(refusal), now);
            assert_eq!(write.applied(), Applied::Unknown, "{refusal:?}");
        }
    }

    #[test]
    fn a_write_that_is_withheld_asks_nobody_and_is_applied_only_if_an_earlier_round_did() {
        let cannot = |refusal| Word::Answer(WriteReply::Refused(refusal));
        let full = cannot(Refusal::NoDeletion);
        for (words, outcome) in [
            ([Some(full), Some(full), None], WriteOutcome::Refused),
            ([Some(full), None, Some(full)], WriteOutcome::Refused),
            (
                [Some(full), Some(Word::Unreachable), None],
                WriteOutcome::Unreachable,
            ),
        ] {
            let words = || SERVERS.into_iter().zip(words);
            let words = || words().filter_map(|(server, word)| Some((server, word?)));
            let now = start_of_time();
            let quorum = Quorum::new(3, 2).unwrap();
            let deadline = now + Duration::from_secs(1);
            for level in [Level::Agreement, Level::Linearizable] {
                let new = || Write::new(list(), quorum, level, now, deadline);
                let again = || Write::again(list(), quorum, level, tag(5), now, deadline);
                for (mut write, applied) in
                    [(new(), Applied::NotApplied), (again(), Applied::Unknown)]
                {
                    assert!(write.is_before_asking() && !write.is_withheld());
                    write.withhold(words(), now);
                    assert_eq!(write.poll_transmit(), None);
                    assert_eq!(write.wants_tag_above(), None);
                    assert_eq!(write.outcome(), Some(outcome));
                    assert_eq!(write.applied(), applied);
                    assert!(write.is_complete() && write.is_withheld());
                    assert!(!write.is_before_asking());
                    write.handle_timeout(deadline);
                    assert_eq!(write.outcome(), Some(outcome));
                }
            }
        }
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 1, superseded(9), now);
        assert!(write.is_before_asking(), "a second round");
        let words = SERVERS.map(|server| (server, full));
        write.withhold(words, now);
        assert_eq!(write.applied(), Applied::Unknown, "two were asked before");
    }

    #[test]
    fn a_refusal_without_a_reason_tells_nothing() {
        let (mut write, now) = write(2);
        for server in SERVERS {
            let refused = WriteReply::Refused(Refusal::Unstated);
            write.handle_reply(server, 1, refused, now);
        }
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
        assert_eq!(write.applied(), Applied::Unknown);
    }

    #[test]
    fn with_no_greater_tag_to_be_had_the_write_is_refused() {
        let (mut write, now) = write(2);
        write.handle_reply(SERVERS[0], 1, superseded(u64::MAX), now);
        write.give_up();
        assert_eq!(write.outcome(), Some(WriteOutcome::Refused));
    }
}

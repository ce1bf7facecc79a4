//! The linearizable read: what the newest of at least r replicas holds, once as many hold it.
//!
//! ```text
//!   ask all --> [ fewer than r answers ] --> newest known --> enough hold it --> outcome
//!     ^                                        |     ^ |
//!     |         long value: fetched from ------+     | +-- others are stale --> given it
//!     |         one holder after the other           +------- confirmed ------------+
//!     +------------- overtaken at all of them
//! ```
//!
//! The read of the multi-writer register of Attiya, Bar-Noy and Dolev (1995): before a value is
//! told, so many replicas hold it (or something newer) that every later read meets one of them.
//! Those are r, which is a majority: so any r replicas meet any other r, and the r that tell of
//! the newest tag meet the w that confirmed any write before. As a rule the first r answers agree,
//! and that is all. A tombstone is a record like any other, and no record at all is the oldest.
//!
//! A replica that turns out to be stale is given the newest record even where the read need not
//! wait for that. If a replica that is heard after the outcome holds something newer still, that
//! is what the others are given: so replicas that were all heard out end up with the same.
//!
//! # Records that came by DKVS/1
//!
//! DKVS/1 has no tags: each replica mints its own for a put of that protocol, so the greatest tag
//! may be that of an older record, on a minority of the replicas. Once any replica tells of such a
//! record ([`Tag::is_by_v1`]), this read has no answer, and gives nothing to anybody any more, also
//! after its outcome: what it would write back might replace what was written last. Whoever may be
//! told less begins anew at the agreement level, which compares values and not tags.
//!
//! # Replicas that refuse as corrupt
//!
//! A server that has lost or damaged records answers `corrupt` for every key for which it does not
//! vouch. It may have confirmed a record that it does not have any more, so whatever it holds may
//! be too old, and a quorum that counted its answer might miss what the one before it confirmed.
//! Its refusal is no answer, as any refusal.
//!
//! ```text
//!   refused as corrupt --> given the newest -- confirmed --> asked to vouch --> repaired
//!                               |                                 |
//!                               +----------- or not --------------+--> refused, as it was
//! ```
//!
//! Once r others have answered, the read knows the newest, t. The server is given t, or what was
//! heard of since and is newer, as if it were stale, and asked to vouch for it: to answer for the
//! key from then on. It may, if t is no older than what was told or confirmed by any request that
//! counted a word of the server from before the loss. That is so if all of those were over when the
//! read began: the words that decided one of them and the r answers share a server that has what it
//! said, or vouches again for no less, as this one is about to. A request that is decided later
//! still may not be met. The machine knows neither when the server was started nor what else is
//! under way: whoever carries the words asks a server to vouch only in an incarnation that was
//! there for so long before the read that every request from before it is over, and the server
//! refuses if it is in another by then.
//!
//! Such a repair never counts among those that hold the newest, nor among those that may yet, and
//! the outcome does not wait for it: it hangs on those alone that answered soundly. They are at
//! least r by then, so they are enough if all goes well. A later read counts the server only once
//! it vouches, and it does that for t or something newer only. So what the outcome promises to
//! later reads holds whether they count it or not, and whatever comes of the vouching. If nothing
//! was found anywhere, there is nothing to give, and nobody is asked to vouch.

use std::time::Instant;

use super::{Answer, ReadOutcome, ReadReply, Standing};
use crate::cluster::ServerId;
use crate::kv::Value;
use crate::mutants::{self, Mutant};
use crate::quorum::params::Quorum;
use crate::quorum::tally::{Recorded, Replica, Tally, Word};
use crate::quorum::write::WriteReply;
use crate::quorum::{Ask, Refusal, Transmit, Version};
use crate::record::Content;
use crate::record::Digest;
use crate::ring::PreferenceList;
use crate::tag::Tag;

/// How often a read may begin anew because the long value it was about to fetch was overwritten
/// everywhere.
pub const ROUNDS_MAX: u32 = 16;

/// One read at the linearizable level.
#[derive(Debug)]
pub struct Read {
    tally: Tally<Answer>,
    /// The distinct records with values that were told, in the order of their arrival.
    records: Vec<Seen>,
    /// The newest that r replicas told of: what is to be told.
    newest: Option<Newest>,
    /// What replicas that lack it are given: the same, or what turned out to be newer still.
    given: Option<Newest>,
    repairs: Vec<Repair>,
    /// Whether a replica told of a record that came by DKVS/1.
    has_met_v1: bool,
    quorum: Quorum,
    started: Instant,
    deadline: Instant,
    round: u32,
    transmitted: usize,
    outcome: Option<ReadOutcome>,
}

#[derive(Debug)]
struct Seen {
    digest: Digest,
    value: Option<Value>,
    /// From whom the value is being fetched.
    fetched_from: Option<ServerId>,
    failed: Vec<ServerId>,
}

/// What a read is about to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newest {
    Nothing,
    Tombstone(Tag),
    /// The record at this place among those seen.
    Record(usize, Tag),
}

#[derive(Debug)]
struct Repair {
    server: ServerId,
    tag: Tag,
    /// Whether the replica refused as corrupt: it has to vouch as well, and does not count.
    is_unvouched: bool,
    state: RepairState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RepairState {
    Wanted,
    Sent,
    /// The replica confirmed, and is to vouch.
    VouchWanted,
    VouchSent,
    Confirmed,
    Failed,
}

impl Repair {
    fn is_open(&self) -> bool {
        !matches!(self.state, RepairState::Confirmed | RepairState::Failed)
    }
}

impl Newest {
    fn tag(self) -> Tag {
        match self {
            Self::Nothing => Tag::ZERO,
            Self::Tombstone(tag) | Self::Record(_, tag) => tag,
        }
    }

    fn of(answer: Answer) -> Option<Self> {
        match answer {
            Answer::Holds(place, tag) => Some(Self::Record(place, tag.unwrap_or(Tag::ZERO))),
            Answer::Absent(Some(tag)) => Some(Self::Tombstone(tag)),
            Answer::Absent(None) => Some(Self::Nothing),
            Answer::Refused(_) => None,
        }
    }
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
            records: Vec::new(),
            newest: None,
            given: None,
            repairs: Vec::new(),
            has_met_v1: false,
            quorum,
            started: now,
            deadline,
            round: 0,
            transmitted: 0,
            outcome: None,
        }
    }

    /// Which round of gets it is, from 0.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The next thing to send: all n are to be asked at once; later, the record that
    /// [`Self::repair`] gives is to be put to those who lack it. Those who are to vouch come before
    /// all else.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let mut repairs = self.repairs.iter_mut();
        if let Some(repair) = repairs.find(|repair| repair.state == RepairState::VouchWanted) {
            repair.state = RepairState::VouchSent;
            let (to, ask) = (repair.server, Ask::Vouch { tag: repair.tag });
            return Some(Transmit { to, ask });
        }
        if let Some(replica) = self.tally.replicas().get(self.transmitted) {
            self.transmitted += 1;
            let (to, ask) = (replica.server, Ask::Get);
            return Some(Transmit { to, ask });
        }
        let mut repairs = self.repairs.iter_mut();
        let repair = repairs.find(|repair| repair.state == RepairState::Wanted)?;
        repair.state = RepairState::Sent;
        let (to, ask) = (repair.server, Ask::Put);
        Some(Transmit { to, ask })
    }

    /// The value to fetch, and from whom.
    pub fn poll_fetch(&mut self) -> Option<(ServerId, Digest)> {
        let place = self.given_and_unknown()?;
        let from = self.next_holder(place)?;
        let seen = &mut self.records[place];
        if seen.fetched_from.is_some() {
            return None;
        }
        seen.fetched_from = Some(from);
        Some((from, seen.digest.clone()))
    }

    /// The record that the replicas are given; none while its value is not known.
    pub fn repair(&self) -> Option<(Tag, Content)> {
        match self.given? {
            Newest::Nothing => None,
            Newest::Tombstone(tag) => Some((tag, Content::Tombstone)),
            Newest::Record(place, tag) => {
                let seen = &self.records[place];
                let content = Content::Value {
                    content_type: seen.digest.content_type.clone(),
                    value: seen.value.clone()?,
                };
                Some((tag, content))
            }
        }
    }

    /// Whether a replica told of a record that came by DKVS/1.
    pub fn has_met_v1(&self) -> bool {
        self.has_met_v1
    }

    /// When to call [`Self::handle_timeout`], as long as anything is open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_complete()).then_some(self.deadline)
    }

    /// `from` answered the get of `round`.
    pub fn handle_reply(
        &mut self,
        from: ServerId,
        round: u32,
        reply: ReadReply,
        now: Instant,
    ) -> Recorded {
        if round != self.round && !mutants::is_on(Mutant::EarlierRoundCounted) {
            return Recorded::Repeated;
        }
        let answer = match &reply {
            ReadReply::Record(digest, _) => {
                let seen = self.records.iter().position(|seen| seen.digest == *digest);
                Answer::Holds(seen.unwrap_or(self.records.len()), Some(digest.tag))
            }
            ReadReply::Absent(tag) => Answer::Absent(*tag),
            ReadReply::Refused(refusal) => Answer::Refused(*refusal),
            // Without a tag, what it holds cannot be told from what is older or newer.
            ReadReply::Value(_) => Answer::Refused(Refusal::NotV2),
        };
        let recorded = self.tally.record(from, Word::Answer(answer), now);
        if recorded != Recorded::Counted {
            return recorded;
        }
        if let (ReadReply::Record(digest, value), Answer::Holds(place, _)) = (reply, answer) {
            match self.records.get_mut(place) {
                Some(seen) => seen.value = seen.value.take().or(value),
                None => self.records.push(Seen {
                    digest,
                    value,
                    fetched_from: None,
                    failed: Vec::new(),
                }),
            }
        }
        if answer.tag().is_some_and(Tag::is_by_v1) && !mutants::is_on(Mutant::V1WrittenBack) {
            self.handle_v1_record();
        }
        self.advance();
        recorded
    }

    /// A replica told of a record that came by DKVS/1: nobody is given anything any more.
    fn handle_v1_record(&mut self) {
        self.has_met_v1 = true;
        self.given = None;
        for repair in self.repairs.iter_mut().filter(|repair| repair.is_open()) {
            repair.state = RepairState::Failed;
        }
        self.outcome.get_or_insert(ReadOutcome::CameByV1);
    }

    /// The get of `round` cannot reach `to`; `sent` tells whether it may have been sent before.
    pub fn handle_unreachable(
        &mut self,
        to: ServerId,
        round: u32,
        sent: bool,
        now: Instant,
    ) -> Recorded {
        if round != self.round {
            return Recorded::Repeated;
        }
        let word = if sent {
            Word::CutOff
        } else {
            Word::Unreachable
        };
        let recorded = self.tally.record(to, word, now);
        self.advance();
        recorded
    }

    /// `from` was given the record of `round` and answered; none if it cannot be reached.
    pub fn handle_repaired(&mut self, from: ServerId, round: u32, reply: Option<WriteReply>) {
        let Some(repair) = self.repair_of(from, round, RepairState::Sent) else {
            return;
        };
        let is_confirmed = reply.is_some_and(|reply| reply.confirms(repair.tag));
        repair.state = match is_confirmed {
            true if repair.is_unvouched => RepairState::VouchWanted,
            true => RepairState::Confirmed,
            false => RepairState::Failed,
        };
        self.advance();
    }

    /// `from` was asked in `round` to vouch for what it was given; whether it does.
    pub fn handle_vouched(&mut self, from: ServerId, round: u32, vouches: bool) {
        if let Some(repair) = self.repair_of(from, round, RepairState::VouchSent) {
            repair.state = match vouches {
                true => RepairState::Confirmed,
                false => RepairState::Failed,
            };
        }
    }

    /// Those that refused as corrupt and have not confirmed what they are given, each with its
    /// tag.
    pub fn unvouched(&self) -> Vec<(ServerId, Tag)> {
        let repairs = self.repairs.iter();
        let repairs =
            repairs.filter(|repair| repair.is_unvouched && repair.state == RepairState::Sent);
        repairs.map(|repair| (repair.server, repair.tag)).collect()
    }

    /// The value behind a digest has arrived.
    pub fn handle_fetched(&mut self, digest: &Digest, value: Value) {
        if let Some(seen) = self.being_fetched(digest) {
            seen.fetched_from = None;
            seen.value = Some(value);
            self.advance();
        }
    }

    /// The value behind a digest is not to be had from `server`.
    pub fn handle_fetch_failed(&mut self, digest: &Digest, server: ServerId) {
        if let Some(seen) = self.being_fetched(digest)
            && seen.fetched_from == Some(server)
        {
            seen.fetched_from = None;
            seen.failed.push(server);
            self.advance();
        }
    }

    /// Time has passed; at the deadline, whoever is pending has timed out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        self.tally.expire();
        for repair in self.repairs.iter_mut().filter(|repair| repair.is_open()) {
            repair.state = RepairState::Failed;
        }
        self.given = None;
        self.outcome.get_or_insert(ReadOutcome::TimedOut);
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<&ReadOutcome> {
        self.outcome.as_ref()
    }

    /// Whether every replica was heard out or has timed out, and none is being repaired.
    pub fn is_complete(&self) -> bool {
        let is_fetching = self.given_and_unknown().is_some_and(|place| {
            self.records[place].fetched_from.is_some() || self.next_holder(place).is_some()
        });
        self.outcome.is_some()
            && self.tally.pending() == 0
            && !self.repairs.iter().any(Repair::is_open)
            && !is_fetching
    }

    /// How many replicas hold what was read, or something newer.
    pub fn agreeing(&self) -> usize {
        let newest = self.newest.or_else(|| {
            let told = self
                .tally
                .answers()
                .filter_map(|answer| Newest::of(*answer));
            told.max_by_key(|newest| newest.tag())
        });
        newest.map_or(0, |newest| self.holders(newest))
    }

    /// The tag of the tombstone that was read.
    pub fn tombstone(&self) -> Option<Tag> {
        match self.newest {
            Some(Newest::Tombstone(tag)) => Some(tag),
            _ => None,
        }
    }

    /// The n and r of the request.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// The preference list that it asks.
    pub fn list(&self) -> PreferenceList {
        self.tally.list()
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<Answer>] {
        self.tally.replicas()
    }

    /// Where a replica of this read stands.
    pub fn standing(&self, replica: &Replica<Answer>) -> Standing {
        let answer = match replica.word {
            Word::Pending => return Standing::Pending,
            Word::Unreachable | Word::CutOff => return Standing::Unreachable,
            Word::TimedOut => return Standing::TimedOut,
            Word::Answer(answer) => answer,
        };
        if self.is_repaired(replica.server) {
            return Standing::Repaired;
        }
        if let Answer::Refused(refusal) = answer {
            return Standing::Refused(refusal);
        }
        let held = Newest::of(answer).unwrap_or(Newest::Nothing);
        match (self.newest, held) {
            (_, Newest::Nothing) => Standing::Absent,
            (Some(newest), Newest::Tombstone(tag)) if tag == newest.tag() => Standing::Tombstone,
            (Some(newest), held) if held == newest && self.is_found() => Standing::Match,
            (Some(newest), held) if held.tag() < newest.tag() => Standing::Stale,
            // Such as a put by DKVS/1, to which each server gives a tag of its own.
            (Some(newest), held) if self.is_found() && self.is_same_value(held, newest) => {
                Standing::Match
            }
            _ => Standing::Differs,
        }
    }

    /// Goes on as far as what is known allows.
    fn advance(&mut self) {
        if self.has_met_v1 {
            return;
        }
        if self.outcome.is_none() {
            self.choose();
        }
        if let (None, Some(newest)) = (&self.outcome, self.newest) {
            self.given = self.newest;
            self.decide(newest);
        }
        if self.outcome.is_some()
            && let Some(given) = self.given
        {
            let told = self.tally.answers();
            let told = told.filter_map(|answer| Newest::of(*answer));
            self.given = told
                .max_by_key(|newest| newest.tag())
                .filter(|newest| newest.tag() > given.tag())
                .or(self.given);
        }
        self.find_lacking();
    }

    /// Settles what the newest is, once r replicas told.
    fn choose(&mut self) {
        let needed = usize::from(self.quorum.needed());
        let pending = self.tally.pending();
        let told = self
            .tally
            .answers()
            .filter_map(|answer| Newest::of(*answer));
        let count = told.clone().count();
        if count + pending < needed {
            self.outcome = Some(ReadOutcome::Unreachable);
        }
        if count < needed || self.newest.is_some() {
            return;
        }
        let greatest = told.clone().map(Newest::tag).max();
        let mut newest = told.filter(|newest| Some(newest.tag()) == greatest);
        let Some(first) = newest.next() else { return };
        if newest.clone().all(|other| other == first) {
            self.newest = Some(first);
            return;
        }
        // Two records under one tag: somebody sent another value again under the tag of one. The
        // replicas keep what came first, so it is as if they had to agree.
        let mut contenders = std::iter::once(first).chain(newest);
        let winner = contenders.find(|contender| self.holders(*contender) >= needed);
        match winner {
            Some(winner) => self.newest = Some(winner),
            None if pending == 0 => self.outcome = Some(ReadOutcome::Disagree),
            None => {}
        }
    }

    fn decide(&mut self, newest: Newest) {
        let needed = usize::from(self.quorum.needed());
        let pending = self.tally.pending();
        let is_known = match newest {
            Newest::Record(place, _) => {
                let is_open = self.records[place].fetched_from.is_some() || pending > 0;
                let is_known = self.records[place].value.is_some();
                if !is_known && !is_open && self.next_holder(place).is_none() {
                    return self.begin_anew();
                }
                is_known
            }
            Newest::Nothing | Newest::Tombstone(_) => true,
        };
        let mut holders = self.holders(newest);
        if mutants::is_on(Mutant::NoWriteBack) {
            holders = needed;
        } else if mutants::is_on(Mutant::WriteBackToFewer) {
            holders += 1;
        }
        if is_known && holders >= needed {
            self.outcome = Some(match newest {
                Newest::Nothing | Newest::Tombstone(_) => ReadOutcome::Absent,
                Newest::Record(place, _) => {
                    let seen = &self.records[place];
                    let value = seen.value.clone().expect("it is known");
                    ReadOutcome::Found(value, Version::from(&seen.digest))
                }
            });
        } else if holders + pending + self.stale(newest).count() + self.being_repaired() < needed {
            self.outcome = Some(ReadOutcome::Unreachable);
        }
    }

    /// Wants everyone repaired who is known to be stale, or refused as corrupt, if it is known what
    /// to give.
    fn find_lacking(&mut self) {
        if let Some(given) = self.given
            && self.repair().is_some()
            && !mutants::is_on(Mutant::NoWriteBack)
        {
            let stale = self.stale(given).map(|server| (server, false));
            let corrupt = self.corrupt(given).map(|server| (server, true));
            let lacking: Vec<(ServerId, bool)> = stale.chain(corrupt).collect();
            let repair = |(server, is_unvouched)| Repair {
                server,
                tag: given.tag(),
                is_unvouched,
                state: RepairState::Wanted,
            };
            self.repairs.extend(lacking.into_iter().map(repair));
        }
    }

    /// All are asked again: something newer has taken the place of what was to be fetched.
    fn begin_anew(&mut self) {
        if self.round == ROUNDS_MAX {
            self.outcome = Some(ReadOutcome::Unreachable);
            return;
        }
        self.tally = Tally::new(self.tally.list(), self.started);
        self.records.clear();
        self.newest = None;
        self.given = None;
        self.repairs.clear();
        self.transmitted = 0;
        self.round += 1;
    }

    /// How many replicas hold `newest`, or something that came after it.
    fn holders(&self, newest: Newest) -> usize {
        let holds = |replica: &&Replica<Answer>| match replica.word {
            Word::Answer(answer) => Newest::of(answer).is_some_and(|held| {
                held == newest
                    || held.tag() > newest.tag()
                    || (Some(newest) == self.newest && self.is_repaired(replica.server))
            }),
            _ => false,
        };
        self.tally.replicas().iter().filter(holds).count()
    }

    /// The place of the record that is to be given, if its value is not known.
    fn given_and_unknown(&self) -> Option<usize> {
        match self.given? {
            Newest::Record(place, _) => {
                let is_unknown = self.records[place].value.is_none();
                is_unknown.then_some(place)
            }
            Newest::Nothing | Newest::Tombstone(_) => None,
        }
    }

    /// Those who told of something older than `newest`, and were not given it yet.
    fn stale(&self, newest: Newest) -> impl Iterator<Item = ServerId> + '_ {
        let is_stale = move |replica: &&Replica<Answer>| match replica.word {
            Word::Answer(answer) => {
                Newest::of(answer).is_some_and(|held| held.tag() < newest.tag())
                    && !self.is_given(replica.server, newest.tag())
            }
            _ => false,
        };
        let replicas = self.tally.replicas().iter().filter(is_stale);
        replicas.map(|replica| replica.server)
    }

    /// Those who refused as corrupt, and were not given `newest` yet.
    fn corrupt(&self, newest: Newest) -> impl Iterator<Item = ServerId> + '_ {
        let is_corrupt = move |replica: &&Replica<Answer>| {
            replica.word == Word::Answer(Answer::Refused(Refusal::Corrupt))
                && !self.is_given(replica.server, newest.tag())
        };
        let replicas = self.tally.replicas().iter().filter(is_corrupt);
        replicas.map(|replica| replica.server)
    }

    fn is_found(&self) -> bool {
        matches!(self.outcome, Some(ReadOutcome::Found(..)))
    }

    /// Whether two records are known to have the same bytes, whatever their tags.
    fn is_same_value(&self, one: Newest, other: Newest) -> bool {
        let value = |newest| match newest {
            Newest::Record(place, _) => self.records[place].value.as_ref(),
            Newest::Nothing | Newest::Tombstone(_) => None,
        };
        value(one).is_some() && value(one) == value(other)
    }

    /// Whether `server` was given the record with this tag, or is to be.
    fn is_given(&self, server: ServerId, tag: Tag) -> bool {
        let mut repairs = self.repairs.iter();
        repairs.any(|repair| repair.server == server && repair.tag == tag)
    }

    fn is_repaired(&self, server: ServerId) -> bool {
        let mut repairs = self.repairs.iter();
        repairs.any(|repair| repair.server == server && repair.state == RepairState::Confirmed)
    }

    /// How many are being given something that may come to hold it.
    fn being_repaired(&self) -> usize {
        let counts = |repair: &&Repair| repair.is_open() && !repair.is_unvouched;
        self.repairs.iter().filter(counts).count()
    }

    fn repair_of(
        &mut self,
        server: ServerId,
        round: u32,
        state: RepairState,
    ) -> Option<&mut Repair> {
        let is_now = round == self.round;
        let mut repairs = self.repairs.iter_mut();
        repairs.find(|repair| is_now && repair.server == server && repair.state == state)
    }

    /// The first holder of a record that has not failed to give its value.
    fn next_holder(&self, place: usize) -> Option<ServerId> {
        let mut replicas = self.tally.replicas().iter();
        let failed = &self.records[place].failed;
        let holder = replicas.find(|replica| {
            matches!(replica.word, Word::Answer(Answer::Holds(held, _)) if held == place)
                && !failed.contains(&replica.server)
        });
        holder.map(|replica| replica.server)
    }

    fn being_fetched(&mut self, digest: &Digest) -> Option<&mut Seen> {
        let mut records = self.records.iter_mut();
        records.find(|seen| seen.digest == *digest && seen.fetched_from.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::record::ContentType;
    use crate::ring::{Position, RingPoint};
    use crate::tag::TagClock;
    use crate::testing::start_of_time;

    const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];
    const OLD: Tag = Tag { time: 1, op: 0 };
    const NEW: Tag = Tag { time: 2, op: 0 };

    fn read(r: u8) -> (Read, Instant) {
        read_of(3, r)
    }

    fn read_of(n: u8, r: u8) -> (Read, Instant) {
        let now = start_of_time();
        let point = |server| RingPoint {
            position: Position([0; 20]),
            server,
        };
        let quorum = Quorum::new(n, r).unwrap();
        let servers = (0..n).map(|number| ServerId(number.into()));
        let list = servers.clone().map(point).collect();
        let mut read = Read::new(list, quorum, now, now + Duration::from_secs(1));
        let all: Vec<_> = servers.map(|server| (server, Ask::Get)).collect();
        assert_eq!(sent(&mut read), all);
        (read, now)
    }

    fn sent(read: &mut Read) -> Vec<(ServerId, Ask)> {
        let sent = std::iter::from_fn(|| read.poll_transmit());
        sent.map(|transmit| (transmit.to, transmit.ask)).collect()
    }

    fn value(text: &str) -> Value {
        Value::new(text.to_owned()).unwrap()
    }

    fn digest(tag: Tag) -> Digest {
        Digest {
            tag,
            content_type: ContentType::default(),
            value_bytes: 3,
            checksum: tag.time as u32,
        }
    }

    fn whole(tag: Tag) -> ReadReply {
        ReadReply::Record(digest(tag), Some(value(&tag.time.to_string())))
    }

    fn long(tag: Tag) -> ReadReply {
        ReadReply::Record(digest(tag), None)
    }

    fn found(tag: Tag) -> ReadOutcome {
        let version = Version::from(&digest(tag));
        ReadOutcome::Found(value(&tag.time.to_string()), version)
    }

    fn standings(read: &Read) -> [Standing; 3] {
        let replicas = read.replicas().iter();
        let standings: Vec<_> = replicas.map(|replica| read.standing(replica)).collect();
        standings.try_into().unwrap()
    }

    #[test]
    fn r_replicas_with_the_same_tag_end_it_in_one_round() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        assert_eq!(read.outcome(), None);
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert_eq!(read.outcome(), Some(&found(NEW)));
        assert!(sent(&mut read).is_empty());
        assert_eq!(read.agreeing(), 2);
    }

    #[test]
    fn a_value_that_too_few_hold_is_written_back_before_it_is_told() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        assert_eq!(read.outcome(), None);
        assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
        let (tag, content) = read.repair().unwrap();
        assert_eq!(tag, NEW);
        assert!(matches!(content, Content::Value { value: held, .. } if held == value("2")));
        read.handle_repaired(SERVERS[2], 0, Some(WriteReply::Stored));
        assert_eq!(read.outcome(), None, "nobody gave it anything");
        read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
        assert_eq!(read.outcome(), Some(&found(NEW)));
        assert_eq!(
            standings(&read),
            [Standing::Match, Standing::Repaired, Standing::Pending]
        );
    }

    #[test]
    fn a_third_replica_with_the_newest_saves_waiting_for_the_write_back() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, ReadReply::Absent(None), now);
        assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert_eq!(read.outcome(), Some(&found(NEW)));
        assert!(!read.is_complete(), "the repair is under way");
        read.handle_repaired(SERVERS[1], 0, None);
        assert!(read.is_complete());
        assert_eq!(
            standings(&read),
            [Standing::Match, Standing::Absent, Standing::Match]
        );
    }

    #[test]
    fn a_stale_replica_is_repaired_after_the_answer_too() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        read.handle_reply(SERVERS[2], 0, whole(OLD), now);
        assert_eq!(standings(&read)[2], Standing::Stale);
        assert_eq!(sent(&mut read), [(SERVERS[2], Ask::Put)]);
        read.handle_repaired(SERVERS[2], 0, Some(WriteReply::Superseded(NEW)));
        assert_eq!(standings(&read)[2], Standing::Stale, "it holds another");
    }

    #[test]
    fn a_replica_that_holds_something_newer_confirms_as_well() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(OLD), now);
        read.handle_reply(SERVERS[1], 0, ReadReply::Absent(None), now);
        sent(&mut read);
        read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Superseded(NEW)));
        assert_eq!(read.outcome(), Some(&found(OLD)));
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert_eq!(standings(&read)[2], Standing::Differs);
    }

    #[test]
    fn a_replica_with_the_same_bytes_under_another_tag_does_not_differ() {
        let same = |tag| ReadReply::Record(digest(tag), Some(value("the same")));
        let absent = || ReadReply::Absent(None);
        for (third, standing) in [
            (same(NEW), Standing::Match),
            (whole(NEW), Standing::Differs),
            (long(NEW), Standing::Differs),
            (absent(), Standing::Absent),
        ] {
            let (mut read, now) = read(2);
            for server in &SERVERS[..2] {
                read.handle_reply(*server, 0, same(OLD), now);
            }
            read.handle_reply(SERVERS[2], 0, third, now);
            assert_eq!(
                standings(&read),
                [Standing::Match, Standing::Match, standing]
            );
        }
        let (mut read, now) = read(2);
        for server in &SERVERS[..2] {
            read.handle_reply(*server, 0, absent(), now);
        }
        read.handle_reply(SERVERS[2], 0, same(NEW), now);
        assert_eq!(standings(&read)[2], Standing::Differs, "no value was found");
    }

    #[test]
    fn what_turns_out_to_be_newer_after_the_answer_is_given_to_the_others() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, ReadReply::Absent(None), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Put)]);
        read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
        assert_eq!(read.outcome(), Some(&found(OLD)));
        read.handle_reply(SERVERS[2], 0, long(NEW), now);
        assert!(!read.is_complete(), "it is to be fetched");
        assert_eq!(read.poll_fetch(), Some((SERVERS[2], digest(NEW))));
        read.handle_fetched(&digest(NEW), value("2"));
        let given = [SERVERS[0], SERVERS[1]].map(|server| (server, Ask::Put));
        assert_eq!(sent(&mut read), given);
        assert_eq!(read.repair().unwrap().0, NEW);
        for server in [SERVERS[0], SERVERS[1]] {
            read.handle_repaired(server, 0, Some(WriteReply::Stored));
        }
        assert!(read.is_complete());
        assert_eq!(read.outcome(), Some(&found(OLD)), "it was told already");
        assert_eq!(
            standings(&read),
            [Standing::Repaired, Standing::Repaired, Standing::Differs]
        );
    }

    #[test]
    fn a_tombstone_is_a_record_and_reads_as_absent() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, ReadReply::Absent(Some(NEW)), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
        assert_eq!(read.repair(), Some((NEW, Content::Tombstone)));
        read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
        assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
        assert_eq!(read.tombstone(), Some(NEW));
        assert_eq!(standings(&read)[0], Standing::Tombstone);
    }

    #[test]
    fn nothing_anywhere_is_absent_and_nobody_is_repaired() {
        let (mut read, now) = read(2);
        for server in SERVERS {
            read.handle_reply(server, 0, ReadReply::Absent(None), now);
        }
        assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
        assert_eq!((read.tombstone(), read.agreeing()), (None, 3));
        assert!(sent(&mut read).is_empty() && read.is_complete());
    }

    #[test]
    fn a_long_value_is_fetched_before_it_is_written_back() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, long(NEW), now);
        assert_eq!(read.poll_fetch(), None);
        read.handle_reply(SERVERS[1], 0, long(OLD), now);
        assert_eq!(read.poll_fetch(), Some((SERVERS[0], digest(NEW))));
        assert_eq!(read.poll_fetch(), None, "one fetch at a time");
        assert!(sent(&mut read).is_empty(), "nothing to give yet");
        read.handle_fetched(&digest(NEW), value("2"));
        assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Put)]);
        read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
        assert_eq!(read.outcome(), Some(&found(NEW)));
    }

    #[test]
    fn a_long_value_that_is_overwritten_everywhere_is_read_anew() {
        let (mut read, now) = read(2);
        for server in SERVERS {
            read.handle_reply(server, 0, long(OLD), now);
        }
        for server in SERVERS {
            assert_eq!(read.poll_fetch(), Some((server, digest(OLD))));
            read.handle_fetch_failed(&digest(OLD), server);
        }
        assert_eq!(sent(&mut read), SERVERS.map(|server| (server, Ask::Get)));
        assert_eq!(read.round(), 1);
        let late = read.handle_reply(SERVERS[0], 0, long(OLD), now);
        assert_eq!(late, Recorded::Repeated);
        for server in &SERVERS[..2] {
            read.handle_reply(*server, 1, whole(NEW), now);
        }
        assert_eq!(read.outcome(), Some(&found(NEW)));
    }

    #[test]
    fn a_value_that_can_never_be_fetched_ends_as_unreachable() {
        let (mut read, now) = read(2);
        while read.outcome().is_none() {
            let round = read.round();
            for server in SERVERS {
                read.handle_reply(server, round, long(OLD), now);
            }
            while let Some((server, digest)) = read.poll_fetch() {
                read.handle_fetch_failed(&digest, server);
            }
        }
        assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
        assert_eq!(read.round(), ROUNDS_MAX);
    }

    #[test]
    fn two_records_under_one_tag_are_told_apart_and_the_majority_holds() {
        let other = || {
            let checksum = 99;
            let digest = Digest {
                checksum,
                ..digest(NEW)
            };
            ReadReply::Record(digest, Some(value("99")))
        };
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, other(), now);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        assert_eq!(read.outcome(), None);
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert_eq!(read.outcome(), Some(&found(NEW)));
        assert_eq!(standings(&read)[0], Standing::Differs);
        assert!(sent(&mut read).is_empty(), "it would not take it");

        let (mut read, now) = self::read(2);
        read.handle_reply(SERVERS[0], 0, other(), now);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        read.handle_unreachable(SERVERS[2], 0, true, now);
        assert_eq!(read.outcome(), Some(&ReadOutcome::Disagree));
    }

    #[test]
    fn too_few_answers_are_unreachable_or_timed_out() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, ReadReply::Value(value("v1")), now);
        assert_eq!(standings(&read)[1], Standing::Refused(Refusal::NotV2));
        read.handle_unreachable(SERVERS[2], 0, false, now);
        assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));

        let (mut read, now) = self::read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        sent(&mut read);
        read.handle_timeout(read.poll_timeout().unwrap());
        assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
        assert!(read.is_complete());
        read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
        assert_eq!(read.outcome(), Some(&ReadOutcome::TimedOut));
    }

    #[test]
    fn write_backs_that_fail_end_it_as_unreachable() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        sent(&mut read);
        read.handle_unreachable(SERVERS[2], 0, true, now);
        assert_eq!(read.outcome(), None);
        let refused = WriteReply::Refused(Refusal::Full);
        read.handle_repaired(SERVERS[1], 0, Some(refused));
        assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
    }

    /// A tag that a server minted for a put by DKVS/1.
    fn by_v1(time: u64) -> Tag {
        let seen = Tag { time, op: 0 };
        TagClock::for_v1(time as u32).mint(0, seen).unwrap()
    }

    #[test]
    fn a_record_that_came_by_dkvs_1_ends_it_without_an_answer_whatever_its_tag() {
        for tag in [by_v1(0), by_v1(1), by_v1(9)] {
            for answer in [whole(tag), long(tag)] {
                for before in [
                    None,
                    Some(whole(OLD)),
                    Some(ReadReply::Absent(None)),
                    Some(CORRUPT),
                ] {
                    let (mut read, now) = read(2);
                    let has_answered = before.is_some();
                    if let Some(before) = before {
                        read.handle_reply(SERVERS[0], 0, before, now);
                    }
                    read.handle_reply(SERVERS[1], 0, answer.clone(), now);
                    assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));
                    if !has_answered {
                        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
                    }
                    read.handle_reply(SERVERS[2], 0, ReadReply::Absent(None), now);
                    assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));
                    assert!(sent(&mut read).is_empty() && read.repair().is_none());
                    assert_eq!((read.poll_fetch(), read.is_complete()), (None, true));
                }
            }
        }
    }

    #[test]
    fn a_record_that_came_by_dkvs_1_stops_what_is_being_given_to_others() {
        // It waits for the write-back.
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        read.handle_reply(SERVERS[2], 0, whole(by_v1(0)), now);
        assert!(sent(&mut read).is_empty(), "it was not sent yet");
        assert_eq!(read.outcome(), Some(&ReadOutcome::CameByV1));

        // It has its answer, and brings the others up to date.
        let (mut read, now) = self::read(2);
        read.handle_reply(SERVERS[0], 0, whole(OLD), now);
        read.handle_reply(SERVERS[1], 0, whole(OLD), now);
        read.handle_reply(SERVERS[2], 0, whole(by_v1(9)), now);
        assert_eq!(read.outcome(), Some(&found(OLD)));
        assert!(
            sent(&mut read).is_empty(),
            "nobody is given what may be older"
        );
        assert_eq!(standings(&read)[2], Standing::Differs);

        // It has begun to have a replica vouch.
        let (mut read, now) = self::read_of(5, 3);
        read.handle_reply(SERVERS[0], 0, CORRUPT, now);
        for number in 1..4 {
            read.handle_reply(ServerId(number), 0, whole(NEW), now);
        }
        assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Put)]);
        read.handle_reply(ServerId(4), 0, whole(by_v1(1)), now);
        assert_eq!(read.unvouched(), []);
        read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
        assert!(sent(&mut read).is_empty(), "it is not asked to vouch");
        assert!(read.is_complete());
    }

    const CORRUPT: ReadReply = ReadReply::Refused(Refusal::Corrupt);

    #[test]
    fn a_corrupt_replica_is_given_the_newest_and_then_asked_to_vouch_for_it() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, CORRUPT, now);
        read.handle_reply(SERVERS[1], 0, whole(NEW), now);
        assert!(sent(&mut read).is_empty(), "the newest is not known");
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert_eq!(read.outcome(), Some(&found(NEW)));
        assert_eq!(read.unvouched(), [], "it was not sent");
        assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Put)]);
        assert_eq!(read.repair().unwrap().0, NEW);
        assert_eq!(read.unvouched(), [(SERVERS[0], NEW)]);
        assert!(!read.is_complete());
        read.handle_vouched(SERVERS[0], 0, true);
        assert!(sent(&mut read).is_empty(), "it was not asked to");

        read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
        let refused = Standing::Refused(Refusal::Corrupt);
        assert_eq!(
            standings(&read)[0],
            refused,
            "it does not answer for it yet"
        );
        assert_eq!(read.unvouched(), []);
        assert!(!read.is_complete());
        let vouch = Ask::Vouch { tag: NEW };
        assert_eq!(sent(&mut read), [(SERVERS[0], vouch)]);
        assert!(!read.is_complete());
        read.handle_vouched(SERVERS[0], 0, true);
        assert_eq!(standings(&read)[0], Standing::Repaired);
        assert!(read.is_complete() && sent(&mut read).is_empty());
        assert_eq!(read.agreeing(), 2);
    }

    #[test]
    fn an_unvouched_replica_never_counts_even_if_it_vouches_in_the_end() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, CORRUPT, now);
        assert_eq!((read.outcome(), read.agreeing()), (None, 1));
        read.handle_reply(SERVERS[2], 0, whole(OLD), now);
        let given = [SERVERS[2], SERVERS[1]].map(|server| (server, Ask::Put));
        assert_eq!(sent(&mut read), given);
        read.handle_repaired(SERVERS[1], 0, Some(WriteReply::Stored));
        assert_eq!(sent(&mut read), [(SERVERS[1], Ask::Vouch { tag: NEW })]);
        read.handle_vouched(SERVERS[1], 0, true);
        assert_eq!((read.outcome(), read.agreeing()), (None, 1));
        let full = WriteReply::Refused(Refusal::Full);
        read.handle_repaired(SERVERS[2], 0, Some(full));
        assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
        assert_eq!(standings(&read)[1], Standing::Repaired);
    }

    #[test]
    fn nobody_waits_for_an_unvouched_replica() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, whole(NEW), now);
        read.handle_reply(SERVERS[1], 0, CORRUPT, now);
        read.handle_reply(SERVERS[2], 0, whole(OLD), now);
        sent(&mut read);
        read.handle_repaired(SERVERS[2], 0, None);
        assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
        assert!(!read.is_complete(), "it is being repaired");

        let (mut read, now) = self::read(2);
        read.handle_reply(SERVERS[0], 0, CORRUPT, now);
        read.handle_reply(SERVERS[1], 0, CORRUPT, now);
        assert_eq!(read.outcome(), Some(&ReadOutcome::Unreachable));
        read.handle_reply(SERVERS[2], 0, whole(NEW), now);
        assert!(sent(&mut read).is_empty(), "one answer is no evidence");
        assert!(read.is_complete());
    }

    #[test]
    fn a_corrupt_replica_is_repaired_after_the_answer_too() {
        let (mut read, now) = read(2);
        let deleted = ReadReply::Absent(Some(NEW));
        read.handle_reply(SERVERS[0], 0, deleted.clone(), now);
        read.handle_reply(SERVERS[1], 0, deleted, now);
        read.handle_reply(SERVERS[2], 0, CORRUPT, now);
        assert_eq!(sent(&mut read), [(SERVERS[2], Ask::Put)]);
        assert_eq!(read.repair(), Some((NEW, Content::Tombstone)));
        read.handle_repaired(SERVERS[2], 0, Some(WriteReply::Stored));
        assert_eq!(sent(&mut read), [(SERVERS[2], Ask::Vouch { tag: NEW })]);
        read.handle_timeout(read.poll_timeout().unwrap());
        assert!(read.is_complete());
        read.handle_vouched(SERVERS[2], 0, true);
        let refused = Standing::Refused(Refusal::Corrupt);
        assert_eq!(standings(&read)[2], refused, "the deadline was before that");
    }

    #[test]
    fn a_corrupt_replica_vouches_for_what_it_was_given_and_for_no_more() {
        let newer = Tag { time: 3, op: 0 };
        let older = WriteReply::Superseded(OLD);
        let another = WriteReply::Superseded(NEW);
        let full = WriteReply::Refused(Refusal::Full);
        let corrupt = WriteReply::Refused(Refusal::Corrupt);
        for (reply, vouches) in [
            (Some(WriteReply::Stored), true),
            (Some(WriteReply::Superseded(newer)), true),
            (Some(another), false),
            (Some(older), false),
            (Some(full), false),
            (Some(corrupt), false),
            (None, false),
        ] {
            let (mut read, now) = read(2);
            read.handle_reply(SERVERS[0], 0, CORRUPT, now);
            read.handle_reply(SERVERS[1], 0, whole(NEW), now);
            read.handle_reply(SERVERS[2], 0, whole(NEW), now);
            sent(&mut read);
            read.handle_repaired(SERVERS[0], 0, reply);
            let vouch = [(SERVERS[0], Ask::Vouch { tag: NEW })];
            assert_eq!(sent(&mut read), vouch[..usize::from(vouches)], "{reply:?}");
            assert_eq!(read.is_complete(), !vouches);
            read.handle_vouched(SERVERS[0], 0, false);
            assert!(read.is_complete());
            assert_eq!(standings(&read)[0], Standing::Refused(Refusal::Corrupt));
        }
    }

    #[test]
    fn a_corrupt_replica_is_given_what_turns_out_to_be_newer_as_well() {
        let (mut read, now) = read_of(5, 3);
        let (corrupt, last) = (ServerId(0), ServerId(4));
        read.handle_reply(corrupt, 0, CORRUPT, now);
        for number in 1..4 {
            read.handle_reply(ServerId(number), 0, whole(OLD), now);
        }
        assert_eq!(sent(&mut read), [(corrupt, Ask::Put)]);
        read.handle_reply(last, 0, whole(NEW), now);
        let lack = [1, 2, 3, 0].map(|number| (ServerId(number), Ask::Put));
        assert_eq!(sent(&mut read), lack);
        assert_eq!(read.unvouched(), [(corrupt, OLD), (corrupt, NEW)]);
        for tag in [OLD, NEW] {
            read.handle_repaired(corrupt, 0, Some(WriteReply::Stored));
            assert_eq!(sent(&mut read), [(corrupt, Ask::Vouch { tag })]);
        }
    }

    #[test]
    fn if_nothing_is_anywhere_a_corrupt_replica_has_nothing_to_vouch_for() {
        let (mut read, now) = read(2);
        read.handle_reply(SERVERS[0], 0, CORRUPT, now);
        for server in &SERVERS[1..] {
            read.handle_reply(*server, 0, ReadReply::Absent(None), now);
        }
        assert_eq!(read.outcome(), Some(&ReadOutcome::Absent));
        assert!(sent(&mut read).is_empty() && read.is_complete());
    }

    #[test]
    fn who_refuses_for_another_reason_is_given_nothing() {
        for refusal in [
            Refusal::Busy,
            Refusal::Internal,
            Refusal::WrongEpoch { epoch: 7 },
        ] {
            let (mut read, now) = read(2);
            read.handle_reply(SERVERS[0], 0, ReadReply::Refused(refusal), now);
            read.handle_reply(SERVERS[1], 0, whole(NEW), now);
            read.handle_reply(SERVERS[2], 0, whole(NEW), now);
            assert!(sent(&mut read).is_empty() && read.is_complete());
        }
    }

    #[test]
    fn what_an_earlier_round_found_is_vouched_for_no_more() {
        let (mut read, now) = read_of(4, 3);
        read.handle_reply(SERVERS[0], 0, CORRUPT, now);
        for number in 1..4 {
            read.handle_reply(ServerId(number), 0, long(OLD), now);
        }
        let (from, _) = read.poll_fetch().unwrap();
        read.handle_fetched(&digest(OLD), value("1"));
        assert_eq!(
            (from, sent(&mut read)),
            (SERVERS[1], vec![(SERVERS[0], Ask::Put)])
        );
        read.handle_repaired(SERVERS[0], 1, Some(WriteReply::Stored));
        assert!(sent(&mut read).is_empty());
        read.handle_repaired(SERVERS[0], 0, Some(WriteReply::Stored));
        assert_eq!(sent(&mut read), [(SERVERS[0], Ask::Vouch { tag: OLD })]);
        read.handle_vouched(SERVERS[0], 1, true);
        assert_ne!(read.standing(&read.replicas()[0]), Standing::Repaired);
        read.handle_vouched(SERVERS[0], 0, true);
        assert_eq!(read.standing(&read.replicas()[0]), Standing::Repaired);
    }

    /// Every order of answers, and every way their repairs end: what is told is at least as new
    /// as everything among the first r answers, and r replicas hold it by then.
    #[test]
    fn whatever_the_answers_what_is_told_is_the_newest_of_r_and_held_by_r() {
        let answers = [
            Some(ReadReply::Absent(None)),
            Some(whole(OLD)),
            Some(whole(NEW)),
            Some(ReadReply::Absent(Some(Tag { time: 3, op: 0 }))),
            Some(ReadReply::Refused(Refusal::Busy)),
            Some(CORRUPT),
            None,
        ];
        for r in [2u8, 3] {
            for code in 0..answers.len().pow(3) * 8 {
                let repair_succeeds = |server: ServerId| code >> server.index() & 1 == 1;
                let (mut read, now) = read(r);
                let mut held: Vec<Option<Tag>> = Vec::new();
                let mut rest = code >> 3;
                for server in SERVERS {
                    let answer = answers[rest % answers.len()].clone();
                    rest /= answers.len();
                    let is_open = read.outcome().is_none();
                    match answer {
                        None => drop(read.handle_unreachable(server, 0, true, now)),
                        Some(reply) => {
                            if is_open {
                                held.push(match &reply {
                                    ReadReply::Record(digest, _) => Some(digest.tag),
                                    ReadReply::Absent(tag) => Some(tag.unwrap_or(Tag::ZERO)),
                                    _ => None,
                                });
                            }
                            read.handle_reply(server, 0, reply, now);
                        }
                    }
                    while let Some(Transmit { to, ask }) = read.poll_transmit() {
                        let (tag, _) = read.repair().unwrap();
                        let word = read.replicas()[to.index()].word;
                        let is_corrupt = word == Word::Answer(Answer::Refused(Refusal::Corrupt));
                        if ask == (Ask::Vouch { tag }) {
                            assert!(is_corrupt);
                            read.handle_vouched(to, 0, true);
                            continue;
                        }
                        assert_eq!(ask, Ask::Put);
                        let stored = repair_succeeds(to);
                        if stored && !is_corrupt && read.outcome().is_none() {
                            held.push(Some(tag));
                        }
                        read.handle_repaired(to, 0, stored.then_some(WriteReply::Stored));
                    }
                }
                let told = match read.outcome() {
                    Some(ReadOutcome::Found(_, version)) => version.tag.unwrap(),
                    Some(ReadOutcome::Absent) => read.tombstone().unwrap_or(Tag::ZERO),
                    Some(ReadOutcome::Unreachable) => continue,
                    other => panic!("{other:?}"),
                };
                let r = usize::from(r);
                let tags: Vec<Tag> = held.into_iter().flatten().collect();
                assert!(tags[..r].iter().all(|tag| *tag <= told), "{code}");
                assert!(tags.iter().filter(|tag| **tag >= told).count() >= r);
                assert!(read.agreeing() >= r && read.is_complete());
            }
        }
    }
}

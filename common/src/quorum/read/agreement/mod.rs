//! The read at the agreement level: ask all n replicas at once, done when r of them agree.
//!
//! Values are compared as bytes, and the first that r replicas hold wins. Replicas without the
//! key agree with each other; "absent" wins once r said so and no value can reach r any more.
//!
//! A value that is too long for a datagram is told by its digest. Replicas that tell the same
//! digest hold the same value, and once r do, the value is fetched from one of them, and from the
//! next if that fails. Digests that differ may still stand for the same bytes, written twice; so
//! when nothing else can decide, the values behind them are fetched and compared.

use std::time::Instant;

use super::{Answer, ReadOutcome, ReadReply, Standing};
use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::quorum::params::Quorum;
use crate::quorum::tally::{Recorded, Replica, Tally, Word};
use crate::quorum::{Ask, Transmit, Version};
use crate::record::Digest;
use crate::record::{Content, checksum};
use crate::ring::PreferenceList;
use crate::tag::Tag;

/// One read.
#[derive(Debug)]
pub struct Read {
    tally: Tally<Answer>,
    /// The distinct values seen, in the order of their arrival.
    values: Vec<Held>,
    absent: usize,
    quorum: Quorum,
    deadline: Instant,
    transmitted: usize,
    outcome: Option<ReadOutcome>,
}

/// A value that some replicas hold.
#[derive(Debug)]
struct Held {
    known: Known,
    version: Version,
    holders: Vec<ServerId>,
    /// By what it was told before it was fetched.
    fetched: Option<Digest>,
    /// It turned out to be the value at this place.
    same_as: Option<usize>,
}

#[derive(Debug)]
enum Known {
    Whole(Value),
    Digest {
        digest: Digest,
        /// From whom it is being fetched.
        from: Option<ServerId>,
        failed: Vec<ServerId>,
    },
}

impl Held {
    fn value_bytes(&self) -> usize {
        match &self.known {
            Known::Whole(value) => value.len(),
            Known::Digest { digest, .. } => digest.value_bytes as usize,
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self.known, Known::Whole(_))
    }

    /// Whether its bytes are known or to be had, perhaps from one of the `pending` replicas.
    fn can_be_had(&self, pending: usize) -> bool {
        match &self.known {
            Known::Whole(_) => true,
            Known::Digest { failed, .. } => failed.len() < self.holders.len() + pending,
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

    /// The next value to fetch, and from whom. Its end is told by [`Self::handle_fetched`] or
    /// [`Self::handle_fetch_failed`].
    pub fn poll_fetch(&mut self) -> Option<(ServerId, Digest)> {
        if self.outcome.is_some() {
            return None;
        }
        let wanted = self.wanted();
        let held = self.values.iter_mut().enumerate();
        for (_, held) in held.filter(|(place, _)| wanted.contains(place)) {
            let holders = &held.holders;
            let Known::Digest {
                digest,
                from: from @ None,
                failed,
            } = &mut held.known
            else {
                continue;
            };
            let next = holders.iter().find(|server| !failed.contains(server));
            if let Some(next) = next {
                *from = Some(*next);
                return Some((*next, digest.clone()));
            }
        }
        None
    }

    /// When to call [`Self::handle_timeout`], as long as any replica is pending or a value is
    /// being fetched.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_complete()).then_some(self.deadline)
    }

    /// `from` answered.
    pub fn handle_reply(&mut self, from: ServerId, reply: ReadReply, now: Instant) -> Recorded {
        let answer = match &reply {
            ReadReply::Absent(tag) => Answer::Absent(*tag),
            ReadReply::Refused(refusal) => Answer::Refused(*refusal),
            ReadReply::Value(value) => {
                let seen = self.place_of(value);
                Answer::Holds(seen.unwrap_or(self.values.len()), None)
            }
            ReadReply::Record(digest, Some(value)) => {
                let seen = self.place_of(value);
                Answer::Holds(seen.unwrap_or(self.values.len()), Some(digest.tag))
            }
            ReadReply::Record(digest, None) => {
                let seen = self.place_told_by(digest);
                Answer::Holds(seen.unwrap_or(self.values.len()), Some(digest.tag))
            }
        };
        let recorded = self.tally.record(from, Word::Answer(answer), now);
        if recorded == Recorded::Counted {
            self.count(from, answer, reply);
            self.decide_once();
        }
        recorded
    }

    fn count(&mut self, from: ServerId, answer: Answer, reply: ReadReply) {
        let (known, version) = match reply {
            ReadReply::Absent(_) => {
                self.absent += 1;
                return;
            }
            ReadReply::Refused(_) => return,
            ReadReply::Value(value) => (Known::Whole(value), Version::default()),
            ReadReply::Record(digest, Some(value)) => (Known::Whole(value), Version::from(&digest)),
            ReadReply::Record(digest, None) => {
                let version = Version::from(&digest);
                let (from, failed) = (None, Vec::new());
                let known = Known::Digest {
                    digest,
                    from,
                    failed,
                };
                (known, version)
            }
        };
        let Answer::Holds(place, _) = answer else {
            return;
        };
        match self.values.get_mut(place) {
            Some(held) => {
                held.holders.push(from);
                if version.tag > held.version.tag {
                    held.version = version;
                }
            }
            None => self.values.push(Held {
                known,
                version,
                holders: vec![from],
                fetched: None,
                same_as: None,
            }),
        }
    }

    /// The value behind a digest has arrived.
    pub fn handle_fetched(&mut self, digest: &Digest, value: Value) {
        let Some(place) = self.place_of_digest(digest) else {
            return;
        };
        self.values[place].fetched = Some(digest.clone());
        if let Some(same) = self.place_of(&value) {
            let held = &mut self.values[place];
            held.same_as = Some(same);
            held.known = Known::Whole(value);
            let holders = std::mem::take(&mut held.holders);
            let version = held.version.clone();
            let same = &mut self.values[same];
            same.holders.extend(holders);
            if version.tag > same.version.tag {
                same.version = version;
            }
        } else {
            self.values[place].known = Known::Whole(value);
        }
        self.decide_once();
    }

    /// The value behind a digest is not to be had from `server`.
    pub fn handle_fetch_failed(&mut self, digest: &Digest, server: ServerId) {
        let Some(place) = self.place_of_digest(digest) else {
            return;
        };
        if let Known::Digest { from, failed, .. } = &mut self.values[place].known
            && *from == Some(server)
        {
            *from = None;
            failed.push(server);
        }
        self.decide_once();
    }

    /// `to` cannot be reached; `sent` tells whether it may have been before.
    pub fn handle_unreachable(&mut self, to: ServerId, sent: bool, now: Instant) -> Recorded {
        let word = if sent {
            Word::CutOff
        } else {
            Word::Unreachable
        };
        let recorded = self.tally.record(to, word, now);
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

    /// Whether every replica was heard out or has timed out, and nothing is being fetched.
    pub fn is_complete(&self) -> bool {
        self.tally.pending() == 0 && self.outcome.is_some()
    }

    /// How many replicas agree with the outcome so far; with no winner, how many stand behind
    /// the answer with the most replicas.
    pub fn agreeing(&self) -> usize {
        match &self.outcome {
            Some(ReadOutcome::Found(winner, _)) => self
                .place_of(winner)
                .map_or(0, |place| self.values[place].holders.len()),
            Some(ReadOutcome::Absent) => self.absent,
            _ => {
                let holders = self.values.iter().map(|held| held.holders.len());
                holders.max().unwrap_or(0).max(self.absent)
            }
        }
    }

    /// The greatest tag of a tombstone that a replica told.
    pub fn tombstone(&self) -> Option<Tag> {
        let told = self.tally.answers().filter_map(|answer| match answer {
            Answer::Absent(tag) => *tag,
            _ => None,
        });
        told.max()
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
        match replica.word {
            Word::Pending => Standing::Pending,
            Word::Unreachable | Word::CutOff => Standing::Unreachable,
            Word::TimedOut => Standing::TimedOut,
            Word::Answer(Answer::Absent(None)) => Standing::Absent,
            Word::Answer(Answer::Absent(Some(_))) => Standing::Tombstone,
            Word::Answer(Answer::Refused(refusal)) => Standing::Refused(refusal),
            Word::Answer(Answer::Holds(place, _)) => match (&self.outcome, self.whole(place)) {
                (Some(ReadOutcome::Found(winner, _)), Some(value)) if value == winner => {
                    Standing::Match
                }
                _ => Standing::Differs,
            },
        }
    }

    /// Whether a replica told by a digest alone that it holds what was read of `key`: the digest is
    /// the one that the value would have there. The value was not fetched, so this is good enough to
    /// show where the replica stands, and not to decide by.
    pub fn has_same_digest(&self, key: &Key, replica: &Replica<Answer>) -> bool {
        let (Some(ReadOutcome::Found(winner, _)), Word::Answer(Answer::Holds(place, _))) =
            (&self.outcome, replica.word)
        else {
            return false;
        };
        let held = self.values.get(place).map(|held| &held.known);
        let Some(Known::Digest { digest, .. }) = held else {
            return false;
        };
        let content = Content::Value {
            content_type: digest.content_type.clone(),
            value: winner.clone(),
        };
        digest.value_bytes as usize == winner.len()
            && digest.checksum == checksum(key, digest.tag, &content)
    }

    fn decide_once(&mut self) {
        if self.outcome.is_none() {
            self.outcome = self.decide();
        }
    }

    fn decide(&self) -> Option<ReadOutcome> {
        let needed = usize::from(self.quorum.needed());
        let pending = self.tally.pending();

        let winner = self
            .values
            .iter()
            .find(|held| held.is_whole() && held.holders.len() >= needed);
        if let Some(Held {
            known: Known::Whole(value),
            version,
            ..
        }) = winner
        {
            return Some(ReadOutcome::Found(value.clone(), version.clone()));
        }
        if self.reach() + pending >= needed {
            return None;
        }
        if self.absent >= needed {
            return Some(ReadOutcome::Absent);
        }
        if self.absent + pending >= needed {
            return None;
        }
        let refused = |answer: &&Answer| matches!(answer, Answer::Refused(_));
        let refused = self.tally.answers().filter(refused).count();
        let can_answer = self.tally.answers().count() - refused + pending;
        let is_lost = |held: &Held| !held.can_be_had(pending);
        Some(
            if can_answer >= needed && !self.values.iter().any(is_lost) {
                ReadOutcome::Disagree
            } else {
                ReadOutcome::Unreachable
            },
        )
    }

    /// The most replicas that may turn out to hold one value, of those that have answered.
    fn reach(&self) -> usize {
        let lengths = self.values.iter().map(Held::value_bytes);
        lengths
            .map(|length| self.reach_of(length))
            .max()
            .unwrap_or(0)
    }

    /// Values known by their digests alone may be equal to each other, and to one that is known.
    fn reach_of(&self, value_bytes: usize) -> usize {
        let (mut whole, mut digests) = (0, 0);
        for held in self.open().filter(|held| held.value_bytes() == value_bytes) {
            if held.is_whole() {
                whole = held.holders.len().max(whole);
            } else {
                digests += held.holders.len();
            }
        }
        whole + digests
    }

    /// The places of the values that have to be fetched for the read to be decided.
    fn wanted(&self) -> Vec<usize> {
        let needed = usize::from(self.quorum.needed());
        let pending = self.tally.pending();
        let places = 0..self.values.len();
        let places = places.filter(|place| self.values[*place].can_be_had(pending));
        let has_won = |place: &usize| self.values[*place].holders.len() >= needed;
        if let Some(winner) = places.clone().find(has_won) {
            return vec![winner];
        }
        if pending > 0 {
            return Vec::new();
        }
        let of_use = |place: &usize| self.reach_of(self.values[*place].value_bytes()) >= needed;
        places.filter(of_use).collect()
    }

    /// The values whose bytes are known or to be had.
    fn open(&self) -> impl Iterator<Item = &Held> {
        let pending = self.tally.pending();
        self.values
            .iter()
            .filter(move |held| held.can_be_had(pending))
    }

    fn whole(&self, place: usize) -> Option<&Value> {
        match &self.values.get(place)?.known {
            Known::Whole(value) => Some(value),
            Known::Digest { .. } => None,
        }
    }

    fn place_of(&self, value: &Value) -> Option<usize> {
        let same = |held: &Held| {
            held.same_as.is_none() && matches!(&held.known, Known::Whole(other) if other == value)
        };
        self.values.iter().position(same)
    }

    /// The place of the value that a digest stands for, whether or not it was fetched by now.
    fn place_told_by(&self, digest: &Digest) -> Option<usize> {
        let was_fetched = |held: &Held| held.fetched.as_ref() == Some(digest);
        let fetched = self.values.iter().position(was_fetched);
        let fetched = fetched.map(|place| self.values[place].same_as.unwrap_or(place));
        fetched.or_else(|| self.place_of_digest(digest))
    }

    /// The place of a value that is not fetched yet.
    fn place_of_digest(&self, digest: &Digest) -> Option<usize> {
        let same = |held: &Held| matches!(&held.known, Known::Digest { digest: other, .. } if other == digest);
        self.values.iter().position(same)
    }
}

#[cfg(test)]
mod tests;

//! The read at the agreement level: ask all n replicas at once, done when r of them agree.
//!
//! Values are compared as bytes, and the first that r replicas hold wins. Replicas without the
//! key agree with each other; "absent" wins once r are without it and no value can reach r any more.
//!
//! A value that is too long for a datagram is reported by its digest. Replicas that report the same
//! digest hold the same value, and once r do, the value is fetched from one of them, and from the
//! next if that fails. Digests that differ may still stand for the same bytes, written twice; so
//! when nothing else can decide, the values behind them are fetched and compared.

mod values;

use std::time::Instant;

use super::outcome::{ReadOutcome, ReplicaStanding};
use super::response::{GetResponse, ReadResponse};
use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::model::{ReplicaCommand, ReplicaResponse};
use crate::quorum::params::Quorum;
use crate::quorum::sources::{FetchFailure, FetchStart};
use crate::quorum::tally::{Recorded, Replica, ReplicaState, Tally};
use crate::quorum::threshold::Threshold;
use crate::quorum::transmit::{CommandId, Purpose, Transmit};
use crate::record::{Content, Digest, checksum};
use crate::ring::PreferenceList;
use crate::tag::Tag;
use values::{SeenValue, SeenValues};

/// The name of every command: there is one round of gets.
const GET: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Get,
};

/// One read.
#[derive(Debug)]
pub struct AgreementRead {
    key: Key,
    tally: Tally<ReadResponse>,
    threshold: Threshold,
    values: SeenValues,
    quorum: Quorum,
    deadline: Instant,
    transmitted: usize,
    outcome: Option<ReadOutcome>,
}

impl AgreementRead {
    /// A read of `key` from the replicas of `list`, one for each of the quorum's n.
    pub fn new(
        key: Key,
        list: PreferenceList,
        quorum: Quorum,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        assert_eq!(
            list.len(),
            usize::from(quorum.n()),
            "a read asks n replicas"
        );
        Self {
            key,
            threshold: Threshold::of_quorum(&list, quorum),
            tally: Tally::new(list, now),
            values: SeenValues::default(),
            quorum,
            deadline,
            transmitted: 0,
            outcome: None,
        }
    }

    /// The key that it reads.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The next get to send; all n are to be sent at once.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let replica = self.tally.replicas().get(self.transmitted)?;
        self.transmitted += 1;
        Some(Transmit {
            to: replica.server,
            id: GET,
            command: ReplicaCommand::Get {
                key: self.key.clone(),
            },
        })
    }

    /// The next value to fetch, and the replica to fetch it from. The fetch ends with
    /// [`Self::handle_fetched`] or [`Self::handle_fetch_failed`].
    pub fn poll_fetch(&mut self) -> Option<FetchStart> {
        if self.outcome.is_some() {
            return None;
        }
        let wanted = self.wanted();
        self.values.begin_fetch(&wanted)
    }

    /// When to call [`Self::handle_timeout`], as long as any replica is pending or a value is
    /// being fetched.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_complete()).then_some(self.deadline)
    }

    /// `from` responded to a get.
    pub fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) -> Recorded {
        if id.purpose != Purpose::Get {
            return Recorded::Repeated;
        }
        let got = GetResponse::from(response);
        let response = match &got {
            GetResponse::Absent => ReadResponse::Absent(None),
            GetResponse::Tombstone(tag, _) => ReadResponse::Absent(Some(*tag)),
            GetResponse::Refused(refusal) => ReadResponse::Refused(*refusal),
            GetResponse::Untagged(value) => ReadResponse::Holds(self.values.place_for(value), None),
            GetResponse::Record(digest, Some(value)) => {
                ReadResponse::Holds(self.values.place_for(value), Some(digest.tag))
            }
            GetResponse::Record(digest, None) => {
                ReadResponse::Holds(self.values.place_for_digest(digest), Some(digest.tag))
            }
        };
        let state = ReplicaState::Responded(response);
        let recorded = self.tally.record(from, state, now);
        if recorded == Recorded::Counted {
            if let ReadResponse::Holds(place, _) = response {
                self.values.insert(place, from, got);
            }
            self.decide_once();
        }
        recorded
    }

    /// The value behind a digest has arrived.
    pub fn handle_fetched(&mut self, digest: &Digest, value: Value) {
        if self.values.handle_fetched(digest, value) {
            self.decide_once();
        }
    }

    /// `server` did not give the value behind a digest.
    pub fn handle_fetch_failed(
        &mut self,
        digest: &Digest,
        server: ServerId,
        failure: FetchFailure,
    ) {
        if self.values.handle_fetch_failed(digest, server, failure) {
            self.decide_once();
        }
    }

    /// A get cannot reach `from`; `was_sent` says whether it may have before.
    pub fn handle_unreachable(
        &mut self,
        from: ServerId,
        id: CommandId,
        was_sent: bool,
        now: Instant,
    ) -> Recorded {
        if id.purpose != Purpose::Get {
            return Recorded::Repeated;
        }
        let state = ReplicaState::unreachable(was_sent);
        let recorded = self.tally.record(from, state, now);
        self.decide_once();
        recorded
    }

    /// Time has passed; at the deadline, all pending replicas time out.
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

    /// Whether every replica responded or timed out, and nothing is being fetched.
    pub fn is_complete(&self) -> bool {
        self.tally.pending() == 0 && self.outcome.is_some()
    }

    /// How many replicas agree with the outcome so far; without an outcome, how many hold
    /// what most of them hold.
    pub fn agreeing(&self) -> usize {
        let is_absent = |response: &&ReadResponse| matches!(response, ReadResponse::Absent(_));
        let absent = self.tally.responses().filter(is_absent).count();
        match &self.outcome {
            Some(ReadOutcome::Found(winner, _)) => {
                let place = self.values.place_of(winner);
                let seen = place.and_then(|place| self.values.get(place));
                seen.map_or(0, |seen| seen.holders().len())
            }
            Some(ReadOutcome::Absent) => absent,
            _ => {
                let holders = self.values.iter().map(|seen| seen.holders().len());
                holders.max().unwrap_or(0).max(absent)
            }
        }
    }

    /// The greatest tag of a tombstone that a replica reported.
    pub fn tombstone(&self) -> Option<Tag> {
        let tags = self
            .tally
            .responses()
            .filter_map(|response| match response {
                ReadResponse::Absent(tag) => *tag,
                _ => None,
            });
        tags.max()
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
    pub fn replicas(&self) -> &[Replica<ReadResponse>] {
        self.tally.replicas()
    }

    /// Where a replica of this read stands.
    pub fn standing(&self, replica: &Replica<ReadResponse>) -> ReplicaStanding {
        match replica.state {
            ReplicaState::Pending => ReplicaStanding::Pending,
            ReplicaState::Unreachable | ReplicaState::Indeterminate => ReplicaStanding::Unreachable,
            ReplicaState::TimedOut => ReplicaStanding::TimedOut,
            ReplicaState::Responded(ReadResponse::Absent(None)) => ReplicaStanding::Absent,
            ReplicaState::Responded(ReadResponse::Absent(Some(_))) => ReplicaStanding::Tombstone,
            ReplicaState::Responded(ReadResponse::Refused(refusal)) => {
                ReplicaStanding::Refused(refusal)
            }
            ReplicaState::Responded(ReadResponse::Holds(place, _)) => {
                let value = self.values.get(place).and_then(SeenValue::whole);
                match (&self.outcome, value) {
                    (Some(ReadOutcome::Found(winner, _)), Some(value)) if value == winner => {
                        ReplicaStanding::Match
                    }
                    _ => ReplicaStanding::Differs,
                }
            }
        }
    }

    /// Whether a replica reported by a digest alone that it holds what was read of `key`: the digest
    /// is the one that the value would have there. The value was not fetched, so this is good enough
    /// to show where the replica stands, and not to decide by.
    pub fn has_same_digest(&self, key: &Key, replica: &Replica<ReadResponse>) -> bool {
        let (
            Some(ReadOutcome::Found(winner, _)),
            ReplicaState::Responded(ReadResponse::Holds(place, _)),
        ) = (&self.outcome, replica.state)
        else {
            return false;
        };
        let Some(digest) = self.values.get(place).and_then(SeenValue::digest) else {
            return false;
        };
        let content = Content::Value {
            content_type: digest.content_type.clone(),
            value: winner.clone(),
        };
        digest.value_bytes as usize == winner.len()
            && digest.checksum == checksum(key, digest.tag, &digest.attributes, &content)
    }

    fn decide_once(&mut self) {
        if self.outcome.is_none() {
            self.outcome = self.decide();
        }
    }

    fn decide(&self) -> Option<ReadOutcome> {
        let is_pending = |server| self.tally.is_pending(server);
        let response_of = |server| self.tally.response_of(server);

        let mut known = self
            .values
            .iter()
            .filter_map(|seen| Some((seen, seen.whole()?)));
        let winner =
            known.find(|(seen, _)| self.threshold.is_met(|server| seen.is_held_by(server)));
        if let Some((seen, value)) = winner {
            return Some(ReadOutcome::Found(value.clone(), seen.version().clone()));
        }
        if self.can_any_value_win() {
            return None;
        }
        let is_absent = |server| matches!(response_of(server), Some(ReadResponse::Absent(_)));
        if self.threshold.is_met(is_absent) {
            return Some(ReadOutcome::Absent);
        }
        if self.threshold.can_still_be_met(is_absent, is_pending) {
            return None;
        }
        let has_answered = |server| {
            matches!(
                response_of(server),
                Some(ReadResponse::Absent(_) | ReadResponse::Holds(..))
            )
        };
        let can_answer = self.threshold.can_still_be_met(has_answered, is_pending);
        let is_any_pending = self.tally.pending() > 0;
        let can_compare = self
            .values
            .iter()
            .all(|seen| seen.can_be_known(is_any_pending));
        Some(match can_answer && can_compare {
            true => ReadOutcome::Disagree,
            false => ReadOutcome::Unreachable,
        })
    }

    /// Whether a quorum may turn out to hold one value.
    fn can_any_value_win(&self) -> bool {
        let pending: Vec<ServerId> = self.tally.pending_servers().collect();
        if self.threshold.is_met(|server| pending.contains(&server)) {
            return true;
        }
        let mut open = self.open();
        open.any(|seen| self.can_win(seen, &pending))
    }

    /// Whether a quorum may turn out to hold this value, if the `pending` replicas do: values known
    /// by their digests alone may be equal to each other, and to one that is known.
    fn can_win(&self, seen: &SeenValue, pending: &[ServerId]) -> bool {
        let may_be_equal = |other: &&SeenValue| {
            other.whole().is_none() && other.value_bytes() == seen.value_bytes()
        };
        let others: Vec<&SeenValue> = self.open().filter(may_be_equal).collect();
        self.threshold.is_met(|server| {
            seen.is_held_by(server)
                || others.iter().any(|other| other.is_held_by(server))
                || pending.contains(&server)
        })
    }

    /// The places of the values that have to be fetched for the read to be decided: those that may
    /// be equal to one that can win.
    fn wanted(&self) -> Vec<usize> {
        let is_any_pending = self.tally.pending() > 0;
        let values = self.values.iter().enumerate();
        let values = values.filter(|(_, seen)| seen.can_be_known(is_any_pending));
        let has_won = |seen: &SeenValue| self.threshold.is_met(|server| seen.is_held_by(server));
        if let Some((winner, _)) = values.clone().find(|(_, seen)| has_won(seen)) {
            return vec![winner];
        }
        if is_any_pending {
            return Vec::new();
        }
        let can_help = |seen: &SeenValue| {
            let mut equals = self
                .open()
                .filter(|other| other.value_bytes() == seen.value_bytes());
            equals.any(|other| self.can_win(other, &[]))
        };
        let of_use = values.filter(|(_, seen)| can_help(seen));
        of_use.map(|(place, _)| place).collect()
    }

    /// The values whose bytes are known or may be fetched.
    fn open(&self) -> impl Iterator<Item = &SeenValue> {
        let is_any_pending = self.tally.pending() > 0;
        self.values
            .iter()
            .filter(move |seen| seen.can_be_known(is_any_pending))
    }
}

#[cfg(test)]
mod tests;

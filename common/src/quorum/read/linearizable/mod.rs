//! The linearizable read: what the newest of at least r replicas hold, once as many hold it.
//!
//! ```text
//!   get from all --> fewer than r responses --> newest known --> enough hold it --> outcome
//!     ^                                           |     ^ |
//!     |            long value: fetched from ------+     | +-- others are stale --> written back
//!     |            one holder after the other           +------- confirmed -----------+
//!     +---------------- overwritten at all of them
//! ```
//!
//! The read of the multi-writer register of Attiya, Bar-Noy and Dolev (1995): before a value is
//! returned, so many replicas hold it (or something newer) that every later read meets one of them.
//! Those are r, which is a majority: so any r replicas meet any other r, and the r that report the
//! newest tag meet the w that confirmed any write before. Usually the first r responses agree, and
//! that is all. A tombstone is a record like any other, and no record at all is the oldest.
//!
//! A replica that turns out to be stale is given the newest record even where the read need not
//! wait for that. If a replica that responds after the outcome holds something newer still, that is
//! what the others are given: so replicas that have all responded end up with the same.
//!
//! * `choosing`: which record is the newest; `current`: what that is, for whoever writes in its place
//! * `fetching`: the long values that are fetched from their holders; `tombstones`: those that were seen
//! * `repairing`: the write-backs and attestations
//!
//! # Records that came by DKVS/1
//!
//! DKVS/1 has no tags: each replica mints its own for a put of that protocol, so the greatest tag
//! may be that of an older record, on a minority of the replicas. Once any replica reports such a
//! record ([`Tag::is_by_v1`]), this read has no answer, and writes nothing back any more, also after
//! its outcome: that might replace what was written last. A caller that can do with less begins anew
//! at the agreement level, which compares values and not tags.
//!
//! # Replicas that refuse as corrupt
//!
//! A server that has lost or damaged records is in quarantine: it answers `corrupt` for every key
//! that it does not attest. It may have confirmed a record that it does not have any more, so
//! whatever it holds may be too old, and a quorum that counted its answer might miss what the one
//! before it confirmed. Its refusal is no answer, as any refusal.
//!
//! ```text
//!   refused as corrupt --> given the newest -- confirmed --> asked to attest --> repaired
//!                               |                                 |
//!                               +----------- or not --------------+--> refused, as it was
//! ```
//!
//! Once r others have responded, the read knows the newest record, t. The server is given t, or
//! what was reported since and is newer, as if it were stale, and is asked to attest: to answer for
//! the key from then on. It may, if t is no older than what was returned or confirmed by any request
//! that counted a response of the server from before the loss. That is so if all of those requests
//! were over when the read began: the responses that decided one of them and the r responses to
//! this read share a server that still has what it reported, or attests no less, as this one is
//! about to. A request that is decided later may not share one. The machine knows neither when the
//! server was started nor what else is under way: the caller asks a server to attest only if it has
//! run for so long before the read that every request from before its start is over, and the server
//! refuses if it was restarted meanwhile.
//!
//! Such a repair never counts among those that hold the newest, nor among those that may yet, and
//! the outcome does not wait for it: it depends on those alone that answered soundly. They are at
//! least r by then, so they are enough if all goes well. A later read counts the server only once
//! it attests, and it does that for t or something newer only. So what the outcome promises to
//! later reads holds whether they count it or not, and whatever comes of the attestation. If nothing
//! was found anywhere, there is nothing to give, and no server is asked to attest.

mod choosing;
mod current;
mod fetching;
mod repairing;
mod standing;
mod tombstones;

use std::time::Instant;

use super::outcome::{ReadOutcome, ReplicaStanding};
use super::response::{GetResponse, ReadResponse};
use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::model::{Refusal, ReplicaCommand, ReplicaResponse};
use crate::mutants::{self, Mutant};
use crate::quorum::params::Quorum;
use crate::quorum::sources::{FetchFailure, FetchStart};
use crate::quorum::tally::{Recorded, Replica, ReplicaState, Tally};
use crate::quorum::threshold::Threshold;
use crate::quorum::transmit::{Attestation, CommandId, Purpose, Transmit};
use crate::quorum::version::Version;
use crate::quorum::write::WriteResponse;
use crate::record::{Attributes, Content, Digest, Record};
use crate::ring::PreferenceList;
use crate::tag::Tag;
use choosing::{Choice, Newest};
use fetching::SeenRecords;
use repairing::Repairs;
use tombstones::SeenTombstones;

/// How often a read may begin anew because the long value it was about to fetch was overwritten
/// everywhere.
pub const ROUNDS_MAX: u32 = 16;

/// One read at the linearizable level.
#[derive(Debug)]
pub struct LinearizableRead {
    key: Key,
    tally: Tally<ReadResponse>,
    threshold: Threshold,
    records: SeenRecords,
    tombstones: SeenTombstones,
    /// The newest that r replicas reported: what is to be returned.
    newest: Option<Newest>,
    /// What replicas that lack it are given: the same, or what turned out to be newer still.
    given: Option<Newest>,
    /// The record that was last written back.
    write_back: Option<Box<Record>>,
    repairs: Repairs,
    /// Whether a replica reported a record that came by DKVS/1.
    has_met_v1: bool,
    quorum: Quorum,
    deadline: Instant,
    round: u32,
    transmitted: usize,
    outcome: Option<ReadOutcome>,
}

impl LinearizableRead {
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
            records: SeenRecords::default(),
            tombstones: SeenTombstones::default(),
            newest: None,
            given: None,
            write_back: None,
            repairs: Repairs::default(),
            has_met_v1: false,
            quorum,
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

    /// The key that it reads.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The next server that should attest. To be polled before [`Self::poll_transmit`].
    pub fn poll_attestation(&mut self) -> Option<Attestation> {
        let (server, tag) = self.repairs.poll_attestation()?;
        let round = self.round;
        Some(Attestation { server, round, tag })
    }

    /// The next command to send: first a get to each replica, all n at once; later, a put of the
    /// newest record to each that lacks it.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let key = &self.key;
        if let Some(replica) = self.tally.replicas().get(self.transmitted) {
            self.transmitted += 1;
            return Some(Transmit {
                to: replica.server,
                id: self.id(Purpose::Get),
                command: ReplicaCommand::Get { key: key.clone() },
            });
        }
        if !self.repairs.wants_write_back() {
            return None;
        }
        let record = self.write_back()?;
        Some(Transmit {
            to: self.repairs.poll_write_back()?,
            id: self.id(Purpose::WriteBack),
            command: ReplicaCommand::Put {
                key: self.key.clone(),
                record,
            },
        })
    }

    fn id(&self, purpose: Purpose) -> CommandId {
        let round = self.round;
        CommandId { round, purpose }
    }

    /// The value to fetch, and the replica to fetch it from.
    pub fn poll_fetch(&mut self) -> Option<FetchStart> {
        let place = self.given_and_unknown()?;
        self.records.begin_fetch(place, &self.tally)
    }

    /// The record that the replicas are given; none while its value is not known. Its checksum is
    /// computed once.
    fn write_back(&mut self) -> Option<Record> {
        let given = self.given?;
        let attributes = self.attributes(given);
        let is_current =
            |record: &Record| record.tag == given.tag() && record.attributes == attributes;
        if !self.write_back.as_deref().is_some_and(is_current) {
            let content = self.content(given)?;
            let record = Record::with_attributes(&self.key, given.tag(), attributes, content);
            self.write_back = Some(Box::new(record));
        }
        self.write_back.as_deref().cloned()
    }

    /// What a replica's record would say beside its content.
    fn attributes(&self, given: Newest) -> Attributes {
        match given {
            _ if mutants::is_on(Mutant::AttributesDropped) => Attributes::NONE,
            Newest::Nothing => Attributes::NONE,
            Newest::Tombstone(tag) => self.tombstones.attributes(tag),
            Newest::Record(place, _) => self.records.digest(place).attributes,
        }
    }

    /// What a replica would be given; none if that is nothing, or a value that is not known.
    fn content(&self, given: Newest) -> Option<Content> {
        match given {
            Newest::Nothing => None,
            Newest::Tombstone(_) => Some(Content::Tombstone),
            Newest::Record(place, _) => self.records.content(place),
        }
    }

    /// Whether a replica would be given anything, as far as is known.
    fn has_content(&self, given: Newest) -> bool {
        match given {
            Newest::Nothing => false,
            Newest::Tombstone(_) => true,
            Newest::Record(place, _) => self.records.value(place).is_some(),
        }
    }

    /// Whether a replica reported a record that came by DKVS/1.
    pub fn has_met_v1(&self) -> bool {
        self.has_met_v1
    }

    /// When to call [`Self::handle_timeout`], as long as anything is open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_complete()).then_some(self.deadline)
    }

    /// `from` responded to the command `id`.
    pub fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) -> Recorded {
        match id.purpose {
            Purpose::Get => self.handle_get_response(from, id.round, response.into(), now),
            Purpose::WriteBack => {
                let response = WriteResponse::to_put(response);
                self.handle_written(from, id.round, Some(response))
            }
            Purpose::Attest => {
                let attests = response == ReplicaResponse::Done;
                self.handle_attested(from, id.round, attests)
            }
            _ => Recorded::Repeated,
        }
    }

    /// The command `id` cannot reach `from`; `was_sent` says whether it may have before.
    pub fn handle_unreachable(
        &mut self,
        from: ServerId,
        id: CommandId,
        was_sent: bool,
        now: Instant,
    ) -> Recorded {
        match id.purpose {
            Purpose::Get if id.round == self.round => {
                let state = ReplicaState::unreachable(was_sent);
                let recorded = self.tally.record(from, state, now);
                self.advance();
                recorded
            }
            Purpose::WriteBack => self.handle_written(from, id.round, None),
            Purpose::Attest => self.handle_attested(from, id.round, false),
            _ => Recorded::Repeated,
        }
    }

    fn handle_get_response(
        &mut self,
        from: ServerId,
        round: u32,
        got: GetResponse,
        now: Instant,
    ) -> Recorded {
        if round != self.round && !mutants::is_on(Mutant::EarlierRoundCounted) {
            return Recorded::Repeated;
        }
        let response = match &got {
            GetResponse::Record(digest, _) => {
                ReadResponse::Holds(self.records.place_of(digest), Some(digest.tag))
            }
            GetResponse::Absent => ReadResponse::Absent(None),
            GetResponse::Tombstone(tag, _) => ReadResponse::Absent(Some(*tag)),
            GetResponse::Refused(refusal) => ReadResponse::Refused(*refusal),
            // Without a tag, nothing says whether what it holds is older or newer.
            GetResponse::Untagged(_) => ReadResponse::Refused(Refusal::NotV2),
        };
        let state = ReplicaState::Responded(response);
        let recorded = self.tally.record(from, state, now);
        if recorded != Recorded::Counted {
            return recorded;
        }
        match (got, response) {
            (GetResponse::Record(digest, value), ReadResponse::Holds(place, _)) => {
                self.records.insert(place, digest, value);
            }
            (GetResponse::Tombstone(tag, attributes), _) => self.tombstones.insert(tag, attributes),
            _ => {}
        }
        if response.tag().is_some_and(Tag::is_by_v1) && !mutants::is_on(Mutant::V1WrittenBack) {
            self.handle_v1_record();
        }
        self.advance();
        recorded
    }

    /// `from` responded to the write-back of `round`; none if it cannot be reached.
    fn handle_written(
        &mut self,
        from: ServerId,
        round: u32,
        response: Option<WriteResponse>,
    ) -> Recorded {
        if round != self.round || !self.repairs.handle_written(from, response) {
            return Recorded::Repeated;
        }
        self.advance();
        Recorded::Counted
    }

    /// `from` was asked in `round` to attest what it was given, and does so or not.
    fn handle_attested(&mut self, from: ServerId, round: u32, attests: bool) -> Recorded {
        if round != self.round || !self.repairs.handle_attested(from, attests) {
            return Recorded::Repeated;
        }
        Recorded::Counted
    }

    /// A replica reported a record that came by DKVS/1: nothing is written back any more.
    fn handle_v1_record(&mut self) {
        self.has_met_v1 = true;
        self.given = None;
        self.repairs.give_up();
        self.outcome.get_or_insert(ReadOutcome::CameByV1);
    }

    /// The servers that refused as corrupt and have not confirmed what they are given, each with
    /// its tag.
    pub fn quarantined(&self) -> Vec<(ServerId, Tag)> {
        self.repairs.quarantined()
    }

    /// The value behind a digest has arrived.
    pub fn handle_fetched(&mut self, digest: &Digest, value: Value) {
        if self.records.handle_fetched(digest, value) {
            self.advance();
        }
    }

    /// `server` did not give the value behind a digest.
    pub fn handle_fetch_failed(
        &mut self,
        digest: &Digest,
        server: ServerId,
        failure: FetchFailure,
    ) {
        if self.records.handle_fetch_failed(digest, server, failure) {
            self.advance();
        }
    }

    /// Time has passed; at the deadline, all pending replicas time out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        self.tally.expire();
        self.repairs.give_up();
        self.given = None;
        self.outcome.get_or_insert(ReadOutcome::TimedOut);
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<&ReadOutcome> {
        self.outcome.as_ref()
    }

    /// Whether every replica responded or timed out, and none is being repaired.
    pub fn is_complete(&self) -> bool {
        let is_fetching = self
            .given_and_unknown()
            .is_some_and(|place| self.records.can_be_fetched(place, &self.tally));
        self.outcome.is_some()
            && self.tally.pending() == 0
            && !self.repairs.is_any_open()
            && !is_fetching
    }

    /// How many replicas hold what was read, or something newer.
    pub fn agreeing(&self) -> usize {
        let newest = self
            .newest
            .or_else(|| choosing::newest_reported(&self.tally));
        newest.map_or(0, |newest| {
            let servers = self.tally.servers();
            servers
                .filter(|server| self.is_held_by(*server, newest))
                .count()
        })
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
    pub fn replicas(&self) -> &[Replica<ReadResponse>] {
        self.tally.replicas()
    }

    /// Where a replica of this read stands.
    pub fn standing(&self, replica: &Replica<ReadResponse>) -> ReplicaStanding {
        let response = match replica.state {
            ReplicaState::Pending => return ReplicaStanding::Pending,
            ReplicaState::Unreachable | ReplicaState::Indeterminate => {
                return ReplicaStanding::Unreachable;
            }
            ReplicaState::TimedOut => return ReplicaStanding::TimedOut,
            ReplicaState::Responded(response) => response,
        };
        if self.repairs.is_confirmed(replica.server) {
            return ReplicaStanding::Repaired;
        }
        let found = match self.outcome {
            Some(ReadOutcome::Found(..)) => self.newest,
            _ => None,
        };
        standing::of(response, self.newest, found, &self.records)
    }

    /// Proceeds as far as the responses allow.
    fn advance(&mut self) {
        if self.has_met_v1 {
            return;
        }
        if self.outcome.is_none() && self.newest.is_none() {
            match choosing::choose(&self.tally, &self.threshold) {
                Choice::Open => {}
                Choice::Newest(newest) => self.newest = Some(newest),
                Choice::Disagree => self.outcome = Some(ReadOutcome::Disagree),
                Choice::Unreachable => self.outcome = Some(ReadOutcome::Unreachable),
            }
        }
        if let (None, Some(newest)) = (&self.outcome, self.newest) {
            self.given = self.newest;
            self.decide(newest);
        }
        if self.outcome.is_some()
            && let Some(given) = self.given
        {
            self.given = choosing::newest_reported(&self.tally)
                .filter(|newest| newest.tag() > given.tag())
                .or(self.given);
        }
        if let Some(given) = self.given
            && self.has_content(given)
            && !mutants::is_on(Mutant::NoWriteBack)
        {
            self.repairs.want(given, &self.tally);
        }
    }

    /// Ends the read if `newest` is known and enough replicas hold it, or if they no longer can.
    fn decide(&mut self, newest: Newest) {
        let is_known = match newest {
            Newest::Record(place, _) => {
                let is_known = self.records.value(place).is_some();
                let can_be_known =
                    self.tally.pending() > 0 || self.records.can_be_fetched(place, &self.tally);
                if !is_known && !can_be_known {
                    return self.begin_anew();
                }
                is_known
            }
            Newest::Nothing | Newest::Tombstone(_) => true,
        };
        let tolerated = if mutants::is_on(Mutant::NoWriteBack) {
            usize::MAX
        } else {
            usize::from(mutants::is_on(Mutant::WriteBackToFewer))
        };
        let is_held = |server| self.is_held_by(server, newest);
        if self.threshold.missing(is_held) <= tolerated {
            self.outcome = is_known.then(|| self.found(newest));
            return;
        }
        let may_hold_it = |server| {
            self.tally.is_pending(server)
                || self.repairs.is_stale(server, newest, &self.tally)
                || self.repairs.may_yet_count(server)
        };
        if !self.threshold.can_still_be_met(is_held, may_hold_it) {
            self.outcome = Some(ReadOutcome::Unreachable);
        }
    }

    /// The outcome, once `newest` is known.
    fn found(&self, newest: Newest) -> ReadOutcome {
        match newest {
            Newest::Nothing | Newest::Tombstone(_) => ReadOutcome::Absent,
            Newest::Record(place, _) => {
                let value = self.records.value(place).expect("it is known").clone();
                ReadOutcome::Found(value, Version::from(self.records.digest(place)))
            }
        }
    }

    /// Asks all replicas again: something newer has replaced the value that was to be fetched.
    fn begin_anew(&mut self) {
        if self.round == ROUNDS_MAX {
            self.outcome = Some(ReadOutcome::Unreachable);
            return;
        }
        self.tally = self.tally.anew();
        self.records.clear();
        self.tombstones.clear();
        self.newest = None;
        self.given = None;
        self.write_back = None;
        self.repairs.clear();
        self.transmitted = 0;
        self.round += 1;
    }

    /// Whether `server` holds `newest`, or something that came after it.
    fn is_held_by(&self, server: ServerId, newest: Newest) -> bool {
        let held = self.tally.response_of(server).copied();
        held.and_then(Newest::reported_by).is_some_and(|held| {
            held.covers(newest)
                || (Some(newest) == self.newest && self.repairs.is_confirmed(server))
        })
    }

    /// The place of the record that is to be given, if its value is not known.
    fn given_and_unknown(&self) -> Option<usize> {
        match self.given? {
            Newest::Record(place, _) => self.records.value(place).is_none().then_some(place),
            Newest::Nothing | Newest::Tombstone(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;

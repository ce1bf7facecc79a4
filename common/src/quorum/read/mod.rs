//! The read, at the level that was chosen for it.
//!
//! [`agreement`] and [`linearizable`] decide; [`Read`] is either, behind one set of methods.

pub mod agreement;
pub mod linearizable;
mod outcome;
mod response;

use std::time::Instant;

use super::level::Level;
use super::params::Quorum;
use super::sources::{FetchFailure, FetchStart};
use super::tally::{Recorded, Replica};
use super::transmit::{CommandId, Transmit};
use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::model::ReplicaResponse;
use crate::record::{Attributes, Digest};
use crate::ring::PreferenceList;
use crate::tag::Tag;

pub use super::transmit::Attestation;
pub use outcome::{ReadOutcome, ReplicaStanding};
pub use response::ReadResponse;

/// One read.
#[derive(Debug)]
pub enum Read {
    /// At the agreement level.
    Agreement(agreement::AgreementRead),
    /// At the linearizable level.
    Linearizable(linearizable::LinearizableRead),
}

/// The same of either read.
macro_rules! of_either {
    ($read:expr, $of:ident => $does:expr) => {
        match $read {
            Self::Agreement($of) => $does,
            Self::Linearizable($of) => $does,
        }
    };
}

impl Read {
    /// A read of `key` from the replicas of `list`, one for each of the quorum's n. At the
    /// linearizable level the quorum has to pass [`Level::check_linearizable`].
    pub fn new(
        key: Key,
        list: PreferenceList,
        quorum: Quorum,
        level: Level,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        match level {
            Level::Agreement => Self::Agreement(agreement::AgreementRead::new(
                key, list, quorum, now, deadline,
            )),
            Level::Linearizable => Self::Linearizable(linearizable::LinearizableRead::new(
                key, list, quorum, now, deadline,
            )),
        }
    }

    /// The same read at the agreement level, which begins anew; none if this one has an outcome, and
    /// no replica reported a record that came by DKVS/1.
    pub fn at_agreement_level(&self, now: Instant, deadline: Instant) -> Option<Self> {
        if self.outcome().is_some() && !self.has_met_v1() {
            return None;
        }
        let (key, list, quorum) = (self.key().clone(), self.list(), self.quorum());
        Some(Self::new(
            key,
            list,
            quorum,
            Level::Agreement,
            now,
            deadline,
        ))
    }

    /// Whether this is a linearizable read, and a replica reported a record that came by DKVS/1,
    /// before the outcome or after it.
    pub fn has_met_v1(&self) -> bool {
        match self {
            Self::Agreement(_) => false,
            Self::Linearizable(read) => read.has_met_v1(),
        }
    }

    /// At the linearizable level, what is there: its tag, [`Tag::ZERO`] if there never was anything; whether
    /// it is a value; and what the record says beside its content. None without an outcome that says so.
    pub fn current(&self) -> Option<(Tag, bool, Attributes)> {
        match (self, self.outcome()?) {
            (Self::Linearizable(read), ReadOutcome::Found(..) | ReadOutcome::Absent) => {
                read.newest()
            }
            _ => None,
        }
    }

    /// What it promises.
    pub fn level(&self) -> Level {
        match self {
            Self::Agreement(_) => Level::Agreement,
            Self::Linearizable(_) => Level::Linearizable,
        }
    }

    /// The key that it reads.
    pub fn key(&self) -> &Key {
        of_either!(self, read => read.key())
    }

    /// The round of gets, from 0; responses to an earlier one change nothing.
    pub fn round(&self) -> u32 {
        match self {
            Self::Agreement(_) => 0,
            Self::Linearizable(read) => read.round(),
        }
    }

    /// The next server that should attest. To be polled before [`Self::poll_transmit`].
    pub fn poll_attestation(&mut self) -> Option<Attestation> {
        match self {
            Self::Agreement(_) => None,
            Self::Linearizable(read) => read.poll_attestation(),
        }
    }

    /// The next command to send: a get or a write-back.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        of_either!(self, read => read.poll_transmit())
    }

    /// The next value to fetch, and the replica to fetch it from. The fetch ends with
    /// [`Self::handle_fetched`] or [`Self::handle_fetch_failed`].
    pub fn poll_fetch(&mut self) -> Option<FetchStart> {
        of_either!(self, read => read.poll_fetch())
    }

    /// When to call [`Self::handle_timeout`], as long as anything is open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        of_either!(self, read => read.poll_timeout())
    }

    /// `from` responded to the command `id`. A whole record has been checked against its checksum
    /// before.
    pub fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) -> Recorded {
        of_either!(self, read => read.handle_response(from, id, response, now))
    }

    /// The command `id` cannot reach `from`; `was_sent` says whether it may have before.
    pub fn handle_unreachable(
        &mut self,
        from: ServerId,
        id: CommandId,
        was_sent: bool,
        now: Instant,
    ) -> Recorded {
        of_either!(self, read => read.handle_unreachable(from, id, was_sent, now))
    }

    /// The servers in quarantine that were sent a record and have not confirmed it, each with the
    /// record's tag. They refuse gets of the key until they attest.
    pub fn quarantined(&self) -> Vec<(ServerId, Tag)> {
        match self {
            Self::Agreement(_) => Vec::new(),
            Self::Linearizable(read) => read.quarantined(),
        }
    }

    /// The value behind a digest has arrived.
    pub fn handle_fetched(&mut self, digest: &Digest, value: Value) {
        of_either!(self, read => read.handle_fetched(digest, value));
    }

    /// `server` did not give the value behind a digest.
    pub fn handle_fetch_failed(
        &mut self,
        digest: &Digest,
        server: ServerId,
        failure: FetchFailure,
    ) {
        of_either!(self, read => read.handle_fetch_failed(digest, server, failure));
    }

    /// Time has passed; at the deadline, all pending replicas time out.
    pub fn handle_timeout(&mut self, now: Instant) {
        of_either!(self, read => read.handle_timeout(now));
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<&ReadOutcome> {
        of_either!(self, read => read.outcome())
    }

    /// Whether every replica responded or timed out, and nothing else is under way.
    pub fn is_complete(&self) -> bool {
        of_either!(self, read => read.is_complete())
    }

    /// How many replicas hold what the outcome says; without one, what most of them hold.
    pub fn agreeing(&self) -> usize {
        of_either!(self, read => read.agreeing())
    }

    /// The tag of the tombstone that was read, or at the agreement level the greatest that was
    /// reported.
    pub fn tombstone(&self) -> Option<Tag> {
        of_either!(self, read => read.tombstone())
    }

    /// The n and r of the request.
    pub fn quorum(&self) -> Quorum {
        of_either!(self, read => read.quorum())
    }

    /// The preference list that it reads from.
    pub fn list(&self) -> PreferenceList {
        of_either!(self, read => read.list())
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<ReadResponse>] {
        of_either!(self, read => read.replicas())
    }

    /// Where a replica of this read stands.
    pub fn standing(&self, replica: &Replica<ReadResponse>) -> ReplicaStanding {
        of_either!(self, read => read.standing(replica))
    }

    /// The same, of a read of `key`, but a replica that reported a long value by its digest alone
    /// matches if the digest is that of what was read. That takes a checksum of the value.
    pub fn standing_of(&self, key: &Key, replica: &Replica<ReadResponse>) -> ReplicaStanding {
        match self {
            Self::Agreement(read) if read.has_same_digest(key, replica) => ReplicaStanding::Match,
            _ => self.standing(replica),
        }
    }

    /// As [`Self::agreeing`], and the replicas that match by their digests, as in
    /// [`Self::standing_of`].
    pub fn agreeing_on(&self, key: &Key) -> usize {
        let is_of_digest = |replica: &&Replica<ReadResponse>| match self {
            Self::Agreement(read) => read.has_same_digest(key, replica),
            Self::Linearizable(_) => false,
        };
        self.agreeing() + self.replicas().iter().filter(is_of_digest).count()
    }
}

//! The read, at the level that was chosen for it.
//!
//! [`agreement`] and [`linearizable`] decide; this module has what both are told and what both
//! tell, so that whoever carries the words need not know which of them it is.

pub mod agreement;
pub mod linearizable;
mod outcome;
mod response;

use std::time::Instant;

use super::level::Level;
use super::params::Quorum;
use super::tally::{Recorded, Replica};
use super::transmit::Transmit;
use super::write::WriteReply;
use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::record::{Content, Digest};
use crate::ring::PreferenceList;
use crate::tag::Tag;

pub use outcome::{ReadOutcome, Standing};
pub use response::{Answer, ReadReply};

/// One read.
#[derive(Debug)]
pub enum Read {
    /// At the agreement level.
    Agreement(agreement::Read),
    /// At the linearizable level.
    Linearizable(linearizable::Read),
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
    /// A read from the replicas of `list`, one for each of the quorum's n. At the linearizable
    /// level the quorum has to be one that [`Level::check_linearizable`] lets pass.
    pub fn new(
        list: PreferenceList,
        quorum: Quorum,
        level: Level,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        match level {
            Level::Agreement => Self::Agreement(agreement::Read::new(list, quorum, now, deadline)),
            Level::Linearizable => {
                Self::Linearizable(linearizable::Read::new(list, quorum, now, deadline))
            }
        }
    }

    /// The same read at the agreement level, which begins anew; none if this one has an answer, and
    /// no replica told of a record that came by DKVS/1.
    pub fn agreeing_instead(&self, now: Instant, deadline: Instant) -> Option<Self> {
        let may_begin = self.outcome().is_none() || self.has_met_v1();
        let again = || Self::new(self.list(), self.quorum(), Level::Agreement, now, deadline);
        may_begin.then(again)
    }

    /// Whether it is to be linearizable, and a replica told of a record that came by DKVS/1, be it
    /// after the outcome.
    pub fn has_met_v1(&self) -> bool {
        match self {
            Self::Agreement(_) => false,
            Self::Linearizable(read) => read.has_met_v1(),
        }
    }

    /// What it promises.
    pub fn level(&self) -> Level {
        match self {
            Self::Agreement(_) => Level::Agreement,
            Self::Linearizable(_) => Level::Linearizable,
        }
    }

    /// Which round of gets it is, from 0; answers to an earlier one change nothing.
    pub fn round(&self) -> u32 {
        match self {
            Self::Agreement(_) => 0,
            Self::Linearizable(read) => read.round(),
        }
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        of_either!(self, read => read.poll_transmit())
    }

    /// The next value to fetch, and from whom. Its end is told by [`Self::handle_fetched`] or
    /// [`Self::handle_fetch_failed`].
    pub fn poll_fetch(&mut self) -> Option<(ServerId, Digest)> {
        of_either!(self, read => read.poll_fetch())
    }

    /// The record that replicas are to be given, where [`Self::poll_transmit`] asks for that.
    pub fn repair(&self) -> Option<(Tag, Content)> {
        match self {
            Self::Agreement(_) => None,
            Self::Linearizable(read) => read.repair(),
        }
    }

    /// When to call [`Self::handle_timeout`], as long as anything is open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        of_either!(self, read => read.poll_timeout())
    }

    /// `from` answered the get of `round`.
    pub fn handle_reply(
        &mut self,
        from: ServerId,
        round: u32,
        reply: ReadReply,
        now: Instant,
    ) -> Recorded {
        match self {
            Self::Agreement(read) => read.handle_reply(from, reply, now),
            Self::Linearizable(read) => read.handle_reply(from, round, reply, now),
        }
    }

    /// The get of `round` cannot reach `to`; `sent` tells whether it may have been sent before.
    pub fn handle_unreachable(
        &mut self,
        to: ServerId,
        round: u32,
        sent: bool,
        now: Instant,
    ) -> Recorded {
        match self {
            Self::Agreement(read) => read.handle_unreachable(to, sent, now),
            Self::Linearizable(read) => read.handle_unreachable(to, round, sent, now),
        }
    }

    /// `from` was given the record of `round` and answered; none if it cannot be reached.
    pub fn handle_repaired(&mut self, from: ServerId, round: u32, reply: Option<WriteReply>) {
        if let Self::Linearizable(read) = self {
            read.handle_repaired(from, round, reply);
        }
    }

    /// `from` was asked in `round` to vouch for what it was given; whether it does.
    pub fn handle_vouched(&mut self, from: ServerId, round: u32, vouches: bool) {
        if let Self::Linearizable(read) = self {
            read.handle_vouched(from, round, vouches);
        }
    }

    /// Those that are being given a record and do not answer for the key before they are asked to
    /// vouch for it, each with the record's tag.
    pub fn unvouched(&self) -> Vec<(ServerId, Tag)> {
        match self {
            Self::Agreement(_) => Vec::new(),
            Self::Linearizable(read) => read.unvouched(),
        }
    }

    /// The value behind a digest has arrived.
    pub fn handle_fetched(&mut self, digest: &Digest, value: Value) {
        of_either!(self, read => read.handle_fetched(digest, value));
    }

    /// The value behind a digest is not to be had from `server`.
    pub fn handle_fetch_failed(&mut self, digest: &Digest, server: ServerId) {
        of_either!(self, read => read.handle_fetch_failed(digest, server));
    }

    /// Time has passed; at the deadline, whoever is pending has timed out.
    pub fn handle_timeout(&mut self, now: Instant) {
        of_either!(self, read => read.handle_timeout(now));
    }

    /// How it ended, once it has; this never changes afterwards.
    pub fn outcome(&self) -> Option<&ReadOutcome> {
        of_either!(self, read => read.outcome())
    }

    /// Whether every replica was heard out or has timed out, and nothing else is under way.
    pub fn is_complete(&self) -> bool {
        of_either!(self, read => read.is_complete())
    }

    /// How many replicas stand behind the outcome; without one, behind what most stand behind.
    pub fn agreeing(&self) -> usize {
        of_either!(self, read => read.agreeing())
    }

    /// The tag of the tombstone that was read, or at the agreement level the greatest that was
    /// told.
    pub fn tombstone(&self) -> Option<Tag> {
        of_either!(self, read => read.tombstone())
    }

    /// The n and r of the request.
    pub fn quorum(&self) -> Quorum {
        of_either!(self, read => read.quorum())
    }

    /// The preference list that it asks.
    pub fn list(&self) -> PreferenceList {
        of_either!(self, read => read.list())
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<Answer>] {
        of_either!(self, read => read.replicas())
    }

    /// Where a replica of this read stands.
    pub fn standing(&self, replica: &Replica<Answer>) -> Standing {
        of_either!(self, read => read.standing(replica))
    }

    /// The same of a read of `key`, which tells more: a replica that told of a long value by its
    /// digest alone matches if the digest is that of what was read.
    pub fn standing_of(&self, key: &Key, replica: &Replica<Answer>) -> Standing {
        match self {
            Self::Agreement(read) if read.has_same_digest(key, replica) => Standing::Match,
            _ => self.standing(replica),
        }
    }

    /// How many replicas stand behind the outcome of a read of `key`, those that match by their
    /// digests included.
    pub fn agreeing_on(&self, key: &Key) -> usize {
        let is_of_digest = |replica: &&Replica<Answer>| match self {
            Self::Agreement(read) => read.has_same_digest(key, replica),
            Self::Linearizable(_) => false,
        };
        self.agreeing() + self.replicas().iter().filter(is_of_digest).count()
    }
}

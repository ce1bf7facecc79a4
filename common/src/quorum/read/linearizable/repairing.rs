//! The replicas that are given the newest record: those that hold something older, and those in
//! quarantine, which are asked to attest as well.
//!
//! ```text
//!   stale        wanted --> sent -- confirmed ----------------------------------> confirmed
//!   quarantined  wanted --> sent -- confirmed --> attestation wanted --> sent --> confirmed
//!                             |                                            |
//!                             +------------ or not: failed ----------------+
//! ```

use super::choosing::Newest;
use crate::cluster::ServerId;
use crate::model::Refusal;
use crate::quorum::read::response::ReadResponse;
use crate::quorum::tally::Tally;
use crate::quorum::write::WriteResponse;
use crate::tag::Tag;

/// The repairs of one round.
#[derive(Debug, Default)]
pub(super) struct Repairs(Vec<Repair>);

#[derive(Debug)]
struct Repair {
    server: ServerId,
    /// Of the record that it is given.
    tag: Tag,
    /// The replica refused as corrupt: it has to attest as well, and counts for nothing.
    is_quarantined: bool,
    state: RepairState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RepairState {
    Wanted,
    Sent,
    AttestationWanted,
    AttestationSent,
    Confirmed,
    Failed,
}

impl Repair {
    fn is_open(&self) -> bool {
        !matches!(self.state, RepairState::Confirmed | RepairState::Failed)
    }
}

impl Repairs {
    /// Wants `newest` written to every replica that is known to hold something older, and to every
    /// one in quarantine, unless it was given it before.
    pub(super) fn want(&mut self, newest: Newest, tally: &Tally<ReadResponse>) {
        let tag = newest.tag();
        let stale = self.stale(newest, tally).map(|server| (server, false));
        let quarantined = tally.servers().filter(|server| {
            tally.response_of(*server) == Some(&ReadResponse::Refused(Refusal::Corrupt))
                && !self.has(*server, tag)
        });
        let lacking: Vec<(ServerId, bool)> = stale
            .chain(quarantined.map(|server| (server, true)))
            .collect();
        let repair = |(server, is_quarantined)| Repair {
            server,
            tag,
            is_quarantined,
            state: RepairState::Wanted,
        };
        self.0.extend(lacking.into_iter().map(repair));
    }

    /// The replicas that reported something older than `newest`, and were not given it yet.
    fn stale(&self, newest: Newest, tally: &Tally<ReadResponse>) -> impl Iterator<Item = ServerId> {
        tally
            .servers()
            .filter(move |server| self.is_stale(*server, newest, tally))
    }

    /// Whether `server` reported something older than `newest`, and was not given it yet.
    pub(super) fn is_stale(
        &self,
        server: ServerId,
        newest: Newest,
        tally: &Tally<ReadResponse>,
    ) -> bool {
        let held = tally.response_of(server).copied();
        let held = held.and_then(Newest::reported_by);
        held.is_some_and(|held| held.tag() < newest.tag()) && !self.has(server, newest.tag())
    }

    /// The next server that should attest, and the tag.
    pub(super) fn poll_attestation(&mut self) -> Option<(ServerId, Tag)> {
        let repair = self.first(|repair| repair.state == RepairState::AttestationWanted)?;
        repair.state = RepairState::AttestationSent;
        Some((repair.server, repair.tag))
    }

    /// Whether the record should be written to a server.
    pub(super) fn wants_write_back(&self) -> bool {
        let mut repairs = self.0.iter();
        repairs.any(|repair| repair.state == RepairState::Wanted)
    }

    /// The next server that the record should be written to.
    pub(super) fn poll_write_back(&mut self) -> Option<ServerId> {
        let repair = self.first(|repair| repair.state == RepairState::Wanted)?;
        repair.state = RepairState::Sent;
        Some(repair.server)
    }

    /// `server` responded to a write-back, or cannot be reached; false if none was sent there.
    pub(super) fn handle_written(
        &mut self,
        server: ServerId,
        response: Option<WriteResponse>,
    ) -> bool {
        let is_sent = |repair: &Repair| repair.state == RepairState::Sent;
        let Some(repair) = self.first(|repair| repair.server == server && is_sent(repair)) else {
            return false;
        };
        let is_confirmed = response.is_some_and(|response| response.confirms(repair.tag));
        repair.state = match is_confirmed {
            true if repair.is_quarantined => RepairState::AttestationWanted,
            true => RepairState::Confirmed,
            false => RepairState::Failed,
        };
        true
    }

    /// `server` attests, or does not; false if it was not asked to.
    pub(super) fn handle_attested(&mut self, server: ServerId, attests: bool) -> bool {
        let is_sent = |repair: &Repair| repair.state == RepairState::AttestationSent;
        let Some(repair) = self.first(|repair| repair.server == server && is_sent(repair)) else {
            return false;
        };
        repair.state = match attests {
            true => RepairState::Confirmed,
            false => RepairState::Failed,
        };
        true
    }

    /// The servers in quarantine that have not confirmed what they were given, each with its tag.
    pub(super) fn quarantined(&self) -> Vec<(ServerId, Tag)> {
        let is_sent = |repair: &&Repair| repair.is_quarantined && repair.state == RepairState::Sent;
        let repairs = self.0.iter().filter(is_sent);
        repairs.map(|repair| (repair.server, repair.tag)).collect()
    }

    /// Whether `server` confirmed what it was given, and attests if it has to.
    pub(super) fn is_confirmed(&self, server: ServerId) -> bool {
        let mut repairs = self.0.iter();
        repairs.any(|repair| repair.server == server && repair.state == RepairState::Confirmed)
    }

    /// Whether `server` is being given something, and counts once it confirms.
    pub(super) fn may_yet_count(&self, server: ServerId) -> bool {
        let mut repairs = self.0.iter();
        repairs.any(|repair| repair.server == server && repair.is_open() && !repair.is_quarantined)
    }

    pub(super) fn is_any_open(&self) -> bool {
        self.0.iter().any(Repair::is_open)
    }

    /// Ends all that are open.
    pub(super) fn give_up(&mut self) {
        for repair in self.0.iter_mut().filter(|repair| repair.is_open()) {
            repair.state = RepairState::Failed;
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether `server` was given the record with this tag, or is to be.
    fn has(&self, server: ServerId, tag: Tag) -> bool {
        let mut repairs = self.0.iter();
        repairs.any(|repair| repair.server == server && repair.tag == tag)
    }

    fn first(&mut self, is_wanted: impl Fn(&Repair) -> bool) -> Option<&mut Repair> {
        self.0.iter_mut().find(|repair| is_wanted(repair))
    }
}

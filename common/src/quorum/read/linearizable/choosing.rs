//! Which record is the newest, by what the replicas reported.

use crate::quorum::read::response::ReadResponse;
use crate::quorum::tally::Tally;
use crate::quorum::threshold::Threshold;
use crate::tag::Tag;

/// What a replica holds for the key, ordered by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newest {
    Nothing,
    Tombstone(Tag),
    /// The record at this place among those that the read has seen.
    Record(usize, Tag),
}

impl Newest {
    /// What a replica reported; none if it refused.
    pub(super) fn reported_by(response: ReadResponse) -> Option<Self> {
        match response {
            ReadResponse::Holds(place, tag) => Some(Self::Record(place, tag.unwrap_or(Tag::ZERO))),
            ReadResponse::Absent(Some(tag)) => Some(Self::Tombstone(tag)),
            ReadResponse::Absent(None) => Some(Self::Nothing),
            ReadResponse::Refused(_) => None,
        }
    }

    pub(super) fn tag(self) -> Tag {
        match self {
            Self::Nothing => Tag::ZERO,
            Self::Tombstone(tag) | Self::Record(_, tag) => tag,
        }
    }

    /// Whether a replica that holds this holds `other`, or something that came after it.
    pub(super) fn covers(self, other: Self) -> bool {
        self == other || self.tag() > other.tag()
    }
}

/// What is known of the newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Too few replicas have reported, or they report two records under one tag.
    Open,
    /// The newest that a quorum reported.
    Newest(Newest),
    /// All have reported, two records have the greatest tag, and a quorum holds neither.
    Disagree,
    /// Too few replicas can still report.
    Unreachable,
}

/// Chooses the newest record, once a quorum has reported.
pub(super) fn choose(tally: &Tally<ReadResponse>, threshold: &Threshold) -> Choice {
    let report = |server| {
        let response = tally.response_of(server)?;
        Newest::reported_by(*response)
    };
    let has_reported = |server| report(server).is_some();
    if !threshold.is_met(has_reported) {
        return match threshold.can_still_be_met(has_reported, |server| tally.is_pending(server)) {
            true => Choice::Open,
            false => Choice::Unreachable,
        };
    }
    let greatest = reports(tally).map(Newest::tag).max();
    let mut newest = reports(tally).filter(|newest| Some(newest.tag()) == greatest);
    let Some(first) = newest.next() else {
        return Choice::Open;
    };
    if newest.clone().all(|other| other == first) {
        return Choice::Newest(first);
    }
    // Two records under one tag: a client sent another value again under the tag of one. The
    // replicas keep what came first, so the replicas have to agree as if there were no tags.
    let is_held = |contender: &Newest| {
        threshold.is_met(|server| report(server).is_some_and(|held| held.covers(*contender)))
    };
    let winner = std::iter::once(first).chain(newest).find(is_held);
    match winner {
        Some(winner) => Choice::Newest(winner),
        None if tally.pending() == 0 => Choice::Disagree,
        None => Choice::Open,
    }
}

/// The newest that any replica reported.
pub(super) fn newest_reported(tally: &Tally<ReadResponse>) -> Option<Newest> {
    reports(tally).max_by_key(|newest| newest.tag())
}

fn reports(tally: &Tally<ReadResponse>) -> impl Iterator<Item = Newest> + Clone {
    tally
        .responses()
        .filter_map(|response| Newest::reported_by(*response))
}

//! The records that replicas reported, and the long values that have to be fetched from one of
//! their holders.

use crate::cluster::ServerId;
use crate::kv::Value;
use crate::quorum::read::response::ReadResponse;
use crate::quorum::sources::{FetchFailure, FetchStart, Sources};
use crate::quorum::tally::{ReplicaState, Tally};
use crate::record::{Content, Digest};

/// The distinct records with values that were reported, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct SeenRecords(Vec<SeenRecord>);

#[derive(Debug)]
struct SeenRecord {
    digest: Digest,
    value: Option<Value>,
    sources: Sources,
}

impl SeenRecords {
    /// The place of a record: its own, or the next free one.
    pub(super) fn place_of(&self, digest: &Digest) -> usize {
        let seen = self
            .0
            .iter()
            .position(|seen| seen.digest.names_same_record(digest));
        seen.unwrap_or(self.0.len())
    }

    /// Keeps what a replica reported of the record at this place; of several ages, the greatest.
    pub(super) fn insert(&mut self, place: usize, digest: Digest, value: Option<Value>) {
        match self.0.get_mut(place) {
            Some(seen) => {
                let attributes = &mut seen.digest.attributes;
                *attributes = attributes.born_at_least(digest.attributes.born);
                seen.value = seen.value.take().or(value);
            }
            None => self.0.push(SeenRecord {
                digest,
                value,
                sources: Sources::default(),
            }),
        }
    }

    pub(super) fn digest(&self, place: usize) -> &Digest {
        &self.0[place].digest
    }

    /// The value, if it has arrived.
    pub(super) fn value(&self, place: usize) -> Option<&Value> {
        self.0[place].value.as_ref()
    }

    /// Whether the records at two places are known to have the same bytes, whatever their tags.
    pub(super) fn are_same_value(&self, one: usize, other: usize) -> bool {
        let value = self.value(one);
        value.is_some() && value == self.value(other)
    }

    /// The content of the record, if its value has arrived.
    pub(super) fn content(&self, place: usize) -> Option<Content> {
        let SeenRecord { digest, value, .. } = &self.0[place];
        Some(Content::Value {
            content_type: digest.content_type.clone(),
            value: value.clone()?,
        })
    }

    /// Whether the value is being fetched, or there is a holder left to fetch it from that may well
    /// have it.
    pub(super) fn can_be_fetched(&self, place: usize, tally: &Tally<ReadResponse>) -> bool {
        let sources = &self.0[place].sources;
        sources.is_being_fetched() || sources.is_any_likely(holders(place, tally))
    }

    /// Begins to fetch the value from one of its holders; none while it is being fetched, or if all of
    /// them failed to give it.
    pub(super) fn begin_fetch(
        &mut self,
        place: usize,
        tally: &Tally<ReadResponse>,
    ) -> Option<FetchStart> {
        let SeenRecord {
            digest, sources, ..
        } = &mut self.0[place];
        sources.begin(holders(place, tally), digest)
    }

    /// A value has arrived; false if it was not being fetched.
    pub(super) fn handle_fetched(&mut self, digest: &Digest, value: Value) -> bool {
        let Some(seen) = self.being_fetched(digest) else {
            return false;
        };
        seen.sources.handle_fetched();
        seen.value = Some(value);
        true
    }

    /// `server` did not give a value; false if it was not being fetched from there.
    pub(super) fn handle_fetch_failed(
        &mut self,
        digest: &Digest,
        server: ServerId,
        failure: FetchFailure,
    ) -> bool {
        let seen = self.being_fetched(digest);
        seen.is_some_and(|seen| seen.sources.handle_failed(server, failure))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn being_fetched(&mut self, digest: &Digest) -> Option<&mut SeenRecord> {
        let mut records = self.0.iter_mut();
        records
            .find(|seen| seen.digest.names_same_record(digest) && seen.sources.is_being_fetched())
    }
}

/// The replicas that reported the record at a place, in preference order.
fn holders(place: usize, tally: &Tally<ReadResponse>) -> impl Iterator<Item = ServerId> {
    let holders = tally.replicas().iter().filter(move |replica| {
        matches!(replica.state, ReplicaState::Responded(ReadResponse::Holds(held, _)) if held == place)
    });
    holders.map(|replica| replica.server)
}

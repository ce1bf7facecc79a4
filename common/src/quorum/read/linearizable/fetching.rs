//! The records that replicas reported, and the long values that have to be fetched from one of
//! their holders.

use crate::cluster::ServerId;
use crate::kv::Value;
use crate::quorum::read::response::ReadResponse;
use crate::quorum::tally::{ReplicaState, Tally};
use crate::record::{Content, Digest};

/// The distinct records with values that were reported, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct SeenRecords(Vec<SeenRecord>);

#[derive(Debug)]
struct SeenRecord {
    digest: Digest,
    value: Option<Value>,
    /// The replica that the value is being fetched from.
    fetched_from: Option<ServerId>,
    /// The replicas that did not give it.
    failed: Vec<ServerId>,
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
                fetched_from: None,
                failed: Vec::new(),
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

    /// Whether the value is being fetched, or there is a holder left to fetch it from.
    pub(super) fn can_be_fetched(&self, place: usize, tally: &Tally<ReadResponse>) -> bool {
        self.0[place].fetched_from.is_some() || self.next_holder(place, tally).is_some()
    }

    /// Begins to fetch the value, from the first holder that has not failed to give it; none while
    /// it is being fetched.
    pub(super) fn begin_fetch(
        &mut self,
        place: usize,
        tally: &Tally<ReadResponse>,
    ) -> Option<(ServerId, Digest)> {
        let from = self.next_holder(place, tally)?;
        let seen = &mut self.0[place];
        if seen.fetched_from.is_some() {
            return None;
        }
        seen.fetched_from = Some(from);
        Some((from, seen.digest.clone()))
    }

    /// A value has arrived; false if it was not being fetched.
    pub(super) fn handle_fetched(&mut self, digest: &Digest, value: Value) -> bool {
        let Some(seen) = self.being_fetched(digest) else {
            return false;
        };
        seen.fetched_from = None;
        seen.value = Some(value);
        true
    }

    /// `server` did not give a value; false if it was not being fetched from there.
    pub(super) fn handle_fetch_failed(&mut self, digest: &Digest, server: ServerId) -> bool {
        let seen = self.being_fetched(digest);
        let Some(seen) = seen.filter(|seen| seen.fetched_from == Some(server)) else {
            return false;
        };
        seen.fetched_from = None;
        seen.failed.push(server);
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn next_holder(&self, place: usize, tally: &Tally<ReadResponse>) -> Option<ServerId> {
        let failed = &self.0[place].failed;
        let holder = tally.replicas().iter().find(|replica| {
            matches!(replica.state, ReplicaState::Responded(ReadResponse::Holds(held, _)) if held == place)
                && !failed.contains(&replica.server)
        });
        holder.map(|replica| replica.server)
    }

    fn being_fetched(&mut self, digest: &Digest) -> Option<&mut SeenRecord> {
        let mut records = self.0.iter_mut();
        records.find(|seen| seen.digest.names_same_record(digest) && seen.fetched_from.is_some())
    }
}

//! Puts of records that are in the table as a whole.

use std::borrow::Borrow;

use dkvs_common::kv::Key;
use dkvs_common::record::{Attributes, Content, Record};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use super::cost::overhead_bytes;
use super::records::RecordTable;
use super::shard::{Entry, place};
use crate::store::contract::{Full, GivenBy, PutOutcome, resolve};
use crate::store::head::TableEntry;
use crate::store::packed::PackedRecord;

impl RecordTable<PackedRecord> {
    /// Stores a record that a client gives.
    #[cfg(test)]
    pub(in crate::store) fn apply(&self, key: &Key, record: &Record) -> Result<PutOutcome, Full> {
        self.apply_given(key, record, GivenBy::Client)
    }

    /// Stores a record, unless one with the same or a greater tag is there. One that is no
    /// longer than the record it replaces always fits.
    pub(in crate::store) fn apply_given(
        &self,
        key: &Key,
        record: &Record,
        given_by: GivenBy,
    ) -> Result<PutOutcome, Full> {
        let newer = |held: Option<&PackedRecord>| {
            let resolved = held.and_then(|held| {
                resolve(
                    held.version(),
                    || held.is_sound(),
                    record.version(),
                    given_by,
                )
            });
            resolved.map_or(Ok(record), Err)
        };
        let replaced = self.replace(key, (&record.attributes, &record.content), newer)?;
        Ok(replaced.err().unwrap_or(PutOutcome::Stored))
    }

    /// Stores `content` under a tag that `mint` makes greater than the one it is given: that of
    /// the record that is there, or [`Tag::ZERO`]. Returns the error of `mint` if that fails.
    pub(in crate::store) fn apply_next<E>(
        &self,
        key: &Key,
        content: &Content,
        mint: impl FnOnce(Tag) -> Result<Tag, E>,
    ) -> Result<Result<(), E>, Full> {
        let record = |held: Option<&PackedRecord>| {
            let tag = mint(held.map_or(Tag::ZERO, TableEntry::tag))?;
            Ok(Record::new(key, tag, content.clone()))
        };
        self.replace(key, (&Attributes::NONE, content), record)
    }

    /// Puts what `record` makes of the record that is there, if one is, in its place, if it makes
    /// anything: something with these attributes and this content.
    fn replace<R: Borrow<Record>, E>(
        &self,
        key: &Key,
        (attributes, content): (&Attributes, &Content),
        record: impl FnOnce(Option<&PackedRecord>) -> Result<R, E>,
    ) -> Result<Result<(), E>, Full> {
        let place = place(Position::of_key(key), key.as_bytes());
        let mut shard = self.shard(place.position);
        let bytes = PackedRecord::bytes_of(key, attributes, content);
        match shard.entry(place) {
            Entry::Occupied(held) => {
                let record = match record(Some(held)) {
                    Ok(record) => record,
                    Err(error) => return Ok(Err(error)),
                };
                let held_bytes = held.bytes();
                if bytes > held_bytes {
                    self.take_room(bytes - held_bytes)?;
                } else {
                    self.give_back(held_bytes - bytes);
                }
                let packed = PackedRecord::new(key, record.borrow());
                self.note_change(place, Some(held), Some(&packed));
                *held = packed;
            }
            Entry::Vacant(vacancy) => {
                let record = match record(None) {
                    Ok(record) => record,
                    Err(error) => return Ok(Err(error)),
                };
                self.take_room(bytes + overhead_bytes(place.key.len()))?;
                let packed = PackedRecord::new(key, record.borrow());
                self.note_change(place, None, Some(&packed));
                vacancy.insert(packed);
                self.key_order().insert(place.key);
                self.count_record();
            }
        }
        Ok(Ok(()))
    }
}

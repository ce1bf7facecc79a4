//! Reads records, from any number of threads at once.

use std::sync::Arc;

use crate::errors::ReadError;
use crate::files::Files;
use crate::format::{Location, RECORD_HEAD_BYTES, RecordHead, Seed};
use crate::medium::MediumFile;

/// Reads records where they lie. Copies of it read the same log, while that goes on.
#[derive(Debug, Clone)]
pub struct Reader(pub(crate) Arc<Files>);

/// A record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    bytes: Vec<u8>,
    key_end: usize,
    head_end: usize,
}

impl Record {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.bytes[RECORD_HEAD_BYTES..self.key_end]
    }

    /// Its head.
    pub fn head(&self) -> &[u8] {
        &self.bytes[self.key_end..self.head_end]
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.head_end..]
    }

    /// All bytes of it, and how many of them come before the value.
    pub fn into_bytes(self) -> (Vec<u8>, usize) {
        (self.bytes, self.head_end)
    }
}

impl Reader {
    /// Reads a record and verifies it.
    pub fn read(&self, location: Location) -> Result<Record, ReadError> {
        let Location {
            segment,
            offset,
            bytes,
        } = location;
        let file = self.0.to_read(segment)?;
        let mut record = vec![0; bytes as usize];
        read(&*file, offset.into(), &mut record)?;
        let history = self.0.history;
        let seed = Seed { history, segment };
        let head = RecordHead::decode(&record, (seed, offset));
        let head = head.filter(|head| head.record_bytes() == bytes);
        let head = head.ok_or(ReadError::Damaged)?;
        let key_end = RECORD_HEAD_BYTES + usize::from(head.key_bytes);
        let head_end = RECORD_HEAD_BYTES + head.names_bytes() as usize;
        let is_sound = head.names(&record[RECORD_HEAD_BYTES..], seed).is_some()
            && head.is_value(&record[head_end..], seed);
        match is_sound {
            true => Ok(Record {
                sequence: head.sequence,
                bytes: record,
                key_end,
                head_end,
            }),
            false => Err(ReadError::Damaged),
        }
    }

    /// Reads a part of a value, which has `value_bytes` in all, from its byte `from` on. It is not
    /// verified: who has the whole value has to.
    pub fn read_part(
        &self,
        location: Location,
        value_bytes: u32,
        from: u32,
        out: &mut [u8],
    ) -> Result<(), ReadError> {
        let file = self.0.to_read(location.segment)?;
        let end = u64::from(from) + out.len() as u64;
        if value_bytes > location.bytes || end > value_bytes.into() {
            return Err(ReadError::Damaged);
        }
        let begin = u64::from(location.offset) + u64::from(location.bytes - value_bytes);
        read(&*file, begin + u64::from(from), out)
    }
}

fn read(file: &dyn MediumFile, offset: u64, out: &mut [u8]) -> Result<(), ReadError> {
    file.read_at(offset, out).map_err(ReadError::of)
}

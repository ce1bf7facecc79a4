//! The records of a data directory of format 1, to be read once: rows in redb, each a whole record.
//!
//! ```text
//!   a row     head checksum 4 | generation 4 | record
//!   a record  tag time 8 | tag op 8 | checksum 4 | kind 1 | type length 1 | key length 2 | type | key | value
//! ```
//!
//! Rows have numbers without gaps, from `first` to before `next`, and of a key that with the greatest
//! tag counts. If the store was incomplete, rows of an older generation are quarantined. The file
//! `witness` has the end of the last commit. All numbers are big-endian.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use dkvs_common::tag::Tag;
use dkvs_runtime::panics::contain;
use redb::{Builder, Database, ReadableDatabase as _, TableDefinition};
use thiserror::Error;

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");

/// What the engine may keep of the file in memory.
const CACHE_BYTES: usize = 8 << 20;

const RECORD_HEAD_BYTES: usize = 24;

/// The records cannot be read as what was written.
#[derive(Debug, Error)]
pub(super) enum OldError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the records are damaged: {0}")]
    Damaged(String),
}

/// What a store of format 1 knew of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldManifest {
    first: u64,
    next: u64,
    generation: u32,
    pub(super) is_complete: bool,
    pub(super) is_snapshot: bool,
    pub(super) unsynced_run: u64,
}

/// A record of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldRecord<'a> {
    pub(super) key: &'a [u8],
    pub(super) tag: Tag,
    pub(super) checksum: u32,
    pub(super) is_tombstone: bool,
    pub(super) is_quarantined: bool,
    pub(super) content_type: &'a [u8],
    /// It may be damaged.
    pub(super) value: &'a [u8],
}

/// A store of format 1.
pub(super) struct OldStore {
    /// None when it was dropped.
    database: Option<Database>,
    pub(super) manifest: OldManifest,
}

impl OldStore {
    /// Opens the records in a file; none if nothing was ever stored there.
    pub(super) fn open(records: &Path, witness: &Path) -> Result<Option<Self>, OldError> {
        if fs::metadata(records)?.len() == 0 {
            return Ok(None);
        }
        let database = guarded(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES);
            builder.open(records).map_err(from_engine)
        })?;
        // The engine may panic when it is closed, too.
        let mut old = Self {
            database: Some(database),
            manifest: OldManifest {
                first: 0,
                next: 0,
                generation: 0,
                is_complete: false,
                is_snapshot: false,
                unsynced_run: 0,
            },
        };
        let Some(manifest) = guarded(|| old.read_manifest())? else {
            return Ok(None);
        };
        old.manifest = manifest;
        let confirmed = confirmed(witness);
        if confirmed > manifest.next {
            let lost = confirmed - manifest.next;
            return Err(damaged(format!("the last {lost} rows are missing")));
        }
        Ok(Some(old))
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> u64 {
        self.manifest.next - self.manifest.first
    }

    /// Shows the newest record of each key, with how many rows were looked at by then.
    pub(super) fn for_each_record<E: From<OldError>>(
        &self,
        mut show: impl FnMut(OldRecord<'_>, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut newest: HashMap<Box<[u8]>, (Tag, u64)> = HashMap::new();
        self.for_each_row(|number, record| {
            let held = newest.get(record.key);
            if held.is_none_or(|(tag, _)| record.tag >= *tag) {
                newest.insert(record.key.into(), (record.tag, number));
            }
            Ok::<(), OldError>(())
        })?;
        self.for_each_row(|number, record| {
            let is_newest = newest.get(record.key).is_some_and(|(_, it)| *it == number);
            match is_newest {
                true => show(record, number - self.manifest.first),
                false => Ok(()),
            }
        })
    }

    fn for_each_row<E: From<OldError>>(
        &self,
        mut show: impl FnMut(u64, OldRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next = self.manifest.first;
        while next < self.manifest.next {
            // The engine is called alone, and what it returned is shown afterwards.
            let page = guarded(|| self.page(next))?;
            if page.is_empty() {
                return Err(damaged(format!("row {next} is missing")).into());
            }
            for (number, row) in page {
                if number != next {
                    return Err(damaged(format!("row {next} is missing")).into());
                }
                let record = self.decode(&row);
                let record = record
                    .ok_or_else(|| damaged(format!("row {number}: a record's head is damaged")))?;
                show(number, record)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// Rows from a number on.
    fn page(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, OldError> {
        const ROWS_MAX: usize = 1_024;
        const BYTES_MAX: usize = 4 << 20;
        let reading = self.database().begin_read().map_err(from_engine)?;
        let rows = reading.open_table(ROWS).map_err(from_engine)?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        for row in rows.range(from..self.manifest.next).map_err(from_engine)? {
            let (number, row) = row.map_err(from_engine)?;
            bytes += row.value().len();
            page.push((number.value(), row.value().to_vec()));
            if page.len() == ROWS_MAX || bytes >= BYTES_MAX {
                break;
            }
        }
        Ok(page)
    }

    fn decode<'a>(&self, row: &'a [u8]) -> Option<OldRecord<'a>> {
        let (sum, rest) = row.split_first_chunk::<4>()?;
        let (generation, record) = rest.split_first_chunk::<4>()?;
        let head = record.get(..RECORD_HEAD_BYTES)?;
        let type_bytes = usize::from(head[21]);
        let key_bytes = usize::from(u16::from_be_bytes([head[22], head[23]]));
        let key_start = RECORD_HEAD_BYTES + type_bytes;
        let value_start = key_start + key_bytes;
        let value = record.get(value_start..)?;
        let ours = crc32c::crc32c(generation);
        let ours = crc32c::crc32c_append(ours, &(value.len() as u64).to_be_bytes());
        let ours = crc32c::crc32c_append(ours, &record[..value_start]);
        let number = |at: usize| Some(u64::from_be_bytes(head[at..at + 8].try_into().ok()?));
        let is_known = ours == u32::from_be_bytes(*sum) && head[20] <= 1 && key_bytes > 0;
        let generation = u32::from_be_bytes(*generation);
        is_known.then_some(OldRecord {
            key: &record[key_start..value_start],
            tag: Tag {
                time: number(0)?,
                op: number(8)?,
            },
            checksum: u32::from_be_bytes(head[16..20].try_into().ok()?),
            is_tombstone: head[20] == 1,
            is_quarantined: !self.manifest.is_complete && generation < self.manifest.generation,
            content_type: &record[RECORD_HEAD_BYTES..key_start],
            value,
        })
    }

    fn read_manifest(&self) -> Result<Option<OldManifest>, OldError> {
        let reading = self.database().begin_read().map_err(from_engine)?;
        let facts = match reading.open_table(FACTS) {
            Ok(facts) => facts,
            Err(redb::TableError::TableDoesNotExist(_)) => {
                let mut tables = reading.list_tables().map_err(from_engine)?;
                return match tables.next() {
                    None => Ok(None),
                    Some(_) => Err(damaged("they do not say what they are")),
                };
            }
            Err(error) => return Err(from_engine(error)),
        };
        let fact = |name: &str| -> Result<u64, OldError> {
            let value = facts.get(name).map_err(from_engine)?;
            let value = value.ok_or_else(|| damaged(format!("they do not say their {name}")))?;
            Ok(value.value())
        };
        let (first, next) = (fact("first")?, fact("next")?);
        let generation = u32::try_from(fact("generation")?);
        let generation = generation.map_err(|_| damaged("there is no such generation"))?;
        if first > next {
            return Err(damaged("they end before they begin"));
        }
        Ok(Some(OldManifest {
            first,
            next,
            generation,
            is_complete: fact("is_complete")? != 0,
            is_snapshot: fact("is_snapshot")? != 0,
            unsynced_run: fact("unsynced_run")?,
        }))
    }

    fn database(&self) -> &Database {
        self.database
            .as_ref()
            .expect("it is there until it is dropped")
    }
}

impl Drop for OldStore {
    fn drop(&mut self) {
        let database = self.database.take();
        // What was read is read; how the engine ends is of no interest.
        let _ = contain(|| drop(database));
    }
}

/// The end of a commit that was confirmed, by the file that has it; 0 if that says nothing.
fn confirmed(witness: &Path) -> u64 {
    let mark = fs::read(witness).unwrap_or_default();
    let Some((next, sum)) = mark.split_first_chunk::<8>() else {
        return 0;
    };
    match sum.first_chunk() == Some(&crc32c::crc32c(next).to_be_bytes()) {
        true => u64::from_be_bytes(*next),
        false => 0,
    }
}

/// Calls `read` and returns a panic of the engine as damage: some damage makes it panic rather than
/// return an error.
fn guarded<R>(read: impl FnOnce() -> Result<R, OldError>) -> Result<R, OldError> {
    let panicked = |_| Err(damaged("the engine cannot make sense of them"));
    contain(read).unwrap_or_else(panicked)
}

fn damaged(reason: impl Into<String>) -> OldError {
    OldError::Damaged(reason.into())
}

fn from_engine(error: impl Into<redb::Error>) -> OldError {
    match error.into() {
        // What is there is no log, or not all of one.
        redb::Error::Io(error)
            if ![io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof]
                .contains(&error.kind()) =>
        {
            OldError::Io(error)
        }
        error => damaged(error.to_string()),
    }
}

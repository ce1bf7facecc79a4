//! The log: rows under growing numbers in an engine (redb), which makes each commit whole or
//! nothing. Records are appended; what a newer one has made useless is cleaned from the other end.
//!
//! ```text
//!   rows     | first | ... | next - 1 |          no number between them is missing
//!              ^                ^
//!              cleaned          appended
//! ```
//!
//! With each commit the log also says where it begins and ends, so no row can vanish unseen. A
//! commit that the engine has to give up as damaged when it opens would take its own words along:
//! against that a witness, a small file beside the engine, knows the end of the last commit. It is
//! not synced. So one thing goes unnoticed: bits of the last commit that flip just when power
//! fails look like a commit that was cut short.
//!
//! Cleaning goes along with appending: while the rows take more than they may, each commit also
//! looks at twice as many of the oldest, drops the dead, and appends the living anew (Rosenblum
//! and Ousterhout 1992). So no commit is much longer than others.

use std::io;
use std::sync::Arc;

use redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition};
use thiserror::Error;

use super::medium::{Backend, Medium};
use super::row::Row;
use dkvs_runtime::panics::contain;

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");

/// What the engine may keep of the file in memory; records are in memory anyway.
const CACHE_BYTES: usize = 8 << 20;

/// How many bytes of old rows a commit looks at, at the least, when the log is to be cleaned.
const CLEAN_STEP_BYTES: u64 = 64 << 10;

/// What a store knows of itself beside its records, as numbers by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The first row.
    pub(super) first: u64,
    /// The row that is to come.
    pub(super) next: u64,
    /// How often the store had to be taken for one that lacks records. See [`super::DiskStore`].
    pub(super) generation: u32,
    /// Whether the store is vouched for as a whole.
    pub(super) is_complete: bool,
    /// Whether it is a copy of the past, which its server has left behind.
    pub(super) is_snapshot: bool,
    /// The run of the machine in which records were confirmed without a sync; 0 if in none.
    pub(super) unsynced_run: u64,
}

/// The log cannot be read as what was written.
#[derive(Debug, Error)]
pub(super) enum LogError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
}

/// A commit did not succeed; what was to be appended may be there after the next start, or not.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CommitError(String, #[source] Option<io::Error>);

impl CommitError {
    /// The disk had failed before.
    pub(super) fn closed() -> Self {
        Self("the disk has failed before".into(), None)
    }

    /// Damage made the engine panic.
    fn engine_panicked() -> Self {
        Self("the engine panicked".into(), None)
    }

    /// The thread that was to write is gone.
    pub(super) fn panicked() -> Self {
        Self("the storage thread panicked".into(), None)
    }

    /// Whether it failed for want of room on the disk.
    pub fn is_full(&self) -> bool {
        self.1.as_ref().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
    }
}

/// What cleaning needs to know of an old row.
pub(super) enum Fate {
    /// Something newer has taken its place.
    Dead,
    /// It is what the store holds: to be appended anew, as this row.
    Alive(Vec<u8>),
}

/// The log of a store.
pub(super) struct Log {
    engine: Engine,
    witness: Arc<dyn Medium>,
    is_new: bool,
    facts: Facts,
    /// What the rows take, in bytes, the engine's own overhead aside.
    bytes: u64,
}

impl Log {
    /// Opens the log, or begins one where the medium is empty.
    ///
    /// # Errors
    ///
    /// If it is not what was written, as far as that can be told without its rows.
    pub(super) fn open(
        records: &Arc<dyn Medium>,
        witness: &Arc<dyn Medium>,
    ) -> Result<Self, LogError> {
        let (records, witness) = (Arc::clone(records), Arc::clone(witness));
        guarded(|| {
            let engine = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Backend(records))
                .map_err(of_engine)?;
            let facts = facts_of(&engine)?;
            let log = Self {
                is_new: facts.is_none(),
                facts: facts.unwrap_or_default(),
                engine: Engine(Some(engine)),
                witness,
                bytes: 0,
            };
            let confirmed = log.confirmed()?;
            if confirmed > log.facts.next {
                let lost = confirmed - log.facts.next;
                return Err(damaged(format!("the last {lost} rows are missing")));
            }
            Ok(log)
        })
    }

    /// Shows its rows, in order.
    ///
    /// # Errors
    ///
    /// If anything is missing, or not what was written, but for what [`Row`] can tell.
    pub(super) fn load(&mut self, show: &mut dyn FnMut(Row)) -> Result<(), LogError> {
        self.bytes = guarded(|| self.read_rows(show))?;
        Ok(())
    }

    /// Whether nothing was ever committed.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What the store knows of itself.
    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// What the rows take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_rows(&self, show: &mut dyn FnMut(Row)) -> Result<u64, LogError> {
        let (mut expected, mut bytes) = (self.facts.first, 0);
        if expected == self.facts.next {
            return Ok(0);
        }
        let reading = self.engine.database().begin_read().map_err(of_engine)?;
        let rows = reading.open_table(ROWS).map_err(of_engine)?;
        for row in rows.range(expected..).map_err(of_engine)? {
            let (number, row) = row.map_err(of_engine)?;
            if number.value() != expected {
                break;
            }
            let decoded = Row::decode(row.value());
            show(decoded.map_err(|error| damaged(format!("row {expected}: {error}")))?);
            bytes += row.value().len() as u64;
            expected += 1;
        }
        if expected != self.facts.next {
            return Err(damaged(format!("row {expected} is missing")));
        }
        Ok(bytes)
    }

    /// Appends rows, and cleans one step if the rows come to more than `limit` bytes. Returns once
    /// a crash takes nothing of it back.
    pub(super) fn commit(
        &mut self,
        rows: &[Vec<u8>],
        limit: u64,
        fate: &mut dyn FnMut(Row) -> Fate,
    ) -> Result<(), CommitError> {
        let facts = self.facts;
        let appended = rows.iter().map(|row| row.len() as u64).sum::<u64>();
        let step = match self.bytes + appended > limit {
            true => CLEAN_STEP_BYTES.max(2 * appended),
            false => 0,
        };
        self.change(|rows_table, facts, bytes| {
            for row in rows {
                rows_table.insert(facts.next, row.as_slice())?;
                facts.next += 1;
                *bytes += row.len() as u64;
            }
            let mut looked_at = 0;
            // What is appended now is not looked at now.
            let end = facts.next;
            while looked_at < step && facts.first < end && *bytes > limit {
                let Some((_, row)) = rows_table.pop_first()? else {
                    break;
                };
                facts.first += 1;
                let old = row.value();
                looked_at += old.len() as u64;
                *bytes -= old.len() as u64;
                // A row whose head is damaged was seen when the log was opened, or is dead.
                let alive = match Row::decode(old).map(&mut *fate) {
                    Ok(Fate::Alive(moved)) => moved,
                    Ok(Fate::Dead) | Err(_) => continue,
                };
                drop(row);
                *bytes += alive.len() as u64;
                rows_table.insert(facts.next, alive.as_slice())?;
                facts.next += 1;
            }
            Ok(())
        })?;
        if self.facts != facts {
            self.testify();
        }
        Ok(())
    }

    /// Cleans one step further; whether there was anything to do.
    pub(super) fn clean(
        &mut self,
        limit: u64,
        fate: &mut dyn FnMut(Row) -> Fate,
    ) -> Result<bool, CommitError> {
        if self.bytes <= limit {
            return Ok(false);
        }
        self.commit(&[], limit, fate)?;
        Ok(true)
    }

    /// Puts down what the store knows of itself.
    pub(super) fn state(&mut self, change: impl FnOnce(&mut Facts)) -> Result<(), CommitError> {
        self.change(|_, facts, _| {
            change(facts);
            Ok(())
        })
    }

    /// One transaction. Facts and bytes change with it, or not at all.
    fn change(
        &mut self,
        change: impl FnOnce(&mut RowsTable<'_>, &mut Facts, &mut u64) -> Result<(), redb::StorageError>,
    ) -> Result<(), CommitError> {
        let (mut facts, mut bytes) = (self.facts, self.bytes);
        let changed = || -> Result<(), redb::Error> {
            let mut writing = self.engine.database().begin_write()?;
            writing.set_durability(Durability::Immediate)?;
            {
                let mut rows = writing.open_table(ROWS)?;
                change(&mut rows, &mut facts, &mut bytes)?;
                let mut table = writing.open_table(FACTS)?;
                for (name, value) in facts.by_name() {
                    table.insert(name, value)?;
                }
            }
            Ok(writing.commit()?)
        };
        match contain(changed) {
            Ok(Ok(())) => {
                (self.facts, self.bytes) = (facts, bytes);
                self.is_new = false;
                Ok(())
            }
            Ok(Err(error)) => Err(of_commit(error)),
            Err(_) => Err(CommitError::engine_panicked()),
        }
    }

    /// Leaves the end of the last commit with the witness. It need not be synced: it is only ever
    /// too modest. If it cannot be written, it knows less.
    fn testify(&self) {
        let next = self.facts.next.to_be_bytes();
        let sum = crc32c::crc32c(&next).to_be_bytes();
        let word = [&next[..], &sum].concat();
        if let Err(error) = self.witness.write(0, &word) {
            tracing::debug!(%error, "the witness of the log cannot be written");
        }
    }

    /// The end of a commit that was confirmed, as far as the witness knows.
    fn confirmed(&self) -> Result<u64, LogError> {
        let mut word = [0; 12];
        if self.witness.len()? < word.len() as u64 {
            return Ok(0);
        }
        self.witness.read(0, &mut word)?;
        let (next, sum) = word.split_at(8);
        let is_sound = crc32c::crc32c(next).to_be_bytes() == sum;
        let next = u64::from_be_bytes(next.try_into().expect("eight bytes"));
        Ok(if is_sound { next } else { 0 })
    }

    /// Copies the log to other media, as it is now. The copy knows that it is one.
    pub(super) fn snapshot(&self) -> Result<Snapshot, CommitError> {
        let reading = contain(|| self.engine.database().begin_read());
        let reading = reading.map_err(|_| CommitError::engine_panicked())?;
        let reading = reading.map_err(of_commit)?;
        Ok(Snapshot {
            reading,
            facts: self.facts,
        })
    }
}

/// The engine, which is closed when the value is dropped.
struct Engine(Option<Database>);

impl Engine {
    fn database(&self) -> &Database {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let engine = self.0.take();
        // Damage may make it panic here as well.
        if contain(|| drop(engine)).is_err() {
            tracing::error!("the log could not be closed in good order");
        }
    }
}

/// A log as it was at one moment, to be copied while the log goes on.
pub struct Snapshot {
    reading: redb::ReadTransaction,
    facts: Facts,
}

/// How many bytes of rows are copied with one commit.
const COPY_BYTES: usize = 4 << 20;

impl Snapshot {
    /// Writes the log to an empty medium. Returns how many rows it has.
    pub fn copy_to(&self, records: Arc<dyn Medium>) -> Result<u64, CommitError> {
        let copy = || -> Result<(), redb::Error> {
            let engine = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Backend(records))?;
            let mut next = self.facts.first;
            while next < self.facts.next {
                let writing = engine.begin_write()?;
                {
                    let from = self.reading.open_table(ROWS)?;
                    let mut to = writing.open_table(ROWS)?;
                    let mut copied = 0;
                    for row in from.range(next..)? {
                        let (number, row) = row?;
                        to.insert(number.value(), row.value())?;
                        next = number.value() + 1;
                        copied += row.value().len();
                        if copied >= COPY_BYTES {
                            break;
                        }
                    }
                }
                writing.commit()?;
            }
            let writing = engine.begin_write()?;
            {
                writing.open_table(ROWS)?;
                let mut facts = writing.open_table(FACTS)?;
                let copied = Facts {
                    is_snapshot: true,
                    ..self.facts
                };
                for (name, value) in copied.by_name() {
                    facts.insert(name, value)?;
                }
            }
            Ok(writing.commit()?)
        };
        match contain(copy) {
            Ok(copied) => copied.map_err(of_commit)?,
            Err(_) => return Err(CommitError::engine_panicked()),
        }
        Ok(self.facts.next - self.facts.first)
    }
}

type RowsTable<'txn> = redb::Table<'txn, u64, &'static [u8]>;

impl Facts {
    fn by_name(&self) -> [(&'static str, u64); 6] {
        [
            ("first", self.first),
            ("next", self.next),
            ("generation", self.generation.into()),
            ("is_complete", self.is_complete.into()),
            ("is_snapshot", self.is_snapshot.into()),
            ("unsynced_run", self.unsynced_run),
        ]
    }
}

/// Some damage makes the engine panic rather than say so.
fn guarded<R>(read: impl FnOnce() -> Result<R, LogError>) -> Result<R, LogError> {
    let panicked = |_| Err(damaged("the engine cannot make sense of them"));
    contain(read).unwrap_or_else(panicked)
}

fn facts_of(engine: &Database) -> Result<Option<Facts>, LogError> {
    let reading = engine.begin_read().map_err(of_engine)?;
    let table = match reading.open_table(FACTS) {
        Ok(table) => table,
        // Nothing was ever committed.
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let mut tables = reading.list_tables().map_err(of_engine)?;
            return match tables.next() {
                None => Ok(None),
                Some(_) => Err(damaged("it does not say what it holds")),
            };
        }
        Err(error) => return Err(of_engine(error)),
    };
    let fact = |name: &str| -> Result<u64, LogError> {
        let value = table.get(name).map_err(of_engine)?;
        let value = value.ok_or_else(|| damaged(format!("it does not say its {name}")))?;
        Ok(value.value())
    };
    let generation = fact("generation")?;
    Ok(Some(Facts {
        first: fact("first")?,
        next: fact("next")?,
        generation: u32::try_from(generation)
            .map_err(|_| damaged(format!("there is no generation {generation}")))?,
        is_complete: fact("is_complete")? != 0,
        is_snapshot: fact("is_snapshot")? != 0,
        unsynced_run: fact("unsynced_run")?,
    }))
}

fn damaged(reason: impl Into<String>) -> LogError {
    LogError::Damaged(reason.into())
}

fn of_engine(error: impl Into<redb::Error>) -> LogError {
    match error.into() {
        // What is there is no log, or not all of one.
        redb::Error::Io(error)
            if ![io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof]
                .contains(&error.kind()) =>
        {
            LogError::Io(error)
        }
        error => LogError::Damaged(error.to_string()),
    }
}

fn of_commit(error: impl Into<redb::Error>) -> CommitError {
    let error = error.into();
    let told = error.to_string();
    match error {
        redb::Error::Io(error) => CommitError(told, Some(error)),
        _ => CommitError(told, None),
    }
}

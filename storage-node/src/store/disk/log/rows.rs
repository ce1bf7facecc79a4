//! The rows of the log: appended, compacted, removed, and read when a store is opened.

use std::sync::Arc;

use dkvs_runtime::panics::contain;
use redb::{Durability, ReadableDatabase, ReadableTable};

use super::engine::{self, Engine, ROWS};
use super::errors::{CommitError, LogError, commit_error, damaged, from_engine, guarded};
use super::manifest::{self, MANIFEST, Manifest};
use super::snapshot::Snapshot;
use crate::store::disk::medium::Medium;
use crate::store::disk::row::Row;

/// How many bytes of old rows a commit looks at, at the least, when the log is to be compacted.
const COMPACT_STEP_BYTES: u64 = 64 << 10;

/// What an old row is to the store.
pub(in crate::store::disk) enum Liveness {
    /// Something newer has taken its place.
    Dead,
    /// It is what the store holds: to be written anew, as this row.
    Live(Vec<u8>),
}

type RowsTable<'txn> = redb::Table<'txn, u64, &'static [u8]>;

/// The log of a store.
pub(in crate::store::disk) struct Log {
    engine: Engine,
    high_water: Arc<dyn Medium>,
    is_new: bool,
    manifest: Manifest,
    /// What the rows take, in bytes, the engine's own overhead aside.
    bytes: u64,
}

impl Log {
    /// Opens the log, or begins one where the medium is empty.
    ///
    /// # Errors
    ///
    /// If it is not what was written, as far as that is known without its rows.
    pub(in crate::store::disk) fn open(
        records: &Arc<dyn Medium>,
        high_water: &Arc<dyn Medium>,
    ) -> Result<Self, LogError> {
        let (records, high_water) = (Arc::clone(records), Arc::clone(high_water));
        guarded(|| {
            let engine = engine::open(records).map_err(from_engine)?;
            let manifest = manifest::read(&engine)?;
            let log = Self {
                is_new: manifest.is_none(),
                manifest: manifest.unwrap_or_default(),
                engine: Engine::new(engine),
                high_water,
                bytes: 0,
            };
            let confirmed = log.confirmed()?;
            if confirmed > log.manifest.next {
                let lost = confirmed - log.manifest.next;
                return Err(damaged(format!("the last {lost} rows are missing")));
            }
            Ok(log)
        })
    }

    /// Shows its rows, in order.
    ///
    /// # Errors
    ///
    /// If anything is missing, or not what was written, but for values that a [`Row`] knows to be
    /// damaged.
    pub(in crate::store::disk) fn load(
        &mut self,
        show: &mut dyn FnMut(Row),
    ) -> Result<(), LogError> {
        self.bytes = guarded(|| self.read_rows(show))?;
        Ok(())
    }

    /// Whether nothing was ever committed.
    pub(in crate::store::disk) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What the store knows of itself beside its records.
    pub(in crate::store::disk) fn manifest(&self) -> Manifest {
        self.manifest
    }

    /// What the rows take, in bytes.
    pub(in crate::store::disk) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_rows(&self, show: &mut dyn FnMut(Row)) -> Result<u64, LogError> {
        let (mut expected, mut bytes) = (self.manifest.first, 0);
        if expected == self.manifest.next {
            return Ok(0);
        }
        let reading = self.engine.database().begin_read().map_err(from_engine)?;
        let rows = reading.open_table(ROWS).map_err(from_engine)?;
        for row in rows.range(expected..).map_err(from_engine)? {
            let (number, row) = row.map_err(from_engine)?;
            if number.value() != expected {
                break;
            }
            let decoded = Row::decode(row.value());
            show(decoded.map_err(|error| damaged(format!("row {expected}: {error}")))?);
            bytes += row.value().len() as u64;
            expected += 1;
        }
        if expected != self.manifest.next {
            return Err(damaged(format!("row {expected} is missing")));
        }
        Ok(bytes)
    }

    /// Appends rows, and compacts one step if the rows come to more than `limit` bytes. Returns
    /// once a crash takes nothing of it back.
    pub(in crate::store::disk) fn commit(
        &mut self,
        rows: &[Vec<u8>],
        limit: u64,
        liveness: &mut dyn FnMut(Row) -> Liveness,
    ) -> Result<(), CommitError> {
        let before = self.manifest;
        let appended = rows.iter().map(|row| row.len() as u64).sum::<u64>();
        let step = match self.bytes + appended > limit {
            true => COMPACT_STEP_BYTES.max(2 * appended),
            false => 0,
        };
        self.change(|rows_table, manifest, bytes| {
            for row in rows {
                rows_table.insert(manifest.next, row.as_slice())?;
                manifest.next += 1;
                *bytes += row.len() as u64;
            }
            let mut looked_at = 0;
            // What is appended now is not looked at now.
            let end = manifest.next;
            while looked_at < step && manifest.first < end && *bytes > limit {
                let Some((_, row)) = rows_table.pop_first()? else {
                    break;
                };
                manifest.first += 1;
                let old = row.value();
                looked_at += old.len() as u64;
                *bytes -= old.len() as u64;
                // A row whose head is damaged was seen when the log was opened, or is dead.
                let live = match Row::decode(old).map(&mut *liveness) {
                    Ok(Liveness::Live(moved)) => moved,
                    Ok(Liveness::Dead) | Err(_) => continue,
                };
                drop(row);
                *bytes += live.len() as u64;
                rows_table.insert(manifest.next, live.as_slice())?;
                manifest.next += 1;
            }
            Ok(())
        })?;
        if self.manifest != before {
            self.write_high_water();
        }
        Ok(())
    }

    /// Compacts one step further; whether there was anything to do.
    pub(in crate::store::disk) fn compact(
        &mut self,
        limit: u64,
        liveness: &mut dyn FnMut(Row) -> Liveness,
    ) -> Result<bool, CommitError> {
        if self.bytes <= limit {
            return Ok(false);
        }
        self.commit(&[], limit, liveness)?;
        Ok(true)
    }

    /// Drops every row of the keys that `is_removed` names. Returns once a crash brings none of
    /// them back. Reads the whole log.
    pub(in crate::store::disk) fn remove(
        &mut self,
        is_removed: &dyn Fn(&[u8]) -> bool,
        liveness: &mut dyn FnMut(Row) -> Liveness,
    ) -> Result<(), CommitError> {
        let is_row_removed =
            |row: &[u8]| Row::decode(row).is_ok_and(|row| is_removed(row.packed.key()));
        self.change(|rows_table, manifest, bytes| {
            let mut holes = Vec::new();
            for row in rows_table.range(manifest.first..manifest.next)? {
                let (number, row) = row?;
                if is_row_removed(row.value()) {
                    holes.push(number.value());
                }
            }
            for hole in holes {
                // From the oldest on, until one is found that lives, or the hole itself is the
                // oldest.
                while manifest.first <= hole {
                    let number = manifest.first;
                    let Some((_, row)) = rows_table.pop_first()? else {
                        break;
                    };
                    manifest.first += 1;
                    let old = row.value();
                    *bytes -= old.len() as u64;
                    if number == hole || is_row_removed(old) {
                        continue;
                    }
                    let live = match Row::decode(old).map(&mut *liveness) {
                        Ok(Liveness::Live(moved)) => moved,
                        Ok(Liveness::Dead) | Err(_) => continue,
                    };
                    drop(row);
                    *bytes += live.len() as u64;
                    if let Some(removed) = rows_table.insert(hole, live.as_slice())? {
                        *bytes -= removed.value().len() as u64;
                    }
                    break;
                }
            }
            Ok(())
        })
    }

    /// Makes a change of the manifest durable.
    pub(in crate::store::disk) fn set_manifest(
        &mut self,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), CommitError> {
        self.change(|_, manifest, _| {
            change(manifest);
            Ok(())
        })
    }

    /// One transaction. Manifest and bytes change with it, or not at all.
    fn change(
        &mut self,
        change: impl FnOnce(
            &mut RowsTable<'_>,
            &mut Manifest,
            &mut u64,
        ) -> Result<(), redb::StorageError>,
    ) -> Result<(), CommitError> {
        let (mut manifest, mut bytes) = (self.manifest, self.bytes);
        let changed = || -> Result<(), redb::Error> {
            let mut writing = self.engine.database().begin_write()?;
            writing.set_durability(Durability::Immediate)?;
            {
                let mut rows = writing.open_table(ROWS)?;
                change(&mut rows, &mut manifest, &mut bytes)?;
                let mut table = writing.open_table(MANIFEST)?;
                for (name, value) in manifest.by_name() {
                    table.insert(name, value)?;
                }
            }
            Ok(writing.commit()?)
        };
        match contain(changed) {
            Ok(Ok(())) => {
                (self.manifest, self.bytes) = (manifest, bytes);
                self.is_new = false;
                Ok(())
            }
            Ok(Err(error)) => Err(commit_error(error)),
            Err(_) => Err(CommitError::engine_panicked()),
        }
    }

    /// Writes the end of the last commit to the high-water mark. It need not be synced: it may only
    /// be too low. If it cannot be written, it stays lower.
    fn write_high_water(&self) {
        let next = self.manifest.next.to_be_bytes();
        let sum = crc32c::crc32c(&next).to_be_bytes();
        let mark = [&next[..], &sum].concat();
        if let Err(error) = self.high_water.write(0, &mark) {
            tracing::debug!(%error, "the high-water mark of the log cannot be written");
        }
    }

    /// The end of a commit that was confirmed, by the high-water mark.
    fn confirmed(&self) -> Result<u64, LogError> {
        let mut mark = [0; 12];
        if self.high_water.len()? < mark.len() as u64 {
            return Ok(0);
        }
        self.high_water.read(0, &mut mark)?;
        let (next, sum) = mark.split_at(8);
        let is_sound = crc32c::crc32c(next).to_be_bytes() == sum;
        let next = u64::from_be_bytes(next.try_into().expect("eight bytes"));
        Ok(if is_sound { next } else { 0 })
    }

    /// The log as it is now, to be copied. The copy is marked as one.
    pub(in crate::store::disk) fn snapshot(&self) -> Result<Snapshot, CommitError> {
        let reading = contain(|| self.engine.database().begin_read());
        let reading = reading.map_err(|_| CommitError::engine_panicked())?;
        let reading = reading.map_err(commit_error)?;
        Ok(Snapshot {
            reading,
            manifest: self.manifest,
        })
    }
}

//! What a store knows of itself beside its records: a table of numbers by name.

use redb::{Database, ReadableDatabase, TableDefinition};

use super::errors::{LogError, damaged, from_engine};

pub(super) const MANIFEST: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");

/// What a store knows of itself beside its records, as numbers by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::disk) struct Manifest {
    /// The first row.
    pub(in crate::store::disk) first: u64,
    /// The row that is to come.
    pub(in crate::store::disk) next: u64,
    /// How often the store had to be taken for one that lacks records. See the
    /// [module](super::super).
    pub(in crate::store::disk) generation: u32,
    /// Whether the store holds all that its server confirmed.
    pub(in crate::store::disk) is_complete: bool,
    /// Whether it is a copy of the past, which its server has left behind.
    pub(in crate::store::disk) is_snapshot: bool,
    /// The run of the machine in which records were confirmed without a sync; 0 if in none.
    pub(in crate::store::disk) unsynced_run: u64,
}

impl Manifest {
    pub(super) fn by_name(&self) -> [(&'static str, u64); 6] {
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

/// The manifest, if anything was ever committed.
pub(super) fn read(engine: &Database) -> Result<Option<Manifest>, LogError> {
    let reading = engine.begin_read().map_err(from_engine)?;
    let table = match reading.open_table(MANIFEST) {
        Ok(table) => table,
        // Nothing was ever committed.
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let mut tables = reading.list_tables().map_err(from_engine)?;
            return match tables.next() {
                None => Ok(None),
                Some(_) => Err(damaged("it does not say what it holds")),
            };
        }
        Err(error) => return Err(from_engine(error)),
    };
    let entry = |name: &str| -> Result<u64, LogError> {
        let value = table.get(name).map_err(from_engine)?;
        let value = value.ok_or_else(|| damaged(format!("it does not say its {name}")))?;
        Ok(value.value())
    };
    let generation = entry("generation")?;
    Ok(Some(Manifest {
        first: entry("first")?,
        next: entry("next")?,
        generation: u32::try_from(generation)
            .map_err(|_| damaged(format!("there is no generation {generation}")))?,
        is_complete: entry("is_complete")? != 0,
        is_snapshot: entry("is_snapshot")? != 0,
        unsynced_run: entry("unsynced_run")?,
    }))
}

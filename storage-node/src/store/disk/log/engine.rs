//! The engine (redb) that makes each commit whole or nothing, and its table of rows.

use std::sync::Arc;

use dkvs_runtime::panics::contain;
use redb::{Builder, Database, DatabaseError, TableDefinition};

use crate::store::disk::medium::{Backend, Medium};

/// Rows by number.
pub(super) const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// What the engine may keep of the file in memory; records are in memory anyway.
const CACHE_BYTES: usize = 8 << 20;

/// The engine of a medium, which is created where the medium is empty.
pub(super) fn open(records: Arc<dyn Medium>) -> Result<Database, DatabaseError> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(Backend(records))
}

/// The engine, which is closed when the value is dropped.
pub(super) struct Engine(Option<Database>);

impl Engine {
    pub(super) fn new(database: Database) -> Self {
        Self(Some(database))
    }

    pub(super) fn database(&self) -> &Database {
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

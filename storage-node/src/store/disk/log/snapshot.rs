//! A copy of the log, made while the log goes on.

use std::sync::Arc;

use dkvs_runtime::panics::contain;

use super::engine::{self, ROWS};
use super::errors::{CommitError, commit_error};
use super::manifest::{MANIFEST, Manifest};
use crate::store::disk::medium::Medium;

/// A log as it was at one moment, to be copied while the log goes on.
pub struct Snapshot {
    pub(super) reading: redb::ReadTransaction,
    pub(super) manifest: Manifest,
}

/// How many bytes of rows are copied with one commit.
const COPY_BYTES: usize = 4 << 20;

impl Snapshot {
    /// Writes the log to an empty medium. Returns how many rows it has.
    pub fn copy_to(&self, records: Arc<dyn Medium>) -> Result<u64, CommitError> {
        let copy = || -> Result<(), redb::Error> {
            let engine = engine::open(records)?;
            let mut next = self.manifest.first;
            while next < self.manifest.next {
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
                let mut manifest = writing.open_table(MANIFEST)?;
                let copied = Manifest {
                    is_snapshot: true,
                    ..self.manifest
                };
                for (name, value) in copied.by_name() {
                    manifest.insert(name, value)?;
                }
            }
            Ok(writing.commit()?)
        };
        match contain(copy) {
            Ok(copied) => copied.map_err(commit_error)?,
            Err(_) => return Err(CommitError::engine_panicked()),
        }
        Ok(self.manifest.next - self.manifest.first)
    }
}

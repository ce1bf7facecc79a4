//! Opening a durable store: whether what lies on the disk may be served, and as what.

use std::sync::Arc;

use dkvs_common::model::Durability;
use thiserror::Error;

use super::committer::Committer;
use super::log::{CommitError, Log, LogError, Manifest};
use super::options::{Declaration, Media, OpenOptions};
use super::store::{DiskStore, load};
use crate::store::table::RecordTable;

/// Why a store is not opened. It has not changed, unless it could not be written.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It cannot be written.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// It is not what was written.
    #[error("the records are damaged: {0}")]
    Damaged(String),
    /// There is nothing in it, and nobody declared that this is right.
    #[error("there are no records, and nothing says whether there should be")]
    Empty,
    /// It is a backup.
    #[error("the records are a backup, and its server has gone on since it was made")]
    Backup,
    /// The machine went down under it.
    #[error(
        "the machine went down while the server confirmed records without syncing them, and the \
         last of them may be missing"
    )]
    Unsynced,
    /// Something is declared that is so already, or cannot be.
    #[error("{0}")]
    NothingToDeclare(&'static str),
}

impl DiskStore {
    /// Opens what lies in `media`, or begins it where that is declared.
    ///
    /// # Errors
    ///
    /// If it cannot be read, if it is not certain that it holds what its server confirmed, or if
    /// something is declared that does not fit it. Nothing has changed then.
    pub fn open(media: Media, options: OpenOptions) -> Result<(Arc<Self>, Committer), OpenError> {
        let mut log = Log::open(&media.records, &media.high_water)?;
        let manifest = declared(&log, options)?;
        let table = RecordTable::new(options.bytes_max);
        log.load(&mut |row| load(&table, manifest, row))?;
        if manifest != log.manifest() {
            log.set_manifest(|known| *known = manifest)?;
        }
        let store = Arc::new(Self::new(table, options.durability, manifest.is_complete));
        let committer = Committer::new(Arc::clone(&store), log, media);
        Ok((store, committer))
    }
}

/// The store's manifest from now on, if it may be opened.
fn declared(log: &Log, options: OpenOptions) -> Result<Manifest, OpenError> {
    let known = log.manifest();
    let is_unsynced = ![0, options.machine_run].contains(&known.unsynced_run);
    let incomplete = |generation: u32| Manifest {
        is_complete: false,
        generation: generation.saturating_add(1),
        ..known
    };
    let complete = Manifest {
        is_complete: true,
        ..known
    };
    let manifest = match options.declaration {
        None if log.is_new() => return Err(OpenError::Empty),
        None if known.is_snapshot => return Err(OpenError::Backup),
        None if is_unsynced => return Err(OpenError::Unsynced),
        None => known,
        Some(Declaration::New) if log.is_new() => complete,
        Some(Declaration::New) => {
            return Err(OpenError::NothingToDeclare(
                "the store is not new: it holds records",
            ));
        }
        Some(Declaration::Incomplete)
            if log.is_new()
                || known.is_complete
                || known.is_snapshot
                || is_unsynced
                || options.is_uncertain =>
        {
            incomplete(known.generation)
        }
        Some(Declaration::Incomplete) => {
            return Err(OpenError::NothingToDeclare(
                "the store is known to be incomplete",
            ));
        }
        Some(Declaration::Complete) if log.is_new() => {
            return Err(OpenError::NothingToDeclare(
                "the store holds nothing at all",
            ));
        }
        Some(Declaration::Complete)
            if known.is_complete && !known.is_snapshot && !is_unsynced && !options.is_uncertain =>
        {
            return Err(OpenError::NothingToDeclare(
                "the store is known to be complete",
            ));
        }
        Some(Declaration::Complete) => complete,
    };
    Ok(Manifest {
        is_snapshot: false,
        unsynced_run: match options.durability {
            Durability::Buffered => options.machine_run,
            Durability::Memory | Durability::Fsync => 0,
        },
        ..manifest
    })
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io(error) => Self::Io(error),
            LogError::Damaged(reason) => Self::Damaged(reason),
        }
    }
}

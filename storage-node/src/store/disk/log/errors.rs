//! What can go wrong with the log, and the engine's errors as such.

use std::io;

use dkvs_runtime::panics::contain;
use thiserror::Error;

/// The log cannot be read as what was written.
#[derive(Debug, Error)]
pub(in crate::store::disk) enum LogError {
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
    pub(in crate::store::disk) fn closed() -> Self {
        Self("the disk has failed before".into(), None)
    }

    /// Damage made the engine panic.
    pub(super) fn engine_panicked() -> Self {
        Self("the engine panicked".into(), None)
    }

    /// The thread that was to write is gone.
    pub(in crate::store::disk) fn panicked() -> Self {
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

/// Calls `read` and returns a panic of the engine as damage: some damage makes it panic rather than
/// return an error.
pub(super) fn guarded<R>(read: impl FnOnce() -> Result<R, LogError>) -> Result<R, LogError> {
    let panicked = |_| Err(damaged("the engine cannot make sense of them"));
    contain(read).unwrap_or_else(panicked)
}

pub(super) fn damaged(reason: impl Into<String>) -> LogError {
    LogError::Damaged(reason.into())
}

pub(super) fn from_engine(error: impl Into<redb::Error>) -> LogError {
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

pub(super) fn commit_error(error: impl Into<redb::Error>) -> CommitError {
    let error = error.into();
    let text = error.to_string();
    match error {
        redb::Error::Io(error) => CommitError(text, Some(error)),
        _ => CommitError(text, None),
    }
}

//! What can go wrong, and what of a log may be lost.

use std::io;

use thiserror::Error;

use crate::format::{FORMAT, HeadError, History};
use crate::medium::is_out_of_files;

/// A log is not opened. Nothing on the disk that was confirmed has changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no log to open.
    #[error("there is no log")]
    Empty,
    /// A log is to begin where there is one.
    #[error("there is a log already")]
    NotEmpty,
    /// A file is of another log.
    #[error("{file} belongs to the log {theirs}, and not to this one, which is {ours}")]
    Foreign {
        /// Which file.
        file: String,
        /// Whose it is.
        theirs: History,
        /// Whose it should be.
        ours: History,
    },
    /// A file was written by a newer version.
    #[error("{file} has the format {format}; this version knows those up to {FORMAT}")]
    Newer {
        /// Which file.
        file: String,
        /// Its format.
        format: u32,
    },
}

impl OpenError {
    /// Makes an error of what is known of a file's head, unless it is merely damaged.
    pub(crate) fn refuse(file: &str, ours: History, head: HeadError) -> Result<(), Self> {
        let file = file.to_owned();
        match head {
            HeadError::Damaged => Ok(()),
            HeadError::Newer(format) => Err(Self::Newer { file, format }),
            HeadError::Foreign(theirs) => Err(Self::Foreign { file, theirs, ours }),
        }
    }
}

/// Records are not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The disk has no room for them. Nothing has changed.
    #[error("the disk has no room")]
    Full,
    /// The process may open no more files, for now. Nothing has changed.
    #[error("no more files may be open: {0}")]
    OutOfFiles(io::Error),
    /// One of them is longer than any may be. Nothing has changed.
    #[error("a key, a head or a value is too long")]
    TooLong,
    /// The disk failed, now or earlier. What was to be appended may be there after the next start, or
    /// not, and this log takes nothing any more.
    #[error("the disk failed: {0}")]
    Failed(io::Error),
}

/// A record is not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The segment is gone: its live records have been moved, and their owner knows where to.
    #[error("the segment is gone")]
    Gone,
    /// What lies there is not the record that was written.
    #[error("the record is damaged")]
    Damaged,
    /// The process may open no more files, for now, or the log is closed. It says nothing of the record.
    #[error("no file can be opened: {0}")]
    OutOfFiles(io::Error),
    /// The disk refuses.
    #[error("{0}")]
    Io(io::Error),
}

impl ReadError {
    pub(crate) fn of(error: io::Error) -> Self {
        match error.kind() {
            // The file is shorter than it was, or gone.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Self::Damaged,
            _ if is_out_of_files(&error) => Self::OutOfFiles(error),
            _ => Self::Io(error),
        }
    }
}

/// Sequence numbers of records of which some are lost. Those of them that were shown when the log was
/// opened are as good as any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostRange {
    /// The first that is lost.
    pub first: u64,
    /// The last that may be.
    pub last: u64,
}

//! Why a data directory is not opened, and what an operator may do about it.

use std::io;

use thiserror::Error;

use super::identity::FORMAT;
use super::open::OpenError;
use super::ring_change::{REPLICATION, RingChange};

/// A data directory is not opened. Nothing in it has changed.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process; each server needs a directory of its own")]
    InUse {
        /// The directory.
        path: String,
    },
    /// The identity is no identity.
    #[error(
        "{path} does not say whose records these are ({reason}); if they are this server's, take \
         the file away and start it once with --declare incomplete"
    )]
    NoIdentity {
        /// The identity's file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a log, and no identity.
    #[error(
        "there is no {path} to say whose records these are, and there is a log; if they are this \
         server's, start it once with --declare incomplete"
    )]
    IdentityGone {
        /// The identity's file.
        path: String,
    },
    /// A newer version wrote it.
    #[error(
        "{path} is in format {format}, and this version reads formats up to {FORMAT}; start the \
         version that wrote it, or a newer one"
    )]
    Newer {
        /// The directory.
        path: String,
        /// Its format.
        format: u32,
    },
    /// It is another server's.
    #[error(
        "{path} belongs to {theirs}, and this is {ours}; give this server its own directory. If it \
         has moved to another address, start it once with --declare incomplete, and change no other \
         server until reads have filled it again"
    )]
    Other {
        /// The directory.
        path: String,
        /// Whose it is.
        theirs: String,
        /// The server that asks for it.
        ours: String,
    },
    /// The servers file is not that of the last start.
    #[error("{path} belongs to {theirs}, and the servers file is of ring {ring}: {}", what_changed(.change.as_deref()))]
    OtherRing {
        /// The directory.
        path: String,
        /// Whose it is.
        theirs: String,
        /// The ring of the servers file.
        ring: String,
        /// What differs; none if it is not known which servers were in the ring before.
        change: Option<Box<RingChange>>,
    },
    /// The replication is not that of the last start.
    #[error(
        "{path} was made with another --replication than {replication}. Start the server with the one that it \
         had; each key has as many replicas as that, and majorities of another number need not meet those. To \
         change it, begin a new cluster and copy the keys. If all servers are stopped, and what they hold is \
         to count as it is, start each once with --declare complete"
    )]
    OtherReplication {
        /// The directory.
        path: String,
        /// The one that is asked for.
        replication: u8,
    },
    /// The disk failed when it was in use last.
    #[error(
        "{path} was given up because its disk failed: {reason}. Replace the disk, and start the \
         server once with --declare incomplete"
    )]
    Failed {
        /// The directory.
        path: String,
        /// What the disk said.
        reason: String,
    },
    /// It is a copy that was made of another one.
    #[error(
        "{path}: the records are a backup, and its server has gone on since it was made. If the other \
         servers of the cluster have gone on, start this one once with --declare incomplete. If the \
         whole cluster is restored from backups, start each server once with --declare complete"
    )]
    Backup {
        /// The directory.
        path: String,
    },
    /// It is of an older format, and is not converted. It is as it was.
    #[error(
        "{path} is not converted to format {FORMAT}: {error}. With --declare incomplete the server \
         begins without records if they are damaged, and answers for no key until the other replicas \
         have said what they hold"
    )]
    Convert {
        /// The directory.
        path: String,
        /// Why not.
        error: String,
    },
    /// Its log is not opened.
    #[error("{0}")]
    Log(#[from] dkvs_log::DirectoryError),
    /// Its store is not opened.
    #[error("{path}: {error}{}", what_to_do(.error))]
    Store {
        /// The directory.
        path: String,
        /// Why not.
        error: OpenError,
    },
}

/// What differs in a servers file, and what an operator may do about it.
fn what_changed(change: Option<&RingChange>) -> String {
    match change {
        None => "the directory does not say which servers were in its ring. Start the server once \
                 with the servers file that it had, so that the directory notes them, and then with \
                 the new one"
            .into(),
        Some(change) if change.keeps_majorities => format!(
            "{change}. Each key keeps a majority of its servers (of {REPLICATION}). Read every key \
             with wait=all, then start this server once with --declare complete, or with --declare \
             incomplete if /servers does not tell that it is complete, and one that joins with \
             --declare incomplete; change nothing else until every key was read again"
        ),
        Some(change) => format!(
            "{change}. That is too much at once: of some keys fewer than a majority of their servers \
             (of {REPLICATION}) would be those that hold them, and such keys could not be read any \
             more, or would be told as absent. No declaration helps. Start the server with the \
             servers file that it had, and change one server at a time; or begin a new cluster with \
             empty directories, and copy the keys to it"
        ),
    }
}

/// What an operator may do about a store that is not opened.
fn what_to_do(error: &OpenError) -> &'static str {
    match error {
        OpenError::Empty => {
            ". If the server is new, together with its whole cluster, start it once with --declare \
             new. If it has held records before, or joins servers that do, start it once with \
             --declare incomplete: it answers for no key until the other replicas told it what \
             they hold"
        }
        OpenError::Unsynced => {
            ". Start the server once with --declare incomplete: it answers for no key until the \
             other replicas told it what they hold"
        }
        OpenError::NothingToDeclare(_) => "; start the server without --declare",
        OpenError::Log(dkvs_log::OpenError::Foreign { .. }) => {
            ". Give this server its own log; if that is lost, take this one away and start the server \
             once with --declare incomplete"
        }
        OpenError::Log(dkvs_log::OpenError::Newer { .. }) | OpenError::Unknown { .. } => {
            "; start the version that wrote it, or a newer one"
        }
        OpenError::Log(_) | OpenError::Commit(_) => "",
    }
}

//! A server's data directory: whose it is, who has it open, and the files of its store.
//!
//! ```text
//!   DIR/identity.json     whose records these are, in which format, and which log is theirs
//!   DIR/lock              held by the process that has the directory open
//!   DIR/log/              the log: see `dkvs_log`
//!   DIR/failed            why the disk was given up, if it was
//!   DIR/backups/TIME/     copies, each a data directory of its own
//!   DIR/before-format-2/  what it was converted from, if it was; it can be deleted
//! ```
//!
//! A directory is opened only if it is certain that its records are those that this server
//! confirmed. Otherwise an operator has to declare what they are; see [`Declaration`].

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dkvs_common::model::Durability;
use dkvs_log::{Directory, History, Log};
use thiserror::Error;

use super::convert::{self, ConvertError, LOG};
use super::files::{make_directory, private, sync_directory, write_synced};
use super::format_1::OldError;
use super::identity::{FORMAT, IDENTITY, Identity, IdentityError, new_history};
use super::open::{OpenError, Opened};
use super::options::{Declaration, OpenOptions};
use super::ring_change::{REPLICATION, RingChange};
use super::store::DiskStore;

pub use super::identity::Owner;

const LOCK: &str = "lock";
const FAILED: &str = "failed";

/// A data directory that this process has open. Others may open it once the value is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    owner: Owner,
    /// Whether a backup is being made.
    is_backing_up: AtomicBool,
    /// Locked for as long as it is open.
    _lock: File,
}

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

impl DataDirectory {
    /// Whether a server has had its data in this directory.
    pub fn is_one(path: &Path) -> bool {
        path.join(IDENTITY).exists()
    }

    /// Opens the directory of `owner`, which is made if there is none, and the store in it.
    pub fn open(
        path: &Path,
        owner: Owner,
        options: OpenOptions,
    ) -> Result<(Self, Opened), DirectoryError> {
        make_directory(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let directory = Self {
            path: path.to_owned(),
            owner,
            is_backing_up: AtomicBool::new(false),
            _lock: lock,
        };
        let mut known = directory.read_identity()?;
        let is_uncertain = directory.check(known.as_ref(), options.declaration)?;
        directory.convert(&mut known, options.declaration)?;
        let options = OpenOptions {
            is_uncertain,
            ..options
        };
        let (history, is_new) = directory.history(known.as_ref(), options.declaration)?;
        if is_new && options.declaration.is_some() {
            // The log is begun in the name of this directory, or not at all.
            directory.write_identity(None, history)?;
        }
        let mut opened = directory.open_store(history, options)?;
        directory.write_identity(known.as_ref(), history)?;
        let failed = path.join(FAILED);
        if failed.exists() {
            fs::remove_file(&failed).map_err(io_error(&failed))?;
        }
        opened.committer.on_failure(move |reason| {
            if let Err(error) = write_synced(&failed, reason.as_bytes()) {
                tracing::error!(%error, path = %failed.display(), "cannot be written");
            }
        });
        Ok((directory, opened))
    }

    /// Makes a directory of format 2 of one of format 1.
    fn convert(
        &self,
        known: &mut Option<Identity>,
        declaration: Option<Declaration>,
    ) -> Result<(), DirectoryError> {
        let path = || self.path.display().to_string();
        let failed = |error: ConvertError| DirectoryError::Convert {
            path: path(),
            error: error.to_string(),
        };
        let is_converted = |identity: &Identity| identity.format == FORMAT;
        if known.as_ref().is_some_and(is_converted) {
            return convert::finish(&self.path).map_err(io_error(&self.path));
        }
        convert::discard_new(&self.path).map_err(io_error(&self.path))?;
        if !convert::has_old_records(&self.path) {
            return Ok(());
        }
        let history = new_history().map_err(io_error(&self.path))?;
        let mut identity = match known.as_ref() {
            Some(known) => Identity::converted(known, history),
            None => Identity::of(&self.owner, history),
        };
        match convert::open_old(&self.path) {
            Ok(Some(old)) if old.manifest.is_snapshot && !is_declared(declaration) => {
                return Err(DirectoryError::Backup { path: path() });
            }
            Ok(Some(old)) => {
                identity.is_backup = old.manifest.is_snapshot;
                convert::convert(&self.path, &old, history).map_err(failed)?;
            }
            // Nothing was ever stored.
            Ok(None) => {}
            Err(OldError::Damaged(reason)) if declaration == Some(Declaration::Incomplete) => {
                tracing::warn!(%reason, "the damaged records are put aside");
            }
            Err(error) => return Err(failed(error.into())),
        }
        convert::keep_identity(&self.path, known.as_ref())
            .and_then(|()| identity.write(&self.path))
            .and_then(|()| convert::finish(&self.path))
            .map_err(io_error(&self.path))?;
        *known = Some(identity);
        Ok(())
    }

    /// The history of the log, and whether there is no such log yet.
    fn history(
        &self,
        known: Option<&Identity>,
        declaration: Option<Declaration>,
    ) -> Result<(History, bool), DirectoryError> {
        if let Some(history) = known.and_then(Identity::history) {
            return Ok((history, false));
        }
        let log = self.path.join(LOG);
        let mut found = None;
        if log.exists() {
            let medium = Directory::open(&log, true)?;
            found = Log::history_in(&medium).map_err(io_error(&log))?;
        }
        match found {
            Some(history) if is_declared(declaration) => Ok((history, false)),
            Some(_) => Err(DirectoryError::NoIdentity {
                path: self.path.join(IDENTITY).display().to_string(),
                reason: "there is none, and there is a log".into(),
            }),
            None => Ok((new_history().map_err(io_error(&log))?, true)),
        }
    }

    /// Refuses a directory that is not certain to be this server's, unless something is declared of
    /// it. Returns whether it is uncertain.
    fn check(
        &self,
        known: Option<&Identity>,
        declaration: Option<Declaration>,
    ) -> Result<bool, DirectoryError> {
        let path = || self.path.display().to_string();
        let is_declared = is_declared(declaration);
        let mut is_uncertain;
        if let Some(identity) = known {
            if identity.format > FORMAT {
                let format = identity.format;
                return Err(DirectoryError::Newer {
                    path: path(),
                    format,
                });
            }
            let is_other_server = identity.server != self.owner.server.to_string();
            if is_other_server && !is_declared {
                return Err(DirectoryError::Other {
                    path: path(),
                    theirs: identity.to_string(),
                    ours: self.owner.to_string(),
                });
            }
            if identity.is_backup && !is_declared {
                return Err(DirectoryError::Backup { path: path() });
            }
            is_uncertain = is_other_server || identity.is_backup;
            if let Some(ring) = self.owner.ring()
                && identity.ring.as_ref().is_some_and(|known| *known != ring)
            {
                let clusters = identity.cluster().zip(self.owner.cluster.as_ref());
                let change = clusters.map(|(old, new)| Box::new(RingChange::between(&old, new)));
                let is_too_much = change.as_ref().is_none_or(|it| !it.keeps_majorities);
                if is_too_much || !is_declared {
                    return Err(DirectoryError::OtherRing {
                        path: path(),
                        theirs: identity.to_string(),
                        ring,
                        change,
                    });
                }
                is_uncertain = true;
            }
        } else {
            // A log without an identity is opened with a declaration alone.
            is_uncertain = is_declared && self.path.join(LOG).exists();
        }
        match fs::read_to_string(self.path.join(FAILED)) {
            Ok(reason) if !is_declared => Err(DirectoryError::Failed {
                path: path(),
                reason,
            }),
            Ok(_) => Ok(true),
            Err(_) => Ok(is_uncertain),
        }
    }

    fn open_store(&self, history: History, options: OpenOptions) -> Result<Opened, DirectoryError> {
        let log = self.path.join(LOG);
        let medium = Directory::open(&log, options.durability == Durability::Fsync)?;
        sync_directory(&self.path).map_err(io_error(&self.path))?;
        let opened = DiskStore::open(Arc::new(medium), history, options);
        let opened = opened.map_err(|error| DirectoryError::Store {
            path: self.path.display().to_string(),
            error,
        })?;
        report(&opened);
        Ok(opened)
    }

    fn read_identity(&self) -> Result<Option<Identity>, DirectoryError> {
        let path = self.path.join(IDENTITY);
        Identity::read(&self.path).map_err(|error| match error {
            IdentityError::Io(error) => io_error(&path)(error),
            IdentityError::NotOne(reason) => DirectoryError::NoIdentity {
                path: path.display().to_string(),
                reason,
            },
        })
    }

    /// Writes whose it is, if that is not what it says. A ring that was known stays known.
    fn write_identity(
        &self,
        known: Option<&Identity>,
        history: History,
    ) -> Result<(), DirectoryError> {
        let mut identity = Identity::of(&self.owner, history);
        if identity.ring.is_none()
            && let Some(known) = known
        {
            identity.ring.clone_from(&known.ring);
            identity.servers.clone_from(&known.servers);
        }
        if known == Some(&identity) {
            return Ok(());
        }
        let path = self.path.join(IDENTITY);
        identity.write(&self.path).map_err(io_error(&path))
    }

    /// Where a backup that is made at this moment is to lie, if it is the first one of the moment.
    pub(super) fn backup_path(&self, unix_s: u64) -> PathBuf {
        self.path.join("backups").join(unix_s.to_string())
    }

    /// Claims the only place for a backup that is being made. Returns whether it was free.
    pub(super) fn begin_backup(&self) -> bool {
        !self.is_backing_up.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end_backup(&self) {
        self.is_backing_up.store(false, Ordering::Release);
    }

    /// Whose records it holds.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// Whether something is declared of a store that is there.
fn is_declared(declaration: Option<Declaration>) -> bool {
    declaration.is_some_and(|declaration| declaration != Declaration::New)
}

/// Leaves a line in the log of the server if records were lost.
fn report(opened: &Opened) {
    let (status, recovery) = (opened.store.status(), &opened.recovery);
    let (lost_ranges, unreadable_values) = (recovery.lost.len(), recovery.values_lost);
    let keys = opened.store.table().len();
    if lost_ranges > 0 {
        tracing::warn!(
            lost_ranges,
            lost = ?recovery.lost,
            unreadable_values,
            quarantined_keys = status.quarantined,
            keys,
            "the log is damaged: keys whose newest record may be among what is lost are answered as \
             corrupt until the other replicas have said what they hold; the others are served"
        );
    } else if unreadable_values > 0 {
        tracing::warn!(
            unreadable_values,
            keys,
            "the log is damaged: no record is lost, and values cannot be read; their keys are answered \
             as corrupt until they are written again, or can be read; the others are served"
        );
    }
    if recovery.torn_bytes > 0 {
        tracing::info!(
            bytes = recovery.torn_bytes,
            "what was being written when the server ended is cut off; it was never confirmed"
        );
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.display().to_string();
    move |error| DirectoryError::Io { path, error }
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let lock_path = path.join(LOCK);
    let file = private()
        .truncate(false)
        .open(&lock_path)
        .map_err(io_error(&lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error(&lock_path)(error)),
    }
}

/// A number that differs after each start of the machine, if the system has such a number, and is
/// never 0.
pub fn machine_run() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let digits = text.unwrap_or_default().replace('-', "");
    let known = digits
        .get(..16)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // Where it has none, every start of the server counts as one of the machine.
    let number = known.or_else(|| getrandom::u64().ok());
    number.unwrap_or(1).max(1)
}

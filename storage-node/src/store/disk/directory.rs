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

use super::convert::{self, ConvertError, LOG, LOG_NEW};
use super::files::{make_directory, private, sync_directory, write_synced};
use super::format_1::{OldError, OldStore};
use super::identity::{FORMAT, IDENTITY, Identity, IdentityError, new_history};
use super::open::{self, OpenError, Opened};
use super::options::{Declaration, OpenOptions};
use super::ring_change::RingChange;
use super::store::DiskStore;

pub use super::identity::Owner;
pub use super::refusals::DirectoryError;

const LOCK: &str = "lock";
const FAILED: &str = "failed";

/// A data directory that this process has open. Others may open it once the value is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    owner: Owner,
    /// What its identity says of them.
    store_id: u64,
    is_numbered: bool,
    /// Whether a backup is being made.
    is_backing_up: AtomicBool,
    /// Locked for as long as it is open.
    lock: Option<File>,
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
        let mut directory = Self {
            path: path.to_owned(),
            owner,
            store_id: 0,
            is_numbered: false,
            is_backing_up: AtomicBool::new(false),
            lock: None,
        };
        if !path.join(LOCK).exists() {
            // What is refused leaves nothing behind, not even the lock.
            directory.examine(options)?;
            make_directory(path).map_err(io_error(path))?;
        }
        directory.lock = Some(lock(path)?);
        let (mut known, options) = directory.examine(options)?;
        directory.convert(&mut known, options)?;
        let (history, is_new) = directory.history(known.as_ref(), options.declaration)?;
        if is_new && options.declaration.is_some() {
            // The log is begun in the name of this directory, or not at all.
            directory.write_identity(None, history)?;
        }
        let mut opened = directory.open_store(history, options)?;
        directory.write_identity(known.as_ref(), history)?;
        directory.store_id = store_id(history);
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

    /// Looks whether it may be opened, and how, and changes nothing.
    fn examine(
        &self,
        options: OpenOptions,
    ) -> Result<(Option<Identity>, OpenOptions), DirectoryError> {
        let known = self.read_identity()?;
        let is_uncertain = self.check(known.as_ref(), options.declaration)?;
        let options = OpenOptions {
            is_uncertain,
            ..options
        };
        self.check_emptiness(known.as_ref(), options)?;
        Ok((known, options))
    }

    /// Refuses a directory without records, unless it is declared that this is right.
    fn check_emptiness(
        &self,
        known: Option<&Identity>,
        options: OpenOptions,
    ) -> Result<(), DirectoryError> {
        let is_old = known.is_none_or(|identity| identity.format != FORMAT);
        let has_records = convert::has_log(&self.path, LOG)
            || !is_old && convert::has_log(&self.path, LOG_NEW)
            || is_old && convert::has_old_records(&self.path);
        match has_records {
            true => Ok(()),
            false => open::check_nothing(options).map_err(self.store_error()),
        }
    }

    /// Makes a directory of format 2 of one of format 1.
    fn convert(
        &self,
        known: &mut Option<Identity>,
        options: OpenOptions,
    ) -> Result<(), DirectoryError> {
        let declaration = options.declaration;
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
        let old = match convert::open_old(&self.path) {
            Ok(Some(old)) if old.manifest.is_snapshot && !is_declared(declaration) => {
                return Err(DirectoryError::Backup { path: path() });
            }
            Ok(old) => old,
            Err(OldError::Damaged(reason)) if declaration == Some(Declaration::Incomplete) => {
                tracing::warn!(%reason, "the damaged records are put aside");
                None
            }
            Err(error) => return Err(failed(error.into())),
        };
        // What would be refused once it is converted is not converted.
        let checked = match &old {
            Some(old) => open::check_manifest(convert::new_manifest(old), options),
            // Nothing was ever stored.
            None => open::check_nothing(options),
        };
        checked.map_err(self.store_error())?;
        identity.is_backup = old.as_ref().is_some_and(|it| it.manifest.is_snapshot);
        let made = self.make_converted(old, (known.as_ref(), &identity), history);
        if let Err(error) = made {
            // Unless it is what the directory says that it has.
            if self.read_identity().is_ok_and(|it| it == *known)
                && let Err(error) = convert::discard_new(&self.path)
            {
                tracing::warn!(%error, "part of a conversion is left");
            }
            return Err(failed(error));
        }
        convert::finish(&self.path).map_err(io_error(&self.path))?;
        *known = Some(identity);
        Ok(())
    }

    fn make_converted(
        &self,
        old: Option<OldStore>,
        (known, identity): (Option<&Identity>, &Identity),
        history: History,
    ) -> Result<(), ConvertError> {
        if let Some(old) = old {
            convert::convert(&self.path, &old, history)?;
        }
        convert::keep_identity(&self.path, known)?;
        Ok(identity.write(&self.path)?)
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
        if convert::has_log(&self.path, LOG) {
            if !is_declared(declaration) {
                let path = self.path.join(IDENTITY).display().to_string();
                return Err(DirectoryError::IdentityGone { path });
            }
            let medium = Directory::open(&log, true)?;
            found = Log::history_in(&medium).map_err(io_error(&log))?;
        }
        match found {
            Some(history) => Ok((history, false)),
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
            } else if let (Some(theirs), Some(ours)) = (&identity.epoch, self.owner.epoch())
                && *theirs != ours.to_string()
            {
                if !is_declared {
                    return Err(DirectoryError::OtherReplication {
                        path: path(),
                        replication: self.owner.replication,
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
        let medium = Arc::new(Directory::open(&log, true)?);
        sync_directory(&self.path).map_err(io_error(&self.path))?;
        let shared = Arc::clone(&medium);
        let opened = DiskStore::open(shared, history, options).map_err(self.store_error())?;
        // Not before: that the machine may go down with what is not synced, is synced.
        if options.durability != Durability::Fsync {
            medium.sync_no_more();
        }
        report(&opened);
        Ok(opened)
    }

    fn store_error(&self) -> impl FnOnce(OpenError) -> DirectoryError {
        let path = self.path.display().to_string();
        move |error| DirectoryError::Store { path, error }
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
        &mut self,
        known: Option<&Identity>,
        history: History,
    ) -> Result<(), DirectoryError> {
        let mut identity = Identity::of(&self.owner, history);
        if let Some(known) = known
            && known.epoch.is_none()
            && !self.owner.is_numbered
        {
            identity.epoch = None;
        }
        if identity.ring.is_none()
            && let Some(known) = known
        {
            identity.ring.clone_from(&known.ring);
            identity.servers.clone_from(&known.servers);
            identity.epoch.clone_from(&known.epoch);
        }
        self.is_numbered = identity.epoch.is_some();
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

    /// Random, and another one for each directory whose records are not those of another one.
    pub fn store_id(&self) -> u64 {
        self.store_id
    }

    /// Whether only members of its configuration are to be served.
    pub fn is_numbered(&self) -> bool {
        self.is_numbered
    }

    /// Whose records it holds.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// A log that is begun anew has another history.
fn store_id(History(history): History) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = history;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
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

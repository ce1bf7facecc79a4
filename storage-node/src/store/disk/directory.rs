//! A server's data directory: whose it is, who has it open, and the files of its store.
//!
//! ```text
//!   DIR/identity.json     whose records these are, and in which format
//!   DIR/lock              held by the process that has the directory open
//!   DIR/records.redb      the log
//!   DIR/witness           the end of the last commit
//!   DIR/failed            why the disk was given up, if it was
//!   DIR/backups/TIME/     copies, each a data directory of its own
//! ```
//!
//! A directory is opened only if it is certain that its records are those that this server
//! confirmed. Otherwise an operator has to declare what they are; see [`Declaration`].

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dkvs_common::cluster::{Cluster, Server};
use dkvs_common::model::Durability;
use dkvs_common::ring::Ring;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::committer::Committer;
use super::log::{CommitError, Snapshot};
use super::medium::{FileMedium, Medium};
use super::open::OpenError;
use super::options::{Declaration, Media, OpenOptions};
use super::ring_change::{REPLICATION, RingChange};
use super::store::DiskStore;

/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

const IDENTITY: &str = "identity.json";
const LOCK: &str = "lock";
const RECORDS: &str = "records.redb";
const HIGH_WATER: &str = "witness";
const FAILED: &str = "failed";

/// Whose records a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The server's address, by which the ring knows it.
    pub server: SocketAddrV4,
    /// The servers of its ring, if the server knows.
    pub cluster: Option<Cluster>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    server: String,
    ring: Option<String>,
    /// The lines of the servers file; older versions wrote none.
    #[serde(default)]
    servers: Option<Vec<String>>,
}

/// A data directory that this process has open. Others may open it once the value is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    owner: Owner,
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
        OpenError::Damaged(_) => {
            ". Start the server once with --declare incomplete: it puts the damaged file aside and \
             begins without records, and answers for no key until the other replicas told it what \
             they hold"
        }
        OpenError::Unsynced => {
            ". Start the server once with --declare incomplete: it answers for no key until the \
             other replicas told it what they hold"
        }
        OpenError::Backup => {
            ". If the other servers of the cluster have gone on, start this one once with \
             --declare incomplete. If the whole cluster is restored from backups, start each \
             server once with --declare complete"
        }
        OpenError::NothingToDeclare(_) => "; start the server without --declare",
        OpenError::Io(_) | OpenError::Commit(_) => "",
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
    ) -> Result<(Self, Arc<DiskStore>, Committer), DirectoryError> {
        make_directory(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let directory = Self {
            path: path.to_owned(),
            owner,
            _lock: lock,
        };
        let is_uncertain = directory.check(options.declaration)?;
        let options = OpenOptions {
            is_uncertain,
            ..options
        };
        let (store, mut committer) = directory.open_store(options)?;
        directory.write_identity()?;
        let failed = path.join(FAILED);
        if failed.exists() {
            fs::remove_file(&failed).map_err(io_error(&failed))?;
        }
        committer.on_failure(move |reason| {
            if let Err(error) = write_synced(&failed, reason.as_bytes()) {
                tracing::error!(%error, path = %failed.display(), "cannot be written");
            }
        });
        Ok((directory, store, committer))
    }

    /// Refuses a directory that is not certain to be this server's, unless something is declared of
    /// it. Returns whether it is uncertain.
    fn check(&self, declaration: Option<Declaration>) -> Result<bool, DirectoryError> {
        let path = || self.path.display().to_string();
        let is_declared = declaration.is_some_and(|declaration| declaration != Declaration::New);
        let mut is_uncertain = false;
        if let Some(identity) = self.read_identity()? {
            if identity.format > FORMAT {
                let format = identity.format;
                return Err(DirectoryError::Newer {
                    path: path(),
                    format,
                });
            }
            let ours = Identity::of(&self.owner);
            let is_other_server = identity.server != ours.server;
            if is_other_server && !is_declared {
                return Err(DirectoryError::Other {
                    path: path(),
                    theirs: identity.to_string(),
                    ours: ours.to_string(),
                });
            }
            is_uncertain = is_other_server;
            if let Some(ring) = ours.ring
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

    fn open_store(
        &self,
        options: OpenOptions,
    ) -> Result<(Arc<DiskStore>, Committer), DirectoryError> {
        let store_error = |error| DirectoryError::Store {
            path: self.path.display().to_string(),
            error,
        };
        match DiskStore::open(self.media(options.durability)?, options) {
            Err(OpenError::Damaged(reason))
                if options.declaration == Some(Declaration::Incomplete) =>
            {
                tracing::warn!(%reason, "the damaged records are put aside");
                self.put_aside()?;
                let media = self.media(options.durability)?;
                DiskStore::open(media, options).map_err(store_error)
            }
            opened => opened.map_err(store_error),
        }
    }

    fn media(&self, durability: Durability) -> Result<Media, DirectoryError> {
        let open = |name: &str| -> Result<Arc<dyn Medium>, DirectoryError> {
            let path = self.path.join(name);
            let file = FileMedium::open(&path, durability == Durability::Fsync);
            Ok(Arc::new(file.map_err(io_error(&path))?))
        };
        let media = Media {
            records: open(RECORDS)?,
            high_water: open(HIGH_WATER)?,
        };
        sync_directory(&self.path).map_err(io_error(&self.path))?;
        Ok(media)
    }

    /// Renames the engine's file, so that another can begin.
    fn put_aside(&self) -> Result<(), DirectoryError> {
        let from = self.path.join(RECORDS);
        let aside = |number: u32| self.path.join(format!("records.damaged-{number}.redb"));
        let to = (1..).map(aside).find(|to| !to.exists());
        let to = to.unwrap_or_else(|| aside(0));
        fs::rename(&from, &to).map_err(io_error(&from))?;
        let high_water = self.path.join(HIGH_WATER);
        fs::remove_file(&high_water).map_err(io_error(&high_water))?;
        sync_directory(&self.path).map_err(io_error(&self.path))
    }

    fn read_identity(&self) -> Result<Option<Identity>, DirectoryError> {
        let path = self.path.join(IDENTITY);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let identity = serde_json::from_slice(&text);
        identity
            .map(Some)
            .map_err(|error| DirectoryError::NoIdentity {
                path: path.display().to_string(),
                reason: error.to_string(),
            })
    }

    /// Writes whose it is, if that is not what it says. A ring that was known stays known.
    fn write_identity(&self) -> Result<(), DirectoryError> {
        let known = self.read_identity()?;
        let mut identity = Identity::of(&self.owner);
        if identity.ring.is_none()
            && let Some(known) = &known
        {
            identity.ring.clone_from(&known.ring);
            identity.servers.clone_from(&known.servers);
        }
        if known.as_ref() == Some(&identity) {
            return Ok(());
        }
        let path = self.path.join(IDENTITY);
        write_synced(&path, identity.text().as_bytes()).map_err(io_error(&path))
    }

    /// Where a backup that is made at this moment is to lie.
    pub fn backup_path(&self, unix_s: u64) -> PathBuf {
        self.path.join("backups").join(unix_s.to_string())
    }

    /// Whose records it holds.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// Writes a data directory of its own with the records of a snapshot, synced. Returns how many
/// rows it has.
pub fn back_up(snapshot: &Snapshot, to: &Path, owner: &Owner) -> Result<u64, BackupError> {
    if to.exists() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    // Under another name until it is whole.
    let partial = to.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    make_directory(&partial)?;
    let records = Arc::new(FileMedium::open(&partial.join(RECORDS), true)?);
    let rows = snapshot.copy_to(records)?;
    write_synced(
        &partial.join(IDENTITY),
        Identity::of(owner).text().as_bytes(),
    )?;
    fs::rename(&partial, to)?;
    if let Some(parent) = to.parent() {
        sync_directory(parent)?;
    }
    Ok(rows)
}

/// A backup was not made; there may be part of one whose name ends in `.partial`.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The records cannot be read or written.
    #[error("{0}")]
    Commit(#[from] CommitError),
}

impl Identity {
    fn of(owner: &Owner) -> Self {
        let cluster = owner.cluster.as_ref();
        let lines = |cluster: &Cluster| {
            let servers = cluster.servers().iter();
            let line =
                |it: &Server| format!("{} {} {}", it.addr.ip(), it.addr.port(), it.ring_points);
            servers.map(line).collect()
        };
        Self {
            format: FORMAT,
            server: owner.server.to_string(),
            ring: cluster.map(|cluster| format!("{:08x}", Ring::new(cluster).epoch())),
            servers: cluster.map(lines),
        }
    }

    /// The servers of its ring, if they are known.
    fn cluster(&self) -> Option<Cluster> {
        let text = self.servers.as_ref()?.join("\n");
        Cluster::parse(IDENTITY, text.as_bytes()).ok()
    }

    fn text(&self) -> String {
        let ring = match &self.ring {
            Some(ring) => format!("\"{ring}\""),
            None => "null".into(),
        };
        let servers = match &self.servers {
            Some(lines) => {
                let line = |line: &String| format!("    \"{line}\"");
                let lines: Vec<_> = lines.iter().map(line).collect();
                format!("[\n{}\n  ]", lines.join(",\n"))
            }
            None => "null".into(),
        };
        format!(
            "{{\n  \"format\": {},\n  \"server\": \"{}\",\n  \"ring\": {ring},\n  \
             \"servers\": {servers}\n}}\n",
            self.format, self.server
        )
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server {}", self.server)?;
        match &self.ring {
            Some(ring) => write!(f, " of ring {ring}"),
            None => Ok(()),
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.display().to_string();
    move |error| DirectoryError::Io { path, error }
}

/// Makes a directory that only its owner may look into.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let lock_path = path.join(LOCK);
    let file = File::options()
        .write(true)
        .create(true)
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

/// Writes a file so that a crash leaves the old one or the new one.
fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(path)?.sync_all(),
        false => Ok(()),
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

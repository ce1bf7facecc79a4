//! Converts a data directory of format 1, once.
//!
//! ```text
//!   1  DIR/log.new/           is made of DIR/records.redb, whole and synced
//!   2  DIR/before-format-2/   gets the identity as it was
//!   3  DIR/identity.json      says format 2, and which log is its own: from here on it is converted
//!   4  DIR/log.new/           becomes DIR/log/
//!   5  DIR/before-format-2/   gets the old files
//! ```
//!
//! A crash before 3 leaves a directory of format 1, and the next start begins anew; after it, the next
//! start does what is left. `before-format-2` is a data directory of format 1 of its own then, for as
//! long as anybody wants to keep it.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use dkvs_common::record::Attributes;
use dkvs_log::{AppendError, DirectoryError, History, Log, Room};
use thiserror::Error;

use super::files::{make_directory, remove_if_there, sync_directory};
use super::format::{self, Kind, Manifest, StoredHead, flags};
use super::format_1::{OldError, OldRecord, OldStore};
use super::identity::{IDENTITY, Identity};
use super::queue::NewRecord;
use super::writing;

pub(super) const LOG: &str = "log";
pub(super) const LOG_NEW: &str = "log.new";
const BEFORE: &str = "before-format-2";
/// What a log has that was not begun.
const LOCK: &str = "lock";
const RECORDS: &str = "records.redb";
const WITNESS: &str = "witness";

/// How many bytes are converted with one sync.
const BATCH_BYTES: usize = 4 << 20;

/// How many lines show the progress.
const PROGRESS_LINES: u64 = 20;

/// A directory is not converted. It is as it was.
#[derive(Debug, Error)]
pub(super) enum ConvertError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Old(#[from] OldError),
    #[error("{0}")]
    Directory(#[from] DirectoryError),
    #[error("the new log is not begun: {0}")]
    Open(#[from] dkvs_log::OpenError),
    #[error("the new log is not written: {0}")]
    Append(#[from] AppendError),
}

/// Whether a directory has records of format 1.
pub(super) fn has_old_records(directory: &Path) -> bool {
    directory.join(RECORDS).exists()
}

/// Whether a log was begun in a directory, under this name.
pub(super) fn has_log(directory: &Path, name: &str) -> bool {
    let Ok(mut entries) = fs::read_dir(directory.join(name)) else {
        return false;
    };
    entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK))
}

/// The records of format 1 in a directory; none if nothing was ever stored there.
pub(super) fn open_old(directory: &Path) -> Result<Option<OldStore>, OldError> {
    OldStore::open(&directory.join(RECORDS), &directory.join(WITNESS))
}

/// Makes a log of a history out of records of format 1, under the name that it has until the identity
/// says that it is the directory's.
pub(super) fn convert(
    directory: &Path,
    old: &OldStore,
    history: History,
) -> Result<(), ConvertError> {
    let new = directory.join(LOG_NEW);
    discard_new(directory)?;
    let mut log = writing::begin::<ConvertError>(&new, history)?;
    let rows = old.rows();
    tracing::info!(rows, "the records of format 1 are converted");
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut progress = Progress { rows, shown: 0 };
    old.for_each_record(|record, looked_at| {
        let record = new_record(&record);
        bytes += record.bytes();
        batch.push(record);
        if bytes >= BATCH_BYTES {
            append(&mut log, &mut batch)?;
            bytes = 0;
            progress.show(looked_at);
        }
        Ok::<(), ConvertError>(())
    })?;
    append(&mut log, &mut batch)?;
    writing::end::<ConvertError>(log, new_manifest(old))?;
    sync_directory(directory)?;
    Ok(())
}

/// What a store of format 1 knows of itself once it is converted.
pub(super) fn new_manifest(old: &OldStore) -> Manifest {
    Manifest {
        is_complete: old.manifest.is_complete,
        // The quarantined ones say so themselves.
        floor: 0,
        unsynced_run: old.manifest.unsynced_run,
        lineage: 0,
    }
}

/// Takes away what is left of a conversion that did not come to its end.
pub(super) fn discard_new(directory: &Path) -> io::Result<()> {
    remove_if_there(&directory.join(LOG_NEW))
}

/// Puts the identity where the old files will lie.
pub(super) fn keep_identity(directory: &Path, identity: Option<&Identity>) -> io::Result<()> {
    let before = directory.join(BEFORE);
    make_directory(&before)?;
    if identity.is_some() {
        fs::copy(directory.join(IDENTITY), before.join(IDENTITY))?;
        restrict(&before.join(IDENTITY))?;
        fs::File::open(before.join(IDENTITY))?.sync_all()?;
    }
    sync_directory(&before)?;
    sync_directory(directory)
}

/// Does what is left to do in a directory whose identity is of format 2.
pub(super) fn finish(directory: &Path) -> io::Result<()> {
    let (log, new) = (directory.join(LOG), directory.join(LOG_NEW));
    if new.exists() && !log.exists() {
        fs::rename(&new, &log)?;
        sync_directory(directory)?;
    }
    let before = directory.join(BEFORE);
    for name in [RECORDS, WITNESS] {
        let (from, to) = (directory.join(name), before.join(name));
        if from.exists() {
            make_directory(&before)?;
            restrict(&from)?;
            fs::rename(&from, &to)?;
            tracing::info!(
                kept_in = %before.display(),
                file = name,
                "a file of format 1 is kept; it can be deleted"
            );
        }
    }
    sync_directory(directory)
}

/// Older versions left it to the system who may read their files.
fn restrict(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    let _ = file;
    Ok(())
}

struct Progress {
    rows: u64,
    shown: u64,
}

impl Progress {
    fn show(&mut self, looked_at: u64) {
        let part = looked_at * PROGRESS_LINES / self.rows.max(1);
        if part > self.shown {
            self.shown = part;
            let percent = looked_at * 100 / self.rows.max(1);
            tracing::info!(percent, rows = self.rows, "records are being converted");
        }
    }
}

fn new_record(record: &OldRecord<'_>) -> NewRecord {
    let head = StoredHead {
        kind: match record.is_tombstone {
            true => Kind::Tombstone,
            false => Kind::Value,
        },
        flags: match record.is_quarantined {
            true => flags::QUARANTINED,
            false => 0,
        },
        tag: record.tag,
        checksum: record.checksum,
        value_bytes: 0,
        born: 0,
    };
    let none = Attributes::NONE;
    let (head, log_value) = format::encode_parts(head, &none, record.content_type, record.value);
    NewRecord {
        key: Bytes::copy_from_slice(record.key),
        head,
        log_value: log_value.into(),
    }
}

fn append(log: &mut Log, batch: &mut Vec<NewRecord>) -> Result<(), AppendError> {
    writing::append(log, &*batch, Room::Ordinary, &mut Vec::new())?;
    batch.clear();
    Ok(())
}

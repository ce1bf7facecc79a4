//! Copies of a store that is at work: each a data directory of its own.
//!
//! Every record that was confirmed before a copy began is in it, in that version or a newer one. The
//! store goes on meanwhile: keys are walked page by page, and values read as any reader reads them.
//! One copy of a directory is made at a time, under a name that nothing else has or had.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::ring::Position;
use dkvs_log::{AppendError, DirectoryError, Log, ReadError, Room};
use thiserror::Error;

use super::convert::LOG;
use super::directory::DataDirectory;
use super::entry::Located;
use super::files::{make_directory, remove_if_there, sync_directory};
use super::format::Manifest;
use super::identity::{Identity, Owner, new_history};
use super::queue::NewRecord;
use super::store::DiskStore;
use super::writing;
use crate::store::contract::RecordStore as _;
use crate::store::head::TableEntry as _;

/// How many bytes are copied at a time.
const PAGE_BYTES: usize = 1 << 20;

/// How many records are copied at a time.
const PAGE_RECORDS: usize = 1_024;

/// What the name of a copy ends in until it is whole.
const PARTIAL: &str = "partial";

/// A backup was not made. What there was of it is removed, if the disk allows that.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its log cannot be begun.
    #[error("{0}")]
    Directory(#[from] DirectoryError),
    /// Its log cannot be begun.
    #[error("{0}")]
    Open(#[from] dkvs_log::OpenError),
    /// Its log cannot be written.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// A record cannot be read now.
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Records, tombstones included.
    pub records: u64,
    /// Records that are not in it, since they could not be read.
    pub unreadable: u64,
    /// What the records take, in bytes.
    pub bytes: u64,
}

/// A backup of a data directory that is about to be made. There is one at a time.
#[derive(Debug)]
pub struct Backup {
    directory: Arc<DataDirectory>,
    path: PathBuf,
}

impl Backup {
    /// Begins one at this time; none if another one is under way.
    pub fn begin(directory: &Arc<DataDirectory>, unix_s: u64) -> Option<Self> {
        if !directory.begin_backup() {
            return None;
        }
        let is_taken = |path: &PathBuf| path.exists() || path.with_extension(PARTIAL).exists();
        let mut path = directory.backup_path(unix_s);
        let mut number = 1_u64;
        while is_taken(&path) {
            number += 1;
            path.set_file_name(format!("{unix_s}-{number}"));
        }
        let directory = Arc::clone(directory);
        Some(Self { directory, path })
    }

    /// Where it is to lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the store of the directory. `pace` is called with what was copied after each page, and
    /// decides when the next one begins.
    pub fn run(
        &self,
        store: &DiskStore,
        mut pace: impl FnMut(usize),
    ) -> Result<BackupReport, BackupError> {
        // Under another name until it is whole.
        let partial = self.path.with_extension(PARTIAL);
        let made = make(store, &partial, self.directory.owner(), &mut pace);
        let made = made.and_then(|report| {
            fs::rename(&partial, &self.path)?;
            if let Some(parent) = self.path.parent() {
                sync_directory(parent)?;
            }
            Ok(report)
        });
        if made.is_err()
            && let Err(error) = remove_if_there(&partial)
        {
            let path = partial.display();
            tracing::warn!(%path, %error, "part of a backup is left, and can be deleted");
        }
        made
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.directory.end_backup();
    }
}

/// Copies a store to a new directory, which is a data directory of `owner`.
fn make(
    store: &DiskStore,
    to: &Path,
    owner: &Owner,
    pace: &mut dyn FnMut(usize),
) -> Result<BackupReport, BackupError> {
    make_directory(to)?;
    let history = new_history()?;
    let mut log = writing::begin::<BackupError>(&to.join(LOG), history)?;
    let report = copy(store, &mut log, pace)?;
    let manifest = Manifest {
        is_complete: store.is_complete() && report.unreadable == 0,
        ..Manifest::default()
    };
    writing::end::<BackupError>(log, manifest)?;
    let identity = Identity {
        is_backup: true,
        ..Identity::of(owner, history)
    };
    identity.write(to)?;
    Ok(report)
}

fn copy(
    store: &DiskStore,
    log: &mut Log,
    pace: &mut dyn FnMut(usize),
) -> Result<BackupReport, BackupError> {
    let mut report = BackupReport::default();
    let mut after: Option<Key> = None;
    loop {
        let page = page(store, after.as_ref());
        let Some((last, _)) = page.last() else {
            return Ok(report);
        };
        after = Some(last.clone());
        let copied = copy_page(store, log, &page, &mut report)?;
        pace(copied);
    }
}

fn page(store: &DiskStore, after: Option<&Key>) -> Vec<(Key, Located)> {
    let from = after.map_or(Position([0; 20]), Position::of_key);
    let (mut page, mut bytes) = (Vec::new(), 0);
    store.table().scan(from, after, |held| {
        // What a store holds is keys.
        if let Ok(key) = Key::new(held.key().to_vec()) {
            let located = Located::of(held);
            bytes += located.location.bytes as usize;
            page.push((key, located));
        }
        match bytes >= PAGE_BYTES || page.len() >= PAGE_RECORDS {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    page
}

fn copy_page(
    store: &DiskStore,
    log: &mut Log,
    page: &[(Key, Located)],
    report: &mut BackupReport,
) -> Result<usize, BackupError> {
    let mut records = Vec::new();
    for (key, located) in page {
        match read(store, key.as_bytes(), *located)? {
            Some((located, value)) => {
                records.push(NewRecord {
                    key: Bytes::copy_from_slice(key.as_bytes()),
                    head: located.stored,
                    log_value: value,
                });
            }
            None if store.peek(key).is_none() => {}
            None => report.unreadable += 1,
        }
    }
    let bytes = writing::append(log, &records, Room::Ordinary, &mut Vec::new())?;
    report.records += records.len() as u64;
    report.bytes += bytes;
    Ok(bytes as usize)
}

/// A record and its value of the log, in this version or a newer one; none if it was removed, or cannot
/// be read.
fn read(
    store: &DiskStore,
    key: &[u8],
    mut located: Located,
) -> Result<Option<(Located, Bytes)>, BackupError> {
    loop {
        match store.values.read_past_cache(key, &located) {
            Ok(value) => return Ok(Some((located, value))),
            Err(ReadError::Gone) => match store.table().read_bytes(key, Located::of) {
                Some(now) if now.location != located.location => located = now,
                _ => return Ok(None),
            },
            // It may be whole, so a backup without it would be incomplete for nothing.
            Err(error @ ReadError::OutOfFiles(_)) => return Err(error.into()),
            Err(ReadError::Damaged | ReadError::Io(_)) => {
                store.note_damage(key, located.location);
                return Ok(None);
            }
        }
    }
}

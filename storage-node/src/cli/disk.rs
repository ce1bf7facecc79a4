//! The durable store of the program: its thread, and backups on SIGUSR1.

use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use dkvs_runtime::signals::Backups;

use crate::store::disk::backup::{Backup, BackupReport};
use crate::store::disk::directory::DataDirectory;
use crate::store::disk::{CommitThread, Committer, DiskStore};

/// A durable store that is not yet at work.
pub(super) struct Opened {
    pub(super) directory: DataDirectory,
    pub(super) committer: Committer,
}

/// A durable store at work.
pub(super) struct Disk {
    pub(super) store: Arc<DiskStore>,
    pub(super) directory: Arc<DataDirectory>,
    pub(super) thread: CommitThread,
}

impl Disk {
    pub(super) fn start(opened: Opened) -> anyhow::Result<Self> {
        let store = Arc::clone(opened.committer.store());
        let directory = Arc::new(opened.directory);
        let guard = Arc::clone(&directory);
        let thread = CommitThread::start(opened.committer, "storage".into(), guard);
        Ok(Self {
            store,
            directory,
            thread: thread.context("cannot start a thread for the disk")?,
        })
    }

    /// Copies the records into the directory, on a thread of its own, unless that is under way.
    fn back_up(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |since| since.as_secs());
        let Some(backup) = Backup::begin(&self.directory, now) else {
            return tracing::warn!("SIGUSR1: a backup is under way, and no other one begins");
        };
        let store = Arc::clone(&self.store);
        tracing::info!(path = %backup.path().display(), "a backup begins");
        let copy = move || {
            let mut begun = Instant::now();
            // As much time for everybody else.
            let pace = |_| {
                thread::sleep(begun.elapsed());
                begun = Instant::now();
            };
            match backup.run(&store, pace) {
                Ok(BackupReport {
                    records,
                    unreadable,
                    bytes,
                }) => {
                    let path = backup.path().display();
                    tracing::info!(%path, records, bytes, unreadable, "a backup is made");
                }
                Err(error) => tracing::error!(%error, "a backup was not made"),
            }
        };
        if let Err(error) = thread::Builder::new().name("backup".into()).spawn(copy) {
            tracing::error!(%error, "a backup was not made");
        }
    }
}

pub(super) async fn back_up_when_asked(
    disk: Option<&Disk>,
    mut asked: Backups,
) -> std::convert::Infallible {
    loop {
        asked.next().await;
        match disk {
            Some(disk) => disk.back_up(),
            None => tracing::warn!("SIGUSR1: there is no data directory to back up"),
        }
    }
}

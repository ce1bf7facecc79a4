//! The durable store of the program: its thread, and backups on SIGUSR1.

use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use dkvs_runtime::signals::Backups;

use crate::store::disk::directory::{self, DataDirectory};
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

    /// Copies the log into the directory, on a thread of its own.
    fn back_up(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let to = self
            .directory
            .backup_path(since.map_or(0, |since| since.as_secs()));
        let whose = Arc::clone(&self.directory);
        tracing::info!(path = %to.display(), "a backup begins");
        let copy = move |snapshot: Result<_, _>| {
            let copy = move || match snapshot
                .map(|snapshot| directory::back_up(&snapshot, &to, whose.owner()))
            {
                Ok(Ok(rows)) => tracing::info!(path = %to.display(), rows, "a backup is made"),
                Ok(Err(error)) => tracing::error!(%error, "a backup was not made"),
                Err(error) => tracing::error!(%error, "a backup was not made"),
            };
            if let Err(error) = thread::Builder::new().name("backup".into()).spawn(copy) {
                tracing::error!(%error, "a backup was not made");
            }
        };
        self.store.back_up(Box::new(copy));
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

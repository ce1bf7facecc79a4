//! The thread that takes what gathers to the disk.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::committer::Committer;
use super::log::CommitError;
use super::store::DiskStore;

/// After so long without anything to store, the log is compacted and sizes are looked at.
const IDLE: Duration = Duration::from_secs(1);

/// A committer at work. When the value is dropped, what has gathered is stored, and it ends.
pub struct CommitThread {
    store: Arc<DiskStore>,
    thread: Option<JoinHandle<Result<(), CommitError>>>,
}

impl CommitThread {
    /// Starts a thread of this name, which holds on to `guard` for as long as it may write.
    pub fn start(
        committer: Committer,
        name: String,
        guard: impl Send + 'static,
    ) -> io::Result<Self> {
        let store = Arc::clone(committer.store());
        let run = move || {
            let ended = run(committer);
            drop(guard);
            ended
        };
        let thread = Some(thread::Builder::new().name(name).spawn(run)?);
        Ok(Self { store, thread })
    }

    /// Ends it in good order.
    ///
    /// # Errors
    ///
    /// If the disk failed, now or earlier.
    pub fn stop(mut self) -> Result<(), CommitError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), CommitError> {
        self.store.close();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(CommitError::panicked()),
            None => Ok(()),
        }
    }
}

impl Drop for CommitThread {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a store did not end in good order");
        }
    }
}

fn run(mut committer: Committer) -> Result<(), CommitError> {
    while committer.store().wait(IDLE) {
        match committer.begin() {
            Some(batch) => committer.finish(batch),
            None => while !committer.store().has_gathered() && committer.idle() {},
        }
        committer.give_backups();
    }
    committer.close()
}

impl DiskStore {
    /// Waits until something has gathered, or for so long. Whether the store is still open.
    fn wait(&self, idle: Duration) -> bool {
        let queue = self.queue();
        if queue.is_empty() && queue.backups.is_empty() && !queue.is_closed {
            let waited = self.gathered.wait_timeout(queue, idle);
            let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            return !queue.is_closed;
        }
        !queue.is_closed
    }
}

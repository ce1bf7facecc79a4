//! The threads of a durable store: one that takes what gathers to the disk, and those that read.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dkvs_log::HintDone;

use super::committer::{CommitError, Committer};
use super::store::DiskStore;

/// After so long without anything to store, the log is compacted and sizes are looked at.
const IDLE: Duration = Duration::from_secs(1);

/// How many threads read values from the disk.
const READERS: usize = 4;

/// A committer at work, and readers beside it. When the value is dropped, what has gathered is stored,
/// and they end.
pub struct CommitThread {
    store: Arc<DiskStore>,
    thread: Option<JoinHandle<Result<(), CommitError>>>,
    readers: Vec<JoinHandle<()>>,
}

impl CommitThread {
    /// Starts a thread of this name, which holds on to `guard` for as long as it may write, and others
    /// that read.
    pub fn start(
        committer: Committer,
        name: String,
        guard: impl Send + 'static,
    ) -> io::Result<Self> {
        let store = Arc::clone(committer.store());
        let mut threads = Self {
            store: Arc::clone(&store),
            thread: None,
            readers: Vec::new(),
        };
        for number in 0..READERS {
            let store = Arc::clone(&store);
            let thread = thread::Builder::new().name(format!("{name}-read-{number}"));
            threads.readers.push(thread.spawn(move || read(&store))?);
        }
        let run = move || {
            let ended = run(committer);
            drop(guard);
            ended
        };
        threads.thread = Some(thread::Builder::new().name(name).spawn(run)?);
        Ok(threads)
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
        let ended = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(CommitError::panicked()),
            None => Ok(()),
        };
        self.store.reads.close();
        for reader in self.readers.drain(..) {
            // One that panicked has answered nobody, and there is nobody left to ask.
            let _ = reader.join();
        }
        ended
    }
}

impl Drop for CommitThread {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a store did not end in good order");
        }
    }
}

fn read(store: &Arc<DiskStore>) {
    while let Some(read) = store.reads.wait() {
        read.run(store, Instant::now());
    }
}

fn run(mut committer: Committer) -> Result<(), CommitError> {
    let mut hints = Hints::new();
    while committer.store().wait(IDLE) {
        match committer.begin() {
            Some(batch) => {
                committer.finish(batch);
                committer.compact();
            }
            None => while !committer.store().has_gathered() && committer.idle() {},
        }
        hints.go_on(&mut committer);
    }
    committer.close()
}

/// Hints are written by a thread of their own, one at a time.
struct Hints {
    done: (Sender<io::Result<HintDone>>, Receiver<io::Result<HintDone>>),
    is_under_way: bool,
}

impl Hints {
    fn new() -> Self {
        Self {
            done: mpsc::channel(),
            is_under_way: false,
        }
    }

    fn go_on(&mut self, committer: &mut Committer) {
        if let Ok(done) = self.done.1.try_recv() {
            self.is_under_way = false;
            committer.finish_hint(done);
        }
        if self.is_under_way {
            return;
        }
        let Some(job) = committer.hint_job() else {
            return;
        };
        let done = self.done.0.clone();
        let write = move || {
            // Nobody wants it if the store has ended meanwhile.
            let _ = done.send(job.run());
        };
        let spawned = thread::Builder::new().name("hints".into()).spawn(write);
        self.is_under_way = spawned.is_ok();
    }
}

impl DiskStore {
    /// Waits until something has gathered, or for so long. Whether the store is still open.
    fn wait(&self, idle: Duration) -> bool {
        let queue = self.queue();
        if queue.is_empty() && !queue.is_closed {
            let waited = self.gathered.wait_timeout(queue, idle);
            let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            return !queue.is_closed;
        }
        !queue.is_closed
    }
}

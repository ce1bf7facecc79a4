//! One source of snapshots for the listeners of all workers.
//!
//! ```text
//!   one task --> [ the last snapshot ] --> listeners of all workers
//! ```
//!
//! The task runs while there are listeners. A listener gets the last snapshot there is: a slow one
//! misses some, and nothing waits for it. What a snapshot shows is unknown here.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;

/// Most listeners of a gateway.
const LISTENERS_MAX: usize = 64;

/// The last snapshot; none before the first.
pub(super) type LastSnapshot = Option<Bytes>;

/// Where the listeners of all workers find the snapshots.
pub(super) struct Feed {
    places: Arc<Semaphore>,
    source: Mutex<Weak<Source>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            source: Mutex::default(),
        }
    }
}

/// The task that makes snapshots. It ends with the last reference.
struct Source {
    snapshots: watch::Receiver<LastSnapshot>,
    task: AbortHandle,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One listener's place.
pub(super) struct Subscription {
    pub(super) snapshots: watch::Receiver<LastSnapshot>,
    _source: Arc<Source>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// A place for one more listener, or none if all are taken. The first listener starts the task
    /// that makes the snapshots.
    pub(super) fn subscribe(
        &self,
        start: impl FnOnce(watch::Sender<LastSnapshot>) -> AbortHandle,
    ) -> Option<Subscription> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut shared = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let source = shared.upgrade().unwrap_or_else(|| {
            let (sender, snapshots) = watch::channel(None);
            let task = start(sender);
            let source = Arc::new(Source { snapshots, task });
            *shared = Arc::downgrade(&source);
            source
        });
        let mut snapshots = source.snapshots.clone();
        // The snapshot that is there already is new to this listener.
        snapshots.mark_changed();
        Some(Subscription {
            snapshots,
            _source: source,
            _place: place,
        })
    }
}

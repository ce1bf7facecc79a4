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
use dkvs_client::CallerId;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::fair::{FairSlot, FairSlots, NoSlot};

/// Most listeners of a gateway.
const LISTENERS_MAX: usize = 64;

/// Most of them that are one caller's.
const LISTENERS_PER_CALLER_MAX: usize = 16;

/// The last snapshot; none before the first.
pub(super) type LastSnapshot = Option<Bytes>;

/// Where the listeners of all workers find the snapshots.
pub(super) struct Feed {
    slots: Arc<FairSlots>,
    source: Mutex<Weak<Source>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            slots: Arc::new(FairSlots::new(LISTENERS_MAX, LISTENERS_PER_CALLER_MAX)),
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

/// One listener.
pub(super) struct Subscription {
    pub(super) snapshots: watch::Receiver<LastSnapshot>,
    _source: Arc<Source>,
    /// Another caller may get it.
    pub(super) slot: FairSlot,
}

impl Feed {
    /// One more listener, of this caller. The first starts the task that makes the snapshots.
    pub(super) fn subscribe(
        &self,
        caller: CallerId,
        start: impl FnOnce(watch::Sender<LastSnapshot>) -> AbortHandle,
    ) -> Result<Subscription, NoSlot> {
        let slot = self.slots.take(caller)?;
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
        Ok(Subscription {
            snapshots,
            _source: source,
            slot,
        })
    }
}

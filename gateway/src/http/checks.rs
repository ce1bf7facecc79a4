//! One check of the servers for the whole gateway, whoever asks and however many do.
//!
//! ```text
//!   /readyz, /metrics of all listeners --wanted--> one task: asks every server, once at a time
//!          ^                                                   |
//!          +---------------------- the last check <------------+
//! ```
//!
//! The task has a client of its own, so a check takes no place among the requests in flight, and none
//! has to wait for a worker.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_client::{Client, ServerStatus};
use tokio::sync::{Notify, watch};

/// How long a server may take to answer a probe.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a check is waited for: that which is under way, the next one, and some time to spare.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The checks of a gateway.
pub(super) struct Checks {
    wanted: Notify,
    last: watch::Sender<Arc<Check>>,
}

/// What one check has found.
#[derive(Default)]
pub(super) struct Check {
    /// None before the first.
    begun: Option<Instant>,
    /// Of each server, in the order of the cluster.
    pub(super) statuses: Vec<ServerStatus>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            last: watch::Sender::default(),
        }
    }
}

impl Checks {
    /// Checks the servers whenever somebody wants to know.
    pub(super) async fn run(&self, client: &Client) -> Infallible {
        loop {
            self.wanted.notified().await;
            let begun = Instant::now();
            match client.status(PROBE_TIMEOUT).await {
                Ok(statuses) => {
                    let begun = Some(begun);
                    self.last.send_replace(Arc::new(Check { begun, statuses }));
                }
                // Whoever waits finds out by the time-out.
                Err(error) => tracing::warn!(%error, "the servers could not be checked"),
            }
        }
    }

    /// The last check, if it was begun no earlier than `since`, or the next one. None if there is none
    /// in time.
    pub(super) async fn begun_since(&self, since: Instant) -> Option<Arc<Check>> {
        let mut last = self.last.subscribe();
        let waiting = async {
            loop {
                let check = Arc::clone(&last.borrow_and_update());
                if check.begun.is_some_and(|begun| begun >= since) {
                    return Some(check);
                }
                self.wanted.notify_one();
                last.changed().await.ok()?;
            }
        };
        tokio::time::timeout(CHECK_TIMEOUT, waiting).await.ok()?
    }
}

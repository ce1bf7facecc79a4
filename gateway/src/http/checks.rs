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

use dkvs_client::{AdmissionError, ServerStatus};
use futures_util::FutureExt as _;
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
    /// Checks the servers by `ask` whenever somebody wants to know.
    pub(super) async fn run<F>(&self, ask: impl Fn() -> F) -> Infallible
    where
        F: Future<Output = Result<Vec<ServerStatus>, AdmissionError>>,
    {
        loop {
            self.wanted.notified().await;
            let begun = Instant::now();
            match ask().await {
                Ok(statuses) => {
                    // Whoever wanted one meanwhile has this one, or wants another when it is there.
                    let _ = self.wanted.notified().now_or_never();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn however_many_want_a_check_they_share_one() {
        let (checks, asked) = (Checks::default(), AtomicUsize::new(0));
        let ask = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            // Others come while it is under way.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            Ok(Vec::new())
        };
        let running = checks.run(ask);
        let wanting = async {
            for round in 1..=3 {
                let since = Instant::now();
                let late = async |turns: usize| {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    checks.begun_since(since).await
                };
                let found = futures_util::future::join_all((0..8).map(late)).await;
                assert!(found.iter().all(Option::is_some));
                // Time for one that nobody wants.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(asked.load(Ordering::Relaxed), round);
            }
        };
        tokio::select! {
            _ = running => {}
            () = wanting => {}
        }
    }
}

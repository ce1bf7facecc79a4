//! How many requests a worker begins before it looks what else has arrived.
//!
//! A worker is one thread. Between two looks at what the system has for it, it begins so many requests,
//! and further ones wait for its next turn, in turns by caller. Whoever has a thousand connections and asks on
//! all of them waits for its own requests, and not everybody else.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkvs_client::CallerId;
use tokio::sync::Notify;

use super::semaphore::{FairPermit, FairSemaphore};

/// How much is begun in one turn of a worker. A request is one.
const COST_PER_TURN: usize = 32;

/// The pace of one worker.
pub(crate) struct Pace {
    permits: Arc<FairSemaphore>,
    /// What was begun in this turn.
    begun: Mutex<Option<FairPermit>>,
    /// Told when the first of a turn is begun.
    first: Notify,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            permits: Arc::new(FairSemaphore::new(COST_PER_TURN)),
            begun: Mutex::default(),
            first: Notify::new(),
        }
    }
}

impl Pace {
    /// Waits until a request may begin.
    pub(crate) async fn request(&self, caller: CallerId) {
        self.begin(caller, 1).await;
    }

    /// Waits until work may begin that takes a turn of its own, such as parsing megabytes.
    pub(crate) async fn long_work(&self, caller: CallerId) {
        self.begin(caller, COST_PER_TURN).await;
    }

    async fn begin(&self, caller: CallerId, cost: usize) {
        let permit = self.permits.acquire(caller, cost).await;
        match &mut *self.begun() {
            Some(begun) => begun.merge(permit),
            begun => {
                *begun = Some(permit);
                self.first.notify_one();
            }
        }
    }

    fn begun(&self) -> MutexGuard<'_, Option<FairPermit>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins turn after turn. Runs on the worker whose pace it is.
    pub(crate) async fn run(&self) -> Infallible {
        loop {
            self.first.notified().await;
            // The runtime polls it again when it has looked what has arrived.
            tokio::task::yield_now().await;
            let begun = self.begun().take();
            drop(begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn a_caller_with_many_requests_does_not_keep_another_waiting() {
        let tasks = tokio::task::LocalSet::new();
        let (pace, begun) = (Arc::new(Pace::default()), Rc::new(RefCell::new(Vec::new())));
        let caller = CallerId::Token;
        tasks.spawn_local({
            let pace = Arc::clone(&pace);
            async move { pace.run().await }
        });
        let mut requests = Vec::new();
        let ten_turns = 10 * COST_PER_TURN;
        for number in 0..=ten_turns {
            let (pace, begun) = (Arc::clone(&pace), Rc::clone(&begun));
            let caller = caller(u64::from(number == ten_turns));
            requests.push(tasks.spawn_local(async move {
                pace.request(caller).await;
                begun.borrow_mut().push(caller);
            }));
        }
        tasks
            .run_until(async {
                for request in requests {
                    request.await.unwrap();
                }
            })
            .await;
        let begun = begun.borrow();
        assert_eq!(begun.len(), ten_turns + 1);
        let last = begun.iter().position(|it| *it == caller(1)).unwrap();
        assert!(last <= COST_PER_TURN + 2, "it was the {last}th");
    }
}

//! Permits that callers wait for, in turns.
//!
//! Each caller has a queue of its own, and the queues take turns. So whoever asks for one permit waits
//! behind one of each other caller, however many those ask for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkvs_client::CallerId;
use dkvs_client::core::{ByCaller, Holding};
use tokio::sync::oneshot;

/// A number of permits, and those who wait for them.
pub(crate) struct FairSemaphore {
    permits_max: usize,
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// The number of the next who waits.
    next: u64,
    waiting: ByCaller<Queue>,
    /// Those who wait, each once, in the order of their turns.
    turns: VecDeque<CallerId>,
}

/// Those of one caller who wait, in the order in which they came.
#[derive(Default)]
struct Queue(BTreeMap<u64, Waiter>);

impl Holding for Queue {
    fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

struct Waiter {
    permits: usize,
    granted: oneshot::Sender<FairPermit>,
}

/// Permits that are held until they are dropped.
pub(crate) struct FairPermit {
    of: Arc<FairSemaphore>,
    permits: usize,
}

/// One who waits. When it is dropped, it does so no longer.
struct Waiting<'a> {
    of: &'a Arc<FairSemaphore>,
    caller: CallerId,
    number: u64,
}

impl FairSemaphore {
    /// A semaphore with all of its permits free.
    pub(crate) fn new(permits: usize) -> Self {
        Self {
            permits_max: permits,
            state: Mutex::new(State {
                free: permits,
                next: 0,
                waiting: ByCaller::default(),
                turns: VecDeque::new(),
            }),
        }
    }

    /// Takes so many permits, or all that there are if that is fewer, when the caller's turn has come. May
    /// be dropped at any time.
    pub(crate) async fn acquire(self: &Arc<Self>, caller: CallerId, permits: usize) -> FairPermit {
        let permits = permits.min(self.permits_max);
        let (waiting, receiver) = {
            let mut state = self.state();
            if state.turns.is_empty() && state.free >= permits {
                state.free -= permits;
                return self.permit(permits);
            }
            let (granted, receiver) = oneshot::channel();
            let number = state.next;
            state.next += 1;
            let is_first = state.waiting.change(caller, |queue| {
                queue.0.insert(number, Waiter { permits, granted });
                queue.0.len() == 1
            });
            if is_first {
                state.turns.push_back(caller);
            }
            let waiting = Waiting {
                of: self,
                caller,
                number,
            };
            (waiting, receiver)
        };
        let granted = receiver.await;
        drop(waiting);
        // It is never dropped without being used, but by the end of the semaphore.
        granted.unwrap_or_else(|_| self.permit(0))
    }

    fn permit(self: &Arc<Self>, permits: usize) -> FairPermit {
        FairPermit {
            of: Arc::clone(self),
            permits,
        }
    }

    /// Gives permits back, and grants them to those whose turn it is.
    fn release(self: &Arc<Self>, permits: usize) {
        let mut unused = Vec::new();
        let mut state = self.state();
        state.free += permits;
        while let Some(waiter) = state.next_waiter() {
            state.free -= waiter.permits;
            // Who has gone meanwhile returns it, which takes the lock.
            if let Err(permit) = waiter.granted.send(self.permit(waiter.permits)) {
                unused.push(permit);
            }
        }
        drop(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who gets permits now, if there are enough for the one whose turn it is.
    fn next_waiter(&mut self) -> Option<Waiter> {
        loop {
            let caller = *self.turns.front()?;
            let free = self.free;
            let next = self.waiting.change_held(caller, |queue| {
                let first = queue.0.first_entry()?;
                let waiter = (first.get().permits <= free).then(|| first.remove())?;
                Some((waiter, !queue.0.is_empty()))
            });
            // One whose waiters have all gone has no turn.
            let Some(next) = next else {
                self.turns.pop_front();
                continue;
            };
            let (waiter, waits_for_more) = next?;
            self.turns.pop_front();
            if waits_for_more {
                self.turns.push_back(caller);
            }
            return Some(waiter);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (caller, number) = (self.caller, self.number);
        let mut state = self.of.state();
        let is_last = state.waiting.change_held(caller, |queue| {
            queue.0.remove(&number).is_some() && queue.0.is_empty()
        });
        if is_last == Some(true) {
            state.turns.retain(|it| *it != caller);
        }
        drop(state);
        // Those behind it may want no more than is free.
        if is_last.is_some() {
            self.of.release(0);
        }
    }
}

impl FairPermit {
    /// Makes two one.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.permits += std::mem::take(&mut other.permits);
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.of.release(self.permits);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn caller(number: u64) -> CallerId {
        CallerId::Token(number)
    }

    fn is_at_rest(semaphore: &FairSemaphore) -> bool {
        let state = semaphore.state();
        state.free == semaphore.permits_max && state.turns.is_empty() && state.waiting.is_empty()
    }

    #[test]
    fn callers_take_turns_however_many_of_one_wait() {
        let semaphore = Arc::new(FairSemaphore::new(1));
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 2, 3]
            .map(|number| (number, Box::pin(semaphore.acquire(caller(number), 1))))
            .into();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            // The permit that is granted ends at once, for the next.
            waiting.retain_mut(|(number, acquire)| {
                let is_granted = acquire.as_mut().poll(&mut context).is_ready();
                if is_granted {
                    order.push(*number);
                }
                !is_granted
            });
        }
        // The first found it free, and its permit ended before the next asked.
        order.sort_unstable();
        assert_eq!(order, [1, 1, 1, 1, 2, 2, 3]);
        assert!(is_at_rest(&semaphore));

        let Poll::Ready(held) = pin!(semaphore.acquire(caller(9), 1)).poll(&mut context) else {
            panic!("it is free");
        };
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 2, 3]
            .map(|number| (number, Box::pin(semaphore.acquire(caller(number), 1))))
            .into();
        for (_, acquire) in &mut waiting {
            assert!(acquire.as_mut().poll(&mut context).is_pending());
        }
        let mut held = Some(held);
        let mut order = Vec::new();
        while held.take().is_some() {
            let granted =
                waiting
                    .iter_mut()
                    .enumerate()
                    .find_map(
                        |(at, (_, acquire))| match acquire.as_mut().poll(&mut context) {
                            Poll::Ready(permit) => Some((at, permit)),
                            Poll::Pending => None,
                        },
                    );
            if let Some((at, permit)) = granted {
                order.push(waiting.remove(at).0);
                held = Some(permit);
            }
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1]);
        assert!(is_at_rest(&semaphore));
    }

    #[test]
    fn whoever_has_gone_holds_nothing_and_keeps_nobody_waiting() {
        let semaphore = Arc::new(FairSemaphore::new(2));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(held) = pin!(semaphore.acquire(caller(1), 7)).poll(&mut context) else {
            panic!("all that there are is enough");
        };
        let mut poll = |number, permits| {
            let mut acquire = Box::pin(semaphore.acquire(caller(number), permits));
            assert!(acquire.as_mut().poll(&mut context).is_pending());
            acquire
        };
        let (gone, mut last) = (poll(1, 2), poll(2, 1));
        let granted_and_gone = poll(3, 1);
        drop(gone);
        drop(held);
        drop(granted_and_gone);
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(held) = last.as_mut().poll(&mut context) else {
            panic!("it is its turn");
        };
        assert_eq!(semaphore.state().free, 1);
        drop(held);
        assert!(is_at_rest(&semaphore));
    }
}

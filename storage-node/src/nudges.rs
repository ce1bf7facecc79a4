//! What a server was told of others since its anti-entropy looked: who may lack what it holds, and who holds
//! what it may lack.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkvs_common::cluster::ServerId;

/// What was told. There is an entry for each server of the cluster at most.
#[derive(Default)]
pub(crate) struct Nudges(Mutex<State>);

#[derive(Default)]
struct State {
    told: Told,
    /// Called when something was told; none if nobody looks.
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// What was told of other servers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Those that may lack what this server holds.
    pub(crate) behind: BTreeSet<ServerId>,
    /// Those that hold what it may lack.
    pub(crate) ahead: BTreeSet<ServerId>,
}

impl Nudges {
    /// From now on somebody looks when this is called.
    pub(crate) fn wake_by(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.state().wake = Some(wake);
    }

    /// A server may lack what this one holds. Returns whether anybody looks.
    pub(crate) fn note_behind(&self, server: ServerId) -> bool {
        self.note(|told| told.behind.insert(server))
    }

    /// A server holds what this one may lack. Returns whether anybody looks.
    pub(crate) fn note_ahead(&self, server: ServerId) -> bool {
        self.note(|told| told.ahead.insert(server))
    }

    /// Has whoever looks look.
    pub(crate) fn wake(&self) {
        let wake = self.state().wake.clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    fn note(&self, note: impl FnOnce(&mut Told) -> bool) -> bool {
        let mut state = self.state();
        let Some(wake) = state.wake.clone() else {
            return false;
        };
        let is_new = note(&mut state.told);
        drop(state);
        if is_new {
            wake();
        }
        true
    }

    /// What was told since this was called last.
    pub(crate) fn take(&self) -> Told {
        std::mem::take(&mut self.state().told)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_is_told_twice_wakes_once_and_nothing_is_kept_for_nobody() {
        let (nudges, woken) = (Nudges::default(), Arc::new(AtomicUsize::new(0)));
        assert!(!nudges.note_behind(ServerId(1)));
        assert_eq!(nudges.take(), Told::default());
        let counter = Arc::clone(&woken);
        nudges.wake_by(Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(nudges.note_behind(ServerId(1)) && nudges.note_behind(ServerId(1)));
        assert!(nudges.note_ahead(ServerId(1)));
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        let told = nudges.take();
        assert_eq!((told.behind.len(), told.ahead.len()), (1, 1));
        assert_eq!(nudges.take(), Told::default());
    }
}

//! Slots that callers hold for as long as they work, and that nobody waits for.
//!
//! When all are taken, whoever holds most gives one up for whoever would then hold less. So one caller may
//! have its share while nobody else asks, and every caller has one as long as there are no more callers than
//! slots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkvs_client::CallerId;
use dkvs_client::core::{ByCaller, Holding};
use tokio_util::sync::CancellationToken;

/// A number of slots, and what callers hold of them.
pub(crate) struct FairSlots {
    slots_max: usize,
    /// The most that one caller holds, even if others are free.
    of_caller_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    slots: usize,
    by_caller: ByCaller<HeldSlots>,
}

/// What one caller holds, the newest last.
#[derive(Default)]
struct HeldSlots(BTreeMap<u64, CancellationToken>);

impl Holding for HeldSlots {
    fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

/// A slot that is held until it is dropped, or displaced.
pub(crate) struct FairSlot {
    of: Arc<FairSlots>,
    caller: CallerId,
    number: u64,
    displaced: CancellationToken,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// The caller holds as many as one caller may.
    OfCaller,
    /// All are taken, and nobody holds so many more than the caller that one has to go.
    Full,
}

impl FairSlots {
    /// Slots of which none is taken.
    pub(crate) fn new(slots_max: usize, of_caller_max: usize) -> Self {
        Self {
            slots_max,
            of_caller_max,
            taken: Mutex::default(),
        }
    }

    /// Takes a slot. If that displaces another, it is the newest of whoever holds most.
    pub(crate) fn take(self: &Arc<Self>, caller: CallerId) -> Result<FairSlot, NoSlot> {
        let mut taken = self.taken();
        let mut held = 0;
        taken
            .by_caller
            .change_held(caller, |slots| held = slots.0.len());
        if held >= self.of_caller_max {
            return Err(NoSlot::OfCaller);
        }
        if taken.slots >= self.slots_max && !taken.displace(held) {
            return Err(NoSlot::Full);
        }
        let (number, displaced) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.slots += 1;
        taken.by_caller.change(caller, |slots| {
            slots.0.insert(number, displaced.clone());
        });
        Ok(FairSlot {
            of: Arc::clone(self),
            caller,
            number,
            displaced,
        })
    }

    /// A panic while it was locked leaves nothing half changed.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Displaces a slot for a caller who holds so many. Returns whether there was one to displace.
    fn displace(&mut self, held: usize) -> bool {
        let counts = self
            .by_caller
            .iter()
            .map(|(caller, slots)| (slots.0.len(), caller));
        let Some((_, caller)) = counts.max().filter(|(most, _)| *most > held + 1) else {
            return false;
        };
        let newest = self
            .by_caller
            .change_held(caller, |slots| slots.0.pop_last());
        if let Some((_, displaced)) = newest.flatten() {
            self.slots -= 1;
            displaced.cancel();
        }
        true
    }
}

impl FairSlot {
    /// Waits until another caller has the slot.
    pub(crate) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for FairSlot {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        let number = self.number;
        let removed = taken
            .by_caller
            .change_held(self.caller, |slots| slots.0.remove(&number));
        if removed.flatten().is_some() {
            taken.slots -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_most_gives_way_to_whoever_would_hold_less() {
        let slots = Arc::new(FairSlots::new(8, 4));
        let caller = CallerId::Token;
        let take = |number| slots.take(caller(number));
        let mut held: Vec<_> = (0..8).map(|number| take(number / 4).unwrap()).collect();
        assert_eq!(take(0).err(), Some(NoSlot::OfCaller));
        // A third gets what an equal part is, and takes it from each in turns.
        held.extend((0..2).map(|_| take(2).unwrap()));
        assert_eq!(take(2).err(), Some(NoSlot::Full));
        let is_displaced = |slot: &FairSlot| slot.displaced.is_cancelled();
        let of = |held: &[FairSlot], number| {
            let theirs = held.iter().filter(|it| it.caller == caller(number));
            theirs.filter(|it| !is_displaced(it)).count()
        };
        let counts = [0, 1, 2].map(|number| of(&held, number));
        assert_eq!(counts.iter().sum::<usize>(), 8);
        assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
        // The newest went.
        assert!(!is_displaced(&held[0]) && is_displaced(&held[3]));
        assert!(!is_displaced(&held[4]) && is_displaced(&held[7]));
        // Everyone has one while there are no more callers than slots.
        held.extend((3..8).map(|number| take(number).unwrap()));
        for number in 0..8 {
            assert_eq!(of(&held, number), 1, "{number}");
        }
        assert_eq!(take(8).err(), Some(NoSlot::Full));
        // What was displaced is given back once.
        held.retain(|it| !is_displaced(it));
        assert_eq!((held.len(), slots.taken().slots), (8, 8));
        held.clear();
        assert_eq!(slots.taken().slots, 0);
        assert!(slots.taken().by_caller.is_empty());
    }
}

//! What each caller holds of something that all of them share.

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry, OccupiedEntry};

use super::caller::CallerId;

/// What each caller holds. Whoever holds nothing is not kept, so there are no more entries than things
/// that are held. Callers choose from where they ask, so they are kept in order and not by a hash.
#[derive(Debug)]
pub struct ByCaller<H = usize>(BTreeMap<CallerId, H>);

/// What a caller can hold.
pub trait Holding: Default {
    /// Whether it is nothing.
    fn is_nothing(&self) -> bool;
}

impl Holding for usize {
    fn is_nothing(&self) -> bool {
        *self == 0
    }
}

impl<H> Default for ByCaller<H> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<H: Holding> ByCaller<H> {
    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those who hold something, with what they hold.
    pub fn iter(&self) -> impl Iterator<Item = (CallerId, &H)> {
        self.0.iter().map(|(caller, held)| (*caller, held))
    }

    /// Changes what a caller holds.
    pub fn change<R>(&mut self, caller: CallerId, change: impl FnOnce(&mut H) -> R) -> R {
        match self.0.entry(caller) {
            Entry::Occupied(entry) => change_entry(entry, change),
            Entry::Vacant(entry) => {
                let mut held = H::default();
                let returned = change(&mut held);
                if !held.is_nothing() {
                    entry.insert(held);
                }
                returned
            }
        }
    }

    /// Changes what a caller holds; none if that is nothing.
    pub fn change_held<R>(
        &mut self,
        caller: CallerId,
        change: impl FnOnce(&mut H) -> R,
    ) -> Option<R> {
        match self.0.entry(caller) {
            Entry::Occupied(entry) => Some(change_entry(entry, change)),
            Entry::Vacant(_) => None,
        }
    }
}

fn change_entry<H: Holding, R>(
    mut entry: OccupiedEntry<'_, CallerId, H>,
    change: impl FnOnce(&mut H) -> R,
) -> R {
    let returned = change(entry.get_mut());
    if entry.get().is_nothing() {
        entry.remove();
    }
    returned
}

impl ByCaller {
    /// How much a caller holds.
    pub fn held(&self, caller: CallerId) -> usize {
        self.0.get(&caller).copied().unwrap_or(0)
    }

    /// A caller takes more.
    pub fn add(&mut self, caller: CallerId, more: usize) {
        self.change(caller, |held| *held += more);
    }

    /// A caller gives back what it took, or a part of it.
    pub fn subtract(&mut self, caller: CallerId, less: usize) {
        self.change_held(caller, |held| *held = held.saturating_sub(less));
    }

    /// Who holds most, and how much.
    pub fn most(&self) -> Option<(CallerId, usize)> {
        let most = self.0.iter().max_by_key(|(_, held)| **held);
        most.map(|(caller, held)| (*caller, *held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_nothing_is_not_kept() {
        let [one, other] = [1, 2].map(CallerId::AddressV4);
        let mut held = ByCaller::default();
        assert_eq!((held.most(), held.held(one)), (None, 0));
        held.add(one, 2);
        held.add(other, 3);
        held.add(one, 2);
        assert_eq!(held.most(), Some((one, 4)));
        held.subtract(one, 3);
        assert_eq!((held.held(one), held.most()), (1, Some((other, 3))));
        held.subtract(other, 3);
        held.add(other, 0);
        assert_eq!(held.iter().collect::<Vec<_>>(), [(one, &1)]);
        held.subtract(one, 1);
        assert!(held.is_empty());
    }
}

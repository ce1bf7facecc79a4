//! What is still to happen, in order.
//!
//! Invariant: of what is due at the same moment, that which was entered first comes first; so the
//! order depends on nothing but what was entered.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::moment::Moment;

/// Things to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    entered: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Moment,
    number: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            entered: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Something is to happen then.
    pub fn enter(&mut self, at: Moment, event: E) {
        let number = self.entered;
        self.entered += 1;
        self.heap.push(Entry { at, number, event });
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(Moment, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<E> Ord for Entry<E> {
    /// The heap gives its greatest: that is what comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_of_equals_the_first_entered() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "c"), (3, "a"), (5, "d"), (3, "b"), (9, "e")] {
            queue.enter(Moment(at), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let times = order.iter().map(|(at, _)| at.0);
        assert_eq!(times.collect::<Vec<_>>(), [3, 3, 5, 5, 9]);
        assert_eq!(
            order.iter().map(|(_, name)| *name).collect::<String>(),
            "abcde"
        );
    }
}

//! Parts of the ring, by their first and last positions.

use std::collections::BTreeMap;

use dkvs_common::ring::Position;

/// Positions from the first to the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The first.
    pub first: Position,
    /// The last, which is not before the first.
    pub last: Position,
}

impl Interval {
    /// A single position.
    pub fn at(position: Position) -> Self {
        Self {
            first: position,
            last: position,
        }
    }

    /// Whether a position is in it.
    pub fn contains(self, position: Position) -> bool {
        (self.first..=self.last).contains(&position)
    }
}

/// A set of positions, as intervals that neither meet nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct IntervalSet {
    /// The last position of each, by the first.
    intervals: BTreeMap<Position, Position>,
}

impl IntervalSet {
    /// Whether all positions of an interval are in it.
    pub(in crate::store) fn contains(&self, interval: Interval) -> bool {
        let before = self.intervals.range(..=interval.first).next_back();
        before.is_some_and(|(_, last)| interval.last <= *last)
    }

    /// Adds the positions of an interval. Returns whether any of them was not there.
    pub(in crate::store) fn insert(&mut self, interval: Interval) -> bool {
        let Interval {
            mut first,
            mut last,
        } = interval;
        let before = self.intervals.range(..=first).next_back();
        let before = before.map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, end)| last <= end) {
            return false;
        }
        if let Some((begin, end)) = before
            && end.next().is_none_or(|behind| first <= behind)
        {
            first = begin;
        }
        // Those that begin within it, or right behind it.
        let touched = last.next().unwrap_or(last);
        let within = self.intervals.range(first..=touched);
        let within: Vec<_> = within.map(|(first, last)| (*first, *last)).collect();
        for (begin, end) in within {
            last = last.max(end);
            self.intervals.remove(&begin);
        }
        self.intervals.insert(first, last);
        true
    }

    /// How many intervals it has.
    pub(in crate::store) fn len(&self) -> usize {
        self.intervals.len()
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// In ring order.
    pub(in crate::store) fn iter(&self) -> impl Iterator<Item = Interval> {
        let intervals = self.intervals.iter();
        intervals.map(|(first, last)| Interval {
            first: *first,
            last: *last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(byte: u8) -> Position {
        // Neighbours but for the ends.
        let mut position = [0; 20];
        position[19] = byte;
        match byte {
            u8::MAX => Position([0xff; 20]),
            _ => Position(position),
        }
    }

    proptest! {
        #[test]
        fn it_has_what_was_added_in_as_few_intervals_as_there_are(
            added in prop::collection::vec((0..=255_u8, 0..20_u8), 0..20),
        ) {
            let mut set = IntervalSet::default();
            let mut expected = [false; 256];
            for (first, count) in added {
                let last = first.saturating_add(count);
                let places = &mut expected[first.into()..=last.into()];
                let is_new = places.iter().any(|it| !it) && !(last == 255 && first < 255);
                places.fill(true);
                let interval = Interval { first: at(first), last: at(last) };
                let inserted = set.insert(interval);
                // To the end of the ring there are more positions than those that are tried.
                prop_assert!(inserted == is_new || last == 255);
            }
            for byte in 0..=255 {
                prop_assert_eq!(set.contains(Interval::at(at(byte))), expected[usize::from(byte)]);
            }
            let ends: Vec<_> = set.iter().map(|it| (it.first, it.last)).collect();
            for two in ends.windows(2) {
                prop_assert!(two[0].1.next().is_some_and(|behind| behind < two[1].0));
            }
        }
    }

    #[test]
    fn the_whole_ring_is_one() {
        let mut set = IntervalSet::default();
        let middle = Position([7; 20]);
        let behind = middle.next().unwrap();
        for (first, last) in [(behind, at(255)), (at(0), middle)] {
            assert!(set.insert(Interval { first, last }));
        }
        let whole = Interval {
            first: at(0),
            last: at(255),
        };
        assert_eq!(set.iter().collect::<Vec<_>>(), [whole]);
        assert!(!set.insert(whole));
    }
}

//! The leaves that two servers have in common, numbered as both number them.

use dkvs_common::ring::Position;

use super::arcs::bucket;
use crate::store::Interval;

/// The leaves of a depth that a server and another have in common.
pub struct SharedLeaves {
    depth: u8,
    /// By how much the depth of the server's own leaves is greater.
    finer_by: u8,
    /// Of each arc: its number among the server's, and the number of its first leaf.
    arcs: Vec<(usize, Interval, u32)>,
    leaves: u32,
}

impl SharedLeaves {
    pub(super) fn new(
        depth: u8,
        finer_by: u8,
        intervals: impl Iterator<Item = (usize, Interval)>,
    ) -> Self {
        let mut leaves = 0;
        let mut arcs = Vec::new();
        for (number, interval) in intervals {
            arcs.push((number, interval, leaves));
            leaves += interval.leaves(depth);
        }
        Self {
            depth,
            finer_by,
            arcs,
            leaves,
        }
    }

    /// Their depth.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.leaves
    }

    /// How many of the server's own leaves each of them has, at most.
    pub fn fineness(&self) -> u32 {
        1 << self.finer_by
    }

    /// So many leaves from one on, or as many as there are, as parts of the server's arcs: each with the
    /// number of the arc and the first and last bucket of the server's own depth.
    pub(super) fn parts(&self, first: u32, count: u32) -> impl Iterator<Item = (usize, [u32; 2])> {
        let end = first.saturating_add(count).min(self.leaves);
        let mut at = first;
        std::iter::from_fn(move || {
            let (arc, interval, arc_first) = self.arc_of(at).filter(|_| at < end)?;
            let last = (end - arc_first).min(interval.leaves(self.depth)) - 1;
            let begin = bucket(interval.first, self.depth);
            let shift = self.finer_by;
            let from = (begin + (at - arc_first)) << shift;
            let to = ((begin + last) << shift) | ((1 << shift) - 1);
            at = arc_first + last + 1;
            Some((arc, [from, to]))
        })
    }

    /// The positions of a leaf.
    pub fn positions(&self, leaf: u32) -> Option<Interval> {
        let (_, interval, first) = self.arc_of(leaf)?;
        Some(interval.leaf(self.depth, leaf - first))
    }

    /// The leaf in which a position lies, if it is in one.
    pub fn leaf_at(&self, position: Position) -> Option<u32> {
        let mut arcs = self.arcs.iter();
        let (_, interval, first) = arcs.find(|(_, interval, _)| interval.contains(position))?;
        let within = bucket(position, self.depth) - bucket(interval.first, self.depth);
        Some(first + within)
    }

    /// The arc in which a leaf is.
    fn arc_of(&self, leaf: u32) -> Option<(usize, Interval, u32)> {
        if leaf >= self.leaves {
            return None;
        }
        let behind = self.arcs.partition_point(|(_, _, first)| *first <= leaf);
        self.arcs.get(behind.checked_sub(1)?).copied()
    }
}

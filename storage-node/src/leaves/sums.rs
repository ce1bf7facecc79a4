//! A sum for each leaf of the arcs of which a server is a replica.

use std::collections::BTreeSet;
use std::hash::Hasher as _;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{LeafScope, LeafSum};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::RecordVersion;
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use siphasher::sip::SipHasher13;

use super::arcs::{Membership, OwnArc, bucket};
use super::shared::SharedLeaves;
use crate::store::{Interval, RecordChange, RecordStore as _, Store};

/// Records of a leaf, where a server has as many as the leaves were made for.
const LEAF_RECORDS: usize = 256;

const DEPTH_MAX: u8 = 20;

/// The sums of a server's leaves.
pub struct LeafSums {
    membership: Membership,
    depth: u8,
    /// In ring order, each with the number of its first leaf.
    arcs: Vec<(OwnArc, usize)>,
    leaves: Box<[Leaf]>,
    /// How many of them are not complete.
    incomplete: AtomicUsize,
    /// Whether any of them has a record that is not compared, or has had one.
    has_uncompared: AtomicBool,
    hash: SipHasher13,
}

/// The sum of a leaf. The two parts are not changed at once: who reads both may find them between two
/// changes, and looks again before acting on it.
#[derive(Default)]
struct Leaf {
    sum: AtomicU64,
    keys: AtomicU32,
    /// Whether there was a record since the start that is in no sum, since it came by DKVS/1.
    has_uncompared: AtomicBool,
    /// Whether the server holds at least what it ever confirmed there.
    is_complete: AtomicBool,
}

impl Leaf {
    fn is_answered(&self) -> bool {
        let is_complete = self.is_complete.load(Ordering::Acquire);
        is_complete && !self.has_uncompared.load(Ordering::Acquire)
    }
}

/// Whether a record is among those that replicas compare and pull.
pub(crate) fn is_compared(tag: Tag) -> bool {
    !tag.is_by_v1() || mutants::is_on(Mutant::V1Pulled)
}

impl LeafSums {
    /// The sums of what a store holds, as leaves that are as deep as is right for that, but at least so deep. From now on
    /// they follow the store's changes. None if something else follows them already.
    ///
    /// Nothing may change the store meanwhile.
    pub fn of(store: &Store, membership: Membership, depth_min: u8) -> Option<Arc<Self>> {
        let leaves = (store.len() / LEAF_RECORDS).max(1);
        let depth = leaves.next_power_of_two().ilog2() as u8;
        let depth = depth.clamp(depth_min, DEPTH_MAX);
        Self::with_depth(store, membership, depth)
    }

    /// The same with leaves of a depth.
    pub fn with_depth(store: &Store, membership: Membership, depth: u8) -> Option<Arc<Self>> {
        let sums = Arc::new(Self::new(membership, depth));
        let followed = Arc::clone(&sums);
        if !store.set_change_hook(Box::new(move |change| followed.note(change))) {
            return None;
        }
        store.scan(Position([0; 20]), None, |held| {
            sums.note(RecordChange {
                key: held.key(),
                position: Position::of_key_bytes(held.key()),
                old: None,
                new: Some(held.version()),
            });
            ControlFlow::Continue(())
        });
        let is_complete = store.is_complete();
        let is_answered = |range| is_complete || store.answers_for(range);
        for leaf in 0..sums.len() {
            if sums.positions(leaf).is_some_and(is_answered) {
                sums.complete(leaf);
            }
        }
        Some(sums)
    }

    fn new(membership: Membership, depth: u8) -> Self {
        let mut leaves = 0;
        let mut arcs = Vec::new();
        for arc in membership.arcs() {
            let first = leaves;
            leaves += arc.interval.leaves(depth) as usize;
            arcs.push((arc, first));
        }
        // What it is has to be the same at all servers, and is no secret: whoever chooses keys and values
        // does not choose the tags.
        let epoch = membership.view.ring().epoch();
        let hash = SipHasher13::new_with_keys(epoch.into(), membership.replication.into());
        Self {
            depth,
            arcs,
            leaves: (0..leaves).map(|_| Leaf::default()).collect(),
            incomplete: AtomicUsize::new(leaves),
            has_uncompared: AtomicBool::new(false),
            hash,
            membership,
        }
    }

    /// The server as part of its cluster.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The servers that are replicas of some key beside this one.
    pub fn peers(&self) -> BTreeSet<ServerId> {
        let replicas = self.arcs.iter().flat_map(|(arc, _)| &arc.replicas);
        let own = self.membership.own;
        replicas.copied().filter(|peer| *peer != own).collect()
    }

    /// The depth of its leaves.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The leaves that this server and another have in common, at a depth that is no greater than that
    /// of the sums.
    pub fn shared_with(&self, peer: ServerId, depth: u8) -> SharedLeaves {
        let shared = self.arcs.iter().enumerate();
        let shared = shared.filter(|(_, (arc, _))| arc.replicas.contains(&peer));
        let depth = depth.min(self.depth);
        SharedLeaves::new(
            depth,
            self.depth - depth,
            shared.map(|(number, (arc, _))| (number, arc.interval)),
        )
    }

    /// Which leaves asker and server have in common; none if they do not see the cluster alike.
    pub fn shared_in(&self, scope: &LeafScope) -> Option<SharedLeaves> {
        if scope.replication != self.membership.replication {
            return None;
        }
        let asker = self.membership.view.cluster().find(scope.asker)?;
        Some(self.shared_with(asker, scope.depth))
    }

    /// The sum of so many leaves from one on, or of as many as there are.
    pub fn sum(&self, shared: &SharedLeaves, first: u32, count: u32) -> LeafSum {
        let mut sum = LeafSum::default();
        for leaves in self.own_leaves(shared, first, count) {
            for leaf in &self.leaves[leaves] {
                sum.sum = sum.sum.wrapping_add(leaf.sum.load(Ordering::Acquire));
                sum.keys = sum.keys.saturating_add(leaf.keys.load(Ordering::Acquire));
            }
        }
        // After the sum, so that what was not compared before it is seen.
        if self.is_whole() && !self.has_uncompared.load(Ordering::Acquire) {
            sum.has_answered = true;
            return sum;
        }
        for leaves in self.own_leaves(shared, first, count) {
            for leaf in &self.leaves[leaves] {
                let is_answered = leaf.is_answered();
                sum.has_answered |= is_answered;
                sum.has_unanswered |= !is_answered;
            }
        }
        sum
    }

    /// The numbers of the server's own leaves that so many leaves from one on are made of.
    pub(crate) fn own_leaves(
        &self,
        shared: &SharedLeaves,
        first: u32,
        count: u32,
    ) -> impl Iterator<Item = Range<usize>> {
        let parts = shared.parts(first, count);
        parts.map(|(arc, buckets)| self.leaves_within(arc, buckets))
    }

    /// Those within an arc, from one bucket to another.
    fn leaves_within(&self, arc: usize, buckets: [u32; 2]) -> Range<usize> {
        let Some((arc, first)) = self.arcs.get(arc) else {
            return 0..0;
        };
        let begin = bucket(arc.interval.first, self.depth);
        let end = bucket(arc.interval.last, self.depth);
        let [from, to] = buckets.map(|bucket| bucket.clamp(begin, end) - begin);
        first + from as usize..first + to as usize + 1
    }

    /// How many leaves the server has.
    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Of each arc: the numbers of its leaves, and how many replicas its keys have.
    pub(crate) fn arcs(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let arcs = self.arcs.iter();
        arcs.map(|(arc, first)| {
            let leaves = *first..first + arc.interval.leaves(self.depth) as usize;
            (leaves, arc.replicas.len())
        })
    }

    /// The positions of a leaf.
    pub(crate) fn positions(&self, leaf: usize) -> Option<Interval> {
        let behind = self.arcs.partition_point(|(_, first)| *first <= leaf);
        let (arc, first) = self.arcs.get(behind.checked_sub(1)?)?;
        let number = u32::try_from(leaf - first).ok()?;
        (leaf < self.len()).then(|| arc.interval.leaf(self.depth, number))
    }

    /// The server holds at least what it ever confirmed of the keys of a leaf.
    pub(crate) fn complete(&self, leaf: usize) {
        if let Some(leaf) = self.leaves.get(leaf)
            && !leaf.is_complete.swap(true, Ordering::AcqRel)
        {
            self.incomplete.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// It may lack what it confirmed, wherever that lies.
    pub(crate) fn lose_all(&self) {
        for leaf in &self.leaves {
            if leaf.is_complete.swap(false, Ordering::AcqRel) {
                self.incomplete.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Whether it does.
    pub(crate) fn is_complete(&self, leaf: usize) -> bool {
        let leaf = self.leaves.get(leaf);
        leaf.is_some_and(|leaf| leaf.is_complete.load(Ordering::Acquire))
    }

    /// Whether it does so of all of its keys.
    pub(crate) fn is_whole(&self) -> bool {
        self.incomplete() == 0
    }

    /// In how many leaves it may not.
    pub fn incomplete(&self) -> usize {
        self.incomplete.load(Ordering::Acquire)
    }

    fn leaf_of(&self, position: Position) -> Option<&Leaf> {
        let ends_before = |(arc, _): &(OwnArc, usize)| arc.interval.last < position;
        let (arc, first) = self.arcs.get(self.arcs.partition_point(ends_before))?;
        if position < arc.interval.first {
            return None;
        }
        let number = bucket(position, self.depth) - bucket(arc.interval.first, self.depth);
        self.leaves.get(first + number as usize)
    }

    fn note(&self, change: RecordChange<'_>) {
        let Some(leaf) = self.leaf_of(change.position) else {
            return;
        };
        if change.new.is_some_and(|it| !is_compared(it.tag)) {
            // Before the sum lacks what it replaces.
            leaf.has_uncompared.store(true, Ordering::Release);
            self.has_uncompared.store(true, Ordering::Release);
        }
        let number = |version: Option<RecordVersion>| match version {
            Some(version) if is_compared(version.tag) => (self.number(change.key, version), 1),
            _ => (0, 0),
        };
        let ((old, had), (new, has)) = (number(change.old), number(change.new));
        leaf.sum.fetch_add(new.wrapping_sub(old), Ordering::Release);
        match (had, has) {
            (0, 1) => drop(leaf.keys.fetch_add(1, Ordering::Release)),
            (1, 0) => drop(leaf.keys.fetch_sub(1, Ordering::Release)),
            _ => {}
        }
    }

    /// What a record adds to a sum.
    fn number(&self, key: &[u8], version: RecordVersion) -> u64 {
        let mut hash = self.hash;
        if mutants::is_on(Mutant::SumsWithoutTags) {
            hash.write(key);
            return hash.finish();
        }
        hash.write_u64(version.tag.time.to_be());
        hash.write_u64(version.tag.op.to_be());
        hash.write_u32(version.checksum.to_be());
        hash.write_u32(version.born.to_be());
        hash.write(key);
        hash.finish()
    }
}

//! When a server that lost records answers for a part of the ring again, absent keys included.
//!
//! A leaf is complete once, after the server has run for [`Timing::settling`](super::Timing), it holds at
//! least what N - M + 1 of its other N - 1 replicas hold that answer for it themselves, where M is a
//! majority of N:
//!
//! * Every request that counted an answer which this server gave before the loss is over by then, so
//!   what it decided is on the replicas that decided it.
//! * Those were M at least, so M - 1 others, and N - M + 1 of the N - 1 others have one of these.
//! * That one answers for the leaf, so it holds what it ever confirmed, by this very argument if it has
//!   lost something as well.
//!
//! [Decision 033](../../../docs/decisions/033-completion.md) has the proof.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::quorum::params::majority;

use crate::leaves::LeafSums;
use crate::store::{RecordStore as _, Store};

/// How far a server is that lost records.
pub(super) struct Completing {
    leaf_sums: Arc<LeafSums>,
    /// What began before this counts for nothing.
    from: Instant,
    /// How many peers each leaf is still to be compared with; 0 if it is complete.
    required: Box<[u8]>,
    /// With which leaves each peer was compared, a bit for each.
    compared: BTreeMap<ServerId, Box<[u64]>>,
    /// Whether there is something that the store answers for, and would not after a restart.
    is_to_be_remembered: bool,
}

impl Completing {
    /// For a server with these sums; none if it is complete.
    pub(super) fn new(leaf_sums: &Arc<LeafSums>, from: Instant) -> Option<Self> {
        if leaf_sums.is_whole() {
            return None;
        }
        let mut required = vec![0; leaf_sums.len()].into_boxed_slice();
        for (leaves, replicas) in leaf_sums.arcs() {
            let n = u8::try_from(replicas).unwrap_or(u8::MAX);
            let mut others = n - majority(n) + 1;
            if mutants::is_on(Mutant::CompletedByFewer) {
                others -= 1;
            }
            for leaf in leaves.filter(|leaf| !leaf_sums.is_complete(*leaf)) {
                required[leaf] = others;
            }
        }
        Some(Self {
            leaf_sums: Arc::clone(leaf_sums),
            from,
            required,
            compared: BTreeMap::new(),
            is_to_be_remembered: false,
        })
    }

    /// When comparisons begin to count.
    pub(super) fn from(&self) -> Instant {
        self.from
    }

    /// Whether one that began then counts.
    pub(super) fn counts(&self, begun: Instant) -> bool {
        begun >= self.from || mutants::is_on(Mutant::CompletedWithoutWait)
    }

    /// The server holds at least what a peer holds in these leaves, which answers for them: of those for which
    /// that is enough, the store answers from now on.
    pub(super) fn note_compared(&mut self, peer: ServerId, leaves: Range<usize>, store: &Store) {
        let words = self.required.len().div_ceil(64);
        let bits = self.compared.entry(peer);
        let bits = bits.or_insert_with(|| vec![0; words].into_boxed_slice());
        for leaf in leaves {
            let (word, bit) = (leaf / 64, 1_u64 << (leaf % 64));
            let is_new = bits.get(word).is_some_and(|bits| bits & bit == 0);
            if !is_new || self.required[leaf] == 0 {
                continue;
            }
            bits[word] |= bit;
            self.required[leaf] -= 1;
            if self.required[leaf] == 0
                && let Some(range) = self.leaf_sums.positions(leaf)
            {
                store.attest_range(range);
                self.leaf_sums.complete(leaf);
                self.is_to_be_remembered = true;
            }
        }
    }

    /// Has the store remember what it answers for.
    pub(super) fn remember(&mut self, store: &Store) {
        if self.is_to_be_remembered && store.remember_attested().is_ok() {
            self.is_to_be_remembered = false;
        }
    }

    /// Whether everything is complete, and the store remembers that.
    pub(super) fn is_done(&self) -> bool {
        self.leaf_sums.is_whole() && !self.is_to_be_remembered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaves::Membership;
    use crate::store::disk::{Declaration, DiskStore, OpenOptions};
    use crate::store::{Interval, Lookup};
    use dkvs_common::cluster::Cluster;
    use dkvs_common::kv::Key;
    use dkvs_common::model::Durability;
    use dkvs_common::ring::Position;
    use dkvs_common::view::ClusterView;
    use dkvs_log::History;
    use dkvs_log::simulated::SimulatedDisk;

    fn incomplete() -> Store {
        let options = OpenOptions {
            declaration: Some(Declaration::Incomplete),
            ..OpenOptions::new(usize::MAX, Durability::Fsync, 1)
        };
        let disk = Arc::new(SimulatedDisk::default());
        let opened = DiskStore::open(disk, History([1; 16]), options);
        Store::Disk(opened.unwrap().store)
    }

    fn of_cluster(servers: usize, replication: u8) -> (Store, Arc<LeafSums>) {
        let line = |number: usize| format!("127.0.0.1 {} 2\n", 4_000 + number);
        let text: String = (0..servers).map(line).collect();
        let cluster = Cluster::parse("servers", text.as_bytes()).unwrap();
        let membership = Membership {
            view: Arc::new(ClusterView::first(cluster)),
            own: ServerId(0),
            replication,
        };
        let store = incomplete();
        let sums = LeafSums::with_depth(&store, membership, 4).unwrap();
        (store, sums)
    }

    #[test]
    fn a_leaf_is_complete_after_as_many_peers_as_meet_every_majority() {
        for (servers, required) in [
            (1, None),
            (2, Some(1)),
            (3, Some(2)),
            (4, Some(2)),
            (5, Some(3)),
        ] {
            let (store, sums) = of_cluster(servers, servers as u8);
            let mut completing = Completing::new(&sums, Instant::now()).unwrap();
            let mut complete_after = None;
            for peer in 1..servers {
                // Twice counts once.
                for _ in 0..2 {
                    completing.note_compared(ServerId(peer as u16), 0..sums.len(), &store);
                }
                if sums.is_whole() && complete_after.is_none() {
                    complete_after = Some(peer);
                }
            }
            assert_eq!(complete_after, required, "{servers} servers");
            let whole = Interval {
                first: Position([0; 20]),
                last: Position([0xff; 20]),
            };
            assert_eq!(store.answers_for(whole), required.is_some());
        }
    }

    #[test]
    fn each_leaf_is_complete_by_itself_and_what_the_server_is_no_replica_of_is_not() {
        let (store, sums) = of_cluster(5, 3);
        let mut completing = Completing::new(&sums, Instant::now()).unwrap();
        let leaf = sums.positions(1).unwrap();
        for peer in 1..5 {
            completing.note_compared(ServerId(peer), 1..2, &store);
        }
        assert!(store.answers_for(leaf) && sums.is_complete(1));
        assert_eq!(sums.incomplete(), sums.len() - 1);
        for number in 0..200 {
            let key = Key::new(format!("key {number}")).unwrap();
            let expected = match leaf.contains(Position::of_key(&key)) {
                true => Lookup::Absent,
                false => Lookup::Corrupt,
            };
            assert_eq!(store.head(&key), expected);
        }
        for peer in 1..5 {
            completing.note_compared(ServerId(peer), 0..sums.len(), &store);
        }
        assert!(
            sums.is_whole() && !completing.is_done(),
            "not yet remembered"
        );
        completing.remember(&store);
        assert!(completing.is_done());
        let foreign = (0..200).map(|number| Key::new(format!("key {number}")).unwrap());
        let foreign = foreign.filter(|key| store.head(key) == Lookup::Corrupt);
        assert!(
            foreign.count() > 20,
            "of five servers it has three in five keys"
        );
    }
}

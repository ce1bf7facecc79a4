use std::sync::Arc;

use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::kv::Key;
use dkvs_common::model::{LeafScope, LeafSum};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;
use proptest::prelude::*;

use super::*;
use crate::store::{MemoryStore, RecordStore as _, Store};

fn view(servers: usize, points: usize) -> Arc<ClusterView> {
    let line = |number: usize| format!("127.0.0.1 {} {points}\n", 4_000 + number);
    let text: String = (0..servers).map(line).collect();
    Arc::new(ClusterView::first(
        Cluster::parse("servers", text.as_bytes()).unwrap(),
    ))
}

fn member(view: &Arc<ClusterView>, own: usize) -> Membership {
    Membership {
        view: Arc::clone(view),
        own: ServerId(own as u16),
        replication: 3,
    }
}

fn key(number: usize) -> Key {
    Key::new(format!("key {number}")).unwrap()
}

fn record(number: usize, time: u64) -> Record {
    Record::new(&key(number), Tag { time, op: 2 }, Content::Tombstone)
}

fn put(store: &Store, number: usize, time: u64) {
    let put = store.apply(&key(number), &record(number, time), || Box::new(drop));
    put.unwrap().unwrap();
}

fn empty() -> Store {
    Store::Memory(MemoryStore::new(usize::MAX))
}

fn all(sums: &LeafSums, shared: &SharedLeaves) -> LeafSum {
    sums.sum(shared, 0, u32::MAX)
}

#[test]
fn sums_follow_the_store_whether_records_were_there_before_or_came_later() {
    let view = view(3, 4);
    let (early, late) = (empty(), empty());
    for number in 0..100 {
        put(&early, number, 5);
    }
    let early = LeafSums::with_depth(&early, member(&view, 0), 6).unwrap();
    let late_sums = LeafSums::with_depth(&late, member(&view, 1), 6).unwrap();
    for number in (0..100).rev() {
        put(&late, number, 4);
    }
    let shared = |sums: &Arc<LeafSums>, peer| {
        let shared = sums.shared_with(ServerId(peer), 6);
        (shared.count(), all(sums, &shared))
    };
    let (count, sum) = shared(&early, 1);
    let (late_count, late_sum) = shared(&late_sums, 0);
    assert_eq!((count, sum.keys), (late_count, late_sum.keys));
    assert_eq!(sum.keys, 100, "of three servers each has every key");
    assert_ne!(sum.sum, late_sum.sum, "the tags differ");
    for number in 0..100 {
        put(&late, number, 5);
    }
    assert_eq!(shared(&late_sums, 0), (count, sum));
    late.remove(&key(7), Tag { time: 5, op: 2 }, || Box::new(drop));
    assert_eq!(shared(&late_sums, 0).1.keys, 99);
    put(&late, 7, 5);
    assert_eq!(shared(&late_sums, 0), (count, sum));
}

#[test]
fn a_store_is_followed_once_and_what_came_by_dkvs_1_is_in_no_sum() {
    let view = view(3, 4);
    let store = empty();
    let sums = LeafSums::of(&store, member(&view, 0), 14).unwrap();
    assert!(LeafSums::of(&store, member(&view, 0), 14).is_none());
    let content = Content::Tombstone;
    let mint = || -> crate::store::MintTag {
        Box::new(|_| {
            let tag = dkvs_common::tag::TagClock::for_v1(1).mint(1_000, Tag::ZERO);
            assert!(tag.unwrap().is_by_v1());
            tag
        })
    };
    let put_by_v1 = |number| {
        let put = store.apply_next(&key(number), &content, mint(), || Box::new(drop));
        put.unwrap().unwrap();
    };
    put_by_v1(1);
    let shared = |sums: &Arc<LeafSums>| {
        let sum = all(sums, &sums.shared_with(ServerId(1), 14));
        // It answers for no leaf in which there was such a record, and for all others.
        assert!(sum.has_answered && sum.has_unanswered);
        (sum.sum, sum.keys)
    };
    assert_eq!(shared(&sums), (0, 0));
    put(&store, 2, 1);
    put_by_v1(2);
    assert_eq!(shared(&sums), (0, 0), "it took the place of another");
}

#[test]
fn servers_that_see_the_cluster_otherwise_have_nothing_in_common() {
    let (view, store) = (view(5, 4), empty());
    let sums = LeafSums::with_depth(&store, member(&view, 0), 8).unwrap();
    let scope = |port, replication| LeafScope {
        asker: std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port),
        replication,
        depth: 8,
    };
    let count = |scope| sums.shared_in(&scope).map(|shared| shared.count());
    assert!(count(scope(4_001, 3)).is_some_and(|count| count > 0));
    assert_eq!(count(scope(4_001, 2)), None);
    assert_eq!(count(scope(5_000, 3)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Both servers of a pair number the same leaves, whatever the depth; the leaves are those parts of
    /// the ring, each once, of whose keys both are replicas; and a sum is of what lies there.
    #[test]
    fn leaves_are_the_same_on_both_sides_and_have_what_lies_in_them(
        servers in 2..8usize,
        points in 1..6usize,
        depths in (0..12u8, 0..12u8),
        keys in prop::collection::btree_map(0..10_000usize, 1..50u64, 1..300),
        from in any::<prop::sample::Index>(),
        count in 0..200u32,
    ) {
        let view = view(servers, points);
        let (fine, coarse) = (depths.0.max(depths.1), depths.0.min(depths.1));
        let sums = [(0, fine), (1, coarse)].map(|(own, depth)| {
            let store = empty();
            for (number, time) in &keys {
                put(&store, *number, *time);
            }
            LeafSums::with_depth(&store, member(&view, own), depth).unwrap()
        });
        let [one, other] = [(0, 1), (1, 0)].map(|(own, peer): (usize, u16)| {
            sums[own].shared_with(ServerId(peer), coarse)
        });
        prop_assert_eq!(one.count(), other.count());
        let is_shared = |key: &Key| {
            let list = view.ring().preference_list(Position::of_key(key), 3);
            [0, 1].iter().all(|id| list.iter().any(|point| point.server == ServerId(*id)))
        };
        let shared: Vec<Key> =
            keys.keys().map(|number| key(*number)).filter(is_shared).collect();
        prop_assert_eq!(all(&sums[0], &one).keys as usize, shared.len());
        prop_assert_eq!(all(&sums[0], &one), all(&sums[1], &other));
        let lies_in = |leaf: u32, key: &Key| {
            one.positions(leaf).unwrap().contains(Position::of_key(key))
        };
        for key in &shared {
            prop_assert_eq!((0..one.count()).filter(|leaf| lies_in(*leaf, key)).count(), 1);
        }
        for leaf in 0..one.count() {
            prop_assert_eq!(one.positions(leaf), other.positions(leaf));
        }
        prop_assert_eq!(one.positions(one.count()), None);
        if one.count() > 0 {
            let first = from.index(one.count() as usize) as u32;
            let end = first.saturating_add(count).min(one.count());
            let inside = shared.iter().filter(|key| (first..end).any(|leaf| lies_in(leaf, key)));
            prop_assert_eq!(sums[0].sum(&one, first, count).keys as usize, inside.count());
            prop_assert_eq!(sums[0].sum(&one, first, count), sums[1].sum(&other, first, count));
        }
    }
}

//! What a changed servers file means for the keys that are stored already.
//!
//! No record moves by itself. So a key can be read afterwards only if a majority of its new
//! replicas held it before.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddrV4;

use dkvs_common::cluster::Cluster;
use dkvs_common::ring::{Position, Ring};

/// How many servers keep each key, as gateways have it by default.
pub const REPLICATION: usize = 3;

/// What differs between two servers files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingChange {
    /// The servers that are in the second alone.
    pub joined: Vec<SocketAddrV4>,
    /// The servers that are in the first alone.
    pub left: Vec<SocketAddrV4>,
    /// The servers with another number of ring points.
    pub reweighted: Vec<SocketAddrV4>,
    /// Whether every key has a majority of servers that kept it before, with [`REPLICATION`].
    pub keeps_majorities: bool,
}

impl RingChange {
    /// From one to another.
    pub fn between(old: &Cluster, new: &Cluster) -> Self {
        let points = |cluster: &Cluster| -> BTreeMap<_, _> {
            let servers = cluster.servers().iter();
            servers.map(|it| (it.addr, it.ring_points)).collect()
        };
        let (before, after) = (points(old), points(new));
        let only = |of: &BTreeMap<SocketAddrV4, u32>, not: &BTreeMap<SocketAddrV4, u32>| {
            let addrs = of.keys().filter(|addr| !not.contains_key(*addr));
            addrs.copied().collect()
        };
        let is_reweighted = |(addr, points): &(&SocketAddrV4, &u32)| {
            before.get(addr).is_some_and(|was| was != *points)
        };
        Self {
            joined: only(&after, &before),
            left: only(&before, &after),
            reweighted: after
                .iter()
                .filter(is_reweighted)
                .map(|(addr, _)| *addr)
                .collect(),
            keeps_majorities: keeps_majorities(old, new),
        }
    }
}

/// Looks at every arc between two ring points of either ring: all of its keys have one preference
/// list.
fn keeps_majorities(old: &Cluster, new: &Cluster) -> bool {
    let rings = [Lists::new(old), Lists::new(new)];
    let mut ends = rings.iter().flat_map(|lists| lists.ring.points());
    ends.all(|end| {
        let [before, after] = rings.each_ref().map(|lists| lists.at(end.position));
        let is_held = |addr: &&Option<SocketAddrV4>| addr.is_some() && before.contains(addr);
        let held = after.iter().filter(is_held).count();
        held > after.iter().flatten().count() / 2
    })
}

/// The servers of the keys of every arc of a ring; fewer than [`REPLICATION`] if there are no more.
struct Lists {
    ring: Ring,
    /// Of the arc that ends at each ring point.
    lists: Vec<[Option<SocketAddrV4>; REPLICATION]>,
}

impl Lists {
    /// In one walk backwards, twice round the ring, so that the last arcs know the first points.
    fn new(cluster: &Cluster) -> Self {
        let ring = Ring::new(cluster);
        let points = ring.points();
        let mut lists = vec![[None; REPLICATION]; points.len()];
        let mut list = [None; REPLICATION];
        for number in (0..points.len()).rev().cycle().take(2 * points.len()) {
            let first = Some(cluster.servers()[points[number].server.index()].addr);
            let others = list
                .into_iter()
                .filter(|addr| *addr != first && addr.is_some());
            let mut next = std::iter::once(first).chain(others);
            list = std::array::from_fn(|_| next.next().flatten());
            lists[number] = list;
        }
        Self { ring, lists }
    }

    fn at(&self, position: Position) -> [Option<SocketAddrV4>; REPLICATION] {
        let points = self.ring.points();
        let number = points.partition_point(|point| point.position < position);
        self.lists[number % points.len()]
    }
}

impl fmt::Display for RingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        for (servers, what) in [
            (&self.joined, "joined"),
            (&self.left, "left"),
            (&self.reweighted, "has other ring points"),
        ] {
            for server in servers {
                let comma = if is_first { "" } else { ", " };
                write!(f, "{comma}{server} {what}")?;
                is_first = false;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::cluster::Server;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn every_arc_has_the_list_of_a_walk() {
        for servers in [
            vec![(1, 1)],
            vec![(1, 1), (2, 3)],
            (1..9).map(|it| (it, 7)).collect(),
        ] {
            let cluster = cluster(servers);
            let lists = Lists::new(&cluster);
            for point in lists.ring.points() {
                let walk = lists
                    .ring
                    .preference_list(point.position, REPLICATION.min(cluster.servers().len()));
                let walk = walk
                    .iter()
                    .map(|it| cluster.servers()[it.server.index()].addr);
                let list = lists.at(point.position);
                assert_eq!(
                    list.into_iter().flatten().collect::<Vec<_>>(),
                    walk.collect::<Vec<_>>()
                );
            }
        }
    }

    fn cluster(servers: impl IntoIterator<Item = (u16, u32)>) -> Cluster {
        let server = |(port, ring_points)| Server {
            addr: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            ring_points,
        };
        let servers: Vec<_> = servers.into_iter().map(server).collect();
        Cluster::from_servers(&servers).unwrap()
    }

    fn of(ports: std::ops::Range<u16>) -> Cluster {
        cluster(ports.map(|port| (port, 64)))
    }

    #[test]
    fn what_changed_is_named() {
        let old = cluster([(1, 64), (2, 64), (3, 64), (4, 64)]);
        let new = cluster([(1, 64), (2, 64), (3, 128), (5, 64)]);
        let change = RingChange::between(&old, &new);
        assert_eq!(
            change.to_string(),
            "127.0.0.1:5 joined, 127.0.0.1:4 left, 127.0.0.1:3 has other ring points"
        );
        let none = RingChange::between(&old, &old);
        assert!(none.keeps_majorities && none.to_string().is_empty());
    }

    #[test]
    fn one_at_a_time_keeps_majorities_and_two_do_not() {
        for (old, new, keeps) in [
            (of(1..6), of(1..7), true),
            (of(1..6), of(1..8), false),
            (of(1..6), of(2..6), true),
            (of(1..6), of(3..6), false),
            // One moves to another address.
            (of(1..6), of(2..7), true),
            (of(1..4), of(1..5), true),
            // From two copies of each key to three, one of them on the new server.
            (of(1..3), of(1..4), true),
            // From one copy to two: both would have to be asked.
            (of(1..2), of(1..3), false),
            (of(1..6), of(11..16), false),
        ] {
            let change = RingChange::between(&old, &new);
            assert_eq!(change.keeps_majorities, keeps, "{change}");
        }
    }

    proptest! {
        /// A server more or less takes one place of a list at most.
        #[test]
        fn any_single_server_may_join_or_leave(
            points in prop::collection::vec(1..40u32, 4..9),
            changed in 0..4usize,
        ) {
            let all: Vec<_> = (1..).zip(points).collect();
            let mut fewer = all.clone();
            fewer.remove(changed);
            let (all, fewer) = (cluster(all), cluster(fewer));
            prop_assert!(RingChange::between(&fewer, &all).keeps_majorities);
            prop_assert!(RingChange::between(&all, &fewer).keeps_majorities);
        }
    }
}

//! The ring: where keys and servers meet, exactly as the C clients compute it.
//!
//! ```text
//!            key                       position of a key:        SHA-1(key bytes)
//!             |                        position of a ring point: SHA-1("<IP> <port> <id>"), id from 1
//!             v
//!  --A1----C1----B1--A2--B2----C2--    a key's walk starts at the first ring point at or after
//!             └──> └──> └──> ...       its own position, wraps at the end, and takes each server
//!                                      the first time it is met: C1? no, B1, A2, C2 for n = 3
//! ```
//!
//! Consistent hashing with virtual nodes: Karger et al. 1997; DeCandia et al., "Dynamo", 2007.

use std::fmt;
use std::net::SocketAddrV4;

use sha1::{Digest, Sha1};

use crate::cluster::{Cluster, ServerId};
use crate::hex::Digits;
use crate::kv::Key;
use crate::mutants::{self, Mutant};
use crate::server_map::ServerMap;

/// A place on the ring: a SHA-1 digest, compared as a 20-byte big-endian number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub [u8; 20]);

impl Position {
    /// Where a key lies.
    pub fn of_key(key: &Key) -> Self {
        Self::of_key_bytes(key.as_bytes())
    }

    /// Where the key of these bytes lies, for callers that hold keys in a form of their own.
    pub fn of_key_bytes(key: &[u8]) -> Self {
        Self(Sha1::digest(key).into())
    }

    /// The position right after it; the last has none.
    pub fn next(self) -> Option<Self> {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (sum, has_wrapped) = byte.overflowing_add(1);
            *byte = sum;
            if !has_wrapped {
                return Some(Self(bytes));
            }
        }
        None
    }

    /// Where a server's ring point number `id` lies; ids count from 1.
    pub fn of_ring_point(server: SocketAddrV4, id: u32) -> Self {
        let name = format!("{} {} {id}", server.ip(), server.port());
        Self(Sha1::digest(name.as_bytes()).into())
    }

    /// The position as a share of the whole ring, from 0 to 1, to the precision of an `f64`.
    fn as_fraction(self) -> f64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) as f64 / 2f64.powi(64)
    }
}

impl Position {
    /// 40 hexadecimal digits.
    pub fn digits(&self) -> Digits<40> {
        Digits::new(&self.0)
    }
}

impl fmt::Display for Position {
    /// 40 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits().as_str())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}

/// One position of a server on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RingPoint {
    /// Where it lies.
    pub position: Position,
    /// Whose it is.
    pub server: ServerId,
}

/// All ring points of a cluster, in ring order.
#[derive(Debug, Clone)]
pub struct Ring {
    points: Vec<RingPoint>,
    servers: usize,
}

/// The distinct servers of a key in ring order, each with the ring point at which it was met.
pub type PreferenceList = Vec<RingPoint>;

impl Ring {
    /// Places every server of `cluster`.
    pub fn new(cluster: &Cluster) -> Self {
        let mut points: Vec<RingPoint> = cluster
            .iter()
            .flat_map(|(id, server)| {
                (1..=server.ring_points).map(move |point| RingPoint {
                    position: Position::of_ring_point(server.addr, point),
                    server: id,
                })
            })
            .collect();
        points.sort_unstable();
        Self {
            points,
            servers: cluster.servers().len(),
        }
    }

    /// Every ring point, in ring order.
    pub fn points(&self) -> &[RingPoint] {
        &self.points
    }

    /// The first `n` distinct servers at or after `key`; all servers, if there are fewer than `n`.
    pub fn preference_list(&self, key: Position, n: usize) -> PreferenceList {
        let n = n.min(self.servers);
        let mut list = PreferenceList::with_capacity(n);
        let start = self.points.partition_point(|point| point.position < key);
        let (before, after) = self.points.split_at(start);
        for point in after.iter().chain(before) {
            if list.len() == n {
                break;
            }
            let has_wrapped = mutants::is_on(Mutant::WrongSetAfterWrap) && point.position < key;
            if has_wrapped || !list.iter().any(|met| met.server == point.server) {
                list.push(*point);
            }
        }
        list
    }

    /// For each server, the share of the key space for which it stands first in the preference
    /// list. The shares add up to 1.
    pub fn shares(&self) -> ServerMap<f64> {
        let mut shares = ServerMap::default();
        let Some(last) = self.points.last() else {
            return shares;
        };
        let mut from = last.position.as_fraction() - 1.0;
        for point in &self.points {
            let to = point.position.as_fraction();
            *shares.get_or_insert_with(point.server, || 0.0) += to - from;
            from = to;
        }
        shares
    }

    /// A number that two rings share exactly when they place the same servers at the same
    /// positions (but for a chance of 1 in 2^32): FNV-1a over all positions in ring order, each
    /// of which already names its server.
    pub fn epoch(&self) -> u32 {
        let bytes = self.points.iter().flat_map(|point| point.position.0);
        bytes.fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_each_position_comes_the_next_and_none_after_the_last() {
        let position = |end: &[u8]| {
            let mut bytes = [0xab; 20];
            bytes[20 - end.len()..].copy_from_slice(end);
            Position(bytes)
        };
        for (end, next) in [
            (&[0, 0][..], &[0, 1][..]),
            (&[0, 0xff], &[1, 0]),
            (&[7, 0xff, 0xff], &[8, 0, 0]),
        ] {
            assert_eq!(position(end).next(), Some(position(next)));
        }
        assert_eq!(Position([0xff; 20]).next(), None);
    }

    fn ring(text: &str) -> (Cluster, Ring) {
        let cluster = Cluster::parse("test", text.as_bytes()).unwrap();
        let ring = Ring::new(&cluster);
        (cluster, ring)
    }

    #[test]
    fn three_servers_stand_in_the_published_order() {
        let (cluster, ring) = ring("127.0.0.1 1234 1\n127.0.0.1 1235 1\n127.0.0.1 1236 1\n");
        let order: Vec<String> = ring
            .points()
            .iter()
            .map(|point| {
                let port = cluster.addr(point.server).unwrap().port();
                format!("{port} {}", &point.position.to_string()[..8])
            })
            .collect();
        assert_eq!(order, ["1236 93149f86", "1234 aa66f3e5", "1235 c484ea9b"]);
    }

    #[test]
    fn a_key_exactly_on_a_ring_point_belongs_to_it() {
        let (_, ring) = ring("127.0.0.1 1234 1\n127.0.0.1 1235 1\n127.0.0.1 1236 1\n");
        for (index, point) in ring.points().iter().enumerate() {
            assert_eq!(ring.preference_list(point.position, 1), [*point]);
            let mut past = point.position;
            past.0[19] += 1;
            let next = ring.points()[(index + 1) % 3];
            assert_eq!(ring.preference_list(past, 1), [next]);
        }
    }

    #[test]
    fn many_ring_points_give_distinct_servers_and_never_more_than_there_are() {
        let (_, ring) = ring("127.0.0.1 1 50\n127.0.0.1 2 1\n127.0.0.1 3 2\n");
        for first in 0..=255 {
            let mut position = Position([0; 20]);
            position.0[0] = first;
            for n in 0..6 {
                let list = ring.preference_list(position, n);
                assert_eq!(list.len(), n.min(3));
                let mut servers: Vec<_> = list.iter().map(|point| point.server).collect();
                servers.sort_unstable();
                servers.dedup();
                assert_eq!(servers.len(), list.len());
            }
        }
    }

    #[test]
    fn shares_add_up_and_match_counted_keys() {
        let (_, ring) = ring("127.0.0.1 1 20\n127.0.0.1 2 40\n127.0.0.1 3 80\n");
        let shares = ring.shares();
        assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);

        let keys: u32 = 50_000;
        let mut counted: ServerMap<u32> = ServerMap::default();
        for number in 0..keys {
            let key = Key::new(number.to_string()).unwrap();
            let list = ring.preference_list(Position::of_key(&key), 1);
            *counted.get_or_insert_with(list[0].server, || 0) += 1;
        }
        for (server, share) in shares.iter() {
            let count = counted.get(server).copied().unwrap_or(0);
            assert!((share - f64::from(count) / f64::from(keys)).abs() < 0.01);
        }
    }

    #[test]
    fn epoch_changes_with_the_cluster_and_only_with_it() {
        let text = "127.0.0.1 1 2\n127.0.0.1 2 2\n";
        let reordered = "# the same two\n127.0.0.1 2 2\n127.0.0.1 1 2\n";
        assert_eq!(ring(text).1.epoch(), ring(reordered).1.epoch());
        assert_ne!(ring(text).1.epoch(), ring("127.0.0.1 1 2\n").1.epoch());
        assert_ne!(
            ring(text).1.epoch(),
            ring("127.0.0.1 1 2\n127.0.0.1 2 3\n").1.epoch()
        );
    }
}

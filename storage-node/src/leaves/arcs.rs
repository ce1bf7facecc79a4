//! Which parts of the ring a server is a replica of, and with whom.

use std::sync::Arc;

use dkvs_common::cluster::ServerId;
use dkvs_common::ring::Position;
use dkvs_common::view::ClusterView;

use crate::store::Interval;

/// A server as part of its cluster.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The cluster.
    pub view: Arc<ClusterView>,
    /// Which of its servers this is.
    pub own: ServerId,
    /// How many replicas each key has.
    pub replication: u8,
}

/// An interval of the ring whose keys have these replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnArc {
    pub(super) interval: Interval,
    pub(super) replicas: Vec<ServerId>,
}

impl Membership {
    /// The arcs of which the server is a replica, in ring order. The arc over the end of the ring is two.
    pub(super) fn arcs(&self) -> Vec<OwnArc> {
        let ring = self.view.ring();
        let points = ring.points();
        let (Some(first_point), Some(last_point)) = (points.first(), points.last()) else {
            return Vec::new();
        };
        let arc = |first: Position, last: Position| {
            let list = ring.preference_list(last, self.replication.into());
            let replicas: Vec<ServerId> = list.iter().map(|point| point.server).collect();
            let interval = Interval { first, last };
            let is_own = replicas.contains(&self.own);
            is_own.then_some(OwnArc { interval, replicas })
        };
        let mut arcs = Vec::new();
        arcs.extend(arc(Position([0; 20]), first_point.position));
        for two in points.windows(2) {
            if let Some(first) = two[0].position.next() {
                arcs.extend(arc(first, two[1].position));
            }
        }
        if let Some(first) = last_point.position.next() {
            arcs.extend(arc(first, Position([0xff; 20])));
        }
        arcs
    }
}

/// The first bits of a position, so many of them.
pub(super) fn bucket(position: Position, depth: u8) -> u32 {
    let [a, b, c, d, ..] = position.0;
    let bits = u32::from_be_bytes([a, b, c, d]);
    bits.checked_shr(32 - u32::from(depth)).unwrap_or(0)
}

impl Interval {
    /// How many leaves of a depth it has.
    pub(in crate::leaves) fn leaves(self, depth: u8) -> u32 {
        bucket(self.last, depth) - bucket(self.first, depth) + 1
    }

    /// The leaf of this number.
    pub(in crate::leaves) fn leaf(self, depth: u8, number: u32) -> Self {
        let bucket = bucket(self.first, depth) + number;
        let shift = 32 - u32::from(depth);
        let first = bucket.checked_shl(shift).unwrap_or(0);
        let last = match shift {
            32 => u32::MAX,
            _ => first | ((1 << shift) - 1),
        };
        let position = |bits: u32, rest: u8| {
            let mut bytes = [rest; 20];
            bytes[..4].copy_from_slice(&bits.to_be_bytes());
            Position(bytes)
        };
        Self {
            first: self.first.max(position(first, 0)),
            last: self.last.min(position(last, 0xff)),
        }
    }
}

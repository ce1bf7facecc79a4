//! A write to three replicas, and what they answer.

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::quorum::level::Level;
use crate::quorum::params::Quorum;
use crate::quorum::write::{Write, WriteReply};
use crate::quorum::{Ask, Transmit};
use crate::ring::{Position, PreferenceList, RingPoint};
use crate::tag::Tag;
use crate::testing::start_of_time;

pub(super) const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

pub(super) fn list() -> PreferenceList {
    let point = |server| RingPoint {
        position: Position([0; 20]),
        server,
    };
    SERVERS.map(point).to_vec()
}

/// A write at the agreement level, in the round after the first tag.
pub(super) fn write(w: u8) -> (Write, Instant) {
    let now = start_of_time();
    let quorum = Quorum::new(3, w).unwrap();
    let deadline = now + Duration::from_secs(1);
    let mut write = Write::new(list(), quorum, Level::Agreement, now, deadline);
    assert_eq!(write.wants_tag_above(), Some(Tag::ZERO));
    store(&mut write, 1);
    (write, now)
}

pub(super) fn tag(time: u64) -> Tag {
    Tag { time, op: 0 }
}

pub(super) fn superseded(time: u64) -> WriteReply {
    WriteReply::Superseded(tag(time))
}

/// Begins a round under the tag of this time.
pub(super) fn store(write: &mut Write, time: u64) {
    write.begin_round(tag(time));
    let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
    let to_store = SERVERS.map(|to| Transmit { to, ask: Ask::Put });
    assert_eq!(asked, to_store);
}

/// A linearizable write of which all replicas were asked for their tags.
pub(super) fn linearizable(w: u8) -> (Write, Instant) {
    let now = start_of_time();
    let deadline = now + Duration::from_secs(1);
    let quorum = Quorum::new(3, w).unwrap();
    let mut write = Write::new(list(), quorum, Level::Linearizable, now, deadline);
    let asked: Vec<_> = std::iter::from_fn(|| write.poll_transmit()).collect();
    assert_eq!(asked, SERVERS.map(|to| Transmit { to, ask: Ask::Tag }));
    (write, now)
}

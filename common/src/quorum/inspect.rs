//! What each replica of a key holds now, as it says itself. Nothing is decided by it, read or repaired.
//!
//! Every replica is asked once for the digest of its record. It ends when all have answered, or at its
//! deadline.

use std::time::Instant;

use super::tally::{Replica, ReplicaState, Tally};
use super::transmit::{CommandId, Purpose, Transmit};
use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{Refusal, ReplicaCommand, ReplicaResponse};
use crate::ring::PreferenceList;
use crate::tag::Tag;

/// What a replica holds of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// A value.
    Value {
        /// Which version.
        tag: Tag,
        /// The value's length in bytes.
        value_bytes: u32,
        /// The record's checksum, which is of key, tag, media type and value.
        checksum: u32,
    },
    /// A tombstone with this tag.
    Tombstone(Tag),
    /// Nothing.
    Absent,
    /// It does not say.
    Refused(Refusal),
}

impl Holding {
    /// The version that is held, if one is.
    pub fn tag(self) -> Option<Tag> {
        match self {
            Self::Value { tag, .. } | Self::Tombstone(tag) => Some(tag),
            Self::Absent | Self::Refused(_) => None,
        }
    }

    /// Whether it is a record that came by DKVS/1. Each replica gave it a tag of its own.
    pub fn is_by_v1(self) -> bool {
        self.tag().is_some_and(Tag::is_by_v1)
    }
}

impl From<ReplicaResponse> for Holding {
    fn from(response: ReplicaResponse) -> Self {
        match response {
            ReplicaResponse::Digest {
                tag,
                value_bytes,
                checksum,
                ..
            } => Self::Value {
                tag,
                value_bytes,
                checksum,
            },
            ReplicaResponse::Absent { tag, .. } if tag == Tag::ZERO => Self::Absent,
            ReplicaResponse::Absent { tag, .. } => Self::Tombstone(tag),
            ReplicaResponse::Refused(refusal) => Self::Refused(refusal),
            // It does not fit.
            _ => Self::Refused(Refusal::Internal),
        }
    }
}

/// A question to all replicas of a key.
#[derive(Debug)]
pub struct Inspect {
    key: Key,
    tally: Tally<Holding>,
    /// How many of the replicas have been asked.
    sent: usize,
}

impl Inspect {
    /// One of which nothing was sent yet.
    pub fn new(key: Key, list: PreferenceList, now: Instant) -> Self {
        Self {
            key,
            tally: Tally::new(list, now),
            sent: 0,
        }
    }

    /// The next command to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let to = self.tally.servers().nth(self.sent)?;
        self.sent += 1;
        let key = self.key.clone();
        Some(Transmit {
            to,
            id: CommandId {
                round: 0,
                purpose: Purpose::GetDigest,
            },
            command: ReplicaCommand::GetDigest { key },
        })
    }

    /// A replica responded.
    pub fn handle_response(&mut self, from: ServerId, response: ReplicaResponse, now: Instant) {
        let state = ReplicaState::Responded(Holding::from(response));
        self.tally.record(from, state, now);
    }

    /// A replica cannot be reached.
    pub fn handle_unreachable(&mut self, to: ServerId, now: Instant) {
        self.tally.record(to, ReplicaState::Unreachable, now);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self) {
        self.tally.expire();
    }

    /// Whether no replica is waited for any more.
    pub fn is_complete(&self) -> bool {
        self.tally.pending() == 0
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<Holding>] {
        self.tally.replicas()
    }

    /// The newest of the versions that are held. Those that came by DKVS/1 do not count: their tags do
    /// not say which was written last.
    pub fn newest(&self) -> Option<Tag> {
        let tags = self.holdings().filter_map(Holding::tag);
        tags.filter(|tag| !tag.is_by_v1()).max()
    }

    /// Whether all replicas hold the same. None if that is not known: those that said what they hold
    /// do, but others did not say, or it came by DKVS/1.
    pub fn is_in_step(&self) -> Option<bool> {
        let (by_v1, others): (Vec<_>, Vec<_>) = self.holdings().partition(|it| it.is_by_v1());
        if !by_v1.is_empty() && !others.is_empty() || others.windows(2).any(|two| two[0] != two[1])
        {
            return Some(false);
        }
        (others.len() == self.replicas().len()).then_some(true)
    }

    /// What the replicas hold that say so.
    fn holdings(&self) -> impl Iterator<Item = Holding> {
        let responses = self.tally.responses().copied();
        responses.filter(|it| !matches!(it, Holding::Refused(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Attributes;
    use crate::ring::{Position, RingPoint};
    use crate::tag::TagClock;
    use crate::testing::start_of_time;

    const OLD: Tag = Tag { time: 1, op: 9 };
    const NEW: Tag = Tag { time: 2, op: 5 };

    fn inspect() -> Inspect {
        let point = |server| RingPoint {
            position: Position([0; 20]),
            server: ServerId(server),
        };
        let list = [4, 2, 9].map(point).to_vec();
        Inspect::new(Key::new("k").unwrap(), list, start_of_time())
    }

    fn value(tag: Tag, checksum: u32) -> ReplicaResponse {
        ReplicaResponse::Digest {
            tag,
            attributes: Attributes::NONE,
            value_bytes: 3,
            checksum,
        }
    }

    /// The same of replicas that respond this; none is unreachable.
    fn asked(responses: [Option<ReplicaResponse>; 3]) -> Inspect {
        let (mut inspect, now) = (inspect(), start_of_time());
        for response in responses {
            assert!(!inspect.is_complete());
            let transmit = inspect.poll_transmit().unwrap();
            match response {
                Some(response) => inspect.handle_response(transmit.to, response, now),
                None => inspect.handle_unreachable(transmit.to, now),
            }
        }
        assert!(inspect.is_complete());
        assert_eq!(inspect.poll_transmit(), None);
        inspect
    }

    #[test]
    fn each_replica_is_asked_once_and_counts_once() {
        let (mut inspect, now) = (inspect(), start_of_time());
        let asked: Vec<_> = std::iter::from_fn(|| inspect.poll_transmit()).collect();
        let servers: Vec<_> = asked.iter().map(|transmit| transmit.to.0).collect();
        assert_eq!(servers, [4, 2, 9]);
        for (from, tag) in [(2, OLD), (2, NEW), (3, NEW)] {
            inspect.handle_response(ServerId(from), value(tag, 7), now);
        }
        inspect.handle_timeout();
        inspect.handle_response(ServerId(4), value(NEW, 7), now);
        assert!(inspect.is_complete());
        let states: Vec<_> = inspect.replicas().iter().map(|it| it.state).collect();
        let held = Holding::from(value(OLD, 7));
        let timed_out = ReplicaState::TimedOut;
        assert_eq!(
            states,
            [timed_out, ReplicaState::Responded(held), timed_out]
        );
    }

    #[test]
    fn a_response_that_does_not_fit_is_an_internal_error() {
        let tag = ReplicaResponse::Tag { tag: NEW };
        assert_eq!(Holding::from(tag), Holding::Refused(Refusal::Internal));
        let absent = |tag| Holding::from(ReplicaResponse::absent(tag));
        assert_eq!(absent(Tag::ZERO), Holding::Absent);
        assert_eq!(absent(OLD), Holding::Tombstone(OLD));
    }

    #[test]
    fn replicas_are_in_step_if_all_say_that_they_hold_the_same() {
        let mut v1 = TagClock::for_v1(7);
        let mut by_v1 = || Some(value(v1.mint(1_000, NEW).unwrap(), 1));
        let (old, new) = (|| Some(value(OLD, 1)), || Some(value(NEW, 2)));
        let absent = |tag| Some(ReplicaResponse::absent(tag));
        let (nothing, tombstone) = (|| absent(Tag::ZERO), || absent(NEW));
        let refused = || Some(ReplicaResponse::Refused(Refusal::Corrupt));
        for (case, responses, in_step, newest) in [
            ("same", [new(), new(), new()], Some(true), Some(NEW)),
            ("behind", [new(), old(), new()], Some(false), Some(NEW)),
            (
                "first behind",
                [old(), new(), new()],
                Some(false),
                Some(NEW),
            ),
            ("lacking", [old(), old(), nothing()], Some(false), Some(OLD)),
            (
                "one tag, two values",
                [new(), Some(value(NEW, 3)), new()],
                Some(false),
                Some(NEW),
            ),
            (
                "nothing",
                [nothing(), nothing(), nothing()],
                Some(true),
                None,
            ),
            (
                "deleted",
                [tombstone(), tombstone(), tombstone()],
                Some(true),
                Some(NEW),
            ),
            (
                "tombstone lacking",
                [tombstone(), nothing(), tombstone()],
                Some(false),
                Some(NEW),
            ),
            (
                "deleted in part",
                [old(), tombstone(), tombstone()],
                Some(false),
                Some(NEW),
            ),
            ("one away", [new(), None, new()], None, Some(NEW)),
            ("one refuses", [nothing(), nothing(), refused()], None, None),
            (
                "one away, one behind",
                [new(), None, old()],
                Some(false),
                Some(NEW),
            ),
            ("none answers", [None, None, refused()], None, None),
            ("by DKVS/1", [by_v1(), by_v1(), by_v1()], None, None),
            (
                "by DKVS/1 in part",
                [by_v1(), new(), new()],
                Some(false),
                Some(NEW),
            ),
            (
                "by DKVS/1, one lacking",
                [by_v1(), nothing(), by_v1()],
                Some(false),
                None,
            ),
        ] {
            let inspect = asked(responses);
            assert_eq!(inspect.is_in_step(), in_step, "{case}");
            assert_eq!(inspect.newest(), newest, "{case}");
        }
    }
}

//! The replicas of one request, and what is known of each.
//!
//! Keeps one invariant: only the servers of the preference list count, each once. Responses from
//! other servers, and second responses, change nothing.

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::mutants::{self, Mutant};
use crate::ring::{Position, PreferenceList, RingPoint};

/// What is known of one replica; `A` is what a replica can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState<A> {
    /// Nothing yet.
    Pending,
    /// It responded.
    Responded(A),
    /// The request certainly did not reach it.
    Unreachable,
    /// It can be reached no more, and whether the request reached it is not known.
    Indeterminate,
    /// It was silent until the deadline.
    TimedOut,
}

impl<A> ReplicaState<A> {
    /// The state of a replica that cannot be reached, to which the request was sent or not.
    pub(super) fn unreachable(was_sent: bool) -> Self {
        match was_sent {
            true => Self::Indeterminate,
            false => Self::Unreachable,
        }
    }
}

/// One replica of a request.
#[derive(Debug, Clone)]
pub struct Replica<A> {
    /// The server that keeps it.
    pub server: ServerId,
    /// The ring point at which the key's walk met the server.
    pub ring_point: Position,
    /// What is known of it.
    pub state: ReplicaState<A>,
    /// The time from the request's start to the response; none while pending or when it timed out.
    pub latency: Option<Duration>,
}

/// Whether a response changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The first response of a replica to this command.
    Counted,
    /// The replica has responded before, or its response no longer matters.
    Repeated,
    /// The server is not a replica of this request.
    UnknownSender,
}

/// The replicas of one request, in preference order.
#[derive(Debug, Clone)]
pub struct Tally<A> {
    replicas: Vec<Replica<A>>,
    started: Instant,
    pending: usize,
}

impl<A> Tally<A> {
    /// The replicas of `list`, all pending.
    pub fn new(list: PreferenceList, started: Instant) -> Self {
        let replica = |point: RingPoint| Replica {
            server: point.server,
            ring_point: point.position,
            state: ReplicaState::Pending,
            latency: None,
        };
        Self {
            pending: list.len(),
            replicas: list.into_iter().map(replica).collect(),
            started,
        }
    }

    /// The same replicas, all pending again.
    #[must_use]
    pub fn anew(&self) -> Self {
        let replica = |replica: &Replica<A>| Replica {
            server: replica.server,
            ring_point: replica.ring_point,
            state: ReplicaState::Pending,
            latency: None,
        };
        Self {
            pending: self.replicas.len(),
            replicas: self.replicas.iter().map(replica).collect(),
            started: self.started,
        }
    }

    /// Records the state of `from`, unless it is known already. [`ReplicaState::Pending`] counts as
    /// repeated.
    pub fn record(&mut self, from: ServerId, state: ReplicaState<A>, now: Instant) -> Recorded {
        let mut replicas = self.replicas.iter_mut();
        let Some(replica) = replicas.find(|replica| replica.server == from) else {
            return Recorded::UnknownSender;
        };
        let is_known = !matches!(replica.state, ReplicaState::Pending);
        if is_known || matches!(state, ReplicaState::Pending) {
            if mutants::is_on(Mutant::RepeatsCounted) {
                return self.count_repeat(from, state, now);
            }
            return Recorded::Repeated;
        }
        replica.state = state;
        replica.latency = Some(now.saturating_duration_since(self.started));
        self.pending -= 1;
        Recorded::Counted
    }

    /// [`Mutant::RepeatsCounted`]: counts it as the response of another replica, which is pending.
    fn count_repeat(&mut self, from: ServerId, state: ReplicaState<A>, now: Instant) -> Recorded {
        let other = self.pending_servers().next();
        match other {
            Some(other) if other != from => self.record(other, state, now),
            _ => Recorded::Repeated,
        }
    }

    /// All pending replicas time out.
    pub fn expire(&mut self) {
        for replica in &mut self.replicas {
            if matches!(replica.state, ReplicaState::Pending) {
                replica.state = ReplicaState::TimedOut;
            }
        }
        self.pending = 0;
    }

    /// How many replicas are pending.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The preference list that it began with.
    pub fn list(&self) -> PreferenceList {
        let point = |replica: &Replica<A>| RingPoint {
            position: replica.ring_point,
            server: replica.server,
        };
        self.replicas.iter().map(point).collect()
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<A>] {
        &self.replicas
    }

    /// The servers of the replicas, in preference order.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> {
        self.replicas.iter().map(|replica| replica.server)
    }

    /// The servers of the pending replicas, in preference order.
    pub fn pending_servers(&self) -> impl Iterator<Item = ServerId> {
        let replicas = self.replicas.iter();
        let pending = replicas.filter(|replica| matches!(replica.state, ReplicaState::Pending));
        pending.map(|replica| replica.server)
    }

    /// Whether `server` is a pending replica.
    pub fn is_pending(&self, server: ServerId) -> bool {
        let state = self.replica(server).map(|replica| &replica.state);
        matches!(state, Some(ReplicaState::Pending))
    }

    /// What `server` responded, if it has.
    pub fn response_of(&self, server: ServerId) -> Option<&A> {
        match &self.replica(server)?.state {
            ReplicaState::Responded(response) => Some(response),
            _ => None,
        }
    }

    /// What the replicas responded, in preference order.
    pub fn responses(&self) -> impl Iterator<Item = &A> + Clone {
        self.replicas
            .iter()
            .filter_map(|replica| match &replica.state {
                ReplicaState::Responded(response) => Some(response),
                _ => None,
            })
    }

    fn replica(&self, server: ServerId) -> Option<&Replica<A>> {
        let mut replicas = self.replicas.iter();
        replicas.find(|replica| replica.server == server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start_of_time;

    const ASKED: [u16; 3] = [4, 2, 9];

    fn tally_at(now: Instant) -> Tally<u8> {
        let point = |server| RingPoint {
            position: Position([server as u8; 20]),
            server: ServerId(server),
        };
        Tally::new(ASKED.map(point).to_vec(), now)
    }

    #[test]
    fn first_response_counts_repeats_and_unknown_senders_do_not() {
        let now = start_of_time();
        let mut tally = tally_at(now);
        let later = now + Duration::from_micros(150);
        assert_eq!(
            tally.record(ServerId(2), ReplicaState::Responded(7), later),
            Recorded::Counted
        );
        assert_eq!(
            tally.record(ServerId(2), ReplicaState::Responded(8), later),
            Recorded::Repeated
        );
        assert_eq!(
            tally.record(ServerId(2), ReplicaState::Unreachable, later),
            Recorded::Repeated
        );
        assert_eq!(
            tally.record(ServerId(3), ReplicaState::Responded(9), later),
            Recorded::UnknownSender
        );
        assert_eq!(
            tally.record(ServerId(4), ReplicaState::Pending, later),
            Recorded::Repeated
        );
        assert_eq!(tally.responses().collect::<Vec<_>>(), [&7]);
        assert_eq!(tally.pending(), 2);
        assert_eq!(
            tally.replicas()[1].latency,
            Some(Duration::from_micros(150))
        );

        tally.expire();
        assert_eq!(tally.pending(), 0);
        assert_eq!(
            tally.record(ServerId(4), ReplicaState::Responded(1), later),
            Recorded::Repeated
        );
        assert_eq!(tally.replicas()[0].state, ReplicaState::TimedOut);
        assert_eq!(tally.replicas()[0].latency, None);
    }

    /// Every sequence of up to six states of three replicas and an unknown sender, each a response
    /// or unreachable: the tally equals the map of the first of each.
    #[test]
    fn every_sequence_of_six_words_keeps_first_states_only() {
        let now = start_of_time();
        let states: Vec<(u16, ReplicaState<u8>)> = [4, 2, 9, 5]
            .into_iter()
            .flat_map(|server| {
                [
                    (server, ReplicaState::Responded(server as u8)),
                    (server, ReplicaState::Unreachable),
                ]
            })
            .collect();
        let length = 6;
        for code in 0..states.len().pow(length) {
            let mut tally = tally_at(now);
            let mut first_states = [ReplicaState::Pending; 3];
            let mut rest = code;
            for _ in 0..length {
                let (server, state) = states[rest % states.len()];
                rest /= states.len();
                tally.record(ServerId(server), state, now);
                if let Some(place) = ASKED.iter().position(|&asked| asked == server)
                    && first_states[place] == ReplicaState::Pending
                {
                    first_states[place] = state;
                }
            }
            let kept: Vec<_> = tally
                .replicas()
                .iter()
                .map(|replica| replica.state)
                .collect();
            assert_eq!(kept, first_states);
            let pending = first_states
                .iter()
                .filter(|state| **state == ReplicaState::Pending)
                .count();
            assert_eq!(tally.pending(), pending);
        }
    }
}

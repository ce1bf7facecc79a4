//! When enough replicas have confirmed: so many of each of one or more sets.
//!
//! ```text
//!   one set      {a b c}, 2 required        met by {a b}, {a c}, {b c}, {a b c}
//!   two sets     {a b c}, 2 required        met by {b c}, for one: it is two of either set;
//!                {b c d}, 2 required        not by {a b}: only one of the second
//! ```
//!
//! This is the one place that compares counts with what is required. It knows neither what a
//! replica confirms nor whether it answered: the caller passes which replicas count. A request that
//! runs while the membership changes needs a quorum of the old set and one of the new one (joint
//! consensus, Ongaro 2014); today every request has one set. The division is that of raft-rs'
//! `quorum::joint` and `quorum::majority`.

use super::params::{Quorum, majority};
use crate::cluster::ServerId;
use crate::ring::RingPoint;

/// Sets of replicas, and how many of each are required.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    set: ReplicaSet,
    /// Required as well.
    joint: Vec<ReplicaSet>,
}

/// Some replicas, of which `required` have to confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplicaSet {
    members: Box<[ServerId]>,
    required: usize,
}

impl ReplicaSet {
    /// How many more have to confirm.
    fn missing(&self, is_confirmed: impl Fn(ServerId) -> bool) -> usize {
        let confirmed = self.members.iter().filter(|server| is_confirmed(**server));
        self.required.saturating_sub(confirmed.count())
    }
}

impl Threshold {
    /// `required` of `members`, which are distinct.
    pub fn new(members: impl IntoIterator<Item = ServerId>, required: usize) -> Self {
        let members = members.into_iter().collect();
        Self {
            set: ReplicaSet { members, required },
            joint: Vec::new(),
        }
    }

    /// As many of a preference list as the quorum requires.
    pub fn of_quorum(list: &[RingPoint], quorum: Quorum) -> Self {
        let members = list.iter().map(|point| point.server);
        Self::new(members, quorum.required().into())
    }

    /// This threshold and `other`: both have to be met.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.joint.push(other.set);
        self.joint.extend(other.joint);
        self
    }

    /// The same sets, with at least a majority of each required.
    #[must_use]
    pub fn at_least_majorities(mut self) -> Self {
        for set in std::iter::once(&mut self.set).chain(&mut self.joint) {
            let n = u8::try_from(set.members.len()).unwrap_or(u8::MAX);
            set.required = set.required.max(majority(n).into());
        }
        self
    }

    /// Whether enough of every set have confirmed.
    pub fn is_met(&self, is_confirmed: impl Fn(ServerId) -> bool) -> bool {
        self.missing(is_confirmed) == 0
    }

    /// How many more have to confirm, in the set that lacks most.
    pub fn missing(&self, is_confirmed: impl Fn(ServerId) -> bool) -> usize {
        let missing = self.sets().map(|set| set.missing(&is_confirmed));
        missing.max().unwrap_or(0)
    }

    /// Whether it is met, or would be if all that are pending were to confirm.
    pub fn can_still_be_met(
        &self,
        is_confirmed: impl Fn(ServerId) -> bool,
        is_pending: impl Fn(ServerId) -> bool,
    ) -> bool {
        self.is_met(|server| is_confirmed(server) || is_pending(server))
    }

    /// Whether these replicas alone prevent it from being met, even if all others confirmed.
    pub fn is_prevented_by(&self, is_failed: impl Fn(ServerId) -> bool) -> bool {
        !self.is_met(|server| !is_failed(server))
    }

    fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        std::iter::once(&self.set).chain(&self.joint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the servers 0 to 7 are in a set, as bits.
    type Bits = u16;

    fn has(bits: Bits, server: ServerId) -> bool {
        bits >> server.0 & 1 == 1
    }

    fn threshold(members: Bits, required: u32) -> Threshold {
        let members = (0..8).map(ServerId).filter(|server| has(members, *server));
        Threshold::new(members, required as usize)
    }

    /// All subsets of `bits`.
    fn subsets(bits: Bits) -> impl Iterator<Item = Bits> {
        (0..=bits).filter(move |subset| subset & !bits == 0)
    }

    /// Every question about a threshold for every set of confirmations and pending replicas, among
    /// them replicas that are of no set, against its definition: `is_met`, and what the pending
    /// replicas may still do, tried out.
    fn check(threshold: &Threshold, servers: Bits, is_met: impl Fn(Bits) -> bool) {
        for confirmed in subsets(servers) {
            let is_confirmed = |server| has(confirmed, server);
            assert_eq!(threshold.is_met(is_confirmed), is_met(confirmed));
            let failed = |server| !has(confirmed, server);
            assert_eq!(threshold.is_prevented_by(failed), !is_met(confirmed));
            for pending in subsets(servers) {
                let can = subsets(pending).any(|rest| is_met(confirmed | rest));
                let is_pending = |server| has(pending, server);
                let answer = threshold.can_still_be_met(is_confirmed, is_pending);
                assert_eq!(answer, can, "{threshold:?} {confirmed:b} {pending:b}");
            }
        }
    }

    #[test]
    fn one_set_is_met_by_as_many_of_its_members_as_are_required() {
        const OUTSIDER: Bits = 1 << 5;
        for n in 1..=5u32 {
            let members = (1 << n) - 1;
            for required in 0..=n + 1 {
                let is_met = |confirmed: Bits| (confirmed & members).count_ones() >= required;
                let threshold = threshold(members, required);
                check(&threshold, members | OUTSIDER, is_met);
                for confirmed in subsets(members) {
                    let missing = threshold.missing(|server| has(confirmed, server));
                    let expected = required.saturating_sub(confirmed.count_ones());
                    assert_eq!(missing, expected as usize);
                }
            }
        }
    }

    #[test]
    fn two_sets_are_met_by_enough_of_each_wherever_they_overlap() {
        // All pairs of sets of four servers: disjoint, overlapping, one within the other, equal.
        const SERVERS: Bits = 0b1111;
        for (one, other) in subsets(SERVERS).flat_map(|one| subsets(SERVERS).map(move |b| (one, b)))
        {
            for of_one in 0..=one.count_ones() {
                for of_other in 0..=other.count_ones() {
                    let joint = threshold(one, of_one).and(threshold(other, of_other));
                    check(&joint, SERVERS, |confirmed| {
                        (confirmed & one).count_ones() >= of_one
                            && (confirmed & other).count_ones() >= of_other
                    });
                }
            }
        }
    }

    #[test]
    fn majorities_of_two_sets_of_three_that_share_two() {
        // Server 0, of the first set; 1 and 2, of both; 3, of the second. Y: it confirmed, n: it
        // did not and will not, _: pending. Then what has become of the threshold, and how many are
        // missing.
        let joint = threshold(0b0111, 1).and(threshold(0b1110, 1));
        let joint = joint.at_least_majorities();
        for (replicas, verdict, missing) in [
            ("____", "pending", 2),
            ("Y___", "pending", 2),
            ("_Y__", "pending", 1),
            ("YY__", "pending", 1),
            ("Y__Y", "pending", 1),
            ("YY_Y", "met", 0),
            ("_YY_", "met", 0),
            ("nYYn", "met", 0),
            ("Y_nY", "pending", 1),
            ("YnYY", "met", 0),
            ("YYnn", "lost", 1),
            ("nn__", "lost", 2),
            ("_nn_", "lost", 2),
            ("YnnY", "lost", 1),
            ("n__n", "pending", 2),
            ("nY_n", "pending", 1),
            ("nYnY", "lost", 1),
            ("nnnn", "lost", 2),
        ] {
            let is = |server: ServerId, what| replicas.as_bytes()[server.index()] == what;
            let is_confirmed = |server| is(server, b'Y');
            let answer = if joint.is_met(is_confirmed) {
                "met"
            } else if joint.can_still_be_met(is_confirmed, |server| is(server, b'_')) {
                "pending"
            } else {
                "lost"
            };
            assert_eq!(answer, verdict, "{replicas}");
            assert_eq!(joint.missing(is_confirmed), missing, "{replicas}");
            assert_eq!(
                joint.is_prevented_by(|server| is(server, b'n')),
                verdict == "lost"
            );
        }
    }

    #[test]
    fn majorities_are_required_where_less_was() {
        let all = 0b1_1111;
        assert_eq!(threshold(all, 2).at_least_majorities(), threshold(all, 3));
        assert_eq!(threshold(all, 4).at_least_majorities(), threshold(all, 4));
        let joint = threshold(all, 1).and(threshold(0b1, 0));
        let expected = threshold(all, 3).and(threshold(0b1, 1));
        assert_eq!(joint.at_least_majorities(), expected);
    }
}

//! What a request promises beyond its quorum, and when it can.

use std::fmt;

use thiserror::Error;

use super::params::{Quorum, majority};
use crate::mutants::{self, Mutant};

/// What a read or a write promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A confirmed write is on w replicas; a read returns what r replicas hold.
    Agreement,
    /// A key behaves as one register: what is asked after a write was confirmed sees that write
    /// or a later one, and reads never go back (Herlihy and Wing 1990).
    Linearizable,
}

/// Why a quorum cannot be linearizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotLinearizable {
    /// Requests that ask other replicas than the cluster keeps may miss each other.
    #[error("n is {n}, and only the cluster's replication, {replication}, can be linearizable")]
    OtherReplicas {
        /// The request's n.
        n: u8,
        /// How many copies the cluster keeps.
        replication: u8,
    },
    /// Two sets of so few replicas may miss each other.
    #[error("{required} of {n} is no majority; at least {majority} can be linearizable")]
    NoMajority {
        /// The request's w or r.
        required: u8,
        /// Its n.
        n: u8,
        /// The smallest w or r that would do.
        majority: u8,
    },
}

impl Level {
    /// Its name in requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Linearizable => "linearizable",
        }
    }

    /// The strongest level that a request with this quorum can have in a cluster that keeps
    /// `replication` copies.
    pub fn strongest(quorum: Quorum, replication: u8) -> Self {
        match Self::check_linearizable(quorum, replication) {
            Ok(()) => Self::Linearizable,
            Err(_) => Self::Agreement,
        }
    }

    /// Whether a quorum can be linearizable in a cluster that keeps `replication` copies.
    pub fn check_linearizable(quorum: Quorum, replication: u8) -> Result<(), NotLinearizable> {
        let (n, required) = (quorum.n(), quorum.required());
        let majority = majority(n);
        if n != replication {
            return Err(NotLinearizable::OtherReplicas { n, replication });
        }
        if required < majority && !mutants::is_on(Mutant::ReadBelowMajority) {
            return Err(NotLinearizable::NoMajority {
                required,
                n,
                majority,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majorities_of_all_copies_are_linearizable_and_nothing_else_is() {
        for replication in 1..=7 {
            for n in 1..=7 {
                for required in 1..=n {
                    let level = Level::strongest(Quorum::new(n, required).unwrap(), replication);
                    let is_linearizable = n == replication && 2 * required > n;
                    assert_eq!(level == Level::Linearizable, is_linearizable);
                }
            }
        }
    }

    #[test]
    fn the_reason_says_what_would_do() {
        let check = |n, required| {
            let quorum = Quorum::new(n, required).unwrap();
            Level::check_linearizable(quorum, 3)
                .unwrap_err()
                .to_string()
        };
        assert!(check(4, 3).contains("replication, 3"));
        assert!(check(3, 1).contains("at least 2"));
    }
}

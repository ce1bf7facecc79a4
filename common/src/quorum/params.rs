//! n, w and r: defaults, and what is refused.

use thiserror::Error;

/// How many replicas a request asks, and how many of them have to confirm or agree.
///
/// Always 1 <= `needed` <= `n` <= 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    n: u8,
    needed: u8,
}

/// Why a request's n and w, or n and r, are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuorumError {
    /// More replicas than there are servers.
    #[error("{n} replicas were asked for and the cluster has {servers} servers")]
    NExceedsServers {
        /// The n asked for.
        n: u8,
        /// How many servers there are.
        servers: usize,
    },
    /// More confirmations (or agreeing replies) than there are servers.
    #[error("{needed} replicas were to confirm or agree and the cluster has {servers} servers")]
    NeededExceedsServers {
        /// The w or r asked for.
        needed: u8,
        /// How many servers there are.
        servers: usize,
    },
    /// More confirmations (or agreeing replies) than replicas.
    #[error("{needed} of {n} replicas cannot confirm or agree")]
    NeededExceedsN {
        /// The w or r asked for.
        needed: u8,
        /// The n it has to fit in.
        n: u8,
    },
    /// A quorum of nobody.
    #[error("n, w and r are at least 1")]
    Zero,
}

impl Quorum {
    /// `needed` of `n`.
    pub fn new(n: u8, needed: u8) -> Result<Self, QuorumError> {
        if n == 0 || needed == 0 {
            return Err(QuorumError::Zero);
        }
        if needed > n {
            return Err(QuorumError::NeededExceedsN { needed, n });
        }
        Ok(Self { n, needed })
    }

    /// What a request means that names n, w (or r), both or neither, against a cluster of
    /// `servers` servers that keeps `replication` copies.
    ///
    /// Without n: the replication factor, or w (or r) where that is more. Without w (or r): a
    /// majority of n. On failure, everything that is wrong.
    pub fn resolve(
        n: Option<u8>,
        needed: Option<u8>,
        servers: usize,
        replication: u8,
    ) -> Result<Self, Vec<QuorumError>> {
        let mut errors = Vec::new();
        if let Some(n) = n.filter(|n| usize::from(*n) > servers) {
            errors.push(QuorumError::NExceedsServers { n, servers });
        }
        if let Some(needed) = needed.filter(|needed| usize::from(*needed) > servers) {
            errors.push(QuorumError::NeededExceedsServers { needed, servers });
        }
        let n = n.unwrap_or_else(|| replication.max(needed.unwrap_or(0)));
        match Self::new(n, needed.unwrap_or_else(|| majority(n))) {
            Ok(quorum) if errors.is_empty() => return Ok(quorum),
            Err(error) if errors.is_empty() => errors.push(error),
            _ => {}
        }
        Err(errors)
    }

    /// How many replicas are asked.
    pub fn n(self) -> u8 {
        self.n
    }

    /// How many of them have to confirm (w) or agree (r).
    pub fn needed(self) -> u8 {
        self.needed
    }
}

/// The smallest number that is more than half of `n`: any two such sets share a member.
pub fn majority(n: u8) -> u8 {
    n / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_replication_and_majority() {
        let resolve = |n, needed| {
            let quorum = Quorum::resolve(n, needed, 5, 3).unwrap();
            (quorum.n(), quorum.needed())
        };
        assert_eq!(resolve(None, None), (3, 2));
        assert_eq!(resolve(Some(4), None), (4, 3));
        assert_eq!(resolve(Some(1), None), (1, 1));
        assert_eq!(resolve(None, Some(1)), (3, 1));
        assert_eq!(resolve(None, Some(5)), (5, 5));
        assert_eq!(resolve(Some(4), Some(3)), (4, 3));
    }

    #[test]
    fn impossible_quorums_are_refused_with_everything_that_is_wrong() {
        let resolve = |n, needed| Quorum::resolve(n, needed, 5, 3).unwrap_err();
        let servers = 5;
        let n_exceeds = QuorumError::NExceedsServers { n: 6, servers };
        let needed_exceeds = QuorumError::NeededExceedsServers { needed: 7, servers };
        assert_eq!(resolve(Some(6), None), [n_exceeds]);
        assert_eq!(resolve(None, Some(7)), [needed_exceeds]);
        assert_eq!(resolve(Some(6), Some(7)), [n_exceeds, needed_exceeds]);
        let (needed, n) = (3, 2);
        assert_eq!(
            resolve(Some(2), Some(3)),
            [QuorumError::NeededExceedsN { needed, n }]
        );
        assert_eq!(resolve(Some(0), None), [QuorumError::Zero]);
        assert_eq!(resolve(None, Some(0)), [QuorumError::Zero]);
    }

    #[test]
    fn two_majorities_always_meet() {
        for n in 1..=u8::MAX {
            assert!(2 * u16::from(majority(n)) > u16::from(n));
            assert!(2 * u16::from(majority(n) - 1) <= u16::from(n));
        }
    }
}

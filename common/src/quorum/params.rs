//! n, w and r: their defaults, and which are refused.

use std::time::Duration;

use thiserror::Error;

/// The longest that a request may take. Servers that lost records rely on it: longer than that, and a
/// quarter for clocks that do not run alike, nobody counts what they said before.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// How many replicas a request asks, and how many of them have to confirm or agree.
///
/// Always 1 <= `required` <= `n` <= 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    n: u8,
    required: u8,
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
    #[error("{required} replicas were to confirm or agree and the cluster has {servers} servers")]
    RequiredExceedsServers {
        /// The w or r asked for.
        required: u8,
        /// How many servers there are.
        servers: usize,
    },
    /// More confirmations (or agreeing replies) than replicas.
    #[error("{required} of {n} replicas cannot confirm or agree")]
    RequiredExceedsN {
        /// The w or r asked for.
        required: u8,
        /// The n it has to fit in.
        n: u8,
    },
    /// A quorum of no replica.
    #[error("n, w and r are at least 1")]
    Zero,
}

impl Quorum {
    /// `required` of `n`.
    pub fn new(n: u8, required: u8) -> Result<Self, QuorumError> {
        if n == 0 || required == 0 {
            return Err(QuorumError::Zero);
        }
        if required > n {
            return Err(QuorumError::RequiredExceedsN { required, n });
        }
        Ok(Self { n, required })
    }

    /// What a request means that names n, w (or r), both or neither, against a cluster of
    /// `servers` servers that keeps `replication` copies.
    ///
    /// Without n: the replication factor, or w (or r) where that is more. Without w (or r): a
    /// majority of n. On failure, everything that is wrong.
    pub fn resolve(
        n: Option<u8>,
        required: Option<u8>,
        servers: usize,
        replication: u8,
    ) -> Result<Self, Vec<QuorumError>> {
        let mut errors = Vec::new();
        if let Some(n) = n.filter(|n| usize::from(*n) > servers) {
            errors.push(QuorumError::NExceedsServers { n, servers });
        }
        if let Some(required) = required.filter(|required| usize::from(*required) > servers) {
            errors.push(QuorumError::RequiredExceedsServers { required, servers });
        }
        let n = n.unwrap_or_else(|| replication.max(required.unwrap_or(0)));
        match Self::new(n, required.unwrap_or_else(|| majority(n))) {
            Ok(quorum) if errors.is_empty() => return Ok(quorum),
            Err(error) if errors.is_empty() => errors.push(error),
            _ => {}
        }
        Err(errors)
    }

    /// The same n with the smallest majority of it.
    #[must_use]
    pub fn of_majority(self) -> Self {
        let required = majority(self.n);
        Self { required, ..self }
    }

    /// How many replicas are asked.
    pub fn n(self) -> u8 {
        self.n
    }

    /// How many of them have to confirm (w) or agree (r).
    pub fn required(self) -> u8 {
        self.required
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
        let resolve = |n, required| {
            let quorum = Quorum::resolve(n, required, 5, 3).unwrap();
            (quorum.n(), quorum.required())
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
        let resolve = |n, required| Quorum::resolve(n, required, 5, 3).unwrap_err();
        let servers = 5;
        let n_exceeds = QuorumError::NExceedsServers { n: 6, servers };
        let required_exceeds = QuorumError::RequiredExceedsServers {
            required: 7,
            servers,
        };
        assert_eq!(resolve(Some(6), None), [n_exceeds]);
        assert_eq!(resolve(None, Some(7)), [required_exceeds]);
        assert_eq!(resolve(Some(6), Some(7)), [n_exceeds, required_exceeds]);
        let (required, n) = (3, 2);
        assert_eq!(
            resolve(Some(2), Some(3)),
            [QuorumError::RequiredExceedsN { required, n }]
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

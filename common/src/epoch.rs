//! Which configuration of a cluster something belongs to.
//!
//! A configuration is the servers of a cluster and how many copies it keeps. Configurations are numbered, and the
//! one of a servers file is number 1. The number says which of two is older; the hash says whether two
//! with the same number are the same: two different servers files must never both be number 1.

use sha1::{Digest as _, Sha1};

use crate::cluster::Cluster;

/// A configuration, by its number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// The number, from 1.
    pub number: u32,
    /// The first 8 bytes of the SHA-1 of what it says.
    pub hash: u64,
}

/// What the sender of a datagram states that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatedEpoch {
    /// Nothing: it does not know its cluster.
    None,
    /// A ring, by its [hash](crate::ring::Ring::epoch): what was stated before configurations were
    /// numbered. It says nothing of the replication.
    Ring(u32),
    /// A configuration.
    Numbered(Epoch),
}

impl StatedEpoch {
    /// A ring by its hash; 0 is none.
    pub fn of_ring(hash: u32) -> Self {
        match hash {
            0 => Self::None,
            hash => Self::Ring(hash),
        }
    }
}

impl Epoch {
    /// The bytes that it takes in a datagram.
    pub const BYTES: usize = 4 + 8;

    /// That of a servers file and a replication, of which more than there are servers counts as all of them.
    /// The order of the servers does not matter.
    pub fn of_file(cluster: &Cluster, replication: u8) -> Self {
        let servers = cluster.servers();
        let replication = usize::from(replication).min(servers.len());
        let mut lines: Vec<String> = servers.iter().map(|it| format!("{it}\n")).collect();
        lines.sort();
        let mut hash = Sha1::new();
        hash.update(format!("dkvs configuration\nreplication {replication}\n"));
        for line in lines {
            hash.update(line);
        }
        let hash: [u8; 20] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Self {
            number: 1,
            hash: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }
}

/// As it is shown: the number, and the hash in hexadecimal digits.
impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.hash)
    }
}

/// Another text than the one of [`Epoch`]'s `Display`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no epoch: it is a number, a hyphen, and 16 hexadecimal digits")]
pub struct NoEpoch;

impl std::str::FromStr for Epoch {
    type Err = NoEpoch;

    fn from_str(text: &str) -> Result<Self, NoEpoch> {
        let (number, hash) = text.split_once('-').ok_or(NoEpoch)?;
        let epoch = Self {
            number: number.parse().map_err(|_| NoEpoch)?,
            hash: u64::from_str_radix(hash, 16).map_err(|_| NoEpoch)?,
        };
        // One text for each.
        match epoch.to_string() == text {
            true => Ok(epoch),
            false => Err(NoEpoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, replication: u8) -> Epoch {
        Epoch::of_file(
            &Cluster::parse("servers", text.as_bytes()).unwrap(),
            replication,
        )
    }

    const FILE: &str = "10.0.0.1 4000 2\n10.0.0.2 4000 2\n10.0.0.3 4000 2\n";

    #[test]
    fn any_other_server_share_or_replication_is_another_configuration_and_another_order_is_not() {
        let known = of(FILE, 3);
        assert_eq!(known.number, 1);
        let reordered = "10.0.0.3 4000 2\n10.0.0.1 4000 2\n# a comment\n10.0.0.2 4000 2\n";
        assert_eq!(of(reordered, 3), known);
        assert_eq!(of(FILE, 4), known, "there are three");
        for other in [
            of(FILE, 2),
            of("10.0.0.1 4000 2\n10.0.0.2 4000 2\n", 3),
            of(&FILE.replace("10.0.0.3", "10.0.0.4"), 3),
            of(&FILE.replace("10.0.0.3 4000", "10.0.0.3 4001"), 3),
            of(&FILE.replace("10.0.0.3 4000 2", "10.0.0.3 4000 3"), 3),
        ] {
            assert_eq!(other.number, 1);
            assert_ne!(other.hash, known.hash);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_document() {
        // echo of what `docs/protocol.md` says, computed apart from this: sha1sum of the text.
        assert_eq!(of(FILE, 3).to_string(), "1-ac0256801b99ea7d");
    }

    #[test]
    fn what_is_shown_is_read_again_and_nothing_else_is() {
        let epoch = Epoch {
            number: 12,
            hash: 0xa5,
        };
        assert_eq!(epoch.to_string(), "12-00000000000000a5");
        assert_eq!("12-00000000000000a5".parse(), Ok(epoch));
        for other in [
            "",
            "12",
            "12-a5",
            "-1-00000000000000a5",
            "12-00000000000000A5",
        ] {
            assert_eq!(other.parse::<Epoch>(), Err(NoEpoch), "{other}");
        }
    }
}

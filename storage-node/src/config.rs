//! The settings of a server's service.

use std::cmp::Ordering;

use dkvs_common::cluster::Cluster;
use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::model::Refusal;
use dkvs_common::ring::Ring;
use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, VALUE_BYTES_DEFAULT};

/// What a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Its configuration.
    pub epoch: Epoch,
    /// Its ring, by the hash that clients state which know no configurations.
    pub ring: u32,
    /// Whether it serves those, too.
    pub takes_rings: bool,
}

impl Served {
    /// That of a member of a cluster.
    pub fn of(cluster: &Cluster, replication: u8, takes_rings: bool) -> Self {
        Self {
            epoch: Epoch::of_file(cluster, replication),
            ring: Ring::new(cluster).epoch(),
            takes_rings,
        }
    }

    /// Why a command of somebody who states this is refused; none if it is served.
    pub(crate) fn refuse(&self, stated: StatedEpoch) -> Option<Refusal> {
        let served = self.epoch;
        match stated {
            StatedEpoch::Numbered(epoch) if epoch == served => None,
            StatedEpoch::Numbered(epoch) => Some(match epoch.number.cmp(&served.number) {
                Ordering::Less => Refusal::Stale { served },
                Ordering::Equal => Refusal::OtherConfiguration { served },
                Ordering::Greater => Refusal::Behind { served },
            }),
            StatedEpoch::Ring(ring) if ring == self.ring && self.takes_rings => None,
            StatedEpoch::Ring(_) | StatedEpoch::None => {
                Some(Refusal::WrongEpoch { epoch: self.ring })
            }
        }
    }
}

/// The settings of a server's service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceConfig {
    /// Random, and another one after every start.
    pub boot_id: u64,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest value to store by DKVS/2, in bytes.
    pub value_bytes_max: usize,
    /// What the server belongs to, if it knows its cluster: commands for another are refused.
    pub served: Option<Served>,
    /// Random, and made with the data directory; with the process, if there is none.
    pub store_id: u64,
    /// The memory for uploads, in bytes; no less than four of the longest values.
    pub upload_bytes_max: usize,
    /// Whether DKVS/1 is answered. If not, only DKVS/2 is.
    pub is_v1_on: bool,
    /// Whether nothing is answered until the peers were asked whether this server is set back.
    pub asks_peers_first: bool,
    /// How deep leaves are at least, by which the server compares itself with others.
    pub leaf_depth_min: u8,
}

/// The memory for uploads by default, in bytes.
pub const UPLOAD_BYTES_DEFAULT: usize = 64 << 20;

/// How deep leaves are at least, by default: as is right for four million records, in 256 KiB.
pub(crate) const LEAF_DEPTH_MIN_DEFAULT: u8 = 14;

impl ServiceConfig {
    /// The defaults.
    pub fn new(boot_id: u64) -> Self {
        Self {
            boot_id,
            datagram_bytes_max: DATAGRAM_BYTES_DEFAULT,
            value_bytes_max: VALUE_BYTES_DEFAULT,
            served: None,
            store_id: boot_id,
            upload_bytes_max: UPLOAD_BYTES_DEFAULT,
            is_v1_on: true,
            asks_peers_first: false,
            leaf_depth_min: LEAF_DEPTH_MIN_DEFAULT,
        }
    }
}

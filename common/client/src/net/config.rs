//! How a client is set up.

use std::time::Duration;

use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::watch;

use crate::core::{CoreConfig, Limits, Protocol};

/// How a client talks to the servers, and how much it takes on.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Which protocol.
    pub protocol: Protocol,
    /// How many replicas each key has.
    pub replication: u8,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest value that may be put by DKVS/2, in bytes.
    pub value_bytes_max: usize,
    /// Whether the system sends and receives many datagrams at once.
    pub offload: bool,
    /// The cluster's keys, if it has any, as they change.
    pub keys: Option<watch::Receiver<Keys>>,
    /// The longest that any client of the cluster lets a request take.
    pub timeout_max: Duration,
    /// How much.
    pub limits: Limits,
}

impl ClientConfig {
    /// The part of it that the core decides by.
    pub fn core(&self) -> CoreConfig {
        CoreConfig {
            protocol: self.protocol,
            replication: self.replication,
            datagram_bytes_max: self.datagram_bytes_max,
            timeout_max: self.timeout_max,
            requests_max: self.limits.requests_max,
            decided_max: self.limits.decided_max(),
        }
    }
}

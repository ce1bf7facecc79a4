//! What a client configures towards a server.

use std::net::SocketAddrV4;
use std::sync::Arc;

use dkvs_common::epoch::Epoch;
use dkvs_common::wire::v2::keys::Keys;

/// The shortest datagram limit, in bytes, that a server may announce. This is used in place of a
/// shorter one.
pub const DATAGRAM_BYTES_MIN: usize = 512;

/// What a client knows before its first exchange with a server.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// The longest datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The most bytes in flight: what the system buffers until the client receives it.
    pub window_bytes_max: usize,
    /// The hash of the ring that this client belongs to, which is stated to servers that know no
    /// configurations.
    pub ring: u32,
    /// The configuration that it belongs to.
    pub epoch: Epoch,
    /// Whether the caller falls back to DKVS/1 for a server that speaks nothing else. Every request
    /// fits DKVS/1 in length, so one that is too long for DKVS/2 is refused only once the server is
    /// known to speak DKVS/2.
    pub falls_back_to_v1: bool,
    /// The cluster's keys, if it has any, and this client's address as the server sees it.
    pub keys: Option<(Arc<Keys>, SocketAddrV4)>,
}

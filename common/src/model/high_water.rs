//! How far a server has come, as it tells its peers.

use std::net::SocketAddrV4;

/// How far a server has committed, so that its peers notice if it is set back: started with an older copy of
/// its data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighWater {
    /// The server, by its address in the servers file.
    pub server: SocketAddrV4,
    /// Random, and another one after whatever it lost or its operator declared: with another one it
    /// may begin anywhere.
    pub lineage: u64,
    /// Another one after every start.
    pub boot_id: u64,
    /// The number of the last record on its disk when it was started.
    pub start: u64,
    /// The number of the last record that is on its disk for certain.
    pub sequence: u64,
}

//! That one server may lack what another has confirmed.

use std::net::SocketAddrV4;

/// Which server may lack what which other one has. Servers are named by the addresses in the servers file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nudge {
    /// The one that may lack something.
    pub behind: SocketAddrV4,
    /// The one that has it.
    pub ahead: SocketAddrV4,
}

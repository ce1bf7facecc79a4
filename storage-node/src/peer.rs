//! The sender of commands, as those who carry them out know it.

use std::fmt;
use std::net::SocketAddr;

/// The sender of a command. It distinguishes uploads, and is shown in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer(SocketAddr);

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        Self(addr)
    }
}

#[cfg(test)]
impl Peer {
    /// The peer at this port of the machine itself.
    pub(crate) fn at_port(port: u16) -> Self {
        Self(([127, 0, 0, 1], port).into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! Datagrams as they arrive and as they leave.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A datagram as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its bytes.
    pub datagram: Bytes,
    /// Its sender, or whom it names as such.
    pub peer: SocketAddr,
    /// When it was taken from the socket.
    pub at: Instant,
    /// How long it had been there by then, as far as that is known.
    pub waited: Duration,
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Its bytes.
    pub datagram: Bytes,
    /// Its receiver.
    pub peer: SocketAddr,
    /// What it is a message of.
    pub protocol: Protocol,
}

/// The protocol of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// DKVS/1.
    V1,
    /// DKVS/2.
    V2,
}

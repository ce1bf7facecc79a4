//! Which servers had no room a moment ago.

use std::time::Instant;

/// A server that had no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct FullServer {
    /// When it said so.
    pub(super) at: Instant,
    /// For a key and a value of so many bytes, or more.
    pub(super) bytes: usize,
}

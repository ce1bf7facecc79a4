//! What a server says of itself beside its greeting.

use crate::epoch::Epoch;

/// What a server belongs to, and what it keeps records on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Random, and made with the data directory, or with the process of a server without one: with another
    /// number a server holds nothing of what one at its address held before.
    pub store_id: u64,
    /// The configuration that it serves; none if it does not know its cluster.
    pub epoch: Option<Epoch>,
}

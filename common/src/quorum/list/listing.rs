//! What is to be listed, and what a server is asked for it.

use bytes::Bytes;

use crate::kv::Key;
use crate::ring::Position;

/// A place in the ring between two keys: before the first key at `from` or later, but for the key
/// `after` and those before it at the very same position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    /// The position.
    pub from: Position,
    /// The last key that has been seen there.
    pub after: Option<Key>,
}

impl ListPosition {
    /// Before every key.
    pub const START: Self = Self {
        from: Position([0; 20]),
        after: None,
    };

    /// Right after a key.
    pub fn after(key: Key) -> Self {
        Self {
            from: Position::of_key(&key),
            after: Some(key),
        }
    }
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Where to begin.
    pub start: ListPosition,
    /// Only keys that begin with these bytes.
    pub prefix: Bytes,
    /// Most keys to return, at least 1.
    pub keys_max: usize,
    /// How many servers may be silent.
    pub silent_max: usize,
}

/// A page to be requested from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Where it begins.
    pub start: ListPosition,
    /// Most keys in it.
    pub keys_max: usize,
}

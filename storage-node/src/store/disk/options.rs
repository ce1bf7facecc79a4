//! With what a durable store is opened.

use std::sync::Arc;

use dkvs_common::model::Durability;

use super::medium::Medium;

/// Where a store's bytes lie.
#[derive(Debug, Clone)]
pub struct Media {
    /// The log's, which the engine reads and writes.
    pub records: Arc<dyn Medium>,
    /// The high-water mark: what knows the end of the last commit.
    pub high_water: Arc<dyn Medium>,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// The limit on what the records take in memory, in bytes, as of a
    /// [`MemoryStore`](crate::store::MemoryStore).
    pub bytes_max: usize,
    /// What a confirmed put survives.
    pub durability: Durability,
    /// What the operator says of the store, if anything.
    pub declaration: Option<Declaration>,
    /// Whether anything beside the store makes it doubtful: another ring, say, or a disk that
    /// failed. It is opened only with a declaration then, which is anything but
    /// [`Declaration::New`].
    pub is_uncertain: bool,
    /// Another number after each start of the machine, never 0.
    pub machine_run: u64,
}

/// What an operator can say of a store that it cannot know of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declaration {
    /// It is a new one, and its server has never confirmed anything.
    New,
    /// Records that its server confirmed may be missing from it.
    Incomplete,
    /// It holds all that its server confirmed, or what it lacks is not wanted.
    Complete,
}

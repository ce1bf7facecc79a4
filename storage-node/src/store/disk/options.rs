//! With what a durable store is opened.

use dkvs_common::model::Durability;
use dkvs_log::History;

/// What the values of a store may take in memory, by default, in bytes.
pub const CACHE_BYTES_DEFAULT: usize = 256 << 20;

/// How long the segments of the log become, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u32 = 64 << 20;

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// The limit on what keys and heads take in memory, in bytes, with
    /// [`overhead_bytes`](crate::store::overhead_bytes) for each.
    pub bytes_max: usize,
    /// The limit on what values take in memory beside that.
    pub cache_bytes_max: usize,
    /// How long the segments of the log become, in bytes.
    pub segment_bytes: u32,
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
    /// Random: the lineage of the store, if it has none, or gets another one by what is declared.
    pub lineage: u64,
}

impl OpenOptions {
    /// Those of a store with this limit on memory and this durability, of which nothing is declared.
    pub fn new(bytes_max: usize, durability: Durability, machine_run: u64) -> Self {
        Self {
            bytes_max,
            cache_bytes_max: CACHE_BYTES_DEFAULT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            durability,
            declaration: None,
            is_uncertain: false,
            machine_run,
            lineage: machine_run,
        }
    }

    /// How the log of a history is opened.
    pub(super) fn of_log(&self, history: History) -> dkvs_log::Options {
        dkvs_log::Options {
            history,
            segment_bytes: self.segment_bytes,
        }
    }
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

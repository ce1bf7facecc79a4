//! What is under way with one peer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use dkvs_common::kv::Key;
use dkvs_common::model::LeafEntry;

use super::comparison::Comparison;
use crate::leaves::SharedLeaves;

/// What is under way with one peer.
pub(super) struct Session {
    /// No other session has this number.
    pub(super) number: u64,
    /// The leaves that both have, by which they are compared.
    pub(super) shared: SharedLeaves,
    pub(super) comparison: Comparison,
    pub(super) waits: Waits,
    /// Once the comparison has ended: the leaves that differ, the next last.
    pub(super) leaves: Option<Vec<u32>>,
    /// How far the first of them is read.
    pub(super) after: Option<Key>,
    /// What is newer at the peer, and still to be pulled.
    pub(super) newer: VecDeque<(u32, LeafEntry)>,
    /// The leaves that are read, by their numbers, if the server may have lost records.
    pub(super) looks: BTreeMap<u32, LeafLook>,
    /// When it began.
    pub(super) begun: Instant,
    pub(super) pulls: usize,
    /// Whether anything was pulled and stored, or could not be.
    pub(super) has_pulled: bool,
    pub(super) has_failed: bool,
    /// Whether any leaf did differ.
    pub(super) differs: bool,
    /// The leaf behind the last that was found.
    pub(super) behind: u32,
}

/// What is known of a leaf that differs, while it is read.
pub(super) struct LeafLook {
    /// Whether the peer answers for all of its keys, and this server holds what was listed, but for what is to
    /// be pulled.
    pub(super) is_covered: bool,
    /// How many records are to be pulled.
    pub(super) pulls: usize,
    /// Whether all of it was listed.
    pub(super) is_read: bool,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing.
    Not,
    /// That the peer knows how far this server is.
    Mark,
    /// Sums or entries.
    Answer,
    /// This time.
    Until(Instant),
    /// What it pulls, or others do.
    Pulls,
}

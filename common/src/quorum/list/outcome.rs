//! How a listing ends, and what is known of each server.

use crate::model::Refusal;

/// How a listing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOutcome {
    /// The keys are complete, as far as they go.
    Listed,
    /// More servers than allowed have failed.
    Unreachable,
    /// The deadline passed before any key was certain.
    TimedOut,
}

/// What is known of a server of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListServerState {
    /// Every page that was requested has arrived.
    Answered,
    /// The same, but it may have lost keys.
    Incomplete,
    /// It refused.
    Refused(Refusal),
    /// It cannot be reached.
    Unreachable,
    /// It was silent for too long.
    TimedOut,
}

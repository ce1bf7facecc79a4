//! What a listing comes to.

use crate::model::Refusal;

/// What a listing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOutcome {
    /// The keys are told.
    Listed,
    /// More servers than may be are silent, and can be heard no more.
    Unreachable,
    /// The deadline passed before anything could be told.
    TimedOut,
}

/// What is known of a server of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListStanding {
    /// Every page that it was asked for has come.
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

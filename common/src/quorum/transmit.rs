//! What a machine wants sent.

use crate::cluster::ServerId;
use crate::tag::Tag;

/// What a machine wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: ServerId,
    /// What.
    pub ask: Ask,
}

/// What a replica is asked. Key and record are the request's own; a machine holds neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The record it holds.
    Get,
    /// The tag of the record it holds.
    Tag,
    /// To store the record.
    Put,
    /// To vouch for the record with this tag, which it was given.
    Vouch {
        /// Which version.
        tag: Tag,
    },
}

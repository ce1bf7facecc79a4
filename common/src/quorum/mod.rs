//! The quorum decisions: one state machine per request, without sockets and without a clock.
//!
//! ```text
//!               new(replicas, quorum, now, deadline)
//!                            |
//!                            v          poll_transmit: whom to ask what
//!                    +---------------+  poll_timeout:  when to wake up
//!   handle_reply --->|     open      |
//!   handle_unreach.->|               |--- enough said ----> outcome (never changes again)
//!   handle_timeout ->+---------------+--- cannot be met --> outcome
//!                            |
//!                            +----------- deadline -------> outcome
//! ```
//!
//! * [`params`]: n, w and r, checked
//! * [`tally`]: who was asked and what each has said; each replica counts once, strangers never
//! * [`mod@read`], [`mod@write`]: the agreement level, the original system's rule
//!
//! After the outcome a machine still takes replies, for the report on each replica. Nothing here
//! knows HTTP or a wire format. The division of labour follows riak_kv's get and put cores.

pub mod params;
pub mod read;
pub mod tally;
pub mod write;

use crate::cluster::ServerId;

/// What a machine wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: ServerId,
    /// What.
    pub ask: Ask,
}

/// What a replica is asked. Key and value are the request's own; a machine holds neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The value it holds.
    Get,
    /// To store the value.
    Put,
}

#[cfg(test)]
mod exhaustive;

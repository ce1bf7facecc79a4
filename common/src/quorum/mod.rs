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
//! * [`threshold`]: when enough of one or more sets of replicas have confirmed
//! * [`level`]: what a request promises, and when it can
//! * [`mod@read`]: [`read::agreement`], the original system's rule, and [`read::linearizable`]
//! * [`mod@write`]: both levels; the linearizable one asks for tags before it stores
//! * [`list`]: the keys of all servers, page by page
//!
//! After the outcome a machine still takes replies, for the report on each replica. Nothing here
//! knows HTTP or a wire format. The division of labour follows riak_kv's get and put cores.

pub mod level;
pub mod list;
pub mod params;
pub mod read;
pub mod tally;
pub mod threshold;
mod transmit;
mod version;
pub mod write;

pub use crate::model::Refusal;
pub use level::Level;
pub use transmit::{Ask, Transmit};
pub use version::Version;

#[cfg(test)]
mod exhaustive;

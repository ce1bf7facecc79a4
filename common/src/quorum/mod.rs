//! The quorum decisions: one state machine per request, without sockets and without a clock.
//!
//! ```text
//!                   new(key, replicas, quorum, now, deadline)
//!                                |
//!                                v          poll_transmit: commands, each to one replica
//!                        +---------------+  poll_timeout:  when to call handle_timeout
//!   handle_response ---->|     open      |
//!   handle_unreachable ->|               |--- enough responses -> outcome (never changes again)
//!   handle_timeout ----->+---------------+--- cannot be met ----> outcome
//!                                |
//!                                +----------- deadline ---------> outcome
//! ```
//!
//! * [`params`]: n, w and r, checked
//! * [`threshold`]: when enough of one or more sets of replicas have confirmed
//! * [`tally`]: the replicas of a request and the state of each; each replica counts once, unknown
//!   senders never
//! * [`level`]: what a request promises, and when it can
//! * [`mod@read`]: [`read::agreement`], the original system's rule, and [`read::linearizable`]
//! * [`mod@write`]: both levels; the linearizable one queries tags before it stores
//! * [`conditional`]: a write of what meets a condition, by agreement on what follows a version
//! * [`list`]: the keys of all servers, page by page
//! * [`inspect`]: what each replica of a key holds; nothing is decided by that
//!
//! Commands and responses are those of [`crate::model`]. A response is handed in with the
//! [`CommandId`] of its command; one that does not fit the command counts as
//! [`Refusal::Internal`]. After the outcome a machine still takes responses, for the report on each
//! replica. Nothing here knows HTTP or a wire format. The division of labour follows riak_kv's get
//! and put cores.

pub mod conditional;
pub mod inspect;
pub mod level;
pub mod list;
pub mod params;
pub mod read;
mod sources;
pub mod tally;
pub mod threshold;
mod transmit;
mod version;
pub mod write;

pub use crate::model::Refusal;
pub use level::Level;
pub use sources::{FetchFailure, FetchStart};
pub use transmit::{Attestation, CommandId, Purpose, Transmit};
pub use version::Version;

#[cfg(test)]
mod exhaustive;

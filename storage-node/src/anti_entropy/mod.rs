//! Anti-entropy: a server compares what it holds with its peers, and takes over what is newer there,
//! though nobody reads it.
//!
//! ```text
//!             poll_ask                    handle_answer
//!   machine ------------> a peer, by the client ------------> machine
//!             poll_timeout                handle_timeout, handle_wake
//! ```
//!
//! * `machine`: when which peer is compared with, and what is read of it; no sockets, no clock
//! * `state`: what it knows, and what it asks
//! * `session`: what is under way with one peer; `pulling`: what is pulled from it
//! * `comparison`: finding the leaves in which a peer differs
//! * `completing`: when a server that lost records answers for its keys again
//! * `marking`: finding out whether this server is set back to an older copy of its data directory
//! * `nudging`: servers that are told to compare themselves now
//! * `mending`: which peer is asked for a record that is damaged here
//! * `finishing`: what was accepted, and not agreed on by whoever proposed it
//! * `given`: what a peer gives
//! * `task`: drives the machine by the client of a cluster
//!
//! A server only ever pulls. It stores what it pulled as it would store the very put that the peer had
//! confirmed, had that come late: unless it holds something newer. So nothing is brought back that a
//! confirmed write has replaced.

mod comparison;
mod completing;
mod finishing;
mod given;
mod machine;
mod marking;
mod mending;
mod nudging;
mod pulling;
mod session;
mod state;
mod task;

pub use finishing::Finish;
pub use state::{AntiEntropy, Ask, Timing};
pub use task::{PullOptions, PullThread};

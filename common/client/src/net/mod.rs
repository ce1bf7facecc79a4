//! Sockets, timers, and the futures that callers wait for.
//!
//! ```text
//!   caller --read--> [ client ] --> [ worker: core and sockets ] <--datagrams-- servers
//!     ^                                  |          ^
//!     +---------- outcome ---------------+          +--- [ driver: flush, timers ]
//! ```
//!
//! * `client`: reads, writes and lists, each as a future
//! * `worker`: the core of a worker and its sockets, behind one lock; the clocks
//! * `driver`: one task a worker: sends, handles timeouts, takes new keys and views into use
//! * `sockets`, `socket`: one socket for each server, by DKVS/2
//! * `v1`: a socket for each command, by DKVS/1; `ports`: those that may still get a late reply
//! * `shared`: what the workers of a process share
//!
//! What happens to a request is decided in [`core`](crate::core).

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clocks and sockets are read here, and nowhere else in this package"
)]

mod client;
mod config;
mod driver;
mod ports;
mod shared;
mod socket;
mod sockets;
mod status;
#[cfg(test)]
mod tests;
mod v1;
mod worker;

pub use client::Client;
pub use config::ClientConfig;
pub use shared::Shared;
pub use status::{
    ServerDescription, ServerSnapshot, ServerStatus, ServerVersion, Snapshot, Traffic,
};
pub use v1::SOCKET_BUFFER_BYTES;
pub use worker::now;

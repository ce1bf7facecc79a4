//! A client of a dkvs cluster, without HTTP.
//!
//! ```text
//!   caller --read, write--> [ core: requests, machines, links ] <--datagrams-- [ net: sockets ]
//!                                        |
//!                                 [ transport: DKVS/2, DKVS/1 ]
//! ```
//!
//! * [`core`]: the requests in flight; whom to ask, by which protocol, at which level
//! * [`transport`]: a server as the core wants it: any record in, any value out
//! * [`net`]: sockets, timers, and the futures that callers wait for
//!
//! `core` and `transport` do no I/O and read no clock; `net` does both, and decides nothing.

pub mod core;
mod id_map;
pub mod net;
pub mod transport;

pub use crate::core::{
    AdmissionError, ByCaller, CallerId, DECIDED_PER_PLACE, InspectResult, Limits, ListResult,
    MemoryAccount, MemoryError, MemoryPermit, OTHER_CONFIGURATION, Protocol, ReadResult,
    RequestOptions, SHARES, UNCOUNTED_BYTES_MAX, Wait, WriteResult,
};
pub use net::{
    Client, ClientConfig, SOCKET_BUFFER_BYTES, ServerDescription, ServerSnapshot, ServerStatus,
    ServerVersion, Shared, Snapshot, Traffic, now,
};

/// The modules of this package that log something.
pub const LOG_MODULES: &[&str] = &[
    "dkvs_client::core::events",
    "dkvs_client::core::routing",
    "dkvs_client::net::sockets",
    "dkvs_client::net::v1::exchange",
    "dkvs_client::net::v1::pool",
    "dkvs_client::net::worker",
];

#[cfg(test)]
mod testing {
    //! A start for virtual time. Nothing depends on when it is.

    use std::time::Instant;

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can be had in no other way"
    )]
    pub(crate) fn start_of_time() -> Instant {
        Instant::now()
    }
}

//! The dkvs gateway: HTTP on one side, a cluster of storage servers on the other.
//!
//! * [`http`]: operations, parameters, JSON, problem documents, connections
//! * [`embedded`]: the cluster that runs inside the gateway when no servers file is given
//! * [`tokens`], [`tls`]: who may do what, and how connections are kept private
//! * [`cursor_keys`]: the secrets by which cursors of lists are sealed
//! * `open_files`: how much each worker may have open
//! * `memory`: how much the gateway takes at most
//! * `ready`: asking another gateway whether it is ready
//! * [`config`], [`cli`]: the `dkvs-gateway` program
//!
//! No request depends on the state of a gateway: any number of gateways may run side by side.

#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

pub mod cli;
pub mod config;
pub mod cursor_keys;
pub mod embedded;
pub mod http;
mod log_modules;
mod memory;
mod open_files;
#[cfg(feature = "otel")]
pub mod otel;
mod ready;
pub mod tls;
pub mod tokens;

pub use log_modules::LOG_MODULES;

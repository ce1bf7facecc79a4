//! What the programs of dkvs share beside the protocol.
//!
//! * [`program`], [`panics`]: how a program begins and ends, and what ends it
//! * [`signals`]: to end, to read files again, to make a backup
//! * [`log`]: the log, as text or as JSON
//! * [`key_file`]: the cluster's keys on disk, and files that nobody else may read
//! * [`browsers`]: what browsers and caches are told of every reply
//! * [`hosts`]: the hosts that requests by HTTP may name
//! * [`metrics`]: pages for Prometheus, and a server of one
//! * [`open_files`]: how many files a process may have open
//! * [`about`]: completions and man pages
//!
//! Nothing here knows what a program does in between: neither the cluster nor the HTTP API.

#![warn(missing_docs)]
pub mod about;
pub mod browsers;
pub mod hosts;
pub mod key_file;
pub mod log;
pub mod metrics;
pub mod open_files;
pub mod panics;
pub mod program;
pub mod signals;

/// The modules of this package that log something.
pub const LOG_MODULES: &[&str] = &[
    "dkvs_runtime::key_file",
    "dkvs_runtime::metrics::serve",
    "dkvs_runtime::open_files",
];

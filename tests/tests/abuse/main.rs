//! Attacks from outside: a caller who behaves is served while they go on, and the memory of the gateway
//! stays within what the documents promise. One attack for each way that was ever found.
//!
//! They run one at a time, since each takes all that it can get of the machine.

mod attack;
mod batches;
mod busy;
mod chunks;
mod connections;
mod handshakes;
mod heads;
mod held_memory;
mod listeners;
mod lists;
mod memory;
mod metrics_listener;
mod silent_server;
mod statistics;
mod uploads;
mod work_per_byte;

use dkvs_tests::process::Programs;
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();

//! What every part of dkvs must agree on, and every decision that needs no I/O.
//!
//! * [`kv`]: keys and values, length-checked once, at construction; [`record`]: what is kept for a key;
//!   [`slot`]: what is known of the record that comes next
//! * [`cluster`]: the servers file and what it describes
//! * [`epoch`]: which configuration of a cluster it is
//! * [`ring`]: key to preference list; [`view`]: a cluster and its ring at a time
//! * [`host`]: which addresses are those of one host
//! * [`model`]: what servers are asked and answer, as plain types
//! * [`wire`]: the datagrams, byte for byte
//! * [`quorum`]: one state machine per request
//!
//! This crate never does any I/O, never reads a clock and never draws a random number: time and
//! randomness come in as arguments. The same code therefore runs behind sockets in production and
//! as plain values in tests. `clippy.toml` beside this crate's manifest holds the ban.

#![warn(missing_docs)]

pub mod cluster;
pub mod epoch;
pub mod hex;
pub mod histogram;
pub mod host;
pub mod kv;
pub mod lines;
pub mod model;
pub mod mutants;
pub mod quorum;
pub mod record;
pub mod ring;
pub mod server_map;
pub mod slot;
pub mod tag;
pub mod trace;
pub mod view;
pub mod wire;

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

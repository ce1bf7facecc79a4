//! DKVS/2: many messages in an envelope that is checked as a whole.
//!
//! * [`envelope`]: magic, checksum or authentication, and the messages inside
//! * [`keys`]: the keys that prove it, and the file they are in
//! * [`message`]: messages with their heads, one after another
//! * [`request`], [`reply`]: what is asked and answered
//! * [`session`]: what ties authenticated datagrams to an address, and refuses repeats
//!
//! All numbers are big-endian. A DKVS/2 datagram begins with NUL, which to a DKVS/1 server is a
//! put with an empty key: it answers with an empty datagram and stores nothing. So both versions
//! live on one port, and a client that gets an empty datagram has met a server of DKVS/1 only.
//!
//! The layout in full, with sizes and limits, is in `docs/protocol.md`; `golden.rs` and
//! `golden_attributes.rs` beside this file hold a datagram of every kind in hexadecimal.

mod coding;
pub mod envelope;
mod error;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_attributes;
#[cfg(test)]
mod golden_messages;
mod head;
pub mod keys;
mod kind;
pub mod message;
mod record;
pub mod reply;
pub mod request;
pub mod session;

pub use kind::{DatagramKind, kind_of};

/// What a DKVS/2 datagram begins with.
pub const MAGIC: [u8; 4] = *b"\0DK2";

/// The version of the layout that this module reads and writes.
pub const VERSION: u8 = 2;

/// Longest datagram by default, in bytes of UDP payload: below what any path of today's Internet
/// fragments.
pub const DATAGRAM_BYTES_DEFAULT: usize = 1_200;

/// Longest datagram that a configuration may allow: what UDP over IPv4 carries.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Longest value by default, in bytes; the ceiling is [`crate::kv::VALUE_BYTES_MAX`].
pub const VALUE_BYTES_DEFAULT: usize = 1 << 20;

//! Bytes to commands and back: what a datagram asks for, and the datagrams that answer it.
//!
//! * `datagram`: a datagram as it arrives and as it leaves
//! * `access`, `sessions`: whether a DKVS/2 datagram is accepted
//! * `v2`, `v1`: requests to commands, responses to replies; `dump`: the dump of DKVS/1
//! * `replies`: several replies to a datagram, and how they are authenticated; `deferred`: replies
//!   that wait for the disk, and lists that wait for their turn
//!
//! No sockets, no clock: times come with the datagrams. What the commands do is up to the handlers.

mod access;
mod datagram;
mod deferred;
mod dump;
mod replies;
mod sessions;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use access::Access;
pub use datagram::{Protocol, Received, Transmit};
pub use deferred::{Backlog, DeferredReplies};
pub use dump::{Dump, DumpStep};
pub use sessions::{Issuer, PEERS_MAX};
pub use v1::V1Response;

pub(crate) use deferred::{Deferred, DeferredReply};
pub(crate) use replies::Replies;
#[cfg(test)]
pub(crate) use replies::ReplyAuth;

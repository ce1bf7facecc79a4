//! A UDP proxy between gateways and servers, which loses, repeats, delays and cuts by its conditions.
//!
//! ```text
//!   gateway socket --> [ front of a server ] ---- conditions ----> [ a socket for each gateway
//!                  <--                       <--- conditions ----    socket, connected ] <--> server
//! ```
//!
//! Gateways find the fronts in their servers file; the servers do not know of them. A server that knows its
//! peers by their fronts is a gateway, too, as far as it asks them. On loopback
//! all gateways have one IP address, so a gateway is recognized by when it first sent: an address
//! that is unknown belongs to the gateway that was expected last. A gateway with one worker has one
//! socket towards each server for life, and once it has sent to all of them another may be expected.
//! One that is expected again has been replaced: its sockets are forgotten, since the fresh one may
//! get the port of one of them.
//!
//! One thread does it all. What it holds back is bounded in bytes, and the sockets in number; past
//! either limit datagrams are dropped, and counted as such.

mod conditions;
mod handle;
mod relay;
mod shared;
#[cfg(test)]
mod tests;

pub use conditions::Conditions;
pub use handle::Proxy;
pub use shared::{Counts, Direction, Way};

//! The datagrams that servers and their clients exchange.
//!
//! A decoder here is total: any bytes give a message or a typed error, never a panic, and never
//! an allocation larger than the datagram itself.

pub mod v1;
pub mod v2;

//! What one server receives and answers, without sockets and without a clock.
//!
//! ```text
//!   ask() ---------> requests <-- handle_datagram() -- replies
//!                      |   ^
//!                      |   | handle_timeout(): not answered in time
//!                      v   |
//!                  poll_transmit(): as many messages as one datagram holds
//! ```
//!
//! * [`link`]: one server, by DKVS/2: any record in, any value out, long ones in blocks
//! * [`peer`]: the requests open towards a server, and what is known of it
//! * [`assembly`]: a value put together from blocks
//! * [`v1`]: the same server by DKVS/1
//!
//! Everything that one turn of the caller's loop asks of a server is sent together: no timer delays
//! it for batching. Every operation is idempotent, so sending one again changes nothing. A reply
//! that matches no open request is counted and dropped.

pub mod v1;
mod v2;

pub use v2::link::{assembly, get_key_bytes_max, list_bytes_max, put_key_bytes_max};
pub use v2::{link, peer};

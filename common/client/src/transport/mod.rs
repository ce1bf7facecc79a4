//! The client's side of DKVS/2 towards one server, without sockets and without a clock.
//!
//! ```text
//!   request() -----> open requests <-- handle_datagram() -- replies
//!                      |      ^
//!           outbox <---+      | handle_timeout(): not answered in time
//!              |              |
//!              +--> poll_transmit(): as many messages as one datagram holds
//! ```
//!
//! * [`link`]: any record in, any value out; long ones in blocks ([`fetch`], `upload`)
//! * [`peer`]: the requests open towards a server, and what is known of it
//! * [`rtt`]: how long a reply takes, and when to stop waiting for it (RFC 6298)
//! * [`window`]: how many bytes may be on their way, and how many may be sent again (RFC 8085)
//!
//! Everything that one turn of the caller's loop asks of a server goes out together: nothing here
//! waits on a timer to be batched. Every operation is idempotent, so sending one again changes
//! nothing; a reply that matches no open request is dropped and counted.

pub mod fetch;
pub mod link;
pub mod peer;
pub mod rtt;
#[cfg(test)]
mod tests;
mod upload;
pub mod v1;
pub mod window;

pub use upload::put_key_bytes_max;

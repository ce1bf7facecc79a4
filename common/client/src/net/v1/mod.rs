//! Sockets that speak DKVS/1.
//!
//! The protocol has no request ids: a reply belongs to a request because it goes from the server to
//! the socket that sent the request. So each exchange has a socket for itself, connected to its
//! server. The system then drops what comes from anyone else, and reports a port where nobody
//! listens.
//!
//! ```text
//!            take                  reply, or "nobody listens"
//!   pooled -------> in use -----------------------------------> pooled (expects nothing)
//!   (rested)          |
//!                     | deadline          reply
//!                     +---------> overdue ------> pooled
//!                                   |  held too long, or its socket is needed
//!                                   +---------------------> closed, its port burned
//! ```
//!
//! A datagram that is no reply to the request changes nothing: the valid one may still follow.
//!
//! A network may also repeat a reply, and the repeat would be taken for the reply to the socket's
//! next request. So a socket rests before it is used again; if anything arrived on it meanwhile, it
//! is closed and its port is burned. A repeat later than that cannot be distinguished from a reply:
//! that is a limit of the protocol.
//!
//! * `pool`: the sockets that expect nothing, and those that wait for an overdue reply
//! * `exchange`: one command to one server, on a socket from the pool

mod exchange;
mod pool;
mod socket;

pub(super) use exchange::Recipient;
pub(super) use pool::Pool;
pub(super) use socket::PooledSocket;
pub use socket::SOCKET_BUFFER_BYTES;

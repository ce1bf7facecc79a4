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
//! is closed and its port is burned. A repeat later than that cannot be told from a reply: that is a
//! limit of the protocol.

mod exchange;
mod pool;
mod socket;

use std::sync::Arc;
use std::time::Instant;

use dkvs_common::cluster::ServerId;

use super::{Coordinator, NotBegun, Shared};
use crate::core::Token;
use exchange::Exchange;
use pool::SocketPool;
pub(super) use socket::LinkSocket;
pub use socket::SOCKET_BUFFER_BYTES;

/// A worker's exchanges by DKVS/1.
pub(super) struct Links {
    pool: SocketPool,
}

impl Links {
    pub(super) fn new(shared: Arc<Shared>, sockets_max: usize) -> Self {
        Self {
            pool: SocketPool::new(shared, sockets_max),
        }
    }

    /// How many sockets are open.
    pub(super) fn open_sockets(&self) -> usize {
        self.pool.open_sockets()
    }

    /// A socket for each of `servers`; none where the server owes so many replies that no socket
    /// towards it is safe. Fails, without taking any, if no more sockets can be opened.
    pub(super) fn take(&self, servers: &[ServerId]) -> Result<Vec<Option<LinkSocket>>, NotBegun> {
        self.pool.take(servers)
    }

    /// Takes back sockets on which nothing was sent.
    pub(super) fn give_back(&self, sockets: Vec<Option<LinkSocket>>) {
        self.pool.give_back(sockets);
    }

    /// Sends a request and reports its reply to `coordinator`, on a task of its own.
    pub(super) fn ask(
        &self,
        coordinator: &Coordinator,
        token: Token,
        socket: LinkSocket,
        datagram: &[u8],
        deadline: Instant,
    ) {
        let (pool, coordinator) = (self.pool.clone(), coordinator.clone());
        Exchange::start(pool, coordinator, token, socket, datagram, deadline);
    }
}

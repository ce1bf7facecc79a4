//! How requests end, and why one cannot begin.

use std::time::Duration;

use dkvs_common::model::ReplicaResponse;
use thiserror::Error;

/// Most requests open towards one server.
pub const REQUESTS_MAX: usize = 16_384;

/// What happened to a request, which its token names, or to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent<T> {
    /// The server answered a request.
    Response {
        /// The request's token.
        token: T,
        /// The answer.
        response: ReplicaResponse,
        /// From the request's first transmission to the reply.
        after: Duration,
        /// Whether the request was sent more than once. The server may then have answered any of
        /// the copies.
        was_repeated: bool,
    },
    /// A request's deadline has passed.
    Expired {
        /// The request's token.
        token: T,
    },
    /// The server speaks DKVS/1 only. The request was never sent.
    NotV2 {
        /// The request's token.
        token: T,
    },
    /// Nothing listens at the server's port, which ends the request.
    Unreachable {
        /// The request's token.
        token: T,
        /// Whether the request was sent before, and so may have been carried out.
        sent: bool,
    },
    /// The request is longer than the server accepts. It was not sent.
    TooLong {
        /// The request's token.
        token: T,
    },
    /// The server restarted since it last answered a greeting: what it held in memory is gone.
    Restarted,
}

/// Why a request cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum RequestError {
    #[error("{REQUESTS_MAX} requests are open towards this server")]
    TooMany,
    #[error("the request takes {message_bytes} bytes, and a datagram holds {message_bytes_max}")]
    TooLong {
        message_bytes: usize,
        message_bytes_max: usize,
    },
    #[error("nothing listens at the server's port")]
    Unreachable,
}

//! What a link reports, and how its caller names a request.

use std::time::Duration;

use super::assembly::Assembly;
use dkvs_common::kv::Value;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::quorum::FetchFailure;
use dkvs_common::wire::v2::message::RequestId;

/// What happened to a request, which its token names, or to the server.
#[derive(Debug)]
pub enum LinkEvent<T> {
    /// The server answered a request. An upload ends with the answer to its last message.
    Response {
        /// The request's token.
        token: T,
        /// The answer.
        response: ReplicaResponse,
        /// From the request's first transmission to the reply; none for an upload.
        after: Option<Duration>,
        /// Whether the request was sent more than once, or may have been. The server may then have
        /// answered any of the copies.
        was_repeated: bool,
    },
    /// A value has arrived and matches its digest.
    Fetched {
        /// The fetch's token.
        token: T,
        /// The value.
        value: Value,
    },
    /// A value has not arrived from this server.
    FetchFailed {
        /// The fetch's token.
        token: T,
        /// Whether it may yet.
        failure: FetchFailure,
        /// The blocks that have arrived, so that another server can supply the rest; none if they
        /// did not match the digest.
        assembly: Option<Assembly>,
    },
    /// A request's deadline has passed.
    Expired {
        /// The request's token.
        token: T,
    },
    /// The server speaks DKVS/1 only. It did not carry out the request.
    NotV2 {
        /// The request's token.
        token: T,
    },
    /// Nothing listens at the server's port, which ends the request.
    Unreachable {
        /// The request's token.
        token: T,
        /// Whether the request may have been carried out.
        sent: bool,
    },
    /// The request is longer than the server accepts. It was not sent.
    TooLong {
        /// The request's token.
        token: T,
    },
    /// The server restarted: what it held in memory is gone.
    Restarted,
}

/// Names an open request, so that the caller can abandon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestHandle {
    /// A request of one message.
    Request(RequestId),
    /// An upload or a fetch.
    Transfer(u64),
}

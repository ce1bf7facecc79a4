//! Requests in their wire form.

use std::time::Instant;

use bytes::Bytes;

use dkvs_common::model::ReplicaCommand;
use dkvs_common::wire::v2::message::{REQUEST_HEAD_BYTES, RequestId, encode_request};
use dkvs_common::wire::v2::request::Request;

/// What the message of a small pair takes, in bytes.
const MESSAGE_BYTES_USUAL: usize = 128;

/// An encoded request. The block of an upload stays apart, so that it is copied only when it is
/// sent.
#[derive(Debug)]
pub(super) struct EncodedRequest {
    head: Vec<u8>,
    block: Bytes,
}

impl EncodedRequest {
    pub(super) fn new(id: RequestId, mut request: Request) -> Self {
        let block = match &mut request {
            Request::Command(ReplicaCommand::Stage { block, .. }) => std::mem::take(block),
            _ => Bytes::new(),
        };
        let mut head = Vec::with_capacity(MESSAGE_BYTES_USUAL);
        encode_request(id, 0, &request, &mut head);
        // A message too long for its length field is too long for any datagram, and is refused for
        // that.
        let length = u16::try_from(head.len() + block.len()).unwrap_or(u16::MAX);
        head[..2].copy_from_slice(&length.to_be_bytes());
        Self { head, block }
    }

    pub(super) fn message_bytes(&self) -> usize {
        self.head.len() + self.block.len()
    }

    /// Writes how long the client still waits for the reply, rounded up to a millisecond: a wait of
    /// zero would make the request pointless.
    pub(super) fn write_wait(&mut self, deadline: Instant, now: Instant) {
        let left = deadline.saturating_duration_since(now).as_micros();
        let wait_ms = u16::try_from(left.div_ceil(1_000)).unwrap_or(u16::MAX);
        self.head[REQUEST_HEAD_BYTES - 2..REQUEST_HEAD_BYTES]
            .copy_from_slice(&wait_ms.to_be_bytes());
    }

    pub(super) fn append_to(&self, datagram: &mut Vec<u8>) {
        datagram.extend_from_slice(&self.head);
        datagram.extend_from_slice(&self.block);
    }
}

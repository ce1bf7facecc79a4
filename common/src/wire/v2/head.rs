//! What every message begins with.
//!
//! ```text
//!   offset  bytes
//!        0      2   length of the whole message, these two bytes included
//!        2      1   operation
//!        3      1   status: 0 in a request
//!        4      8   request id
//!       12          then, in a request: 2 bytes, the milliseconds that its sender will wait
//!       14/12       then the body of the operation, or of the status
//! ```

use bytes::Bytes;

use super::coding::{AppendFields as _, Reader};
use super::error::WrongLength;

/// A request's name: unique for the lifetime of its sender, and unguessable at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Bytes before the body of a request.
pub const REQUEST_HEAD_BYTES: usize = 14;

/// Bytes before the body of a reply.
pub const REPLY_HEAD_BYTES: usize = 12;

/// The operations' bytes. 10 was a list in ring order, which gateways before 0.2 ask for. 16 to 31 are
/// for conditional writes, 32 to 47 are for anti-entropy, 48 to 63 for hints, 64 to 79 for
/// membership.
pub(super) mod operation {
    pub(in crate::wire::v2) const GREET: u8 = 1;
    pub(in crate::wire::v2) const PING: u8 = 2;
    pub(in crate::wire::v2) const GET: u8 = 3;
    pub(in crate::wire::v2) const TAG: u8 = 4;
    pub(in crate::wire::v2) const DIGEST: u8 = 5;
    pub(in crate::wire::v2) const PUT: u8 = 6;
    pub(in crate::wire::v2) const PUT_STAGED: u8 = 7;
    pub(in crate::wire::v2) const STAGE: u8 = 8;
    pub(in crate::wire::v2) const GET_BLOCK: u8 = 9;
    pub(in crate::wire::v2) const STATS: u8 = 11;
    pub(in crate::wire::v2) const ATTEST: u8 = 12;
    pub(in crate::wire::v2) const TRACE: u8 = 13;
    pub(in crate::wire::v2) const LIST: u8 = 14;
    pub(in crate::wire::v2) const PUT_STAGED_WITH_ATTRIBUTES: u8 = 15;
    pub(in crate::wire::v2) const PREPARE: u8 = 16;
    pub(in crate::wire::v2) const ACCEPT: u8 = 17;
    pub(in crate::wire::v2) const COMMIT: u8 = 18;
    pub(in crate::wire::v2) const LEAF_SUMS: u8 = 32;
    pub(in crate::wire::v2) const LEAF_ENTRIES: u8 = 33;
    pub(in crate::wire::v2) const HIGH_WATER: u8 = 34;
    pub(in crate::wire::v2) const NUDGE: u8 = 48;
    pub(in crate::wire::v2) const DESCRIBE: u8 = 64;
}

/// What every message begins with.
pub(super) struct Head {
    pub(super) operation: u8,
    pub(super) status: u8,
    pub(super) id: RequestId,
}

/// The length of the next of the messages of a datagram, which is there as a whole; none at their
/// end. It is not shorter than a head.
pub(super) fn next_length(messages: &Bytes) -> Result<Option<usize>, WrongLength> {
    if messages.is_empty() {
        return Ok(None);
    }
    let length = messages.first_chunk().ok_or(WrongLength)?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length < REPLY_HEAD_BYTES || length > messages.len() {
        return Err(WrongLength);
    }
    Ok(Some(length))
}

/// Reads the head of a message, and leaves the reader at its body.
pub(super) fn read(message: &mut Reader<'_>) -> Result<Head, WrongLength> {
    let head: [u8; REPLY_HEAD_BYTES] = message.array()?;
    let [_, _, operation, status, id @ ..] = head;
    Ok(Head {
        operation,
        status,
        id: RequestId(u64::from_be_bytes(id)),
    })
}

/// Writes a message with the length that it turns out to have.
pub(super) fn write(
    datagram: &mut Vec<u8>,
    operation: u8,
    status: u8,
    id: RequestId,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = datagram.len();
    let mut head = [0; REPLY_HEAD_BYTES];
    head[2..4].copy_from_slice(&[operation, status]);
    head[4..].copy_from_slice(&id.0.to_be_bytes());
    datagram.put(&head);
    body(datagram);
    // A message that is too long for its length field is too long for any datagram, too, and is
    // taken out again where that is built.
    let length = u16::try_from(datagram.len() - start).unwrap_or(u16::MAX);
    datagram[start..start + 2].copy_from_slice(&length.to_be_bytes());
}

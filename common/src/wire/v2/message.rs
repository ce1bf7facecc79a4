//! What is asked and what is answered.
//!
//! ```text
//!   offset  bytes   every message begins with
//!        0      2   length of the whole message, these two bytes included
//!        2      1   operation
//!        3      1   status: 0 in a request
//!        4      8   request id
//!       12          then, in a request: 2 bytes, the milliseconds that its sender will wait
//!       14/12       then the body of the operation, or of the status
//! ```
//!
//! A body's length follows from its fields; a message that is longer or shorter is refused. Of
//! every message there is one encoding only.

use bytes::Bytes;
use thiserror::Error;

use super::coding::{Put as _, Reader, WrongLength};
use super::reply::Reply;
use super::request::Request;

/// A request's name: unique for the lifetime of its sender, and unguessable at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Bytes before the body of a request.
pub const REQUEST_HEAD_BYTES: usize = 14;

/// Bytes before the body of a reply.
pub const REPLY_HEAD_BYTES: usize = 12;

/// A request with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMessage {
    /// Its name, which the reply repeats.
    pub id: RequestId,
    /// How long the sender will wait for the reply, in milliseconds.
    pub wait_ms: u16,
    /// What is asked.
    pub request: Request,
}

/// A reply with the name of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyMessage {
    /// The request's name.
    pub id: RequestId,
    /// The operation that was asked for, as its byte in the request.
    pub operation: u8,
    /// The answer.
    pub reply: Reply,
}

/// Why a message is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum MessageError {
    #[error(transparent)]
    Length(#[from] WrongLength),
    #[error("there is no operation {operation}")]
    Operation { operation: u8 },
    #[error("there is no status {status} in a reply to operation {operation}")]
    Status { operation: u8, status: u8 },
    #[error("a field has a value that it cannot have")]
    Field,
}

/// The operations' bytes. 16 to 31 are kept for conditional writes, 32 to 47 for anti-entropy,
/// 48 to 63 for hints.
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
    pub(in crate::wire::v2) const LIST: u8 = 10;
    pub(in crate::wire::v2) const STATS: u8 = 11;
    pub(in crate::wire::v2) const VOUCH: u8 = 12;
    pub(in crate::wire::v2) const TRACE: u8 = 13;
}

/// Cuts the next message off the messages of a datagram: its head, and a reader at its body.
fn split(messages: &mut Bytes) -> Result<Option<(u8, u8, RequestId, Reader)>, WrongLength> {
    if messages.is_empty() {
        return Ok(None);
    }
    let mut head = Reader::new(messages.clone());
    let length = usize::from(head.u16()?);
    if length < REPLY_HEAD_BYTES || length > messages.len() {
        return Err(WrongLength);
    }
    let mut message = Reader::new(messages.split_to(length));
    message.u16()?;
    let (operation, status) = (message.u8()?, message.u8()?);
    let id = RequestId(message.u64()?);
    Ok(Some((operation, status, id, message)))
}

/// Writes a message with the length that it turns out to have.
fn write(
    datagram: &mut Vec<u8>,
    operation: u8,
    status: u8,
    id: RequestId,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = datagram.len();
    datagram.put_u16(0);
    datagram.put_u8(operation);
    datagram.put_u8(status);
    datagram.put_u64(id.0);
    body(datagram);
    // A message that is too long for its length field is too long for any datagram, too, and is
    // taken out again by whoever builds that.
    let length = u16::try_from(datagram.len() - start).unwrap_or(u16::MAX);
    datagram[start..start + 2].copy_from_slice(&length.to_be_bytes());
}

/// A request that could not be read, as far as it could: enough to say so to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRequest {
    /// Its name.
    pub id: RequestId,
    /// Its operation's byte.
    pub operation: u8,
    /// What is wrong with it.
    pub error: MessageError,
}

/// Takes the next request off the messages of a datagram; none at their end. The outer error is
/// about the datagram, whose rest cannot be read; the inner one about a single request.
pub fn next_request(
    messages: &mut Bytes,
) -> Result<Option<Result<RequestMessage, BadRequest>>, WrongLength> {
    let Some((operation, status, id, mut body)) = split(messages)? else {
        return Ok(None);
    };
    let mut request = || -> Result<RequestMessage, MessageError> {
        if status != 0 {
            return Err(MessageError::Field);
        }
        let wait_ms = body.u16()?;
        let request = Request::decode(operation, &mut body)?;
        body.end()?;
        Ok(RequestMessage {
            id,
            wait_ms,
            request,
        })
    };
    Ok(Some(request().map_err(|error| BadRequest {
        id,
        operation,
        error,
    })))
}

/// Takes the next reply off the messages of a datagram; none at their end.
pub fn next_reply(messages: &mut Bytes) -> Result<Option<ReplyMessage>, MessageError> {
    let Some((operation, status, id, mut body)) = split(messages)? else {
        return Ok(None);
    };
    let reply = Reply::decode(operation, status, &mut body)?;
    body.end()?;
    Ok(Some(ReplyMessage {
        id,
        operation,
        reply,
    }))
}

impl RequestMessage {
    /// Appends the message.
    pub fn encode(&self, datagram: &mut Vec<u8>) {
        write(datagram, self.request.operation(), 0, self.id, |body| {
            body.put_u16(self.wait_ms);
            self.request.encode_body(body);
        });
    }
}

impl ReplyMessage {
    /// Appends the message.
    pub fn encode(&self, datagram: &mut Vec<u8>) {
        write(
            datagram,
            self.operation,
            self.reply.status(),
            self.id,
            |body| {
                self.reply.encode_body(body);
            },
        );
    }
}

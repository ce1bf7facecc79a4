//! Requests and replies with their heads, one after another in a datagram.
//!
//! A body's length follows from its fields; a message that is longer or shorter is refused. Of
//! every message there is one encoding only.

use bytes::{Buf as _, Bytes};

use super::coding::{AppendFields as _, Reader};
use super::error::WrongLength;
use super::head::{Head, next_length, read, write};
use super::reply::Reply;
use super::request::Request;

pub use super::error::MessageError;
pub use super::head::{REPLY_HEAD_BYTES, REQUEST_HEAD_BYTES, RequestId};

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
    let Some(length) = next_length(messages)? else {
        return Ok(None);
    };
    let mut body = Reader::of_first(messages, length);
    let Head {
        operation,
        status,
        id,
    } = read(&mut body)?;
    let bad = |error| BadRequest {
        id,
        operation,
        error,
    };
    let message = match read_wait(status, &mut body) {
        Ok(wait_ms) => match Request::decode(operation, &mut body) {
            Ok(request) if body.end().is_ok() => Ok(RequestMessage {
                id,
                wait_ms,
                request,
            }),
            Ok(_) => Err(bad(WrongLength.into())),
            Err(error) => Err(bad(error)),
        },
        Err(error) => Err(bad(error)),
    };
    messages.advance(length);
    Ok(Some(message))
}

/// How long the sender of a request will wait, in milliseconds, which follows the head.
fn read_wait(status: u8, body: &mut Reader<'_>) -> Result<u16, MessageError> {
    match status {
        0 => Ok(body.u16()?),
        _ => Err(MessageError::Field),
    }
}

/// Takes the next reply off the messages of a datagram; none at their end. After an error the rest
/// cannot be read.
pub fn next_reply(messages: &mut Bytes) -> Result<Option<ReplyMessage>, MessageError> {
    let Some(length) = next_length(messages)? else {
        return Ok(None);
    };
    let mut body = Reader::of_first(messages, length);
    let Head {
        operation,
        status,
        id,
    } = read(&mut body)?;
    let reply = Reply::decode(operation, status, &mut body)?;
    body.end()?;
    messages.advance(length);
    Ok(Some(ReplyMessage {
        id,
        operation,
        reply,
    }))
}

impl RequestMessage {
    /// Appends the message.
    pub fn encode(&self, datagram: &mut Vec<u8>) {
        encode_request(self.id, self.wait_ms, &self.request, datagram);
    }
}

/// Appends the message of a request, which has this name, and whose sender will wait for `wait_ms`
/// milliseconds.
pub fn encode_request(id: RequestId, wait_ms: u16, request: &Request, datagram: &mut Vec<u8>) {
    write(datagram, request.operation(), 0, id, |body| {
        body.put_u16(wait_ms);
        request.encode_body(body);
    });
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

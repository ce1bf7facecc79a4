//! Requests and replies with their heads, one after another in a datagram.
//!
//! A body's length follows from its fields; a message that is longer or shorter is refused. Of
//! every message there is one encoding only.

use bytes::Bytes;

use super::coding::{AppendFields as _, Reader};
use super::error::WrongLength;
use super::head::{Head, read, split, write};
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
    let Some(message) = split(messages)? else {
        return Ok(None);
    };
    let mut body = Reader::new(&message);
    let Head {
        operation,
        status,
        id,
    } = read(&mut body)?;
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
    let Some(message) = split(messages)? else {
        return Ok(None);
    };
    let mut body = Reader::new(&message);
    let Head {
        operation,
        status,
        id,
    } = read(&mut body)?;
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

//! Why a datagram is not understood.

use thiserror::Error;

/// A datagram ended too early, or went on too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the message is shorter than its fields say, or longer")]
pub struct WrongLength;

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

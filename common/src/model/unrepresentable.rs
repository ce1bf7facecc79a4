//! What DKVS/1 cannot carry.

use thiserror::Error;

/// Why a key or a value cannot travel by DKVS/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Unrepresentable {
    #[error("the key has a NUL byte at offset {offset}, which DKVS/1 cannot carry")]
    KeyHasNul { offset: usize },
    #[error("the key is {key_bytes} bytes long; DKVS/1 carries at most {bytes_max}")]
    KeyTooLong { key_bytes: usize, bytes_max: usize },
    #[error("the value has a NUL byte at offset {offset}, which DKVS/1 cannot carry")]
    ValueHasNul { offset: usize },
    #[error("the value is {value_bytes} bytes long; DKVS/1 carries at most {bytes_max}")]
    ValueTooLong {
        value_bytes: usize,
        bytes_max: usize,
    },
}

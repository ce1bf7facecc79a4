//! Keys and values. Lengths are checked here, once; everything behind may rely on them.
//!
//! What a particular protocol can carry (NUL bytes, datagram sizes) is the business of
//! [`crate::wire`], not of this module.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

/// Longest key, in bytes. DKVS/1 set it, and the ring and every protocol since keep it.
pub const KEY_BYTES_MAX: usize = 32_753;

/// Longest value that any configuration may allow, in bytes (16 MiB). Servers and gateways set
/// lower limits of their own.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// A key: 1 to [`KEY_BYTES_MAX`] arbitrary bytes. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why some bytes are not a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// There were no bytes at all.
    #[error("the key is empty; a key has at least one byte")]
    Empty,
    /// There were too many.
    #[error("the key is {key_bytes} bytes long; the limit is {KEY_BYTES_MAX}")]
    TooLong {
        /// Length of the refused key, in bytes.
        key_bytes: usize,
    },
}

impl Key {
    /// Takes 1 to [`KEY_BYTES_MAX`] bytes as a key.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=KEY_BYTES_MAX => Ok(Self(bytes)),
            key_bytes => Err(KeyError::TooLong { key_bytes }),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes themselves, shared rather than copied.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for Key {
    /// Escaped, and cut after 64 bytes: a key is never a log line's control bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(64)];
        let more = if shown.len() < self.0.len() {
            "…"
        } else {
            ""
        };
        write!(f, "Key(\"{}{more}\")", shown.escape_ascii())
    }
}

/// A value: 0 to [`VALUE_BYTES_MAX`] arbitrary bytes. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Value(Bytes);

/// Why some bytes are not a [`Value`]: there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the value is {value_bytes} bytes long; the limit is {VALUE_BYTES_MAX}")]
pub struct ValueError {
    /// Length of the refused value, in bytes.
    pub value_bytes: usize,
}

impl Value {
    /// Takes up to [`VALUE_BYTES_MAX`] bytes as a value.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, ValueError> {
        let bytes = bytes.into();
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(ValueError {
                value_bytes: bytes.len(),
            });
        }
        Ok(Self(bytes))
    }

    /// The value's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value has no bytes. An empty value is a value: its key is not absent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes themselves, shared rather than copied.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(32)];
        write!(
            f,
            "Value({} bytes, \"{}\")",
            self.0.len(),
            shown.escape_ascii()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_lengths_are_checked_at_both_ends() {
        assert_eq!(Key::new(&b""[..]), Err(KeyError::Empty));
        assert!(Key::new(vec![b'k'; 1]).is_ok());
        assert!(Key::new(vec![b'k'; KEY_BYTES_MAX]).is_ok());
        let key_bytes = KEY_BYTES_MAX + 1;
        assert_eq!(
            Key::new(vec![b'k'; key_bytes]),
            Err(KeyError::TooLong { key_bytes })
        );
    }

    #[test]
    fn value_lengths_are_checked_at_both_ends() {
        assert!(Value::new(&b""[..]).unwrap().is_empty());
        assert!(Value::new(vec![0; VALUE_BYTES_MAX]).is_ok());
        assert!(Value::new(vec![0; VALUE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn debug_output_of_a_key_carries_no_control_bytes() {
        let key = Key::new(&b"a\n\x1b[31m\xff"[..]).unwrap();
        assert_eq!(format!("{key:?}"), r#"Key("a\n\x1b[31m\xff")"#);
    }
}

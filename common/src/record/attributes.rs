//! What a record says beside its content: its age, when it expires, and which operation wrote it.
//!
//! ```text
//!   a block     version 1 | flags 1 | the fields that the flags name
//!   the fields  born 4 | expires 8 | operation 16
//!   the flags   1 = born, 2 = expires, 4 = operation; no other bit
//! ```
//!
//! There is one encoding of each: a born of 0 has no field, and attributes of which none is set have
//! no block. All numbers are big-endian.

use thiserror::Error;

/// The version of the block that is read and written here.
const VERSION: u8 = 1;

const BORN: u8 = 1;
const EXPIRES: u8 = 2;
const OPERATION: u8 = 4;
const FLAGS: u8 = BORN | EXPIRES | OPERATION;

const BORN_BYTES: usize = 4;
const EXPIRES_BYTES: usize = 8;
const OPERATION_BYTES: usize = 16;

/// Bytes of a block before its fields.
const BLOCK_HEAD_BYTES: usize = 2;

/// Which operation wrote a record, as its caller named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub [u8; 16]);

/// What a record says beside its content. By default nothing.
///
/// Whoever passes a record on passes them on unchanged, whether or not anything is done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// The age in which the operation was, a logical clock of the cluster; 0 where none is known.
    ///
    /// It is the only attribute that may differ between two copies of one record, if the operation
    /// was sent again in a later age. The greatest is kept, so no checksum covers it.
    pub born: u32,
    /// When the record expires: milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Which operation wrote it.
    pub operation: Option<OperationId>,
}

/// Bytes are no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AttributesError {
    /// They are of a version that is not known here.
    #[error("version {version} of a record's attributes is not known")]
    Version {
        /// That version.
        version: u8,
    },
    /// A flag is set that means nothing, or none at all.
    #[error("attributes have no flags {flags:#04x}")]
    Flags {
        /// The flags.
        flags: u8,
    },
    /// They end before their last field does.
    #[error("a record's attributes end too early")]
    Length,
    /// A field is there that says nothing.
    #[error("a record's attributes have a field that is 0")]
    Zero,
}

impl Attributes {
    /// No attribute is set.
    pub const NONE: Self = Self {
        born: 0,
        expires_ms: None,
        operation: None,
    };

    /// Most bytes that all fields take.
    pub const FIELDS_BYTES_MAX: usize = BORN_BYTES + EXPIRES_BYTES + OPERATION_BYTES;

    /// Most bytes that a block takes.
    pub const BLOCK_BYTES_MAX: usize = BLOCK_HEAD_BYTES + Self::FIELDS_BYTES_MAX;

    /// Whether none is set.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The same, born in this age if that is greater.
    pub fn born_at_least(self, born: u32) -> Self {
        let born = self.born.max(born);
        Self { born, ..self }
    }

    /// The same without what may differ between two copies of a record.
    pub fn of_record(self) -> Self {
        Self { born: 0, ..self }
    }

    /// The flags of those that are set: the lowest three bits of a byte.
    pub fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        flag(self.born != 0, BORN)
            | flag(self.expires_ms.is_some(), EXPIRES)
            | flag(self.operation.is_some(), OPERATION)
    }

    /// How many bytes the fields take that these flags name.
    pub fn fields_bytes(flags: u8) -> usize {
        let bytes = |flag, bytes| if flags & flag != 0 { bytes } else { 0 };
        bytes(BORN, BORN_BYTES) + bytes(EXPIRES, EXPIRES_BYTES) + bytes(OPERATION, OPERATION_BYTES)
    }

    /// Appends the fields of those that are set.
    pub fn encode_fields(&self, out: &mut Vec<u8>) {
        if self.born != 0 {
            out.extend_from_slice(&self.born.to_be_bytes());
        }
        if let Some(expires_ms) = self.expires_ms {
            out.extend_from_slice(&expires_ms.to_be_bytes());
        }
        if let Some(OperationId(operation)) = &self.operation {
            out.extend_from_slice(operation);
        }
    }

    /// The fields of those that are set.
    pub fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(Self::fields_bytes(self.flags()));
        self.encode_fields(&mut fields);
        fields
    }

    /// Reads the fields that these flags name from the beginning of `bytes`.
    pub fn decode_fields(flags: u8, bytes: &[u8]) -> Result<Self, AttributesError> {
        if flags == 0 {
            return Ok(Self::NONE);
        }
        if flags & !FLAGS != 0 {
            return Err(AttributesError::Flags { flags });
        }
        let mut rest = bytes;
        let born = take(&mut rest, flags & BORN != 0)?.map(u32::from_be_bytes);
        let expires_ms = take(&mut rest, flags & EXPIRES != 0)?.map(u64::from_be_bytes);
        let operation = take(&mut rest, flags & OPERATION != 0)?.map(OperationId);
        if born == Some(0) {
            return Err(AttributesError::Zero);
        }
        Ok(Self {
            born: born.unwrap_or(0),
            expires_ms,
            operation,
        })
    }

    /// How many bytes their block takes; 0 if none is set.
    pub fn block_bytes(&self) -> usize {
        match self.flags() {
            0 => 0,
            flags => BLOCK_HEAD_BYTES + Self::fields_bytes(flags),
        }
    }

    /// Appends their block; nothing if none is set.
    pub fn encode_block(&self, out: &mut Vec<u8>) {
        if !self.is_none() {
            out.extend_from_slice(&[VERSION, self.flags()]);
            self.encode_fields(out);
        }
    }

    /// Reads a block from the beginning of `bytes`, and how many bytes it takes.
    pub fn decode_block(bytes: &[u8]) -> Result<(Self, usize), AttributesError> {
        let (head, fields) = bytes
            .split_first_chunk::<BLOCK_HEAD_BYTES>()
            .ok_or(AttributesError::Length)?;
        let [version, flags] = *head;
        if version != VERSION {
            return Err(AttributesError::Version { version });
        }
        if flags == 0 {
            return Err(AttributesError::Flags { flags });
        }
        let attributes = Self::decode_fields(flags, fields)?;
        Ok((attributes, BLOCK_HEAD_BYTES + Self::fields_bytes(flags)))
    }
}

/// Takes a field off the front, if it is there.
fn take<const N: usize>(
    rest: &mut &[u8],
    is_there: bool,
) -> Result<Option<[u8; N]>, AttributesError> {
    if !is_there {
        return Ok(None);
    }
    let (field, after) = rest.split_first_chunk().ok_or(AttributesError::Length)?;
    *rest = after;
    Ok(Some(*field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes() -> impl Strategy<Value = Attributes> {
        let born = prop_oneof![Just(0), any::<u32>()];
        let operation = any::<Option<[u8; 16]>>();
        (born, any::<Option<u64>>(), operation).prop_map(|(born, expires_ms, operation)| {
            let operation = operation.map(OperationId);
            Attributes {
                born,
                expires_ms,
                operation,
            }
        })
    }

    fn block(attributes: &Attributes) -> Vec<u8> {
        let mut block = Vec::new();
        attributes.encode_block(&mut block);
        block
    }

    #[test]
    fn a_block_has_golden_bytes() {
        let all = Attributes {
            born: 0x0102_0304,
            expires_ms: Some(0x0192_f0c4_a1b2),
            operation: Some(OperationId([0x55; 16])),
        };
        let golden = [
            &[1, 7, 1, 2, 3, 4][..],
            &[0, 0, 0x01, 0x92, 0xf0, 0xc4, 0xa1, 0xb2],
            &[0x55; 16],
        ];
        assert_eq!(block(&all), golden.concat());
        assert_eq!(block(&all).len(), Attributes::BLOCK_BYTES_MAX);
        let born = Attributes {
            born: 9,
            ..Attributes::NONE
        };
        assert_eq!(block(&born), [1, 1, 0, 0, 0, 9]);
        assert_eq!(block(&Attributes::NONE), [0_u8; 0]);
    }

    #[test]
    fn what_is_no_block_is_refused_with_its_reason() {
        let reason = |bytes: &[u8]| Attributes::decode_block(bytes).unwrap_err();
        assert_eq!(reason(&[]), AttributesError::Length);
        assert_eq!(reason(&[1]), AttributesError::Length);
        for version in [0, 2, 0xff] {
            let refused = AttributesError::Version { version };
            assert_eq!(reason(&[version, 1, 0, 0, 0, 9]), refused);
        }
        for flags in [0, 8, 9, 0x80, 0xff] {
            let bytes = [&[1, flags][..], &[9; 64]].concat();
            assert_eq!(reason(&bytes), AttributesError::Flags { flags });
        }
        assert_eq!(reason(&[1, 1, 0, 0, 0, 0]), AttributesError::Zero);
    }

    #[test]
    fn an_expiry_or_an_operation_of_zeros_is_one() {
        for attributes in [
            Attributes {
                expires_ms: Some(0),
                ..Attributes::NONE
            },
            Attributes {
                operation: Some(OperationId([0; 16])),
                ..Attributes::NONE
            },
        ] {
            let block = block(&attributes);
            assert_eq!(
                Attributes::decode_block(&block),
                Ok((attributes, block.len()))
            );
        }
    }

    proptest! {
        #[test]
        fn a_block_is_read_as_it_was_written_and_no_shorter(attributes in attributes()) {
            let block = block(&attributes);
            prop_assert_eq!(block.len(), attributes.block_bytes());
            prop_assert_eq!(block.is_empty(), attributes.is_none());
            if !attributes.is_none() {
                let followed = [&block[..], &[0xff; 3]].concat();
                let read = Attributes::decode_block(&followed);
                prop_assert_eq!(read, Ok((attributes, block.len())));
                for length in 0..block.len() {
                    let cut = Attributes::decode_block(&block[..length]);
                    prop_assert_eq!(cut, Err(AttributesError::Length));
                }
            }
        }

        #[test]
        fn any_bytes_are_refused_or_are_the_one_encoding_of_what_they_say(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            is_version_right in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if let (true, [version, flags, ..]) = (is_version_right, &mut bytes[..]) {
                *version = VERSION;
                *flags &= FLAGS;
            }
            if let Ok((attributes, length)) = Attributes::decode_block(&bytes) {
                prop_assert_eq!(&block(&attributes)[..], &bytes[..length]);
            }
        }
    }
}

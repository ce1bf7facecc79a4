//! The slot of a version: single-decree Paxos on which record comes next.
//!
//! Each version of a key has one slot at each of its replicas. Of a slot a replica keeps the greatest
//! ballot that it has promised to, and the record that it accepted last. It stands beside the version
//! that it belongs to, and ends with it: a record that takes the version's place has a slot of its own.
//!
//! ```text
//!   version 1 | flags 1 | promised 16 [ | accepted 16 | record ]
//!
//!   a ballot    number 8 | proposer 8
//!   the record  tag 16 | checksum 4 | kind 1 [ | attributes ] [ | type length 1 | type | value ]
//! ```
//!
//! The one flag, 1, says that there is an accepted record. The record is written as in a put of DKVS/2:
//! of its kind, bit 0 is set if it is a tombstone, and has neither type nor value then, and bit 1 if it
//! has [`Attributes`], whose block follows. The value ends where the slot does. All numbers are
//! big-endian, and of every slot there is one encoding only.
//!
//! It knows nothing of how ballots are chosen, nor of what a replica answers.

use bytes::Bytes;
use thiserror::Error;

use crate::kv::{VALUE_BYTES_MAX, Value};
use crate::record::{
    Attributes, AttributesError, CONTENT_TYPE_BYTES_MAX, Content, ContentType, Record,
};
use crate::tag::Tag;

/// The version of the layout that is read and written here.
const VERSION: u8 = 1;

const HAS_ACCEPTED: u8 = 1;

const TOMBSTONE: u8 = 1;
const HAS_ATTRIBUTES: u8 = 2;

const BALLOT_BYTES: usize = 16;

/// One attempt to have a record chosen. Compared by number, then by proposer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Greater than that of any ballot that the proposer has met.
    pub number: u64,
    /// Who proposes: another number for each attempt that may run at the same time.
    pub proposer: u64,
}

impl Ballot {
    /// Less than any ballot that is used.
    pub const ZERO: Self = Self {
        number: 0,
        proposer: 0,
    };
}

/// What a replica has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Under which ballot.
    pub ballot: Ballot,
    /// Which record.
    pub record: Record,
}

/// What a replica knows of which record comes after a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    promised: Ballot,
    accepted: Option<Accepted>,
}

/// Bytes are no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SlotError {
    /// They are of a version that is not known here.
    #[error("version {version} of a slot is not known")]
    Version {
        /// That version.
        version: u8,
    },
    /// They end before their last field does, or go on after it.
    #[error("a slot is shorter than its fields say, or longer")]
    Length,
    /// A field has a value that it cannot have.
    #[error("a field of a slot has a value that it cannot have")]
    Field,
    /// The record's attributes are none.
    #[error(transparent)]
    Attributes(AttributesError),
}

impl Slot {
    /// Most bytes that a slot takes, written.
    pub const ENCODED_BYTES_MAX: usize = 1
        + 1
        + 2 * BALLOT_BYTES
        + 16
        + 4
        + 1
        + Attributes::BLOCK_BYTES_MAX
        + 1
        + CONTENT_TYPE_BYTES_MAX
        + VALUE_BYTES_MAX;

    /// One in which nothing is accepted.
    pub fn promised_to(promised: Ballot) -> Self {
        Self {
            promised,
            accepted: None,
        }
    }

    /// The same with this accepted, which is a promise as well.
    pub fn accepting(self, accepted: Accepted) -> Self {
        Self {
            promised: self.promised.max(accepted.ballot),
            accepted: Some(accepted),
        }
    }

    /// The greatest ballot that was promised to: never less than that of what is accepted.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What was accepted last.
    pub fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref()
    }

    /// The same, if anything was accepted.
    pub fn into_accepted(self) -> Option<Accepted> {
        self.accepted
    }

    /// How many bytes it takes, written.
    pub fn encoded_bytes(&self) -> usize {
        2 + BALLOT_BYTES + self.accepted.as_ref().map_or(0, Accepted::encoded_bytes)
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_bytes());
        let flags = match self.accepted {
            Some(_) => HAS_ACCEPTED,
            None => 0,
        };
        out.extend_from_slice(&[VERSION, flags]);
        encode_ballot(self.promised, out);
        if let Some(Accepted { ballot, record }) = &self.accepted {
            encode_ballot(*ballot, out);
            encode_record(record, out);
        }
    }

    /// Reads what was written so, and is all of `bytes`. The value shares their memory. Whether the
    /// record matches its checksum is not looked at, as that takes its key.
    pub fn decode(bytes: &Bytes) -> Result<Self, SlotError> {
        let mut rest = bytes.clone();
        let [version, flags] = take(&mut rest)?;
        if version != VERSION {
            return Err(SlotError::Version { version });
        }
        let promised = decode_ballot(&mut rest)?;
        let accepted = match flags {
            0 if rest.is_empty() => None,
            0 => return Err(SlotError::Length),
            HAS_ACCEPTED => Some(Accepted {
                ballot: decode_ballot(&mut rest)?,
                record: decode_record(rest)?,
            }),
            _ => return Err(SlotError::Field),
        };
        let is_promised = |accepted: &Accepted| accepted.ballot <= promised;
        match accepted.as_ref().is_none_or(is_promised) {
            true => Ok(Self { promised, accepted }),
            false => Err(SlotError::Field),
        }
    }
}

impl Accepted {
    /// The same in memory of its own, so that no datagram is kept for it.
    pub fn owned(self) -> Self {
        let record = self.record.owned();
        Self { record, ..self }
    }

    /// How many bytes it takes, written.
    pub fn encoded_bytes(&self) -> usize {
        let content_bytes = match &self.record.content {
            Content::Value {
                content_type,
                value,
            } => 1 + content_type.as_bytes().len() + value.len(),
            Content::Tombstone => 0,
        };
        BALLOT_BYTES + 16 + 4 + 1 + self.record.attributes.block_bytes() + content_bytes
    }
}

fn encode_ballot(ballot: Ballot, out: &mut Vec<u8>) {
    out.extend_from_slice(&ballot.number.to_be_bytes());
    out.extend_from_slice(&ballot.proposer.to_be_bytes());
}

fn decode_ballot(rest: &mut Bytes) -> Result<Ballot, SlotError> {
    Ok(Ballot {
        number: take(rest).map(u64::from_be_bytes)?,
        proposer: take(rest).map(u64::from_be_bytes)?,
    })
}

fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let Record {
        tag,
        attributes,
        content,
        checksum,
    } = record;
    out.extend_from_slice(&tag.time.to_be_bytes());
    out.extend_from_slice(&tag.op.to_be_bytes());
    out.extend_from_slice(&checksum.to_be_bytes());
    let has_attributes = match attributes.is_none() {
        true => 0,
        false => HAS_ATTRIBUTES,
    };
    match content {
        Content::Tombstone => {
            out.push(TOMBSTONE | has_attributes);
            attributes.encode_block(out);
        }
        Content::Value {
            content_type,
            value,
        } => {
            out.push(has_attributes);
            attributes.encode_block(out);
            // Content types are at most 255 bytes.
            out.push(content_type.as_bytes().len() as u8);
            out.extend_from_slice(content_type.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
}

fn decode_record(mut rest: Bytes) -> Result<Record, SlotError> {
    let tag = Tag {
        time: take(&mut rest).map(u64::from_be_bytes)?,
        op: take(&mut rest).map(u64::from_be_bytes)?,
    };
    let checksum = take(&mut rest).map(u32::from_be_bytes)?;
    let [kind] = take(&mut rest)?;
    if kind & !(TOMBSTONE | HAS_ATTRIBUTES) != 0 {
        return Err(SlotError::Field);
    }
    let mut attributes = Attributes::NONE;
    if kind & HAS_ATTRIBUTES != 0 {
        let (decoded, length) = Attributes::decode_block(&rest).map_err(|error| match error {
            AttributesError::Length => SlotError::Length,
            error => SlotError::Attributes(error),
        })?;
        attributes = decoded;
        drop(rest.split_to(length));
    }
    let content = match kind & TOMBSTONE != 0 {
        true if rest.is_empty() => Content::Tombstone,
        true => return Err(SlotError::Length),
        false => {
            let [type_bytes] = take(&mut rest)?;
            let type_bytes = usize::from(type_bytes);
            if rest.len() < type_bytes {
                return Err(SlotError::Length);
            }
            let content_type = ContentType::new(rest.split_to(type_bytes));
            Content::Value {
                content_type: content_type.map_err(|_| SlotError::Field)?,
                value: Value::new(rest).map_err(|_| SlotError::Length)?,
            }
        }
    };
    Ok(Record {
        tag,
        attributes,
        content,
        checksum,
    })
}

/// Takes a field off the front.
fn take<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], SlotError> {
    let field = *rest.first_chunk().ok_or(SlotError::Length)?;
    drop(rest.split_to(N));
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Key;
    use crate::record::OperationId;
    use proptest::prelude::*;

    const PROMISED: Ballot = Ballot {
        number: 7,
        proposer: 0x0102_0304_0506_0708,
    };
    const TAG: Tag = Tag {
        time: 0x0192_f0c4_a1b2_0001,
        op: 0x9f3c_21d4_0000_0007,
    };

    fn key() -> Key {
        Key::new("key").unwrap()
    }

    fn value(content_type: Vec<u8>, value: Vec<u8>) -> Content {
        Content::Value {
            content_type: ContentType::new(content_type).unwrap(),
            value: Value::new(value).unwrap(),
        }
    }

    fn encoded(slot: &Slot) -> Bytes {
        let mut bytes = Vec::new();
        slot.encode(&mut bytes);
        bytes.into()
    }

    fn accepted(number: u64, attributes: Attributes, content: Content) -> Accepted {
        let record = Record::with_attributes(&key(), TAG, attributes, content);
        let ballot = Ballot {
            number,
            proposer: 9,
        };
        Accepted { ballot, record }
    }

    fn slots() -> [Slot; 4] {
        let promised = || Slot::promised_to(PROMISED);
        let attributes = Attributes {
            born: 3,
            expires_ms: Some(4),
            operation: Some(OperationId([5; 16])),
        };
        let content = value(b"a/b".to_vec(), b"value".to_vec());
        [
            promised(),
            promised().accepting(accepted(6, Attributes::NONE, content.clone())),
            promised().accepting(accepted(6, attributes, content)),
            promised().accepting(accepted(8, attributes, Content::Tombstone)),
        ]
    }

    #[test]
    fn slots_have_golden_bytes() {
        let golden = include_str!("../tests/vectors/slots.txt").lines();
        let slots = slots();
        assert_eq!(golden.clone().count(), slots.len());
        for (slot, golden) in slots.iter().zip(golden) {
            let bytes = encoded(slot);
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, golden, "{slot:?}");
            assert_eq!(Slot::decode(&bytes).as_ref(), Ok(slot));
        }
    }

    #[test]
    fn what_is_accepted_is_promised_too() {
        let [.., later] = slots();
        let accepted = later.accepted().unwrap();
        assert_eq!(later.promised(), accepted.ballot);
        assert!(accepted.ballot > PROMISED && accepted.record.is_sound(&key()));
        let [_, earlier, ..] = slots();
        assert_eq!(earlier.promised(), PROMISED);
    }

    #[test]
    fn what_is_no_slot_is_refused_with_its_reason() {
        let [promised, value, all, tombstone] = slots().map(|slot| encoded(&slot).to_vec());
        let with = |slot: &[u8], at: usize, byte: u8| {
            let mut changed = slot.to_vec();
            changed[at] = byte;
            Slot::decode(&changed.into()).unwrap_err()
        };
        for version in [0, 2, 0xff] {
            assert_eq!(with(&promised, 0, version), SlotError::Version { version });
        }
        assert_eq!(with(&promised, 1, 1), SlotError::Length);
        for flags in [2, 3, 0x80] {
            assert_eq!(with(&promised, 1, flags), SlotError::Field);
            assert_eq!(with(&value, 1, flags), SlotError::Field);
        }
        assert_eq!(with(&value, 1, 0), SlotError::Length);
        // A ballot that is accepted and was never promised to.
        assert_eq!(with(&value, 18 + 7, 8), SlotError::Field);
        let kind = 2 + 2 * BALLOT_BYTES + 16 + 4;
        for other in [4, 8, 0x80, 0xff] {
            assert_eq!(with(&value, kind, other), SlotError::Field);
        }
        assert_eq!(with(&value, kind, TOMBSTONE), SlotError::Length);
        let version = 9;
        let unknown = SlotError::Attributes(AttributesError::Version { version });
        assert_eq!(with(&all, kind + 1, version), unknown);
        for slot in [&promised, &tombstone] {
            for length in 0..slot.len() {
                let cut = Bytes::copy_from_slice(&slot[..length]);
                assert_eq!(Slot::decode(&cut), Err(SlotError::Length), "{length}");
            }
            let longer = [&slot[..], &[0]].concat();
            assert_eq!(Slot::decode(&longer.into()), Err(SlotError::Length));
        }
        let without_type = Bytes::copy_from_slice(&value[..kind + 3]);
        assert_eq!(Slot::decode(&without_type), Err(SlotError::Length));
    }

    #[test]
    fn the_longest_slot_is_as_long_as_its_bound() {
        let content = value(vec![b't'; 255], vec![0; VALUE_BYTES_MAX]);
        let attributes = Attributes {
            born: 1,
            expires_ms: Some(0),
            operation: Some(OperationId([0; 16])),
        };
        let slot = Slot::promised_to(PROMISED).accepting(accepted(1, attributes, content));
        let bytes = encoded(&slot);
        assert_eq!(bytes.len(), Slot::ENCODED_BYTES_MAX);
        assert_eq!(Slot::decode(&bytes), Ok(slot));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Slot::decode(&longer.into()), Err(SlotError::Length));
    }

    fn ballot() -> impl Strategy<Value = Ballot> {
        any::<(u64, u64)>().prop_map(|(number, proposer)| Ballot { number, proposer })
    }

    fn record() -> impl Strategy<Value = Record> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let content = prop_oneof![
            Just(Content::Tombstone),
            (bytes(255), bytes(300)).prop_map(|(kind, bytes)| value(kind, bytes)),
        ];
        let operation = any::<Option<[u8; 16]>>();
        let attributes = (any::<u32>(), any::<Option<u64>>(), operation);
        (any::<(u64, u64)>(), attributes, content).prop_map(|(tag, attributes, content)| {
            let (born, expires_ms, operation) = attributes;
            let attributes = Attributes {
                born,
                expires_ms,
                operation: operation.map(OperationId),
            };
            let (time, op) = tag;
            Record::with_attributes(&key(), Tag { time, op }, attributes, content)
        })
    }

    proptest! {
        #[test]
        fn a_slot_is_read_as_it_was_written(
            promised in ballot(),
            accepted in prop::option::of((ballot(), record())),
        ) {
            let slot = Slot::promised_to(promised);
            let slot = match accepted {
                Some((ballot, record)) => slot.accepting(Accepted { ballot, record }),
                None => slot,
            };
            let bytes = encoded(&slot);
            prop_assert_eq!(bytes.len(), slot.encoded_bytes());
            prop_assert_eq!(Slot::decode(&bytes), Ok(slot));
        }

        #[test]
        fn any_bytes_are_refused_or_are_the_one_encoding_of_a_slot(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            is_version_right in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if let (true, [version, flags, ..]) = (is_version_right, &mut bytes[..]) {
                *version = VERSION;
                *flags &= HAS_ACCEPTED;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(slot) = Slot::decode(&bytes) {
                prop_assert_eq!(encoded(&slot), bytes);
            }
        }
    }
}

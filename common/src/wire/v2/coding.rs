//! Numbers and byte strings, read from the front of a datagram and written to the end of one.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;

use super::error::{MessageError, WrongLength};
use crate::epoch::Epoch;
use crate::kv::{KEY_BYTES_MAX, Key};
use crate::model::{KeyPosition, LeafScope};
use crate::record::{Attributes, AttributesError, ContentType};
use crate::slot::Ballot;
use crate::tag::Tag;

/// Takes fields off the front; what it returns shares the datagram's memory.
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    /// How many bytes were taken.
    taken: usize,
    /// How many of the bytes are to be read.
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self::of_first(bytes, bytes.len())
    }

    /// Reads the first `length` bytes, which are there.
    pub(super) fn of_first(bytes: &'a Bytes, length: usize) -> Self {
        Self {
            bytes,
            taken: 0,
            end: length,
        }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<Bytes, WrongLength> {
        if length > self.end - self.taken {
            return Err(WrongLength);
        }
        let start = self.taken;
        self.taken += length;
        Ok(self.bytes.slice(start..self.taken))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WrongLength> {
        let array = self.left().first_chunk().ok_or(WrongLength)?;
        let array = *array;
        self.taken += N;
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WrongLength> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WrongLength> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WrongLength> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WrongLength> {
        self.array().map(u64::from_be_bytes)
    }

    /// Everything that is left, which stays.
    fn left(&self) -> &[u8] {
        &self.bytes[self.taken..self.end]
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        let start = std::mem::replace(&mut self.taken, self.end);
        self.bytes.slice(start..self.end)
    }

    /// There must be nothing left.
    pub(super) fn end(&self) -> Result<(), WrongLength> {
        if self.taken == self.end {
            Ok(())
        } else {
            Err(WrongLength)
        }
    }
}

/// Appends fields.
pub(super) trait AppendFields {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put(&mut self, bytes: &[u8]);
}

impl AppendFields for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

pub(super) fn read_key(body: &mut Reader<'_>) -> Result<Key, MessageError> {
    let length = body.u16()?;
    Key::new(body.bytes(length.into())?).map_err(|_| MessageError::Field)
}

pub(super) fn write_key(body: &mut Vec<u8>, key: &Key) {
    // Keys are shorter than 2^16 bytes.
    body.put_u16(key.as_bytes().len() as u16);
    body.put(key.as_bytes());
}

pub(super) fn read_ballot(body: &mut Reader<'_>) -> Result<Ballot, WrongLength> {
    Ok(Ballot {
        number: body.u64()?,
        proposer: body.u64()?,
    })
}

pub(super) fn write_ballot(body: &mut Vec<u8>, ballot: Ballot) {
    body.put_u64(ballot.number);
    body.put_u64(ballot.proposer);
}

pub(super) fn read_tag(body: &mut Reader<'_>) -> Result<Tag, WrongLength> {
    Ok(Tag {
        time: body.u64()?,
        op: body.u64()?,
    })
}

pub(super) fn write_tag(body: &mut Vec<u8>, tag: Tag) {
    body.put_u64(tag.time);
    body.put_u64(tag.op);
}

pub(super) fn read_content_type(body: &mut Reader<'_>) -> Result<ContentType, MessageError> {
    let length = body.u8()?;
    ContentType::new(body.bytes(length.into())?).map_err(|_| MessageError::Field)
}

pub(super) fn write_content_type(body: &mut Vec<u8>, content_type: &ContentType) {
    // Content types are at most 255 bytes.
    body.put_u8(content_type.as_bytes().len() as u8);
    body.put(content_type.as_bytes());
}

/// Reads attributes of which at least one is set.
pub(super) fn read_attributes(body: &mut Reader<'_>) -> Result<Attributes, MessageError> {
    let (attributes, length) =
        Attributes::decode_block(body.left()).map_err(|error| match error {
            AttributesError::Length => MessageError::Length(WrongLength),
            AttributesError::Version { .. }
            | AttributesError::Flags { .. }
            | AttributesError::Zero => MessageError::Field,
        })?;
    body.bytes(length)?;
    Ok(attributes)
}

/// The number and the hash of a configuration.
pub(super) fn read_epoch(body: &mut Reader<'_>) -> Result<Epoch, MessageError> {
    Ok(Epoch {
        number: body.u32()?,
        hash: body.u64()?,
    })
}

pub(super) fn write_epoch(body: &mut Vec<u8>, epoch: Epoch) {
    body.put_u32(epoch.number);
    body.put_u64(epoch.hash);
}

/// The address by which the ring knows a server.
pub(super) fn read_server(body: &mut Reader<'_>) -> Result<SocketAddrV4, MessageError> {
    let ip = Ipv4Addr::from(body.array::<4>()?);
    Ok(SocketAddrV4::new(ip, body.u16()?))
}

pub(super) fn write_server(body: &mut Vec<u8>, addr: SocketAddrV4) {
    body.put(&addr.ip().octets());
    body.put_u16(addr.port());
}

pub(super) fn read_leaf_scope(body: &mut Reader<'_>) -> Result<LeafScope, MessageError> {
    let scope = LeafScope {
        asker: read_server(body)?,
        replication: body.u8()?,
        depth: body.u8()?,
    };
    match scope.replication > 0 && scope.depth <= LeafScope::DEPTH_MAX {
        true => Ok(scope),
        false => Err(MessageError::Field),
    }
}

pub(super) fn write_leaf_scope(body: &mut Vec<u8>, scope: &LeafScope) {
    write_server(body, scope.asker);
    body.put_u8(scope.replication);
    body.put_u8(scope.depth);
}

/// Bytes of a place beside its bytes.
pub(super) const KEY_POSITION_HEAD_BYTES: usize = 1 + 2 + 2;

const BEFORE: u8 = 0;
const AFTER: u8 = 1;
const END: u8 = 2;

/// Reads a place whose bytes begin with the first bytes of `prefix`, as many as it says.
pub(super) fn read_key_position(
    body: &mut Reader<'_>,
    prefix: &Bytes,
) -> Result<KeyPosition, MessageError> {
    let side = body.u8()?;
    if side == END {
        return Ok(KeyPosition::End);
    }
    let shared = usize::from(body.u16()?);
    let length = usize::from(body.u16()?);
    let rest = body.bytes(length)?;
    let shared = prefix.get(..shared).ok_or(MessageError::Field)?;
    if shared.len() + length > KEY_BYTES_MAX {
        return Err(MessageError::Field);
    }
    let bytes = match shared {
        [] => rest,
        shared => [shared, &rest].concat().into(),
    };
    match side {
        BEFORE => Ok(KeyPosition::Before(bytes)),
        AFTER => Ok(KeyPosition::After(bytes)),
        _ => Err(MessageError::Field),
    }
}

pub(super) fn write_key_position(body: &mut Vec<u8>, position: &KeyPosition, prefix: &[u8]) {
    let (side, bytes) = match position {
        KeyPosition::Before(bytes) => (BEFORE, bytes),
        KeyPosition::After(bytes) => (AFTER, bytes),
        KeyPosition::End => return body.put_u8(END),
    };
    let shared = shared_bytes(bytes, prefix);
    body.put_u8(side);
    // Both are shorter than 2^16 bytes, as keys are.
    body.put_u16(shared as u16);
    body.put_u16((bytes.len() - shared) as u16);
    body.put(&bytes[shared..]);
}

fn shared_bytes(bytes: &[u8], prefix: &[u8]) -> usize {
    let is_same = |(one, other): &(&u8, &u8)| one == other;
    bytes.iter().zip(prefix).take_while(is_same).count()
}

//! DKVS/1, the protocol of the original C system, byte for byte.
//!
//! ```text
//!          request                         reply
//!  get     | key (1..32753, no NUL) |      | value |      the bytes, exactly; possibly none
//!                                          | 00 |         no such key
//!  put     | key | 00 | value |            | 00 |         stored
//!                                          (0 bytes)      failed, nothing stored
//!  dump    (0 bytes)                       | text | ...   one datagram or more, see [`DumpBuilder`]
//! ```
//!
//! There is no header, no request id and no checksum: a reply belongs to a request because it
//! comes from the asked server to the asking socket, and the caller has to make sure of that.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::kv::{Key, Value};
use crate::model::Unrepresentable;

/// Longest key and longest value, in bytes.
pub const KEY_OR_VALUE_BYTES_MAX: usize = 32_753;

/// Longest datagram, in bytes: a UDP payload over IPv4, and exactly a key, a NUL and a value at
/// their longest.
pub const DATAGRAM_BYTES_MAX: usize = 2 * KEY_OR_VALUE_BYTES_MAX + 1;

const NUL: u8 = 0;

/// What a datagram asks of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The value of a key.
    Get(Key),
    /// Store a pair. The value has no NUL in it.
    Put(Key, Value),
    /// Every pair.
    Dump,
}

/// Why a datagram is not a [`Request`]; [`Malformed::reply`] says what its sender gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Malformed {
    #[error("get of a key of {key_bytes} bytes; the limit is {KEY_OR_VALUE_BYTES_MAX}")]
    GetKeyTooLong { key_bytes: usize },
    #[error("put with an empty key")]
    PutKeyEmpty,
    #[error("put of a key of {key_bytes} bytes; the limit is {KEY_OR_VALUE_BYTES_MAX}")]
    PutKeyTooLong { key_bytes: usize },
    #[error("put of a value of {value_bytes} bytes; the limit is {KEY_OR_VALUE_BYTES_MAX}")]
    PutValueTooLong { value_bytes: usize },
    #[error("put of a value with a NUL byte in it")]
    PutValueHasNul,
}

impl Malformed {
    /// The answer the sender is owed: unknown key to a get, failure to a put.
    pub fn reply(self) -> Bytes {
        match self {
            Self::GetKeyTooLong { .. } => GetReply::Unknown.encode(),
            _ => PutReply::Failed.encode(),
        }
    }
}

impl Request {
    /// Reads a datagram as a server does.
    pub fn decode(datagram: Bytes) -> Result<Self, Malformed> {
        if datagram.is_empty() {
            return Ok(Self::Dump);
        }
        let Some(nul) = datagram.iter().position(|&byte| byte == NUL) else {
            let key_bytes = datagram.len();
            let key = Self::key(datagram).ok_or(Malformed::GetKeyTooLong { key_bytes })?;
            return Ok(Self::Get(key));
        };
        if nul == 0 {
            return Err(Malformed::PutKeyEmpty);
        }
        let value = datagram.slice(nul + 1..);
        let key_bytes = nul;
        let key = Self::key(datagram.slice(..nul)).ok_or(Malformed::PutKeyTooLong { key_bytes })?;
        let value_bytes = value.len();
        if value_bytes > KEY_OR_VALUE_BYTES_MAX {
            return Err(Malformed::PutValueTooLong { value_bytes });
        }
        if value.contains(&NUL) {
            return Err(Malformed::PutValueHasNul);
        }
        let value = Value::new(value).map_err(|_| Malformed::PutValueTooLong { value_bytes })?;
        Ok(Self::Put(key, value))
    }

    fn key(bytes: Bytes) -> Option<Key> {
        (bytes.len() <= KEY_OR_VALUE_BYTES_MAX)
            .then_some(bytes)
            .and_then(|bytes| Key::new(bytes).ok())
    }
}

/// The datagram that asks for a key's value.
pub fn encode_get(key: &Key) -> Result<Bytes, Unrepresentable> {
    check_key(key)?;
    Ok(Bytes::copy_from_slice(key.as_bytes()))
}

/// The datagram that stores a pair.
pub fn encode_put(key: &Key, value: &Value) -> Result<Bytes, Unrepresentable> {
    check_key(key)?;
    check_value(value)?;
    let mut datagram = BytesMut::with_capacity(key.as_bytes().len() + 1 + value.len());
    datagram.extend_from_slice(key.as_bytes());
    datagram.extend_from_slice(&[NUL]);
    datagram.extend_from_slice(value.as_bytes());
    Ok(datagram.freeze())
}

/// The datagram that asks for every pair: no bytes at all.
pub fn encode_dump() -> Bytes {
    Bytes::new()
}

/// Whether a key can travel by DKVS/1.
pub fn check_key(key: &Key) -> Result<(), Unrepresentable> {
    let key = key.as_bytes();
    if key.len() > KEY_OR_VALUE_BYTES_MAX {
        let key_bytes = key.len();
        let bytes_max = KEY_OR_VALUE_BYTES_MAX;
        return Err(Unrepresentable::KeyTooLong {
            key_bytes,
            bytes_max,
        });
    }
    match key.iter().position(|&byte| byte == NUL) {
        Some(offset) => Err(Unrepresentable::KeyHasNul { offset }),
        None => Ok(()),
    }
}

/// Whether a value can travel by DKVS/1.
pub fn check_value(value: &Value) -> Result<(), Unrepresentable> {
    if value.len() > KEY_OR_VALUE_BYTES_MAX {
        let value_bytes = value.len();
        let bytes_max = KEY_OR_VALUE_BYTES_MAX;
        return Err(Unrepresentable::ValueTooLong {
            value_bytes,
            bytes_max,
        });
    }
    match value.as_bytes().iter().position(|&byte| byte == NUL) {
        Some(offset) => Err(Unrepresentable::ValueHasNul { offset }),
        None => Ok(()),
    }
}

/// Whether a value of so many bytes, with a NUL or without one, can travel by DKVS/1.
pub fn is_carried(value_bytes: usize, has_nul: bool) -> bool {
    value_bytes <= KEY_OR_VALUE_BYTES_MAX && !has_nul
}

/// A datagram that is no reply to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a datagram of {datagram_bytes} bytes is no reply to this request")]
pub struct IllFormedReply {
    /// Its length.
    pub datagram_bytes: usize,
}

/// What a server says to a get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetReply {
    /// The key has this value.
    Value(Value),
    /// There is no such key.
    Unknown,
}

impl GetReply {
    /// The reply to a key that is stored with `value`. A value that DKVS/1 cannot carry is reported
    /// as an unknown key, with the reason beside it for a metric.
    pub fn of_stored(value: Value) -> (Self, Option<Unrepresentable>) {
        match check_value(&value) {
            Ok(()) => (Self::Value(value), None),
            Err(why) => (Self::Unknown, Some(why)),
        }
    }

    /// The datagram. A value that [`check_value`] refuses must not get here.
    pub fn encode(self) -> Bytes {
        match self {
            Self::Value(value) => {
                debug_assert!(check_value(&value).is_ok());
                value.into_bytes()
            }
            Self::Unknown => Bytes::from_static(&[NUL]),
        }
    }

    /// Reads a datagram as a client does.
    pub fn decode(datagram: Bytes) -> Result<Self, IllFormedReply> {
        let datagram_bytes = datagram.len();
        if datagram[..] == [NUL] {
            return Ok(Self::Unknown);
        }
        Value::new(datagram)
            .ok()
            .filter(|value| check_value(value).is_ok())
            .map(Self::Value)
            .ok_or(IllFormedReply { datagram_bytes })
    }
}

/// What a server says to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutReply {
    /// The pair is stored.
    Stored,
    /// Nothing was stored.
    Failed,
}

impl PutReply {
    /// The datagram.
    pub fn encode(self) -> Bytes {
        match self {
            Self::Stored => Bytes::from_static(&[NUL]),
            Self::Failed => Bytes::new(),
        }
    }

    /// Reads a datagram as a client does.
    pub fn decode(datagram: &[u8]) -> Result<Self, IllFormedReply> {
        match datagram {
            [NUL] => Ok(Self::Stored),
            [] => Ok(Self::Failed),
            _ => Err(IllFormedReply {
                datagram_bytes: datagram.len(),
            }),
        }
    }
}

const ARROW: &[u8] = b" --> ";

/// Whether a dump contains a pair of a key and a value that is so long and has a byte 0 or not: one
/// that a get would return, and whose line fits a datagram.
pub fn is_in_dumps(key: &[u8], value_bytes: usize, has_nul: bool) -> bool {
    line_bytes(key.len(), value_bytes) <= DATAGRAM_BYTES_MAX
        && is_carried(key.len(), key.contains(&NUL))
        && is_carried(value_bytes, has_nul)
}

fn line_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    key_bytes + ARROW.len() + value_bytes + 1
}

/// A datagram of a dump in the making: whole lines.
///
/// `storing <count> key-value pairs:\n` opens the first, then comes `<key> --> <value>\n` for each
/// pair.
#[derive(Debug, Default)]
pub struct DumpBuilder(Vec<u8>);

impl DumpBuilder {
    /// The first of a dump of so many pairs.
    pub fn first(pairs: usize) -> Self {
        Self(format!("storing {pairs} key-value pairs:\n").into_bytes())
    }

    /// A further one.
    pub fn further() -> Self {
        Self::default()
    }

    /// Adds the line of a pair, unless it does not fit any more. If [`is_in_dumps`], it fits a
    /// further one.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        let fits = self.0.len() + line_bytes(key.len(), value.len()) <= DATAGRAM_BYTES_MAX;
        if fits {
            for part in [key, ARROW, value, b"\n"] {
                self.0.extend_from_slice(part);
            }
        }
        fits
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The datagram; none if there is nothing in it.
    pub fn finish(self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: usize = KEY_OR_VALUE_BYTES_MAX;

    fn key(bytes: impl Into<Bytes>) -> Key {
        Key::new(bytes).unwrap()
    }

    fn value(bytes: impl Into<Bytes>) -> Value {
        Value::new(bytes).unwrap()
    }

    fn decode(datagram: impl Into<Bytes>) -> Result<Request, Malformed> {
        Request::decode(datagram.into())
    }

    #[test]
    fn a_put_is_split_at_its_first_nul() {
        assert_eq!(decode(&b"k\0"[..]), Ok(Request::Put(key("k"), value(""))));
        assert_eq!(decode(&b"k\0v"[..]), Ok(Request::Put(key("k"), value("v"))));
        assert_eq!(decode(&b"k\0v\0"[..]), Err(Malformed::PutValueHasNul));
        assert_eq!(decode(&b"k\0\0"[..]), Err(Malformed::PutValueHasNul));
        assert_eq!(decode(&b"\0"[..]), Err(Malformed::PutKeyEmpty));
        assert_eq!(decode(&b"\0k\0v"[..]), Err(Malformed::PutKeyEmpty));
    }

    #[test]
    fn the_longest_datagram_is_the_longest_pair() {
        let (key, value) = (key(vec![b'k'; LONGEST]), value(vec![b'v'; LONGEST]));
        let datagram = encode_put(&key, &value).unwrap();
        assert_eq!(datagram.len(), DATAGRAM_BYTES_MAX);
        assert_eq!(DATAGRAM_BYTES_MAX, 65_507);
        assert_eq!(decode(datagram), Ok(Request::Put(key, value)));
    }

    #[test]
    fn one_byte_too_many_is_answered_as_the_request_it_looked_like() {
        let long = LONGEST + 1;
        let get = decode(vec![b'k'; long]).unwrap_err();
        assert_eq!(get, Malformed::GetKeyTooLong { key_bytes: long });
        assert_eq!(get.reply()[..], [0]);

        let mut datagram = vec![b'k'; long];
        datagram.extend(b"\0v");
        let put = decode(datagram).unwrap_err();
        assert_eq!(put, Malformed::PutKeyTooLong { key_bytes: long });
        assert!(put.reply().is_empty());

        let mut datagram = b"k\0".to_vec();
        datagram.extend(vec![b'v'; long]);
        let put = decode(datagram).unwrap_err();
        assert_eq!(put, Malformed::PutValueTooLong { value_bytes: long });
        assert!(put.reply().is_empty());
        assert!(Malformed::PutKeyEmpty.reply().is_empty());
        assert!(Malformed::PutValueHasNul.reply().is_empty());
    }

    #[test]
    fn what_cannot_be_carried_is_refused_before_it_is_sent() {
        let nul = key(&b"a\0b"[..]);
        let too_long = value(vec![b'v'; LONGEST + 1]);
        assert_eq!(
            encode_get(&nul),
            Err(Unrepresentable::KeyHasNul { offset: 1 })
        );
        assert_eq!(
            encode_put(&nul, &value("v")),
            Err(Unrepresentable::KeyHasNul { offset: 1 })
        );
        assert_eq!(
            encode_put(&key("k"), &value(&b"vv\0"[..])),
            Err(Unrepresentable::ValueHasNul { offset: 2 })
        );
        assert_eq!(
            encode_put(&key("k"), &too_long),
            Err(Unrepresentable::ValueTooLong {
                bytes_max: KEY_OR_VALUE_BYTES_MAX,
                value_bytes: LONGEST + 1
            })
        );
        let (reply, why) = GetReply::of_stored(too_long);
        assert_eq!(reply.encode()[..], [0]);
        assert!(why.is_some());
        assert_eq!(GetReply::of_stored(value(&b"\0"[..])).0, GetReply::Unknown);
    }

    #[test]
    fn replies_are_told_from_garbage() {
        let get = |reply: &'static [u8]| GetReply::decode(Bytes::from_static(reply));
        assert_eq!(get(b"\0"), Ok(GetReply::Unknown));
        assert_eq!(get(b""), Ok(GetReply::Value(value(""))));
        assert_eq!(get(b"v"), Ok(GetReply::Value(value("v"))));
        assert_eq!(get(b"v\0"), Err(IllFormedReply { datagram_bytes: 2 }));
        assert_eq!(get(b"\0\0"), Err(IllFormedReply { datagram_bytes: 2 }));
        assert!(GetReply::decode(vec![b'v'; LONGEST + 1].into()).is_err());

        assert_eq!(PutReply::decode(b"\0"), Ok(PutReply::Stored));
        assert_eq!(PutReply::decode(b""), Ok(PutReply::Failed));
        assert!(PutReply::decode(b"\0\0").is_err());
        assert!(PutReply::decode(b"ok").is_err());
    }

    fn is_told(key: &[u8], value: &[u8]) -> bool {
        is_in_dumps(key, value.len(), value.contains(&NUL))
    }

    /// The datagrams of a dump of those of the pairs that are in dumps.
    fn dump(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<Bytes> {
        let listed = pairs.iter().filter(|(key, value)| is_told(key, value));
        let mut datagrams = Vec::new();
        let mut builder = DumpBuilder::first(listed.clone().count());
        for (key, value) in listed {
            if !builder.push(key, value) {
                let full = std::mem::replace(&mut builder, DumpBuilder::further());
                datagrams.extend(full.finish());
                assert!(builder.push(key, value));
            }
        }
        datagrams.extend(builder.finish());
        datagrams
    }

    #[test]
    fn an_empty_dump_is_its_count_line() {
        assert_eq!(dump(&[]), ["storing 0 key-value pairs:\n"]);
    }

    #[test]
    fn a_dump_tells_what_a_get_would_and_a_datagram_holds() {
        let beside_the_longest_key = LONGEST - ARROW.len();
        for (key, value, is_told) in [
            (vec![b'k'], vec![], true),
            (vec![b'k'], vec![b'v'; LONGEST], true),
            (vec![b'k'], vec![b'v'; LONGEST + 1], false),
            (vec![b'k'; LONGEST + 1], vec![], false),
            (vec![b'k'; LONGEST], vec![b'v'; LONGEST], false),
            (
                vec![b'k'; LONGEST],
                vec![b'v'; beside_the_longest_key],
                true,
            ),
            (
                vec![b'k'; LONGEST],
                vec![b'v'; beside_the_longest_key + 1],
                false,
            ),
            (vec![b'k'], vec![b'v', 0], false),
            (vec![b'k'], vec![0], false),
            (vec![0, b'k'], vec![b'v'], false),
        ] {
            let lengths = (key.len(), value.len());
            assert_eq!(self::is_told(&key, &value), is_told, "{lengths:?}");
            let lines = dump(&[(key, value)]).concat();
            let lines = lines.split(|&byte| byte == b'\n').count() - 2;
            assert_eq!(lines, usize::from(is_told), "{lengths:?}");
        }
        let longest = (vec![b'n'; LONGEST], vec![b'v'; beside_the_longest_key]);
        let datagrams = dump(&[(b"a".into(), b"1".into()), longest]);
        assert_eq!(datagrams[0], "storing 2 key-value pairs:\na --> 1\n");
        assert_eq!(datagrams[1].len(), DATAGRAM_BYTES_MAX);
        assert_eq!(datagrams.len(), 2);
    }

    proptest! {
        #[test]
        fn decoding_is_total_and_requests_survive_a_round_trip(
            datagram in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300)
        ) {
            let bytes = Bytes::from(datagram);
            match Request::decode(bytes.clone()) {
                Ok(Request::Get(key)) => prop_assert_eq!(encode_get(&key), Ok(bytes)),
                Ok(Request::Put(key, value)) => {
                    prop_assert_eq!(encode_put(&key, &value), Ok(bytes));
                }
                Ok(Request::Dump) => prop_assert_eq!(encode_dump(), bytes),
                Err(malformed) => prop_assert!(malformed.reply().len() <= bytes.len()),
            }
        }

        #[test]
        fn reply_decoding_is_total(
            datagram in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300)
        ) {
            let bytes = Bytes::from(datagram);
            if let Ok(reply) = GetReply::decode(bytes.clone()) {
                prop_assert_eq!(reply.encode(), &bytes);
            }
            if let Ok(reply) = PutReply::decode(&bytes) {
                prop_assert_eq!(reply.encode(), bytes);
            }
        }

        #[test]
        fn a_dump_is_whole_lines_in_bounded_datagrams(
            lengths in prop::collection::vec((1usize..=LONGEST, 0usize..=LONGEST), 0..12)
        ) {
            let pairs: Vec<_> = lengths
                .iter()
                .map(|&(k, v)| (vec![b'k'; k], vec![b'v'; v]))
                .collect();
            let kept = pairs.iter().filter(|(key, value)| is_told(key, value)).count();
            let mut text = Vec::new();
            for datagram in dump(&pairs) {
                prop_assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
                prop_assert!(datagram.ends_with(b"\n"));
                text.extend(datagram);
            }
            let header = format!("storing {kept} key-value pairs:\n");
            prop_assert!(text.starts_with(header.as_bytes()));
            prop_assert_eq!(text.split(|&byte| byte == b'\n').count(), kept + 2);
        }
    }
}

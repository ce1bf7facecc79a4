//! The key file: the cluster's keys, the first of which is used for sending.
//!
//! ```text
//!   # one key a line: its id, 1 to 255, and 64 hexadecimal digits
//!   2 8f1c…
//!   1 03aa…
//! ```
//!
//! Whatever else a line holds is refused with file, line and reason. Neither an error nor `Debug`
//! shows a byte of any field: a line in disorder may have the key in any place.

use std::num::NonZeroU8;

use thiserror::Error;

use super::envelope::ClusterKey;
use crate::{hex, lines};

/// Bytes of a key; twice as many digits in the file.
const KEY_BYTES: usize = 32;

/// A key with no more different bytes than these is refused.
const DISTINCT_BYTES_REFUSED: usize = 8;

/// The cluster's keys by their ids, in the file's order, never empty.
#[derive(Debug, Clone)]
pub struct Keys {
    sending: (u8, ClusterKey),
    others: Vec<(u8, ClusterKey)>,
}

/// Why a key file was refused: `<file>:<line>: <reason>`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}:{line}: {reason}")]
pub struct KeysError {
    /// The file's name as it was given.
    pub file: String,
    /// The offending line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub reason: Reason,
}

/// What is wrong with a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Reason {
    #[error("expected two fields, <id> <64 hexadecimal digits>, and found {found}")]
    FieldCount { found: usize },
    #[error("the id is not a whole number from 1 to 255")]
    Id,
    #[error("the key is not 64 hexadecimal digits")]
    Key,
    #[error("key {id} is listed already, on line {first_line}")]
    Duplicate { id: u8, first_line: usize },
    #[error(
        "the key is no secret: it repeats a few bytes; take 32 random ones, as `od -An -v -tx1 -N32 \
         /dev/urandom` gives them"
    )]
    NotRandom,
    #[error(
        "the key is the one of line {first_line}: under another id it changes nothing; take a new one"
    )]
    SameKey { first_line: usize },
    #[error("no key is listed; each takes one line, <id> <64 hexadecimal digits>")]
    NoKey,
}

impl Keys {
    /// Reads a key file. `name` is its name, used in errors alone.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, KeysError> {
        let refuse = |line, reason| KeysError {
            file: name.to_owned(),
            line,
            reason,
        };
        let mut first_lines = [None; 256];
        let (mut keys, mut bytes) = (Vec::new(), Vec::new());
        for (line, fields) in lines::entries(text) {
            let (id, key) = parse_key(&fields).map_err(|reason| refuse(line, reason))?;
            if let Some(first_line) = first_lines[usize::from(id)].replace(line) {
                return Err(refuse(line, Reason::Duplicate { id, first_line }));
            }
            let same = bytes.iter().find(|(other, _)| *other == key);
            if let Some((_, first_line)) = same {
                let first_line = *first_line;
                return Err(refuse(line, Reason::SameKey { first_line }));
            }
            bytes.push((key, line));
            keys.push((id, ClusterKey::new(&key)));
        }
        if keys.is_empty() {
            return Err(refuse(lines::last(text), Reason::NoKey));
        }
        let others = keys.split_off(1);
        let sending = keys.remove(0);
        Ok(Self { sending, others })
    }

    /// One key alone, for sending and for everything else.
    pub fn of_one(id: NonZeroU8, key: ClusterKey) -> Self {
        Self {
            sending: (id.get(), key),
            others: Vec::new(),
        }
    }

    /// The key that proves what is sent, with its id: the first of the file.
    pub fn sending(&self) -> (u8, &ClusterKey) {
        let (id, key) = &self.sending;
        (*id, key)
    }

    /// The key of an id.
    pub fn find(&self, id: u8) -> Option<&ClusterKey> {
        self.iter()
            .find_map(|(each, key)| (each == id).then_some(key))
    }

    /// The ids, in the file's order.
    pub fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        self.iter().map(|(id, _)| id)
    }

    fn iter(&self) -> impl Iterator<Item = (u8, &ClusterKey)> + '_ {
        let others = self.others.iter().map(|(id, key)| (*id, key));
        std::iter::once(self.sending()).chain(others)
    }
}

fn parse_key(fields: &[&[u8]]) -> Result<(u8, [u8; KEY_BYTES]), Reason> {
    let &[id, digits] = fields else {
        let found = fields.len();
        return Err(Reason::FieldCount { found });
    };
    let id = id
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| std::str::from_utf8(id).ok()?.parse().ok())
        .flatten()
        .filter(|id| *id > 0)
        .ok_or(Reason::Id)?;
    let key: [u8; KEY_BYTES] = hex::parse(digits).ok_or(Reason::Key)?;
    match is_random(&key) {
        true => Ok((id, key)),
        false => Err(Reason::NotRandom),
    }
}

/// Whether a key may have come from a source of randomness. One in 10^34 that do has as few
/// different bytes as are refused here, and keys made up by hand mostly do: zeros, one digit or
/// a short pattern again and again.
fn is_random(key: &[u8; KEY_BYTES]) -> bool {
    let is_new = |(at, byte): &(usize, &u8)| !key[..*at].contains(byte);
    key.iter().enumerate().filter(is_new).count() > DISTINCT_BYTES_REFUSED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v2::envelope::{self, Authentication, Builder, Envelope, Proof, Sender};
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, SocketAddrV4};

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4_000);

    fn hex(key: &[u8]) -> String {
        key.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes that count up.
    fn counted(from: u8) -> [u8; KEY_BYTES] {
        std::array::from_fn(|at| from.wrapping_add(at as u8))
    }

    fn sealed(key: &ClusterKey) -> Vec<u8> {
        let authentication = Some(Authentication {
            key_id: 1,
            session: 0,
            sequence: 0,
        });
        let envelope = Envelope {
            sender: Sender::Client,
            epoch: crate::epoch::StatedEpoch::None,
            authentication,
        };
        Builder::new(envelope, 100).finish_with(key, CLIENT)
    }

    /// Keys do not compare; what one sealed, an equal one opens.
    fn is_same(key: &ClusterKey, bytes: &[u8; 32]) -> bool {
        let datagram = sealed(&ClusterKey::new(bytes)).into();
        let client = CLIENT;
        envelope::open(&datagram, Proof::Key { key, client }).is_ok()
    }

    fn refusal(text: &str) -> String {
        Keys::parse("keys", text.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_first_key_is_for_sending_and_all_are_found() {
        let (seven, two) = (counted(0x7f), *b"0123456789abcdef0123456789abcdef");
        let text = format!(
            "# keys\r\n\r\n  \t\n255 {}\r\n# old\n\t2\t {} ",
            hex(&seven).to_uppercase(),
            hex(&two)
        );
        let keys = Keys::parse("keys", text.as_bytes()).unwrap();
        let (id, key) = keys.sending();
        assert_eq!(id, 255);
        assert!(is_same(key, &seven) && !is_same(key, &two));
        assert!(is_same(keys.find(255).unwrap(), &seven));
        assert!(is_same(keys.find(2).unwrap(), &two));
        assert!(keys.find(1).is_none() && keys.find(0).is_none());
        assert_eq!(keys.ids().collect::<Vec<_>>(), [255, 2]);

        let keys = Keys::of_one(NonZeroU8::MIN, ClusterKey::new(&seven));
        assert_eq!(keys.ids().collect::<Vec<_>>(), [1]);
        assert!(keys.sending().0 == 1 && is_same(keys.find(1).unwrap(), &seven));
    }

    #[test]
    fn every_malformed_file_is_refused_with_file_line_and_reason() {
        let key = hex(&counted(0xab));
        for (line, reason) in [
            (key.clone(), "expected two fields"),
            (format!("1 {key} x"), "and found 3"),
            (format!("0 {key}"), "the id is not"),
            (format!("256 {key}"), "the id is not"),
            (format!("+1 {key}"), "the id is not"),
            (format!("{key} 1"), "the id is not"),
            (format!("1 {}", &key[1..]), "the key is not"),
            (format!("1 {key}0"), "the key is not"),
            (format!("1 +{}", &key[1..]), "the key is not"),
            (format!("1 g{}", &key[1..]), "the key is not"),
            (format!("9 {key}"), "key 9 is listed already, on line 2"),
        ] {
            let said = refusal(&format!("# one\n9 {key}\n{line}\n"));
            assert!(said.starts_with("keys:3: "), "{said}");
            assert!(said.contains(reason), "{line}: {said}");
        }
        let said = refusal(&format!("1 {key}\n\n2 {key}\n"));
        assert!(
            said.starts_with("keys:3: the key is the one of line 1"),
            "{said}"
        );
        assert!(refusal("").starts_with("keys:1: no key is listed"));
        assert!(refusal("# none\n\n").starts_with("keys:3: no key is listed"));
    }

    #[test]
    fn keys_that_were_made_up_are_refused() {
        for pattern in [
            "00",
            "ff",
            "ab",
            "0123",
            "deadbeef",
            "0123456789abcdef",
            "01010102",
        ] {
            let key = pattern.repeat(2 * KEY_BYTES / pattern.len());
            let said = refusal(&format!("# cluster\n7 {key}\n"));
            assert!(
                said.starts_with("keys:2: the key is no secret"),
                "{pattern}: {said}"
            );
        }
        let mut least = [0; KEY_BYTES];
        least[..8].copy_from_slice(&counted(1)[..8]);
        assert!(Keys::parse("keys", format!("1 {}", hex(&least)).as_bytes()).is_ok());
        least[7] = 0;
        assert!(Keys::parse("keys", format!("1 {}", hex(&least)).as_bytes()).is_err());
    }

    #[test]
    fn neither_errors_nor_debug_show_a_key() {
        let key = hex(&counted(0xab));
        for text in [
            key.clone(),
            format!("{key} {key}"),
            format!("1 {key}0"),
            format!("1 {key} {key}"),
            format!("1 {key}\n1 {key}"),
        ] {
            let error = Keys::parse("keys", text.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("abac"));
        }
        let keys = Keys::parse("keys", format!("1 {key}").as_bytes()).unwrap();
        let shown = format!("{keys:?}");
        assert!(shown.contains("ClusterKey") && !shown.contains("171") && !shown.contains("abac"));
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Keys::parse("keys", &text);
        }

        #[test]
        fn what_was_written_is_read(id in 1u8.., key: [u8; 32]) {
            let keys = Keys::parse("keys", format!("{id} {}", hex(&key)).as_bytes()).unwrap();
            prop_assert_eq!(keys.sending().0, id);
            prop_assert!(is_same(keys.sending().1, &key));
        }
    }
}

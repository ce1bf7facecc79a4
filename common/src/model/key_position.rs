//! Places between keys, in the order of their bytes.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use super::Direction;

/// A place between two keys. Its bytes need not be a key: there may be none, and those behind all keys
/// that begin alike are nobody's. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPosition {
    /// Before these bytes, and so behind all that is less.
    Before(Bytes),
    /// Behind these bytes, and so before all that is greater.
    After(Bytes),
    /// Behind every key.
    End,
}

impl KeyPosition {
    /// Before every key.
    pub const START: Self = Self::Before(Bytes::new());

    /// Where a list in this direction begins if it is to have every key that begins with `prefix`.
    pub fn first_of(prefix: &Bytes, direction: Direction) -> Self {
        match direction {
            Direction::Ascending => Self::Before(prefix.clone()),
            Direction::Descending => Self::behind_all(prefix),
        }
    }

    /// Where a list in this direction has had every key that begins with `prefix`.
    pub fn last_of(prefix: &Bytes, direction: Direction) -> Self {
        match direction {
            Direction::Ascending => Self::behind_all(prefix),
            Direction::Descending => Self::Before(prefix.clone()),
        }
    }

    /// Where a list in this direction goes on after a key.
    pub fn beyond(key: Bytes, direction: Direction) -> Self {
        match direction {
            Direction::Ascending => Self::After(key),
            Direction::Descending => Self::Before(key),
        }
    }

    /// Where a list in this direction begins with a key.
    pub fn at(key: Bytes, direction: Direction) -> Self {
        match direction {
            Direction::Ascending => Self::Before(key),
            Direction::Descending => Self::After(key),
        }
    }

    /// Behind every key that begins with `prefix`.
    fn behind_all(prefix: &Bytes) -> Self {
        let is_last = |byte: &u8| *byte == u8::MAX;
        let Some(last) = prefix.iter().rposition(|byte| !is_last(byte)) else {
            return Self::End;
        };
        let mut behind = prefix[..=last].to_vec();
        behind[last] += 1;
        Self::Before(behind.into())
    }

    /// The keys behind the place, as a bound; none if there is none.
    pub fn lower_bound(&self) -> Option<Bound<&[u8]>> {
        match self {
            Self::Before(bytes) => Some(Bound::Included(bytes)),
            Self::After(bytes) => Some(Bound::Excluded(bytes)),
            Self::End => None,
        }
    }

    /// The keys before the place, as a bound.
    pub fn upper_bound(&self) -> Bound<&[u8]> {
        match self {
            Self::Before(bytes) => Bound::Excluded(bytes),
            Self::After(bytes) => Bound::Included(bytes),
            Self::End => Bound::Unbounded,
        }
    }

    /// Its bytes, and whether it is behind them; none at the end.
    fn parts(&self) -> Option<(&[u8], bool)> {
        match self {
            Self::Before(bytes) => Some((bytes, false)),
            Self::After(bytes) => Some((bytes, true)),
            Self::End => None,
        }
    }
}

impl Ord for KeyPosition {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.parts(), other.parts()) {
            (Some(one), Some(other)) => one.cmp(&other),
            (one, other) => other.is_some().cmp(&one.is_some()),
        }
    }
}

impl PartialOrd for KeyPosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static [u8]) -> Bytes {
        Bytes::from_static(text)
    }

    #[test]
    fn places_are_in_the_order_of_what_is_before_them() {
        let places = [
            KeyPosition::START,
            KeyPosition::After(bytes(b"")),
            KeyPosition::Before(bytes(b"\0")),
            KeyPosition::Before(bytes(b"a")),
            KeyPosition::After(bytes(b"a")),
            KeyPosition::Before(bytes(b"a\0")),
            KeyPosition::After(bytes(b"a\xff\xff")),
            KeyPosition::Before(bytes(b"b")),
            KeyPosition::After(bytes(b"\xff\xff")),
            KeyPosition::End,
        ];
        for (number, one) in places.iter().enumerate() {
            for (other_number, other) in places.iter().enumerate() {
                assert_eq!(
                    one.cmp(other),
                    number.cmp(&other_number),
                    "{one:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn a_list_of_a_prefix_begins_and_ends_around_its_keys() {
        for (prefix, behind) in [
            (&b""[..], KeyPosition::End),
            (b"a", KeyPosition::Before(bytes(b"b"))),
            (b"a/", KeyPosition::Before(bytes(b"a0"))),
            (b"a\xff\xff", KeyPosition::Before(bytes(b"b"))),
            (b"\xff\xff", KeyPosition::End),
        ] {
            let prefix = Bytes::copy_from_slice(prefix);
            let before = KeyPosition::Before(prefix.clone());
            for (direction, first, last) in [
                (Direction::Ascending, &before, &behind),
                (Direction::Descending, &behind, &before),
            ] {
                assert_eq!(KeyPosition::first_of(&prefix, direction), *first);
                assert_eq!(KeyPosition::last_of(&prefix, direction), *last);
            }
        }
    }
}

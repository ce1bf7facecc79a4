//! Whether the value that a read returned can have come from a write of its key at all.
//!
//! This is what every level promises, whatever the order of things: no value out of nowhere, none
//! from another key, none from the future, and none of a write that was said not to be done.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::Operation;
use super::words::{At, Name};

/// The writes of a history, by their values.
pub struct Writes<'h>(BTreeMap<u64, &'h Operation>);

impl<'h> Writes<'h> {
    /// Those among these operations.
    pub fn among(history: impl IntoIterator<Item = &'h Operation>) -> Self {
        let mut writes = BTreeMap::new();
        for operation in history {
            if let Some(value) = operation.written() {
                let other = writes.insert(value, operation);
                assert!(other.is_none(), "{value} is written twice");
            }
        }
        Self(writes)
    }

    /// Why no write can have written the value that this read returned; none if one can, or if it
    /// returned no value.
    pub fn unwritten(&self, read: &Operation) -> Option<Unwritten> {
        let value = read.seen()??;
        let Some(&write) = self.0.get(&value) else {
            return Some(Unwritten::Nowhere);
        };
        if write.key != read.key {
            Some(Unwritten::Elsewhere(write.clone()))
        } else if write.is_never_done() {
            Some(Unwritten::NeverDone(write.clone()))
        } else if read.returned < Some(write.invoked) {
            Some(Unwritten::Later(write.clone()))
        } else {
            None
        }
    }
}

/// Why a value cannot have been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwritten {
    /// Nothing ever wrote it.
    Nowhere,
    /// It was written to another key, by this.
    Elsewhere(Operation),
    /// Its write was said not to be done.
    NeverDone(Operation),
    /// Its write began after the read had ended.
    Later(Operation),
}

impl Display for Unwritten {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("nothing ever wrote that"),
            Self::Elsewhere(write) => write!(f, "{} was to key {}", Name(write), write.key),
            Self::NeverDone(write) => write!(f, "{} certainly was not done", Name(write)),
            Self::Later(write) => {
                write!(f, "{} began only at {}", Name(write), At(write.invoked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::by_hand::{read, write};

    fn why(read: &Operation, write: Operation) -> Option<String> {
        let unwritten = Writes::among([&write]).unwritten(read);
        unwritten.map(|unwritten| unwritten.to_string())
    }

    #[test]
    fn a_value_comes_from_a_write_of_its_key_that_began_in_time_and_may_be_done() {
        let read = read(2, 3_000..=4_000, Some(17));
        assert_eq!(why(&read, write(1, 1_000..=2_000, 17)), None);
        assert_eq!(why(&read, write(1, 1_000..=2_000, 17).unknown()), None);
        assert_eq!(why(&read, write(1, 4_000..=5_000, 17).unanswered()), None);

        let refused = |write, because: &str| {
            assert_eq!(why(&read, write), Some(because.to_string()));
        };
        refused(write(1, 1_000..=2_000, 18), "nothing ever wrote that");
        refused(
            write(1, 1_000..=2_000, 17).on(7),
            "client 1's write of 17 was to key 7",
        );
        refused(
            write(1, 1_000..=2_000, 17).never_done(),
            "client 1's write of 17 certainly was not done",
        );
        refused(
            write(1, 4_001..=5_000, 17),
            "client 1's write of 17 began only at 0.004001 ms",
        );
    }

    #[test]
    fn a_read_that_returned_no_value_needs_no_write() {
        let write = write(1, 1..=2, 17);
        let seen = |read| Writes::among([&write]).unwritten(&read);
        assert_eq!(seen(read(2, 3..=4, None)), None);
        assert_eq!(seen(read(2, 3..=4, Some(18)).unknown()), None);
        assert_eq!(seen(read(2, 3..=4, Some(18)).unanswered()), None);
    }

    #[test]
    #[should_panic(expected = "17 is written twice")]
    fn a_value_is_written_once() {
        Writes::among([&write(1, 1..=2, 17), &write(1, 3..=4, 17).on(2)]);
    }
}

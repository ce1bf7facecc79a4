//! Operations as sentences, for the reader of a violation.

use std::fmt::{self, Display, Formatter};

use super::{Action, Expectation, Operation};

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "client {} ", self.client)?;
        let tried = !self.is_done();
        match (self.action, self.seen()) {
            (Action::Read, Some(Some(value))) => write!(f, "read {value}")?,
            (Action::Read, Some(None)) => f.write_str("found no value")?,
            (Action::Read, None) => f.write_str("tried to read")?,
            (Action::Write(value), _) if tried => write!(f, "tried to write {value}")?,
            (Action::Write(value), _) => write!(f, "wrote {value}")?,
            (Action::Delete, _) if tried => f.write_str("tried to delete")?,
            (Action::Delete, _) => f.write_str("deleted")?,
            (Action::Conditional { expects, then }, _) => {
                match (then, tried) {
                    (Some(value), true) => write!(f, "tried to write {value}")?,
                    (Some(value), false) => write!(f, "wrote {value}")?,
                    (None, true) => f.write_str("tried to delete")?,
                    (None, false) => f.write_str("deleted")?,
                }
                write!(f, " in the place of {expects}")?;
                match self.seen() {
                    Some(Some(value)) => write!(f, " and found {value}")?,
                    Some(None) => f.write_str(" and found none")?,
                    None => {}
                }
            }
        }
        let Some(returned) = self.returned else {
            return write!(f, " from {} on and was never answered", At(self.invoked));
        };
        write!(f, " from {} to {}", At(self.invoked), At(returned))?;
        if self.is_never_done() && self.seen().is_none() {
            f.write_str(", which certainly was not done")
        } else if self.seen().is_none() && tried {
            f.write_str(", with unknown outcome")
        } else {
            Ok(())
        }
    }
}

impl Display for Expectation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::AnyValue => f.write_str("any value"),
            Self::NoValue => f.write_str("none"),
        }
    }
}

/// A moment in milliseconds: to the microsecond, or to the nanosecond where it takes that.
pub(super) struct At(pub(super) u64);

impl Display for At {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (milliseconds, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest % 1_000 == 0 {
            write!(f, "{milliseconds}.{:03} ms", rest / 1_000)
        } else {
            write!(f, "{milliseconds}.{rest:06} ms")
        }
    }
}

/// The beginning of an operation, as a clause.
pub(super) struct Beginning<'h>(pub(super) &'h Operation);

impl Display for Beginning<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(operation) = self;
        write!(f, "{} began at {}", Name(operation), At(operation.invoked))
    }
}

/// The end of an operation that had its reply, as a clause.
pub(super) struct End<'h>(pub(super) &'h Operation);

impl Display for End<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(operation) = self;
        let Some(returned) = operation.returned else {
            return write!(f, "{} had no reply", Name(operation));
        };
        let (client, at) = (operation.client, At(returned));
        match operation.seen() {
            Some(Some(value)) => write!(f, "client {client} had read {value} by {at}"),
            Some(None) => write!(f, "client {client} had found no value by {at}"),
            None => write!(f, "{} was done at {at}", Name(operation)),
        }
    }
}

/// An operation as a noun.
pub(super) struct Name<'h>(pub(super) &'h Operation);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(operation) = self;
        write!(f, "client {}'s ", operation.client)?;
        match (operation.action, operation.seen()) {
            (Action::Read, Some(Some(value))) => write!(f, "read of {value}"),
            (Action::Read, Some(None)) => f.write_str("read of no value"),
            (Action::Read, None) => f.write_str("read"),
            (Action::Write(value), _) => write!(f, "write of {value}"),
            (Action::Delete, _) => f.write_str("delete"),
            (Action::Conditional { expects, then }, _) => match then {
                Some(value) => write!(f, "write of {value} in the place of {expects}"),
                None => write!(f, "delete in the place of {expects}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::by_hand::{delete, read, write};

    #[test]
    fn an_operation_is_shown_with_its_client_its_times_and_its_outcome() {
        let text = |operation: Operation| operation.to_string();
        let (from, to) = (1_200_000, 1_500_000);
        assert_eq!(
            text(read(3, from..=to, Some(17))),
            "client 3 read 17 from 1.200 ms to 1.500 ms"
        );
        assert_eq!(
            text(read(3, from..=to, None)),
            "client 3 found no value from 1.200 ms to 1.500 ms"
        );
        assert_eq!(
            text(read(3, from..=to, None).unknown()),
            "client 3 tried to read from 1.200 ms to 1.500 ms, with unknown outcome"
        );
        assert_eq!(
            text(write(1, from..=to, 17)),
            "client 1 wrote 17 from 1.200 ms to 1.500 ms"
        );
        assert_eq!(
            text(write(1, from..=to, 17).never_done()),
            "client 1 tried to write 17 from 1.200 ms to 1.500 ms, which certainly was not done"
        );
        assert_eq!(
            text(delete(1, from..=to)),
            "client 1 deleted from 1.200 ms to 1.500 ms"
        );
        assert_eq!(
            text(delete(1, from..=to).unknown()),
            "client 1 tried to delete from 1.200 ms to 1.500 ms, with unknown outcome"
        );
        assert_eq!(
            text(delete(1, 7..=to).unanswered()),
            "client 1 tried to delete from 0.000007 ms on and was never answered"
        );
    }
}

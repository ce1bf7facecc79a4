//! Why a history is not linearizable, in words.
//!
//! The explanation is about the shortest beginning of the history that has no order. It ends with
//! the reply to a read: a write or a delete that has just had its reply may come last of all, and
//! then no read is the wiser.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

use super::super::provenance::{Unwritten, Writes};
use super::super::words::{At, Beginning, End, Name};
use super::super::{Action, Operation};
use super::spans::{Clash, Value};
use super::sweep::{Conflict, NotDeleted};

/// How many operations that ended before the read are shown with it.
const BEFORE_MAX: usize = 6;
/// How many deletes that are needed elsewhere are named.
const NEEDED_MAX: usize = 6;

/// A key that did not behave as a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The read with whose reply the history ceased to be linearizable.
    pub read: Operation,
    /// Why it did.
    pub reason: Box<Reason>,
    /// What the reason names, what was under way with the read, and what had ended just before,
    /// in the order of their requests.
    pub around: Vec<Operation>,
}

/// Why there is no order in which the operations can have taken effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No write can have written what the read returned.
    Unwritten(Unwritten),
    /// No order of all operations is one in which each found what it says.
    NoOrder,
    /// The value was gone before the read began.
    Gone {
        /// This had to do with the same value, and had its reply
        before: Operation,
        /// before this, which has not, began;
        began: Operation,
        /// and this, which has to do with the same as `began`, had its reply before the read.
        ended: Operation,
    },
    /// A read returned no value, although there was one and no delete is left to have removed it.
    NotDeleted {
        /// That read.
        absence: Operation,
        /// The last of what says that there was a value.
        before: Operation,
        /// If it is not the read of the violation: what that one makes of the time.
        hence: Option<Hence>,
        /// The deletes that could have removed it, each with the read that needs it elsewhere.
        needed: Vec<(Operation, Operation)>,
    },
}

/// The violation of a key with conditional writes, at the reply of the operation at this place.
pub(super) fn without_order(operations: &[Operation], reply: usize) -> Violation {
    let reason = Reason::NoOrder;
    Violation {
        around: around(operations, reply, &reason),
        reason: Box::new(reason),
        read: operations[reply].clone(),
    }
}

/// How a read of a value restricts an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hence {
    /// The value that the later read returned.
    pub value: u64,
    /// The first reply that shows it.
    pub first_reply: u64,
    /// The last request that led to such a reply. If that is later, the value was there from then
    /// until now; else it was so at some time in between.
    pub last_request: u64,
    /// The last moment at which the earlier read can have taken effect.
    pub until: u64,
}

/// The violation at the reply of the operation at the place `read`. `beginning` has the operations
/// of its key as they stood at that reply, each at the same place as in `operations`.
pub(super) fn explain(
    operations: &[Operation],
    beginning: &[Operation],
    history: &[Operation],
    read: usize,
    conflict: Conflict,
) -> Violation {
    let at = |place: usize| operations[place].clone();
    let reason = match conflict {
        Conflict::Clash(Clash::Unwritten { read }) => {
            let unwritten = Writes::among(history).unwritten(&operations[read]);
            Reason::Unwritten(unwritten.expect("a value that has a write is not unwritten"))
        }
        Conflict::Clash(Clash::Crossed(one, other)) => {
            let own = Action::Write(operations[read].seen().flatten().unwrap_or(one.value));
            let (own, other) = if operations[one.write].action == own {
                (one, other)
            } else {
                (other, one)
            };
            let before = simplest(beginning, own, own.first, |write| {
                write.is_done() && write.returned < Some(other.last_request())
            });
            let returned = beginning[before].returned;
            let began = simplest(beginning, other, other.last, |write| {
                returned < Some(write.invoked)
            });
            let ended = simplest(beginning, other, other.first, |write| {
                write.is_done() && write.returned < Some(operations[read].invoked)
            });
            Reason::Gone {
                before: at(before),
                began: at(began),
                ended: at(ended),
            }
        }
        Conflict::Clash(Clash::Covered(own, other)) => {
            let before = simplest(beginning, own, own.first, |write| {
                write.is_done() && write.returned < Some(operations[other].invoked)
            });
            Reason::Gone {
                before: at(before),
                began: at(other),
                ended: at(other),
            }
        }
        Conflict::NotDeleted(conflict) => not_deleted(operations, beginning, read, conflict),
    };
    Violation {
        around: around(operations, read, &reason),
        reason: Box::new(reason),
        read: at(read),
    }
}

fn not_deleted(
    operations: &[Operation],
    beginning: &[Operation],
    read: usize,
    conflict: NotDeleted,
) -> Reason {
    let at = |place: usize| operations[place].clone();
    let NotDeleted {
        read: absence,
        until,
        value,
        needed,
    } = conflict;
    let before = simplest(beginning, value, value.first, |write| {
        write.is_done() && write.returned < Some(operations[absence].invoked)
    });
    let hence = operations[read].seen().flatten().map(|value| {
        let of_it = |operation: &&Operation| {
            let wrote = operation.is_done() && operation.action == Action::Write(value);
            wrote || operation.seen() == Some(Some(value))
        };
        let replies = beginning.iter().filter(of_it);
        let first_reply = replies.filter_map(|operation| operation.returned).min();
        Hence {
            value,
            first_reply: first_reply.expect("the read is one of them"),
            last_request: operations[read].invoked,
            until,
        }
    });
    let needed = needed.into_iter();
    Reason::NotDeleted {
        absence: at(absence),
        before: at(before),
        hence,
        needed: needed
            .map(|(delete, read)| (at(delete), at(read)))
            .collect(),
    }
}

/// The write of a value if that will do, being what everybody thinks of first, else `otherwise`.
fn simplest(
    operations: &[Operation],
    value: Value,
    otherwise: usize,
    will_do: impl FnOnce(&Operation) -> bool,
) -> usize {
    if will_do(&operations[value.write]) {
        value.write
    } else {
        otherwise
    }
}

fn around(operations: &[Operation], read: usize, reason: &Reason) -> Vec<Operation> {
    let read = &operations[read];
    let begun = |other: &&Operation| Some(other.invoked) <= read.returned;
    let (mut before, mut around): (Vec<_>, Vec<_>) = operations
        .iter()
        .filter(begun)
        .partition(|other| other.returned.is_some_and(|at| at < read.invoked));
    before.sort_by_key(|other| other.returned);
    around.extend(before.iter().rev().take(BEFORE_MAX));
    let named = reason.names();
    around.extend(before.iter().filter(|other| named.contains(other)));
    around.sort_by_key(|other| (other.invoked, other.returned, other.client));
    around.dedup();
    around.into_iter().cloned().collect()
}

impl Reason {
    fn names(&self) -> Vec<&Operation> {
        match self {
            Self::Unwritten(_) | Self::NoOrder => Vec::new(),
            Self::Gone {
                before,
                began,
                ended,
            } => vec![before, began, ended],
            Self::NotDeleted {
                absence,
                before,
                needed,
                ..
            } => {
                let needed = needed.iter().take(NEEDED_MAX);
                let needed = needed.flat_map(|(delete, read)| [delete, read]);
                [absence, before].into_iter().chain(needed).collect()
            }
        }
    }
}

impl Display for Hence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            value,
            first_reply,
            last_request,
            ..
        } = self;
        if first_reply < last_request {
            let (from, to) = (At(*first_reply), At(*last_request));
            write!(f, "{value} was there from {from} to {to}")
        } else {
            let (from, to) = (At(*last_request), At(*first_reply));
            write!(f, "{value} was there at some time from {from} to {to}")
        }
    }
}

impl Error for Violation {}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            read,
            reason,
            around,
        } = self;
        write!(f, "key {} is no register: {read}, ", read.key)?;
        match &**reason {
            Reason::Unwritten(unwritten) => write!(f, "although {unwritten}")?,
            Reason::NoOrder => f.write_str("and no order explains all that was seen by then")?,
            Reason::Gone {
                before,
                began,
                ended,
            } => {
                write!(f, "although {}", End(ended))?;
                if let Some(Some(value)) = read.seen() {
                    write!(f, " and nothing wrote {value} since")?;
                }
                write!(f, "; {}, after {}", Beginning(began), End(before))?;
            }
            Reason::NotDeleted {
                absence,
                before,
                hence,
                needed,
            } => {
                if hence.is_some() {
                    write!(f, "which leaves no explanation why {absence}, ")?;
                }
                write!(f, "although {}, ", End(before))?;
                let after = hence.map_or("that".to_string(), |Hence { until, .. }| {
                    format!("the one and until {}", At(until))
                });
                if let Some(hence) = hence {
                    write!(f, "{hence}, ")?;
                }
                let (be_left, colon) = if needed.is_empty() {
                    ("can", "")
                } else {
                    ("is left that can", ":")
                };
                write!(f, "and no delete {be_left} have come after {after}{colon}")?;
                for (number, (delete, read)) in needed.iter().take(NEEDED_MAX).enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    write!(f, "{comma} {} is needed for {}", Name(delete), Name(read))?;
                }
                if let Some(more) = needed.len().checked_sub(NEEDED_MAX + 1) {
                    write!(f, ", and {} more likewise", more + 1)?;
                }
            }
        }
        f.write_str("; around it:")?;
        for operation in around {
            let mark = if operation == read { "->" } else { "  " };
            write!(f, "\n{mark} {operation}")?;
        }
        Ok(())
    }
}

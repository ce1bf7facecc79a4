//! Every request ends by its deadline, to the nanosecond: a gateway that stands still then, as
//! soon as it goes on.

use super::Violation;
use crate::sim::ledger::Entry;
use crate::sim::moment::Moment;
use crate::sim::request::Answer;

/// An answer came now, of a gateway that last went on at `resumed`.
pub fn check(answer: &Answer, resumed: Moment, now: Moment) -> Result<(), Violation> {
    let latest = answer.deadline.max(resumed);
    if now <= latest {
        return Ok(());
    }
    let number = answer.operation;
    let what = format!("operation {number} was to end by {latest} and ended at {now}");
    Err(Violation::new("deadlines", what))
}

/// Nothing is under way in the world any more, and an operation has not ended.
pub fn never_ended(number: usize, entry: &Entry) -> Violation {
    let deadline = entry.deadline;
    let what = format!("operation {number} was to end by {deadline} and never did");
    Violation::new("deadlines", what)
}

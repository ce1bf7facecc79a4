//! Whether each key behaved as one register: every operation takes effect at one moment between
//! its request and its reply, and a read returns what is there at that moment.
//!
//! A write or a delete of unknown outcome takes effect at any time after its request, also long
//! after its reply, or never; one that was said not to be done never does. Two operations are in
//! order only if one had its reply strictly before the other was asked for.
//!
//! The answer is exact and takes `n log n` steps for n operations of a key, whatever they are, so
//! no search is cut short. For registers whose values are all written once, that is possible
//! without a search (Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26, 1997): what
//! each value asks for is a span of time, and it is enough to compare spans. Deletes are all
//! alike, and a read of no value does not say which one it saw; `sweep` says why they need no
//! search either.
//!
//! Where a key has conditional writes, which depend on what they find, there is no such way, and an order is
//! searched for.
//!
//! | module | what it owns |
//! |---|---|
//! | `search` | the same by trying, of keys with conditional writes |
//! | `spans` | what the operations of a key require of the time line |
//! | `sweep` | whether all of that can be had |
//! | `violation` | the explanation, if not |

mod search;
mod spans;
mod sweep;
mod violation;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod large;
#[cfg(test)]
mod small;

pub use violation::{Reason, Violation};

use super::{Action, Operation, Reply};

/// What was looked at to find a history in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// How many operations.
    pub operations: usize,
    /// On how many keys.
    pub keys: usize,
    /// How many of them were reads that had a result.
    pub reads: usize,
    /// How many moments had to be decided about, or states of a register to be tried; of the former never
    /// more than operations.
    pub moments: usize,
}

/// Looks at all operations of a history, in any order. If it is not linearizable, the violation is
/// about the earliest reply after which it was not.
pub fn check(history: &[Operation]) -> Result<Checked, Violation> {
    let mut operations = history.to_vec();
    operations.sort_by_key(|operation| operation.key);
    let mut checked = Checked {
        operations: operations.len(),
        ..Checked::default()
    };
    let mut violations = Vec::new();
    for operations in operations.chunk_by(|one, other| one.key == other.key) {
        let ill = operations.iter().find(|operation| !operation.is_coherent());
        assert_eq!(ill, None, "no register was asked or answered so");
        checked.keys += 1;
        let has_result = |operation: &&Operation| operation.seen().is_some();
        checked.reads += operations.iter().filter(has_result).count();
        let is_conditional = |it: &Operation| matches!(it.action, Action::Conditional { .. });
        match operations.iter().any(is_conditional) {
            true => match search::states(operations) {
                Some(states) => checked.moments += states,
                None => violations.push(first_without_order(operations)),
            },
            false => match sweep::moments(operations) {
                Ok(moments) => checked.moments += moments,
                Err(_) => violations.push(first_violation(operations, history)),
            },
        }
    }
    let earliest = violations
        .into_iter()
        .min_by_key(|violation| violation.read.returned);
    earliest.map_or(Ok(checked), Err)
}

/// The violation at the end of the shortest beginning of a key's history that has one.
fn first_violation(operations: &[Operation], history: &[Operation]) -> Violation {
    let is_sound = |beginning: &[Operation]| sweep::moments(beginning).is_ok();
    let (beginning, reply) = first_unsound(operations, is_sound);
    let conflict = sweep::moments(&beginning).expect_err("the beginning has a conflict");
    violation::explain(operations, &beginning, history, reply, conflict)
}

/// The same of a key with conditional writes.
fn first_without_order(operations: &[Operation]) -> Violation {
    let is_sound = |beginning: &[Operation]| search::states(beginning).is_some();
    let (_, reply) = first_unsound(operations, is_sound);
    violation::without_order(operations, reply)
}

/// The shortest beginning of a key's history that is not sound, as the whole is not, and the place of the reply
/// with which it ends. Nothing that is done later makes up for it, so the number of replies to look at can be
/// halved.
fn first_unsound(
    operations: &[Operation],
    is_sound: impl Fn(&[Operation]) -> bool,
) -> (Vec<Operation>, usize) {
    let is_told = |place: &usize| {
        let operation: &Operation = &operations[*place];
        operation.is_done() || operation.seen().is_some()
    };
    let mut replies: Vec<usize> = (0..operations.len()).filter(is_told).collect();
    replies.sort_by_key(|place| operations[*place].returned);
    let beginning = |count: usize| until_reply(operations, &replies[..count]);
    let (mut sound, mut unsound) = (0, replies.len());
    while unsound - sound > 1 {
        let middle = usize::midpoint(sound, unsound);
        match is_sound(&beginning(middle)) {
            true => sound = middle,
            false => unsound = middle,
        }
    }
    (beginning(unsound), replies[unsound - 1])
}

/// The operations, each at its place, as they stood at the last of these replies. Whatever had no
/// reply by then may still happen or not, and what was not requested by then proves nothing. What
/// was said at any time not to be done never was.
fn until_reply(operations: &[Operation], replies: &[usize]) -> Vec<Operation> {
    let end = replies
        .last()
        .and_then(|place| operations[*place].returned)
        .unwrap_or(0);
    let mut had_reply = vec![false; operations.len()];
    for place in replies {
        had_reply[*place] = true;
    }
    let stood = |(operation, had_reply): (&Operation, bool)| {
        let (mut stood, not_asked) = (operation.clone(), operation.invoked > end);
        if not_asked {
            stood.action = Action::Read;
        }
        if matches!(stood.reply, Reply::Failed(_)) && !had_reply {
            stood.reply = Reply::NotDone;
        } else if not_asked || !had_reply && !operation.is_never_done() {
            (stood.returned, stood.reply) = (None, Reply::Unknown);
        }
        stood
    };
    operations.iter().zip(had_reply).map(stood).collect()
}

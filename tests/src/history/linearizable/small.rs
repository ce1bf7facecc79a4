//! The checker against its specification, on small histories.
//!
//! The specification knows nothing of spans and deletes in question: it tries out every order.

use super::super::by_hand::{delete, read, write};
use super::super::{Action, Operation, Reply};
use super::{Reason, Violation, check};
use crate::random::Random;

/// Whether the operations of one key have an order, by trying out all of them.
fn has_an_order(history: &[Operation]) -> bool {
    let matters = |operation: &&Operation| {
        let is_told = operation.seen().is_some();
        is_told || operation.action != Action::Read && !operation.is_never_done()
    };
    let operations: Vec<_> = history.iter().filter(matters).collect();
    let must_be = |operation: &&Operation| operation.is_done() || operation.seen().is_some();
    let all: usize = (0..operations.len())
        .filter(|place| must_be(&operations[*place]))
        .map(|place| 1 << place)
        .sum();
    let mut pending = vec![(0, None)];
    // By what is done and which of the operations wrote the value, the last place being for none.
    let mut tried = vec![false; (operations.len() + 1) << operations.len()];
    while let Some((done, writer)) = pending.pop() {
        if done & all == all {
            return true;
        }
        let number = writer.unwrap_or(operations.len()) << operations.len() | done;
        if std::mem::replace(&mut tried[number], true) {
            continue;
        }
        let value = writer.map(|writer: usize| operations[writer].action);
        let is_left = |place: &usize| done & (1 << place) == 0;
        let left: Vec<usize> = (0..operations.len()).filter(is_left).collect();
        for &next in &left {
            let in_time = left.iter().all(|&other| {
                let other = operations[other];
                !must_be(&other) || other.returned >= Some(operations[next].invoked)
            });
            let after = match operations[next].action {
                Action::Read => {
                    let seen = operations[next].seen().flatten();
                    if seen.map(Action::Write) != value {
                        continue;
                    }
                    writer
                }
                Action::Write(_) => Some(next),
                Action::Delete => None,
                Action::Conditional { .. } => {
                    unreachable!("these histories have no conditional writes")
                }
            };
            if in_time {
                pending.push((done | 1 << next, after));
            }
        }
    }
    false
}

/// Operations on a register at random times, of which there are few, so that many are the same.
/// Then the reads return something else, all but about one in `kept`.
fn small_history(random: &mut Random, kept: usize) -> Vec<Operation> {
    let count = 3 + random.below(6);
    let times = 2 + random.below(3 * count);
    let mut history: Vec<Operation> = Vec::new();
    // When each takes effect, if ever.
    let mut moments = Vec::new();
    let mut written = Vec::new();
    for client in 0..count as u32 {
        let invoked = random.below(times) as u64;
        let length = random.below(2) * random.below(1 + times / 3);
        let time = invoked..=invoked + length as u64;
        let moment = invoked + random.below(length + 1) as u64;
        let late = (random.below(4) > 0).then(|| invoked + random.below(times) as u64);
        let change = match random.below(8) {
            0..4 => None,
            4..6 => Some(write(client, time.clone(), u64::from(client))),
            _ => Some(delete(client, time.clone())),
        };
        let (operation, moment) = match (change, random.below(8)) {
            (None, _) => (read(client, time, None), Some(moment)),
            (Some(change), 0) => (change.unknown(), late),
            (Some(change), 1) => (change.unanswered(), late),
            (Some(change), 2) => (change.never_done(), None),
            (Some(change), _) => (change, Some(moment)),
        };
        if let Action::Write(value) = operation.action {
            written.push(value);
        }
        history.push(operation);
        moments.push(moment);
    }
    let mut order: Vec<usize> = (0..count)
        .filter(|place| moments[*place].is_some())
        .collect();
    order.sort_by_cached_key(|place| (moments[*place], random.number()));
    let mut held = None;
    for place in order {
        match history[place].action {
            Action::Read => history[place].reply = Reply::Holds(held),
            Action::Write(value) => held = Some(value),
            Action::Delete => held = None,
            Action::Conditional { .. } => {
                unreachable!("these histories have no conditional writes")
            }
        }
    }
    for operation in &mut history {
        if operation.action != Action::Read {
            continue;
        }
        if random.below(kept) > 0 {
            let value = match random.below(20) {
                0 => Some(u64::MAX),
                1..8 => None,
                _ => written.get(random.below(written.len().max(1))).copied(),
            };
            operation.reply = Reply::Holds(value);
        }
        if random.below(20) == 0 {
            operation.reply = Reply::Unknown;
        }
    }
    history
}

/// The history as it stood at this reply. Of replies at the same moment, those come first that do
/// so in the history.
fn until(history: &[Operation], reply: usize) -> Vec<Operation> {
    let end = (history[reply].returned, reply);
    let mut stood = Vec::new();
    for (place, operation) in history.iter().enumerate() {
        let had_reply = (operation.returned, place) <= end;
        if had_reply || operation.is_never_done() {
            stood.push(operation.clone());
        } else if Some(operation.invoked) <= end.0 {
            stood.push(operation.clone().unanswered());
        }
    }
    stood
}

/// That the history has an order until just before the reply to the read of the violation, and
/// none from then on.
fn assert_first(violation: &Violation, history: &[Operation]) {
    let mut replies: Vec<usize> = (0..history.len()).collect();
    replies.sort_by_key(|place| history[*place].returned);
    let is_it = |place: &usize| history[*place] == violation.read;
    let number = replies.iter().position(is_it);
    let number = number.expect("the read is one of the history");
    assert!(!has_an_order(&until(history, replies[number])), "too early");
    if let Some(before) = number.checked_sub(1) {
        assert!(has_an_order(&until(history, replies[before])), "too late");
    }
}

/// Asserts that the statement of the violation is true.
fn assert_true(violation: &Violation) {
    let subject = |operation: &Operation| match operation.action {
        Action::Write(value) => Some(value),
        _ => operation.seen().flatten(),
    };
    let in_turn = |one: &Operation, other: &Operation| one.returned < Some(other.invoked);
    let (read, reason) = (&violation.read, &*violation.reason);
    match reason {
        Reason::Unwritten(_) | Reason::NoOrder => {}
        Reason::Gone {
            before,
            began,
            ended,
        } => {
            assert_eq!(subject(before), subject(read));
            assert_eq!(subject(began), subject(ended));
            assert_ne!(subject(before), subject(ended));
            assert!(in_turn(before, began) && in_turn(ended, read));
        }
        Reason::NotDeleted {
            absence,
            before,
            hence,
            needed,
        } => {
            assert!(subject(before).is_some());
            assert!(in_turn(before, absence));
            assert_eq!(
                (absence == read, absence.seen()),
                (hence.is_none(), Some(None))
            );
            for (delete, read) in needed {
                assert_eq!((delete.action, read.seen()), (Action::Delete, Some(None)));
            }
        }
    }
}

fn compare(seed: u64, count: usize) {
    let mut random = Random::new(seed);
    let mut with_an_order = 0;
    for number in 0..count {
        let history = small_history(&mut random, 1 + number % 5);
        let expected = has_an_order(&history);
        with_an_order += usize::from(expected);
        let found = check(&history);
        let compared = std::panic::catch_unwind(|| match &found {
            Ok(checked) => {
                assert!(expected, "accepted, although there is no order");
                assert!(checked.moments <= history.len());
            }
            Err(violation) => {
                assert!(!expected, "rejected, although there is an order");
                assert_first(violation, &history);
                assert_true(violation);
            }
        });
        assert!(
            compared.is_ok(),
            "seed {seed}, history {number}: {history:#?}\n{found:?}"
        );
    }
    let share = with_an_order as f64 / count as f64;
    assert!(
        (0.3..0.7).contains(&share),
        "seed {seed}: {share} of the histories have an order"
    );
}

#[test]
fn a_small_history_is_accepted_exactly_if_some_order_of_it_is_one_of_a_register() {
    compare(1, 200_000);
}

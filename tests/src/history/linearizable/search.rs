//! Whether the operations of a key have an order, where some of them are conditional.
//!
//! A search (Wing and Gong 1993, with the memory of Lowe 2017): from one state of the register to the next,
//! whichever operation may come next, and never twice from what was tried. What makes it short:
//! - What sees a value and changes nothing comes as soon as it may: that spoils no order.
//! - A write of unknown outcome whose value was seen has to come, and not after the first who saw it.
//! - Other writes of unknown outcome do nothing but fill the register for those who expect just any value,
//!   and are all alike once they are asked for; so are deletes. How many were used is all that matters. But a
//!   value that a delete expects which may have taken effect is kept apart.

use std::collections::{HashMap, HashSet};

use super::super::{Action, Expectation, Operation, Reply};

/// Later than any moment.
const NEVER: u64 = u64::MAX;

/// Most states that are tried. No history that was ever recorded needs a thousandth of it.
const STATES_MAX: usize = 20_000_000;

/// Something that takes effect.
#[derive(Debug, Clone, Copy)]
struct Event {
    from: u64,
    until: u64,
    what: What,
    /// It need not take effect at all.
    is_optional: bool,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// The register holds this; and does not meet the expectation, if there is one.
    See(Option<u64>, Option<Expectation>),
    /// It holds this from now on, if it met the expectation.
    Change(Option<u64>, Option<Expectation>),
}

impl What {
    /// What the register holds afterwards, if it may happen while it holds this.
    fn after(self, held: Option<u64>) -> Option<Option<u64>> {
        match self {
            Self::See(seen, expectation) => {
                let is_refused = expectation.is_none_or(|it| !it.is_met_by(held));
                (seen == held && is_refused).then_some(held)
            }
            Self::Change(then, expectation) => {
                let is_met = expectation.is_none_or(|it| it.is_met_by(held));
                is_met.then_some(then)
            }
        }
    }
}

/// A value that nobody saw.
const UNSEEN: u64 = u64::MAX - 1;

/// Which events have taken effect, what the register holds, and how many deletes and writes that are all alike
/// it took.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    done: Box<[u64]>,
    held: Option<u64>,
    deletes: usize,
    writes: usize,
}

/// All that may take effect.
struct Events {
    /// In the order of requests.
    events: Vec<Event>,
    /// When deletes of unknown outcome were asked for that take whatever value is there, in order.
    deletes: Vec<u64>,
    /// The same of writes that may fill an empty register with a value that nobody saw.
    writes: Vec<u64>,
}

impl State {
    fn has(&self, event: usize) -> bool {
        self.done[event / 64] >> (event % 64) & 1 == 1
    }

    fn with(&self, event: usize, held: Option<u64>) -> Self {
        let mut next = Self {
            held,
            ..self.clone()
        };
        next.done[event / 64] |= 1 << (event % 64);
        next
    }
}

/// How many states were tried until there was an order of the operations of a key; none if there is none.
pub(super) fn states(operations: &[Operation]) -> Option<usize> {
    let Events {
        events,
        deletes,
        writes,
    } = Events::of(operations);
    let begin = State {
        done: vec![0; events.len().div_ceil(64)].into(),
        held: None,
        deletes: 0,
        writes: 0,
    };
    let mut tried = HashSet::new();
    let mut pending = vec![begin];
    while let Some(mut state) = pending.pop() {
        // The first end of what has to come yet.
        let mut left: Vec<usize>;
        let end = loop {
            left = (0..events.len()).filter(|it| !state.has(*it)).collect();
            let ends = left.iter().map(|it| &events[*it]);
            let required = ends.filter(|event| !event.is_optional);
            let Some(end) = required.map(|event| event.until).min() else {
                return Some(tried.len());
            };
            left.retain(|it| events[*it].from <= end);
            let seeing = left.iter().copied().find(|it| {
                let is_look = matches!(events[*it].what, What::See(..));
                is_look && events[*it].what.after(state.held).is_some()
            });
            match seeing {
                Some(event) => state = state.with(event, state.held),
                None => break end,
            }
        };
        if !tried.insert(state.clone()) {
            continue;
        }
        assert!(
            tried.len() < STATES_MAX,
            "a history is too long to be searched"
        );
        let asked = deletes.partition_point(|from| *from <= end);
        if state.deletes < asked && state.held.is_some() {
            pending.push(State {
                held: None,
                deletes: state.deletes + 1,
                ..state.clone()
            });
        }
        let asked = writes.partition_point(|from| *from <= end);
        if state.writes < asked && state.held.is_none() {
            pending.push(State {
                held: Some(UNSEEN),
                writes: state.writes + 1,
                ..state.clone()
            });
        }
        for event in left {
            if let Some(held) = events[event].what.after(state.held) {
                pending.push(state.with(event, held));
            }
        }
    }
    None
}

impl Events {
    fn of(operations: &[Operation]) -> Self {
        let ends = ends_of_seen(operations);
        let removed = removed_unseen(operations);
        let (mut events, mut deletes, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for operation in operations {
            let seen = operation.seen();
            let (what, value) = match operation.action {
                Action::Read => match seen {
                    Some(seen) => (What::See(seen, None), None),
                    None => continue,
                },
                Action::Conditional { expects, .. } if seen.is_some() => {
                    (What::See(seen.flatten(), Some(expects)), None)
                }
                _ if operation.is_never_done() => continue,
                Action::Write(value) => (What::Change(Some(value), None), Some(value)),
                Action::Delete => (What::Change(None, None), None),
                Action::Conditional { expects, then } => (What::Change(then, Some(expects)), then),
            };
            let is_told = seen.is_some() || operation.is_done();
            let end = operation.returned.filter(|_| is_told).unwrap_or(NEVER);
            let seen_by = value.and_then(|value| ends.get(&value)).copied();
            let event = Event {
                from: operation.invoked,
                until: end.min(seen_by.unwrap_or(NEVER)),
                what,
                is_optional: !is_told && seen_by.is_none(),
            };
            let is_removed = value.is_some_and(|value| removed.contains(&value));
            match (operation.action, event.is_optional) {
                (_, false) => events.push(event),
                (
                    Action::Delete
                    | Action::Conditional {
                        expects: Expectation::AnyValue,
                        then: None,
                    },
                    true,
                ) => deletes.push(event.from),
                (_, true) if value.is_none() || is_removed => events.push(event),
                (
                    Action::Write(_)
                    | Action::Conditional {
                        expects: Expectation::NoValue,
                        ..
                    },
                    true,
                ) => writes.push(event.from),
                // It takes the place of a value, and whatever may come next may come after that as well.
                (_, true) => {}
            }
        }
        events.sort_by_key(|event| event.from);
        deletes.sort_unstable();
        writes.sort_unstable();
        Self {
            events,
            deletes,
            writes,
        }
    }
}

/// The values that nobody saw and that a delete of unknown outcome may have removed, it alone or with what
/// took their places before.
fn removed_unseen(operations: &[Operation]) -> HashSet<u64> {
    let mut removed = HashSet::new();
    loop {
        let before = removed.len();
        for operation in operations.iter().filter(|it| !it.is_never_done()) {
            if let Action::Conditional {
                expects: Expectation::Value(value),
                then,
            } = operation.action
                && then.is_none_or(|then| removed.contains(&then))
            {
                removed.insert(value);
            }
        }
        if removed.len() == before {
            return removed;
        }
    }
}

/// Of each value that was seen, when the first who saw it had ended. Who changes it on that condition, and
/// was seen to, saw it as well.
fn ends_of_seen(operations: &[Operation]) -> HashMap<u64, u64> {
    let mut ends: HashMap<u64, u64> = HashMap::new();
    let mut note = |value: u64, end: u64| {
        let known = ends.entry(value).or_insert(NEVER);
        *known = end.min(*known);
    };
    for operation in operations {
        let end = operation.returned.unwrap_or(NEVER);
        if let Some(Some(value)) = operation.seen() {
            note(value, end);
        }
        if let (
            Action::Conditional {
                expects: Expectation::Value(value),
                ..
            },
            true,
        ) = (operation.action, operation.is_done())
        {
            note(value, end);
        }
    }
    // Of what was seen, what it took the place of.
    loop {
        let mut more = Vec::new();
        for operation in operations {
            if let Action::Conditional {
                expects: Expectation::Value(value),
                then: Some(then),
            } = operation.action
                && let Some(end) = ends.get(&then).copied()
                && ends.get(&value).is_none_or(|known| end < *known)
                && operation.reply != Reply::NotDone
            {
                more.push((value, end));
            }
        }
        if more.is_empty() {
            return ends;
        }
        for (value, end) in more {
            let known = ends.entry(value).or_insert(NEVER);
            *known = end.min(*known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::by_hand::{delete, read, write};
    use super::*;
    use crate::history::linearizable::{check, sweep};
    use crate::random::Random;
    use std::ops::RangeInclusive;

    fn conditional(
        client: u32,
        time: RangeInclusive<u64>,
        expects: Expectation,
        then: Option<u64>,
        reply: Reply,
    ) -> Operation {
        Operation {
            action: Action::Conditional { expects, then },
            reply,
            ..write(client, time, 0)
        }
    }

    /// By trying out every order of every choice of what takes effect.
    fn has_an_order(history: &[Operation]) -> bool {
        fn place(history: &[Operation], done: u64, held: Option<u64>) -> bool {
            let is_told = |it: &Operation| it.seen().is_some() || it.is_done();
            let left = |it: &usize| done >> *it & 1 == 0;
            let all = || (0..history.len()).filter(left);
            if !all().any(|it| is_told(&history[it])) {
                return true;
            }
            all().any(|next| {
                let operation = &history[next];
                let is_late = all().any(|other| {
                    is_told(&history[other]) && history[other].returned < Some(operation.invoked)
                });
                let after = match (operation.action, operation.seen()) {
                    (Action::Conditional { expects, .. }, Some(seen)) => {
                        (seen == held && !expects.is_met_by(held)).then_some(held)
                    }
                    (_, Some(seen)) => (seen == held).then_some(held),
                    _ if operation.is_never_done() => None,
                    (Action::Read, None) => None,
                    (Action::Write(value), _) => Some(Some(value)),
                    (Action::Delete, _) => Some(None),
                    (Action::Conditional { expects, then }, _) => {
                        expects.is_met_by(held).then_some(then)
                    }
                };
                !is_late && after.is_some_and(|held| place(history, done | 1 << next, held))
            })
        }
        place(history, 0, None)
    }

    /// What a register answered to operations at random times, of which some outcomes are not known, and
    /// perhaps one is said to be another.
    fn random_history(random: &mut Random, is_conditional: bool) -> Vec<Operation> {
        let count = 3 + random.below(5);
        let times = 2 + random.below(3 * count);
        let mut plans: Vec<(u64, usize)> = (0..count)
            .map(|number| (random.below(times) as u64, number))
            .collect();
        plans.sort_unstable();
        let mut held = None;
        let mut written = vec![u64::MAX];
        let mut history = Vec::new();
        for (moment, number) in plans {
            let (client, value) = (number as u32, number as u64);
            let begin = moment.saturating_sub(random.below(3) as u64);
            let time = begin..=moment + random.below(3) as u64;
            let expects = match random.below(4) {
                0 => Expectation::NoValue,
                1 => Expectation::AnyValue,
                _ => {
                    let place = random.below(written.len());
                    Expectation::Value(held.unwrap_or(written[place]))
                }
            };
            let then = (random.below(3) > 0).then_some(value);
            let mut operation = match random.below(8) {
                0..2 => read(client, time, held),
                2..4 => write(client, time, value),
                4 => delete(client, time),
                _ if is_conditional => conditional(client, time, expects, then, Reply::Done),
                _ => read(client, time, held),
            };
            written.extend(operation.written());
            let is_met = match operation.action {
                Action::Conditional { expects, .. } => expects.is_met_by(held),
                _ => true,
            };
            let takes_effect = is_met && random.below(6) > 0;
            match operation.action {
                Action::Read => {}
                _ if !is_met => operation.reply = Reply::Failed(held),
                _ if !takes_effect => operation.reply = Reply::NotDone,
                Action::Write(value) => held = Some(value),
                Action::Delete => held = None,
                Action::Conditional { then, .. } => held = then,
            }
            match random.below(6) {
                0 if operation.action != Action::Read => operation = operation.unknown(),
                1 if operation.action != Action::Read => operation = operation.unanswered(),
                _ => {}
            }
            history.push(operation);
        }
        if random.below(2) == 0 {
            let place = random.below(history.len());
            let other = written[random.below(written.len())];
            let other = (random.below(3) > 0).then_some(other);
            let operation = &mut history[place];
            match (operation.action, operation.reply) {
                (Action::Read, _) => operation.reply = Reply::Holds(other),
                (Action::Conditional { .. }, Reply::Done) => operation.reply = Reply::Failed(other),
                (Action::Conditional { .. }, Reply::Failed(_)) if operation.returned.is_some() => {
                    operation.reply = Reply::Done;
                }
                _ => {}
            }
        }
        history
    }

    #[test]
    fn every_small_history_has_an_order_if_one_is_found_by_trying_all() {
        let random = &mut Random::new(7);
        let (mut sound, mut unsound) = (0, 0);
        for number in 0..30_000 {
            let history = random_history(random, number % 4 > 0);
            let expected = has_an_order(&history);
            assert_eq!(states(&history).is_some(), expected, "{history:#?}");
            let is_plain = |it: &Operation| !matches!(it.action, Action::Conditional { .. });
            if history.iter().all(is_plain) {
                assert_eq!(sweep::moments(&history).is_ok(), expected, "{history:#?}");
            }
            match expected {
                true => sound += 1,
                false => unsound += 1,
            }
        }
        assert!(sound > 5_000 && unsound > 2_000, "{sound} {unsound}");
    }

    #[test]
    fn of_those_that_expect_one_version_at_most_one_takes_effect() {
        use Expectation::{AnyValue, NoValue, Value};
        let created =
            |client, time, reply| conditional(client, time, NoValue, Some(client.into()), reply);
        let (done, unknown) = (Reply::Done, Reply::Unknown);
        for (is_sound, history) in [
            (
                false,
                vec![created(1, 1..=9, done), created(2, 2..=8, done)],
            ),
            (
                true,
                vec![
                    created(1, 1..=9, done),
                    created(2, 2..=8, Reply::Failed(Some(1))),
                ],
            ),
            // It was not there yet.
            (
                false,
                vec![
                    created(1, 5..=9, done),
                    created(2, 2..=4, Reply::Failed(Some(1))),
                ],
            ),
            (false, vec![created(1, 1..=2, Reply::Failed(None))]),
            (
                false,
                vec![
                    write(1, 1..=2, 1),
                    conditional(2, 3..=9, Value(1), Some(2), done),
                    conditional(3, 4..=8, Value(1), Some(3), done),
                ],
            ),
            (
                true,
                vec![
                    write(1, 1..=2, 1),
                    conditional(2, 3..=4, Value(1), Some(2), unknown),
                    read(3, 5..=6, Some(1)),
                    read(3, 7..=8, Some(2)),
                ],
            ),
            // What it expects is gone for good.
            (
                false,
                vec![
                    write(1, 1..=2, 1),
                    conditional(2, 3..=4, Value(1), Some(2), unknown),
                    write(3, 5..=6, 3),
                    read(3, 7..=8, Some(3)),
                    read(3, 9..=10, Some(2)),
                ],
            ),
            (
                true,
                vec![
                    write(1, 1..=2, 1),
                    conditional(2, 3..=4, AnyValue, None, done),
                    read(3, 5..=6, None),
                    created(4, 7..=8, done),
                ],
            ),
            (false, vec![conditional(2, 3..=4, AnyValue, None, done)]),
        ] {
            assert_eq!(states(&history).is_some(), is_sound, "{history:#?}");
            assert_eq!(has_an_order(&history), is_sound, "{history:#?}");
            assert_eq!(check(&history).is_ok(), is_sound, "{history:#?}");
        }
    }

    #[test]
    fn a_violation_names_the_reply_with_which_there_was_no_order_any_more() {
        let lost = |client, time| {
            let expects = Expectation::Value(1);
            conditional(client, time, expects, Some(client.into()), Reply::Done)
        };
        let history = [
            write(1, 1..=2, 1),
            lost(2, 3..=9),
            lost(3, 4..=8),
            read(4, 10..=11, Some(2)),
        ];
        let violation = check(&history).unwrap_err();
        assert_eq!(violation.read, history[1]);
        let text = violation.to_string();
        assert!(text.contains("wrote 2 in the place of 1"), "{text}");
    }

    #[test]
    fn a_long_history_with_unknown_outcomes_is_searched_soon() {
        let random = &mut Random::new(9);
        let (mut history, mut held) = (Vec::new(), None);
        for number in 0..600_u64 {
            let client = (number % 8) as u32;
            let time = number * 10..=number * 10 + 10 + random.below(60) as u64;
            let expects = held.map_or(Expectation::NoValue, Expectation::Value);
            let then = (random.below(5) > 0).then_some(number);
            history.push(match random.below(5) {
                0 => read(client, time, held),
                1 => delete(client, time).unknown(),
                2 => write(client, time, number).unanswered(),
                3 => conditional(client, time, expects, then, Reply::Unknown),
                _ => {
                    held = then;
                    conditional(client, time, expects, then, Reply::Done)
                }
            });
        }
        assert!(states(&history).is_some());
    }
}

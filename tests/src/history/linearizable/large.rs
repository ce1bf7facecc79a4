//! The checker on histories of the size that it is made for: those of a register are accepted
//! whatever their unknown outcomes, and a single wrong reply is found.

use super::super::{Action, Operation, Reply};
use super::{Reason, check};
use crate::random::Random;

/// Operations of clients that have one under way each, on registers that work. Some are slow, and
/// some of the changes have no known outcome: those take effect in time, late, or never. A client
/// that was never answered is replaced by another.
fn history_of_registers(random: &mut Random) -> Vec<Operation> {
    let (count, keys) = (200 + random.below(401), 1 + random.below(8));
    let (unknown, deletes) = (random.below(20), random.below(40));
    // By client, since when it has nothing under way.
    let mut free = vec![0; 2 + random.below(9)];
    let mut clients: Vec<u32> = (0..free.len() as u32).collect();
    let mut history: Vec<Operation> = Vec::new();
    let mut effects = Vec::new();
    for number in 0..count as u64 {
        let place = (0..free.len()).min_by_key(|place| free[*place]).unwrap();
        let invoked = free[place] + random.below(20) as u64;
        let lasting_at_most = if random.below(10) == 0 { 400 } else { 40 };
        let lasting = 1 + random.below(lasting_at_most);
        let returned = invoked + lasting as u64;
        let mut operation = Operation {
            client: clients[place],
            key: random.below(keys) as u32,
            action: match random.below(100) {
                percent if percent < deletes => Action::Delete,
                ..70 => Action::Read,
                _ => Action::Write(number),
            },
            invoked,
            returned: Some(returned),
            reply: Reply::Done,
        };
        let mut effect = Some(invoked + random.below(lasting + 1) as u64);
        if operation.action == Action::Read {
            operation.reply = Reply::Holds(None);
        } else if random.below(100) < unknown {
            operation.reply = Reply::Unknown;
            effect = (random.below(3) > 0).then(|| invoked + random.below(1_000) as u64);
            if random.below(4) == 0 {
                operation.returned = None;
                clients[place] = (number + 1_000) as u32;
            }
        } else if random.below(50) == 0 {
            operation.reply = Reply::NotDone;
            effect = None;
        }
        free[place] = returned;
        history.push(operation);
        effects.push(effect);
    }
    let mut order: Vec<usize> = (0..count)
        .filter(|place| effects[*place].is_some())
        .collect();
    order.sort_by_cached_key(|place| (effects[*place], random.number()));
    let mut held = vec![None; keys];
    for place in order {
        let Operation {
            key, action, reply, ..
        } = &mut history[place];
        match action {
            Action::Read if random.below(100) < unknown => *reply = Reply::Unknown,
            Action::Read => *reply = Reply::Holds(held[*key as usize]),
            Action::Write(value) => held[*key as usize] = Some(*value),
            Action::Delete => held[*key as usize] = None,
            Action::Conditional { .. } => {
                unreachable!("these histories have no conditional writes")
            }
        }
    }
    history
}

#[test]
fn every_history_of_registers_is_accepted() {
    for seed in 0..2_000 {
        let history = history_of_registers(&mut Random::new(seed));
        let checked =
            check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        assert_eq!(checked.operations, history.len());
        assert!(checked.moments <= history.len());
    }
}

/// A reply that no register gives.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// A value that is overwritten, for certain.
    Overwritten,
    /// A value that is deleted, for certain.
    Deleted,
    /// No value, although one was written and no delete can have removed it.
    Lost,
    /// A value that is not yet asked to be written.
    Early,
    /// A value of another key.
    Elsewhere,
    /// A value whose write is then said not to be done.
    NeverDone,
}

impl Wrong {
    const ALL: [Self; 6] = [
        Self::Overwritten,
        Self::Deleted,
        Self::Lost,
        Self::Early,
        Self::Elsewhere,
        Self::NeverDone,
    ];

    /// Tells a read so, if there is an occasion: the one at this place, or a later one.
    fn spoil(self, history: &mut [Operation], from: usize) -> Option<usize> {
        (from..history.len())
            .find(|read| history[*read].seen().is_some() && self.tell(history, *read))
    }

    fn tell(self, history: &mut [Operation], read: usize) -> bool {
        let asked = &history[read];
        let ends_before = |one: &Operation, other: &Operation| {
            one.is_done() && one.returned < Some(other.invoked)
        };
        let mut others = history.iter().filter(|other| other.key == asked.key);
        let done_before = |other: &&Operation| ends_before(other, asked);
        let gone_by = |wanted: fn(Action) -> bool| {
            let ends = others.clone().filter(done_before);
            let ends: Vec<_> = ends.filter(|end| wanted(end.action)).collect();
            let gone = |write: &&Operation| ends.iter().any(|end| ends_before(write, end));
            others.clone().filter(gone).find_map(written)
        };
        let reply = match self {
            Self::Overwritten => gone_by(|end| matches!(end, Action::Write(_))).map(Some),
            Self::Deleted => gone_by(|end| end == Action::Delete).map(Some),
            Self::Lost => {
                let may_remove = |write: &Operation, delete: &Operation| {
                    delete.action == Action::Delete
                        && !delete.is_never_done()
                        && !ends_before(delete, write)
                        && Some(delete.invoked) <= asked.returned
                };
                let is_kept =
                    |write: &&Operation| !others.clone().any(|other| may_remove(write, other));
                let mut kept = others.clone().filter(done_before).filter(is_kept);
                kept.find_map(written).map(|_| None)
            }
            Self::Early => {
                let mut later = others.filter(|other| Some(other.invoked) > asked.returned);
                later.find_map(written).map(Some)
            }
            Self::Elsewhere => {
                let mut elsewhere = history.iter().filter(|other| other.key != asked.key);
                elsewhere.find_map(written).map(Some)
            }
            Self::NeverDone => {
                let seen = asked.seen().flatten();
                let write = others.find(|other| seen.is_some() && written(other) == seen);
                let Some(write) = write.cloned() else {
                    return false;
                };
                let place = history.iter().position(|other| *other == write);
                let place = place.expect("it is of the history");
                history[place].returned.get_or_insert(u64::MAX);
                history[place].reply = Reply::NotDone;
                return true;
            }
        };
        if let Some(seen) = reply {
            history[read].reply = Reply::Holds(seen);
        }
        reply.is_some()
    }
}

fn written(operation: &Operation) -> Option<u64> {
    match operation.action {
        Action::Write(value) => Some(value),
        _ => None,
    }
}

#[test]
fn a_single_wrong_reply_is_found_where_it_is() {
    let mut found = [0; Wrong::ALL.len()];
    for seed in 0..1_000 {
        let random = &mut Random::new(seed);
        let mut history = history_of_registers(random);
        let kind = random.below(found.len());
        let wrong = Wrong::ALL[kind];
        let from = random.below(history.len());
        let Some(read) = wrong.spoil(&mut history, from) else {
            continue;
        };
        let Err(violation) = check(&history) else {
            panic!("seed {seed}: {wrong:?} at {:?} was accepted", history[read]);
        };
        let context = format!("seed {seed}, {wrong:?} at {:?}: {violation}", history[read]);
        match (wrong, &*violation.reason) {
            // Another read may have seen the value before.
            (Wrong::NeverDone, Reason::Unwritten(_)) => {
                assert_eq!(violation.read.seen(), history[read].seen(), "{context}");
            }
            (Wrong::Overwritten | Wrong::Deleted, Reason::Gone { .. })
            | (Wrong::Lost, Reason::NotDeleted { .. })
            | (Wrong::Early | Wrong::Elsewhere, Reason::Unwritten(_)) => {
                assert_eq!(violation.read, history[read], "{context}");
            }
            _ => panic!("{context}"),
        }
        found[kind] += 1;
    }
    for (wrong, found) in Wrong::ALL.iter().zip(found) {
        assert!(found > 50, "{wrong:?} was tried out {found} times only");
    }
}

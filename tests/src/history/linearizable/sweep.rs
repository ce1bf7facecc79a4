//! Whether there is a moment for everything that a key is asked for.
//!
//! Think of the time line in two colours: *bare* while the register holds no value for certain,
//! *filled* while it may hold one. It begins bare. It can turn filled at any time, and turns bare
//! by a delete, each delete once and within its span. A history is linearizable if and only if
//! there is a colouring in which
//! - all the time of a value that is held is filled;
//! - some moment in the span of every other value is filled: there it is written, read, and gone;
//! - some moment in the span of every read that returned no value is bare.
//!
//! A delete that is not used so has its moment anywhere in its span where no value is held, and
//! harms nobody: what is not held is not needed afterwards.
//!
//! The sweep goes through time and keeps the colour until something forces it:
//!
//! ```text
//!            a value's last moment, and no moment of its span was filled;
//!            or a value is held from here on
//!          +---------------------------------------------------------->+
//!        bare                                                        filled
//!          +<----------------------------------------------------------+
//!            the last moment of a read of no value, and no moment of its span was bare:
//!            uses, of the deletes at hand, the one that ends first; fails if there is none
//!
//!        the last moment of a delete that was not used: filled for that moment, then bare
//! ```
//!
//! It fails only if there is no such colouring. For suppose there is one, and look at where it
//! first differs from the sweep's. It can be changed to do as the sweep does there, too:
//! - Where the sweep turns later, nothing is lost: at that moment both colours are there, so every
//!   span that is open has met its own. To turn filled again is free. To turn bare takes the delete
//!   that it used, which has not ended, or the sweep would have used it.
//! - If it used another delete than the sweep does, the two change places. The sweep's ends first,
//!   so the other can stand in for it later.
//! - A delete at its last moment is of no use later. To use it then leaves the register bare, with
//!   both colours just seen, from where every colour can be had for free.
//! - While a value is held, nothing ends. What turned bare before that, for something that lasts
//!   longer, may as well do so afterwards.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::Operation;
use super::spans::{Clash, Requirement, Requirements, Value};

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// There is no need to look at the deletes.
    Clash(Clash),
    /// The last moment of a read that returned no value came without a delete.
    NotDeleted(NotDeleted),
}

/// A read that returned no value while there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotDeleted {
    pub(super) read: usize,
    /// When it can have come at last.
    pub(super) until: u64,
    /// The value that was there before, in any case.
    pub(super) value: Value,
    /// The deletes that could have removed it but are needed elsewhere, each with the read that
    /// returned no value and needs it.
    pub(super) needed: Vec<(usize, usize)>,
}

/// How many moments there were to decide about; or why there is no order in which the operations
/// of a key can have taken effect.
pub(super) fn moments(operations: &[Operation]) -> Result<usize, Conflict> {
    let requirements = Requirements::of(operations).map_err(Conflict::Clash)?;
    let turns = turns(&requirements);
    let mut sweep = Sweep::new(&requirements);
    for turn in &turns {
        sweep.pass(turn)?;
    }
    Ok(turns.len())
}

/// A moment at which the colour may have to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at: u64,
    why: Why,
    /// Where the reason stands among the requirements of its kind.
    place: usize,
}

/// In their order at one moment: a delete is used before a value is held, which it may not touch.
/// Between those, the order makes no difference, since spans include their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// A delete's last moment.
    Delete,
    /// The last moment of a read that returned no value.
    Absence,
    /// The last moment of a value that is not held.
    Moment,
    /// The first moment of a value that is held.
    Held,
}

/// All turns that these requirements may force, in the order of time. Reads end in time, so a
/// requirement until the end of time comes after all that matters.
fn turns(requirements: &Requirements) -> Vec<Turn> {
    let turn = |why| move |(place, at)| Turn { at, why, place };
    let deletes = requirements
        .deletes
        .iter()
        .map(|delete| delete.until)
        .enumerate();
    let absences = requirements
        .absences
        .iter()
        .map(|read| read.until)
        .enumerate();
    let moments = requirements
        .moments
        .iter()
        .map(|value| value.until)
        .enumerate();
    let held = requirements.held.iter().map(|value| value.from).enumerate();
    let mut turns: Vec<Turn> = deletes
        .map(turn(Why::Delete))
        .chain(absences.map(turn(Why::Absence)))
        .chain(moments.map(turn(Why::Moment)))
        .chain(held.map(turn(Why::Held)))
        .collect();
    turns.sort_unstable();
    turns
}

/// What the register can hold at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    /// Nothing; until when there may have been something, if ever.
    Bare { filled_until: Option<u64> },
    /// Something; until when there was nothing, and the value that ended it.
    Filled {
        bare_until: u64,
        by: Requirement<Value>,
    },
}

struct Sweep<'w> {
    requirements: &'w Requirements,
    colour: Colour,
    /// How many of the deletes, in the order of their requests, have been asked for.
    asked: usize,
    /// Those that were asked for and not used, by their ends and places.
    at_hand: BinaryHeap<Reverse<(u64, usize)>>,
    /// The deletes that were used for a read, and the read, by their places.
    used: Vec<(usize, usize)>,
}

impl<'w> Sweep<'w> {
    fn new(requirements: &'w Requirements) -> Self {
        Self {
            requirements,
            colour: Colour::Bare { filled_until: None },
            asked: 0,
            at_hand: BinaryHeap::new(),
            used: Vec::new(),
        }
    }

    fn pass(&mut self, turn: &Turn) -> Result<(), Conflict> {
        let Turn { at, why, place } = *turn;
        while let Some(delete) = self.requirements.deletes.get(self.asked)
            && delete.from <= at
        {
            self.at_hand.push(Reverse((delete.until, self.asked)));
            self.asked += 1;
        }
        match why {
            Why::Delete => {
                let next = self.at_hand.peek();
                if next.is_some_and(|Reverse((until, _))| *until <= at) {
                    self.at_hand.pop();
                    self.clear(at);
                }
            }
            Why::Absence => {
                let read = &self.requirements.absences[place];
                if let Colour::Filled { bare_until, by } = self.colour
                    && bare_until < read.from
                {
                    let Some(Reverse((_, delete))) = self.at_hand.pop() else {
                        return Err(Conflict::NotDeleted(self.not_deleted(read, bare_until, by)));
                    };
                    self.used.push((delete, place));
                    self.clear(at);
                }
            }
            Why::Moment => {
                let value = self.requirements.moments[place];
                if let Colour::Bare { filled_until } = self.colour
                    && filled_until < Some(value.from)
                {
                    self.fill(at, value);
                }
            }
            Why::Held => self.fill(at, self.requirements.held[place]),
        }
        Ok(())
    }

    fn clear(&mut self, at: u64) {
        let filled_until = Some(at);
        self.colour = Colour::Bare { filled_until };
    }

    fn fill(&mut self, at: u64, by: Requirement<Value>) {
        if let Colour::Bare { .. } = self.colour {
            let bare_until = at;
            self.colour = Colour::Filled { bare_until, by };
        }
    }

    /// What to report of a read for which there is no delete, though the register was last bare
    /// before it.
    fn not_deleted(
        &self,
        read: &Requirement<usize>,
        bare_until: u64,
        by: Requirement<Value>,
    ) -> NotDeleted {
        let Requirements { held, moments, .. } = self.requirements;
        // Of the values that were certainly there in between, the last: the fewer deletes come
        // into question, the easier is it to see that there is none.
        let later = moments
            .iter()
            .filter(|value| bare_until < value.from && value.until < read.from)
            .chain(held.iter().filter(|value| value.from < read.from));
        let value = later.fold(
            &by,
            |last, value| {
                if value.from < last.from { last } else { value }
            },
        );
        let needed = self.used.iter().filter_map(|(delete, read)| {
            let delete = &self.requirements.deletes[*delete];
            let in_question = delete.until >= value.what.last_request();
            in_question.then(|| (delete.what, self.requirements.absences[*read].what))
        });
        NotDeleted {
            read: read.what,
            until: read.until,
            value: value.what,
            needed: needed.collect(),
        }
    }
}

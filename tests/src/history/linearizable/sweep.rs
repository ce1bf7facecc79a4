//! Whether there is a moment for everything that a key is asked for.
//!
//! Think of the time line in two colours: *bare* while the register holds no value, *filled* while
//! it may hold one. It begins bare. It can turn filled at any time, for a write of something is
//! due there or nothing is. It turns bare by a delete, each delete once, within its span.
//! A history is linearizable if and only if a colouring has all of this:
//! - filled is all the time of a value that is held;
//! - of the span of every other value, some moment is filled: there it is written, read, and gone;
//! - of the span of every read that was told no value, some moment is bare.
//!
//! A delete that was done but turned nothing bare has its moment anywhere in its span beside the
//! values that are held: what is not held is not needed afterwards.
//!
//! The sweep goes through time and keeps the colour until something forces it:
//!
//! ```text
//!            a value's last moment, and no moment of its span was filled;
//!            a value is held from here on
//!          +---------------------------------------------------------->+
//!        bare                                                        filled
//!          +<----------------------------------------------------------+
//!            a read's last moment, it was told no value, and no moment of its span was bare:
//!            takes the delete at hand with the nearest end, or fails if none is
//!
//!        a delete's last moment, and it was not needed so far: filled for a moment, then bare
//! ```
//!
//! That no search is needed follows from exchanges. Compare any colouring that works with the
//! sweep, up to where they first differ. Turning later than that one, the sweep has filled or bare
//! moments at least as late, so every span that is open still meets its colour, and the turn is
//! still to be had: towards filled it is free, and a delete that is about to end is used before
//! it does, which costs nothing, since one may turn back at once. Where that one used another
//! delete, the two can change places, the sweep's having the nearer end. So that colouring can be
//! changed to agree with the sweep a step further, and the sweep fails only if there is none.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::Operation;
use super::spans::{Clash, NEVER, Value, Wish, Wishes};

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// There is no need to look at the deletes.
    Clash(Clash),
    /// The last moment of a read that was told no value came without a delete.
    NotDeleted(NotDeleted),
}

/// A read that was told no value while there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotDeleted {
    pub(super) read: usize,
    /// The value that was there before, in any case.
    pub(super) value: Value,
    /// The deletes that could have removed it but are needed elsewhere, each with the read that
    /// was told no value and needs it.
    pub(super) needed: Vec<(usize, usize)>,
}

/// How many moments there were to decide about; or why there is no order in which the operations
/// of a key can have taken effect.
pub(super) fn moments(operations: &[Operation]) -> Result<usize, Conflict> {
    let wishes = Wishes::of(operations).map_err(Conflict::Clash)?;
    let turns = turns(&wishes);
    let mut sweep = Sweep::new(&wishes);
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
    /// Where the reason stands among the wishes of its kind.
    place: usize,
}

/// In their order at one moment: a delete is used before a value is held, which it may not touch.
/// Between those, the order makes no difference, since spans include their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// A delete's last moment.
    Delete,
    /// The last moment of a read that was told no value.
    Absence,
    /// The last moment of a value that is not held.
    Moment,
    /// The first moment of a value that is held.
    Held,
}

/// All turns that these wishes may force, in the order of time.
fn turns(wishes: &Wishes) -> Vec<Turn> {
    let turn = |why| move |(place, at)| Turn { at, why, place };
    let deletes = wishes.deletes.iter().map(|delete| delete.until).enumerate();
    let absences = wishes.absences.iter().map(|read| read.until).enumerate();
    let moments = wishes.moments.iter().map(|value| value.until).enumerate();
    let held = wishes.held.iter().map(|value| value.from).enumerate();
    let mut turns: Vec<Turn> = deletes
        .filter(|(_, until)| *until < NEVER)
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
    Filled { bare_until: u64, by: Wish<Value> },
}

struct Sweep<'w> {
    wishes: &'w Wishes,
    colour: Colour,
    /// How many of the deletes, in the order of their requests, have been asked for.
    asked: usize,
    /// Those that were asked for and not used, by their ends and places.
    at_hand: BinaryHeap<Reverse<(u64, usize)>>,
    /// The deletes that were used for a read, and the read, by their places.
    used: Vec<(usize, usize)>,
}

impl<'w> Sweep<'w> {
    fn new(wishes: &'w Wishes) -> Self {
        Self {
            wishes,
            colour: Colour::Bare { filled_until: None },
            asked: 0,
            at_hand: BinaryHeap::new(),
            used: Vec::new(),
        }
    }

    fn pass(&mut self, turn: &Turn) -> Result<(), Conflict> {
        let Turn { at, why, place } = *turn;
        while let Some(delete) = self.wishes.deletes.get(self.asked)
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
                let read = &self.wishes.absences[place];
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
                let value = self.wishes.moments[place];
                if let Colour::Bare { filled_until } = self.colour
                    && filled_until < Some(value.from)
                {
                    self.fill(at, value);
                }
            }
            Why::Held => self.fill(at, self.wishes.held[place]),
        }
        Ok(())
    }

    fn clear(&mut self, at: u64) {
        let filled_until = Some(at);
        self.colour = Colour::Bare { filled_until };
    }

    fn fill(&mut self, at: u64, by: Wish<Value>) {
        if let Colour::Bare { .. } = self.colour {
            let bare_until = at;
            self.colour = Colour::Filled { bare_until, by };
        }
    }

    /// What to tell of a read for which there is no delete, though the register was last bare
    /// before it.
    fn not_deleted(&self, read: &Wish<usize>, bare_until: u64, by: Wish<Value>) -> NotDeleted {
        let Wishes { held, moments, .. } = self.wishes;
        // Of the values that were certainly there in between, the last: the fewer deletes come
        // into question, the easier is it to see that there is none.
        let later = moments
            .iter()
            .filter(|value| bare_until < value.from && value.until < read.from);
        let later = later.chain(held.iter().filter(|value| value.until <= read.from));
        let last = later.chain([&by]).max_by_key(|value| value.from);
        let value = last.unwrap_or(&by);
        let needed = self.used.iter().filter_map(|(delete, read)| {
            let delete = &self.wishes.deletes[*delete];
            let in_question = delete.until >= value.what.last_request();
            in_question.then(|| (delete.what, self.wishes.absences[*read].what))
        });
        NotDeleted {
            read: read.what,
            value: value.what,
            needed: needed.collect(),
        }
    }
}

//! What the operations of one key require of the time line, as spans of time.
//!
//! A value that was read has to be there from the first reply that shows it until the last
//! request that led to such a reply. Where that is a time at all, nothing else can happen within:
//! it is *held*. Otherwise all operations of the value have a moment in common, and one such
//! moment is enough for all of them, as it is for any operation by itself.
//!
//! Nobody misses the value of an unknown write that was not read: it has until the end of time.
//!
//! Invariant: values that are held are so at different times, and no other span lies within one
//! of those.

use super::super::{Action, Operation};

/// Later than any moment.
const NEVER: u64 = u64::MAX;

/// From one moment to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Span {
    /// When an operation can take effect.
    fn of(operation: &Operation) -> Self {
        let is_told = operation.is_done() || operation.seen().is_some();
        let until = operation.returned.filter(|_| is_told).unwrap_or(NEVER);
        Self {
            from: operation.invoked,
            until,
        }
    }
}

/// A value, by the places of its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) value: u64,
    pub(super) write: usize,
    /// The operation with the first reply.
    pub(super) first: usize,
    /// The operation with the last request.
    pub(super) last: usize,
    first_reply: u64,
    last_request: u64,
}

impl Value {
    fn new(value: u64, write: usize, operation: &Operation) -> Self {
        let Span { from, until } = Span::of(operation);
        Self {
            value,
            write,
            first: write,
            last: write,
            first_reply: until,
            last_request: from,
        }
    }

    fn was_read(&mut self, read: usize, operation: &Operation) {
        let Span { from, until } = Span::of(operation);
        if until < self.first_reply {
            (self.first, self.first_reply) = (read, until);
        }
        if from > self.last_request {
            (self.last, self.last_request) = (read, from);
        }
    }

    /// From when on it can be gone.
    pub(super) fn last_request(&self) -> u64 {
        self.last_request
    }

    fn is_held(&self) -> bool {
        self.first_reply < self.last_request
    }

    /// While it has to be there, if it is held; else, when one moment of it can be.
    fn span(&self) -> Span {
        let (first, last) = (self.first_reply, self.last_request);
        Span {
            from: first.min(last),
            until: first.max(last),
        }
    }
}

/// Spans that cannot all be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clash {
    /// No write can have written what this read returned.
    Unwritten { read: usize },
    /// Each of the two values was there before, and after, the other.
    Crossed(Value, Value),
    /// The value has to be there for all the time that the operation could take effect.
    Covered(Value, usize),
}

/// What has to have its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Requirement<T> {
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) what: T,
}

/// All that one key is asked for. No span ends within one of `held`.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    /// The values that are held, in the order of their times.
    pub(super) held: Vec<Requirement<Value>>,
    /// The values that need but one moment; those that need none have until [`NEVER`].
    pub(super) moments: Vec<Requirement<Value>>,
    /// The reads that returned no value.
    pub(super) absences: Vec<Requirement<usize>>,
    /// The deletes, by the time of their requests. Those of unknown outcome have until [`NEVER`].
    pub(super) deletes: Vec<Requirement<usize>>,
}

impl Requirements {
    /// Those of the operations of one key.
    pub(super) fn of(operations: &[Operation]) -> Result<Self, Clash> {
        let mut requirements = Self::default();
        for value in values(operations)? {
            let Span { from, until } = value.span();
            let what = value;
            let requirement = Requirement { from, until, what };
            if value.is_held() {
                requirements.held.push(requirement);
            } else {
                requirements.moments.push(requirement);
            }
        }
        requirements.held.sort_unstable_by_key(|held| held.from);
        for pair in requirements.held.windows(2) {
            if pair[1].from < pair[0].until {
                return Err(Clash::Crossed(pair[0].what, pair[1].what));
            }
        }
        for (place, operation) in operations.iter().enumerate() {
            let is_delete = operation.action == Action::Delete && !operation.is_never_done();
            let is_absence = operation.seen() == Some(None);
            if !is_delete && !is_absence {
                continue;
            }
            let Span { from, until } = requirements
                .until_nothing_is_held(Span::of(operation))
                .map_err(|held| Clash::Covered(held, place))?;
            let what = place;
            let requirement = Requirement { from, until, what };
            if is_delete {
                requirements.deletes.push(requirement);
            } else {
                requirements.absences.push(requirement);
            }
        }
        requirements
            .deletes
            .sort_unstable_by_key(|delete| delete.from);
        for place in 0..requirements.moments.len() {
            let Requirement { from, until, what } = requirements.moments[place];
            let Span { from, until } = requirements
                .until_nothing_is_held(Span { from, until })
                .map_err(|held| Clash::Crossed(held, what))?;
            requirements.moments[place] = Requirement { from, until, what };
        }
        Ok(requirements)
    }

    /// The span without its end, as far as that lies within the time of a value that is held; or
    /// the value, if the whole span does. The beginning may lie there: nothing happens until the
    /// value is gone.
    fn until_nothing_is_held(&self, span: Span) -> Result<Span, Value> {
        let begun = self.held.partition_point(|held| held.from < span.until);
        match self.held[..begun].last() {
            Some(held) if span.until < held.until && span.from > held.from => Err(held.what),
            Some(held) if span.until < held.until => Ok(Span {
                until: held.from,
                ..span
            }),
            _ => Ok(span),
        }
    }
}

/// The values that may have been there, with the reads that saw them.
fn values(operations: &[Operation]) -> Result<Vec<Value>, Clash> {
    let mut values = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        if let Action::Write(value) = operation.action
            && !operation.is_never_done()
        {
            values.push(Value::new(value, place, operation));
        }
    }
    values.sort_unstable_by_key(|value| value.value);
    let twice = values.windows(2).find(|two| two[0].value == two[1].value);
    assert_eq!(twice, None, "a value is written once");
    for (read, operation) in operations.iter().enumerate() {
        let Some(Some(value)) = operation.seen() else {
            continue;
        };
        let Ok(place) = values.binary_search_by_key(&value, |value| value.value) else {
            return Err(Clash::Unwritten { read });
        };
        let value = &mut values[place];
        if Span::of(operation).until < operations[value.write].invoked {
            return Err(Clash::Unwritten { read });
        }
        value.was_read(read, operation);
    }
    Ok(values)
}

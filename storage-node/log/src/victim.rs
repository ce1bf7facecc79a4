//! The segment that compaction is emptying.

use crate::hint::Hint;
use crate::scan::{Item, Scanner};
use crate::segment::Visited;

/// A segment and how far its records have been looked at.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) segment: u32,
    pub(crate) names: Names,
}

/// What names the records of a segment.
#[derive(Debug)]
pub(crate) enum Names {
    Hint(Hint),
    /// Where there is no hint, or not yet. It names those that can be found.
    Scan(Scanner),
}

impl Names {
    /// The next record, or none in what was looked at; none at all at the end.
    pub(crate) fn next(&mut self) -> Option<Option<Visited<'_>>> {
        match self {
            Self::Hint(hint) => hint.next().map(Some),
            Self::Scan(scanner) => match scanner.step()? {
                Item::Record { visited, .. } => Some(visited),
                Item::Gap { .. } => Some(None),
            },
        }
    }
}

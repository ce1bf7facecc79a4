//! In which direction keys are listed.

use std::cmp::Ordering;

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the smallest key to the greatest.
    #[default]
    Ascending,
    /// From the greatest key to the smallest.
    Descending,
}

impl Direction {
    /// How two values are to each other in this direction: less is what comes first.
    pub fn compare<T: Ord + ?Sized>(self, one: &T, other: &T) -> Ordering {
        match self {
            Self::Ascending => one.cmp(other),
            Self::Descending => other.cmp(one),
        }
    }
}

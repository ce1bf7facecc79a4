//! In which direction keys are listed.

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the smallest key to the greatest.
    #[default]
    Ascending,
    /// From the greatest key to the smallest.
    Descending,
}

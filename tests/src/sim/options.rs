//! How a world is run, beside its seed.

use dkvs_common::mutants::Mutant;

/// Options of one run; the default is an honest world without a log.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether the log is kept in words. It changes nothing else.
    pub keeps_log: bool,
    /// What is done wrong on purpose, to see that it is noticed.
    pub sabotage: Option<Sabotage>,
    /// Which mutant of the code under test runs; none does without the feature `mutants`.
    pub mutant: Option<Mutant>,
}

/// Something that the promise does not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Servers that crash forget what they had confirmed, and nobody makes allowance for it.
    Forgetting,
    /// Now and then a server confirms what it does not store.
    Lying,
}

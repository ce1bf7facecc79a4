//! One world from its seed to its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::invariants::Violation;
use super::options::Options;
use super::statistics::Statistics;
use super::world::World;

/// The outcome of a world.
#[derive(Debug)]
pub struct Outcome {
    /// One number for all that happened.
    pub hash: u64,
    pub statistics: Statistics,
    /// What did not hold, if anything did not.
    pub violation: Option<Violation>,
    /// What happened in words, if it was to be kept.
    pub log: Vec<String>,
}

/// Runs the world of a seed from its beginning to its end, or to the first violation. A panic of
/// the code under test is one.
pub fn run(seed: u64, options: &Options) -> Outcome {
    #[cfg(feature = "mutants")]
    dkvs_common::mutants::switch(options.mutant);
    let mut world = World::new(seed, options);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let what = text.unwrap_or("something was thrown that is no text");
        world.report(Err(Violation::new("no panic", what)));
    }
    Outcome {
        hash: world.log.hash(),
        statistics: world.statistics,
        violation: world.violation,
        log: world.log.into_lines(),
    }
}

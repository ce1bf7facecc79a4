//! Each key behaves as its level promises, as far as its clients can tell; and every request had
//! the level that it asked for.

use dkvs_common::quorum::level::Level;

use super::Violation;
use crate::history::Operation;
use crate::history::linearizable;
use crate::sim::gateway::Told;
use crate::sim::ledger::{Entry, Ledger};

const NAME: &str = "registers";

/// A request was told this.
pub fn check_level(entry: &Entry, told: &Told) -> Result<(), Violation> {
    let level = match told {
        Told::Read(read) => read.level(),
        Told::Write(write, _) => write.level(),
        Told::Nothing => return Ok(()),
    };
    if level == entry.level {
        return Ok(());
    }
    let what = format!("{} was asked for, and {level} was given", entry.level);
    Err(Violation::new(NAME, what))
}

/// Looks at the whole history; how many reads that told something it has.
pub fn check(ledger: &Ledger) -> Result<u64, Violation> {
    let is_linearizable = |entry: &&Entry| entry.level == Level::Linearizable;
    let entries = ledger.entries().iter().filter(is_linearizable);
    let history: Vec<Operation> = entries.map(|entry| entry.operation.clone()).collect();
    match linearizable::check(&history) {
        Ok(checked) => Ok(checked.reads as u64),
        Err(violation) => Err(Violation::new(NAME, violation.to_string())),
    }
}

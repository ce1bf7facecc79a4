//! What has to hold in every world, one file each.
//!
//! * [`deadlines`]: every request ends by its deadline
//! * [`contents`]: of one tag there is one content, everywhere and forever
//! * [`confirmations`]: a server holds what it confirmed, and gateways report what it answered
//! * [`completion`]: a server that answers for a key holds what its confirmations were counted for
//! * [`provenance`]: a read shows what an operation wrote, whole
//! * [`convergence`]: once the world has healed every key can be read, and its replicas agree
//! * [`mending`]: and nothing is left damaged that another replica has
//! * [`registers`]: each key behaves as its level promises
//! * [`lists`]: a list has the keys that were there before it began
//! * [`shares`]: whoever is refused has requests in flight, or all places are taken
//! * [`downgrade`]: no server passes for one that speaks less than it does
//! * [`v1_records`]: reads leave what came by DKVS/1 as it is
//!
//! A server that forgets what it had confirmed breaks convergence, registers and lists, and is not held
//! to them.

pub mod completion;
pub mod confirmations;
pub mod contents;
pub mod convergence;
pub mod deadlines;
pub mod downgrade;
pub mod lists;
pub mod mending;
pub mod provenance;
pub mod registers;
pub mod shares;
pub mod v1_records;

use std::fmt;

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of which invariant.
    pub of: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// What was seen does not go with an invariant.
    pub fn new(of: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { of, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.of, self.what)
    }
}

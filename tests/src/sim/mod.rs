//! The simulator: a whole cluster with its gateways, clients and network in one thread, on a time
//! of its own, under every fault that the promise covers; and again, to the last bit, from its seed.
//!
//! * [`plan`]: what a seed decides before anything happens; [`chance`]: what is left to chance
//! * `world`: the event loop; `transport`: the way of a datagram; `workload`, `faults`: what clients
//!   do, and what goes wrong; `aftermath`: what is looked at in the end
//! * [`gateway`], [`server`]: the code that production runs, unchanged, with a process around it
//! * [`network`]: what becomes of datagrams; [`clock`]: wall clocks, none of which is right
//! * [`client`], [`ledger`], [`values`]: what is asked and told, and what is written
//! * [`invariants`]: what has to hold
//! * [`log`], [`datagram`], [`statistics`]: what happened, to be hashed, read and counted
//! * [`campaign`]: many worlds, on several threads
//!
//! A world ends in three steps. First there is chaos, for as long as the clients ask; what must
//! hold then is safety. Then everything heals but the clocks, and what is on its way arrives. At
//! last every key is read at every gateway: that must succeed, and leave the replicas alike.
//!
//! After quinn's `Pair`, openraft's one file per invariant and TigerBeetle's packet simulator.

mod aftermath;
mod c_client;
pub mod campaign;
pub mod chance;
pub mod client;
pub mod clock;
pub mod datagram;
mod faults;
pub mod gateway;
pub mod invariants;
pub mod ledger;
pub mod log;
pub mod moment;
pub mod network;
pub mod plan;
pub mod queue;
pub mod server;
pub mod statistics;
mod transport;
pub mod v1_plan;
pub mod values;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use dkvs_common::mutants::Mutant;
use invariants::Violation;
use statistics::Statistics;
use world::World;

/// How a world is run, beside its seed.
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

/// What came of a world.
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

//! The simulator: a whole cluster with its gateways, clients and network in one thread, on a time
//! of its own, under every fault that the promise covers; and again, to the last bit, from its seed.
//!
//! * [`plan`], [`fault_plan`], `disk_plan`: what a seed decides before anything happens; [`chance`]:
//!   what is left to chance
//! * `world`: the event loop; `transport`: the way of a datagram; `workload`, `c_workload`: what
//!   clients do; `faults`, `fault_events`: what goes wrong; `aftermath`: the checks at the end
//! * [`gateway`], [`server`]: the code that production runs, unchanged, with a process around it;
//!   [`on_disk`]: what a server does on its disk, and what happens to that
//! * [`network`]: links, and the faults on them; [`clock`]: wall clocks, none of which is right
//! * `anti_entropy`: how a server pulls from its peers, by a client of its own
//! * [`client`], [`ledger`], [`values`], [`request`]: requests and answers, and what is written
//! * [`invariants`]: what has to hold
//! * [`log`], [`datagram`], [`statistics`]: what happened, to be hashed, read and counted
//! * [`options`], `execution`: one world, from its seed to its outcome; [`campaign`]: many worlds, on
//!   several threads
//!
//! A world ends in three steps. First there is chaos, for as long as the clients ask; what must
//! hold then is safety. Then everything heals but the clocks, and what is on its way arrives. At
//! last every key is read at every gateway: that must succeed, and leave the replicas alike.
//!
//! After quinn's `Pair`, openraft's one file per invariant and TigerBeetle's packet simulator.

mod aftermath;
mod anti_entropy;
mod c_client;
mod c_workload;
pub mod campaign;
pub mod chance;
pub mod client;
pub mod clock;
pub mod datagram;
mod disk_plan;
mod execution;
mod fault_events;
pub mod fault_plan;
mod faults;
pub mod gateway;
pub mod invariants;
pub mod ledger;
pub mod lister;
mod lists;
pub mod log;
pub mod moment;
pub mod network;
pub mod on_disk;
pub mod options;
pub mod plan;
pub mod queue;
pub mod request;
pub mod server;
pub mod statistics;
mod transport;
pub mod v1_plan;
pub mod values;
mod workload;
mod world;

pub use execution::{Outcome, run};
pub use options::{Options, Sabotage};

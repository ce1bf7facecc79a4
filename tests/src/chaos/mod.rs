//! The promise of the linearizable level, kept by real processes over real sockets while things
//! break.
//!
//! ```text
//!   clients --HTTP--> gateways --UDP--> proxy --UDP--> storage servers --UDP--> proxy, to their peers
//!                        ^                ^                  ^
//!                        | killed,        | loses, repeats,  | stopped and continued, killed and
//!                        | replaced       | delays, cuts     | started again, one killed for good
//!                        +----------- the nemesis -----------+
//! ```
//!
//! Every request and reply goes into a history, which is judged at the end: each key has to have
//! been one register. Then everything is whole but for the server that was killed: all replicas of
//! each key have to come to hold the same, though nobody reads it, and then every key has to be
//! readable by every gateway, with the same result.
//!
//! `kills` is the same without the proxy and its faults: what happens there are kills alone.
//!
//! The seed decides which client requests what, what breaks and for how long. Which requests meet a
//! fault is
//! the machine's doing: the same seed makes a similar run, not the same.

mod client;
mod finished;
mod kills;
mod level;
mod nemesis;
pub mod reply;
mod runtime;
mod scenario;
mod schedule;
mod stage;
mod verdict;

pub use finished::Finished;
pub use kills::Kills;
pub use level::Level;
pub use scenario::{PHASES, Scenario};

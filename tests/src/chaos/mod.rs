//! The promise of the linearizable level, kept by real processes over real sockets while things
//! break.
//!
//! ```text
//!   clients --HTTP--> gateways --UDP--> proxy --UDP--> storage servers
//!                        ^                ^                  ^
//!                        | killed,        | loses, repeats,  | stopped and continued,
//!                        | replaced       | delays, cuts     | one killed for good
//!                        +----------- the nemesis -----------+
//! ```
//!
//! Every request and reply goes into a history, which is judged at the end: each key has to have
//! been one register. Then everything is whole but for the server that was killed, and every key
//! has to be readable by every gateway, with the same result.
//!
//! The seed decides which client requests what, what breaks and for how long. Which requests meet a
//! fault is
//! the machine's doing: the same seed makes a similar run, not the same.

mod client;
mod finished;
mod level;
mod nemesis;
pub mod reply;
mod runtime;
mod scenario;
mod schedule;
mod stage;

pub use finished::Finished;
pub use level::Level;
pub use scenario::{PHASES, Scenario};

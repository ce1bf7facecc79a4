//! What the gateway and the storage servers say to each other, as plain types.
//!
//! ```text
//!   quorum machine --ReplicaCommand--> wire --> ... --> wire --> handler
//!   quorum machine <-ReplicaResponse-- wire <-- ... <-- wire <-- handler
//! ```
//!
//! * [`ReplicaCommand`]: what one replica is asked to do
//! * [`ReplicaResponse`]: what it answers; [`Refusal`]: why it does not do it
//! * [`Direction`], [`KeyPosition`]: in which order keys are listed, and where a list begins
//! * [`LeafScope`], [`LeafSum`], [`LeafEntry`]: how replicas find where they differ
//! * [`Ballot`], [`Accepted`]: how replicas agree on what takes the place of a version
//! * [`Statistic`], [`Durability`]: what a server reports of itself
//! * [`Unrepresentable`]: what DKVS/1 cannot carry
//!
//! Nothing here knows how a message is written (`wire`), who decides by it (`quorum`), or who carries
//! it out (the storage server).

mod command;
mod description;
mod direction;
mod durability;
mod high_water;
mod key_position;
mod leaf;
mod nudge;
mod refusal;
mod response;
mod statistic;
mod unrepresentable;

pub use crate::slot::{Accepted, Ballot};
pub use command::ReplicaCommand;
pub use description::Description;
pub use direction::Direction;
pub use durability::Durability;
pub use high_water::HighWater;
pub use key_position::KeyPosition;
pub use leaf::{LeafEntry, LeafScope, LeafSum};
pub use nudge::Nudge;
pub use refusal::Refusal;
pub use response::{EntryKind, PageEntry, PageRest, ReplicaResponse};
pub use statistic::{Statistic, UnknownStatistic};
pub use unrepresentable::Unrepresentable;

//! What a server holds, as sums over short parts of the ring, by which replicas find where they differ.
//!
//! ```text
//!   ring:    |---- arc of A, B, C ----|- arc of B, C, D -|---- ...
//!   depth 3: |........|........|........|........|........|.......
//!   leaves:  |--------|--------|------|-|--------|-----|--| ...
//! ```
//!
//! * `arcs`: which parts of the ring a server is a replica of, and with whom
//! * `sums`: a sum for each leaf of these, kept up to date by the store's change hook
//! * `shared`: the leaves that two servers have in common, numbered as both number them
//!
//! What came by DKVS/1 is in no sum: each server gives it a tag of its own, so that replicas never have
//! the same, and which of them is newer means nothing.

mod arcs;
mod shared;
mod sums;

pub use arcs::Membership;
pub use shared::SharedLeaves;
pub use sums::LeafSums;
pub(crate) use sums::is_compared;

#[cfg(test)]
mod tests;

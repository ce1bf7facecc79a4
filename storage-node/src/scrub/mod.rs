//! Scrub: a durable server reads its records again, round after round, so that damage is known, and mended,
//! while other replicas are whole.
//!
//! ```text
//!             DiskStore::scrub                handle_read
//!   machine ------------------> a reader ------------------> machine
//! ```
//!
//! * `machine`: which record is read when; no clock, no threads
//! * `task`: drives the machine on a thread of its own
//!
//! It only reads. What it finds damaged the store writes anew if memory still has it, and otherwise lists
//! for [`anti_entropy`](crate::anti_entropy), as it does with damage that others find.

mod machine;
mod task;

pub use machine::{Pace, SCRUB_RATE_DEFAULT, Scrub};
pub use task::ScrubThread;

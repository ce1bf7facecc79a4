//! How callers share what a gateway has few of.
//!
//! * `slots`: nobody waits; whoever holds most gives one up for whoever would hold less
//! * `semaphore`: callers wait, and take turns
//! * `pace`: how many requests a worker begins before it looks what else has arrived

mod pace;
mod semaphore;
mod slots;

pub(super) use pace::Pace;
pub(super) use semaphore::FairSemaphore;
pub(super) use slots::{FairSlot, FairSlots, NoSlot};

//! The machine, from the outside.

mod agreement;
mod applied;
mod fixture;
mod linearizable;
mod resubmission;

//! The machine, from the outside.

mod agreement;
mod applied;
mod attributes;
mod fixture;
mod linearizable;
mod resubmission;

//! The machine, from the outside.

mod attributes;
mod choosing;
mod exhaustive;
mod fetching;
mod fixture;
mod quarantine;
mod repairing;

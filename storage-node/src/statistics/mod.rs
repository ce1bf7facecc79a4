//! The numbers that a server reports of itself.
//!
//! * `counters`: what happened since the start
//! * `report`: these and the state of the store, by the bytes of
//!   [`Statistic`](dkvs_common::model::Statistic)

mod counters;
mod report;

pub use counters::{Counter, Counters};

pub(crate) use report::{UploadReport, report};

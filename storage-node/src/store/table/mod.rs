//! Records in memory, in ring order, with a limit in bytes: what both stores are made of.
//!
//! * `shard`: a part of the records, and where a key stands in it
//! * `tracked`: what changes while a counted scan is under way
//! * `records`: the table, in shards that each have a lock
//! * `counted_scan`: a count of records and then those very records, page by page

mod counted_scan;
mod records;
mod shard;
mod tracked;

pub use counted_scan::{CountedScan, PageEnd, PageLimits};
pub use records::ENTRY_OVERHEAD_BYTES;
pub use tracked::NOTED_BYTES_MAX;

pub(super) use records::RecordTable;
pub(super) use tracked::Filter;

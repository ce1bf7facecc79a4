//! Records in memory, in ring order, with a limit in bytes: what both stores are made of.
//! One keeps the records in it, the other what it knows of them and where they lie.
//!
//! * `shard`: a part of the records, and where a key stands in it
//! * `tracked`: what changes while a counted scan is under way
//! * `records`: the table, in shards that each have a lock
//! * `puts`: puts of records that are in the table as a whole
//! * `counted_scan`: a count of records and then those very records, page by page

mod counted_scan;
mod puts;
mod records;
mod shard;
mod tracked;

pub use counted_scan::{PageEnd, PageLimits};
pub use records::ENTRY_OVERHEAD_BYTES;
pub use tracked::NOTED_BYTES_MAX;

pub(super) use counted_scan::CountedScan;
pub(super) use records::RecordTable;

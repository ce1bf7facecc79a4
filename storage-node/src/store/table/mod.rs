//! Records in memory, in ring order and in the order of their keys, with a limit in bytes: what both
//! stores are made of.
//! One keeps the records in it, the other what it knows of them and where they lie.
//!
//! * `cost`: what a record is taken to cost
//! * `shard`: a part of the records, and where a key stands in it
//! * `key_block`, `key_order`: the keys by their bytes, front-coded; `key_scan`: scans in that order
//! * `tracked`: what changes while a counted scan is under way
//! * `records`: the table, in shards that each have a lock; `builder`: one that is being filled
//! * `puts`: puts of records that are in the table as a whole
//! * `counted_scan`: a count of records and then those very records, page by page

mod builder;
mod cost;
mod counted_scan;
mod key_block;
mod key_order;
mod key_scan;
mod puts;
mod records;
mod shard;
mod tracked;

pub use cost::overhead_bytes;
pub use counted_scan::{PageEnd, PageLimits};
pub use key_order::KeyRange;
pub use tracked::NOTED_BYTES_MAX;

pub(super) use builder::TableBuilder;
pub(super) use counted_scan::CountedScan;
pub(super) use records::RecordTable;

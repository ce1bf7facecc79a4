//! Where a server keeps its records.
//!
//! The contract: of all records put under a key, a store keeps the one with the greatest tag; a
//! put that returned `Ok` is what every later read of the key sees, from any thread, until one
//! with a greater tag; a put that returned an error changed nothing; reads never fail because the
//! store is full. A walk shows records in ring order, by position and then by key: every record
//! that was there when it began, in this version or a later one, exactly once.

mod memory;
mod packed;
mod shard;

pub use memory::{ENTRY_OVERHEAD_BYTES, Full, MemoryStore, Put};
pub use packed::Packed;

//! Where a server keeps its pairs.
//!
//! The contract: a put that returned `Ok` is what every later get of the key sees, from any
//! thread, until the next put; a put that returned an error changed nothing; gets never fail
//! because the store is full.

mod memory;

pub use memory::{ENTRY_OVERHEAD_BYTES, Full, MemoryStore};

//! Values in memory that lie on the disk: those that were put or read of late, within a budget.
//!
//! A value of the log that is not long is one chunk. A long one is kept in chunks as they are read,
//! since whoever reads one block of it reads the next ones. What lies at a place never changes, so
//! nothing in here is ever out of date: the key's place says which version is current.
//!
//! The cache is that of `quick_cache` (Clock-PRO, with S3-FIFO's ghosts): what is read once does not
//! displace what is read again and again.

use std::sync::Arc;

use dkvs_log::Location;
use foldhash::quality::FixedState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// The longest chunk, in bytes, and so the longest value of the log that is kept as a whole.
pub(super) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// What a chunk is taken to cost beyond its bytes: its place in the cache, its share of what the cache
/// remembers of those that went, and what the allocator adds.
const CHUNK_OVERHEAD_BYTES: u64 = 160;

/// A part of the cache has a lock of its own, and room for so many of the longest chunks at least.
const SHARD_CHUNKS_MIN: usize = 16;

const SHARDS_MAX: usize = 64;

/// For the size of what the cache remembers: a guess at the mean chunk, in bytes.
const CHUNK_BYTES_MEAN: usize = 1 << 10;

/// A chunk of a value: its bytes lie beside the count of who has it, so that it is not looked for twice.
/// It keeps nothing else in memory.
pub(super) type Chunk = Arc<[u8]>;

/// Which chunk of which value of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ChunkId {
    location: Location,
    number: u32,
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<ChunkId, Chunk> for ByBytes {
    fn weight(&self, _: &ChunkId, chunk: &Chunk) -> u64 {
        chunk.len() as u64 + CHUNK_OVERHEAD_BYTES
    }
}

/// Chunks of values within a budget.
pub(super) struct ValueCache {
    /// None if there is no budget.
    chunks: Option<Cache<ChunkId, Chunk, ByBytes, FixedState>>,
}

impl ValueCache {
    /// One that takes at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let shards = bytes_max / (SHARD_CHUNKS_MIN * CHUNK_BYTES_MAX);
        let options = OptionsBuilder::new()
            .shards(shards.clamp(1, SHARDS_MAX))
            .weight_capacity(bytes_max as u64)
            .estimated_items_capacity(bytes_max / CHUNK_BYTES_MEAN)
            .build();
        // What lies at a place is the same to all, and nobody chooses places: the seed need not be
        // secret, and simulations repeat themselves.
        let hash = FixedState::default();
        let new =
            |options| Cache::with_options(options, ByBytes, hash, DefaultLifecycle::default());
        let options = options.ok().filter(|_| bytes_max > 0);
        Self {
            chunks: options.map(new),
        }
    }

    /// A chunk, if it is there.
    pub(super) fn chunk(&self, location: Location, number: u32) -> Option<Chunk> {
        self.chunks.as_ref()?.get(&ChunkId { location, number })
    }

    /// Keeps a chunk, which is at most [`CHUNK_BYTES_MAX`] bytes long, if there is room for it.
    pub(super) fn keep(&self, location: Location, number: u32, chunk: impl Into<Chunk>) {
        if let Some(chunks) = &self.chunks {
            let chunk = chunk.into();
            debug_assert!(chunk.len() <= CHUNK_BYTES_MAX);
            chunks.insert(ChunkId { location, number }, chunk);
        }
    }

    /// Forgets the first chunk of what lay at a place. Others go as they are not asked for.
    pub(super) fn forget(&self, location: Location) -> Option<Chunk> {
        let number = 0;
        let removed = self.chunks.as_ref()?.remove(&ChunkId { location, number });
        removed.map(|(_, chunk)| chunk)
    }

    /// Forgets all of what lay at a place.
    pub(super) fn forget_all(&self, location: Location) {
        let Some(chunks) = &self.chunks else {
            return;
        };
        for number in 0..=location.bytes / CHUNK_BYTES_MAX as u32 {
            chunks.remove(&ChunkId { location, number });
        }
    }

    /// What is in it, in bytes, overhead included.
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.as_ref().map_or(0, Cache::weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> Location {
        Location {
            segment: 1,
            offset,
            bytes: 100,
        }
    }

    #[test]
    fn it_keeps_what_it_is_given_within_its_budget() {
        let cache = ValueCache::new(4 << 20);
        for offset in 0..1_000 {
            cache.keep(at(offset), 0, vec![offset as u8; 10_000]);
            assert!(cache.bytes() <= 4 << 20);
        }
        assert!(cache.bytes() > 2 << 20, "{}", cache.bytes());
        let there = (0..1_000).filter_map(|offset| Some((offset, cache.chunk(at(offset), 0)?)));
        let there: Vec<(u32, Chunk)> = there.collect();
        assert!(there.len() > 200);
        for (offset, chunk) in there {
            assert_eq!(*chunk, vec![offset as u8; 10_000]);
        }
    }

    #[test]
    fn a_chunk_is_found_by_its_place_and_number_alone_and_forgotten() {
        let cache = ValueCache::new(1 << 20);
        cache.keep(at(1), 0, *b"first");
        cache.keep(at(1), 1, *b"second");
        assert_eq!(*cache.chunk(at(1), 1).unwrap(), *b"second");
        assert_eq!(cache.chunk(at(2), 0), None);
        let longer = Location {
            bytes: 101,
            ..at(1)
        };
        assert_eq!(cache.chunk(longer, 0), None);
        assert_eq!(*cache.forget(at(1)).unwrap(), *b"first");
        assert_eq!(cache.chunk(at(1), 0), None);
        let long = Location {
            bytes: 2 * CHUNK_BYTES_MAX as u32,
            ..at(1)
        };
        for number in 0..3 {
            cache.keep(long, number, *b"chunk");
        }
        cache.forget_all(long);
        assert!((0..3).all(|number| cache.chunk(long, number).is_none()));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let cache = ValueCache::new(0);
        cache.keep(at(1), 0, *b"first");
        assert_eq!((cache.chunk(at(1), 0), cache.bytes()), (None, 0));
    }
}

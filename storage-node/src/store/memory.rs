//! The memory store: a hash table in shards, each behind its own lock, with a limit in bytes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, Record};
use dkvs_common::tag::Tag;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use thiserror::Error;

use super::packed::Packed;

/// What a record is taken to cost beyond its packed bytes: its place in the table and what the
/// allocator adds.
pub const ENTRY_OVERHEAD_BYTES: usize = 56;

const SHARDS: usize = 64;

/// The store has no room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the store is full: {record_bytes} bytes more would exceed its limit of {bytes_max} bytes")]
pub struct Full {
    /// What the record would have taken, beyond what it replaces.
    pub record_bytes: usize,
    /// The store's limit.
    pub bytes_max: usize,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The store holds the record, or held it before.
    Stored,
    /// The store holds a newer one, with this tag.
    Superseded(Tag),
}

/// Records in memory, lost with the process.
pub struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    bytes: AtomicUsize,
    bytes_max: usize,
}

type Shard = HashTable<Packed>;

impl MemoryStore {
    /// An empty store that holds at most `bytes_max` bytes of packed records and
    /// [`ENTRY_OVERHEAD_BYTES`] for each.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            bytes: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// Shows the record of a key, if there is one. The key's shard is locked meanwhile.
    pub fn read<R>(&self, key: &Key, show: impl FnOnce(&Packed) -> R) -> Option<R> {
        let hash = self.hash(key.as_bytes());
        let shard = self.shard(hash);
        shard
            .find(hash, |held| held.key() == key.as_bytes())
            .map(show)
    }

    /// Stores a record, unless one with the same or a greater tag is there. One that is no
    /// longer than the record it replaces always fits.
    pub fn put(&self, key: &Key, record: &Record) -> Result<Put, Full> {
        let newer = |held: Tag| {
            if held < record.tag {
                Ok(record.clone())
            } else {
                Err(held)
            }
        };
        match self.replace(key, &record.content, newer)? {
            Ok(()) => Ok(Put::Stored),
            Err(held) if held == record.tag => Ok(Put::Stored),
            Err(held) => Ok(Put::Superseded(held)),
        }
    }

    /// Stores `content` under a tag that `mint` makes greater than the one it is given: that of
    /// the record that is there, or [`Tag::ZERO`]. Gives the error of `mint` if that fails.
    pub fn put_next<E>(
        &self,
        key: &Key,
        content: &Content,
        mint: impl FnOnce(Tag) -> Result<Tag, E>,
    ) -> Result<Result<(), E>, Full> {
        let record = |held| mint(held).map(|tag| Record::new(key, tag, content.clone()));
        self.replace(key, content, record)
    }

    /// Every key with its value, shard by shard, in no order. A put that runs meanwhile is in it
    /// or not.
    pub fn pairs(&self) -> Vec<(Key, Value)> {
        let mut pairs = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let values = shard.iter().filter(|held| !held.is_tombstone());
            pairs.extend(values.filter_map(|held| {
                let key = Key::new(Bytes::copy_from_slice(held.key())).ok()?;
                let value = Value::new(Bytes::copy_from_slice(held.value())).ok()?;
                Some((key, value))
            }));
        }
        pairs
    }

    /// How many records it holds, tombstones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its records take, overhead included; never more than the limit.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Puts what `record` makes of the tag that is there in its place, if it makes anything.
    fn replace<E>(
        &self,
        key: &Key,
        content: &Content,
        record: impl FnOnce(Tag) -> Result<Record, E>,
    ) -> Result<Result<(), E>, Full> {
        let hash = self.hash(key.as_bytes());
        let mut shard = self.shard(hash);
        let bytes = Packed::bytes_of(key, content);
        let entry = shard.entry(
            hash,
            |held| held.key() == key.as_bytes(),
            |held| self.hash(held.key()),
        );
        match entry {
            Entry::Occupied(mut entry) => {
                let record = match record(entry.get().tag()) {
                    Ok(record) => record,
                    Err(error) => return Ok(Err(error)),
                };
                let held = entry.get().bytes();
                if bytes > held {
                    self.take_room(bytes - held)?;
                } else {
                    self.bytes.fetch_sub(held - bytes, Ordering::Relaxed);
                }
                *entry.get_mut() = Packed::new(key, &record);
            }
            Entry::Vacant(entry) => {
                let record = match record(Tag::ZERO) {
                    Ok(record) => record,
                    Err(error) => return Ok(Err(error)),
                };
                self.take_room(bytes + ENTRY_OVERHEAD_BYTES)?;
                entry.insert(Packed::new(key, &record));
            }
        }
        Ok(Ok(()))
    }

    fn take_room(&self, record_bytes: usize) -> Result<(), Full> {
        let bytes_max = self.bytes_max;
        let grown = |bytes: usize| {
            bytes
                .checked_add(record_bytes)
                .filter(|sum| *sum <= bytes_max)
        };
        self.bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .map(|_| ())
            .map_err(|_| Full {
                record_bytes,
                bytes_max,
            })
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table itself uses the lowest and the highest bits.
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }
}

/// A panic while a shard was locked leaves no shard half changed, so its poison says nothing.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::record::ContentType;

    /// What a pair of a one-byte key and an empty value takes.
    const SMALLEST: usize = 24 + 1 + ENTRY_OVERHEAD_BYTES;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn content(value: &str) -> Content {
        Content::Value {
            content_type: ContentType::default(),
            value: Value::new(value.to_owned()).unwrap(),
        }
    }

    fn put(store: &MemoryStore, name: &str, time: u64, value: &str) -> Result<Put, Full> {
        let key = key(name);
        let record = Record::new(&key, Tag { time, op: 0 }, content(value));
        store.put(&key, &record)
    }

    fn value(store: &MemoryStore, name: &str) -> Option<String> {
        let text = |held: &Packed| String::from_utf8(held.value().to_vec()).unwrap();
        store.read(&key(name), text)
    }

    #[test]
    fn the_greatest_tag_stays_whatever_the_order() {
        let store = MemoryStore::new(usize::MAX);
        let superseded = |time| Ok(Put::Superseded(Tag { time, op: 0 }));
        assert_eq!(put(&store, "k", 5, "five"), Ok(Put::Stored));
        assert_eq!(put(&store, "k", 4, "four"), superseded(5));
        assert_eq!(put(&store, "k", 5, "five"), Ok(Put::Stored));
        assert_eq!(value(&store, "k").as_deref(), Some("five"));
        assert_eq!(put(&store, "k", 6, ""), Ok(Put::Stored));
        assert_eq!(value(&store, "k").as_deref(), Some(""));
        assert_eq!(put(&store, "k", 5, "five"), superseded(6));
    }

    #[test]
    fn the_next_tag_is_made_from_the_one_that_is_there() {
        let store = MemoryStore::new(usize::MAX);
        put(&store, "k", 5, "v").unwrap();
        let mint = |held: Tag| {
            Ok::<_, ()>(Tag {
                time: held.time + 1,
                op: 9,
            })
        };
        assert_eq!(store.put_next(&key("k"), &content("w"), mint), Ok(Ok(())));
        assert_eq!(
            store.read(&key("k"), Packed::tag),
            Some(Tag { time: 6, op: 9 })
        );
        let refused = store.put_next(&key("k"), &content("x"), |_| Err("no"));
        assert_eq!(refused, Ok(Err("no")));
        assert_eq!(value(&store, "k").as_deref(), Some("w"));
    }

    #[test]
    fn the_bytes_follow_what_is_stored() {
        let store = MemoryStore::new(usize::MAX);
        put(&store, "k", 1, "four").unwrap();
        assert_eq!(store.bytes(), SMALLEST + 4);
        put(&store, "k", 2, "").unwrap();
        assert_eq!(store.bytes(), SMALLEST);
        put(&store, "k", 3, "longer").unwrap();
        assert_eq!(store.bytes(), SMALLEST + 6);
        assert_eq!(store.pairs(), [(key("k"), Value::new("longer").unwrap())]);
        let tombstone = Record::new(&key("k"), Tag { time: 4, op: 0 }, Content::Tombstone);
        store.put(&key("k"), &tombstone).unwrap();
        assert_eq!((store.bytes(), store.len()), (SMALLEST, 1));
        assert!(store.pairs().is_empty());
    }

    #[test]
    fn a_full_store_refuses_what_does_not_fit_and_serves_the_rest() {
        let store = MemoryStore::new(2 * (SMALLEST + 1) + 1);
        put(&store, "a", 1, "1").unwrap();
        put(&store, "b", 1, "2").unwrap();
        assert_eq!(
            put(&store, "c", 1, "3").unwrap_err().record_bytes,
            SMALLEST + 1
        );
        assert_eq!(put(&store, "b", 2, "222").unwrap_err().record_bytes, 2);
        assert_eq!(value(&store, "b").as_deref(), Some("2"));
        assert_eq!(value(&store, "c"), None);

        put(&store, "b", 3, "22").unwrap();
        assert!(put(&store, "a", 2, "11").is_err());
        put(&store, "b", 4, "x").unwrap();
        put(&store, "a", 3, "11").unwrap();
        let tombstone = Record::new(&key("a"), Tag { time: 9, op: 0 }, Content::Tombstone);
        assert_eq!(store.put(&key("a"), &tombstone), Ok(Put::Stored));
    }

    #[test]
    fn many_threads_never_exceed_the_limit_nor_lose_count() {
        let store = MemoryStore::new(500 * (SMALLEST + 8));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..2_000 {
                        let name = format!("{:04}", (number * 7 + thread) % 1_000);
                        let _ = put(store, &name, number, &"v".repeat(number as usize % 8));
                        assert!(store.bytes() <= store.bytes_max);
                    }
                });
            }
        });
        let counted: usize = store
            .pairs()
            .iter()
            .map(|(key, value)| SMALLEST - 1 + key.as_bytes().len() + value.len())
            .sum();
        assert_eq!(store.bytes(), counted);
        assert!(store.len() >= 500);
    }
}

//! The memory store: a hash table in shards, each behind its own lock, with a limit in bytes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use thiserror::Error;

/// What a pair is taken to cost beyond the bytes of its key and value: its place in the table
/// and what the allocator adds.
pub const ENTRY_OVERHEAD_BYTES: usize = 160;

const SHARDS: usize = 64;

/// The store has no room for a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the store is full: {pair_bytes} bytes more would exceed its limit of {bytes_max} bytes")]
pub struct Full {
    /// What the pair would have taken, beyond what it replaces.
    pub pair_bytes: usize,
    /// The store's limit.
    pub bytes_max: usize,
}

/// Pairs in memory, lost with the process.
pub struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    bytes: AtomicUsize,
    bytes_max: usize,
}

type Shard = HashTable<(Key, Value)>;

impl MemoryStore {
    /// An empty store that holds at most `bytes_max` bytes of keys, values and
    /// [`ENTRY_OVERHEAD_BYTES`] per pair.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            bytes: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Key) -> Option<Value> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash);
        shard
            .find(hash, |(held, _)| held == key)
            .map(|(_, value)| value.clone())
    }

    /// Stores a pair, in place of the key's former value if there is one. When the store is full
    /// nothing changes; a value that is no longer than the former one always fits.
    pub fn put(&self, key: &Key, value: &Value) -> Result<(), Full> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let entry = shard.entry(
            hash,
            |(held, _)| held == key,
            |(held, _)| self.hasher.hash_one(held),
        );
        match entry {
            Entry::Occupied(mut entry) => {
                let held = &mut entry.get_mut().1;
                if value.len() > held.len() {
                    self.take_room(value.len() - held.len())?;
                } else {
                    let freed = held.len() - value.len();
                    self.bytes.fetch_sub(freed, Ordering::Relaxed);
                }
                *held = own_value(value);
            }
            Entry::Vacant(entry) => {
                self.take_room(key.as_bytes().len() + value.len() + ENTRY_OVERHEAD_BYTES)?;
                entry.insert((own_key(key), own_value(value)));
            }
        }
        Ok(())
    }

    /// Every pair, shard by shard, in no order. A put that runs meanwhile is in it or not.
    pub fn pairs(&self) -> Vec<(Key, Value)> {
        let mut pairs = Vec::new();
        for shard in &self.shards {
            pairs.extend(lock(shard).iter().cloned());
        }
        pairs
    }

    /// How many pairs it holds.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether it holds no pair.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its pairs take, overhead included; never more than the limit.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take_room(&self, pair_bytes: usize) -> Result<(), Full> {
        let bytes_max = self.bytes_max;
        let grown = |bytes: usize| {
            bytes
                .checked_add(pair_bytes)
                .filter(|sum| *sum <= bytes_max)
        };
        self.bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .map(|_| ())
            .map_err(|_| Full {
                pair_bytes,
                bytes_max,
            })
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

/// A copy with an allocation of its own. What arrives is a slice of a datagram, and keeping the
/// slice would keep the datagram.
fn own_key(key: &Key) -> Key {
    Key::new(Bytes::copy_from_slice(key.as_bytes())).expect("a key's length stays valid")
}

/// As [`own_key`].
fn own_value(value: &Value) -> Value {
    Value::new(Bytes::copy_from_slice(value.as_bytes())).expect("a value's length stays valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn value(text: &str) -> Value {
        Value::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_put_replaces_and_the_bytes_follow() {
        let store = MemoryStore::new(usize::MAX);
        assert_eq!(store.get(&key("k")), None);
        store.put(&key("k"), &value("four")).unwrap();
        assert_eq!(store.bytes(), 1 + 4 + ENTRY_OVERHEAD_BYTES);
        store.put(&key("k"), &value("")).unwrap();
        assert_eq!(store.get(&key("k")), Some(value("")));
        assert_eq!(store.bytes(), 1 + ENTRY_OVERHEAD_BYTES);
        store.put(&key("k"), &value("longer")).unwrap();
        assert_eq!(store.bytes(), 1 + 6 + ENTRY_OVERHEAD_BYTES);
        assert_eq!(store.pairs(), [(key("k"), value("longer"))]);
    }

    #[test]
    fn a_full_store_refuses_what_does_not_fit_and_serves_the_rest() {
        let store = MemoryStore::new(2 * (ENTRY_OVERHEAD_BYTES + 2) + 1);
        store.put(&key("a"), &value("1")).unwrap();
        store.put(&key("b"), &value("2")).unwrap();
        let full = store.put(&key("c"), &value("3")).unwrap_err();
        assert_eq!(full.pair_bytes, ENTRY_OVERHEAD_BYTES + 2);
        assert_eq!(
            store.put(&key("b"), &value("222")).unwrap_err().pair_bytes,
            2
        );
        assert_eq!(store.get(&key("b")), Some(value("2")));
        assert_eq!(store.get(&key("c")), None);

        store.put(&key("b"), &value("22")).unwrap();
        assert!(store.put(&key("a"), &value("11")).is_err());
        store.put(&key("b"), &value("x")).unwrap();
        store.put(&key("a"), &value("11")).unwrap();
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn many_threads_never_exceed_the_limit_nor_lose_count() {
        let store = MemoryStore::new(500 * (ENTRY_OVERHEAD_BYTES + 8));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..2_000 {
                        let key = key(&format!("{:04}", (number * 7 + thread) % 1_000));
                        let _ = store.put(&key, &value(&"v".repeat(number % 8)));
                        assert!(store.bytes() <= store.bytes_max);
                    }
                });
            }
        });
        let counted: usize = store
            .pairs()
            .iter()
            .map(|(key, value)| key.as_bytes().len() + value.len() + ENTRY_OVERHEAD_BYTES)
            .sum();
        assert_eq!(store.bytes(), counted);
        assert!(store.len() >= 500);
    }

    #[test]
    fn what_is_kept_does_not_hold_on_to_the_datagram() {
        let store = MemoryStore::new(usize::MAX);
        let datagram = Bytes::from(vec![b'x'; 1_000]);
        let key = Key::new(datagram.slice(..1)).unwrap();
        store
            .put(&key, &Value::new(datagram.slice(2..3)).unwrap())
            .unwrap();
        drop(key);
        assert!(datagram.is_unique());
    }
}

//! A table that is being filled with what a disk holds.
//!
//! The order of keys is made at the end, of all of them at once: in ascending order each is added to the
//! end of a block, where one by one each would be looked for in a block that it changes.

use dkvs_common::tag::Tag;

use super::key_order::KeyOrder;
use super::records::RecordTable;
use crate::store::head::TableEntry;

/// A table whose keys are not in order yet, so that they cannot be listed.
pub(in crate::store) struct TableBuilder<E> {
    table: RecordTable<E>,
}

impl<E: TableEntry> TableBuilder<E> {
    /// An empty one; see [`RecordTable::new`].
    pub(in crate::store) fn new(bytes_max: usize) -> Self {
        let table = RecordTable::new(bytes_max);
        Self { table }
    }

    /// See [`RecordTable::insert`].
    pub(in crate::store) fn insert(&self, entry: E) -> Option<E> {
        self.table.insert_with(entry, |_| {})
    }

    /// Takes out the entry of a key, if there is one.
    pub(in crate::store) fn remove(&self, key: &[u8]) -> Option<E> {
        self.table.remove_with(key, |_| true, |_| {})
    }

    /// The tag of a key, if it has an entry.
    pub(in crate::store) fn tag(&self, key: &[u8]) -> Option<Tag> {
        self.table.read_bytes(key, E::tag)
    }

    /// See [`RecordTable::adjust_all`].
    pub(in crate::store) fn adjust_all(&self, view: impl FnMut(&mut E)) {
        self.table.adjust_all(view);
    }

    /// The table. Meanwhile, each key takes 24 bytes more.
    pub(in crate::store) fn build(mut self) -> RecordTable<E> {
        let mut keys = Vec::with_capacity(self.table.len());
        for shard in self.table.shards_mut() {
            keys.extend(shard.iter().map(|held| Sorted::new(held.key())));
        }
        sort(&mut keys, 0);
        let order = KeyOrder::of_ascending(keys.into_iter().map(|it| it.key));
        self.table.set_key_order(order);
        self.table
    }
}

/// A key, and eight of its bytes, so that most keys are compared without being looked at.
struct Sorted<'a> {
    key: &'a [u8],
    bytes: u64,
}

/// So many keys or fewer are compared whole.
const COMPARED_MAX: usize = 16;

impl<'a> Sorted<'a> {
    fn new(key: &'a [u8]) -> Self {
        Self { key, bytes: 0 }
    }

    /// Looks at the eight bytes from an offset on, as far as there are so many.
    fn look(&mut self, at: usize) {
        let rest = self.key.get(at..).unwrap_or_default();
        self.bytes = match rest.first_chunk() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => {
                let mut bytes = [0; 8];
                bytes[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(bytes)
            }
        };
    }
}

/// Sorts keys whose bytes before this offset are the same.
fn sort(keys: &mut [Sorted<'_>], at: usize) {
    // A key that ends in these bytes is not told from one that goes on with zeros.
    let ends_here = |it: &Sorted<'_>| it.key.len() < at + 8;
    keys.iter_mut().for_each(|it| it.look(at));
    keys.sort_unstable_by_key(|it| it.bytes);
    for alike in keys.chunk_by_mut(|one, other| one.bytes == other.bytes) {
        match alike {
            [_] => {}
            alike if alike.len() <= COMPARED_MAX || alike.iter().any(ends_here) => {
                alike.sort_unstable_by_key(|it| it.key);
            }
            alike => sort(alike, at + 8),
        }
    }
}

//! What a record is taken to cost in memory, beside its packed bytes.
//!
//! Bounds, not means, so that a limit in bytes holds whatever the keys are.

/// What a record with a key of so many bytes is taken to cost beyond its packed bytes: its places in
/// the two orders. With the 24 bytes that packing adds, a pair costs 104 bytes, its key once more and
/// a seventh of that beyond its own bytes: 126 with a key of 20.
pub const fn overhead_bytes(key_bytes: usize) -> usize {
    PLACE_BYTES + key_order_bytes(key_bytes)
}

/// What a record is taken to cost for its place in a shard, and for what the allocator adds to it.
///
/// A tree's node has room for 11 slots of 16 bytes and as many prefixes of 4; all but the root have 5
/// or more, also after removals. A leaf takes 240 bytes of the allocator, an inner node 336. At the
/// worst there are 6 records for each leaf and 6 leaves for each inner node: 52 bytes a record. The
/// packed bytes are rounded up to 16 with a header of 8: 23 more. With the positions of ordinary keys
/// it is about 38 and 16.
///
/// Not in it: up to 80 KB for an empty table and the roots of its trees; up to 13 bytes for each of
/// two keys with the same shard and prefix, one pair in 2^40; and up to 4 KiB for packed bytes of
/// more than 128 KiB, which the allocator may take from the system in whole pages.
pub(super) const PLACE_BYTES: usize = 76;

/// What a key of so many bytes is taken to cost in the order of keys.
///
/// A key takes no more than its bytes and 2 for two lengths: 3 from 128 bytes on, 4 from 16,384 on.
/// A block takes 126 bytes beside its keys: a place in a tree with two slots of 16 bytes, of which a
/// leaf has at the worst 6 for 384 bytes of the allocator and an inner node 6 leaves for 480, which
/// makes 80; and up to 23 for each of two allocations. Two neighbours together have more than 1,792
/// bytes of keys, or they would have been merged, so blocks cost at most 252 bytes for each 1,792:
/// less than a seventh.
///
/// Keys that begin alike take far less.
///
/// Not in it: one block, which may have no neighbour.
pub(super) const fn key_order_bytes(key_bytes: usize) -> usize {
    key_bytes + key_bytes / 7 + 4
}

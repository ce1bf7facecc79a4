//! The datagrams that servers and their clients exchange.
//!
//! A decoder here is total: any bytes give a message or a typed error, never a panic, and never
//! an allocation larger than the datagram itself.

mod batch;
pub mod v1;
pub mod v2;

use bytes::Bytes;

pub use batch::BatchSize;

/// The datagrams that the system joined when they arrived: all of `stride` bytes, but for a
/// shorter one at the end. An empty one comes by itself.
pub fn split_joined(joined: &Bytes, stride: usize) -> impl Iterator<Item = Bytes> {
    let stride = stride.max(1);
    let count = joined.len().div_ceil(stride).max(1);
    (0..count).map(move |number| {
        let start = number * stride;
        joined.slice(start..joined.len().min(start + stride))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_datagrams_are_told_apart_and_an_empty_one_is_one() {
        let parts = |bytes: &'static [u8], stride| -> Vec<Bytes> {
            split_joined(&Bytes::from_static(bytes), stride).collect()
        };
        assert_eq!(parts(b"aabbc", 2), ["aa", "bb", "c"]);
        assert_eq!(parts(b"aabb", 2), ["aa", "bb"]);
        assert_eq!(parts(b"aa", 2), ["aa"]);
        assert_eq!(parts(b"a", 2), ["a"]);
        assert_eq!(parts(b"", 0), [""]);
    }
}

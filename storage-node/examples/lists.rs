//! What the order of keys costs a store in memory, and what lists cost with it: for decision 030.
//!
//! ```sh
//! cargo run --release -p dkvs-storage-node --example lists -- 1000000
//! ```

use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use dkvs_common::kv::Key;
use dkvs_common::model::Direction;
use dkvs_common::record::{Content, Record};
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::{KeyRange, MemoryStore, RecordStore as _};

/// Times of which the median is shown.
const ROUNDS: usize = 101;

fn main() {
    let keys = std::env::args().nth(1);
    let keys: u64 = keys.map_or(1_000_000, |keys| keys.parse().expect("a number of keys"));
    let store = MemoryStore::new(usize::MAX);
    let started = Instant::now();
    for number in 0..keys {
        // Neither up nor down.
        let number = number.wrapping_mul(7_919) % keys;
        let key = format!("user/{number:08}/profile");
        let key = Key::new(key).expect("it is short");
        let record = Record::new(&key, Tag { time: 1, op: 1 }, Content::Tombstone);
        let put = store.apply(&key, &record, || Box::new(drop));
        assert!(put.is_some_and(|put| put.is_ok()), "it has no limit");
    }
    let each = started.elapsed() / u32::try_from(keys).unwrap_or(u32::MAX);
    println!(
        "put of a new key: {each:?}; {} bytes are counted",
        store.bytes()
    );
    let some = format!("user/{:08}", keys / 2);
    for (what, from, to, direction) in [
        (
            "a prefix of no keys, before all",
            "a",
            "b",
            Direction::Ascending,
        ),
        (
            "a prefix of no keys, amid all",
            "user/00000001/x",
            "user/00000001/y",
            Direction::Ascending,
        ),
        ("one key", some.as_str(), "v", Direction::Ascending),
        ("100 keys", some.as_str(), "v", Direction::Ascending),
        (
            "100 keys, reversed",
            "a",
            some.as_str(),
            Direction::Descending,
        ),
        ("1,000 keys", some.as_str(), "v", Direction::Ascending),
    ] {
        let limit = match what.split([' ', ',']).next() {
            Some("one") => 1,
            Some("100") => 100,
            _ => 1_000,
        };
        let range: KeyRange<'_> = (
            Bound::Included(from.as_bytes()),
            Bound::Excluded(to.as_bytes()),
        );
        let mut times: Vec<_> = (0..ROUNDS)
            .map(|_| list(&store, range, direction, limit))
            .collect();
        times.sort_unstable();
        let (time, listed) = times[ROUNDS / 2];
        println!("{what}: {time:?}, {listed} listed");
    }
}

/// How long a scan takes, and how many keys it has.
fn list(
    store: &MemoryStore,
    range: KeyRange<'_>,
    direction: Direction,
    limit: usize,
) -> (std::time::Duration, usize) {
    let (started, mut listed) = (Instant::now(), 0);
    store.scan_keys(range, direction, |_| {
        listed += 1;
        match listed == limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    (started.elapsed(), listed)
}

//! What the clients and the nemesis share: where the gateways are, which keys are hot, the clock
//! of the history, and whether it is over.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dkvs_common::tag::Tag;

use super::level::Level;
use crate::random::Random;

/// Keys in use at a time.
const HOT_KEYS: usize = 5;

/// How many requests a key gets before another takes its place. It sees several faults until then,
/// and every fault meets a key that was never written.
const REQUESTS_OF_KEY: u32 = 600;

/// How much further ahead each tag of [`Stage::mint_ahead`] is than the one before, and how many
/// there are: gateways take none from beyond a day.
const AHEAD_MS: u64 = 60_000;
const AHEAD_TAGS_MAX: u64 = 1_000;

/// See the module.
pub(super) struct Stage {
    pub(super) level: Level,
    /// Where each gateway listens; changes when it is replaced.
    gateways: Vec<Mutex<SocketAddr>>,
    /// How often a key was drawn, by the place that it has among those in use.
    draws: [AtomicU32; HOT_KEYS],
    begun: Instant,
    values: AtomicU64,
    tags: AtomicU64,
    answered: AtomicU64,
    repeated: AtomicU64,
    is_over: AtomicBool,
}

impl Stage {
    pub(super) fn new(level: Level, gateways: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            level,
            gateways: gateways.into_iter().map(Mutex::new).collect(),
            draws: Default::default(),
            begun: Instant::now(),
            values: AtomicU64::new(0),
            tags: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// How many gateways there are.
    pub(super) fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// The URL of a key at a gateway.
    pub(super) fn url(&self, gateway: usize, key: u32, query: &str) -> String {
        let addr = *self.gateways[gateway].lock().unwrap();
        let level = self.level.name();
        let name = Self::name_of(key);
        format!("http://{addr}/kv/{name}?consistency={level}&{query}")
    }

    /// What a key of the history is called in the cluster.
    pub(super) fn name_of(key: u32) -> String {
        format!("chaos-{key}")
    }

    /// A gateway is somewhere else now.
    pub(super) fn move_gateway(&self, gateway: usize, addr: SocketAddr) {
        *self.gateways[gateway].lock().unwrap() = addr;
    }

    /// One of the keys in use.
    pub(super) fn draw_key(&self, random: &mut Random) -> u32 {
        let place = random.below(HOT_KEYS);
        let draws = self.draws[place].fetch_add(1, Ordering::Relaxed);
        draws / REQUESTS_OF_KEY * HOT_KEYS as u32 + place as u32
    }

    /// A value that was not written before.
    pub(super) fn next_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A tag as a gateway mints it whose clock is ahead, the further the more of them there were.
    /// It is greater than all that were minted anywhere: the clocks of gateways are behind it, or
    /// have seen one that came before it.
    pub(super) fn mint_ahead(&self, op: u64) -> Option<Tag> {
        let number = self.tags.fetch_add(1, Ordering::Relaxed) + 1;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let unix_ms = since_epoch.as_millis() as u64 + number * AHEAD_MS;
        let time = unix_ms << (u64::BITS - 48);
        (number <= AHEAD_TAGS_MAX).then_some(Tag { time, op })
    }

    /// Nanoseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// An operation has ended, however it did.
    pub(super) fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// How many operations have ended.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// A write was sent again under its own tag.
    pub(super) fn count_repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// How many times that was done.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// No operation is to begin any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use dkvs_common::tag::AHEAD_MS_MAX;

    #[test]
    fn a_few_keys_are_in_use_at_a_time_and_each_gives_way_to_another() {
        let stage = Stage::new(Level::Agreement, []);
        let mut random = Random::new(1);
        let mut requests: BTreeMap<u32, u32> = BTreeMap::new();
        for _ in 0..20_000 {
            *requests.entry(stage.draw_key(&mut random)).or_default() += 1;
        }
        assert!((30..40).contains(&requests.len()), "{requests:?}");
        assert!(requests.values().all(|count| *count <= REQUESTS_OF_KEY));
        let full = requests.values().filter(|count| **count == REQUESTS_OF_KEY);
        assert_eq!(full.count(), requests.len() - HOT_KEYS);
    }

    #[test]
    fn tags_from_ahead_grow_and_end_within_a_day() {
        let stage = Stage::new(Level::Linearizable, []);
        let tags: Vec<Tag> = (0..)
            .map_while(|number| stage.mint_ahead(u64::MAX - number))
            .collect();
        assert_eq!(tags.len() as u64, AHEAD_TAGS_MAX);
        assert!(tags.is_sorted());
        let span_ms = tags.last().unwrap().unix_ms() - tags[0].unix_ms();
        assert!(span_ms + AHEAD_MS < AHEAD_MS_MAX, "{span_ms}");
    }
}

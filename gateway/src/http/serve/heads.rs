//! The memory that long heads of requests take, of all connections of a worker together.
//!
//! The first part of each head is in what every connection may take anyway ([`HEAD_BYTES_FREE`]). What
//! goes beyond it is taken from here, step by step as it arrives, and belongs to the connection until
//! its end, since its buffer does not shrink. No peer has more than its share.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkvs_client::ByCaller;

use super::clock::Phase;
use super::occupant::Occupant;
use crate::http::counts::Counts;

/// The bytes of a head that are not counted here.
pub(super) const HEAD_BYTES_FREE: usize = 8 << 10;

/// Memory for the rest of all heads that have arrived in part, per worker.
pub const LONG_HEADS_BYTES_MAX: usize = 16 << 20;

/// What is taken of it at a time.
const STEP: usize = 16 << 10;

/// How many turns of the worker a head waits for connections to go.
const WAITS_MAX: u32 = 8;

/// The part of the memory that is kept free for newcomers, if connections can be closed for it: one of
/// so many.
const RESERVE: usize = 4;

/// The part of the memory that one peer may have: one of so many.
const PEERS_AT_LEAST: usize = 4;

/// The memory for long heads of one worker.
pub(super) struct LongHeads {
    bytes_max: usize,
    taken: Mutex<Taken>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    by_peer: ByCaller,
    /// The connections that have some of it, by their numbers.
    holders: BTreeMap<u64, Holder>,
}

struct Holder {
    occupant: Arc<Occupant>,
    bytes: usize,
}

/// There is no memory for more of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Connections are going that have some.
    Yet,
    /// The request is to be refused.
    ForThis,
}

impl LongHeads {
    /// Memory of which nothing is taken. `counts` show what is.
    pub(super) fn new(bytes_max: usize, counts: Arc<Counts>) -> Self {
        counts
            .long_head_bytes_max
            .store(bytes_max as u64, Ordering::Relaxed);
        Self {
            bytes_max,
            taken: Mutex::default(),
            counts,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step for a connection. When its peer has its share, the one of the peer's connections goes
    /// that has been idle for longest. When most of the memory is taken, the connection goes that has
    /// been silent for longest among those of the peer that has most.
    fn take(&self, occupant: &Arc<Occupant>) -> Result<(), NoRoom> {
        let mut taken = self.taken();
        let of_peer = taken.by_peer.held(occupant.peer());
        let share = self.bytes_max / PEERS_AT_LEAST;
        if of_peer + STEP > share {
            return Err(match taken.evict_idle(occupant, of_peer + STEP - share) {
                true => NoRoom::Yet,
                false => NoRoom::ForThis,
            });
        }
        let reserve = self.bytes_max / RESERVE;
        if taken.bytes + STEP > self.bytes_max - reserve {
            taken.evict(occupant, self.bytes_max - reserve);
        }
        if taken.bytes + STEP > self.bytes_max {
            return Err(NoRoom::Yet);
        }
        taken.bytes += STEP;
        self.show(&taken);
        taken.by_peer.add(occupant.peer(), STEP);
        let holder = || Holder {
            occupant: Arc::clone(occupant),
            bytes: 0,
        };
        let holder = taken.holders.entry(occupant.id()).or_insert_with(holder);
        holder.bytes += STEP;
        Ok(())
    }

    fn show(&self, taken: &Taken) {
        let level = &self.counts.long_head_bytes;
        level.store(taken.bytes as u64, Ordering::Relaxed);
    }

    fn give_back(&self, occupant: &Occupant, bytes: usize) {
        let mut taken = self.taken();
        taken.bytes = taken.bytes.saturating_sub(bytes);
        self.show(&taken);
        taken.by_peer.subtract(occupant.peer(), bytes);
        taken.holders.remove(&occupant.id());
    }
}

impl Taken {
    /// Asks an idle connection of the same peer to go, unless those that are going give back `bytes`
    /// already. Returns whether memory will come back.
    fn evict_idle(&self, newcomer: &Occupant, bytes: usize) -> bool {
        let others = self.holders.values().filter(|it| {
            it.occupant.peer() == newcomer.peer() && it.occupant.id() != newcomer.id()
        });
        let going = others.clone().filter(|it| it.occupant.is_going());
        if going.map(|it| it.bytes).sum::<usize>() >= bytes {
            return true;
        }
        let idle = others
            .map(|it| &it.occupant)
            .filter(|it| it.can_be_evicted() && it.reading().phase == Phase::Idle);
        let longest = idle.min_by_key(|it| (it.reading().since, it.id()));
        longest.inspect(|it| it.evict()).is_some()
    }

    /// Asks a connection to go, if no more than `bytes_max` is to be left with the step for `newcomer`,
    /// and too few are going already.
    fn evict(&self, newcomer: &Occupant, bytes_max: usize) {
        let others = self.holders.values();
        let others = others.filter(|it| it.occupant.id() != newcomer.id());
        let going = others.clone().filter(|it| it.occupant.is_going());
        let going: usize = going.map(|it| it.bytes).sum();
        if self.bytes + STEP <= bytes_max + going {
            return;
        }
        let of_peer = |it: &Occupant| self.by_peer.held(it.peer());
        let oldest = |it: &Occupant| Reverse((it.reading().since, it.id()));
        let silent = others
            .map(|it| &it.occupant)
            .filter(|it| it.can_be_evicted());
        if let Some(first) = silent.max_by_key(|it| (of_peer(it), oldest(it))) {
            first.evict();
        }
    }
}

/// What a connection has of the memory for long heads.
pub(super) struct HeadMemory {
    heads: Arc<LongHeads>,
    occupant: Arc<Occupant>,
    taken: usize,
    /// Bytes of the head that is arriving.
    arrived: usize,
    /// How often it has waited for room.
    waits: u32,
}

impl HeadMemory {
    pub(super) fn new(heads: Arc<LongHeads>, occupant: Arc<Occupant>) -> Self {
        Self {
            heads,
            occupant,
            taken: 0,
            arrived: 0,
            waits: 0,
        }
    }

    /// A head begins.
    pub(super) fn begin(&mut self) {
        self.arrived = 0;
    }

    /// How many more bytes of the head may arrive now.
    pub(super) fn room(&mut self) -> Result<usize, NoRoom> {
        if self.arrived >= HEAD_BYTES_FREE + self.taken {
            match self.heads.take(&self.occupant) {
                Ok(()) => self.waits = 0,
                Err(NoRoom::Yet) if self.waits < WAITS_MAX => {
                    self.waits += 1;
                    return Err(NoRoom::Yet);
                }
                Err(_) => {
                    let refused = &self.heads.counts.heads_refused;
                    refused.fetch_add(1, Ordering::Relaxed);
                    return Err(NoRoom::ForThis);
                }
            }
            self.taken += STEP;
        }
        Ok(HEAD_BYTES_FREE + self.taken - self.arrived)
    }

    /// So many have arrived.
    pub(super) fn record(&mut self, bytes: usize) {
        self.arrived += bytes;
    }
}

impl Drop for HeadMemory {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.heads.give_back(&self.occupant, self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dkvs_client::CallerId;

    use super::super::clock::Clock;
    use super::*;

    /// A connection in the middle of its head.
    fn head(heads: &Arc<LongHeads>, id: u64, peer: &str) -> HeadMemory {
        let clock = Clock::new(Instant::now(), Duration::from_secs(60));
        clock.enter(Phase::Head);
        let peer = CallerId::of_address(peer.parse().unwrap());
        HeadMemory::new(Arc::clone(heads), Arc::new(Occupant::new(id, peer, clock)))
    }

    fn heads() -> (Arc<LongHeads>, Arc<Counts>) {
        let counts = Arc::new(Counts::new());
        (
            Arc::new(LongHeads::new(16 * STEP, Arc::clone(&counts))),
            counts,
        )
    }

    fn steps(counts: &Counts) -> u64 {
        counts.long_head_bytes.load(Ordering::Relaxed) / STEP as u64
    }

    /// Lets so many bytes arrive, one piece after the other.
    fn grow(head: &mut HeadMemory, bytes: usize) -> Result<(), NoRoom> {
        let mut left = bytes;
        while left > 0 {
            let more = head.room()?.min(left);
            head.record(more);
            left -= more;
        }
        Ok(())
    }

    #[test]
    fn short_heads_take_nothing_and_long_ones_what_they_have_until_the_end() {
        let (heads, counts) = heads();
        let mut one = head(&heads, 1, "192.0.2.1");
        for _ in 0..100 {
            one.begin();
            grow(&mut one, HEAD_BYTES_FREE).unwrap();
        }
        assert_eq!(steps(&counts), 0);
        one.begin();
        grow(&mut one, HEAD_BYTES_FREE + 1).unwrap();
        assert_eq!(steps(&counts), 1);
        // The next head has the memory of the one before.
        one.begin();
        grow(&mut one, HEAD_BYTES_FREE + STEP).unwrap();
        assert_eq!(steps(&counts), 1);
        drop(one);
        assert_eq!(steps(&counts), 0);
        assert_eq!(counts.heads_refused.load(Ordering::Relaxed), 0);
        assert!(heads.taken().by_peer.is_empty() && heads.taken().holders.is_empty());
    }

    #[test]
    fn no_peer_has_more_than_its_share_and_nobody_more_than_there_is() {
        let (heads, counts) = heads();
        let mut all: Vec<_> = (0..16).map(|id| head(&heads, id, "192.0.2.1")).collect();
        let long = HEAD_BYTES_FREE + STEP;
        let taken = all.iter_mut().filter_map(|it| grow(it, long).ok());
        assert_eq!(taken.count(), 4);
        assert_eq!(counts.heads_refused.load(Ordering::Relaxed), 12);
        // Another has its own.
        let mut other = head(&heads, 20, "192.0.2.2");
        grow(&mut other, HEAD_BYTES_FREE + 4 * STEP).unwrap();
        assert_eq!(grow(&mut other, 1), Err(NoRoom::ForThis));
        assert_eq!(steps(&counts), 8);
        let network =
            ["2001:db8::1", "2001:db8::2"].map(|peer| Arc::clone(&head(&heads, 21, peer).occupant));
        assert_eq!(network[0].peer(), network[1].peer());
    }

    #[test]
    fn a_peer_at_its_share_loses_connections_that_are_idle_before_it_is_refused() {
        let (heads, counts) = heads();
        let mut all: Vec<_> = (0..4).map(|id| head(&heads, id, "192.0.2.1")).collect();
        for one in &mut all {
            grow(one, HEAD_BYTES_FREE + STEP).unwrap();
        }
        all[2].occupant.clock().enter(Phase::Idle);
        let mut new = head(&heads, 10, "192.0.2.1");
        assert_eq!(grow(&mut new, HEAD_BYTES_FREE + 1), Err(NoRoom::Yet));
        let going = |all: &[HeadMemory]| -> Vec<u64> {
            let going = all.iter().filter(|it| it.occupant.is_going());
            going.map(|it| it.occupant.id()).collect()
        };
        assert_eq!(going(&all), [2]);
        // It waits for that one, and does not ask another.
        all[3].occupant.clock().enter(Phase::Idle);
        assert_eq!(new.room(), Err(NoRoom::Yet));
        assert_eq!(going(&all), [2]);
        drop(all.remove(2));
        assert!(new.room().is_ok());
        assert_eq!(steps(&counts), 4);
    }

    #[test]
    fn when_most_is_taken_who_has_most_loses_the_oldest() {
        let (heads, _) = heads();
        let mut all = Vec::new();
        for (number, peer) in ["192.0.2.1", "192.0.2.2", "192.0.2.3"].iter().enumerate() {
            for at in 0..4 - number as u64 {
                let mut one = head(&heads, 10 * number as u64 + at, peer);
                grow(&mut one, HEAD_BYTES_FREE + STEP).unwrap();
                all.push(one);
            }
        }
        assert!(all.iter().all(|it| it.occupant.can_be_evicted()));
        let mut new = head(&heads, 40, "192.0.2.4");
        grow(&mut new, HEAD_BYTES_FREE + 3 * STEP).unwrap();
        assert!(
            all.iter().all(|it| it.occupant.can_be_evicted()),
            "enough is left"
        );
        grow(&mut new, 1).unwrap();
        let evicted: Vec<_> = all
            .iter()
            .filter(|it| !it.occupant.can_be_evicted())
            .map(|it| it.occupant.id())
            .collect();
        assert_eq!(evicted, [0]);
    }
}

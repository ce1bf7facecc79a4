//! The places for a worker's connections, and who gives one up when all are taken.
//!
//! ```text
//!   accept --> a place is free? --yes--> served
//!                   | no
//!                   v
//!              one of a peer that has more than half of all places is closed for another peer's,
//!              if need be with a request under way
//!                   | there is none
//!                   v
//!              a connection without a request under way is closed, and its place taken
//!                   | there is none
//!                   v
//!              503
//! ```
//!
//! A connection that is idle may be closed at any time (RFC 9112, section 9.5), so those that are
//! silent keep nobody out. Peers that have more than their share of the places lose theirs first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dkvs_client::CallerId;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::clock::{Clock, Phase, Reading};

/// A peer that has no more than one of so many places counts as any other.
const SHARE: usize = 16;

/// A peer that has more than one of so many places loses connections to other peers even while requests
/// are under way.
const HOARD_PART: usize = 2;

/// The silence of a connection that never sent a request counts so many times: callers keep
/// connections on which they were served for the next request.
const NEVER_SERVED_FACTOR: u32 = 8;

/// A response of which nothing is taken for so long is no reason to stay.
pub(super) const STALLED: Duration = Duration::from_secs(10);

/// How many connections are chosen at a time, so that not each newcomer looks at all of them.
const CHOSEN: usize = 32;

/// The part of a worker's time that is spent looking for connections to close while there are none: one
/// of so many.
const LOOK_PART: u32 = 20;

/// How many connections are asked to go for one newcomer, if they turn out to be busy.
const TRIES: usize = 8;

/// How long each of them may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// What a connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ask {
    Stay = 0,
    /// To finish the request under way, if there is one, and end.
    Drain = 1,
    /// To make room.
    Evict = 2,
    /// It had a response under way when it was asked to make room. It ends with that.
    Declined = 3,
    /// To make room, whatever is under way.
    Expel = 4,
}

impl Ask {
    /// Whether it is to make room.
    pub(super) fn is_to_go(self) -> bool {
        matches!(self, Self::Evict | Self::Expel)
    }
}

/// A connection, as its worker knows it.
pub(super) struct Occupant {
    id: u64,
    peer: CallerId,
    clock: Clock,
    ask: AtomicU8,
    /// That of the connection's task.
    waker: AtomicWaker,
}

impl Occupant {
    pub(super) fn new(id: u64, peer: CallerId, clock: Clock) -> Self {
        Self {
            id,
            peer,
            clock,
            ask: AtomicU8::new(Ask::Stay as u8),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn peer(&self) -> CallerId {
        self.peer
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn reading(&self) -> Reading {
        self.clock.read()
    }

    /// What it is asked to do; the task is woken when that changes.
    pub(super) fn poll_ask(&self, context: &mut Context<'_>) -> Ask {
        self.waker.register(context.waker());
        self.ask()
    }

    fn ask(&self) -> Ask {
        match self.ask.load(Ordering::Acquire) {
            0 => Ask::Stay,
            1 => Ask::Drain,
            2 => Ask::Evict,
            3 => Ask::Declined,
            _ => Ask::Expel,
        }
    }

    fn set(&self, ask: Ask) {
        self.ask.store(ask as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it may be asked to make room: no request is under way.
    pub(super) fn can_be_evicted(&self) -> bool {
        let reading = self.reading();
        let is_silent = reading.phase != Phase::Handling;
        match self.ask() {
            Ask::Stay | Ask::Drain => is_silent,
            Ask::Evict | Ask::Expel => false,
            Ask::Declined => is_silent && reading.since.elapsed() >= STALLED,
        }
    }

    /// Whether it was asked to make room, and has not answered.
    pub(super) fn is_going(&self) -> bool {
        self.ask().is_to_go()
    }

    /// Asks it to make room.
    pub(super) fn evict(&self) {
        self.set(Ask::Evict);
    }

    fn drain(&self) {
        if self.ask() == Ask::Stay {
            self.set(Ask::Drain);
        }
    }
}

/// The places of one worker.
pub(super) struct Places {
    places_max: usize,
    taken: Mutex<Taken>,
    /// Told whenever a place becomes free, or a connection that was asked to go stays.
    changed: Notify,
    is_draining: AtomicBool,
}

#[derive(Default)]
struct Taken {
    next: u64,
    occupants: HashMap<u64, Arc<Occupant>>,
    by_peer: HashMap<CallerId, usize>,
    /// Those that go next, the first of them last, as they were when they were chosen.
    chosen: Vec<(u64, Reading)>,
    /// When others are looked for again, after there was none; and for peers that have more than half.
    next_look: [Option<Instant>; 2],
}

/// A place that is taken, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    occupant: Arc<Occupant>,
}

impl Places {
    pub(super) fn new(places_max: usize) -> Self {
        Self {
            places_max,
            taken: Mutex::default(),
            changed: Notify::new(),
            is_draining: AtomicBool::new(false),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this peer; none if all are taken by connections with requests under
    /// way, and no other peer has more than half of them. Waits for a connection that it has asked to go, which takes no longer than that looks
    /// whether a request has arrived.
    pub(super) async fn take(self: &Arc<Self>, peer: CallerId, clock: Clock) -> Option<Place> {
        for _ in 0..=TRIES {
            // From now on, so that nothing is missed; and nothing from before.
            let changed = self.changed.notified();
            {
                let mut taken = self.taken();
                if taken.occupants.len() < self.places_max {
                    return Some(self.occupy(&mut taken, peer, clock));
                }
                let (occupant, ask) = taken.next_to_go(self.places_max, peer)?;
                occupant.set(ask);
            }
            // It answers at once, unless the worker is very busy.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, changed).await;
        }
        None
    }

    /// The same, without asking anybody to go.
    pub(super) fn try_take(self: &Arc<Self>, peer: CallerId, clock: Clock) -> Option<Place> {
        let mut taken = self.taken();
        let is_free = taken.occupants.len() < self.places_max;
        is_free.then(|| self.occupy(&mut taken, peer, clock))
    }

    fn occupy(self: &Arc<Self>, taken: &mut Taken, peer: CallerId, clock: Clock) -> Place {
        let occupant = Arc::new(Occupant::new(taken.next, peer, clock));
        taken.next += 1;
        taken.occupants.insert(occupant.id, Arc::clone(&occupant));
        *taken.by_peer.entry(peer).or_default() += 1;
        if self.is_draining.load(Ordering::Relaxed) {
            occupant.drain();
        }
        Place {
            places: Arc::clone(self),
            occupant,
        }
    }

    /// Asks every connection, also those to come, to end with the request under way.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        for occupant in self.taken().occupants.values() {
            occupant.drain();
        }
    }
}

impl Taken {
    /// The connection that makes room for one of this peer, and how.
    fn next_to_go(
        &mut self,
        places_max: usize,
        newcomer: CallerId,
    ) -> Option<(Arc<Occupant>, Ask)> {
        let kind = usize::from(self.hoards(newcomer, places_max));
        for is_fresh in [false, true] {
            if is_fresh {
                let begun = Instant::now();
                if self.next_look[kind].is_some_and(|at| begun < at) {
                    return None;
                }
                self.choose(places_max, newcomer, begun);
                // A flood of newcomers must not have the worker look for nothing else.
                let is_none = self.chosen.is_empty();
                self.next_look[kind] = is_none.then(|| begun + begun.elapsed() * LOOK_PART);
            }
            while let Some((id, reading)) = self.chosen.pop() {
                let occupant = self.occupants.get(&id);
                if let Some(occupant) = occupant.filter(|it| it.reading() == reading)
                    && let Some(ask) = self.ask_of(occupant, places_max, newcomer)
                {
                    return Some((Arc::clone(occupant), ask));
                }
            }
        }
        None
    }

    fn of_peer(&self, peer: CallerId) -> usize {
        self.by_peer.get(&peer).copied().unwrap_or(0)
    }

    fn hoards(&self, peer: CallerId, places_max: usize) -> bool {
        self.of_peer(peer) > places_max / HOARD_PART
    }

    /// How a connection may be asked to make room for one of this peer, if at all.
    fn ask_of(&self, occupant: &Occupant, places_max: usize, newcomer: CallerId) -> Option<Ask> {
        if self.hoards(newcomer, places_max) && occupant.peer != newcomer {
            return None;
        }
        if occupant.peer == newcomer || !self.hoards(occupant.peer, places_max) {
            return occupant.can_be_evicted().then_some(Ask::Evict);
        }
        // A request that is just arriving is no reason to stay, but where one was answered already.
        let reading = occupant.reading();
        let is_idle = reading.phase == Phase::Idle && reading.has_served;
        let goes_in_order = is_idle && occupant.can_be_evicted() && !occupant.clock.is_blocked();
        match goes_in_order {
            true => Some(Ask::Evict),
            false => (!occupant.is_going()).then_some(Ask::Expel),
        }
    }

    fn choose(&mut self, places_max: usize, newcomer: CallerId, now: Instant) {
        let all = self.occupants.values();
        let can_go = all.filter(|it| self.ask_of(it, places_max, newcomer).is_some());
        let mut ranked: Vec<_> = can_go
            .map(|it| {
                let reading = it.reading();
                let rank = rank(self.of_peer(it.peer), places_max, reading, now);
                let hoards = self.hoards(it.peer, places_max);
                (Reverse((hoards, it.can_be_evicted(), rank)), it.id, reading)
            })
            .collect();
        if ranked.len() > CHOSEN {
            ranked.select_nth_unstable_by_key(CHOSEN, |(rank, id, _)| (*rank, *id));
            ranked.truncate(CHOSEN);
        }
        ranked.sort_unstable_by_key(|(rank, id, _)| Reverse((*rank, *id)));
        let chosen = ranked.into_iter().map(|(_, id, reading)| (id, reading));
        self.chosen.extend(chosen);
    }
}

/// Who goes first has the highest rank: those of the peer that has most, if that is more than its
/// share; then those that have been silent for longest.
fn rank(of_peer: usize, places_max: usize, reading: Reading, now: Instant) -> (usize, Duration) {
    let excess = if of_peer > places_max / SHARE {
        of_peer
    } else {
        0
    };
    let silent = now.saturating_duration_since(reading.since);
    match reading.has_served {
        true => (excess, silent),
        false => (excess, silent * NEVER_SERVED_FACTOR),
    }
}

impl Place {
    pub(super) fn occupant(&self) -> &Arc<Occupant> {
        &self.occupant
    }

    /// Waits until it is asked to make room.
    pub(super) async fn until_evicted(&self) {
        poll_fn(|context| match self.occupant.poll_ask(context).is_to_go() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// The connection stays although it was asked to make room: a request has arrived.
    pub(super) fn stay(&self) {
        let ask = match self.places.is_draining.load(Ordering::Relaxed) {
            true => Ask::Drain,
            false => Ask::Stay,
        };
        self.answer(ask);
    }

    /// The connection stays until the response that is under way has been taken.
    pub(super) fn decline(&self) {
        self.answer(Ask::Declined);
    }

    fn answer(&self, ask: Ask) {
        self.occupant.ask.store(ask as u8, Ordering::Release);
        self.places.changed.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.occupants.remove(&self.occupant.id);
        let peer = self.occupant.peer;
        if let Some(of_peer) = taken.by_peer.get_mut(&peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&peer);
            }
        }
        drop(taken);
        self.places.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;

    use std::net::IpAddr;

    use super::*;

    fn peer(number: u8) -> CallerId {
        CallerId::of_address(IpAddr::from([192, 0, 2, number]))
    }

    fn clock() -> Clock {
        Clock::new(Instant::now(), Duration::from_secs(60))
    }

    fn reading(has_served: bool, since: Instant) -> Reading {
        let phase = Phase::Idle;
        Reading {
            phase,
            has_served,
            since,
        }
    }

    #[test]
    fn who_has_most_goes_first_then_who_was_silent_for_longest() {
        let begun = Instant::now();
        let now = begun + Duration::from_secs(100);
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        // Each goes before the next.
        let ranks = [
            rank(200, 320, reading(true, ago(0)), now),
            rank(21, 320, reading(false, ago(99)), now),
            rank(21, 320, reading(true, ago(0)), now),
            rank(20, 320, reading(false, ago(10)), now),
            rank(1, 320, reading(true, ago(79)), now),
            rank(20, 320, reading(true, ago(78)), now),
            rank(1, 320, reading(false, ago(9)), now),
            rank(1, 320, reading(true, ago(1)), now),
        ];
        assert!(ranks.is_sorted_by(|one, next| one > next), "{ranks:?}");
    }

    #[tokio::test]
    async fn a_silent_connection_makes_room_and_a_busy_one_does_not() {
        let places = Arc::new(Places::new(2));
        let first = places.take(peer(1), clock()).await.unwrap();
        let second = places.take(peer(2), clock()).await.unwrap();
        assert!(places.try_take(peer(3), clock()).is_none());
        first.occupant.clock.enter(Phase::Handling);
        {
            let mut third = pin!(places.take(peer(3), clock()));
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(third.as_mut().poll(&mut context).is_pending());
            assert_eq!(first.occupant.ask(), Ask::Stay);
            assert_eq!(second.occupant.ask(), Ask::Evict);
            drop(second);
            let Poll::Ready(Some(third)) = third.poll(&mut context) else {
                panic!("its place is free");
            };
            third.occupant.clock.enter(Phase::Handling);
            assert!(
                places.take(peer(4), clock()).await.is_none(),
                "all are busy"
            );
        }
        let taken = places.taken();
        assert_eq!((taken.occupants.len(), taken.by_peer.len()), (1, 1));
    }

    #[tokio::test]
    async fn a_peer_that_has_more_than_half_loses_busy_connections_to_others_alone() {
        let places = Arc::new(Places::new(4));
        let mut busy = Vec::new();
        for number in [1, 1, 1, 2] {
            let place = places.take(peer(number), clock()).await.unwrap();
            place.occupant.clock.enter(Phase::Handling);
            busy.push(place);
        }
        assert!(places.take(peer(1), clock()).await.is_none(), "its own");
        let ask = |newcomer| {
            let next = places.taken().next_to_go(4, peer(newcomer));
            next.map(|(occupant, ask)| (occupant.peer, ask))
        };
        // The search rests after it has found nobody.
        places.taken().next_look = [None; 2];
        assert_eq!(ask(3), Some((peer(1), Ask::Expel)));
        // A reply that is not taken does not hold a place of a peer that has most of them.
        busy[0].occupant.clock.enter(Phase::Idle);
        busy[0].occupant.clock.note_blocked(true);
        places.taken().chosen.clear();
        assert_eq!(ask(3), Some((peer(1), Ask::Expel)));
        // One that is idle goes in good order, and first.
        busy[0].occupant.clock.note_blocked(false);
        places.taken().chosen.clear();
        assert_eq!(ask(3), Some((peer(1), Ask::Evict)));
        // Others that are idle stay, and it does not get their places either.
        busy[0].occupant.clock.enter(Phase::Handling);
        busy[3].occupant.clock.enter(Phase::Idle);
        places.taken().chosen.clear();
        assert_eq!(ask(1), None);
        places.taken().next_look = [None; 2];
        assert_eq!(ask(3), Some((peer(1), Ask::Expel)));
        assert_eq!(ask(2), Some((peer(1), Ask::Expel)));
        busy[3].occupant.clock.enter(Phase::Handling);
        drop(busy.remove(1));
        let third = places.take(peer(3), clock()).await.unwrap();
        third.occupant.clock.enter(Phase::Handling);
        assert!(
            places.take(peer(4), clock()).await.is_none(),
            "half is no more than half"
        );
    }

    #[tokio::test]
    async fn who_declines_is_not_asked_again_and_the_next_is() {
        let places = Arc::new(Places::new(2));
        let one = places.take(peer(1), clock()).await.unwrap();
        let other = places.take(peer(2), clock()).await.unwrap();
        let mut third = pin!(places.take(peer(3), clock()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            assert!(third.as_mut().poll(&mut context).is_pending());
            let is_asked = |place: &&Place| place.occupant.ask() == Ask::Evict;
            let asked: Vec<_> = [&one, &other].into_iter().filter(is_asked).collect();
            assert_eq!(asked.len(), 1);
            asked[0].decline();
        }
        assert!(matches!(third.poll(&mut context), Poll::Ready(None)));
    }

    #[tokio::test]
    async fn draining_is_asked_of_all_and_of_those_to_come() {
        let places = Arc::new(Places::new(2));
        let one = places.take(peer(1), clock()).await.unwrap();
        places.drain();
        let other = places.try_take(peer(1), clock()).unwrap();
        for place in [one, other] {
            assert_eq!(place.occupant.ask(), Ask::Drain);
        }
    }
}

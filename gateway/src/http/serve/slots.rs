//! The slots for a worker's connections, and who gives one up when all are taken.
//!
//! ```text
//!   accept --> a slot is free? --yes--> served
//!                   | no
//!                   v
//!              one of a peer that has more than half of all slots is closed for another peer's,
//!              if need be with a request under way
//!                   | there is none
//!                   v
//!              a connection that has been without a request for a while is closed, and its slot taken
//!                   | there is none
//!                   v
//!              one with a request under way is closed, of the peer that has most, if it has more
//!              than a 64th of all slots and the newcomer would have fewer
//!                   | there is none
//!                   v
//!              any without a request under way is closed
//!                   | there is none
//!                   v
//!              503
//! ```
//!
//! A connection that is idle may be closed at any time (RFC 9112, section 9.5), so those that are
//! silent keep nobody out. Peers that have more than their share of the slots lose theirs first, and do not
//! get those of peers with fewer, unless these have been silent for long.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use dkvs_client::{ByCaller, CallerId};
use tokio::sync::Notify;

use super::clock::{Clock, Phase, Reading};
use super::occupant::{Instruction, Occupant, STALLED};

/// A peer that has no more than one of so many slots counts as any other.
const SHARE: usize = 16;

/// A peer that has more than one of so many slots loses connections to other peers even while requests
/// are under way, before any that is idle makes room.
const HOARD_PART: usize = 2;

/// A peer that has more than one of so many slots loses connections with requests under way to peers that
/// have fewer, when none is idle.
const BUSY_PART: usize = 64;

/// The silence of a connection that never sent a request counts so many times: callers keep
/// connections on which they were served for the next request.
const NEVER_SERVED_FACTOR: u32 = 8;

/// A connection of a peer that has no more than its share is not closed for want of a request for so long,
/// if others have more than theirs: the request may be on its way.
const REQUEST_GRACE: Duration = Duration::from_secs(1);

/// How many connections are chosen at a time, so that not each newcomer looks at all of them.
const CHOSEN: usize = 32;

/// The part of a worker's time that is spent looking for connections to close while there are none: one
/// of so many.
const LOOK_PART: u32 = 20;

/// How many connections are asked to go for one newcomer, if they turn out to be busy.
const TRIES: usize = 8;

/// How long each of them may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// The slots of one worker.
pub(super) struct ConnectionSlots {
    slots_max: usize,
    taken: Mutex<Taken>,
    /// Told whenever a slot becomes free, or a connection that was asked to go stays.
    changed: Notify,
    is_draining: AtomicBool,
}

#[derive(Default)]
struct Taken {
    next: u64,
    occupants: BTreeMap<u64, Arc<Occupant>>,
    by_peer: ByCaller,
    /// Those that go next, the first of them last, as they were when they were chosen.
    chosen: Vec<(u64, Reading)>,
    /// When others are looked for again, after there was none for a peer with so many: there is none for
    /// peers with more, either.
    next_look: Option<(Instant, usize)>,
}

/// A slot that is taken, until it is dropped.
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    occupant: Arc<Occupant>,
}

impl ConnectionSlots {
    pub(super) fn new(slots_max: usize) -> Self {
        Self {
            slots_max,
            taken: Mutex::default(),
            changed: Notify::new(),
            is_draining: AtomicBool::new(false),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a connection of this peer; none if all are taken by connections with requests under way,
    /// and no peer has so many of them that it has to give one up. Waits for a connection that it has asked
    /// to go, which takes no longer than that looks whether a request has arrived.
    pub(super) async fn take(
        self: &Arc<Self>,
        peer: CallerId,
        clock: Clock,
    ) -> Option<ConnectionSlot> {
        for _ in 0..=TRIES {
            // From now on, so that nothing is missed; and nothing from before.
            let changed = self.changed.notified();
            {
                let mut taken = self.taken();
                if taken.occupants.len() < self.slots_max {
                    return Some(self.occupy(&mut taken, peer, clock));
                }
                let (occupant, instruction) = taken.next_to_go(self.slots_max, peer)?;
                occupant.tell(instruction);
            }
            // It answers at once, unless the worker is very busy.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, changed).await;
        }
        None
    }

    /// The same, without asking anybody to go.
    pub(super) fn try_take(
        self: &Arc<Self>,
        peer: CallerId,
        clock: Clock,
    ) -> Option<ConnectionSlot> {
        let mut taken = self.taken();
        let is_free = taken.occupants.len() < self.slots_max;
        is_free.then(|| self.occupy(&mut taken, peer, clock))
    }

    fn occupy(self: &Arc<Self>, taken: &mut Taken, peer: CallerId, clock: Clock) -> ConnectionSlot {
        let occupant = Arc::new(Occupant::new(taken.next, peer, clock));
        taken.next += 1;
        taken.occupants.insert(occupant.id(), Arc::clone(&occupant));
        taken.by_peer.add(peer, 1);
        if self.is_draining.load(Ordering::Relaxed) {
            occupant.drain();
        }
        ConnectionSlot {
            slots: Arc::clone(self),
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
        slots_max: usize,
        newcomer: CallerId,
    ) -> Option<(Arc<Occupant>, Instruction)> {
        for is_fresh in [false, true] {
            if is_fresh {
                let (begun, held) = (Instant::now(), self.by_peer.held(newcomer));
                if self
                    .next_look
                    .is_some_and(|(at, least)| begun < at && held >= least)
                {
                    return None;
                }
                self.choose(slots_max, newcomer, begun);
                // A flood of newcomers must not have the worker look for nothing else.
                let is_none = self.chosen.is_empty();
                self.next_look = is_none.then(|| (begun + begun.elapsed() * LOOK_PART, held));
            }
            // Those that go for others alone stay chosen.
            let mut chosen = std::mem::take(&mut self.chosen);
            let next = loop {
                let place = chosen.iter().rposition(|(id, reading)| {
                    let occupant = self.occupants.get(id);
                    occupant.is_none_or(|it| {
                        it.reading() != *reading
                            || self.instruction_for(it, slots_max, newcomer).is_some()
                    })
                });
                let Some(place) = place else {
                    break None;
                };
                let (id, reading) = chosen.remove(place);
                let occupant = self.occupants.get(&id);
                if let Some(occupant) = occupant.filter(|it| it.reading() == reading)
                    && let Some(how) = self.instruction_for(occupant, slots_max, newcomer)
                {
                    break Some((Arc::clone(occupant), how));
                }
            };
            self.chosen = chosen;
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn hoards(&self, peer: CallerId, slots_max: usize) -> bool {
        self.by_peer.held(peer) > slots_max / HOARD_PART
    }

    /// How a connection may be told to make room for one of this peer, if at all.
    fn instruction_for(
        &self,
        occupant: &Occupant,
        slots_max: usize,
        newcomer: CallerId,
    ) -> Option<Instruction> {
        let in_order = || occupant.can_be_evicted().then_some(Instruction::Evict);
        if occupant.peer() == newcomer {
            return in_order();
        }
        if self.hoards(newcomer, slots_max) {
            return None;
        }
        let (theirs, held) = (
            self.by_peer.held(occupant.peer()),
            self.by_peer.held(newcomer),
        );
        let reading = occupant.reading();
        if theirs > held + 1 && theirs > slots_max / BUSY_PART {
            // Where it hoards, a request that is just arriving is no reason to stay, but where one was
            // answered already.
            let is_idle = reading.phase == Phase::Idle && reading.has_served;
            let goes_in_order = is_idle || !self.hoards(occupant.peer(), slots_max);
            return match occupant.can_be_evicted()
                && goes_in_order
                && !occupant.clock().is_blocked()
            {
                true => Some(Instruction::Evict),
                false => (!occupant.is_going()).then_some(Instruction::Expel),
            };
        }
        // Who has much gets nothing of those who have less, but what they have not used for long.
        let is_long_silent = silence(reading, Instant::now()) >= STALLED;
        match held <= slots_max / SHARE || theirs > held || is_long_silent {
            true => in_order(),
            false => None,
        }
    }

    /// Whether a connection goes before others, of those that can: the greatest first.
    fn order(&self, it: &Occupant, slots_max: usize, reading: Reading, now: Instant) -> (u8, bool) {
        let is_idle = it.can_be_evicted();
        if self.hoards(it.peer(), slots_max) {
            return (3, is_idle);
        }
        let is_above_share = self.by_peer.held(it.peer()) > slots_max / SHARE;
        let is_silent = now.saturating_duration_since(reading.since) >= REQUEST_GRACE;
        match is_idle {
            true if is_above_share || is_silent => (2, is_idle),
            false => (1, is_idle),
            true => (0, is_idle),
        }
    }

    fn choose(&mut self, slots_max: usize, newcomer: CallerId, now: Instant) {
        let all = self.occupants.values();
        let can_go = all.filter(|it| self.instruction_for(it, slots_max, newcomer).is_some());
        let mut ranked: Vec<_> = can_go
            .map(|it| {
                let (reading, theirs) = (it.reading(), self.by_peer.held(it.peer()));
                let rank = match it.can_be_evicted() {
                    true => rank(theirs, slots_max, reading, now),
                    false => (theirs, silence(reading, now)),
                };
                let order = self.order(it, slots_max, reading, now);
                (Reverse((order, rank)), it.id(), reading)
            })
            .collect();
        if ranked.len() > CHOSEN {
            ranked.select_nth_unstable_by_key(CHOSEN, |(rank, id, _)| (*rank, *id));
            ranked.truncate(CHOSEN);
        }
        ranked.sort_unstable_by_key(|(rank, id, _)| Reverse((*rank, *id)));
        self.chosen = ranked
            .into_iter()
            .map(|(_, id, reading)| (id, reading))
            .collect();
    }
}

/// Who goes first has the highest rank: those of the peer that has most, if that is more than its
/// share; then those that have been silent for longest.
fn rank(of_peer: usize, slots_max: usize, reading: Reading, now: Instant) -> (usize, Duration) {
    let excess = if of_peer > slots_max / SHARE {
        of_peer
    } else {
        0
    };
    (excess, silence(reading, now))
}

/// For how long a connection has been silent, as that counts.
fn silence(reading: Reading, now: Instant) -> Duration {
    let silent = now.saturating_duration_since(reading.since);
    match reading.has_served {
        true => silent,
        false => silent * NEVER_SERVED_FACTOR,
    }
}

impl ConnectionSlot {
    pub(super) fn occupant(&self) -> &Arc<Occupant> {
        &self.occupant
    }

    /// Waits until it is asked to make room.
    pub(super) async fn until_evicted(&self) {
        poll_fn(|context| match self.occupant.poll_instruction(context) {
            it if it.is_to_go() => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }

    /// The connection stays although it was asked to make room: a request has arrived.
    pub(super) fn stay(&self) {
        let instruction = match self.slots.is_draining.load(Ordering::Relaxed) {
            true => Instruction::Drain,
            false => Instruction::Stay,
        };
        self.answer(instruction);
    }

    /// The connection stays until the response that is under way has been taken.
    pub(super) fn decline(&self) {
        self.answer(Instruction::Declined);
    }

    fn answer(&self, instruction: Instruction) {
        self.occupant.answer(instruction);
        self.slots.changed.notify_waiters();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.occupants.remove(&self.occupant.id());
        taken.by_peer.subtract(self.occupant.peer(), 1);
        drop(taken);
        self.slots.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::Context;

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
        let slots = Arc::new(ConnectionSlots::new(2));
        let first = slots.take(peer(1), clock()).await.unwrap();
        let second = slots.take(peer(2), clock()).await.unwrap();
        assert!(slots.try_take(peer(3), clock()).is_none());
        first.occupant.clock().enter(Phase::Handling);
        {
            let mut third = pin!(slots.take(peer(3), clock()));
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(third.as_mut().poll(&mut context).is_pending());
            assert_eq!(first.occupant.instruction(), Instruction::Stay);
            assert_eq!(second.occupant.instruction(), Instruction::Evict);
            drop(second);
            let Poll::Ready(Some(third)) = third.poll(&mut context) else {
                panic!("its slot is free");
            };
            third.occupant.clock().enter(Phase::Handling);
            assert!(slots.take(peer(4), clock()).await.is_none(), "all are busy");
        }
        let taken = slots.taken();
        assert_eq!(
            (taken.occupants.len(), taken.by_peer.iter().count()),
            (1, 1)
        );
    }

    #[tokio::test]
    async fn a_peer_that_has_more_than_half_loses_busy_connections_to_others_alone() {
        let slots = Arc::new(ConnectionSlots::new(4));
        let mut busy = Vec::new();
        for number in [1, 1, 1, 2] {
            let slot = slots.take(peer(number), clock()).await.unwrap();
            slot.occupant.clock().enter(Phase::Handling);
            busy.push(slot);
        }
        assert!(slots.take(peer(1), clock()).await.is_none(), "its own");
        let ask = |newcomer| {
            let next = slots.taken().next_to_go(4, peer(newcomer));
            next.map(|(occupant, how)| (occupant.peer(), how))
        };
        // The search rests after it has found nobody.
        slots.taken().next_look = None;
        assert_eq!(ask(3), Some((peer(1), Instruction::Expel)));
        // A reply that is not taken does not hold a place of a peer that has most of them.
        busy[0].occupant.clock().enter(Phase::Idle);
        busy[0].occupant.clock().note_blocked(true);
        slots.taken().chosen.clear();
        assert_eq!(ask(3), Some((peer(1), Instruction::Expel)));
        // One that is idle goes in good order, and first.
        busy[0].occupant.clock().note_blocked(false);
        slots.taken().chosen.clear();
        assert_eq!(ask(3), Some((peer(1), Instruction::Evict)));
        // Others that are idle stay, and it does not get their places either.
        busy[0].occupant.clock().enter(Phase::Handling);
        busy[3].occupant.clock().enter(Phase::Idle);
        slots.taken().chosen.clear();
        assert_eq!(ask(1), None);
        slots.taken().next_look = None;
        assert_eq!(ask(3), Some((peer(1), Instruction::Expel)));
        assert_eq!(ask(2), Some((peer(1), Instruction::Expel)));
        busy[3].occupant.clock().enter(Phase::Handling);
        // With half it still has more than whoever has none, and loses down to as many.
        drop(busy.remove(1));
        let third = slots.take(peer(3), clock()).await.unwrap();
        third.occupant.clock().enter(Phase::Handling);
        assert_eq!(ask(4), Some((peer(1), Instruction::Expel)));
        assert_eq!(ask(3), None, "it would have as many");
        slots.taken().next_look = None;
        drop(busy.remove(0));
        let fourth = slots.take(peer(4), clock()).await.unwrap();
        fourth.occupant.clock().enter(Phase::Handling);
        assert!(
            slots.take(peer(5), clock()).await.is_none(),
            "each of them has one"
        );
    }

    #[tokio::test]
    async fn peers_that_share_all_slots_lose_busy_ones_to_others_and_get_none_of_theirs() {
        const SLOTS: usize = 64;
        let slots = Arc::new(ConnectionSlots::new(SLOTS));
        let mut held = Vec::new();
        for number in 0..SLOTS {
            let slot = slots.take(peer(1 + (number % 2) as u8), clock()).await;
            let slot = slot.unwrap();
            slot.occupant.clock().enter(Phase::Handling);
            held.push(slot);
        }
        let ask = |newcomer| {
            let next = slots.taken().next_to_go(SLOTS, peer(newcomer));
            next.map(|(occupant, how)| (occupant.peer(), how))
        };
        // Neither takes from the other, which does not keep a third from looking.
        assert_eq!((ask(1), ask(2)), (None, None));
        assert!(ask(3).is_some_and(|(_, how)| how == Instruction::Expel));
        // One that may have its request on its way stays for others, and for them.
        drop(held.pop());
        let third = slots.take(peer(3), clock()).await.unwrap();
        third.occupant.clock().enter(Phase::Handling);
        third.occupant.clock().enter(Phase::Idle);
        slots.taken().chosen.clear();
        assert_eq!(ask(4), Some((peer(1), Instruction::Expel)));
        for greedy in [1, 2] {
            slots.taken().chosen.clear();
            slots.taken().next_look = None;
            assert_eq!(ask(greedy), None);
        }
    }

    #[tokio::test]
    async fn who_declines_is_not_asked_again_and_the_next_is() {
        let slots = Arc::new(ConnectionSlots::new(2));
        let one = slots.take(peer(1), clock()).await.unwrap();
        let other = slots.take(peer(2), clock()).await.unwrap();
        let mut third = pin!(slots.take(peer(3), clock()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            assert!(third.as_mut().poll(&mut context).is_pending());
            let is_asked =
                |slot: &&ConnectionSlot| slot.occupant.instruction() == Instruction::Evict;
            let asked: Vec<_> = [&one, &other].into_iter().filter(is_asked).collect();
            assert_eq!(asked.len(), 1);
            asked[0].decline();
        }
        assert!(matches!(third.poll(&mut context), Poll::Ready(None)));
    }

    #[tokio::test]
    async fn draining_is_asked_of_all_and_of_those_to_come() {
        let slots = Arc::new(ConnectionSlots::new(2));
        let one = slots.take(peer(1), clock()).await.unwrap();
        slots.drain();
        let other = slots.try_take(peer(1), clock()).unwrap();
        for slot in [one, other] {
            assert_eq!(slot.occupant.instruction(), Instruction::Drain);
        }
    }
}

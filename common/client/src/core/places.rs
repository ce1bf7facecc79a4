//! The places of the requests in flight: who holds how many, and who gets another.
//!
//! A request takes a place when it begins and keeps it until its outcome is decided. One that is
//! decided and still waits, since its caller wants to hear of every replica, moves to a place among
//! the decided ones, of which there are [twice as many](super::config::DECIDED_PER_PLACE): so nobody is
//! refused while others merely wait for a silent server.
//!
//! Of either kind there are M places. Who holds h of them gets another while f are free, if
//!
//! * h is less than [M / 64](FIRST_PART), or 0: these are the caller's first places, and f > 0 will do;
//! * or h < [6](PER_FREE) (f - [M / 8](RESERVE_PART)). A queue may grow while it is shorter than what is
//!   free of the buffer, times a constant (the dynamic thresholds of Choudhury and Hahne, 1998), here
//!   with a reserve for first places.
//!
//! What follows:
//!
//! * **Whoever is alone gets three quarters**: h = 6 (M - h - M/8) is h = 3/4 M.
//! * **n callers who ask for all they can get end up with equal shares**, each h = 6 (M - n h - M/8): two
//!   with 40 % each, five with 17 %, very many with 7/8 of M / n. Who had more before others came gets no
//!   other place before they have as many.
//! * **A newcomer finds a place.** Beyond first places, one is taken only if more than M/8 are free, so
//!   after every such one M/8 are. They go to first places alone: to eight callers with M/64 each, or
//!   to M/8 with one each, before anyone who holds none is refused.
//!
//! A place costs a lookup by caller. Who holds none is not kept.

use std::collections::BTreeSet;

use super::by_caller::{ByCaller, Holding};
use super::caller::CallerId;
use super::request::RequestId;

/// Of how many places a caller's first ones are one.
const FIRST_PART: usize = 64;

/// Of how many places one is kept for first places.
const RESERVE_PART: usize = 8;

/// How many places a caller may hold for each that is free beyond the reserve.
const PER_FREE: usize = 6;

/// Why a request gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// The caller holds its share, which is so many.
    ShareTaken(usize),
}

/// All places of a core.
pub(super) struct Places {
    undecided: Pool,
    decided: Pool,
    callers: ByCaller<Held>,
}

/// What one caller holds.
#[derive(Debug, Default)]
struct Held {
    undecided: usize,
    /// The requests that are decided and wait.
    decided: BTreeSet<RequestId>,
}

impl Holding for Held {
    fn is_nothing(&self) -> bool {
        self.undecided == 0 && self.decided.is_empty()
    }
}

/// Places of one kind.
#[derive(Debug, Clone, Copy)]
struct Pool {
    max: usize,
    taken: usize,
}

impl Pool {
    fn new(max: usize) -> Self {
        Self { max, taken: 0 }
    }

    /// Whether a caller that holds so many gets another.
    fn admits(self, held: usize) -> Result<(), NoPlace> {
        let free = self.max.saturating_sub(self.taken);
        let is_first = held < (self.max / FIRST_PART).max(1);
        let beyond_reserve = free.saturating_sub(self.max.div_ceil(RESERVE_PART));
        match free {
            0 => Err(NoPlace::Full),
            _ if is_first || held < beyond_reserve.saturating_mul(PER_FREE) => Ok(()),
            _ => Err(NoPlace::ShareTaken(held)),
        }
    }
}

impl Places {
    /// None is taken of `undecided_max`, and of `decided_max`.
    pub(super) fn new(undecided_max: usize, decided_max: usize) -> Self {
        Self {
            undecided: Pool::new(undecided_max),
            decided: Pool::new(decided_max),
            callers: ByCaller::default(),
        }
    }

    /// Places of requests that are not decided.
    pub(super) fn undecided(&self) -> usize {
        self.undecided.taken
    }

    /// Places of those that are.
    pub(super) fn decided(&self) -> usize {
        self.decided.taken
    }

    /// Takes a place for a request that begins.
    pub(super) fn take(&mut self, caller: CallerId) -> Result<(), NoPlace> {
        let undecided = &mut self.undecided;
        self.callers.change(caller, |held| {
            undecided.admits(held.undecided)?;
            held.undecided += 1;
            undecided.taken += 1;
            Ok(())
        })
    }

    /// A request that took a place is decided, and waits. Returns one of the caller's that has to end
    /// now: its oldest that waits, if it holds its share.
    pub(super) fn decide(&mut self, caller: CallerId, id: RequestId) -> Option<RequestId> {
        let (undecided, decided) = (&mut self.undecided, &mut self.decided);
        let ended = self.callers.change_held(caller, |held| {
            let admitted = decided.admits(held.decided.len());
            held.undecided -= 1;
            undecided.taken -= 1;
            held.decided.insert(id);
            decided.taken += 1;
            match admitted {
                Ok(()) => None,
                Err(_) => held.decided.first().copied(),
            }
        });
        ended.flatten()
    }

    /// A request that was decided is not any more: what it met later has it begin anew. It is under way,
    /// so it gets its place back, be all taken or not.
    pub(super) fn reopen(&mut self, caller: CallerId, id: RequestId) {
        let (undecided, decided) = (&mut self.undecided, &mut self.decided);
        self.callers.change_held(caller, |held| {
            if held.decided.remove(&id) {
                decided.taken -= 1;
                held.undecided += 1;
                undecided.taken += 1;
            }
        });
    }

    /// A request has ended.
    pub(super) fn give_back(&mut self, caller: CallerId, id: RequestId) {
        let (undecided, decided) = (&mut self.undecided, &mut self.decided);
        self.callers.change_held(caller, |held| {
            if held.decided.remove(&id) {
                decided.taken -= 1;
            } else {
                held.undecided -= 1;
                undecided.taken -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u32) -> CallerId {
        CallerId::AddressV4(number)
    }

    fn places(max: usize) -> Places {
        Places::new(max, 2 * max)
    }

    /// Takes as many as the caller gets; how many these are, and why there is no other.
    fn take_all(places: &mut Places, caller: CallerId) -> (usize, NoPlace) {
        let mut taken = 0;
        loop {
            match places.take(caller) {
                Ok(()) => taken += 1,
                Err(no_place) => return (taken, no_place),
            }
        }
    }

    fn id(number: u64) -> RequestId {
        RequestId::numbered(number)
    }

    #[test]
    fn whoever_is_alone_gets_three_quarters_and_a_newcomer_finds_a_place() {
        for (max, alone) in [
            (1_048_576, 786_432),
            (1_024, 768),
            (100, 75),
            (32, 24),
            (8, 6),
            (4, 3),
            (3, 2),
            (2, 1),
        ] {
            let mut places = places(max);
            let share = NoPlace::ShareTaken(alone);
            assert_eq!(take_all(&mut places, caller(0)), (alone, share), "{max}");
            assert_eq!(places.take(caller(1)), Ok(()), "{max}");
            assert_eq!(places.undecided(), alone + 1);
        }
        let mut one = places(1);
        assert_eq!(take_all(&mut one, caller(0)), (1, NoPlace::Full));
        assert_eq!(one.take(caller(1)), Err(NoPlace::Full));
        one.give_back(caller(0), id(0));
        assert_eq!(one.take(caller(1)), Ok(()));
        assert_eq!(take_all(&mut places(0), caller(0)), (0, NoPlace::Full));
    }

    #[test]
    fn however_many_the_first_callers_take_an_eighth_is_left_for_first_places() {
        for (max, first) in [(1_024, 16), (640, 10), (64, 1), (16, 1)] {
            let mut greedy = 0;
            let mut places = places(max);
            // Until one gets its first places only.
            while take_all(&mut places, caller(greedy)).0 > first {
                greedy += 1;
            }
            let free = max - places.undecided() + first;
            assert!(free >= max / RESERVE_PART, "{max}: {free} for newcomers");
            for newcomer in 1..free / first {
                let newcomer = caller(greedy + newcomer as u32);
                let (taken, _) = take_all(&mut places, newcomer);
                assert_eq!(taken, first, "{max}");
            }
        }
    }

    #[test]
    fn callers_who_ask_for_all_they_can_get_end_up_with_equal_shares() {
        const MAX: usize = 1_024;
        for callers in [1, 2, 3, 5, 10] {
            let mut places = places(MAX);
            let mut held = vec![0_usize; callers];
            // The first has all it could get before the others come. Then a request of each ends again
            // and again, and each asks for two, in turns the first.
            held[0] = take_all(&mut places, caller(0)).0;
            for turn in 0..20 * MAX {
                for (number, held) in held.iter_mut().enumerate().filter(|(_, held)| **held > 0) {
                    places.give_back(caller(number as u32), id(0));
                    *held -= 1;
                }
                for number in (0..2 * callers).map(|place| (turn + place) % callers) {
                    held[number] += usize::from(places.take(caller(number as u32)).is_ok());
                }
            }
            let share = (PER_FREE * MAX * 7 / 8) / (1 + PER_FREE * callers);
            for held in &held {
                let is_near = (share * 9 / 10..=share * 11 / 10).contains(held);
                assert!(
                    is_near,
                    "{callers} callers: {held}, and {share} is the share"
                );
            }
        }
    }

    #[test]
    fn what_is_decided_gives_its_place_to_others_and_the_oldest_ends_where_it_is_too_much() {
        // Eight places, so sixteen of decided ones; one caller alone waits for twelve.
        let mut places = places(8);
        let decide = |places: &mut Places, from, number| {
            assert_eq!(places.take(from), Ok(()));
            places.decide(from, id(number))
        };
        for number in 0..12 {
            assert_eq!(decide(&mut places, caller(0), number), None);
        }
        assert_eq!((places.undecided(), places.decided()), (0, 12));
        for number in 12..20 {
            let oldest = id(number - 12);
            assert_eq!(decide(&mut places, caller(0), number), Some(oldest));
            places.give_back(caller(0), oldest);
        }
        assert_eq!((places.undecided(), places.decided()), (0, 12));
        // Others still wait for all that they may, and what they lose is their own.
        assert_eq!(decide(&mut places, caller(1), 30), None);
        for number in 31..40 {
            if let Some(oldest) = decide(&mut places, caller(1), number) {
                assert!(oldest >= id(30));
                places.give_back(caller(1), oldest);
            }
        }
        let waiting = |places: &Places| {
            let mut callers = places.callers.iter();
            callers.find_map(|(caller, held)| Some((caller, *held.decided.first()?)))
        };
        while let Some((caller, id)) = waiting(&places) {
            places.give_back(caller, id);
        }
        assert!(places.callers.is_empty(), "nobody holds anything");
        assert_eq!((places.undecided(), places.decided()), (0, 0));
    }

    #[test]
    fn what_has_to_begin_anew_gets_its_place_back_though_all_are_taken() {
        let mut places = places(2);
        places.take(caller(0)).unwrap();
        assert_eq!(places.decide(caller(0), id(0)), None);
        places.take(caller(1)).unwrap();
        places.take(caller(2)).unwrap();
        places.reopen(caller(0), id(0));
        assert_eq!((places.undecided(), places.decided()), (3, 0));
        assert_eq!(places.take(caller(3)), Err(NoPlace::Full));
        for (number, decided) in [(0, 1), (1, 2)] {
            assert_eq!(places.decide(caller(number), id(number.into())), None);
            assert_eq!(
                (places.undecided(), places.decided()),
                (3 - decided, decided)
            );
        }
        for number in 0..3 {
            places.give_back(caller(number), id(number.into()));
        }
        assert!(places.callers.is_empty());
    }

    #[test]
    fn whoever_finds_no_place_to_wait_ends_at_once() {
        let mut places = places(2);
        for number in 0..4 {
            let from = caller(number as u32);
            places.take(from).unwrap();
            assert_eq!(places.decide(from, id(number)), None);
        }
        places.take(caller(9)).unwrap();
        assert_eq!(places.decide(caller(9), id(9)), Some(id(9)));
    }
}

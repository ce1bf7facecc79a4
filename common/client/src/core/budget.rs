//! The memory that values, bodies and replies on their way may take, and each caller's share of it.
//!
//! A caller may take more while it then holds no more than a [quarter](SHARES), and no more than is still
//! free. This is the rule of the [places](super::places) with a factor of one (dynamic thresholds, Choudhury
//! and Hahne, 1998), so shares shrink with the number of callers: n of them who take all that they can get
//! and give it back again end up with 1 / (n + 1) each, and as much is free for whoever comes next. Of
//! those who give nothing back the first three get a quarter each, and each further one half of what the
//! ones before it have left: nobody can take the last of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use thiserror::Error;

use super::by_caller::ByCaller;
use super::caller::CallerId;

/// What one request may hold in each direction without taking memory for it, in bytes.
pub const UNCOUNTED_BYTES_MAX: usize = 16 << 10;

/// No caller has more than one part in this many of a budget.
pub const SHARES: usize = 4;

/// Bytes that are taken before they are used, and given back when the permit is dropped. Clones are
/// handles to the same budget. Counted in whole kibibytes.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total_kibibytes: usize,
    /// A worker's own, like its core: others take the lock only to copy counts.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken_kibibytes: usize,
    /// In kibibytes.
    callers: ByCaller,
    refusals: MemoryRefusals,
}

/// Why memory was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.reason())]
pub enum MemoryError {
    /// Others have taken so much of it that less would be left than the caller would hold.
    Exhausted,
    /// The caller has taken a whole share.
    Share,
}

impl MemoryError {
    /// The reason, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Exhausted => "too many long values are on their way",
            Self::Share => {
                "this caller has a whole share of the memory for long values on their way"
            }
        }
    }
}

/// How often memory was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryRefusals {
    /// For want of any.
    pub exhausted: u64,
    /// To callers who had taken their share.
    pub share: u64,
}

/// A budget as one caller takes of it.
#[derive(Debug, Clone)]
pub struct MemoryAccount {
    budget: MemoryBudget,
    caller: CallerId,
}

/// Stands for bytes of a budget for as long as it lives.
#[derive(Debug)]
pub struct MemoryPermit {
    account: MemoryAccount,
    kibibytes: usize,
}

impl MemoryBudget {
    /// A budget of which nothing is taken.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Inner {
            total_kibibytes: bytes >> 10,
            state: Mutex::default(),
        }))
    }

    /// What `caller` takes of it.
    pub fn account(&self, caller: CallerId) -> MemoryAccount {
        let budget = self.clone();
        MemoryAccount { budget, caller }
    }

    /// How many bytes are taken.
    pub fn taken_bytes(&self) -> usize {
        self.state().taken_kibibytes << 10
    }

    /// How often memory was refused.
    pub fn refusals(&self) -> MemoryRefusals {
        self.state().refusals
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that a caller may take. The program itself has the whole.
    fn share_kibibytes(&self, caller: CallerId) -> usize {
        match caller {
            CallerId::Internal => self.0.total_kibibytes,
            _ => self.0.total_kibibytes / SHARES,
        }
    }

    fn take(&self, caller: CallerId, kibibytes: usize) -> Result<(), MemoryError> {
        let share = self.share_kibibytes(caller);
        let mut state = self.state();
        let held = state.callers.held(caller);
        if kibibytes > share.saturating_sub(held) {
            state.refusals.share += 1;
            return Err(MemoryError::Share);
        }
        let free = self.0.total_kibibytes - state.taken_kibibytes;
        let left = match caller {
            CallerId::Internal => 0,
            _ => held + kibibytes,
        };
        if kibibytes > 0 && kibibytes + left > free {
            state.refusals.exhausted += 1;
            return Err(MemoryError::Exhausted);
        }
        state.taken_kibibytes += kibibytes;
        state.callers.add(caller, kibibytes);
        Ok(())
    }

    fn give_back(&self, caller: CallerId, kibibytes: usize) {
        let mut state = self.state();
        state.taken_kibibytes -= kibibytes;
        state.callers.subtract(caller, kibibytes);
    }
}

impl MemoryAccount {
    /// Takes `bytes`, or nothing if there are not as many left, for this caller or at all.
    pub fn take(&self, bytes: usize) -> Result<MemoryPermit, MemoryError> {
        let kibibytes = bytes.div_ceil(1 << 10);
        self.budget.take(self.caller, kibibytes)?;
        Ok(MemoryPermit {
            account: self.clone(),
            kibibytes,
        })
    }

    /// The same bytes, which are given back with the last handle to them. Few of them need not be
    /// taken.
    pub fn hold(&self, bytes: Bytes) -> Result<Bytes, MemoryError> {
        if bytes.len() <= UNCOUNTED_BYTES_MAX {
            return Ok(bytes);
        }
        Ok(self.take(bytes.len())?.hold(bytes))
    }
}

impl MemoryPermit {
    /// Makes it one for `bytes` in all, if it stands for fewer.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), MemoryError> {
        let kibibytes = bytes.div_ceil(1 << 10);
        let more = kibibytes.saturating_sub(self.kibibytes);
        self.account.budget.take(self.account.caller, more)?;
        self.kibibytes += more;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.kibibytes.saturating_sub(bytes.div_ceil(1 << 10));
        self.account.budget.give_back(self.account.caller, less);
        self.kibibytes -= less;
    }

    /// The same bytes, with this permit: both end with the last handle to them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held {
            bytes,
            _permit: self,
        })
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        let MemoryAccount { budget, caller } = &self.account;
        budget.give_back(*caller, self.kibibytes);
    }
}

/// Bytes, and the permit for them.
struct Held {
    bytes: Bytes,
    _permit: MemoryPermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: CallerId = CallerId::AddressV4(1);
    const OTHER: CallerId = CallerId::Token(1);

    #[test]
    fn what_is_taken_is_given_back_once_however_it_grew_or_shrank() {
        let budget = MemoryBudget::new(40 << 10);
        let account = budget.account(ONE);
        let mut permit = account.take(3_000).unwrap();
        assert_eq!(budget.taken_bytes(), 3 << 10);
        permit.grow_to(10 << 10).unwrap();
        assert_eq!(budget.taken_bytes(), 10 << 10);
        permit.grow_to(5 << 10).unwrap();
        assert_eq!(budget.taken_bytes(), 10 << 10, "it is large enough");
        assert_eq!(permit.grow_to((10 << 10) + 1), Err(MemoryError::Share));
        permit.shrink_to(4 << 10);
        permit.shrink_to(8 << 10);
        assert_eq!(budget.taken_bytes(), 4 << 10);
        drop(permit);
        assert_eq!(budget.taken_bytes(), 0);
        assert!(budget.0.state.lock().unwrap().callers.is_empty());
    }

    #[test]
    fn a_caller_has_a_share_and_all_callers_have_the_whole() {
        let budget = MemoryBudget::new(40 << 10);
        for (held, caller, bytes, expected) in [
            (&[][..], ONE, 10 << 10, None),
            (&[], ONE, (10 << 10) + 1, Some(MemoryError::Share)),
            (&[], CallerId::Internal, 40 << 10, None),
            (&[], CallerId::Internal, 41 << 10, Some(MemoryError::Share)),
            (&[(ONE, 10)], ONE, 1, Some(MemoryError::Share)),
            (&[(ONE, 10)], ONE, 0, None),
            (&[(ONE, 10)], OTHER, 10 << 10, None),
            // As much is left as the caller then holds.
            (&[(CallerId::Internal, 28)], ONE, 6 << 10, None),
            (
                &[(CallerId::Internal, 28)],
                ONE,
                7 << 10,
                Some(MemoryError::Exhausted),
            ),
            (&[(CallerId::Internal, 37), (ONE, 1)], ONE, 0, None),
            (
                &[(CallerId::Internal, 37), (ONE, 1)],
                ONE,
                1 << 10,
                Some(MemoryError::Exhausted),
            ),
            (&[(CallerId::Internal, 37), (ONE, 1)], OTHER, 1 << 10, None),
            (
                &[(CallerId::Internal, 39)],
                CallerId::Internal,
                1 << 10,
                None,
            ),
            (
                &[(CallerId::Internal, 40)],
                ONE,
                1,
                Some(MemoryError::Exhausted),
            ),
        ] {
            let take = |(caller, kibibytes): &(_, usize)| {
                let account = budget.account(*caller);
                account.take(kibibytes << 10).unwrap()
            };
            let _held: Vec<MemoryPermit> = held.iter().map(take).collect();
            let before = budget.refusals();
            let taken = budget.account(caller).take(bytes);
            assert_eq!(taken.err(), expected, "{held:?} {caller:?} {bytes}");
            let MemoryRefusals { exhausted, share } = budget.refusals();
            let refused = (exhausted - before.exhausted, share - before.share);
            let counted = match expected {
                None => (0, 0),
                Some(MemoryError::Exhausted) => (1, 0),
                Some(MemoryError::Share) => (0, 1),
            };
            assert_eq!(refused, counted, "{held:?} {caller:?} {bytes}");
        }
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn shares_shrink_with_the_number_of_callers_and_nobody_takes_the_last() {
        let budget = MemoryBudget::new(1 << 20);
        let take_all = |caller| {
            let account = budget.account(CallerId::AddressV4(caller));
            std::iter::from_fn(move || account.take(1 << 10).ok()).collect::<Vec<_>>()
        };
        // They give nothing back.
        let held: Vec<_> = (0..9).map(take_all).collect();
        let kibibytes: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(kibibytes, [256, 256, 256, 128, 64, 32, 16, 8, 4]);
        drop(held);
        // A permit of each ends again and again, and each asks for two, in turns the first.
        const CALLERS: usize = 7;
        let mut held: Vec<_> = (0..CALLERS as u32).map(take_all).collect();
        for turn in 0..4_096 {
            held.iter_mut().for_each(|held| drop(held.pop()));
            for number in (0..2 * CALLERS).map(|place| (turn + place) % CALLERS) {
                let account = budget.account(CallerId::AddressV4(number as u32));
                held[number].extend(account.take(1 << 10).ok());
            }
        }
        let share = 1_024 / (CALLERS + 1);
        for held in held {
            let is_near = (share * 9 / 10..=share * 11 / 10).contains(&held.len());
            assert!(is_near, "{} and {share} is the share", held.len());
        }
    }

    #[test]
    fn bytes_are_given_back_with_the_last_handle_to_them() {
        let budget = MemoryBudget::new(1 << 20);
        let account = budget.account(ONE);
        let short = Bytes::from(vec![7; UNCOUNTED_BYTES_MAX]);
        let short = account.hold(short).unwrap();
        assert_eq!(budget.taken_bytes(), 0);
        let long = account.hold(Bytes::from(vec![7; 100 << 10])).unwrap();
        let part = long.slice(1..2);
        drop((long, short));
        assert_eq!(budget.taken_bytes(), 100 << 10);
        assert_eq!(part[..], [7]);
        drop(part);
        assert_eq!(budget.taken_bytes(), 0);
    }

    /// Against a model that is a list of what is held.
    #[test]
    fn whatever_callers_do_sums_stay_within_the_limits_and_all_is_given_back() {
        const TOTAL: usize = 64;
        for seed in 1..200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 33) as usize % below
            };
            let budget = MemoryBudget::new(TOTAL << 10);
            let mut held: Vec<(CallerId, usize, MemoryPermit)> = Vec::new();
            for _ in 0..300 {
                let caller = CallerId::AddressV4(random(6) as u32);
                let kibibytes = random(TOTAL / SHARES + 2);
                let of = |held: &[(CallerId, usize, MemoryPermit)], caller| {
                    let theirs = held.iter().filter(|it| it.0 == caller);
                    theirs.map(|it| it.1).sum::<usize>()
                };
                let sum = |held: &[(CallerId, usize, MemoryPermit)]| {
                    held.iter().map(|it| it.1).sum::<usize>()
                };
                let expected = |held: &[_], caller, more: usize| {
                    if of(held, caller) + more > TOTAL / SHARES {
                        Some(MemoryError::Share)
                    } else if more == 0 {
                        None
                    } else {
                        let left = TOTAL.checked_sub(sum(held) + more);
                        let is_left = left.is_some_and(|left| left >= of(held, caller) + more);
                        (!is_left).then_some(MemoryError::Exhausted)
                    }
                };
                match random(4) {
                    0 if !held.is_empty() => drop(held.swap_remove(random(held.len()))),
                    1 if !held.is_empty() => {
                        let at = random(held.len());
                        let more = kibibytes.saturating_sub(held[at].1);
                        let expected = expected(&held, held[at].0, more);
                        let grown = held[at].2.grow_to(kibibytes << 10);
                        assert_eq!(grown.err(), expected, "seed {seed}");
                        if expected.is_none() {
                            held[at].1 += more;
                        }
                    }
                    2 if !held.is_empty() => {
                        let at = random(held.len());
                        held[at].1 = held[at].1.min(kibibytes);
                        held[at].2.shrink_to(kibibytes << 10);
                    }
                    _ => {
                        let expected = expected(&held, caller, kibibytes);
                        let taken = budget.account(caller).take(kibibytes << 10);
                        assert_eq!(taken.as_ref().err().copied(), expected, "seed {seed}");
                        held.extend(taken.ok().map(|permit| (caller, kibibytes, permit)));
                    }
                }
                assert_eq!(budget.taken_bytes(), sum(&held) << 10, "seed {seed}");
                assert!(budget.taken_bytes() <= TOTAL << 10, "seed {seed}");
            }
            held.clear();
            assert_eq!(budget.taken_bytes(), 0, "seed {seed}");
            assert!(budget.0.state.lock().unwrap().callers.is_empty());
        }
    }
}

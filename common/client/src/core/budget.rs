//! The memory that values, bodies and replies on their way may take, and each caller's share of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use thiserror::Error;

use super::caller::CallerId;

/// What one request may hold in each direction without taking memory for it, in bytes.
pub const UNCOUNTED_BYTES_MAX: usize = 16 << 10;

/// No caller has more than one part in this many of a budget.
pub const SHARES: usize = 4;

/// One part in this many of a budget is kept for callers who hold little.
const RESERVE_PART: usize = 4;

/// Who holds no more than one part in this many holds little.
const LITTLE_PART: usize = 32;

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
    /// Of those who have taken any. So there are no more of them than permits.
    callers: BTreeMap<CallerId, usize>,
    refusals: MemoryRefusals,
}

/// Why memory was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.reason())]
pub enum MemoryError {
    /// Others have taken too much of it.
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
        let held = state.callers.get(&caller).copied().unwrap_or(0);
        if kibibytes > share.saturating_sub(held) {
            state.refusals.share += 1;
            return Err(MemoryError::Share);
        }
        let total = self.0.total_kibibytes;
        let is_little = held + kibibytes <= total / LITTLE_PART;
        let reserve = match caller {
            CallerId::Internal => 0,
            _ if is_little => 0,
            _ => total / RESERVE_PART,
        };
        if kibibytes > 0 && kibibytes + reserve > total - state.taken_kibibytes {
            state.refusals.exhausted += 1;
            return Err(MemoryError::Exhausted);
        }
        if kibibytes > 0 {
            state.taken_kibibytes += kibibytes;
            *state.callers.entry(caller).or_insert(0) += kibibytes;
        }
        Ok(())
    }

    fn give_back(&self, caller: CallerId, kibibytes: usize) {
        let mut state = self.state();
        state.taken_kibibytes -= kibibytes;
        if let Some(held) = state.callers.get_mut(&caller) {
            *held -= kibibytes;
            if *held == 0 {
                state.callers.remove(&caller);
            }
        }
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
        assert_eq!(budget.0.state.lock().unwrap().callers.len(), 0);
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
            // A quarter is left for those who hold little.
            (&[(CallerId::Internal, 28)], ONE, 2 << 10, None),
            (
                &[(CallerId::Internal, 28)],
                ONE,
                3 << 10,
                Some(MemoryError::Exhausted),
            ),
            (&[(CallerId::Internal, 39)], ONE, 1 << 10, None),
            (
                &[(CallerId::Internal, 38), (ONE, 1)],
                ONE,
                1 << 10,
                Some(MemoryError::Exhausted),
            ),
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
                    } else if of(held, caller) + more <= TOTAL / LITTLE_PART {
                        (sum(held) + more > TOTAL).then_some(MemoryError::Exhausted)
                    } else if sum(held) + more > TOTAL - TOTAL / RESERVE_PART {
                        Some(MemoryError::Exhausted)
                    } else {
                        None
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

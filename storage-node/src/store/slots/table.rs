//! What a replica knows of what comes after the versions that it holds: the promises that it has given,
//! and the records that it has accepted.
//!
//! ```text
//!   prepare -> promise (in memory)  --accept with its number-->  pending (on its way to the disk)
//!                 ^                                                  |
//!                 |                                                  v
//!            forgotten with the process, or to make room         accepted, until the record changes
//! ```
//!
//! A promise may be forgotten, since an accept names it by a number that no other promise ever has, and is
//! taken only where that very promise still stands. So of two attempts that a replica promised to, the one
//! promised to first is not accepted after the other, whatever was forgotten in between. What was accepted is
//! never forgotten before the version that it is to follow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::Parts;
use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;

use super::{AcceptResult, Promise, SlotRefusal};
use crate::store::contract::{Full, StoreError};
use crate::store::head::RecordHead;

/// Most promises that are kept, in two halves: when the younger half is full, the older one is forgotten.
pub const PROMISES_MAX: usize = 1 << 16;

/// Most memory for records that are accepted, in bytes.
pub const ACCEPTED_BYTES_MAX: usize = 64 << 20;

/// What an accepted record is taken to cost beyond its bytes.
const OVERHEAD_BYTES: usize = 256;

/// The slots of a store. To be locked before any part of the store is.
#[derive(Default)]
pub(in crate::store) struct Slots {
    state: Mutex<State>,
    /// How many entries there are, so that whoever changes a record need not look.
    entries: AtomicUsize,
}

#[derive(Default)]
struct State {
    accepted: BTreeMap<Bytes, Open>,
    accepted_bytes: usize,
    young: BTreeMap<Bytes, Given>,
    old: BTreeMap<Bytes, Given>,
    /// Keys of which accepts are on their way to the disk, and how many.
    pending: BTreeMap<Bytes, usize>,
    /// The number of the last promise.
    promises: u64,
}

/// What was accepted.
#[derive(Clone)]
struct Open {
    base: Tag,
    accepted: Arc<Accepted>,
}

/// A promise that was given.
#[derive(Clone, Copy)]
struct Given {
    base: Tag,
    ballot: Ballot,
    number: u64,
}

/// Why a store that holds a version with this tag takes no part in what follows `base`.
pub(in crate::store) fn check(held: Tag, base: Tag) -> Result<(), SlotRefusal> {
    match held {
        _ if held > base && mutants::is_on(Mutant::SlotNotSuperseded) => Ok(()),
        _ if held > base => Err(SlotRefusal::Superseded(held)),
        _ if held < base => Err(SlotRefusal::Behind(held)),
        _ => Ok(()),
    }
}

impl Slots {
    /// Promises to accept nothing below `ballot`. `held` looks up the record that is held, if there is one.
    pub(in crate::store) fn prepare(
        &self,
        key: &Key,
        base: Tag,
        ballot: Ballot,
        held: impl FnOnce() -> Option<RecordHead>,
    ) -> Result<Promise, SlotRefusal> {
        let mut state = self.state();
        let held = held();
        check(tag_of(held), base)?;
        let promised = state.promised(key.as_bytes(), base);
        let is_held = promised.is_some_and(|given| given.ballot == ballot);
        // What is on its way to the disk would be missing from the answer.
        let is_pending = state.pending.contains_key(key.as_bytes());
        let accepted = state.accepted(key.as_bytes(), base).cloned();
        let accepted_ballot = accepted.as_ref().map_or(Ballot::ZERO, |it| it.ballot);
        let greatest = promised.map_or(accepted_ballot, |given| given.ballot.max(accepted_ballot));
        if is_pending || greatest > ballot || (greatest == ballot && !is_held) {
            return Err(SlotRefusal::Preempted(greatest));
        }
        let number = match promised {
            Some(given) if is_held => given.number,
            _ => state.promise(key.as_bytes(), base, ballot),
        };
        self.count(&state);
        Ok(Promise {
            number,
            is_tombstone: held.is_some_and(|head| head.is_tombstone),
            accepted,
        })
    }

    /// The result of an accept that is known at once: the record is accepted already, or refused. Otherwise
    /// it may be accepted, and is noted as pending until [`Self::settle`].
    pub(in crate::store) fn begin_accept(
        &self,
        key: &Key,
        base: Tag,
        number: u64,
        accepted: &Accepted,
        held: impl FnOnce() -> Option<RecordHead>,
    ) -> Option<AcceptResult> {
        let mut state = self.state();
        if let Err(refusal) = check(tag_of(held()), base) {
            return Some(Ok(Err(refusal)));
        }
        let before = state.accepted(key.as_bytes(), base);
        if before.is_some_and(|before| **before == *accepted) {
            return Some(Ok(Ok(())));
        }
        let given = state.promised(key.as_bytes(), base);
        let is_it = |given: &Given| given.ballot == accepted.ballot && given.number == number;
        if !given.as_ref().is_some_and(is_it) {
            let before = before.map_or(Ballot::ZERO, |it| it.ballot);
            let promised = given.map_or(before, |given| given.ballot.max(before));
            return Some(Ok(Err(SlotRefusal::Preempted(promised))));
        }
        let more = accepted_bytes(key.as_bytes(), accepted);
        if state.accepted_bytes + more > ACCEPTED_BYTES_MAX {
            return Some(Err(StoreError::Full(Full {
                record_bytes: more,
                bytes_max: ACCEPTED_BYTES_MAX,
            })));
        }
        let key = Bytes::copy_from_slice(key.as_bytes());
        *state.pending.entry(key).or_default() += 1;
        self.count(&state);
        None
    }

    /// An accept is pending no more: it is accepted, or was refused.
    pub(in crate::store) fn settle(&self, key: &[u8]) {
        let mut state = self.state();
        if let Some(pending) = state.pending.get_mut(key) {
            *pending -= 1;
            if *pending == 0 {
                state.pending.remove(key);
            }
        }
        self.count(&state);
    }

    /// A record is accepted, and is so after a restart.
    pub(in crate::store) fn set_accepted(&self, key: &[u8], base: Tag, accepted: Arc<Accepted>) {
        let mut state = self.state();
        let more = accepted_bytes(key, &accepted);
        let key = Bytes::copy_from_slice(key);
        let before = state.accepted.insert(key.clone(), Open { base, accepted });
        let less = before.map_or(0, |before| accepted_bytes(&key, &before.accepted));
        state.accepted_bytes = state.accepted_bytes + more - less;
        self.count(&state);
    }

    /// What is held for a key may be another version now. `held` looks up its tag; none if there is none.
    pub(in crate::store) fn note_change(&self, key: &[u8], held: impl FnOnce() -> Option<Tag>) {
        if self.entries.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut state = self.state();
        let tag = held().unwrap_or(Tag::ZERO);
        if let Some(open) = state.accepted.get(key)
            && open.base != tag
        {
            state.accepted_bytes -= accepted_bytes(key, &open.accepted);
            state.accepted.remove(key);
        }
        let State { young, old, .. } = &mut *state;
        for half in [young, old] {
            if half.get(key).is_some_and(|given| given.base != tag) {
                half.remove(key);
            }
        }
        self.count(&state);
    }

    /// What was accepted for a key, whatever it is to follow.
    pub(in crate::store) fn open(&self, key: &[u8]) -> Option<(Tag, Arc<Accepted>)> {
        match self.entries.load(Ordering::Acquire) {
            0 => None,
            _ => {
                let state = self.state();
                let open = state.accepted.get(key)?;
                Some((open.base, Arc::clone(&open.accepted)))
            }
        }
    }

    /// The keys of which something is accepted, and under which ballot, behind a key, in the order of their
    /// bytes.
    pub(in crate::store) fn open_after(
        &self,
        after: &[u8],
        limit: usize,
    ) -> Vec<(Bytes, Tag, Ballot)> {
        use std::ops::Bound;

        if self.entries.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let state = self.state();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let open = state.accepted.range::<[u8], _>(behind).take(limit);
        open.map(|(key, open)| (key.clone(), open.base, open.accepted.ballot))
            .collect()
    }

    /// How many records are accepted, and what they take in bytes.
    pub(in crate::store) fn size(&self) -> (usize, usize) {
        let state = self.state();
        (state.accepted.len(), state.accepted_bytes)
    }

    fn count(&self, state: &State) {
        let State {
            accepted,
            young,
            old,
            pending,
            ..
        } = state;
        let entries = accepted.len() + young.len() + old.len() + pending.len();
        self.entries.store(entries, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn accepted(&self, key: &[u8], base: Tag) -> Option<&Arc<Accepted>> {
        let open = self.accepted.get(key).filter(|open| open.base == base);
        open.map(|open| &open.accepted)
    }

    fn promised(&self, key: &[u8], base: Tag) -> Option<Given> {
        let given = self.young.get(key).or_else(|| self.old.get(key));
        given.filter(|given| given.base == base).copied()
    }

    /// Gives a promise; returns its number.
    fn promise(&mut self, key: &[u8], base: Tag, ballot: Ballot) -> u64 {
        if self.young.len() >= PROMISES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.promises += 1;
        let number = self.promises;
        let given = Given {
            base,
            ballot,
            number,
        };
        self.young.insert(Bytes::copy_from_slice(key), given);
        number
    }
}

fn tag_of(held: Option<RecordHead>) -> Tag {
    held.map_or(Tag::ZERO, |head| head.tag)
}

fn accepted_bytes(key: &[u8], accepted: &Accepted) -> usize {
    let parts = Parts::of(&accepted.record.content);
    let content_bytes = parts.content_type.len() + parts.value.len();
    key.len() + content_bytes + OVERHEAD_BYTES
}

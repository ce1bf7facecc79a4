//! Which record is read when.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::ring::Position;

use crate::allowance::Allowance;
use crate::store::RecordStore as _;
use crate::store::disk::{DiskStore, Scrubbed};

/// How much is read a second by default, in bytes.
pub const SCRUB_RATE_DEFAULT: u64 = 1 << 20;

/// What a record counts beside its bytes: a disk reads pages.
const RECORD_BYTES: usize = 4_096;

/// So many keys are taken from the store at a time.
const KEYS_MAX: usize = 256;

/// A round takes so long at least.
const ROUND_MIN: Duration = Duration::from_secs(10);

/// After so long it is tried again, where too many reads wait.
const BUSY: Duration = Duration::from_secs(1);

/// How fast it goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So many bytes a second, which are not 0; a record counts 4,096 beside its own.
    pub bytes_per_second: u64,
    /// A round takes so long at least.
    pub round_min: Duration,
}

impl Pace {
    /// That of servers, with this rate.
    pub fn of(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            round_min: ROUND_MIN,
        }
    }
}

/// The scrub of a durable store. One read is under way at a time.
pub struct Scrub {
    store: Arc<DiskStore>,
    allowance: Allowance,
    round_min: Duration,
    /// When the round began.
    began: Instant,
    /// Behind which record the next keys are; none at the beginning of a round.
    after: Option<Key>,
    keys: VecDeque<Key>,
    /// When there is something to do; none while a read is under way.
    due: Option<Instant>,
    /// The read that has come to its end.
    read: Arc<Mutex<Option<Scrubbed>>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Scrub {
    /// The scrub of a store. `wake` is called when [`Self::handle_read`] is to be.
    pub fn new(
        store: Arc<DiskStore>,
        pace: Pace,
        now: Instant,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            allowance: Allowance::new(pace.bytes_per_second),
            round_min: pace.round_min,
            began: now,
            after: None,
            keys: VecDeque::new(),
            due: Some(now),
            read: Arc::default(),
            wake: Arc::new(wake),
        }
    }

    /// When [`Self::handle_timeout`] is to be called next, if nothing is read before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.go_on(now);
        }
    }

    /// Takes note of what has been read.
    pub fn handle_read(&mut self, now: Instant) {
        let read = self
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Scrubbed { bytes }) = read {
            self.allowance.spend(bytes as usize + RECORD_BYTES);
            self.due = Some(now);
            self.go_on(now);
        }
    }

    fn go_on(&mut self, now: Instant) {
        let allowed_at = self.allowance.ready_at(now);
        if allowed_at > now {
            self.due = Some(allowed_at);
            return;
        }
        if self.keys.is_empty() {
            self.take_keys();
        }
        let Some(key) = self.keys.pop_front() else {
            self.store.end_scrub_round(now);
            self.after = None;
            self.began = now.max(self.began + self.round_min);
            self.due = Some(self.began);
            return;
        };
        let (read, wake) = (Arc::clone(&self.read), Arc::clone(&self.wake));
        let completion = Box::new(move |scrubbed| {
            *read.lock().unwrap_or_else(PoisonError::into_inner) = Some(scrubbed);
            wake();
        });
        self.due = None;
        if !self.store.scrub(&key, completion) {
            self.keys.push_front(key);
            self.due = Some(now + BUSY);
        }
    }

    /// Takes the next keys of the round, in ring order.
    fn take_keys(&mut self) {
        let beginning = Position([0; 20]);
        let from = self.after.as_ref().map_or(beginning, Position::of_key);
        let keys = &mut self.keys;
        self.store.scan(from, self.after.as_ref(), |held| {
            keys.extend(Key::new(Bytes::copy_from_slice(held.key())));
            match keys.len() < KEYS_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        self.after = self.keys.back().cloned().or(self.after.take());
    }
}

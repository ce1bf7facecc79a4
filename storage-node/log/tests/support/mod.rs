//! An owner of a log: keys and places in memory, and what it should hold.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use dkvs_log::simulated::SimulatedDisk;
use dkvs_log::{
    AppendError, Entry, History, Index, Liveness, Location, Log, OpenError, Options, ReadError,
    Reader, Recovery, Room, Visited,
};

pub(crate) const HISTORY: History = History([7; 16]);

pub(crate) fn options() -> Options {
    Options {
        history: HISTORY,
        segment_bytes: 64 << 10,
    }
}

/// Numbers that look random and are the same on every run: SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }
}

/// What a change does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A value of so many bytes.
    Put(usize),
    /// A record that says that it is deleted.
    Delete,
    /// A record that says that nothing is known of it, and that is forgotten in time.
    Remove,
}

/// The value of a change: bytes that no other change has.
pub(crate) fn value(number: u64, change: Change) -> Vec<u8> {
    let Change::Put(length) = change else {
        return Vec::new();
    };
    let mut random = Random(number);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn key(key: u32) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

fn head(number: u64, change: Change) -> [u8; 9] {
    let mut head = [0; 9];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8] = match change {
        Change::Put(_) => 0,
        Change::Delete => 1,
        Change::Remove => 2,
    };
    head
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) sequence: u64,
    pub(crate) location: Location,
    pub(crate) number: u64,
    pub(crate) is_removal: bool,
    pub(crate) is_value_lost: bool,
}

/// The newest record of each key.
#[derive(Debug, Default, Clone)]
pub(crate) struct Keys(pub(crate) BTreeMap<Vec<u8>, Held>);

impl Keys {
    fn note(&mut self, visited: &Visited<'_>) -> Option<Location> {
        let number = u64::from_le_bytes(visited.head[..8].try_into().unwrap());
        let held = Held {
            sequence: visited.sequence,
            location: visited.location,
            number,
            is_removal: visited.head[8] == 2,
            is_value_lost: visited.is_value_lost,
        };
        let old = self.0.insert(visited.key.to_vec(), held);
        old.map(|old| {
            assert!(old.sequence < held.sequence, "they come in order");
            old.location
        })
    }
}

impl Index for Keys {
    fn liveness(&mut self, record: &Visited<'_>, is_oldest: bool) -> Liveness {
        match self.0.get(record.key) {
            Some(held) if held.location == record.location => {
                if held.is_removal && is_oldest {
                    self.0.remove(record.key);
                    return Liveness::Expired;
                }
                Liveness::Live
            }
            _ => Liveness::Dead,
        }
    }

    fn moved(&mut self, key: &[u8], from: Location, to: Location, sequence: u64) {
        let held = self.0.get_mut(key).unwrap();
        assert_eq!(held.location, from);
        (held.location, held.sequence) = (to, sequence);
    }
}

pub(crate) struct Owner {
    options: Options,
    pub(crate) log: Log,
    pub(crate) keys: Keys,
}

impl Owner {
    pub(crate) fn create(disk: &SimulatedDisk) -> Self {
        Self::create_with(disk, options())
    }

    pub(crate) fn create_with(disk: &SimulatedDisk, options: Options) -> Self {
        let log = Log::create(Arc::new(disk.clone()), options).unwrap();
        let keys = Keys::default();
        Self { options, log, keys }
    }

    /// The process ends and starts again.
    pub(crate) fn reopen(&mut self, disk: &SimulatedDisk) -> Recovery {
        let (owner, recovery) = Self::open_with(disk, self.options).unwrap();
        *self = owner;
        recovery
    }

    pub(crate) fn open(disk: &SimulatedDisk) -> Result<(Self, Recovery), OpenError> {
        Self::open_with(disk, options())
    }

    pub(crate) fn open_with(
        disk: &SimulatedDisk,
        options: Options,
    ) -> Result<(Self, Recovery), OpenError> {
        let mut keys = Keys::default();
        let medium = Arc::new(disk.clone());
        let (log, recovery) = Log::open(medium, options, &mut |it| keys.note(&it))?;
        Ok((Self { options, log, keys }, recovery))
    }

    /// Appends changes, each with its number, under one sync.
    pub(crate) fn append(
        &mut self,
        changes: &[(u32, u64, Change)],
        room: Room,
    ) -> Result<(), AppendError> {
        let records: Vec<_> = changes
            .iter()
            .map(|(k, number, change)| (key(*k), head(*number, *change), value(*number, *change)))
            .collect();
        let entries: Vec<Entry<'_>> = records
            .iter()
            .map(|(key, head, value)| Entry { key, head, value })
            .collect();
        let mut appended = Vec::new();
        self.log.append(&entries, room, &mut appended)?;
        for ((entry, appended), (_, number, change)) in entries.iter().zip(&appended).zip(changes) {
            let held = Held {
                sequence: appended.sequence,
                location: appended.location,
                number: *number,
                is_removal: *change == Change::Remove,
                is_value_lost: false,
            };
            if let Some(old) = self.keys.0.insert(entry.key.to_vec(), held) {
                self.log.release(old.location);
            }
        }
        Ok(())
    }

    /// Compacts until there is nothing to do, or so often.
    pub(crate) fn compact(&mut self, steps: usize, budget: u64) -> Result<usize, AppendError> {
        for step in 0..steps {
            if !self.log.compact_step(budget, &mut self.keys)? {
                return Ok(step);
            }
        }
        Ok(steps)
    }

    pub(crate) fn write_hints(&mut self) -> Result<(), AppendError> {
        while let Some(job) = self.log.hint_job() {
            match job.run() {
                Ok(done) => self.log.finish_hint(&done)?,
                Err(error) => return Err(AppendError::Failed(error)),
            }
        }
        Ok(())
    }

    pub(crate) fn reader(&self) -> Reader {
        self.log.reader()
    }

    /// The value of a key, verified to be the one of its number.
    pub(crate) fn read(&self, k: &[u8]) -> Option<Result<Vec<u8>, ReadError>> {
        let held = self.keys.0.get(k)?;
        Some(self.reader().read(held.location).map(|record| {
            assert_eq!((record.key(), record.sequence), (k, held.sequence));
            record.value().to_vec()
        }))
    }
}

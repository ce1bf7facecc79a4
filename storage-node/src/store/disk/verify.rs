//! Which long values are to be verified as a whole, of which parts are read.
//!
//! Parts of a long value are not verified: who asked for all of them verifies the whole, and takes it from
//! another server if it is wrong. So that the server with the damage knows of it, too, it reads the whole
//! itself, each time that as many chunks of it were read from the disk as it has. So verifying reads no more
//! than what is verified was read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use dkvs_log::Location;

/// Of so many long values it is known how much of them was read. As many reads may wait.
const COUNTED_MAX: usize = 1_024;

/// How much was read of long values of late.
#[derive(Default)]
pub(super) struct ReadChunks(Mutex<Values>);

#[derive(Default)]
struct Values {
    /// How many chunks of each were read since it was verified.
    chunks_read: HashMap<Location, u32>,
    /// The same values, in the order in which they came.
    order: VecDeque<Location>,
}

impl ReadChunks {
    /// Notes that a chunk of a value of so many chunks was read from the disk. Returns whether the value is
    /// to be verified.
    pub(super) fn is_due(&self, location: Location, chunks: u32) -> bool {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = values.chunks_read.get(&location).copied();
        let read = known.unwrap_or(0) + 1;
        if read >= chunks {
            if known.is_some() {
                values.chunks_read.remove(&location);
                values.order.retain(|it| *it != location);
            }
            return true;
        }
        values.chunks_read.insert(location, read);
        if known.is_none() {
            values.order.push_back(location);
        }
        if values.order.len() > COUNTED_MAX
            && let Some(oldest) = values.order.pop_front()
        {
            values.chunks_read.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> Location {
        Location {
            segment: 1,
            offset,
            bytes: 1 << 20,
        }
    }

    #[test]
    fn a_value_is_verified_once_for_as_many_chunks_as_it_has() {
        let chunks = ReadChunks::default();
        for _ in 0..5 {
            let due: Vec<bool> = (0..16).map(|_| chunks.is_due(at(0), 16)).collect();
            assert!(due[15] && !due[..15].contains(&true), "{due:?}");
        }
        // Several at a time do not disturb each other.
        let mut count = 0;
        for _ in 0..16 {
            for offset in 1..1_000 {
                count += usize::from(chunks.is_due(at(offset), 16));
            }
        }
        assert_eq!(count, 999);
    }

    #[test]
    fn what_is_known_is_limited() {
        let chunks = ReadChunks::default();
        for offset in 0..10_000 {
            assert!(!chunks.is_due(at(offset), 256));
        }
        let values = chunks.0.lock().unwrap();
        assert_eq!(values.order.len(), COUNTED_MAX);
        assert_eq!(values.chunks_read.len(), COUNTED_MAX);
    }
}

//! Which long values are to be verified as a whole, of which parts are read.
//!
//! Parts of a long value are not verified: who asked for all of them verifies the whole, and takes it from
//! another server if it is wrong. So that the server with the damage knows of it, too, it reads the whole
//! itself, once for as many chunks from the disk as the value has. That is twice the work at most.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use dkvs_log::Location;

/// Of so many long values it is known that they were verified of late. As many reads may wait.
const VERIFIED_MAX: usize = 1_024;

/// Long values that were verified of late.
#[derive(Default)]
pub(super) struct Verified(Mutex<Values>);

#[derive(Default)]
struct Values {
    /// After how many more chunks each is to be verified again.
    chunks_left: HashMap<Location, u32>,
    /// In the order in which they were verified; some may not be in the table any more.
    order: VecDeque<Location>,
}

impl Verified {
    /// Notes that a chunk of a value of so many chunks was read from the disk. Returns whether the value is
    /// to be verified.
    pub(super) fn is_due(&self, location: Location, chunks: u32) -> bool {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = values.chunks_left.get_mut(&location) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                values.chunks_left.remove(&location);
            }
            return false;
        }
        if chunks < 2 {
            return true;
        }
        if values.order.len() >= VERIFIED_MAX
            && let Some(oldest) = values.order.pop_front()
        {
            values.chunks_left.remove(&oldest);
        }
        values.chunks_left.insert(location, chunks - 1);
        values.order.push_back(location);
        true
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
        let verified = Verified::default();
        for _ in 0..5 {
            let due: Vec<bool> = (0..16).map(|_| verified.is_due(at(0), 16)).collect();
            assert!(due[0] && !due[1..].contains(&true), "{due:?}");
        }
        // Several at a time do not disturb each other.
        let mut count = 0;
        for _ in 0..16 {
            for offset in 1..1_000 {
                count += usize::from(verified.is_due(at(offset), 16));
            }
        }
        assert_eq!(count, 999);
    }

    #[test]
    fn what_is_known_is_limited() {
        let verified = Verified::default();
        for offset in 0..10_000 {
            assert!(verified.is_due(at(offset), 256));
        }
        let values = verified.0.lock().unwrap();
        assert_eq!(values.order.len(), VERIFIED_MAX);
        assert_eq!(values.chunks_left.len(), VERIFIED_MAX);
    }
}

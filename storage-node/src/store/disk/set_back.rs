//! What becomes of a store that turns out to lack what its server confirmed, while it is open.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use dkvs_common::ring::Position;

use super::entry::IndexEntry;
use super::store::DiskStore;
use crate::store::head::TableEntry as _;
use crate::store::ranges::IntervalSet;

/// How many records are quarantined at a time.
const STEP_RECORDS: usize = 1_024;

impl DiskStore {
    /// Answers for no key any more, until it is attested. What it holds may be older than what was confirmed.
    pub(super) fn lose_all(&self) {
        self.status.is_complete.store(false, Ordering::Release);
        *self.attested_mut() = IntervalSet::default();
        let mut from = Some(Position([0; 20]));
        while let Some(begin) = from.take() {
            let mut keys = Vec::new();
            self.table().scan(begin, None, |held: &IndexEntry| {
                if keys.len() == STEP_RECORDS {
                    from = Some(Position::of_key_bytes(held.key()));
                    return ControlFlow::Break(());
                }
                if !held.is_quarantined() {
                    keys.push(held.key().to_vec());
                }
                ControlFlow::Continue(())
            });
            for key in keys {
                self.flag_quarantined(&key, true);
            }
        }
    }
}

//! What is due and no append should wait for: the reserve, the next segment, the high-water mark, hints.

use std::io;
use std::sync::Arc;

use crate::errors::AppendError;
use crate::format::RECORDS_BEGIN;
use crate::hint::{HintDone, HintJob, HintOutcome};
use crate::log::{HintState, Log, Room};
use crate::segment::hint_name;

impl Log {
    /// Does what is due and no append should wait for: fills the reserve, sets room aside for the next
    /// segment, syncs the high-water mark. Returns whether anything was done.
    pub fn maintain(&mut self) -> Result<bool, AppendError> {
        self.check()?;
        let maintained = self.maintain_files();
        match self.note_opening(maintained) {
            // It can wait.
            Err(AppendError::OutOfFiles(_)) => Ok(false),
            maintained => maintained,
        }
    }

    fn maintain_files(&mut self) -> io::Result<bool> {
        let is_synced = self.high_water.sync()?;
        let each = self.segment_bytes()?;
        let before = self.spares.bytes();
        let is_reserve_full = self.spares.refill(self.reserve_wanted(each), each)?;
        let is_filled = before != self.spares.bytes();
        let active = self.active.map(|number| &self.segments[&number]);
        let is_next_soon = active.is_some_and(|it| it.room() < it.capacity / 2);
        let is_made = is_next_soon
            && is_reserve_full
            && self.ready.is_empty()
            && self
                .ready_segment(0, RECORDS_BEGIN, Room::Ordinary)?
                .is_some();
        Ok(is_synced || is_filled || is_made)
    }

    /// The work of writing a hint, if a segment needs one: for any thread, and then for
    /// [`Self::finish_hint`].
    pub fn hint_job(&mut self) -> Option<HintJob> {
        let active = self.active;
        // Hints can wait for room.
        let each = self.segment_bytes().ok()?;
        if self.is_full || self.spares.bytes() < self.reserve_wanted(each) {
            return None;
        }
        let mut segments = self.segments.iter_mut();
        let (_, segment) = segments.find(|(number, segment)| {
            segment.hint == HintState::Missing && Some(**number) != active
        })?;
        segment.hint = HintState::Taken;
        Some(HintJob {
            history: self.options.history,
            span: segment.span,
            files: Arc::clone(&self.files),
        })
    }

    /// Takes note of a hint that was written.
    pub fn finish_hint(&mut self, done: &HintDone) -> Result<(), AppendError> {
        let state = match done.outcome {
            HintOutcome::Written(bytes) => HintState::Written(bytes),
            HintOutcome::NotNow => HintState::Missing,
            HintOutcome::Never => return Ok(()),
        };
        match self.segments.get_mut(&done.segment) {
            Some(segment) => {
                segment.hint = state;
                Ok(())
            }
            None if state == HintState::Missing => Ok(()),
            // The segment went meanwhile.
            None => {
                let removed = self.medium.remove(&hint_name(done.segment));
                self.note(removed)
            }
        }
    }
}

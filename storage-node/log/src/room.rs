//! Room on the disk: how long segments become, the reserve, and who may take what.
//!
//! Ordinary records take what is left beside the reserve. Those that make room take the reserve, too,
//! and leave what compaction needs: it copies the live records of a segment before that goes.

use std::io;

use crate::errors::AppendError;
use crate::format::{Entry, RECORDS_BEGIN};
use crate::log::{HintState, Log, Room, Segment};
use crate::medium::is_full;
use crate::spares::BLOCK_BYTES;

/// A segment of a log that holds little is so long, unless the disk is small.
const SEGMENT_BYTES_SMALL: u64 = 1 << 20;

/// No segment is shorter, but one whose records are.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;

/// No segment is longer.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// A segment takes at most this part of the data, and of the disk.
const SEGMENT_PART: u64 = 32;

/// A segment has room for so many of the longest records, if the disk allows it.
const SEGMENT_RECORDS_MIN: u64 = 4;

/// The reserve has so many segments,
const RESERVE_SEGMENTS: u64 = 4;

/// and at least this part of the data: so much of it is dead when deletions have used the reserve, or
/// more, and compaction copies the rest.
const RESERVE_PART: u64 = 32;

/// What the log takes of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Records that are live.
    pub live: u64,
    /// Records that are not.
    pub dead: u64,
    /// What was set aside, or taken, beside the records: the rest of the last segment, hints and
    /// such.
    pub overhead: u64,
    /// The reserve.
    pub reserve: u64,
    /// How long the reserve is to be.
    pub reserve_wanted: u64,
    /// What the disk has left.
    pub available: u64,
    /// How many segments there are.
    pub segments: usize,
    /// How many of them have live records that cannot be moved, because they are damaged.
    pub damaged_segments: usize,
    /// What was moved by compaction since the log was opened.
    pub compacted: u64,
}

/// What the records of the log take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSpace {
    /// Those that are live.
    pub live: u64,
    /// Those that are not.
    pub dead: u64,
    /// What was moved by compaction since the log was opened.
    pub compacted: u64,
    /// It changes whenever a segment comes or goes.
    pub segments: (u32, usize),
}

impl Log {
    /// How long the next segment is to be.
    pub(crate) fn segment_bytes(&self) -> io::Result<u32> {
        let capacity = self.segments.values().map(|it| u64::from(it.capacity));
        let disk = self
            .medium
            .bytes_available()?
            .saturating_add(capacity.sum());
        let disk = disk.saturating_add(self.spares.bytes());
        let of_data = (self.bytes / SEGMENT_PART).max(SEGMENT_BYTES_SMALL);
        let of_longest = u64::from(RECORDS_BEGIN) + SEGMENT_RECORDS_MIN * u64::from(self.longest);
        let bytes = of_data.max(of_longest).next_multiple_of(BLOCK_BYTES.into());
        let bytes = bytes.min(disk / SEGMENT_PART);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX) / BLOCK_BYTES * BLOCK_BYTES;
        let longest = self.options.segment_bytes;
        Ok(bytes.clamp(
            SEGMENT_BYTES_MIN,
            longest.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
        ))
    }

    /// How long the reserve is to be: enough for some segments, and for the longest record in place of
    /// another.
    pub(crate) fn reserve_wanted(&self, segment_bytes: u32) -> u64 {
        let segment_bytes = u64::from(segment_bytes);
        let of_longest = match u64::from(self.longest) > segment_bytes {
            true => u64::from(self.longest) + 2 * segment_bytes,
            false => 0,
        };
        let of_data = self.bytes / RESERVE_PART;
        of_longest
            .max(RESERVE_SEGMENTS * segment_bytes)
            .max(of_data)
    }

    /// Sees to it that there is room for records. Nothing has changed if there is none.
    pub(crate) fn prepare(&mut self, entries: &[Entry<'_>], room: Room) -> Result<(), AppendError> {
        self.check()?;
        if !entries.iter().all(Entry::fits) {
            return Err(AppendError::TooLong);
        }
        if entries.is_empty() {
            return Ok(());
        }
        let is_there = self.make_ready(entries, room);
        let is_there = self.note_opening(is_there)?;
        if room == Room::Ordinary {
            self.is_full = !is_there;
        }
        if is_there {
            return Ok(());
        }
        // Nothing is held back that others may need.
        while let Some(ready) = self.ready.pop_front() {
            self.spares.put(ready.spare);
        }
        Err(AppendError::Full)
    }

    /// Makes the segments ready that records need. Returns whether there is room for them.
    fn make_ready(&mut self, entries: &[Entry<'_>], room: Room) -> io::Result<bool> {
        let active = self.active.map(|number| &self.segments[&number]);
        let mut left = active.map_or(0, Segment::room);
        let mut segments = 0;
        for entry in entries {
            let bytes = entry.record_bytes() as u32;
            if bytes > left {
                let ready = self.ready_segment(segments, RECORDS_BEGIN + bytes, room)?;
                let Some(ready) = ready else {
                    return Ok(false);
                };
                segments += 1;
                left = ready - RECORDS_BEGIN;
            }
            left -= bytes;
        }
        Ok(room == Room::Compaction || self.spares.len() > 1 || self.can_compact(left)?)
    }

    /// Whether a segment could still be compacted, or the one that is about to be, with so many bytes
    /// left in the active one.
    fn can_compact(&self, left: u32) -> io::Result<bool> {
        let victim = self.victim.as_ref().map(|it| it.segment);
        let victim = victim.and_then(|number| self.segments.get(&number));
        let needed = match victim {
            Some(segment) => segment.live_bytes,
            None => self.segment_bytes()?.into(),
        };
        Ok(self.fits_copies(needed, left, self.medium.bytes_available()?))
    }

    /// Whether records of so many bytes in all, each of which has been in one segment, can be copied:
    /// to what is left of the active segment, or to a single other one.
    pub(crate) fn fits_copies(&self, bytes: u64, left: u32, available: u64) -> bool {
        let with_head = bytes + u64::from(RECORDS_BEGIN + BLOCK_BYTES);
        bytes <= left.into() || with_head <= self.spares.longest().max(available)
    }

    /// Sees to it that the next segment, or one after it, has at least so many bytes. Returns how many
    /// it has; none if there is no room.
    pub(crate) fn ready_segment(
        &mut self,
        at: usize,
        bytes: u32,
        room: Room,
    ) -> io::Result<Option<u32>> {
        if let Some(ready) = self.ready.get(at) {
            if ready.spare.bytes >= bytes {
                return Ok(Some(ready.spare.bytes));
            }
            let short = self.ready.remove(at).expect("it is there");
            self.spares.put(short.spare);
        }
        match self.manifest.make_room(self.segments.len() + at + 2) {
            Err(error) if is_full(&error) => return Ok(None),
            result => result?,
        }
        let each = self.segment_bytes()?;
        let wanted = self.reserve_wanted(each);
        let best = bytes.next_multiple_of(BLOCK_BYTES).max(each);
        let taken = match room {
            Room::Ordinary => match self.spares.take_surplus(bytes, wanted)? {
                Some(ready) => Some(ready),
                None if !self.spares.refill(wanted, each)? => None,
                None => self.spares.make(best, u64::from(each) / 4)?,
            },
            // What is left outside of the reserve, if that is full; else the reserve.
            Room::Reserve => match self.spares.refill(wanted, each)? {
                true => match self.spares.make(best, 0)? {
                    Some(ready) => Some(ready),
                    None => self.spares.take(bytes, 1)?,
                },
                false => self.spares.take(bytes, 1)?,
            },
            Room::Compaction => match self.spares.make(best, 0)? {
                Some(ready) => Some(ready),
                None => self.spares.take(bytes, 0)?,
            },
        };
        Ok(taken.map(|ready| {
            let bytes = ready.spare.bytes;
            self.ready.insert(at, ready);
            bytes
        }))
    }

    /// What its records take. It costs nothing to know, unlike [`Self::space`].
    pub fn records(&self) -> RecordSpace {
        RecordSpace {
            live: self.live_bytes,
            dead: self.bytes - self.live_bytes,
            compacted: self.compacted,
            segments: (self.next_segment, self.segments.len()),
        }
    }

    /// What the log takes of the disk. It asks the disk, and looks at each segment.
    pub fn space(&self) -> Space {
        let hints = self.segments.values().map(|it| match it.hint {
            HintState::Written(bytes) => bytes,
            _ => 0,
        });
        let capacity = self.segments.values().map(|it| u64::from(it.capacity));
        let ready = self.ready.iter().map(|it| u64::from(it.spare.bytes));
        let taken: u64 = hints.chain(capacity).chain(ready).sum();
        Space {
            live: self.live_bytes,
            dead: self.bytes - self.live_bytes,
            overhead: (taken + self.manifest.bytes()).saturating_sub(self.bytes),
            reserve: self.spares.bytes(),
            reserve_wanted: self.reserve_wanted(self.segment_bytes().unwrap_or(SEGMENT_BYTES_MIN)),
            available: self.medium.bytes_available().unwrap_or(0),
            segments: self.segments.len(),
            damaged_segments: self.segments.values().filter(|it| it.is_stuck).count(),
            compacted: self.compacted,
        }
    }
}

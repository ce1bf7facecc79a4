//! The log while it is open: appends, room, and what the owner says of its records.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;

use crate::errors::{AppendError, LostRange};
use crate::format::{
    Entry, FileHead, FileKind, History, Location, RECORDS_BEGIN, RecordHead, Seed,
};
use crate::high_water::HighWater;
use crate::hint::{HintDone, HintJob};
use crate::manifest::{Lost, Manifest, ManifestFiles, merge};
use crate::medium::{Medium, MediumFile, is_full};
use crate::reader::{Files, Reader};
use crate::segment::{Span, hint_name, segment_name};
use crate::spares::{BLOCK_BYTES, Spare, Spares};
use crate::victim::Victim;

/// A segment of a log that holds little is so long, unless the disk is small.
const SEGMENT_BYTES_SMALL: u64 = 1 << 20;

/// No segment is shorter, but one whose records are.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;

/// No segment is longer.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// A segment takes at most this part of the data, and of the disk.
const SEGMENT_PART: u64 = 32;

/// The reserve has so many segments,
const RESERVE_SEGMENTS: u64 = 4;

/// and at least this part of the data: so much of it is dead when deletions have used the reserve, or
/// more, and compaction copies the rest.
const RESERVE_PART: u64 = 32;

/// How a log is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whose log it is.
    pub history: History,
    /// How long segments become as the log grows: 64 MiB are good. Within [`SEGMENT_BYTES_MIN`] and
    /// [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u32,
}

/// Which room records may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// What is there beside the reserve.
    Ordinary,
    /// The reserve as well, but for what compaction needs: for records that make room, as those of
    /// deletions do, and values that replace longer ones. If this is refused, it is taken after some
    /// compaction.
    Reserve,
    /// All of it.
    Compaction,
}

/// Where a record was appended, and under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub sequence: u64,
    /// Where it lies.
    pub location: Location,
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HintState {
    Missing,
    /// It is being written, or there is no use in trying.
    Taken,
    Written(u64),
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) span: Span,
    /// How many bytes room was set aside for.
    pub(crate) capacity: u32,
    pub(crate) live_bytes: u64,
    pub(crate) live_records: u64,
    pub(crate) file: Arc<dyn MediumFile>,
    pub(crate) hint: HintState,
    /// Whether some of its live records could not be moved.
    pub(crate) is_stuck: bool,
}

impl Segment {
    pub(crate) fn record_bytes(&self) -> u64 {
        self.span.end.saturating_sub(RECORDS_BEGIN).into()
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.record_bytes().saturating_sub(self.live_bytes)
    }

    pub(crate) fn room(&self) -> u32 {
        self.capacity.saturating_sub(self.span.end)
    }
}

/// A log that is open.
#[derive(Debug)]
pub struct Log {
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) options: Options,
    pub(crate) files: Arc<Files>,
    pub(crate) segments: BTreeMap<u32, Segment>,
    /// The segment to which records are appended.
    pub(crate) active: Option<u32>,
    pub(crate) next_segment: u32,
    pub(crate) next_sequence: u64,
    /// The last record that was synced.
    pub(crate) synced: u64,
    pub(crate) spares: Spares,
    /// The next segments, in this order.
    pub(crate) ready: VecDeque<Spare>,
    pub(crate) manifest: ManifestFiles,
    pub(crate) generation: u64,
    pub(crate) lost: Vec<Lost>,
    pub(crate) high_water: HighWater,
    pub(crate) is_failed: bool,
    /// Whether an ordinary append was refused for want of room, the last time.
    pub(crate) is_full: bool,
    pub(crate) victim: Option<Victim>,
    /// Sealed segments without live records.
    pub(crate) emptied: Vec<u32>,
    /// The longest record so far.
    pub(crate) longest: u32,
    /// Bytes of all records, and of those that are live.
    pub(crate) bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) compacted: u64,
    pub(crate) buffer: Vec<u8>,
}

impl Log {
    /// Appends records under the next numbers, in their order, and syncs once. Their places are added
    /// to `appended`. Copies that compaction made before are synced with them.
    pub fn append(
        &mut self,
        entries: &[Entry<'_>],
        room: Room,
        appended: &mut Vec<Appended>,
    ) -> Result<(), AppendError> {
        self.prepare(entries, room)?;
        let written = self.write(entries, appended);
        let synced = written.and_then(|()| self.sync_written());
        self.note(synced)
    }

    /// What reads the log's records.
    pub fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.files))
    }

    /// Says that a record is dead: a newer one has taken its place. To be said once of each.
    pub fn release(&mut self, location: Location) {
        let Some(segment) = self.segments.get_mut(&location.segment) else {
            return;
        };
        if segment.live_records == 0 {
            return;
        }
        let bytes = segment.live_bytes.min(location.bytes.into());
        segment.live_bytes -= bytes;
        segment.live_records -= 1;
        self.live_bytes -= bytes;
        if segment.live_records == 0 && self.active != Some(location.segment) {
            self.emptied.push(location.segment);
        }
    }

    /// The number of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// What is lost, as far as its owner has not acknowledged it.
    pub fn lost(&self) -> impl Iterator<Item = LostRange> {
        let lost = self.lost.iter().filter(|it| !it.is_acknowledged);
        lost.map(|it| it.range)
    }

    /// Forgets what is lost: its owner has made up for it. Until then it is reported at each start.
    pub fn acknowledge_lost(&mut self) -> Result<(), AppendError> {
        self.check()?;
        for lost in &mut self.lost {
            lost.is_acknowledged = true;
        }
        merge(&mut self.lost);
        let written = self.write_manifest();
        self.note(written)
    }

    /// Does what is due and no append should wait for: fills the reserve, sets room aside for the next
    /// segment, syncs the high-water mark. Returns whether anything was done.
    pub fn maintain(&mut self) -> Result<bool, AppendError> {
        self.check()?;
        let maintained = self.maintain_files();
        self.note(maintained)
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
            medium: Arc::clone(&self.medium),
            history: self.options.history,
            span: segment.span,
            file: Arc::clone(&segment.file),
        })
    }

    /// Takes note of a hint that was written.
    pub fn finish_hint(&mut self, done: &HintDone) -> Result<(), AppendError> {
        let Some(bytes) = done.bytes else {
            return Ok(());
        };
        match self.segments.get_mut(&done.segment) {
            Some(segment) => {
                segment.hint = HintState::Written(bytes);
                Ok(())
            }
            // The segment went meanwhile.
            None => {
                let removed = self.medium.remove(&hint_name(done.segment));
                self.note(removed)
            }
        }
    }

    /// What the log takes of the disk.
    pub fn space(&self) -> Space {
        let hints = self.segments.values().map(|it| match it.hint {
            HintState::Written(bytes) => bytes,
            _ => 0,
        });
        let capacity = self.segments.values().map(|it| u64::from(it.capacity));
        let ready = self.ready.iter().map(|it| u64::from(it.bytes));
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

    /// Whether the disk has failed: nothing is appended any more.
    pub fn is_failed(&self) -> bool {
        self.is_failed
    }

    pub(crate) fn check(&self) -> Result<(), AppendError> {
        match self.is_failed {
            true => Err(AppendError::Failed(io::Error::other(
                "it has failed before",
            ))),
            false => Ok(()),
        }
    }

    /// Makes an error of the disk final.
    pub(crate) fn note<T>(&mut self, result: io::Result<T>) -> Result<T, AppendError> {
        result.map_err(|error| {
            self.is_failed = true;
            AppendError::Failed(error)
        })
    }

    /// How long the next segment is to be.
    pub(crate) fn segment_bytes(&self) -> io::Result<u32> {
        let capacity = self.segments.values().map(|it| u64::from(it.capacity));
        let disk = self
            .medium
            .bytes_available()?
            .saturating_add(capacity.sum());
        let disk = disk.saturating_add(self.spares.bytes());
        let of_data = (self.bytes / SEGMENT_PART).max(SEGMENT_BYTES_SMALL);
        let bytes = of_data.min(disk / SEGMENT_PART);
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
        let is_there = self.make_ready(entries, room);
        let is_there = self.note(is_there)?;
        if room == Room::Ordinary {
            self.is_full = !is_there;
        }
        if is_there {
            return Ok(());
        }
        // Nothing is held back that others may need.
        while let Some(spare) = self.ready.pop_front() {
            self.spares.put(spare);
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
    fn ready_segment(&mut self, at: usize, bytes: u32, room: Room) -> io::Result<Option<u32>> {
        if let Some(ready) = self.ready.get(at) {
            if ready.bytes >= bytes {
                return Ok(Some(ready.bytes));
            }
            let short = self.ready.remove(at).expect("it is there");
            self.spares.put(short);
        }
        match self.manifest.make_room(self.segments.len() + at + 2) {
            Err(error) if is_full(&error) => return Ok(None),
            result => result?,
        }
        let each = self.segment_bytes()?;
        let wanted = self.reserve_wanted(each);
        let best = bytes.next_multiple_of(BLOCK_BYTES).max(each);
        let taken = match room {
            Room::Ordinary => match self.spares.take_surplus(bytes, wanted) {
                Some(spare) => Some(spare),
                None if !self.spares.refill(wanted, each)? => None,
                None => self.spares.make(best, u64::from(each) / 4)?,
            },
            // What is left outside of the reserve, if that is full; else the reserve.
            Room::Reserve => match self.spares.refill(wanted, each)? {
                true => match self.spares.make(best, 0)? {
                    Some(spare) => Some(spare),
                    None => self.spares.take(bytes, 1)?,
                },
                false => self.spares.take(bytes, 1)?,
            },
            Room::Compaction => match self.spares.make(best, 0)? {
                Some(spare) => Some(spare),
                None => self.spares.take(bytes, 0)?,
            },
        };
        Ok(taken.map(|spare| {
            let bytes = spare.bytes;
            self.ready.insert(at, spare);
            bytes
        }))
    }

    /// Writes records for which there is room. They are synced later.
    pub(crate) fn write(
        &mut self,
        entries: &[Entry<'_>],
        appended: &mut Vec<Appended>,
    ) -> io::Result<()> {
        let history = self.options.history.seed();
        let mut buffer = mem::take(&mut self.buffer);
        for entry in entries {
            let bytes = entry.record_bytes() as u32;
            let active = self.active.map(|number| &self.segments[&number]);
            if active.is_none_or(|it| it.room() < bytes) {
                self.flush(&mut buffer)?;
                self.rotate()?;
            }
            if self.next_sequence - 1 - self.synced > u16::MAX.into() {
                self.flush(&mut buffer)?;
                self.sync_written()?;
            }
            let batch_place = (self.next_sequence - 1 - self.synced) as u16;
            let sequence = self.next_sequence;
            let number = self.active.expect("there is one after a rotation");
            let segment = self
                .segments
                .get_mut(&number)
                .expect("it is the active one");
            let offset = segment.span.end;
            let seed = Seed {
                history,
                segment: number,
            };
            RecordHead::write(*entry, (sequence, batch_place), (seed, offset), &mut buffer);
            segment.span.end += bytes;
            segment.span.last = sequence;
            segment.live_bytes += u64::from(bytes);
            segment.live_records += 1;
            self.bytes += u64::from(bytes);
            self.live_bytes += u64::from(bytes);
            self.longest = self.longest.max(bytes);
            self.next_sequence += 1;
            let location = Location {
                segment: number,
                offset,
                bytes,
            };
            appended.push(Appended { sequence, location });
        }
        self.flush(&mut buffer)?;
        // A long one is not kept for short ones.
        buffer.shrink_to(1 << 20);
        self.buffer = buffer;
        Ok(())
    }

    /// Writes what was put together for the end of the active segment.
    fn flush(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Some(number) = self.active.filter(|_| !buffer.is_empty()) {
            let segment = &self.segments[&number];
            let begin = u64::from(segment.span.end) - buffer.len() as u64;
            segment.file.write_at(begin, buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    /// Returns once a crash takes back nothing of what was written.
    pub(crate) fn sync_written(&mut self) -> io::Result<()> {
        let written = self.next_sequence - 1;
        if let Some(number) = self.active.filter(|_| self.synced < written) {
            self.segments[&number].file.sync()?;
            self.synced = written;
            self.high_water.write(written)?;
        }
        Ok(())
    }

    /// Seals the active segment and begins the next one.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync_written()?;
        let spare = self.ready.pop_front();
        let spare = spare.ok_or_else(|| io::Error::other("no segment was made ready"))?;
        let number = self.next_segment;
        let next = number.checked_add(1);
        self.next_segment = next.ok_or_else(|| io::Error::other("no more segments"))?;
        // What a crash leaves of this has no records and is in no manifest.
        let head = FileHead {
            kind: FileKind::Segment,
            history: self.options.history,
            numbers: [number.into(), self.next_sequence, 0, 0],
            body_bytes: 0,
            body_checksum: 0,
        };
        self.medium.rename(&spare.name, &segment_name(number))?;
        spare.file.write_at(0, &head.encode())?;
        spare.file.sync()?;
        self.medium.sync_names()?;
        let span = Span {
            segment: number,
            first: self.next_sequence,
            last: self.next_sequence - 1,
            end: RECORDS_BEGIN,
        };
        self.files.insert(number, Arc::clone(&spare.file));
        let segment = Segment {
            span,
            capacity: spare.bytes,
            live_bytes: 0,
            live_records: 0,
            file: spare.file,
            hint: HintState::Missing,
            is_stuck: false,
        };
        self.segments.insert(number, segment);
        let sealed = self.active.replace(number);
        let Some(sealed) = sealed else {
            return self.write_manifest();
        };
        let segment = self
            .segments
            .get_mut(&sealed)
            .expect("it was the active one");
        if segment.span.records() == 0 {
            self.segments.remove(&sealed);
            self.write_manifest()?;
            self.files.remove(sealed);
            return self.medium.remove(&segment_name(sealed));
        }
        // The room that it does not need goes back.
        segment.capacity = segment.span.end.next_multiple_of(BLOCK_BYTES);
        if segment.live_records == 0 {
            self.emptied.push(sealed);
        }
        self.write_manifest()?;
        let segment = &self.segments[&sealed];
        segment.file.set_size(segment.span.end.into())
    }

    pub(crate) fn write_manifest(&mut self) -> io::Result<()> {
        self.generation += 1;
        let spans = self
            .segments
            .values()
            .map(|it| match self.active == Some(it.span.segment) {
                true => Span {
                    last: it.span.first - 1,
                    end: it.capacity,
                    ..it.span
                },
                false => it.span,
            });
        let segments: Vec<Span> = spans.collect();
        let overlaps = |lost: &LostRange| {
            let mut segments = segments.iter();
            segments.any(|it| it.first <= lost.last && lost.first <= it.last)
        };
        self.lost
            .retain(|it| !it.is_acknowledged || overlaps(&it.range));
        self.manifest.write(&Manifest {
            generation: self.generation,
            next_segment: self.next_segment,
            next_sequence: self.synced + 1,
            segments,
            is_last_sealed: self.active.is_none(),
            lost: self.lost.clone(),
        })
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
}

//! Compaction: the live records of a segment are appended anew, and it is removed.
//!
//! The copies get new numbers. So numbers have no gaps within a segment, and a copy says more than the
//! record did: that it was still the newest of its key when the copy was made. A crash in between
//! leaves both, of which the owner takes the newer.
//!
//! A live record that cannot be read stays where it is, and so does its segment, until its owner has
//! it replaced. Nothing that is known is forgotten for the sake of room.

use crate::errors::{AppendError, ReadError};
use crate::format::{Entry, Location, RECORDS_BEGIN, Seed};
use crate::hint::Hint;
use crate::log::{HintState, Log, Room, Segment};
use crate::medium::is_out_of_files;
use crate::reader::Record;
use crate::scan::Scanner;
use crate::segment::{Span, Visited, hint_name, segment_name};
use crate::victim::{Names, Victim};

/// The log is compacted when its records take more than so many parts of what the live ones do: eight
/// fifths. With the reserve and a segment on either end, that stays below two.
const BYTES_OF_LIVE: (u64, u64) = (8, 5);

/// A segment is worth compacting if one part in so many of it is dead, unless the reserve is used up.
const DEAD_PART_MIN: u64 = 16;

/// To look at a dead record costs as much as to copy so many bytes.
const LOOK_BYTES: u64 = 64;

/// What a record is to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It is the newest of its key.
    Live,
    /// Another has taken its place, and it was released.
    Dead,
    /// It was live, and is not needed from now on: the log releases it.
    Expired,
}

/// What the owner knows of its records.
pub trait Index {
    /// What a record is. One that says no more than that older records of its key are dead is needed
    /// for as long as there may be such, so no more if it `is_oldest`: if there is no segment before its
    /// own, which is about to go as a whole.
    fn liveness(&mut self, record: &Visited<'_>, is_oldest: bool) -> Liveness;

    /// The head of the copy that is about to be made of a live record, if it is to be another one: what
    /// the number said of the record, the copy has to say itself. It is to be as long.
    fn head_of_copy(&mut self, _record: &Visited<'_>) -> Option<Vec<u8>> {
        None
    }

    /// A live record cannot be read, and stays where it is.
    fn unreadable(&mut self, _record: &Visited<'_>) {}

    /// A live record was copied. It is read from its new place from now on; the old one may be gone at
    /// once.
    fn moved(&mut self, key: &[u8], from: Location, to: Location, sequence: u64);
}

/// A live record that is being copied, with another head if it is to have one.
struct Moving {
    from: Location,
    record: Record,
    head: Option<Vec<u8>>,
}

impl Log {
    /// Compacts a step further: copies at most so many bytes, or a single record, and syncs nothing,
    /// unless a segment goes. Returns whether it did anything: if not, nothing is to be compacted, or
    /// the disk has no room even for that.
    pub fn compact_step(
        &mut self,
        budget_bytes: u64,
        index: &mut dyn Index,
    ) -> Result<bool, AppendError> {
        self.check()?;
        while let Some(number) = self.emptied.pop() {
            let segment = self.segments.get(&number);
            if segment.is_some_and(|it| it.live_records == 0) && self.active != Some(number) {
                self.remove(number)?;
                return Ok(true);
            }
        }
        if self.victim.is_none() {
            let Some(number) = self.choose() else {
                return Ok(false);
            };
            self.victim = match self.begin(number) {
                Err(AppendError::OutOfFiles(_)) => return Ok(false),
                begun => begun?,
            };
        }
        let Some(mut victim) = self.victim.take() else {
            return Ok(true);
        };
        let Some(segment) = self.segments.get(&victim.segment) else {
            return Ok(true);
        };
        let is_oldest = self.segments.keys().next() == Some(&segment.span.segment);
        let (begin, mut end) = (segment.compacted_up_to, segment.compacted_up_to);
        let reader = self.reader();
        let (mut live, mut expired) = (Vec::new(), Vec::new());
        let (mut cost, mut is_end) = (0, false);
        while cost < budget_bytes {
            let Some(named) = victim.names.next() else {
                is_end = true;
                break;
            };
            cost += LOOK_BYTES;
            let Some(visited) = named.filter(|it| it.location.offset >= begin) else {
                continue;
            };
            end = visited.location.offset + 1;
            match index.liveness(&visited, is_oldest) {
                Liveness::Live => {}
                Liveness::Dead => continue,
                Liveness::Expired => {
                    expired.push(visited.location);
                    continue;
                }
            }
            match reader.read(visited.location) {
                Ok(record) => {
                    cost += u64::from(visited.location.bytes);
                    let head = index.head_of_copy(&visited);
                    live.push(Moving {
                        from: visited.location,
                        record,
                        head,
                    });
                }
                // It may be whole: later.
                Err(ReadError::OutOfFiles(_)) => return Ok(false),
                // It stays.
                Err(ReadError::Damaged | ReadError::Io(_) | ReadError::Gone) => {
                    index.unreadable(&visited);
                }
            }
        }
        match self.copy(&live, index) {
            // Not before: after a step that is refused, all of it is looked at again.
            Ok(()) => expired.into_iter().for_each(|at| self.release(at)),
            Err(AppendError::Full | AppendError::OutOfFiles(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(segment) = self.segments.get_mut(&victim.segment) {
            segment.compacted_up_to = end;
        }
        if !is_end {
            self.victim = Some(victim);
            return Ok(true);
        }
        let segment = self.segments.get_mut(&victim.segment);
        if let Some(segment) = segment.filter(|it| it.live_records > 0) {
            segment.is_stuck = true;
        }
        Ok(true)
    }

    /// How many bytes should be compacted beside an append of so many, to keep up.
    pub fn compaction_due(&self, appended_bytes: u64) -> u64 {
        let has_begun = self.victim.is_some() || !self.emptied.is_empty();
        let has_gaps = self.lost.iter().any(|it| it.is_acknowledged);
        let is_due = has_begun || has_gaps || self.is_too_long();
        match is_due {
            true => (4 * appended_bytes).max(64 << 10),
            false => 0,
        }
    }

    /// Has the oldest segment compacted next, whatever it holds: records that say that older ones are
    /// dead can go only from the oldest.
    pub fn compact_oldest(&mut self) {
        let oldest = self.segments.keys().next().copied();
        let may_go = |it: &u32| self.active != Some(*it) && !self.segments[it].is_stuck;
        if let Some(oldest) = oldest.filter(may_go)
            && let Ok(Some(victim)) = self.begin(oldest)
        {
            self.victim = Some(victim);
        }
    }

    fn copy(&mut self, live: &[Moving], index: &mut dyn Index) -> Result<(), AppendError> {
        if live.is_empty() {
            return Ok(());
        }
        let records = live.iter().map(|Moving { record, head, .. }| Entry {
            key: record.key(),
            head: head.as_deref().unwrap_or(record.head()),
            value: record.value(),
        });
        let entries: Vec<Entry<'_>> = records.collect();
        self.prepare(&entries, Room::Compaction)?;
        let mut copies = Vec::with_capacity(live.len());
        let written = self.write(&entries, &mut copies);
        self.note(written)?;
        for (Moving { from, record, .. }, copy) in live.iter().zip(copies) {
            index.moved(record.key(), *from, copy.location, copy.sequence);
            self.compacted += u64::from(from.bytes);
            self.release(*from);
        }
        Ok(())
    }

    fn is_too_long(&self) -> bool {
        let (bytes, live) = BYTES_OF_LIVE;
        let most = self.live_bytes * bytes / live;
        // Most often it is not, and the disk need not be asked.
        self.bytes > most && self.bytes > most + self.segment_bytes().map_or(0, u64::from)
    }

    /// Whether records of a segment were lost and their owner has made up for it. What is lost there
    /// later could be taken for the same.
    fn has_known_gap(&self, span: Span) -> bool {
        let mut known = self.lost.iter().filter(|it| it.is_acknowledged);
        known.any(|it| it.range.first <= span.last && span.first <= it.range.last)
    }

    /// The segment that is to be emptied next: one with a gap, or the one with the most dead bytes for
    /// its length, if it is worth it.
    fn choose(&self) -> Option<u32> {
        let each = self.segment_bytes().ok()?;
        let is_short = self.is_full || self.spares.bytes() < self.reserve_wanted(each);
        let is_urgent = self.spares.len() <= 1;
        let available = self.medium.bytes_available().ok()?;
        let active = self.active.map(|number| &self.segments[&number]);
        let left = active.map_or(0, Segment::room);
        let segments = self.segments.values().filter(|it| {
            self.active != Some(it.span.segment)
                && !it.is_stuck
                && self.fits_copies(it.live_bytes, left, available)
        });
        if let Some(segment) = segments.clone().find(|it| self.has_known_gap(it.span)) {
            return Some(segment.span.segment);
        }
        if !is_short && !self.is_too_long() {
            return None;
        }
        let part = |it: &Segment| (it.dead_bytes() << 16) / it.record_bytes().max(1);
        let best = segments.max_by_key(|it| part(it))?;
        let is_worth_it = part(best) >= (1 << 16) / DEAD_PART_MIN;
        let is_needed = is_urgent && best.dead_bytes() > 0;
        (is_worth_it || is_needed).then_some(best.span.segment)
    }

    /// Begins to empty a segment; none if it cannot be read at all, and stays.
    fn begin(&mut self, number: u32) -> Result<Option<Victim>, AppendError> {
        let Some(segment) = self.segments.get_mut(&number) else {
            return Ok(None);
        };
        let span = segment.span;
        let history = self.options.history;
        let names = match Hint::read(&*self.medium, history, span) {
            Some(hint) => Names::Hint(hint),
            None => {
                let file = match self.files.segment(number) {
                    Ok(Some(file)) => file,
                    Err(error) if is_out_of_files(&error) => {
                        return Err(AppendError::OutOfFiles(error));
                    }
                    Ok(None) | Err(_) => {
                        segment.is_stuck = true;
                        return Ok(None);
                    }
                };
                let seed = Seed {
                    history: history.seed(),
                    segment: number,
                };
                let places = (RECORDS_BEGIN, span.end);
                Names::Scan(Scanner::new(file, seed, places, (span.first, span.last)))
            }
        };
        Ok(Some(Victim {
            segment: number,
            names,
        }))
    }

    /// Removes a segment without live records, once the copies of those that it had are synced.
    fn remove(&mut self, number: u32) -> Result<(), AppendError> {
        let removed = self.sync_written().and_then(|()| {
            let Some(segment) = self.segments.remove(&number) else {
                return Ok(());
            };
            self.bytes -= segment.record_bytes();
            self.write_manifest()?;
            self.files.remove(number);
            if matches!(segment.hint, HintState::Written(_)) {
                self.medium.remove(&hint_name(number))?;
            }
            self.medium.remove(&segment_name(number))
        });
        self.note(removed)
    }
}

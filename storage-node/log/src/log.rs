//! The log while it is open: appends, room, and what the owner says of its records.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::errors::{AppendError, LostRange};
use crate::files::Files;
use crate::format::{History, Location, RECORDS_BEGIN};
use crate::high_water::HighWater;
use crate::manifest::{Lost, Manifest, ManifestFiles, merge};
use crate::medium::{Medium, MediumFile, is_out_of_files};
use crate::reader::Reader;
use crate::segment::Span;
use crate::spares::{Ready, Spares};
use crate::victim::Victim;

/// How a log is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whose log it is.
    pub history: History,
    /// How long segments become as the log grows: 64 MiB are good. Within [`SEGMENT_BYTES_MIN`](crate::SEGMENT_BYTES_MIN) and
    /// [`SEGMENT_BYTES_MAX`](crate::SEGMENT_BYTES_MAX).
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
    pub(crate) hint: HintState,
    /// Compaction has looked at every record that begins before this place: what was live there was
    /// moved, and what expired was released. It is looked at once, whatever interrupts it.
    pub(crate) compacted_up_to: u32,
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
    /// The medium by way of [`Files`].
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) _owned_medium: Arc<dyn Medium>,
    pub(crate) options: Options,
    pub(crate) files: Arc<Files>,
    pub(crate) segments: BTreeMap<u32, Segment>,
    /// The segment to which records are appended.
    pub(crate) active: Option<u32>,
    /// Its file.
    pub(crate) active_file: Option<Arc<dyn MediumFile>>,
    pub(crate) next_segment: u32,
    pub(crate) next_sequence: u64,
    /// The last record that was synced.
    pub(crate) synced: u64,
    pub(crate) spares: Spares,
    /// The next segments, in this order.
    pub(crate) ready: VecDeque<Ready>,
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

    /// Whether the disk has failed: nothing is appended any more.
    pub fn is_failed(&self) -> bool {
        self.is_failed
    }

    /// An error if the disk has failed.
    pub fn check_open(&self) -> Result<(), AppendError> {
        self.check()
    }

    pub(crate) fn check(&self) -> Result<(), AppendError> {
        match self.is_failed {
            true => Err(AppendError::Failed(io::Error::other(
                "it has failed before",
            ))),
            false => Ok(()),
        }
    }

    /// Syncs all that there is, if syncs did nothing so far, and they sync from now on.
    pub fn sync_from_now_on(&self) -> io::Result<()> {
        self.medium.sync_from_now_on()
    }

    /// Makes an error of the disk final, unless no more files may be open: of what had to open one
    /// nothing was done.
    pub(crate) fn note_opening<T>(&mut self, result: io::Result<T>) -> Result<T, AppendError> {
        match result {
            Err(error) if is_out_of_files(&error) => Err(AppendError::OutOfFiles(error)),
            result => self.note(result),
        }
    }

    /// Makes an error of the disk final.
    pub(crate) fn note<T>(&mut self, result: io::Result<T>) -> Result<T, AppendError> {
        result.map_err(|error| {
            self.is_failed = true;
            AppendError::Failed(error)
        })
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
}

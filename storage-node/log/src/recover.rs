//! Begins a log, or opens one: shows its records, cuts what a crash left torn, and reports what is
//! lost.
//!
//! What was confirmed is known from three sides: the manifest and the high-water mark say up to which
//! number all was synced, and each record says it of those before its batch. So only the last batch can
//! be in doubt: its records are cut off from the first on that is not whole, if that looks torn, and
//! are lost otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::errors::{LostRange, OpenError};
use crate::files::Files;
use crate::format::{
    FILE_HEAD_BYTES, FileHead, FileKind, History, Location, NUMBER_MAX, RECORD_HEAD_BYTES,
    RECORDS_BEGIN, Seed,
};
use crate::high_water::HighWater;
use crate::hint::Hint;
use crate::log::{HintState, Log, Options, Segment};
use crate::manifest::{self, Manifest, ManifestFiles};
use crate::medium::{Medium, MediumFile, clear};
use crate::scan::{Item, Scanner};
use crate::segment::{Span, Visited, hint_name, hint_of, read_head, segment_name, segment_of};
use crate::spares::{BLOCK_BYTES, Spares};

/// Without a manifest, whole segments may be gone behind the last one: so many numbers count as lost.
const UNKNOWN_RECORDS: u64 = 1 << 32;

/// How an opened log was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// What is lost, as far as its owner has not acknowledged it: now or earlier.
    pub lost: Vec<LostRange>,
    /// How many records were shown.
    pub records: u64,
    /// How many of them have values that cannot be read. Of segments that were opened by hints, that
    /// shows only when they are read.
    pub values_lost: u64,
    /// What a crash had left of records that were never confirmed, in bytes.
    pub torn_bytes: u64,
    /// Segments that were opened by their hints.
    pub hinted: usize,
    /// Segments that were read.
    pub scanned: usize,
    /// Whether no manifest was sound, or only an old one: whatever had been removed counts as lost, and
    /// so does what may have come after what there is.
    pub is_manifest_lost: bool,
    /// Whether there was no high-water mark: what the last segment might have held counts as lost.
    pub is_high_water_lost: bool,
}

/// Is shown a record. Returns where the record lies that is dead because of it, if there is one: an
/// older one, or itself.
pub type Visit<'a> = &'a mut dyn FnMut(Visited<'_>) -> Option<Location>;

impl Log {
    /// The history of the log that lies in a medium, for an owner who has lost it; none if there is no
    /// file that says so.
    pub fn history_in(medium: &dyn Medium) -> io::Result<Option<History>> {
        for name in medium.list()? {
            let mut head = [0; FILE_HEAD_BYTES];
            let file = medium.open(&name)?;
            if file.read_at(0, &mut head).is_ok()
                && let Some(history) = FileHead::history(&head)
            {
                return Ok(Some(history));
            }
        }
        Ok(None)
    }

    /// Begins a log where there is none.
    pub fn create(medium: Arc<dyn Medium>, options: Options) -> Result<Self, OpenError> {
        let mut opening = Opening::new(medium, options)?;
        if opening.manifest.take().is_some() || !opening.files.is_empty() {
            return Err(OpenError::NotEmpty);
        }
        // What a crash left of one that was to begin.
        opening.high_water = None;
        opening.finish(Manifest {
            next_segment: 1,
            next_sequence: 1,
            is_last_sealed: true,
            ..Manifest::default()
        })
    }

    /// Opens a log and shows its records in the order of their numbers.
    pub fn open(
        medium: Arc<dyn Medium>,
        options: Options,
        visit: Visit<'_>,
    ) -> Result<(Self, Recovery), OpenError> {
        let mut opening = Opening::new(medium, options)?;
        let mut recovery = Recovery::default();
        let mut manifest = opening.manifest(&mut recovery)?;
        let synced = opening.high_water.as_ref().map(|(_, synced)| *synced);
        recovery.is_high_water_lost = synced.is_none();
        let mut showing = Showing {
            visit,
            live: BTreeMap::new(),
            longest: 0,
            lost: Vec::new(),
            recovery: &mut recovery,
        };
        let mut known = manifest.next_sequence - 1;
        let tail = match manifest.is_last_sealed {
            true => None,
            false => manifest.segments.pop(),
        };
        for span in &manifest.segments {
            opening.show_sealed(*span, &mut showing)?;
            known = known.max(span.last);
        }
        if let Some(span) = tail {
            let tail = opening.show_tail(span, (known, synced), &mut showing)?;
            known = tail.span.last;
            manifest.is_last_sealed = tail.is_sealed;
            manifest.segments.push(tail.span);
        }
        // There is less than was confirmed, and no segment that would have had it.
        if let Some(synced) = synced.filter(|synced| *synced > known) {
            showing.lose(known + 1, synced);
            known = synced;
        }
        let Showing {
            live,
            longest,
            lost,
            ..
        } = showing;
        (opening.live, opening.longest) = (live, longest);
        manifest.next_sequence = known + 1;
        lost.into_iter().for_each(|range| manifest.add_lost(range));
        let log = opening.finish(manifest)?;
        recovery.lost = log.lost().collect();
        Ok((log, recovery))
    }
}

/// What is shown, and what comes of it.
struct Showing<'a> {
    visit: Visit<'a>,
    /// Bytes and numbers of the live records of segments.
    live: BTreeMap<u32, (u64, u64)>,
    longest: u32,
    lost: Vec<LostRange>,
    recovery: &'a mut Recovery,
}

impl Showing<'_> {
    fn show(&mut self, visited: Visited<'_>) {
        self.recovery.records += 1;
        self.recovery.values_lost += u64::from(visited.is_value_lost);
        self.longest = self.longest.max(visited.location.bytes);
        let (bytes, records) = self.live.entry(visited.location.segment).or_default();
        *bytes += u64::from(visited.location.bytes);
        *records += 1;
        let Some(dead) = (self.visit)(visited) else {
            return;
        };
        if let Some((bytes, records)) = self.live.get_mut(&dead.segment) {
            *bytes = bytes.saturating_sub(dead.bytes.into());
            *records = records.saturating_sub(1);
        }
    }

    fn lose(&mut self, first: u64, last: u64) {
        match self.lost.last_mut().filter(|it| it.last + 1 == first) {
            Some(before) => before.last = last,
            None => self.lost.push(LostRange { first, last }),
        }
    }
}

/// How the last segment goes on.
struct Tail {
    span: Span,
    is_sealed: bool,
}

/// A log that is being opened.
struct Opening {
    medium: Arc<dyn Medium>,
    options: Options,
    owned_medium: Arc<dyn Medium>,
    open_files: Arc<Files>,
    files: BTreeMap<u32, SegmentFile>,
    hints: BTreeSet<u32>,
    names: Vec<String>,
    manifest: Option<Manifest>,
    high_water: Option<(HighWater, u64)>,
    live: BTreeMap<u32, (u64, u64)>,
    hinted: BTreeMap<u32, u64>,
    longest: u32,
    is_rebuilt: bool,
}

#[derive(Clone, Copy)]
struct SegmentFile {
    /// The first sequence number, if the head is sound and of this segment.
    first: Option<u64>,
    bytes: u32,
}

impl Opening {
    /// Opens what is there, and refuses what is not this log's.
    fn new(medium: Arc<dyn Medium>, options: Options) -> Result<Self, OpenError> {
        let open_files = Files::new(&medium, options.history.seed());
        let owned_medium = medium;
        let medium: Arc<dyn Medium> = Arc::clone(&open_files) as _;
        let names = medium.list()?;
        let found: BTreeSet<u32> = names.iter().filter_map(|name| segment_of(name)).collect();
        let mut opening = Self {
            options,
            owned_medium,
            open_files,
            files: BTreeMap::new(),
            hints: names.iter().filter_map(|name| hint_of(name)).collect(),
            manifest: manifest::load(&*medium, options.history)?,
            high_water: HighWater::open(&*medium, options.history)?,
            names,
            medium,
            live: BTreeMap::new(),
            hinted: BTreeMap::new(),
            longest: 0,
            is_rebuilt: false,
        };
        for number in found {
            opening.open_segment(number)?;
        }
        Ok(opening)
    }

    fn open_segment(&mut self, number: u32) -> Result<(), OpenError> {
        let name = segment_name(number);
        let file = self.medium.open(&name)?;
        let head = read_head(&*file, 0, FileKind::Segment, self.options.history);
        let first = match head {
            Ok(head) if head.numbers[0] == u64::from(number) => Some(head.numbers[1]),
            Ok(_) => None,
            Err(error) => {
                OpenError::refuse(&name, self.options.history, error)?;
                None
            }
        };
        let first = first.filter(|first| (1..NUMBER_MAX).contains(first));
        let bytes = u32::try_from(file.size()?).unwrap_or(u32::MAX);
        self.files.insert(number, SegmentFile { first, bytes });
        self.open_files.insert(number, file);
        Ok(())
    }

    /// The file of a segment that was found.
    fn file(&self, number: u32) -> io::Result<Arc<dyn MediumFile>> {
        file_of(&self.open_files, number)
    }

    fn seed(&self, segment: u32) -> Seed {
        let history = self.options.history.seed();
        Seed { history, segment }
    }

    /// The manifest, or one that is made of what is there.
    fn manifest(&mut self, recovery: &mut Recovery) -> Result<Manifest, OpenError> {
        let next = self.manifest.as_ref().map(|it| it.next_segment);
        let mut is_old = false;
        for (number, file) in self.files.range(next.unwrap_or(0)..) {
            is_old = is_old || self.first_record(*number, file)?.is_some();
        }
        match self.manifest.take() {
            Some(manifest) if !is_old => {
                for span in &manifest.segments {
                    if !self.files.contains_key(&span.segment) {
                        // Reads of it find nothing.
                        self.medium.create(&segment_name(span.segment), 0)?;
                        self.open_segment(span.segment)?;
                    }
                }
                Ok(manifest)
            }
            None if self.files.is_empty() => Err(OpenError::Empty),
            old => {
                recovery.is_manifest_lost = true;
                self.is_rebuilt = true;
                Ok(self.rebuild(old.unwrap_or_default())?)
            }
        }
    }

    /// The number of the first record of a segment of which nothing else is known.
    fn first_record(&self, number: u32, found: &SegmentFile) -> io::Result<Option<u64>> {
        let file = self.file(number)?;
        let places = (RECORDS_BEGIN, found.bytes);
        let numbers = (found.first.unwrap_or(1), NUMBER_MAX);
        let mut scanner = Scanner::new(file, self.seed(number), places, numbers);
        loop {
            match scanner.step() {
                Some(Item::Record { head, .. }) => return Ok(Some(head.sequence)),
                Some(Item::Gap { .. }) => {}
                None => return Ok(None),
            }
        }
    }

    /// A manifest of the segments that are there. All numbers that they do not have count as lost.
    fn rebuild(&self, old: Manifest) -> io::Result<Manifest> {
        let mut manifest = Manifest {
            segments: Vec::new(),
            is_last_sealed: true,
            ..old
        };
        for (number, file) in &self.files {
            let first = match file.first {
                Some(first) => Some(first),
                None => self.first_record(*number, file)?,
            };
            let before = manifest.segments.last();
            let is_behind = |first: &u64| before.is_none_or(|it| it.first < *first);
            let Some(first) = first.filter(is_behind) else {
                continue;
            };
            if let Some(before) = manifest.segments.last_mut() {
                before.last = first - 1;
            }
            manifest.is_last_sealed = false;
            manifest.segments.push(Span {
                segment: *number,
                first,
                last: first - 1,
                end: file.bytes,
            });
        }
        let next = self
            .files
            .keys()
            .next_back()
            .map_or(0, |it| it.saturating_add(1));
        manifest.next_segment = manifest.next_segment.max(next).max(1);
        manifest.next_sequence = manifest.next_sequence.max(1);
        let first = manifest.segments.first().map(|it| it.first);
        if let Some(first) = first.filter(|first| *first > 1) {
            let last = first - 1;
            manifest.add_lost(LostRange { first: 1, last });
        }
        Ok(manifest)
    }

    /// Shows the records of a segment that has all of its numbers.
    fn show_sealed(&mut self, span: Span, showing: &mut Showing<'_>) -> io::Result<()> {
        let found = self.files[&span.segment];
        let hint = match self.hints.contains(&span.segment) {
            true => Hint::read(&*self.medium, self.options.history, span),
            false => None,
        };
        if let Some(mut hint) = hint {
            showing.recovery.hinted += 1;
            self.hinted.insert(span.segment, hint.file_bytes());
            while let Some(visited) = hint.next() {
                let Location { offset, bytes, .. } = visited.location;
                showing.show(Visited {
                    is_value_lost: offset + bytes > found.bytes,
                    ..visited
                });
            }
            return Ok(());
        }
        showing.recovery.scanned += 1;
        let places = (RECORDS_BEGIN, span.end);
        let numbers = (span.first, span.last);
        let file = self.file(span.segment)?;
        let scanner = Scanner::new(file, self.seed(span.segment), places, numbers);
        let mut scanner = scanner.with_values();
        let mut due = span.first;
        while let Some(item) = scanner.step() {
            let Item::Record { head, visited, .. } = item else {
                continue;
            };
            if head.sequence > due {
                showing.lose(due, head.sequence - 1);
            }
            match visited {
                Some(visited) => showing.show(visited),
                None => showing.lose(head.sequence, head.sequence),
            }
            due = head.sequence + 1;
        }
        if due <= span.last {
            showing.lose(due, span.last);
        }
        Ok(())
    }

    /// Shows the records of the segment to which records were appended last.
    fn show_tail(
        &mut self,
        span: Span,
        (known, high_water): (u64, Option<u64>),
        showing: &mut Showing<'_>,
    ) -> io::Result<Tail> {
        let found = self.files[&span.segment];
        let file = self.file(span.segment)?;
        let places = (RECORDS_BEGIN, found.bytes);
        let records_max = u64::from(found.bytes) / RECORD_HEAD_BYTES as u64;
        let numbers = (span.first, span.first + records_max);
        let seed = self.seed(span.segment);
        let scanner = || Scanner::new(Arc::clone(&file), seed, places, numbers);
        let mut synced = known.max(high_water.unwrap_or(0));
        let mut first_pass = scanner();
        while let Some(item) = first_pass.step() {
            if let Item::Record { head, .. } = item {
                synced = synced.max(head.synced_before());
            }
        }
        showing.recovery.scanned += 1;
        let mut scanner = scanner().with_values();
        let (mut last, mut end, mut is_damaged) = (span.first - 1, RECORDS_BEGIN, false);
        let mut garbage = None;
        loop {
            let due = scanner.due();
            let (offset, sequence) = match scanner.step() {
                None => break,
                Some(Item::Record {
                    head,
                    offset,
                    visited,
                    is_torn,
                }) => {
                    let is_whole = visited.is_some_and(|it| !it.is_value_lost);
                    if is_torn && head.sequence > synced {
                        (offset, head.sequence)
                    } else {
                        is_damaged |= !is_whole || head.sequence > due;
                        if head.sequence > due {
                            showing.lose(due, head.sequence - 1);
                        }
                        match visited {
                            Some(visited) => showing.show(visited),
                            None => showing.lose(head.sequence, head.sequence),
                        }
                        last = head.sequence;
                        end = offset + head.record_bytes();
                        continue;
                    }
                }
                Some(Item::Gap {
                    offset,
                    end: gap_end,
                    is_last,
                    is_torn,
                }) => {
                    if is_last && gap_end == offset {
                        break;
                    }
                    if !is_torn || due <= synced {
                        is_damaged = true;
                        garbage = is_last.then_some(gap_end);
                        continue;
                    }
                    (offset, due)
                }
            };
            // Never confirmed, nor was anything behind it.
            debug_assert!(sequence > synced);
            showing.recovery.torn_bytes += clear(&*file, offset, found.bytes)?;
            break;
        }
        // Where the disk refuses to read, nothing more is written.
        is_damaged |= scanner.has_errors();
        // What was seen may have been written and not synced.
        file.sync()?;
        let records_in = |bytes: u32| u64::from(bytes) / RECORD_HEAD_BYTES as u64;
        let mut last_possible = last.max(synced);
        if let Some(garbage) = garbage {
            last_possible = last_possible.max(last + records_in(garbage - end).max(1));
            end = garbage;
        }
        // Whatever might have been behind what there is.
        if high_water.is_none() || found.bytes < span.end {
            let capacity = span.end.max(found.bytes);
            last_possible += records_in(capacity.saturating_sub(end));
        }
        if self.is_rebuilt {
            last_possible += UNKNOWN_RECORDS;
        }
        if last_possible > last {
            showing.lose(last + 1, last_possible);
            is_damaged = true;
        }
        let last = last_possible;
        let span = Span { last, end, ..span };
        let is_sealed = is_damaged;
        Ok(Tail { span, is_sealed })
    }

    /// Makes the log of what was found, and removes files that are none of it.
    fn finish(self, mut manifest: Manifest) -> Result<Log, OpenError> {
        let listed: BTreeSet<u32> = manifest.segments.iter().map(|it| it.segment).collect();
        let last = manifest.segments.last().map(|it| it.segment);
        let active = last.filter(|_| !manifest.is_last_sealed);
        let active_file = active.map(|number| self.file(number)).transpose()?;
        if let Some((number, file)) = active.zip(active_file.clone()) {
            self.open_files.insert_pinned(number, file);
        }
        // The mark is made anew only when the manifest knows what may be lost without it.
        let mut manifest_files = ManifestFiles::open(&*self.medium, self.options.history)?;
        manifest_files.make_room(listed.len() + 2)?;
        manifest.generation += 1;
        let synced = manifest.next_sequence - 1;
        if let Some(active) = active {
            let capacity = self.files[&active].bytes;
            let span = manifest.segments.last_mut().expect("it is the active one");
            let found = *span;
            (span.last, span.end) = (span.first - 1, capacity);
            manifest_files.write(&manifest)?;
            *manifest.segments.last_mut().expect("as before") = found;
        } else {
            manifest_files.write(&manifest)?;
        }
        let high_water = match self.high_water {
            Some((high_water, _)) => high_water,
            None => HighWater::create(&*self.medium, self.options.history, synced)?,
        };
        let mut segments = BTreeMap::new();
        for span in &manifest.segments {
            let number = span.segment;
            let found = self.files[&number];
            let is_active = active == Some(number);
            if !is_active && found.bytes > span.end {
                file_of(&self.open_files, number)?.set_size(span.end.into())?;
            }
            let (live_bytes, live_records) = self.live.get(&number).copied().unwrap_or_default();
            let hinted = self.hinted.get(&number).copied();
            let capacity = match is_active {
                true => found.bytes,
                false => span.end.next_multiple_of(BLOCK_BYTES),
            };
            let segment = Segment {
                span: *span,
                capacity,
                live_bytes,
                live_records,
                hint: hinted.map_or(HintState::Missing, HintState::Written),
                compacted_up_to: 0,
                is_stuck: false,
            };
            segments.insert(number, segment);
        }
        let is_empty = |it: &&Segment| it.live_records == 0 && active != Some(it.span.segment);
        let emptied = segments.values().filter(is_empty).map(|it| it.span.segment);
        let log = Log {
            files: self.open_files,
            emptied: emptied.collect(),
            active,
            active_file,
            next_segment: manifest.next_segment,
            next_sequence: manifest.next_sequence,
            synced: manifest.next_sequence - 1,
            ready: VecDeque::new(),
            spares: Spares::open(&self.medium, &self.names)?,
            manifest: manifest_files,
            generation: manifest.generation,
            lost: manifest.lost,
            high_water,
            is_failed: false,
            is_full: false,
            victim: None,
            longest: self.longest,
            bytes: segments.values().map(Segment::record_bytes).sum(),
            live_bytes: segments.values().map(|it| it.live_bytes).sum(),
            compacted: 0,
            buffer: Vec::new(),
            segments,
            options: self.options,
            medium: self.medium,
            _owned_medium: self.owned_medium,
        };
        // What is in no manifest was on its way in, or out.
        for number in self.hints.difference(&listed) {
            log.medium.remove(&hint_name(*number))?;
        }
        let unlisted = || self.files.keys().filter(|number| !listed.contains(number));
        for number in unlisted().filter(|_| !self.is_rebuilt) {
            log.medium.remove(&segment_name(*number))?;
        }
        // They are no files of the log, or they are kept for somebody to look at.
        unlisted().for_each(|number| log.files.remove(*number));
        // Whoever begins next may need as many.
        log.files.close();
        Ok(log)
    }
}

fn file_of(files: &Files, segment: u32) -> io::Result<Arc<dyn MediumFile>> {
    let file = files.segment(segment)?;
    file.ok_or_else(|| io::ErrorKind::NotFound.into())
}

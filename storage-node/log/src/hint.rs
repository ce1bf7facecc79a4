//! Hints: what a sealed segment holds, without the values.
//!
//! ```text
//!   file head | bytes of the value 4 | bytes of the key 2 | bytes of the head 2 | key | head | ...
//! ```
//!
//! The records are those of the segment, in its order, and none of them is missing. So their places
//! and numbers follow from their lengths. A hint is checked as a whole; one that is not sound, or not
//! of this very segment, is as good as none, and the segment is read instead.

use std::io;
use std::sync::Arc;

use crate::files::Files;
use crate::format::{
    FILE_HEAD_BYTES, FileHead, FileKind, History, Location, RECORD_HEAD_BYTES, RECORDS_BEGIN, Seed,
    VALUE_BYTES_MAX, u32_at,
};
use crate::medium::{Medium, MediumFile, is_full, is_out_of_files};
use crate::scan::{Item, Scanner};
use crate::segment::{Span, Visited, hint_name, read_file};

const ENTRY_BYTES: usize = 8;

/// A sound hint, and a place in it.
#[derive(Debug)]
pub(crate) struct Hint {
    bytes: Vec<u8>,
    at: usize,
    segment: u32,
    sequence: u64,
    offset: u32,
}

impl Hint {
    /// The hint of a segment, if there is one and it is sound.
    pub(crate) fn read(medium: &dyn Medium, history: History, span: Span) -> Option<Self> {
        let name = hint_name(span.segment);
        let file = medium.open(&name).ok()?;
        let (head, bytes) = read_file(&*file, FileKind::Hint, history).ok()?;
        if head.numbers != numbers(span) {
            return None;
        }
        let hint = || Self {
            bytes: Vec::new(),
            at: 0,
            segment: span.segment,
            sequence: span.first,
            offset: RECORDS_BEGIN,
        };
        let mut whole = Self { bytes, ..hint() };
        while whole.next().is_some() {}
        let is_sound = whole.at == whole.bytes.len()
            && whole.sequence == span.last + 1
            && whole.offset == span.end;
        is_sound.then(|| Self {
            bytes: whole.bytes,
            ..hint()
        })
    }

    /// How many bytes its file has.
    pub(crate) fn file_bytes(&self) -> u64 {
        (FILE_HEAD_BYTES + self.bytes.len()) as u64
    }

    pub(crate) fn next(&mut self) -> Option<Visited<'_>> {
        let entry = self.bytes.get(self.at..)?;
        let fixed = entry.get(..ENTRY_BYTES)?;
        let value_bytes = u32_at(fixed, 0);
        let length = |at: usize| usize::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
        let (key_bytes, head_bytes) = (length(4), length(6));
        let names = entry.get(ENTRY_BYTES..ENTRY_BYTES + key_bytes + head_bytes)?;
        if value_bytes as usize > VALUE_BYTES_MAX {
            return None;
        }
        let bytes = (RECORD_HEAD_BYTES + names.len()) as u32 + value_bytes;
        let (sequence, offset) = (self.sequence, self.offset);
        self.at += ENTRY_BYTES + names.len();
        self.sequence += 1;
        self.offset = offset.checked_add(bytes)?;
        let (key, head) = names.split_at(key_bytes);
        let location = Location {
            segment: self.segment,
            offset,
            bytes,
        };
        Some(Visited {
            sequence,
            key,
            head,
            location,
            value_bytes,
            is_value_lost: false,
        })
    }
}

fn numbers(span: Span) -> [u64; 4] {
    [span.segment.into(), span.first, span.last, span.end.into()]
}

/// The work of writing a segment's hint, for any thread. The log goes on meanwhile.
#[derive(Debug)]
pub struct HintJob {
    pub(crate) files: Arc<Files>,
    pub(crate) history: History,
    pub(crate) span: Span,
}

/// What came of a [`HintJob`], for the log to know.
#[derive(Debug)]
pub struct HintDone {
    pub(crate) segment: u32,
    pub(crate) outcome: HintOutcome,
}

impl HintDone {
    /// Whether it was not written since no more files may be open, for now.
    pub fn is_to_be_tried_again(&self) -> bool {
        self.outcome == HintOutcome::NotNow
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HintOutcome {
    /// It has so many bytes.
    Written(u64),
    /// No more files may be open. It is worth another try.
    NotNow,
    /// It was not written for want of room or because of damage.
    Never,
}

impl HintJob {
    /// Reads the segment and writes its hint.
    ///
    /// # Errors
    ///
    /// If the disk fails. The log is none the worse: the segment has no hint, and is read instead.
    pub fn run(self) -> io::Result<HintDone> {
        let segment = self.span.segment;
        let done = |outcome| Ok(HintDone { segment, outcome });
        let file = match self.files.segment(segment) {
            Ok(Some(file)) => file,
            Ok(None) => return done(HintOutcome::Never),
            Err(error) if is_out_of_files(&error) => return done(HintOutcome::NotNow),
            Err(error) => return Err(error),
        };
        let Some(body) = self.body(file) else {
            return done(HintOutcome::Never);
        };
        let head = FileHead {
            kind: FileKind::Hint,
            history: self.history,
            numbers: numbers(self.span),
            body_bytes: body.len() as u64,
            body_checksum: crc32c::crc32c(&body),
        };
        let bytes = [&head.encode()[..], &body].concat();
        let length = bytes.len() as u64;
        match self.files.create(&hint_name(segment), length) {
            // It is not synced: after a crash it is sound or not, and that can be seen.
            Ok(file) => file.write_at(0, &bytes)?,
            Err(error) if is_full(&error) => return done(HintOutcome::Never),
            Err(error) if is_out_of_files(&error) => return done(HintOutcome::NotNow),
            Err(error) => return Err(error),
        }
        done(HintOutcome::Written(length))
    }

    /// All entries, unless a record is damaged.
    fn body(&self, file: Arc<dyn MediumFile>) -> Option<Vec<u8>> {
        let Span {
            segment,
            first,
            last,
            end,
        } = self.span;
        let history = self.history.seed();
        let places = (RECORDS_BEGIN, end);
        let mut scanner = Scanner::new(file, Seed { history, segment }, places, (first, last));
        let mut body = Vec::new();
        for due in first..=last {
            let Some(Item::Record {
                visited: Some(visited),
                ..
            }) = scanner.step()
            else {
                return None;
            };
            if visited.sequence != due {
                return None;
            }
            let length = |part: &[u8]| (part.len() as u16).to_le_bytes();
            body.extend_from_slice(&visited.value_bytes.to_le_bytes());
            body.extend_from_slice(&length(visited.key));
            body.extend_from_slice(&length(visited.head));
            body.extend_from_slice(visited.key);
            body.extend_from_slice(visited.head);
        }
        (scanner.offset() == end).then_some(body)
    }
}

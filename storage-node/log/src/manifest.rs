//! Which segments there are, and what is known to be lost; twice, so that damage costs one copy.
//!
//! ```text
//!   file head | segments: number 4, sealed 1, first 8, last 8, end 4 | lost: acknowledged 1, first 8, last 8
//! ```
//!
//! Both copies are written in place and synced, one after the other, so one of them is always whole.
//! A segment counts once it is in the manifest, and until it no longer is: files come before, and go
//! after. So a gap between the numbers of two segments was made by compaction, and one within a
//! segment is a loss.

use std::io;
use std::sync::Arc;

use crate::errors::{LostRange, OpenError};
use crate::format::{
    FILE_HEAD_BYTES, FileHead, FileKind, History, NUMBER_MAX, RECORDS_BEGIN, u32_at, u64_at,
};
use crate::medium::{Medium, MediumFile, is_readable, open_if_sound};
use crate::segment::{Span, read_file};

pub(crate) const NAMES: [&str; 2] = ["manifest-a", "manifest-b"];

const SEGMENT_BYTES: usize = 25;
const LOST_BYTES: usize = 17;

/// Room for so many bytes is set aside at a time.
const ROOM_BYTES: u64 = 64 << 10;

/// Beyond so many ranges, neighbours become one, with what lies between them.
pub(crate) const LOST_RANGES_MAX: usize = 256;

/// A range that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) range: LostRange,
    /// Whether the owner has made up for it. It is kept while a segment has the gap, so that the gap
    /// is not found anew.
    pub(crate) is_acknowledged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Manifest {
    pub(crate) generation: u64,
    pub(crate) next_segment: u32,
    pub(crate) next_sequence: u64,
    /// In the order of their numbers; all but the last one are sealed. Of one that is not, the
    /// end is that of the room set aside for it, and the last record is not known.
    pub(crate) segments: Vec<Span>,
    pub(crate) is_last_sealed: bool,
    pub(crate) lost: Vec<Lost>,
}

impl Manifest {
    fn encode(&self, history: History) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, span) in self.segments.iter().enumerate() {
            let is_sealed = self.is_last_sealed || index + 1 < self.segments.len();
            body.extend_from_slice(&span.segment.to_le_bytes());
            body.push(is_sealed.into());
            body.extend_from_slice(&span.first.to_le_bytes());
            body.extend_from_slice(&span.last.to_le_bytes());
            body.extend_from_slice(&span.end.to_le_bytes());
        }
        for lost in &self.lost {
            body.push(lost.is_acknowledged.into());
            body.extend_from_slice(&lost.range.first.to_le_bytes());
            body.extend_from_slice(&lost.range.last.to_le_bytes());
        }
        let segments = self.segments.len() as u64;
        let next_segment = self.next_segment.into();
        let head = FileHead {
            kind: FileKind::Manifest,
            history,
            numbers: [self.generation, next_segment, self.next_sequence, segments],
            body_bytes: body.len() as u64,
            body_checksum: crc32c::crc32c(&body),
        };
        [&head.encode()[..], &body].concat()
    }

    fn decode(head: &FileHead, body: &[u8]) -> Option<Self> {
        let [generation, next_segment, next_sequence, segments] = head.numbers;
        let segments_bytes = usize::try_from(segments).ok()?.checked_mul(SEGMENT_BYTES)?;
        let (segments, lost) = body.split_at_checked(segments_bytes)?;
        let mut manifest = Self {
            generation,
            next_segment: u32::try_from(next_segment).ok()?,
            next_sequence,
            is_last_sealed: true,
            ..Self::default()
        };
        for bytes in segments.chunks_exact(SEGMENT_BYTES) {
            let span = Span {
                segment: u32_at(bytes, 0),
                first: u64_at(bytes, 5),
                last: u64_at(bytes, 13),
                end: u32_at(bytes, 21),
            };
            let before = manifest.segments.last();
            let is_behind =
                before.is_none_or(|it| it.segment < span.segment && it.last < span.first);
            let is_span =
                span.first > 0 && span.first - 1 <= span.last && span.end >= RECORDS_BEGIN;
            let is_next = manifest.is_last_sealed && span.segment < manifest.next_segment;
            if !is_span || !is_behind || !is_next {
                return None;
            }
            manifest.is_last_sealed = bytes[4] != 0;
            manifest.segments.push(span);
        }
        for bytes in lost.chunks_exact(LOST_BYTES) {
            let (first, last) = (u64_at(bytes, 1), u64_at(bytes, 9));
            manifest.lost.push(Lost {
                range: LostRange { first, last },
                is_acknowledged: bytes[0] != 0,
            });
        }
        let numbers = manifest.segments.iter().flat_map(|it| [it.first, it.last]);
        let numbers = numbers.chain(
            manifest
                .lost
                .iter()
                .flat_map(|it| [it.range.first, it.range.last]),
        );
        let mut numbers = numbers.chain([generation, next_sequence]);
        (numbers.all(|number| number < NUMBER_MAX) && next_sequence > 0).then_some(manifest)
    }

    /// Adds a range that was found to be lost, unless it is known.
    pub(crate) fn add_lost(&mut self, range: LostRange) {
        let is_known = |it: &Lost| it.range.first <= range.first && range.last <= it.range.last;
        if self.lost.iter().any(is_known) {
            return;
        }
        self.lost.push(Lost {
            range,
            is_acknowledged: false,
        });
        merge(&mut self.lost);
    }
}

/// Joins ranges that touch and are alike, and the closest where there are too many.
pub(crate) fn merge(lost: &mut Vec<Lost>) {
    lost.sort_by_key(|it| it.range);
    let mut distance = 0;
    loop {
        lost.dedup_by(|next, kept| {
            let gap = next.range.first.saturating_sub(kept.range.last + 1);
            let are_alike = next.is_acknowledged == kept.is_acknowledged;
            if gap > distance || !are_alike && distance == 0 {
                return false;
            }
            kept.range.last = kept.range.last.max(next.range.last);
            kept.is_acknowledged &= next.is_acknowledged;
            true
        });
        if lost.len() <= LOST_RANGES_MAX {
            return;
        }
        distance = distance * 2 + 1;
    }
}

/// The newest copy that is sound.
pub(crate) fn load(medium: &dyn Medium, history: History) -> Result<Option<Manifest>, OpenError> {
    let mut copies = Vec::new();
    for name in NAMES {
        let Some(file) = open_if_sound(medium, name)? else {
            continue;
        };
        match read_file(&*file, FileKind::Manifest, history) {
            Ok((head, body)) => copies.extend(Manifest::decode(&head, &body)),
            Err(error) => OpenError::refuse(name, history, error)?,
        }
    }
    Ok(copies.into_iter().max_by_key(|it| it.generation))
}

/// The files of the manifest.
#[derive(Debug)]
pub(crate) struct ManifestFiles {
    history: History,
    files: [Arc<dyn MediumFile>; 2],
    /// How many bytes room was set aside for.
    room: u64,
}

impl ManifestFiles {
    /// Opens the files, or makes those that are not there or cannot be read.
    pub(crate) fn open(medium: &dyn Medium, history: History) -> io::Result<Self> {
        let open = |name: &str| match open_if_sound(medium, name)? {
            Some(file) if is_readable(&*file) => Ok(file),
            _ => medium.create(name, ROOM_BYTES),
        };
        let files = [open(NAMES[0])?, open(NAMES[1])?];
        let room = files[0].size()?.min(files[1].size()?);
        medium.sync_names()?;
        Ok(Self {
            history,
            files,
            room,
        })
    }

    /// Sets room aside for a manifest of so many segments.
    pub(crate) fn make_room(&mut self, segments: usize) -> io::Result<()> {
        let bytes = FILE_HEAD_BYTES + segments * SEGMENT_BYTES + LOST_RANGES_MAX * LOST_BYTES;
        while self.room < bytes as u64 {
            for file in &self.files {
                file.write_at(self.room, &[0; ROOM_BYTES as usize])?;
                file.sync()?;
            }
            self.room += ROOM_BYTES;
        }
        Ok(())
    }

    /// Returns once both copies are this one.
    pub(crate) fn write(&self, manifest: &Manifest) -> io::Result<()> {
        let bytes = manifest.encode(self.history);
        for file in &self.files {
            file.write_at(0, &bytes)?;
            file.sync()?;
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        2 * self.room
    }
}

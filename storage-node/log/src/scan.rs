//! Reads a segment from one record to the next, and goes on behind what is damaged.
//!
//! Behind a record whose head is not sound, nothing says where the next one begins. So every offset
//! is tried: one where a plausible sequence number lies in a head whose checksum fits the very place.

use std::sync::Arc;

use crate::format::{Location, RECORD_HEAD_BYTES, RecordHead, SECTOR_BYTES, Seed, u64_at};
use crate::medium::{MediumFile, read_lossy};
use crate::segment::Visited;

/// How much of a file is read at a time.
const WINDOW_BYTES: u32 = 1 << 20;

/// How much is searched for a record at a time.
const SEARCH_BYTES: u32 = 16 << 10;

/// A part of a file in memory. What cannot be read of it is 0.
#[derive(Debug)]
struct Window {
    file: Arc<dyn MediumFile>,
    /// Nothing is read from here on.
    limit: u32,
    start: u32,
    bytes: Vec<u8>,
    /// Whether the disk refused some of it.
    has_errors: bool,
}

impl Window {
    /// So many bytes from an offset on, unless there are fewer.
    fn bytes(&mut self, offset: u32, bytes: u32) -> Option<&[u8]> {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.limit)?;
        let have_end = self.start + self.bytes.len() as u32;
        if offset < self.start || end > have_end {
            let load = bytes.max(WINDOW_BYTES).min(self.limit - offset);
            self.bytes.clear();
            self.bytes.resize(load as usize, 0);
            self.start = offset;
            self.has_errors |= !read_lossy(&*self.file, offset.into(), &mut self.bytes);
        }
        let at = (offset - self.start) as usize;
        self.bytes.get(at..at + bytes as usize)
    }
}

/// What a scan comes to.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A record whose head is sound. If its key and head are not, they are not here.
    Record {
        head: RecordHead,
        offset: u32,
        visited: Option<Visited<'a>>,
        /// See [`Scanner::is_torn`]; of a sound one not.
        is_torn: bool,
    },
    /// Bytes that are no record: up to the next one, or as far as there is anything but zeros.
    Gap {
        offset: u32,
        end: u32,
        is_last: bool,
        is_torn: bool,
    },
}

/// Where a scan is.
#[derive(Debug)]
pub(crate) struct Scanner {
    window: Window,
    seed: Seed,
    offset: u32,
    /// The least sequence number that may come.
    next: u64,
    /// The greatest.
    last: u64,
    /// Whether values are verified.
    with_values: bool,
}

impl Scanner {
    /// From an offset, where the number `next` is due, to another; none is greater than `last`.
    pub(crate) fn new(
        file: Arc<dyn MediumFile>,
        seed: Seed,
        (offset, limit): (u32, u32),
        (next, last): (u64, u64),
    ) -> Self {
        Self {
            window: Window {
                file,
                limit,
                start: offset,
                bytes: Vec::new(),
                has_errors: false,
            },
            seed,
            offset,
            next,
            last,
            with_values: false,
        }
    }

    pub(crate) fn with_values(mut self) -> Self {
        self.with_values = true;
        self
    }

    /// Whether the disk could not read some of what was looked at.
    pub(crate) fn has_errors(&self) -> bool {
        self.window.has_errors
    }

    /// Where the next record is due.
    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    /// Which sequence number is due.
    pub(crate) fn due(&self) -> u64 {
        self.next
    }

    /// The next record or gap; none at the end.
    pub(crate) fn step(&mut self) -> Option<Item<'_>> {
        let offset = self.offset;
        if offset >= self.window.limit {
            return None;
        }
        let Some(head) = self.head_at(offset) else {
            let (found, data_end) = self.find(offset);
            self.offset = found.unwrap_or(self.window.limit);
            let end = found.unwrap_or(data_end);
            return Some(Item::Gap {
                offset,
                end,
                is_last: found.is_none(),
                is_torn: self.is_torn(offset, offset.saturating_add(RECORD_HEAD_BYTES as u32)),
            });
        };
        let end = offset + head.record_bytes();
        self.offset = end;
        self.next = head.sequence + 1;
        let (seed, with_values) = (self.seed, self.with_values);
        let wanted = match with_values {
            true => head.record_bytes(),
            false => RECORD_HEAD_BYTES as u32 + head.names_bytes(),
        };
        let split = RECORD_HEAD_BYTES + head.names_bytes() as usize;
        let (names, value) = self.window.bytes(offset, wanted)?.split_at(split);
        let is_value_lost = with_values && !head.is_value(value, seed);
        let is_named = head.names(&names[RECORD_HEAD_BYTES..], seed).is_some();
        let is_torn = with_values && (is_value_lost || !is_named) && self.is_torn(offset, end);
        let names = &self.window.bytes(offset, wanted)?[RECORD_HEAD_BYTES..split];
        let (key, record_head) = names.split_at(head.key_bytes.into());
        let visited = is_named.then_some(Visited {
            sequence: head.sequence,
            key,
            head: record_head,
            location: Location {
                segment: seed.segment,
                offset,
                bytes: head.record_bytes(),
            },
            value_bytes: head.value_bytes,
            is_value_lost,
        });
        Some(Item::Record {
            head,
            offset,
            visited,
            is_torn,
        })
    }

    fn head_at(&mut self, offset: u32) -> Option<RecordHead> {
        let (seed, next, last, limit) = (self.seed, self.next, self.last, self.window.limit);
        let bytes = self.window.bytes(offset, RECORD_HEAD_BYTES as u32)?;
        let head = RecordHead::decode(bytes, (seed, offset))?;
        let is_inside = u64::from(offset) + u64::from(head.record_bytes()) <= limit.into();
        (is_inside && (next..=last).contains(&head.sequence)).then_some(head)
    }

    /// The next record from an offset on, if there is one, and where the bytes before it end that are
    /// not 0.
    fn find(&mut self, from: u32) -> (Option<u32>, u32) {
        let (mut at, mut data_end) = (from, from);
        let (next, last) = (self.next, self.last);
        while at < self.window.limit {
            let more = self.window.limit - at;
            let bytes = SEARCH_BYTES.min(more);
            let with_head = (bytes + RECORD_HEAD_BYTES as u32 - 1).min(more);
            let Some(shown) = self.window.bytes(at, with_head) else {
                break;
            };
            let end = shown[..bytes as usize].iter().rposition(|byte| *byte != 0);
            let is_empty = end.is_none() && shown.iter().all(|byte| *byte == 0);
            // Where a head may begin in these bytes.
            let begins = (shown.len() + 1).saturating_sub(RECORD_HEAD_BYTES);
            let plausible: Vec<u32> = match is_empty {
                true => Vec::new(),
                false => (0..begins.min(bytes as usize))
                    .filter(|begin| (next..=last).contains(&u64_at(shown, begin + 8)))
                    .map(|begin| at + begin as u32)
                    .collect(),
            };
            let found = plausible.into_iter().find(|at| self.head_at(*at).is_some());
            if found.is_some() {
                return (found, data_end);
            }
            data_end = end.map_or(data_end, |end| at + end as u32 + 1);
            at += bytes;
        }
        (None, data_end)
    }

    /// Whether bytes look like those of a write that a crash cut short. A disk writes a sector as a
    /// whole or not at all, and where none was written, there are zeros. So some sector of them is
    /// zeros, as far as it belongs to them.
    fn is_torn(&mut self, from: u32, to: u32) -> bool {
        let to = to.min(self.window.limit);
        let mut at = from;
        while at < to {
            let end = (at / SECTOR_BYTES + 1).saturating_mul(SECTOR_BYTES).min(to);
            match self.window.bytes(at, end - at) {
                Some(piece) if piece.iter().any(|byte| *byte != 0) => at = end,
                _ => return true,
            }
        }
        false
    }
}

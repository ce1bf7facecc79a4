//! The bytes of files' heads and of records. All numbers are little-endian.
//!
//! ```text
//!   the head of every file
//!    0  magic "dkvs-log"  8 | kind of file 4 | format 4
//!   16  history          16
//!   32  four numbers     32   what they are, each kind of file says
//!   64  length of the body 8 | checksum of the body 4 | checksum of all before 4
//!
//!   a record
//!    0  checksum of its head 4 | bytes of the value 4 | sequence number 8
//!   16  checksum of key and head 4 | checksum of the value 4
//!   24  bytes of the key 2 | bytes of the head 2 | place in its batch 2 | 0 1 | mark 1
//!   32  key | head | value
//! ```
//!
//! The first checksum of a record covers the 28 bytes behind it, and with them the history, the
//! segment and the offset, so no other place's record is taken for this one's. The two others cover
//! the history and the sequence number as well. All of them are CRC-32C.
//!
//! The place in its batch is how many records were written since the last sync before it: all those
//! before them were synced when the record was written.

use std::fmt;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What a disk writes as a whole or not at all.
pub(crate) const SECTOR_BYTES: u32 = 512;

/// Where the first record of a segment lies.
pub(crate) const RECORDS_BEGIN: u32 = 512;

/// Bytes of a record beside key, head and value.
pub(crate) const RECORD_HEAD_BYTES: usize = 32;

/// The longest value.
pub const VALUE_BYTES_MAX: usize = 17 << 20;

/// The longest key, and the longest head.
pub const KEY_BYTES_MAX: usize = 65_535;

pub(crate) const FILE_HEAD_BYTES: usize = 80;

/// What the fixed part of a record ends with.
const RECORD_MARK: u8 = 1;

/// Sequence numbers and such stay below this.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"dkvs-log";

/// Whose log it is: a number that its owner draws at random when the log begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct History(pub [u8; 16]);

impl History {
    pub(crate) fn seed(self) -> u32 {
        crc32c::crc32c(&self.0)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The segment's number.
    pub segment: u32,
    /// The record's first byte in it.
    pub offset: u32,
    /// How many bytes the record has.
    pub bytes: u32,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Its numbers: the segment, its first sequence number.
    Segment = 1,
    /// Its numbers: the segment, its first and last sequence number, its end.
    Hint = 2,
    /// Its numbers: the generation, the next segment, the next sequence number, how many segments.
    Manifest = 3,
    /// Its number: a sequence number that was synced.
    HighWater = 4,
}

/// The head of a file, without its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub(crate) kind: FileKind,
    pub(crate) history: History,
    pub(crate) numbers: [u64; 4],
    pub(crate) body_bytes: u64,
    pub(crate) body_checksum: u32,
}

/// Why bytes are not the head of a file of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// They are no head, or one of another kind of file.
    Damaged,
    /// Of a newer version.
    Newer(u32),
    /// Of another history.
    Foreign(History),
}

impl FileHead {
    pub(crate) fn encode(&self) -> [u8; FILE_HEAD_BYTES] {
        let mut out = [0; FILE_HEAD_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[12..16].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..32].copy_from_slice(&self.history.0);
        for (number, to) in self.numbers.iter().zip(out[32..64].chunks_exact_mut(8)) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        out[64..72].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[72..76].copy_from_slice(&self.body_checksum.to_le_bytes());
        let sum = crc32c::crc32c(&out[..76]);
        out[76..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Whose the file is that begins with these bytes, if they are a sound head.
    pub(crate) fn history(bytes: &[u8]) -> Option<History> {
        let bytes = bytes.get(..FILE_HEAD_BYTES)?;
        let is_sound = &bytes[..8] == MAGIC && u32_at(bytes, 76) == crc32c::crc32c(&bytes[..76]);
        let history = is_sound.then(|| bytes[16..32].try_into().ok())?;
        history.map(History)
    }

    pub(crate) fn decode(bytes: &[u8], kind: FileKind, ours: History) -> Result<Self, HeadError> {
        let bytes = bytes.get(..FILE_HEAD_BYTES).ok_or(HeadError::Damaged)?;
        if &bytes[..8] != MAGIC || u32_at(bytes, 76) != crc32c::crc32c(&bytes[..76]) {
            return Err(HeadError::Damaged);
        }
        if u32_at(bytes, 12) > FORMAT {
            return Err(HeadError::Newer(u32_at(bytes, 12)));
        }
        let history = History(bytes[16..32].try_into().expect("sixteen bytes"));
        if history != ours {
            return Err(HeadError::Foreign(history));
        }
        if u32_at(bytes, 8) != kind as u32 || u32_at(bytes, 12) == 0 {
            return Err(HeadError::Damaged);
        }
        Ok(Self {
            kind,
            history,
            numbers: [32, 40, 48, 56].map(|at| u64_at(bytes, at)),
            body_bytes: u64_at(bytes, 64),
            body_checksum: u32_at(bytes, 72),
        })
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) sequence: u64,
    batch_place: u16,
    pub(crate) key_bytes: u16,
    pub(crate) head_bytes: u16,
    pub(crate) value_bytes: u32,
    names_checksum: u32,
    value_checksum: u32,
}

/// What the checksums of a segment's records begin with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) history: u32,
    pub(crate) segment: u32,
}

impl Seed {
    fn of_place(self, offset: u32) -> u32 {
        let sum = crc32c::crc32c_append(self.history, &self.segment.to_le_bytes());
        crc32c::crc32c_append(sum, &offset.to_le_bytes())
    }

    fn of_sequence(self, sequence: u64) -> u32 {
        crc32c::crc32c_append(self.history, &sequence.to_le_bytes())
    }
}

/// A record that is to be appended.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// What it is of.
    pub key: &'a [u8],
    /// What its owner needs of it in memory.
    pub head: &'a [u8],
    /// The rest.
    pub value: &'a [u8],
}

impl Entry<'_> {
    /// How many bytes the record takes in a segment.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEAD_BYTES + self.key.len() + self.head.len() + self.value.len()
    }

    /// Whether it is short enough.
    pub(crate) fn fits(&self) -> bool {
        self.key.len() <= KEY_BYTES_MAX
            && self.head.len() <= KEY_BYTES_MAX
            && self.value.len() <= VALUE_BYTES_MAX
    }
}

impl RecordHead {
    /// Appends a record to `out` as it is to lie at an offset.
    pub(crate) fn write(
        entry: Entry<'_>,
        (sequence, batch_place): (u64, u16),
        (seed, offset): (Seed, u32),
        out: &mut Vec<u8>,
    ) {
        let begin = out.len();
        let sum = crc32c::crc32c_append(seed.of_sequence(sequence), entry.key);
        let names = crc32c::crc32c_append(sum, entry.head);
        let value = crc32c::crc32c_append(seed.of_sequence(sequence), entry.value);
        let length = |part: &[u8]| u32::try_from(part.len()).expect("it was checked to fit");
        let short = |part: &[u8]| u16::try_from(part.len()).expect("it was checked to fit");
        out.reserve(entry.record_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&length(entry.value).to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&names.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(&short(entry.key).to_le_bytes());
        out.extend_from_slice(&short(entry.head).to_le_bytes());
        out.extend_from_slice(&batch_place.to_le_bytes());
        // The last byte is never 0, so that one that was not written differs from one that was.
        out.extend_from_slice(&[0, RECORD_MARK]);
        let sum = crc32c::crc32c_append(seed.of_place(offset), &out[begin + 4..]);
        out[begin..begin + 4].copy_from_slice(&sum.to_le_bytes());
        for part in [entry.key, entry.head, entry.value] {
            out.extend_from_slice(part);
        }
    }

    /// The head of the record at an offset, if these bytes begin with one.
    pub(crate) fn decode(bytes: &[u8], (seed, offset): (Seed, u32)) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEAD_BYTES)?;
        let sum = crc32c::crc32c_append(seed.of_place(offset), &bytes[4..]);
        if u32_at(bytes, 0) != sum || bytes[30] != 0 || bytes[31] != RECORD_MARK {
            return None;
        }
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let head = Self {
            sequence: u64_at(bytes, 8),
            batch_place: short(28),
            key_bytes: short(24),
            head_bytes: short(26),
            value_bytes: u32_at(bytes, 4),
            names_checksum: u32_at(bytes, 16),
            value_checksum: u32_at(bytes, 20),
        };
        let is_plausible = (1..NUMBER_MAX).contains(&head.sequence);
        (is_plausible && head.value_bytes as usize <= VALUE_BYTES_MAX).then_some(head)
    }

    pub(crate) fn record_bytes(&self) -> u32 {
        RECORD_HEAD_BYTES as u32 + self.names_bytes() + self.value_bytes
    }

    pub(crate) fn names_bytes(&self) -> u32 {
        u32::from(self.key_bytes) + u32::from(self.head_bytes)
    }

    /// Key and head, if these bytes are what was written behind the fixed part.
    pub(crate) fn names<'a>(&self, bytes: &'a [u8], seed: Seed) -> Option<(&'a [u8], &'a [u8])> {
        let bytes = bytes.get(..self.names_bytes() as usize)?;
        let sum = crc32c::crc32c_append(seed.of_sequence(self.sequence), bytes);
        (sum == self.names_checksum).then(|| bytes.split_at(self.key_bytes.into()))
    }

    /// Whether these bytes are the value that was written.
    pub(crate) fn is_value(&self, bytes: &[u8], seed: Seed) -> bool {
        let sum = crc32c::crc32c_append(seed.of_sequence(self.sequence), bytes);
        bytes.len() == self.value_bytes as usize && sum == self.value_checksum
    }

    /// The greatest sequence number that was synced when the record was written.
    pub(crate) fn synced_before(&self) -> u64 {
        let before = self.sequence - 1;
        before.saturating_sub(self.batch_place.into())
    }
}

/// The number at a place where there are as many bytes.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The number at a place where there are as many bytes.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

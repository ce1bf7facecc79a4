//! What is known of a segment, and the names of the files.

use crate::format::{FILE_HEAD_BYTES, FileHead, FileKind, HeadError, History, Location};
use crate::medium::{MediumFile, read_lossy};

/// Which records a segment has, and where they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) segment: u32,
    pub(crate) first: u64,
    /// Less than `first` if there is none.
    pub(crate) last: u64,
    /// Behind the last record, in bytes.
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn records(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

/// A record as its owner is shown it: all but its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visited<'a> {
    /// Its number.
    pub sequence: u64,
    /// Its key.
    pub key: &'a [u8],
    /// Its head.
    pub head: &'a [u8],
    /// Where it lies.
    pub location: Location,
    /// How long its value is.
    pub value_bytes: u32,
    /// Whether it is known that the value cannot be read.
    pub is_value_lost: bool,
}

const SEGMENT_SUFFIX: &str = ".log";
const HINT_SUFFIX: &str = ".hint";

pub(crate) fn segment_name(segment: u32) -> String {
    format!("{segment:010}{SEGMENT_SUFFIX}")
}

pub(crate) fn hint_name(segment: u32) -> String {
    format!("{segment:010}{HINT_SUFFIX}")
}

pub(crate) fn spare_name(number: u32) -> String {
    format!("spare-{number}")
}

/// The segment whose file has this name.
pub(crate) fn segment_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// The segment whose hint has this name.
pub(crate) fn hint_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(HINT_SUFFIX)?.parse().ok()?;
    (hint_name(number) == name).then_some(number)
}

/// The number of the spare file that has this name.
pub(crate) fn spare_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("spare-")?.parse().ok()?;
    (spare_name(number) == name).then_some(number)
}

/// Reads a whole file of a kind: its head and its body, where both are sound.
pub(crate) fn read_file(
    file: &dyn MediumFile,
    kind: FileKind,
    history: History,
) -> Result<(FileHead, Vec<u8>), HeadError> {
    let head = read_head(file, 0, kind, history)?;
    let size = file.size().map_err(|_| HeadError::Damaged)?;
    let begin = FILE_HEAD_BYTES as u64;
    if head.body_bytes > size.saturating_sub(begin) {
        return Err(HeadError::Damaged);
    }
    let mut body = vec![0; usize::try_from(head.body_bytes).map_err(|_| HeadError::Damaged)?];
    read_lossy(file, begin, &mut body);
    match crc32c::crc32c(&body) == head.body_checksum {
        true => Ok((head, body)),
        false => Err(HeadError::Damaged),
    }
}

/// Reads the head that lies at an offset of a file.
pub(crate) fn read_head(
    file: &dyn MediumFile,
    offset: u64,
    kind: FileKind,
    history: History,
) -> Result<FileHead, HeadError> {
    let mut bytes = [0; FILE_HEAD_BYTES];
    read_lossy(file, offset, &mut bytes);
    FileHead::decode(&bytes, kind, history)
}
